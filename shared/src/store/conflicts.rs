//! Conflicts: other bodies that arrived under the id of a stored event. Each is kept next to the event's head, and can
//! be published as an event of its own.
//!
//! The indexes name conflicts under keys that begin with `conflict#`, so that a reader of heads does not meet them.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use futures_util::future::try_join_all;
use jiff::Timestamp;

use super::commit::Transacted;
use super::event_items::{order_key, sortable};
use super::parts::parts_named_by;
use super::{
    AttemptId, Change, Condition, EventItems, FIRST_REDRIVE_AFTER, Head, Item, NewEvent, Reason, RetryPolicy, State,
    Store, StoreError, head_key, item_key, part_key, text,
};
use crate::identity::EventId;

/// The prefix of a conflict's sort key, and of its keys in the indexes.
pub(super) const CONFLICT: &str = "conflict#";
/// The most conflicts of one event that are read.
const CONFLICTS: usize = 100;

/// The result of [`Store::put_conflict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptConflict {
    /// The body is kept, or was kept before.
    Kept,
    /// The event is erased, so the body is not kept.
    Erased,
}

/// The result of [`Store::publish_conflict`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishedConflict {
    /// The event is in the outbox.
    Accepted,
    /// An earlier call has put the event into the outbox, under this id.
    Before(EventId),
    /// The conflict is gone.
    Gone,
}

/// Another body that arrived under the id of a stored event.
pub struct Conflict {
    /// The id of the stored event.
    pub id: EventId,
    /// The SHA-256 of the other body.
    pub payload_sha256: String,
    /// The conflict's item, which has the attributes of a head.
    pub head: Head,
}

impl Conflict {
    fn read(item: Item) -> Result<Self, StoreError> {
        let id = EventId::stored(text(&item, "pk").ok_or(StoreError::Corrupt("pk"))?);
        let head = Head::read(item)?;
        Ok(Self {
            id,
            payload_sha256: head.payload_sha256.clone(),
            head,
        })
    }

    /// The id of the event that the conflict was published as.
    pub fn published_as(&self) -> Option<EventId> {
        self.head.text("published_as").map(EventId::stored)
    }
}

/// The sort key of a conflict.
fn sort_key(payload_sha256: &str) -> String {
    format!("{CONFLICT}{payload_sha256}")
}

impl Store {
    /// Keeps another body that arrived under the id of a stored event. Does nothing if that body is kept already, or if
    /// the event is erased.
    pub async fn put_conflict(
        &self,
        new_event: &NewEvent<'_>,
        policy: impl Into<RetryPolicy>,
    ) -> Result<KeptConflict, StoreError> {
        let mut items = EventItems::of(new_event, &AttemptId::random());
        let policy = policy.into().with_parts(!items.parts.is_empty());
        // Saves writing the parts again.
        if !items.parts.is_empty() && self.conflict(new_event.id, &items.payload_sha256).await?.is_some() {
            return Ok(KeptConflict::Kept);
        }
        let end_of_manifest = self.put_parts(new_event, &mut items, BTreeSet::new(), policy).await?;
        let mut item = items.head;
        let text = |value: &str| AttributeValue::S(value.to_owned());
        item.insert("sk".to_owned(), text(&sort_key(&items.payload_sha256)));
        // By these keys the task `alert` finds the conflict. Only the head of an event is in the outbox.
        let work = format!("{CONFLICT}{}", new_event.id.shard());
        item.insert("work".to_owned(), text(&work));
        let next = sortable(Timestamp::now() + FIRST_REDRIVE_AFTER);
        item.insert("next_attempt_at".to_owned(), text(&next));
        for index in ["order_key", "hour"] {
            if let Some(AttributeValue::S(key)) = item.get_mut(index) {
                key.insert_str(0, CONFLICT);
            }
        }
        item.insert("state".to_owned(), text(State::Quarantined.as_str()));
        item.insert("reason".to_owned(), text(Reason::Conflict.as_str()));
        // An update rather than a condition check, which needs a permission of its own.
        let note = Change::default()
            .set("has_conflicts", &true)
            .only_if(Condition::item_exists().and(Condition::not_in_state(State::Erased)))
            .transacted(&self.table, head_key(new_event.id));
        let absent = Condition::no_item();
        let transacted = self.put_and_update(item, &absent, note, end_of_manifest, policy);
        match transacted.await? {
            Transacted::Done => Ok(KeptConflict::Kept),
            Transacted::Refused(refused) => match refused.as_slice() {
                [_, true, ..] => {
                    // The parts that were written for it must not outlive the erasure.
                    self.delete_beside_head(new_event.id).await?;
                    Ok(KeptConflict::Erased)
                }
                [true, ..] => Ok(KeptConflict::Kept),
                _ => Err(StoreError::Swept),
            },
        }
    }

    /// Reads at most 100 conflicts of an event.
    pub async fn conflicts_of(&self, id: &EventId) -> Result<Vec<Conflict>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        // A page ends after 1 MB, which a few conflicts fill.
        loop {
            let query = self.client.query().table_name(&self.table);
            let query = query
                .key_condition_expression("pk = :id AND begins_with(sk, :conflict)")
                .expression_attribute_values(":id", AttributeValue::S(id.to_string()))
                .expression_attribute_values(":conflict", AttributeValue::S(CONFLICT.to_owned()))
                .consistent_read(true)
                .set_exclusive_start_key(start);
            let page = query.send().await?;
            items.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() || items.len() >= CONFLICTS {
                break;
            }
        }
        items.into_iter().take(CONFLICTS).map(Conflict::read).collect()
    }

    /// Lists the conflicts whose body names an order, in the order of receipt: the event's id and the SHA-256 of the
    /// body.
    pub async fn conflicts_of_order(
        &self,
        provider: &str,
        shop: &str,
        order: &str,
    ) -> Result<Vec<(EventId, String)>, StoreError> {
        let order = format!("{CONFLICT}{}", order_key(provider, shop, order));
        let keys = self.keys_of_order(&order).await?;
        Ok(keys
            .into_iter()
            .filter_map(|(id, sk)| Some((id, sk.strip_prefix(CONFLICT)?.to_owned())))
            .collect())
    }

    /// Returns one conflict, or `None` if the table does not hold it.
    pub async fn conflict(&self, id: &EventId, payload_sha256: &str) -> Result<Option<Conflict>, StoreError> {
        self.get(id, &sort_key(payload_sha256))
            .await?
            .map(Conflict::read)
            .transpose()
    }

    /// Writes the event of a conflict under an id of its own, and notes that id on the conflict: both or neither.
    pub async fn publish_conflict(
        &self,
        conflict: &Conflict,
        new_event: &NewEvent<'_>,
        policy: impl Into<RetryPolicy>,
    ) -> Result<PublishedConflict, StoreError> {
        let mut items = EventItems::of(new_event, &AttemptId::random());
        let policy = policy.into().with_parts(!items.parts.is_empty());
        let end_of_manifest = self.put_parts(new_event, &mut items, BTreeSet::new(), policy).await?;
        let absent = Condition::no_event(Timestamp::now());
        let key = item_key(conflict.id.as_str(), &sort_key(&conflict.payload_sha256));
        let note = Change::default()
            .set("published_as", new_event.id.as_str())
            .remove(&["work", "next_attempt_at"])
            .only_if(Condition::item_exists().and(Condition::Absent("published_as")))
            .transacted(&self.table, key);
        let transacted = self.put_and_update(items.head, &absent, note, end_of_manifest, policy);
        match transacted.await? {
            Transacted::Done => Ok(PublishedConflict::Accepted),
            Transacted::Refused(refused) => match refused.as_slice() {
                [false, false, ..] => Err(StoreError::Swept),
                [_, true, ..] => {
                    let now = self.conflict(&conflict.id, &conflict.payload_sha256).await?;
                    let before = now.and_then(|conflict| conflict.published_as());
                    Ok(before.map_or(PublishedConflict::Gone, PublishedConflict::Before))
                }
                // The same body was published from another conflict.
                _ => Ok(PublishedConflict::Before(new_event.id.clone())),
            },
        }
    }

    /// Deletes one conflict with its parts. Returns false if it is gone.
    pub async fn erase_conflict(&self, id: &EventId, payload_sha256: &str) -> Result<bool, StoreError> {
        let sort_key = sort_key(payload_sha256);
        let Some(item) = self.get(id, &sort_key).await? else {
            return Ok(false);
        };
        let key = item_key(id.as_str(), &sort_key);
        let parts = parts_named_by(&item);
        if !parts.is_empty() {
            // An interrupted erasure is found by this attribute, and completed.
            let begin = Change::default()
                .set("erasing", &Timestamp::now())
                .only_if(Condition::item_exists());
            if self
                .update_item(key.clone(), &begin, ReturnValue::None)
                .await?
                .is_none()
            {
                return Ok(false);
            }
        }
        try_join_all(parts.iter().map(|name| self.delete(part_key(id, name)))).await?;
        // After its parts, since it names them.
        self.delete(key).await?;
        Ok(true)
    }
}
