//! `{"get":{...}}`: shows stored events in full, with what their messages had to leave out.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::answer::Reason;
use shared::codes::Code;
use shared::identity::EventId;
use shared::store::{Head, Projection, StoreError};

use crate::time_left::TimeLeft;
use crate::{Outbox, TaskError, event_id};

/// Bytes of JSON that the events of one answer may take. Lambda returns 6 MB at most.
const ANSWER: usize = 5_000_000;

/// Bytes of JSON that an answer holds of each event in addition to the event itself.
const OVERHEAD: usize = 300;

/// The largest number of conflicts that are shown.
const CONFLICTS: usize = 100;

/// The number of events that are read at once.
const PAGE: usize = 10;

/// One event by its id, or all events of an order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    event_id: Option<String>,
    provider: Option<String>,
    shop: Option<String>,
    order: Option<String>,
    /// Where an earlier answer was full.
    cursor: Option<Cursor>,
}

/// As many events as an answer holds.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// Where the next call goes on, unless the task is done.
    cursor: Option<Cursor>,
    done: bool,
    /// Why the task stopped early.
    outage: Option<String>,
    events: Vec<Described>,
    /// The conflicts of these events, and others that name the order. The first answer has at most 100 of them, and later
    /// answers have none.
    conflicts: Vec<DescribedConflict>,
}

#[derive(Debug, Serialize)]
struct DescribedConflict {
    bytes: Option<usize>,
    event_id: EventId,
    payload_sha256: String,
    /// The id that the conflict was published under.
    published_as: Option<EventId>,
    received_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct Described {
    attempts: u32,
    bytes: usize,
    /// The event's JSON exactly as it is stored.
    event: Option<Box<RawValue>>,
    event_id: EventId,
    reason: Option<&'static str>,
    state: &'static str,
}

/// The event after which to continue.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    after: EventId,
}

impl Outbox {
    pub(crate) async fn get(&self, get: Get, time: TimeLeft) -> Result<Shown, TaskError> {
        let mut shown = Shown {
            cursor: None,
            done: false,
            outage: None,
            events: Vec::new(),
            conflicts: Vec::new(),
        };
        shown.cursor.clone_from(&get.cursor);
        match time.attempt(self.show(get, time, &mut shown)).await? {
            Ok(is_done) => shown.done = is_done,
            Err(cause) => shown.outage = Some(cause),
        }
        if shown.done {
            shown.cursor = None;
        }
        Ok(shown)
    }

    /// Adds events to the answer, and moves its cursor past each. Returns whether they were the last.
    async fn show(&self, get: Get, time: TimeLeft, shown: &mut Shown) -> Result<bool, TaskError> {
        let is_first = get.cursor.is_none();
        let mut of_order = Vec::new();
        let mut ids = match (get.event_id, get.provider, get.shop, get.order) {
            (Some(id), None, None, None) => {
                vec![event_id(&id)?]
            }
            (None, Some(provider), Some(shop), Some(order)) => {
                if is_first {
                    of_order = self.store.conflicts_of_order(&provider, &shop, &order).await?;
                }
                self.store.of_order(&provider, &shop, &order).await?
            }
            _ => {
                return Err(TaskError::NoTask(
                    "get takes event_id, or provider, shop and order".to_owned(),
                ));
            }
        };
        if is_first {
            self.show_conflicts(&ids, of_order, shown).await?;
        }
        if let Some(Cursor { after }) = get.cursor {
            let last = ids.iter().position(|id| *id == after);
            let last = last.ok_or_else(|| TaskError::NoTask("the cursor belongs to another get".to_owned()))?;
            ids.drain(..=last);
        }
        let expiry = self.store.expiry(Timestamp::now()).await?;
        let mut size = shown.conflicts.len() * OVERHEAD;
        for ids in ids.chunks(PAGE) {
            let mut heads = self.store.heads(ids, Projection::Event).await?;
            heads.retain(|(_, head)| !expiry.has_expired(head));
            // DynamoDB returns items in any order.
            heads.sort_by_key(|(id, _)| ids.iter().position(|wanted| wanted == id));
            for (id, head) in heads {
                if time.is_up() && !shown.events.is_empty() {
                    return Ok(false);
                }
                let (event, bytes) = self.describe(&id, &head).await?;
                size += bytes;
                if size > ANSWER && !shown.events.is_empty() {
                    return Ok(false);
                }
                shown.events.push(event);
                shown.cursor = Some(Cursor { after: id });
            }
        }
        Ok(true)
    }

    /// Adds the conflicts of these events, and others that name the same order.
    async fn show_conflicts(
        &self,
        ids: &[EventId],
        of_order: Vec<(EventId, String)>,
        shown: &mut Shown,
    ) -> Result<(), TaskError> {
        let mut conflicts = Vec::new();
        for id in ids {
            conflicts.extend(self.store.conflicts_of(id).await?);
        }
        for (id, payload_sha256) in of_order {
            if !ids.contains(&id) {
                conflicts.extend(self.store.conflict(&id, &payload_sha256).await?);
            }
        }
        conflicts.sort_by_key(|conflict| conflict.head.received_at());
        for conflict in conflicts.into_iter().take(CONFLICTS) {
            let bytes = match self.store.delivery(&conflict.id, &conflict.head).await {
                Ok(delivery) => Some(delivery.body().len()),
                Err(StoreError::Corrupt(_)) => None,
                Err(error) => return Err(error.into()),
            };
            shown.conflicts.push(DescribedConflict {
                bytes,
                published_as: conflict.published_as(),
                received_at: conflict.head.received_at(),
                event_id: conflict.id,
                payload_sha256: conflict.payload_sha256,
            });
        }
        Ok(())
    }

    /// Describes an event. Returns also how many bytes it adds to the answer.
    async fn describe(&self, id: &EventId, head: &Head) -> Result<(Described, usize), TaskError> {
        let json = if head.has_event() {
            self.readable_event(id, head).await?
        } else {
            None
        };
        let bytes = json.as_ref().map_or(0, |json| json.get().len());
        // An event can be larger than any answer, for example one with very many items. It can only be read in the
        // table.
        let event = json.filter(|_| bytes <= ANSWER);
        let size = event.as_ref().map_or(0, |_| bytes) + OVERHEAD;
        let described = Described {
            attempts: head.attempts,
            bytes,
            event,
            event_id: id.clone(),
            reason: head.reason.map(Reason::as_str),
            state: head.state.as_str(),
        };
        Ok((described, size))
    }

    /// Reads an event. An event that cannot be read is logged, and does not hide the others.
    async fn readable_event(&self, id: &EventId, head: &Head) -> Result<Option<Box<RawValue>>, StoreError> {
        let json = match self.store.event(id, head).await {
            Ok(stored) => RawValue::from_string(stored.json).map_err(|_| StoreError::Corrupt("event")),
            Err(error) => Err(error),
        };
        match json {
            Ok(json) => Ok(Some(json)),
            Err(error @ StoreError::Corrupt(_)) => {
                tracing::error!(
                    code = Code::CorruptItem.as_str(),
                    event_id = %id,
                    cause = %error,
                    "a stored event cannot be read"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
