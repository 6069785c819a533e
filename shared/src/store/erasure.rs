//! Erasing what is known of an event, but for the fact that it happened.

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;

use super::written::sortable;
use super::{Head, State, Store, StoreError};
use crate::identity::EventId;

/// Everything that says more than that the event happened, but for what it is found by.
const CONTENT: &str = "payload, event, #request, #hour, #work, next_attempt_at, last_error, reason";
/// What it is found by goes last, with the names of its parts: an erasure that was interrupted is found again, and finished.
const LAST: &str = "payload_parts, event_parts, #order, order_key, order_sort, has_conflicts, erasing";

impl Store {
    /// Removes an event's content and leaves a tombstone, which keeps a late repeat from being a new event. False where the
    /// event has changed since `head` was read.
    ///
    /// The head changes first: the parts of an erased event are never read.
    pub async fn erase(&self, id: &EventId, head: &Head) -> Result<bool, StoreError> {
        let change = format!("SET #state = :erased, erased_at = :now, erasing = :yes REMOVE {CONTENT}");
        let values = [
            (":erased", AttributeValue::S(State::Erased.as_str().to_owned())),
            (":now", AttributeValue::S(sortable(Timestamp::now()))),
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
        let values = [(":erased", AttributeValue::S(State::Erased.as_str().to_owned()))];
        self.update(id, &format!("REMOVE {LAST}"), "#state = :erased", values)
            .await
    }

    /// Deletes again what is stored beside a tombstone.
    pub async fn erase_beside(&self, id: &EventId) -> Result<(), StoreError> {
        self.delete_beside_head(id).await
    }

    /// Deletes what is stored under an event id that has no head: parts that no delivery has committed. False where there is nothing.
    pub async fn erase_leftovers(&self, id: &EventId) -> Result<bool, StoreError> {
        let is_there = self.has_leftovers(id).await?;
        if is_there {
            self.delete_beside_head(id).await?;
        }
        Ok(is_there)
    }
}
