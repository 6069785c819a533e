//! Erasing what is known of an event, but for the fact that it happened.

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;

use super::written::sortable;
use super::{Head, State, Store, StoreError, describe};
use crate::identity::EventId;

/// Everything that says more than that the event happened, but for what it is found by.
const CONTENT: &str = "payload, payload_parts, event, event_parts, #request, #hour, last_error, reason";
/// What an operator finds it by goes last: an erasure that was cut short is found again, and finished.
const PLACE: &str = "#order, order_key, order_sort";
/// What redrive finds it by. For redrive it goes last.
const WORK: &str = "#work, next_attempt_at";

/// On whose behalf an event is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErasedBy {
    /// An operator asked for it.
    Operator,
    /// The event has expired.
    Retention,
}

impl ErasedBy {
    fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Retention => "retention",
        }
    }
}

impl Store {
    /// Removes an event's content and leaves a tombstone, which keeps a late repeat from being a new event. False where the
    /// event has changed since `head` was read.
    ///
    /// The head goes first: parts without a head are never read. The tombstone's own end is written last: DynamoDB may then delete it,
    /// and nothing else is left.
    pub async fn erase(&self, id: &EventId, head: &Head, by: ErasedBy) -> Result<bool, StoreError> {
        let now = Timestamp::now();
        let (first, last) = match by {
            ErasedBy::Operator => (format!("{CONTENT}, {WORK}"), PLACE.to_owned()),
            ErasedBy::Retention => (CONTENT.to_owned(), format!("{PLACE}, {WORK}")),
        };
        let change = format!("SET #state = :erased, erased_at = :now, erased_by = :by REMOVE {first}");
        let values = [
            (":by", AttributeValue::S(by.as_str().to_owned())),
            (":erased", AttributeValue::S(State::Erased.as_str().to_owned())),
            (":now", AttributeValue::S(sortable(now))),
            (":seen", AttributeValue::S(head.state.as_str().to_owned())),
        ];
        if !self
            .update(id, &change, "#state = :seen OR #state = :erased", values)
            .await?
        {
            return Ok(false);
        }
        for sort_key in self.beside_head(id).await? {
            let delete = self.client.delete_item().table_name(&self.table);
            let delete = delete
                .key("pk", AttributeValue::S(id.to_string()))
                .key("sk", AttributeValue::S(sort_key));
            delete
                .send()
                .await
                .map_err(|error| StoreError::DynamoDb(describe(&error)))?;
        }
        let mut values = vec![(":erased", AttributeValue::S(State::Erased.as_str().to_owned()))];
        let mut change = format!("REMOVE {last}");
        if let Some(end) = self.retention.end_of_tombstone(now) {
            change += " SET expires_at = :end";
            values.push((":end", end));
        }
        self.update(id, &change, "#state = :erased", values).await
    }

    /// The parts of an event, and other bodies that came under its id.
    async fn beside_head(&self, id: &EventId) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        let mut start = None;
        loop {
            let query = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression("pk = :id")
                .expression_attribute_values(":id", AttributeValue::S(id.to_string()))
                .projection_expression("sk")
                .consistent_read(true)
                .set_exclusive_start_key(start);
            let page = query
                .send()
                .await
                .map_err(|error| StoreError::DynamoDb(describe(&error)))?;
            let sort_keys = page.items().iter().filter_map(|item| item.get("sk")?.as_s().ok());
            keys.extend(sort_keys.filter(|key| *key != "head").cloned());
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(keys);
            }
        }
    }
}
