//! The outbox: the way of an event from stored to published. Every change of state is conditional on the state before.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::commit::{Commit, Transacted};
use super::conflicts::KeptConflict;
use super::event_items::{EventItems, sortable};
use super::parts::parts_named_by;
use super::retention::{NOTICE, is_expired_tombstone};
use super::{
    AttemptId, Change, Condition, ErasedBy, FIRST_REDRIVE_AFTER, Head, IndexPosition, Item, NewEvent, RetryPolicy,
    State, Store, StoreError, head_key, ids_of, retry_until, text,
};
use crate::codes::Code;
use crate::identity::{EventId, SHARDS};

/// The wait before keys that a throttled DynamoDB left unprocessed are requested again.
pub(super) const ASK_FOR_REST_AFTER: Duration = Duration::from_millis(100);

/// The part of an event that is read together with its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// Neither the large values nor the request.
    Nothing,
    /// The order event.
    Event,
    /// All attributes, including the delivery.
    Delivery,
}

/// The attributes of a head that identify its event and describe its state.
const STATE_ATTRIBUTES: [&str; 18] = [
    "pk",
    "state",
    "reason",
    "attempts",
    "deferrals",
    "leases",
    "dismissed_at",
    "erasing",
    "order_key",
    "payload_sha256",
    "attempt_id",
    "next_attempt_at",
    "received_at",
    "published_at",
    "expires_at",
    "provider",
    "shop",
    "type",
];

/// A position in the index `work`: a shard, and the event after which to continue in it. The default is the beginning.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkCursor {
    shard: u8,
    after: Option<IndexPosition>,
}

/// The result of storing a delivery under another id, once its mapping is corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Superseded {
    /// The event is in the outbox, under the new id.
    Accepted,
    /// An event with the new id and this body is stored already.
    Duplicate,
    /// An event with the new id and another body is stored already, and this one is kept as a conflict.
    Conflict,
    /// The event with the new id was erased on request, and this delivery is erased with it.
    Erased,
    /// Somebody else has changed the delivery.
    ByAnother,
}

impl WorkCursor {
    /// The beginning of a shard.
    pub fn at(shard: u8) -> Self {
        Self { shard, after: None }
    }

    /// The shard.
    pub fn shard(&self) -> u8 {
        self.shard
    }

    /// Whether the position is the beginning of its shard.
    pub fn is_beginning(&self) -> bool {
        self.after.is_none()
    }

    /// The position after a page that ended with `last`: in the same shard, at the beginning of the next one, or `None`
    /// after the last shard.
    fn next(&self, last: Option<&Item>) -> Option<Self> {
        let after = last.and_then(|key| IndexPosition::read(key, "next_attempt_at"));
        let shard = if after.is_some() { self.shard } else { self.shard + 1 };
        (shard < SHARDS).then_some(Self { shard, after })
    }
}

impl Store {
    /// Takes a pending event over from the attempt that `head` shows. Returns false if somebody else did, or if the
    /// event is published.
    pub async fn take_over(&self, id: &EventId, head: &Head, attempt: &AttemptId) -> Result<bool, StoreError> {
        let seen = Condition::equals("attempt_id", head.attempt_id.as_str());
        let change = Change::default()
            .set("attempt_id", attempt.0.as_str())
            .set("next_attempt_at", &(Timestamp::now() + FIRST_REDRIVE_AFTER))
            .only_if(Condition::in_state(State::Pending).and(seen));
        self.update(id, &change).await
    }

    /// Moves an event from pending to published. Returns false if the event is no longer pending.
    pub async fn mark_published(&self, id: &EventId) -> Result<bool, StoreError> {
        let now = Timestamp::now();
        let change = Change::move_to(State::Published).set("published_at", &now);
        let change = self.retention.leave_work(change, State::Published, id, now);
        self.update(id, &change.only_if(Condition::in_state(State::Pending)))
            .await
    }

    /// Replaces a quarantined or unsupported event with an order event, now that the delivery is understood. Returns
    /// false if somebody else did.
    ///
    /// If the answer to an earlier try of this write was lost, the event is already pending with this attempt's id.
    pub async fn release(
        &self,
        new_event: &NewEvent<'_>,
        attempt: &AttemptId,
        policy: impl Into<RetryPolicy>,
    ) -> Result<bool, StoreError> {
        let mut items = EventItems::of(new_event, attempt);
        let policy = policy.into().with_parts(!items.parts.is_empty());
        let mut replaced = BTreeSet::new();
        if !items.parts.is_empty() {
            let head = retry_until(policy, || self.get_by_key(head_key(new_event.id))).await?;
            replaced.extend(head.iter().flat_map(parts_named_by));
        }
        let end_of_manifest = self.put_parts(new_event, &mut items, replaced, policy).await?;
        let is_mine = Condition::in_state(State::Pending).and(Condition::equals("attempt_id", attempt.0.as_str()));
        let condition = Condition::in_state(State::Quarantined)
            .or(Condition::in_state(State::Unsupported))
            .or(is_mine);
        let commit = self.commit(&items.head, &condition, end_of_manifest, policy);
        Ok(matches!(commit.await?, Commit::Done))
    }

    /// Returns the ids of events in `state` whose next attempt is due at `now`: at most `limit` from `cursor` on.
    /// Returns the position after them too, if there are more.
    ///
    /// The index lags behind the table: read the heads before you act.
    pub async fn due(
        &self,
        state: State,
        cursor: &WorkCursor,
        now: Timestamp,
        limit: i32,
    ) -> Result<(Vec<EventId>, Option<WorkCursor>), StoreError> {
        self.due_as(state.as_str(), cursor, now, limit).await
    }

    /// Returns the ids of events of one kind in the index `work`, as [`Self::due`] does.
    pub(super) async fn due_as(
        &self,
        kind: &str,
        cursor: &WorkCursor,
        now: Timestamp,
        limit: i32,
    ) -> Result<(Vec<EventId>, Option<WorkCursor>), StoreError> {
        let work = AttributeValue::S(format!("{kind}#{}", cursor.shard));
        let start = cursor.after.as_ref();
        let start = start.map(|after| after.to_key(("work", &work), "next_attempt_at"));
        let query = self.client.query().table_name(&self.table).index_name("work");
        let query = query
            .key_condition_expression("#work = :work AND next_attempt_at <= :now")
            .expression_attribute_names("#work", "work")
            .expression_attribute_values(":work", work)
            .expression_attribute_values(":now", AttributeValue::S(sortable(now)))
            .limit(limit)
            .set_exclusive_start_key(start);
        let page = query.send().await?;
        Ok((ids_of(page.items()), cursor.next(page.last_evaluated_key.as_ref())))
    }

    /// Reads the heads of at most 100 events, consistently. Events that are gone, expired tombstones, and heads that
    /// cannot be read are left out.
    pub async fn heads(&self, ids: &[EventId], projection: Projection) -> Result<Vec<(EventId, Head)>, StoreError> {
        let heads = self.heads_or_faults(ids, projection).await?.into_iter();
        Ok(heads.filter_map(|(id, head)| Some((id, head.ok()?))).collect())
    }

    /// Reads the heads of at most 100 events, consistently, including those that cannot be read, which are logged.
    pub(super) async fn heads_or_faults(
        &self,
        ids: &[EventId],
        projection: Projection,
    ) -> Result<Vec<(EventId, Result<Head, StoreError>)>, StoreError> {
        let attributes = match projection {
            Projection::Nothing => Some(STATE_ATTRIBUTES.to_vec()),
            Projection::Event => Some([&STATE_ATTRIBUTES[..], &["event", "event_parts"]].concat()),
            Projection::Delivery => None,
        };
        let mut heads = Vec::with_capacity(ids.len());
        let now = Timestamp::now();
        for item in self.head_items(ids, attributes.as_deref()).await? {
            if is_expired_tombstone(&item, now) {
                continue;
            }
            let id = EventId::stored(text(&item, "pk").ok_or(StoreError::Corrupt("pk"))?);
            // A head that cannot be read must not block the others.
            let head = Head::read(item);
            if let Err(error) = &head {
                tracing::error!(
                    code = Code::CorruptItem.as_str(),
                    event_id = %id,
                    cause = %error,
                    "an item cannot be read"
                );
            }
            heads.push((id, head));
        }
        Ok(heads)
    }

    /// Reads the head of one event. Returns `None` if the event is gone or is an expired tombstone. Unlike
    /// [`Store::heads`], this fails if the head cannot be read.
    pub async fn find_head(&self, id: &EventId) -> Result<Option<Head>, StoreError> {
        let item = self.get(id, "head").await?;
        item.filter(|item| !is_expired_tombstone(item, Timestamp::now()))
            .map(Head::read)
            .transpose()
    }

    /// Reads the head items of at most 100 events, or some attributes of them.
    pub(super) async fn head_items(
        &self,
        ids: &[EventId],
        attributes: Option<&[&str]>,
    ) -> Result<Vec<Item>, StoreError> {
        let keys = ids.iter().map(head_key).collect();
        self.items_with_keys(keys, attributes).await
    }

    /// Reads the items with at most 100 keys, or some attributes of them.
    pub(super) async fn items_with_keys(
        &self,
        mut wanted: Vec<Item>,
        attributes: Option<&[&str]>,
    ) -> Result<Vec<Item>, StoreError> {
        // Placeholders, because many names are reserved words.
        let placeholders: Option<HashMap<_, _>> = attributes.map(|names| {
            names
                .iter()
                .map(|name| (format!("#{name}"), (*name).to_owned()))
                .collect()
        });
        let projection = placeholders
            .as_ref()
            .map(|names| names.keys().cloned().collect::<Vec<_>>().join(", "));
        let mut items = Vec::with_capacity(wanted.len());
        // DynamoDB answers with up to 16 MB, and names the keys that it left unprocessed.
        while !wanted.is_empty() {
            let keys = KeysAndAttributes::builder()
                .set_keys(Some(wanted))
                .set_projection_expression(projection.clone())
                .set_expression_attribute_names(placeholders.clone())
                .consistent_read(true)
                .build();
            let keys = keys.expect("there are keys");
            let batch = self.client.batch_get_item().request_items(&self.table, keys);
            let mut answer = batch.send().await?;
            let of_table = answer.responses.as_mut().and_then(|tables| tables.remove(&self.table));
            items.extend(of_table.unwrap_or_default());
            let rest = answer
                .unprocessed_keys
                .as_mut()
                .and_then(|tables| tables.remove(&self.table));
            wanted = rest.map(|rest| rest.keys).unwrap_or_default();
            if !wanted.is_empty() {
                tokio::time::sleep(ASK_FOR_REST_AFTER).await;
            }
        }
        Ok(items)
    }

    /// Puts a pending event off until `next`, after SNS refused its message. Returns false if somebody else has changed
    /// the event.
    pub async fn put_off(&self, id: &EventId, attempts: u32, cause: &str, next: Timestamp) -> Result<bool, StoreError> {
        self.record_failure(id, attempts, State::Pending, cause, next).await
    }

    /// Moves a pending event to failed, because SNS keeps refusing its message. Returns false if somebody else has
    /// changed the event.
    pub async fn mark_failed(&self, id: &EventId, attempts: u32, cause: &str) -> Result<bool, StoreError> {
        self.record_failure(id, attempts, State::Failed, cause, Timestamp::now())
            .await
    }

    /// Puts a pending event off until `next`, after an error that SNS does not blame on its message. Returns false if
    /// the event is no longer pending.
    pub async fn defer(&self, id: &EventId, cause: &str, next: Timestamp) -> Result<bool, StoreError> {
        let change = Change::default()
            .set("next_attempt_at", &next)
            .set("last_error", cause)
            .add("deferrals", &1_u32)
            .remove(&["leases"])
            .only_if(Condition::in_state(State::Pending));
        self.update(id, &change).await
    }

    /// Moves a quarantined event to unsupported, once its mapping says so. Returns false if the event is no longer
    /// quarantined.
    pub async fn mark_unsupported(&self, id: &EventId, head: &Head) -> Result<bool, StoreError> {
        // It expires as if it had been unsupported from the start, but not without the notice that quarantined
        // deliveries have.
        let now = Timestamp::now();
        let since = head.received_at().unwrap_or(now);
        let change = Change::move_to(State::Unsupported).remove(&["reason"]);
        let change = self
            .retention
            .leave_work_until(change, State::Unsupported, id, since, now + NOTICE);
        self.update(id, &change.only_if(Condition::in_state(State::Quarantined)))
            .await
    }

    /// Moves a quarantined event that an operator has looked at to unsupported. The reason stays. Returns false if the
    /// event is not quarantined.
    pub async fn dismiss(&self, id: &EventId) -> Result<bool, StoreError> {
        let now = Timestamp::now();
        let change = Change::move_to(State::Unsupported).set("dismissed_at", &now);
        let change = self.retention.leave_work(change, State::Unsupported, id, now);
        self.update(id, &change.only_if(Condition::in_state(State::Quarantined)))
            .await
    }

    /// Takes back a dismissal: the delivery is quarantined again, with its reason. Returns false if the delivery is not
    /// dismissed.
    pub async fn undismiss(&self, id: &EventId, head: &Head) -> Result<bool, StoreError> {
        // The same position as before in the index, which is read in the order of receipt.
        let next = head.received_at().unwrap_or_else(Timestamp::now) + FIRST_REDRIVE_AFTER;
        let change = Change::move_to(State::Quarantined)
            .set("work", work_key(State::Quarantined, id).as_str())
            .set("next_attempt_at", &next)
            .remove(&["dismissed_at"])
            .only_if(Condition::in_state(State::Unsupported).and(Condition::Exists("dismissed_at")));
        self.update(id, &change).await
    }

    /// Writes an event under the id that it has now that it is understood, and marks its old head, which is in state
    /// `from`, as superseded: both or neither. If there is an event with the new id and another body, the delivery is
    /// kept as a conflict of that event, and the old head is marked.
    pub async fn supersede(
        &self,
        old: &EventId,
        from: State,
        new_event: &NewEvent<'_>,
        policy: impl Into<RetryPolicy>,
    ) -> Result<Superseded, StoreError> {
        let attempt = AttemptId::random();
        let mut items = EventItems::of(new_event, &attempt);
        let policy = policy.into().with_parts(!items.parts.is_empty());
        let mut change = Change::move_to(State::Superseded).set("superseded_by", new_event.id.as_str());
        // The old head keeps the body, so it must be found when the order is erased.
        for name in ["order_key", "order_sort"] {
            if let Some(value) = items.head.get(name) {
                change = change.set(name, value);
            }
        }
        let received_at = new_event.delivery.received_at();
        let change = self
            .retention
            .leave_work(change, State::Superseded, old, received_at)
            .only_if(Condition::in_state(from));
        let now = Timestamp::now();
        // Parts are written only if there is no event yet that would have them.
        let exists = !items.parts.is_empty()
            && self
                .get(new_event.id, "head")
                .await?
                .is_some_and(|head| !is_expired_tombstone(&head, now));
        if !exists {
            let end_of_manifest = self.put_parts(new_event, &mut items, BTreeSet::new(), policy).await?;
            let head = std::mem::take(&mut items.head);
            let mark = change.transacted(&self.table, head_key(old));
            let absent = Condition::no_event(now);
            let transacted = self.put_and_update(head, &absent, mark, end_of_manifest, policy);
            match transacted.await? {
                Transacted::Done => return Ok(Superseded::Accepted),
                Transacted::Refused(refused) => match refused.as_slice() {
                    // Changed by somebody else, or by an earlier try of this write whose answer was lost.
                    [_, true, ..] => return Ok(Superseded::ByAnother),
                    [true, ..] => {}
                    _ => return Err(StoreError::Swept),
                },
            }
        }
        let existing = self.head(new_event.id).await?;
        let superseded = match existing.state {
            // An event that was erased on request is not stored again, under whatever id.
            State::Erased => Superseded::Erased,
            _ if existing.payload_sha256 != items.payload_sha256 => match self.put_conflict(new_event, policy).await? {
                KeptConflict::Kept => Superseded::Conflict,
                KeptConflict::Erased => Superseded::Erased,
            },
            State::Quarantined | State::Unsupported => {
                if self.release(new_event, &attempt, policy).await? {
                    Superseded::Accepted
                } else {
                    Superseded::Duplicate
                }
            }
            _ => Superseded::Duplicate,
        };
        let is_marked = self.update(old, &change).await?;
        if superseded == Superseded::Erased {
            let head = self.head(old).await?;
            self.erase(old, &head, ErasedBy::Operator).await?;
        }
        Ok(if is_marked { superseded } else { Superseded::ByAnother })
    }

    /// Moves a failed event back to pending, due at once. Returns false if the event is no longer failed.
    pub async fn requeue(&self, id: &EventId) -> Result<bool, StoreError> {
        let change = Change::move_to(State::Pending)
            .set("work", work_key(State::Pending, id).as_str())
            .set("next_attempt_at", &Timestamp::now())
            .set("attempts", &0_u32)
            .remove(&["deferrals", "leases"])
            .only_if(Condition::in_state(State::Failed));
        self.update(id, &change).await
    }

    async fn record_failure(
        &self,
        id: &EventId,
        attempts: u32,
        state: State,
        cause: &str,
        next: Timestamp,
    ) -> Result<bool, StoreError> {
        let change = Change::move_to(state)
            .set("work", work_key(state, id).as_str())
            .set("next_attempt_at", &next)
            .set("last_error", cause)
            .set("attempts", &(attempts + 1))
            .remove(&["leases"])
            .only_if(Condition::in_state(State::Pending).and(Condition::equals("attempts", &attempts)));
        self.update(id, &change).await
    }
}

/// The key of an event in the index `work`.
fn work_key(state: State, id: &EventId) -> String {
    format!("{}#{}", state.as_str(), id.shard())
}
