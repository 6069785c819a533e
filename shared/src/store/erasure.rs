//! Erases the content of an event, and keeps the fact that it happened.

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use strum::IntoStaticStr;

use super::{Change, Condition, Head, State, Store, StoreError};
use crate::identity::EventId;

/// The attributes that say more than that the event happened, except those by which it is found.
const CONTENT: [&str; 8] = [
    "payload",
    "event",
    "event_sha256",
    "request",
    "last_error",
    "reason",
    "order_version",
    "reconciled_from",
];
/// The attributes that are removed last: the names of the parts, and the keys by which an interrupted erasure is found
/// and completed. The tombstone keeps its place in the index `by_hour`, so that an audit counts it.
const LAST: [&str; 7] = [
    "payload_parts",
    "event_parts",
    "order",
    "order_key",
    "order_sort",
    "has_conflicts",
    "erasing",
];
/// The keys by which redrive finds the event. Redrive removes them last.
const WORK: [&str; 2] = ["work", "next_attempt_at"];

/// On whose behalf an event is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ErasedBy {
    /// An operator asked for it.
    Operator,
    /// The event has expired.
    Retention,
}

impl Store {
    /// Removes an event's content and leaves a tombstone, by which a late repeat is still a duplicate. Returns false if
    /// the event has changed since `head` was read.
    ///
    /// The head changes first, so that the parts of an erased event are never read. The expiry of the tombstone is
    /// written last, when nothing is left that DynamoDB would leave behind.
    pub async fn erase(&self, id: &EventId, head: &Head, by: ErasedBy) -> Result<bool, StoreError> {
        let now = Timestamp::now();
        let is_erased = Condition::in_state(State::Erased);
        let begin = Change::move_to(State::Erased)
            .set("erased_at", &now)
            .set("erased_by", <&str>::from(by))
            .set("erasing", &true)
            .remove(&CONTENT)
            .only_if(Condition::in_state(head.state).or(is_erased.clone()));
        let end = Change::default().remove(&LAST).only_if(is_erased);
        let (begin, mut end) = match by {
            ErasedBy::Operator => (begin.remove(&WORK), end),
            ErasedBy::Retention => (begin, end.remove(&WORK)),
        };
        if !self.update(id, &begin).await? {
            return Ok(false);
        }
        if let (ErasedBy::Operator, Some(order_key)) = (by, head.text("order_key")) {
            self.note_erased_order(order_key, now).await?;
        }
        // Boxed, because this future is large.
        Box::pin(self.delete_beside_head(id)).await?;
        if let Some(expires_at) = self.retention.end_of_tombstone(now) {
            end = end.set("expires_at", &AttributeValue::N(expires_at.as_second().to_string()));
        }
        self.update(id, &end).await
    }

    /// Repeats the deletion of everything that is stored of an erased event except its tombstone.
    pub async fn erase_beside(&self, id: &EventId) -> Result<(), StoreError> {
        self.delete_beside_head(id).await?;
        Ok(())
    }

    /// Deletes what is stored under an event id that has no head: parts that no delivery has committed. Returns false
    /// if there is nothing, or if a delivery has committed a head in the meantime.
    pub async fn erase_leftovers(&self, id: &EventId) -> Result<bool, StoreError> {
        Ok(self.has_leftovers(id).await? && self.delete_beside_head(id).await?)
    }
}
