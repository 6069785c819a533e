//! Conflicts: other bodies that came under the id of a known event. Each is kept beside the event's head, and can be published as
//! an event of its own.
//!
//! The indexes name conflicts under keys that begin with `conflict#`, so that a reader that knows heads alone does not meet them.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem, Update};
use futures_util::future::try_join_all;
use jiff::Timestamp;

use super::event_items::{order_key, sortable};
use super::parts::{Condition, parts_named_by};
use super::{
    AttemptId, EventItems, FIRST_REDRIVE_AFTER, Head, Item, NewEvent, Reason, RetryPolicy, State, Store, StoreError,
    describe, item_key, part_key, retry_until,
};
use crate::identity::EventId;

/// What a conflict's sort key, and its keys in the indexes, begin with.
pub(super) const CONFLICT: &str = "conflict#";
/// The most conflicts of one event that are read.
const CONFLICTS: usize = 100;

/// How keeping a conflict ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptConflict {
    /// It is kept, or was kept before.
    Kept,
    /// The event is erased: nothing is kept.
    Erased,
}

/// How publishing a conflict ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishedConflict {
    /// The event is in the outbox.
    Accepted,
    /// An earlier call has put it there, under this id.
    Before(EventId),
    /// The conflict is gone.
    Gone,
}

/// How a transaction ended: done, or which of its conditions do not hold.
pub(super) enum Transacted {
    Done,
    Refused(Vec<bool>),
}

/// Another body that came under the id of a known event.
pub struct Conflict {
    /// The event's id.
    pub id: EventId,
    /// The hash of the body.
    pub payload_sha256: String,
    /// Its item.
    pub head: Head,
}

impl Conflict {
    fn read(item: Item) -> Result<Self, StoreError> {
        let id = item.get("pk").and_then(|pk| pk.as_s().ok());
        let id = EventId::stored(id.ok_or(StoreError::Corrupt("pk"))?);
        let head = Head::read(item)?;
        Ok(Self {
            id,
            payload_sha256: head.payload_sha256.clone(),
            head,
        })
    }

    /// The id of the event that it was published as.
    pub fn published_as(&self) -> Option<EventId> {
        self.head.text("published_as").map(EventId::stored)
    }
}

/// The sort key of a conflict.
fn sort_key(payload_sha256: &str) -> String {
    format!("{CONFLICT}{payload_sha256}")
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

impl Store {
    /// Keeps another body that came under a known event id, beside the first. Does nothing if that body is there already, or if the
    /// event is erased.
    pub async fn put_conflict(
        &self,
        new_event: &NewEvent<'_>,
        policy: impl Into<RetryPolicy>,
    ) -> Result<KeptConflict, StoreError> {
        let mut written = EventItems::of(new_event, &AttemptId::random());
        let policy = policy.into().with_parts(!written.parts.is_empty());
        // Its parts need not be written again.
        if !written.parts.is_empty() && self.conflict(new_event.id, &written.payload_sha256).await?.is_some() {
            return Ok(KeptConflict::Kept);
        }
        let end_of_manifest = self.put_parts(new_event, &mut written, BTreeSet::new(), policy).await?;
        let mut item = written.head;
        item.insert("sk".to_owned(), text(&sort_key(&written.payload_sha256)));
        // By this the task `alert` finds it. The outbox knows the event by its head alone.
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
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(pk)")
            .build()
            .expect("table and item are set");
        // An update, and not a mere check of the condition, since that takes a permission of its own.
        let note = Update::builder()
            .table_name(&self.table)
            .set_key(Some(item_key(new_event.id.as_str(), "head")))
            .update_expression("SET has_conflicts = :yes")
            .condition_expression("attribute_exists(pk) AND #state <> :erased")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":erased", text(State::Erased.as_str()))
            .expression_attribute_values(":yes", AttributeValue::Bool(true))
            .build()
            .expect("table, key and expression are set");
        match self.put_and_update(put, note, end_of_manifest, policy).await? {
            Transacted::Done => Ok(KeptConflict::Kept),
            Transacted::Refused(refused) => match refused.as_slice() {
                [_, true, ..] => {
                    // What was written for it must not outlive the erasure.
                    self.delete_beside_head(new_event.id).await?;
                    Ok(KeptConflict::Erased)
                }
                [true, ..] => Ok(KeptConflict::Kept),
                _ => Err(StoreError::Swept),
            },
        }
    }

    /// Writes an item and changes another, both or neither; where the item has parts, with the end of their manifest.
    pub(super) async fn put_and_update(
        &self,
        put: Put,
        update: Update,
        end_of_manifest: Option<TransactWriteItem>,
        policy: RetryPolicy,
    ) -> Result<Transacted, StoreError> {
        let items = [
            TransactWriteItem::builder().put(put).build(),
            TransactWriteItem::builder().update(update).build(),
        ];
        let items: Vec<_> = items.into_iter().chain(end_of_manifest).collect();
        retry_until(policy, || self.transact(&items)).await
    }

    /// A transaction. It is an error if it ends for another reason than that a condition does not hold.
    pub(super) async fn transact(
        &self,
        items: &[TransactWriteItem],
    ) -> Result<Transacted, SdkError<TransactWriteItemsError>> {
        let transaction = self.client.transact_write_items();
        let Err(error) = transaction.set_transact_items(Some(items.to_vec())).send().await else {
            return Ok(Transacted::Done);
        };
        let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() else {
            return Err(error);
        };
        let reasons = cancelled.cancellation_reasons().iter();
        let refused: Vec<_> = reasons
            .map(|reason| reason.code() == Some("ConditionalCheckFailed"))
            .collect();
        if refused.contains(&true) {
            Ok(Transacted::Refused(refused))
        } else {
            Err(error)
        }
    }

    /// The conflicts of an event, at most 100 of them.
    pub async fn conflicts_of(&self, id: &EventId) -> Result<Vec<Conflict>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        // A page ends after 1 MB, which a few conflicts fill.
        loop {
            let query = self.client.query().table_name(&self.table);
            let query = query
                .key_condition_expression("pk = :id AND begins_with(sk, :conflict)")
                .expression_attribute_values(":id", text(id.as_str()))
                .expression_attribute_values(":conflict", text(CONFLICT))
                .consistent_read(true)
                .set_exclusive_start_key(start);
            let page = query
                .send()
                .await
                .map_err(|error| StoreError::DynamoDb(describe(&error)))?;
            items.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() || items.len() >= CONFLICTS {
                break;
            }
        }
        items.into_iter().take(CONFLICTS).map(Conflict::read).collect()
    }

    /// The conflicts whose body names an order, in the order they were received in.
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

    /// Writes the event of a conflict under an id of its own, and notes that id on the conflict, both or neither.
    pub async fn publish_conflict(
        &self,
        conflict: &Conflict,
        new_event: &NewEvent<'_>,
        policy: impl Into<RetryPolicy>,
    ) -> Result<PublishedConflict, StoreError> {
        let mut written = EventItems::of(new_event, &AttemptId::random());
        let policy = policy.into().with_parts(!written.parts.is_empty());
        let end_of_manifest = self.put_parts(new_event, &mut written, BTreeSet::new(), policy).await?;
        let absent = Condition::absent(Timestamp::now());
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(written.head))
            .condition_expression(absent.expression())
            .set_expression_attribute_names(absent.names())
            .set_expression_attribute_values(absent.values())
            .build()
            .expect("table and item are set");
        let note = Update::builder()
            .table_name(&self.table)
            .set_key(Some(item_key(
                conflict.id.as_str(),
                &sort_key(&conflict.payload_sha256),
            )))
            .update_expression("SET published_as = :by REMOVE #work, next_attempt_at")
            .expression_attribute_names("#work", "work")
            .condition_expression("attribute_exists(pk) AND attribute_not_exists(published_as)")
            .expression_attribute_values(":by", text(new_event.id.as_str()))
            .build()
            .expect("table, key and expression are set");
        match self.put_and_update(put, note, end_of_manifest, policy).await? {
            Transacted::Done => Ok(PublishedConflict::Accepted),
            Transacted::Refused(refused) => match refused.as_slice() {
                [false, false, ..] => Err(StoreError::Swept),
                [_, true, ..] => {
                    let now = self.conflict(&conflict.id, &conflict.payload_sha256).await?;
                    let before = now.and_then(|conflict| conflict.published_as());
                    Ok(before.map_or(PublishedConflict::Gone, PublishedConflict::Before))
                }
                // The same body was published out of another conflict.
                _ => Ok(PublishedConflict::Before(new_event.id.clone())),
            },
        }
    }

    /// Deletes one conflict with its parts. False where it is gone.
    pub async fn erase_conflict(&self, id: &EventId, payload_sha256: &str) -> Result<bool, StoreError> {
        let sort_key = sort_key(payload_sha256);
        let Some(item) = self.get(id, &sort_key).await? else {
            return Ok(false);
        };
        let parts = parts_named_by(&item);
        if !parts.is_empty() {
            // An erasure that is cut short is found again by this, and finished.
            let begin = self.client.update_item().table_name(&self.table);
            let begin = begin
                .set_key(Some(item_key(id.as_str(), &sort_key)))
                .update_expression("SET erasing = :now")
                .expression_attribute_values(":now", AttributeValue::S(sortable(Timestamp::now())))
                .condition_expression("attribute_exists(pk)");
            match begin.send().await {
                Ok(_) => {}
                Err(error) if error.code() == Some("ConditionalCheckFailedException") => return Ok(false),
                Err(error) => return Err(StoreError::DynamoDb(describe(&error))),
            }
        }
        try_join_all(parts.iter().map(|name| self.delete(part_key(id, name)))).await?;
        // Last, since it names its parts.
        self.delete(item_key(id.as_str(), &sort_key)).await?;
        Ok(true)
    }
}
