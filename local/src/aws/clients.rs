//! The AWS clients for the local stack.

use aws_credential_types::Credentials;
use aws_sdk_sqs::types::QueueAttributeName;

use crate::aws::table::{self, refused};
use crate::project::settings::AWS_KEY;
use crate::project::table::Table;
use crate::{ACCOUNT, ALARM_TOPIC_ARN, ALARMS, Error, NAME, REGION, TOPIC_ARN};

/// The AWS clients for a local stack.
#[derive(Debug, Clone)]
pub struct Clients {
    /// The client for the table.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// The client for the topic.
    pub sns: aws_sdk_sns::Client,
    /// The client for the queue.
    pub sqs: aws_sdk_sqs::Client,
}

impl Clients {
    /// Creates clients for the endpoints at these URLs.
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

    /// Creates `table`, and the topics of events and of alarms, each with a queue that receives its messages in SNS's
    /// envelope.
    pub async fn create(&self, table: &Table) -> Result<(), Error> {
        table::create(&self.dynamodb, table).await?;
        self.create_topic(NAME, TOPIC_ARN).await?;
        self.create_topic(ALARMS, ALARM_TOPIC_ARN).await
    }

    /// Creates a topic, and a queue of the same name that is subscribed to it.
    async fn create_topic(&self, name: &str, arn: &str) -> Result<(), Error> {
        self.sns.create_topic().name(name).send().await.map_err(refused)?;
        // As long as a consumer needs. `cargo local send` makes other messages visible again.
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
}
