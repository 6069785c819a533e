//! What was received: by order, and by hour.

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};

use super::written::{order_key, sortable};
use super::{Store, StoreError, describe, ids_of, index_key};
use crate::identity::EventId;

/// An hour of UTC: what the index `by_hour` is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour(Timestamp);

impl Hour {
    /// The hour that `time` lies in.
    pub fn containing(time: Timestamp) -> Self {
        let start = time.as_second() - time.as_second().rem_euclid(3600);
        Self(Timestamp::from_second(start).unwrap_or(time))
    }

    /// Its first moment.
    pub fn start(self) -> Timestamp {
        self.0
    }

    /// The one after it.
    pub fn next(self) -> Self {
        Self(self.0 + SignedDuration::from_hours(1))
    }

    /// As the index writes it: `2024-09-30T10`.
    pub(super) fn key(self) -> String {
        sortable(self.0)[..13].to_owned()
    }
}

impl Store {
    /// The events of an order, in the order they were received in.
    pub async fn of_order(&self, provider: &str, shop: &str, order: &str) -> Result<Vec<EventId>, StoreError> {
        let mut ids = Vec::new();
        let mut start = None;
        loop {
            let query = self.client.query().table_name(&self.table).index_name("by_order");
            let query = query
                .key_condition_expression("order_key = :order")
                .expression_attribute_values(":order", AttributeValue::S(order_key(provider, shop, order)))
                .set_exclusive_start_key(start);
            let page = query
                .send()
                .await
                .map_err(|error| StoreError::DynamoDb(describe(&error)))?;
            ids.extend(ids_of(page.items()));
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(ids);
            }
        }
    }

    /// Events of a provider that were received in `hour`, from one shard of the index and some at a time; and the key to
    /// go on after, if there are more: the last one's time of receipt and id.
    pub async fn of_hour(
        &self,
        provider: &str,
        hour: Hour,
        shard: u8,
        limit: i32,
        after: Option<&(String, String)>,
    ) -> Result<(Vec<EventId>, Option<(String, String)>), StoreError> {
        let key = AttributeValue::S(format!("{provider}#{}#{shard}", hour.key()));
        let start = after.map(|(received_at, id)| index_key(("hour", key.clone()), ("received_at", received_at), id));
        let query = self.client.query().table_name(&self.table).index_name("by_hour");
        let query = query
            .key_condition_expression("#hour = :hour")
            .expression_attribute_names("#hour", "hour")
            .expression_attribute_values(":hour", key)
            .limit(limit)
            .set_exclusive_start_key(start);
        let page = query
            .send()
            .await
            .map_err(|error| StoreError::DynamoDb(describe(&error)))?;
        let last = page.last_evaluated_key.as_ref().and_then(|key| {
            Some((
                key.get("received_at")?.as_s().ok()?.clone(),
                key.get("pk")?.as_s().ok()?.clone(),
            ))
        });
        Ok((ids_of(page.items()), last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_begins_on_the_hour() {
        let hour = Hour::containing("2024-09-30T10:43:44.5Z".parse().expect("a time"));
        assert_eq!(hour.start().to_string(), "2024-09-30T10:00:00Z");
        assert_eq!(
            (hour.key().as_str(), hour.next().key().as_str()),
            ("2024-09-30T10", "2024-09-30T11")
        );
    }
}
