//! The outbox: events on their way from stored to published. Every change of state is conditional on the state before.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, Put, Update};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::conflicts::{KeptConflict, Transacted};
use super::event_items::{EventItems, sortable};
use super::parts::{Commit, Condition, parts_named_by};
use super::retention::{NOTICE, is_over};
use super::{
    AttemptId, ErasedBy, FIRST_REDRIVE_AFTER, Head, Item, NewEvent, RetryPolicy, State, Store, StoreError, describe,
    ids_of, index_key, item_key, retry_until,
};
use crate::identity::{EventId, SHARDS};

/// DynamoDB leaves keys unprocessed where it is throttled.
pub(super) const ASK_FOR_REST_AFTER: Duration = Duration::from_millis(100);

/// What of an event is read together with where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// Neither its large values nor its request.
    Nothing,
    /// The order event.
    Event,
    /// The delivery that it came with, and all the rest.
    Delivery,
}

/// What of a head says where its event stands, and which one it is.
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

/// A place in the index `work`: a shard, and the event after which to go on in it. The default is its beginning.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkCursor {
    shard: u8,
    /// Time of the next attempt, and id.
    after: Option<(String, String)>,
}

/// What came of a delivery that has another id now that it is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Superseded {
    /// Its event is in the outbox, under the new id.
    Accepted,
    /// The event is known, with this body.
    Duplicate,
    /// The event is known with another body: this one is kept as a conflict.
    Conflict,
    /// The event was erased on request, and this delivery is with it.
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

    /// Whether it is the beginning of its shard.
    pub fn is_beginning(&self) -> bool {
        self.after.is_none()
    }

    /// The place after a page: within the shard, in the next one, or none.
    fn next(&self, last: Option<&Item>) -> Option<Self> {
        let text = |key: &Item, name: &str| Some(key.get(name)?.as_s().ok()?.clone());
        let after = last.and_then(|key| Some((text(key, "next_attempt_at")?, text(key, "pk")?)));
        let shard = if after.is_some() { self.shard } else { self.shard + 1 };
        (shard < SHARDS).then_some(Self { shard, after })
    }
}

impl Store {
    /// Takes over a pending event from the attempt that `head` shows. False where somebody else did, or it is published.
    pub async fn take_over(&self, id: &EventId, head: &Head, attempt: &AttemptId) -> Result<bool, StoreError> {
        self.update(
            id,
            "SET attempt_id = :mine, next_attempt_at = :next",
            "#state = :pending AND attempt_id = :seen",
            [
                (":mine", AttributeValue::S(attempt.0.clone())),
                (
                    ":next",
                    AttributeValue::S(sortable(Timestamp::now() + FIRST_REDRIVE_AFTER)),
                ),
                (":pending", AttributeValue::S(State::Pending.as_str().to_owned())),
                (":seen", AttributeValue::S(head.attempt_id.clone())),
            ],
        )
        .await
    }

    /// Moves an event from pending to published. False where somebody else did.
    pub async fn mark_published(&self, id: &EventId) -> Result<bool, StoreError> {
        let now = Timestamp::now();
        let leave_work = self.retention.leave_work(State::Published, id, now);
        let change = format!("SET #state = :published, published_at = :now{}", leave_work.clauses());
        let mut values = leave_work.values();
        values.extend([
            (":published", AttributeValue::S(State::Published.as_str().to_owned())),
            (":now", AttributeValue::S(sortable(now))),
            (":pending", AttributeValue::S(State::Pending.as_str().to_owned())),
        ]);
        self.update(id, &change, "#state = :pending", values).await
    }

    /// Writes an event over its quarantined or unsupported self, now that it is understood. False where somebody else did.
    ///
    /// A write whose answer was lost meets itself: the event is then pending, of this attempt.
    pub async fn release(
        &self,
        new_event: &NewEvent<'_>,
        attempt: &AttemptId,
        policy: impl Into<RetryPolicy>,
    ) -> Result<bool, StoreError> {
        let mut written = EventItems::of(new_event, attempt);
        let policy = policy.into().with_parts(!written.parts.is_empty());
        let mut replaced = BTreeSet::new();
        if !written.parts.is_empty() {
            let head = retry_until(policy, || self.get_by_key(item_key(new_event.id.as_str(), "head"))).await?;
            replaced.extend(head.iter().flat_map(parts_named_by));
        }
        let end_of_manifest = self.put_parts(new_event, &mut written, replaced, policy).await?;
        let condition = Condition::new(
            "#state = :quarantined OR #state = :unsupported OR (#state = :pending AND attempt_id = :mine)",
            [
                (":unsupported", State::Unsupported.as_str()),
                (":quarantined", State::Quarantined.as_str()),
                (":pending", State::Pending.as_str()),
                (":mine", &attempt.0),
            ],
        );
        let commit = self.commit(&written.head, &condition, end_of_manifest, policy);
        Ok(matches!(commit.await?, Commit::Done))
    }

    /// Ids of events in `state` whose next attempt is due at `now`, some at a time from `place` on; and the place to go on
    /// at, if the index goes on.
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

    /// The events of one kind in the index `work` whose time has come.
    pub(super) async fn due_as(
        &self,
        kind: &str,
        cursor: &WorkCursor,
        now: Timestamp,
        limit: i32,
    ) -> Result<(Vec<EventId>, Option<WorkCursor>), StoreError> {
        let work = AttributeValue::S(format!("{kind}#{}", cursor.shard));
        let start = cursor
            .after
            .as_ref()
            .map(|(next_attempt_at, id)| index_key(("work", work.clone()), ("next_attempt_at", next_attempt_at), id));
        let query = self.client.query().table_name(&self.table).index_name("work");
        let query = query
            .key_condition_expression("#work = :work AND next_attempt_at <= :now")
            .expression_attribute_names("#work", "work")
            .expression_attribute_values(":work", work)
            .expression_attribute_values(":now", AttributeValue::S(sortable(now)))
            .limit(limit)
            .set_exclusive_start_key(start);
        let page = query
            .send()
            .await
            .map_err(|error| StoreError::DynamoDb(describe(&error)))?;
        Ok((ids_of(page.items()), cursor.next(page.last_evaluated_key.as_ref())))
    }

    /// The heads of some events as they stand now; an event that is gone, and a tombstone that is over, is left out. At most 100.
    pub async fn heads(&self, ids: &[EventId], projection: Projection) -> Result<Vec<(EventId, Head)>, StoreError> {
        let attributes = match projection {
            Projection::Nothing => Some(STATE_ATTRIBUTES.to_vec()),
            Projection::Event => Some([&STATE_ATTRIBUTES[..], &["event", "event_parts"]].concat()),
            Projection::Delivery => None,
        };
        let mut heads = Vec::with_capacity(ids.len());
        let now = Timestamp::now();
        for item in self.head_items(ids, attributes.as_deref()).await? {
            if is_over(&item, now) {
                continue;
            }
            let id = item
                .get("pk")
                .and_then(|pk| pk.as_s().ok())
                .map(|pk| EventId::stored(pk));
            let id = id.ok_or(StoreError::Corrupt("pk"))?;
            // One that cannot be read holds up no other.
            match Head::read(item) {
                Ok(head) => heads.push((id, head)),
                Err(error) => tracing::error!(event_id = %id, cause = %error, "an item is left out"),
            }
        }
        Ok(heads)
    }

    /// The head of one event; `None` if it is gone, or a tombstone that is over. Unlike [`Store::heads`], this is an error where the
    /// head cannot be read.
    pub async fn find_head(&self, id: &EventId) -> Result<Option<Head>, StoreError> {
        let item = self.get(id, "head").await?;
        item.filter(|item| !is_over(item, Timestamp::now()))
            .map(Head::read)
            .transpose()
    }

    /// The head items of some events, or some attributes of them. At most 100.
    pub(super) async fn head_items(
        &self,
        ids: &[EventId],
        attributes: Option<&[&str]>,
    ) -> Result<Vec<Item>, StoreError> {
        let keys = ids.iter().map(|id| item_key(id.as_str(), "head"));
        self.items_with_keys(keys.collect(), attributes).await
    }

    /// The items with some keys, or some attributes of them. At most 100.
    pub(super) async fn items_with_keys(
        &self,
        mut wanted: Vec<Item>,
        attributes: Option<&[&str]>,
    ) -> Result<Vec<Item>, StoreError> {
        // By placeholders: many a name is a reserved word.
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
        // DynamoDB answers with what fits into 16 MB and names the rest.
        while !wanted.is_empty() {
            let keys = KeysAndAttributes::builder()
                .set_keys(Some(wanted))
                .set_projection_expression(projection.clone())
                .set_expression_attribute_names(placeholders.clone())
                .consistent_read(true)
                .build();
            let keys = keys.expect("there are keys");
            let answer = self
                .client
                .batch_get_item()
                .request_items(&self.table, keys)
                .send()
                .await;
            let mut answer = answer.map_err(|error| StoreError::DynamoDb(describe(&error)))?;
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

    /// Puts a pending event off until `next`, after SNS blamed its message. False where somebody else changed it.
    pub async fn put_off(&self, id: &EventId, attempts: u32, cause: &str, next: Timestamp) -> Result<bool, StoreError> {
        self.record_failure(id, attempts, State::Pending, cause, next).await
    }

    /// Gives up on a pending event: SNS blames its message for good. It stays, as failed.
    pub async fn mark_failed(&self, id: &EventId, attempts: u32, cause: &str) -> Result<bool, StoreError> {
        self.record_failure(id, attempts, State::Failed, cause, Timestamp::now())
            .await
    }

    /// Puts a pending event off until `next`, after an error that SNS does not blame on its message. False where it is no
    /// longer pending.
    pub async fn defer(&self, id: &EventId, cause: &str, next: Timestamp) -> Result<bool, StoreError> {
        self.update(
            id,
            "SET next_attempt_at = :next, last_error = :cause ADD deferrals :one REMOVE leases",
            "#state = :pending",
            [
                (":next", AttributeValue::S(sortable(next))),
                (":cause", AttributeValue::S(cause.to_owned())),
                (":one", AttributeValue::N("1".to_owned())),
                (":pending", AttributeValue::S(State::Pending.as_str().to_owned())),
            ],
        )
        .await
    }

    /// Settles a quarantined event that is now known to be none of ours. False where somebody else changed it.
    pub async fn mark_unsupported(&self, id: &EventId, head: &Head) -> Result<bool, StoreError> {
        // It expires as if it had been unsupported from the start, but not without the notice that quarantined deliveries have.
        let now = Timestamp::now();
        let since = head.received_at().unwrap_or(now);
        let leave_work = self
            .retention
            .leave_work_until(State::Unsupported, id, since, now + NOTICE);
        let change = match leave_work.clauses() {
            clauses if clauses.contains("REMOVE") => format!("SET #state = :unsupported{clauses}, reason"),
            clauses => format!("SET #state = :unsupported{clauses} REMOVE reason"),
        };
        let mut values = leave_work.values();
        values.extend([
            (
                ":unsupported",
                AttributeValue::S(State::Unsupported.as_str().to_owned()),
            ),
            (
                ":quarantined",
                AttributeValue::S(State::Quarantined.as_str().to_owned()),
            ),
        ]);
        self.update(id, &change, "#state = :quarantined", values).await
    }

    /// Settles a quarantined event that somebody has looked at; the reason stays. False where it is not quarantined.
    pub async fn dismiss(&self, id: &EventId) -> Result<bool, StoreError> {
        let now = Timestamp::now();
        let leave_work = self.retention.leave_work(State::Unsupported, id, now);
        let change = format!("SET #state = :unsupported, dismissed_at = :now{}", leave_work.clauses());
        let state = |state: State| AttributeValue::S(state.as_str().to_owned());
        let mut values = leave_work.values();
        values.extend([
            (":unsupported", state(State::Unsupported)),
            (":now", AttributeValue::S(sortable(now))),
            (":quarantined", state(State::Quarantined)),
        ]);
        self.update(id, &change, "#state = :quarantined", values).await
    }

    /// Takes back a dismissal: the delivery is quarantined again, with its reason. False where it is not dismissed.
    pub async fn undismiss(&self, id: &EventId, head: &Head) -> Result<bool, StoreError> {
        let change = "SET #state = :quarantined, #work = :work, next_attempt_at = :next REMOVE dismissed_at";
        let state = |state: State| AttributeValue::S(state.as_str().to_owned());
        // As it was: what was received first is read first.
        let next = head.received_at().unwrap_or_else(Timestamp::now) + FIRST_REDRIVE_AFTER;
        let work = format!("{}#{}", State::Quarantined.as_str(), id.shard());
        self.update(
            id,
            change,
            "#state = :unsupported AND attribute_exists(dismissed_at)",
            [
                (":quarantined", state(State::Quarantined)),
                (":work", AttributeValue::S(work)),
                (":next", AttributeValue::S(sortable(next))),
                (":unsupported", state(State::Unsupported)),
            ],
        )
        .await
    }

    /// Writes an event under the id it has now that it is understood, and marks its old head, in state `from`, as superseded, both or
    /// neither. Where the new id is known, another body is kept as a conflict, and the old head is marked.
    pub async fn supersede(
        &self,
        old: &EventId,
        from: State,
        new_event: &NewEvent<'_>,
        policy: impl Into<RetryPolicy>,
    ) -> Result<Superseded, StoreError> {
        let attempt = AttemptId::random();
        let mut written = EventItems::of(new_event, &attempt);
        let policy = policy.into().with_parts(!written.parts.is_empty());
        let mut change = "SET #state = :superseded, superseded_by = :by".to_owned();
        let mut values = vec![
            (":superseded", AttributeValue::S(State::Superseded.as_str().to_owned())),
            (":by", AttributeValue::S(new_event.id.to_string())),
            (":from", AttributeValue::S(from.as_str().to_owned())),
        ];
        // The kept body is the order's too: whoever erases the order must find it.
        for (name, placeholder) in [("order_key", ":order_key"), ("order_sort", ":order_sort")] {
            if let Some(value) = written.head.get(name) {
                change.extend([", ", name, " = ", placeholder]);
                values.push((placeholder, value.clone()));
            }
        }
        let leave_work = self
            .retention
            .leave_work(State::Superseded, old, new_event.delivery.received_at());
        change += leave_work.clauses();
        values.extend(leave_work.values());
        let now = Timestamp::now();
        // Parts are written only if there is no event yet to have them.
        let is_known = !written.parts.is_empty()
            && self
                .get(new_event.id, "head")
                .await?
                .is_some_and(|head| !is_over(&head, now));
        if !is_known {
            let end_of_manifest = self.put_parts(new_event, &mut written, BTreeSet::new(), policy).await?;
            let absent = Condition::absent(now);
            let put = Put::builder()
                .table_name(&self.table)
                .set_item(Some(std::mem::take(&mut written.head)))
                .condition_expression(absent.expression())
                .set_expression_attribute_names(absent.names())
                .set_expression_attribute_values(absent.values())
                .build()
                .expect("table and item are set");
            let mark = Update::builder()
                .table_name(&self.table)
                .key("pk", AttributeValue::S(old.to_string()))
                .key("sk", AttributeValue::S("head".to_owned()))
                .update_expression(&change)
                .condition_expression("#state = :from")
                .expression_attribute_names("#state", "state")
                .expression_attribute_names("#work", "work")
                .set_expression_attribute_values(Some(
                    values
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), value.clone()))
                        .collect(),
                ))
                .build()
                .expect("table, key and expression are set");
            match self.put_and_update(put, mark, end_of_manifest, policy).await? {
                Transacted::Done => return Ok(Superseded::Accepted),
                Transacted::Refused(refused) => match refused.as_slice() {
                    // Its own write, whose answer was lost, or that of another.
                    [_, true, ..] => return Ok(Superseded::ByAnother),
                    [true, ..] => {}
                    _ => return Err(StoreError::Swept),
                },
            }
        }
        let known = self.head(new_event.id).await?;
        let superseded = match known.state {
            // What was erased on request is not kept, under whatever id.
            State::Erased => Superseded::Erased,
            _ if known.payload_sha256 != written.payload_sha256 => match self.put_conflict(new_event, policy).await? {
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
        let is_marked = self.update(old, &change, "#state = :from", values).await?;
        if superseded == Superseded::Erased {
            let head = self.head(old).await?;
            self.erase(old, &head, ErasedBy::Operator).await?;
        }
        Ok(if is_marked { superseded } else { Superseded::ByAnother })
    }

    /// Moves a failed event back to pending, due at once. False where it is no longer failed.
    pub async fn requeue(&self, id: &EventId) -> Result<bool, StoreError> {
        let change =
            "SET #state = :pending, #work = :work, next_attempt_at = :now, attempts = :none REMOVE deferrals, leases";
        let work = format!("{}#{}", State::Pending.as_str(), id.shard());
        self.update(
            id,
            change,
            "#state = :failed",
            [
                (":pending", AttributeValue::S(State::Pending.as_str().to_owned())),
                (":work", AttributeValue::S(work)),
                (":now", AttributeValue::S(sortable(Timestamp::now()))),
                (":none", AttributeValue::N("0".to_owned())),
                (":failed", AttributeValue::S(State::Failed.as_str().to_owned())),
            ],
        )
        .await
    }

    async fn record_failure(
        &self,
        id: &EventId,
        attempts: u32,
        state: State,
        cause: &str,
        next: Timestamp,
    ) -> Result<bool, StoreError> {
        let change = "SET #state = :state, #work = :work, next_attempt_at = :next, last_error = :cause, attempts = :attempts REMOVE leases";
        let text = |value: String| AttributeValue::S(value);
        let number = |value: u32| AttributeValue::N(value.to_string());
        self.update(
            id,
            change,
            "#state = :pending AND attempts = :seen",
            [
                (":state", text(state.as_str().to_owned())),
                (":work", text(format!("{}#{}", state.as_str(), id.shard()))),
                (":next", text(sortable(next))),
                (":cause", text(cause.to_owned())),
                (":attempts", number(attempts + 1)),
                (":pending", text(State::Pending.as_str().to_owned())),
                (":seen", number(attempts)),
            ],
        )
        .await
    }
}
