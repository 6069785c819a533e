//! The outbox: events that are not published yet.

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, Select};
use jiff::Timestamp;

use crate::aws::clients::Clients;
use crate::aws::table::{SHARDS, refused};
use crate::{Error, NAME};

impl Clients {
    /// Makes the events due that would be due at `until`, as if the time had passed. Returns how many there were.
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

    /// The number of events in the outbox.
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

    /// When the last event of the outbox is due.
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

    /// Queries one shard of the outbox.
    fn outbox(&self, shard: u8) -> QueryFluentBuilder {
        self.dynamodb
            .query()
            .table_name(NAME)
            .index_name("work")
            .key_condition_expression("#work = :work")
            .expression_attribute_names("#work", "work")
            .expression_attribute_values(":work", AttributeValue::S(format!("pending#{shard}")))
    }
}
