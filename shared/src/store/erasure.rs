//! Erasing what is known of an event, but for the fact that it happened.

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;

use super::event_items::sortable;
use super::{Head, State, Store, StoreError};
use crate::identity::EventId;

/// Everything that says more than that the event happened, but for what it is found by.
const CONTENT: &str = "payload, event, #request, last_error, reason";
/// What it is found by goes last, with the names of its parts: an erasure that was interrupted is found again, and finished.
const LAST: &str = "payload_parts, event_parts, #hour, #order, order_key, order_sort, has_conflicts, erasing";
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
    /// The head changes first: the parts of an erased event are never read. The end of the tombstone is written last, when nothing
    /// else is left that DynamoDB would leave behind.
    pub async fn erase(&self, id: &EventId, head: &Head, by: ErasedBy) -> Result<bool, StoreError> {
        let now = Timestamp::now();
        let (first, last) = match by {
            ErasedBy::Operator => (format!("{CONTENT}, {WORK}"), LAST.to_owned()),
            ErasedBy::Retention => (CONTENT.to_owned(), format!("{LAST}, {WORK}")),
        };
        let change = format!("SET #state = :erased, erased_at = :now, erased_by = :by, erasing = :yes REMOVE {first}");
        let values = [
            (":by", AttributeValue::S(by.as_str().to_owned())),
            (":erased", AttributeValue::S(State::Erased.as_str().to_owned())),
            (":now", AttributeValue::S(sortable(now))),
            (":yes", AttributeValue::Bool(true)),
            (":seen", AttributeValue::S(head.state.as_str().to_owned())),
        ];
        if !self
            .update(id, &change, "#state = :seen OR #state = :erased", values)
            .await?
        {
            return Ok(false);
        }
        self.delete_beside_head(id).await?;
        let mut values = vec![(":erased", AttributeValue::S(State::Erased.as_str().to_owned()))];
        let mut change = format!("REMOVE {last}");
        if let Some(end) = self.retention.end_of_tombstone(now) {
            change += " SET expires_at = :end";
            values.push((":end", end));
        }
        self.update(id, &change, "#state = :erased", values).await
    }

    /// Deletes again what is stored beside a tombstone.
    pub async fn erase_beside(&self, id: &EventId) -> Result<(), StoreError> {
        self.delete_beside_head(id).await?;
        Ok(())
    }

    /// Deletes what is stored under an event id that has no head: parts that no delivery has committed. Returns false if there is
    /// nothing, or if a delivery has committed a head in the meantime.
    pub async fn erase_leftovers(&self, id: &EventId) -> Result<bool, StoreError> {
        Ok(self.has_leftovers(id).await? && self.delete_beside_head(id).await?)
    }
}
