//! Table, topic and queue, as `template.yaml` has them, and the clients for them.

use std::fmt::Debug;

use aws_credential_types::Credentials;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, Select,
};
use aws_sdk_sqs::types::QueueAttributeName;
use jiff::Timestamp;

use crate::alerts::{ALARM_TOPIC_ARN, ALARMS};
use crate::settings::AWS_KEY;
use crate::{ACCOUNT, Error, NAME, REGION};

/// Shards of the outbox. A test compares them with the functions' own.
pub const SHARDS: u8 = 16;

/// The AWS clients for a local stack.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the table.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// For the topic.
    pub sns: aws_sdk_sns::Client,
    /// For the queue.
    pub sqs: aws_sdk_sqs::Client,
}

impl Clients {
    /// Clients for the endpoints at these URLs.
    pub fn new(dynamodb_url: &str, messages_url: &str) -> Self {
        let http = aws_smithy_http_client::Builder::new().build_http();
        let credentials = Credentials::new(AWS_KEY, AWS_KEY, None, None, "local");
        Self {
            dynamodb: aws_sdk_dynamodb::Client::from_conf(
                aws_sdk_dynamodb::Config::builder()
                    .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
                    .region(aws_sdk_dynamodb::config::Region::new(REGION))
                    .credentials_provider(credentials.clone())
                    .http_client(http.clone())
                    .endpoint_url(dynamodb_url)
                    .build(),
            ),
            sns: aws_sdk_sns::Client::from_conf(
                aws_sdk_sns::Config::builder()
                    .behavior_version(aws_sdk_sns::config::BehaviorVersion::latest())
                    .region(aws_sdk_sns::config::Region::new(REGION))
                    .credentials_provider(credentials.clone())
                    .http_client(http.clone())
                    .endpoint_url(messages_url)
                    .build(),
            ),
            sqs: aws_sdk_sqs::Client::from_conf(
                aws_sdk_sqs::Config::builder()
                    .behavior_version(aws_sdk_sqs::config::BehaviorVersion::latest())
                    .region(aws_sdk_sqs::config::Region::new(REGION))
                    .credentials_provider(credentials)
                    .http_client(http)
                    .endpoint_url(messages_url)
                    .build(),
            ),
        }
    }

    /// Creates the table with its indexes, and the topics of events and of alarms, each with a queue that is subscribed to it and
    /// receives messages in SNS's envelope.
    pub async fn create(&self) -> Result<(), Error> {
        self.create_table().await?;
        self.create_topic(NAME, crate::TOPIC_ARN).await?;
        self.create_topic(ALARMS, ALARM_TOPIC_ARN).await
    }

    /// Creates a topic, and a queue of the same name that is subscribed to it.
    async fn create_topic(&self, name: &str, arn: &str) -> Result<(), Error> {
        self.sns.create_topic().name(name).send().await.map_err(refused)?;
        // As long as a consumer needs; `cargo local send` makes what is not its own visible again.
        self.sqs
            .create_queue()
            .queue_name(name)
            .attributes(QueueAttributeName::VisibilityTimeout, "30")
            .send()
            .await
            .map_err(refused)?;
        self.sns
            .subscribe()
            .topic_arn(arn)
            .protocol("sqs")
            .endpoint(format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"))
            .send()
            .await
            .map_err(refused)?;
        Ok(())
    }

    /// Makes due now what waits in the outbox and would be due `until` then, as if the time had passed. Gives how many.
    pub async fn make_due(&self, until: Timestamp) -> Result<usize, Error> {
        let mut made_due = 0;
        for shard in 0..SHARDS {
            let waiting = self
                .outbox(shard)
                .key_condition_expression("#work = :work AND next_attempt_at <= :until")
                .expression_attribute_values(":until", AttributeValue::S(format!("{until:.3}")))
                .into_paginator()
                .items()
                .send();
            let waiting: Vec<_> = waiting.collect::<Result<_, _>>().await.map_err(refused)?;
            for mut item in waiting {
                let mut key = |name: &str| item.remove(name).unwrap_or_else(|| AttributeValue::S(String::new()));
                let update = self
                    .dynamodb
                    .update_item()
                    .table_name(NAME)
                    .key("pk", key("pk"))
                    .key("sk", key("sk"))
                    .update_expression("SET next_attempt_at = :now")
                    .condition_expression("#state = :pending")
                    .expression_attribute_names("#state", "state")
                    .expression_attribute_values(":now", AttributeValue::S(format!("{:.3}", Timestamp::now())))
                    .expression_attribute_values(":pending", AttributeValue::S("pending".to_owned()));
                match update.send().await {
                    Ok(_) => made_due += 1,
                    Err(error)
                        if error
                            .as_service_error()
                            .is_some_and(UpdateItemError::is_conditional_check_failed_exception) => {}
                    Err(error) => return Err(refused(error)),
                }
            }
        }
        Ok(made_due)
    }

    /// How many events wait in the outbox.
    pub async fn pending(&self) -> Result<usize, Error> {
        let mut pending = 0;
        for shard in 0..SHARDS {
            let mut pages = self.outbox(shard).select(Select::Count).into_paginator().send();
            while let Some(page) = pages.next().await {
                pending += usize::try_from(page.map_err(refused)?.count).unwrap_or_default();
            }
        }
        Ok(pending)
    }

    /// When the last of them is due.
    pub async fn last_due(&self) -> Result<Option<Timestamp>, Error> {
        let mut last = None;
        for shard in 0..SHARDS {
            let latest = self.outbox(shard).scan_index_forward(false).limit(1);
            let latest = latest.send().await.map_err(refused)?;
            let due = latest.items().first().and_then(|item| item.get("next_attempt_at"));
            last = last.max(due.and_then(|due| due.as_s().ok()?.parse().ok()));
        }
        Ok(last)
    }

    /// What waits in one shard of the outbox.
    fn outbox(&self, shard: u8) -> QueryFluentBuilder {
        self.dynamodb
            .query()
            .table_name(NAME)
            .index_name("work")
            .key_condition_expression("#work = :work")
            .expression_attribute_names("#work", "work")
            .expression_attribute_values(":work", AttributeValue::S(format!("pending#{shard}")))
    }

    async fn create_table(&self) -> Result<(), Error> {
        let keys_only = Projection::builder().projection_type(ProjectionType::KeysOnly).build();
        let indexes = [
            ("by_order", "order_key", "order_sort"),
            ("work", "work", "next_attempt_at"),
            ("by_hour", "hour", "received_at"),
        ];
        let mut table = self
            .dynamodb
            .create_table()
            .table_name(NAME)
            .billing_mode(BillingMode::PayPerRequest)
            .set_key_schema(Some(keys("pk", "sk")?));
        for name in ["pk", "sk"]
            .into_iter()
            .chain(indexes.iter().flat_map(|(_, hash, range)| [*hash, *range]))
        {
            let attribute = AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S)
                .build()
                .map_err(refused)?;
            table = table.attribute_definitions(attribute);
        }
        for (name, hash, range) in indexes {
            let index = GlobalSecondaryIndex::builder()
                .index_name(name)
                .set_key_schema(Some(keys(hash, range)?))
                .projection(keys_only.clone())
                .build()
                .map_err(refused)?;
            table = table.global_secondary_indexes(index);
        }
        match table.send().await {
            // A table that was kept in a file is there already.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(CreateTableError::is_resource_in_use_exception) =>
            {
                Ok(())
            }
            created => created.map(|_| ()).map_err(refused),
        }
    }
}

/// The queue's URL at an endpoint.
pub fn queue_url(messages_url: &str) -> String {
    format!("{messages_url}/{ACCOUNT}/{NAME}")
}

fn keys(hash: &str, range: &str) -> Result<Vec<KeySchemaElement>, Error> {
    [(hash, KeyType::Hash), (range, KeyType::Range)]
        .into_iter()
        .map(|(name, kind)| {
            KeySchemaElement::builder()
                .attribute_name(name)
                .key_type(kind)
                .build()
                .map_err(refused)
        })
        .collect()
}

/// Debug, since that alone shows what the service said.
fn refused(error: impl Debug) -> Error {
    Error::Start(format!("{error:?}"))
}
