//! `{"reprocess":{}}`: classifies again, with the current code, the stored deliveries that were not understood.
//!
//! Deliveries that are understood now go into the outbox, and the next run of `redrive` publishes them. The oldest delivery is read
//! first, so that of two bodies of one event the first becomes the event.

mod lookup;

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::classify::Classification;
use shared::codes::Code;
use shared::identity::EventId;
use shared::store::{AttemptId, Content, EventJson, Head, NewEvent, Projection, State, StoreError, Superseded};

use self::lookup::{Cursor, Lookup};
use crate::time_left::{Page, TimeLeft};
use crate::{Outbox, TaskError, event_id};

/// All quarantined deliveries, or those of a provider or a shop; or one delivery by its id; or the unsupported
/// deliveries of a provider that were received in a period.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reprocess {
    #[serde(default)]
    state: NotUnderstood,
    /// One delivery, whether it is quarantined or unsupported.
    event_id: Option<String>,
    provider: Option<String>,
    shop: Option<String>,
    /// Received at this time or later.
    from: Option<Timestamp>,
    /// Received before this time.
    to: Option<Timestamp>,
    /// Only count the deliveries.
    #[serde(default)]
    dry_run: bool,
    /// Where an earlier run stopped.
    cursor: Option<Cursor>,
}

/// The states whose deliveries can be reprocessed.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum NotUnderstood {
    #[default]
    Quarantined,
    Unsupported,
}

/// The number of deliveries by result.
#[derive(Default)]
struct Counts {
    accepted: u64,
    duplicates: u64,
    conflicts: u64,
    unsupported: u64,
    quarantined: u64,
    /// Deliveries that have expired and are not removed yet. They are not read.
    expired: u64,
}

impl Counts {
    /// Counts a delivery that is still not understood, by the state it stays in.
    fn add_not_understood(&mut self, state: State) {
        match state {
            State::Unsupported => self.unsupported += 1,
            _ => self.quarantined += 1,
        }
    }

    fn add_event(&mut self, event: Superseded) {
        match event {
            Superseded::Accepted => self.accepted += 1,
            Superseded::Conflict => self.conflicts += 1,
            Superseded::Duplicate | Superseded::Erased => self.duplicates += 1,
            Superseded::ByAnother => {}
        }
    }
}

/// A run of the task.
struct Run<'t> {
    outbox: &'t Outbox,
    task: &'t Reprocess,
    lookup: Lookup<'t>,
    time: TimeLeft,
    counts: Counts,
    /// The events that a dry run would have stored under new ids, with the hashes of their bodies.
    would_be: HashMap<EventId, String>,
}

impl Reprocess {
    fn lookup(&self) -> Result<Lookup<'_>, TaskError> {
        match (
            self.event_id.as_deref(),
            self.state,
            self.provider.as_deref(),
            self.from,
            self.to,
        ) {
            (Some(id), _, None, None, None) => event_id(id).map(Lookup::One),
            (None, NotUnderstood::Quarantined, _, None, None) => Ok(Lookup::Quarantined),
            (None, NotUnderstood::Unsupported, Some(provider), Some(from), Some(to)) => {
                Ok(Lookup::Unsupported { provider, from, to })
            }
            (None, NotUnderstood::Unsupported, ..) => Err(TaskError::NoTask(
                "reprocess of unsupported deliveries takes provider, from and to".to_owned(),
            )),
            _ => Err(TaskError::NoTask(
                "reprocess takes event_id alone, and from and to only with the state unsupported".to_owned(),
            )),
        }
    }
}

impl Outbox {
    pub(crate) async fn reprocess(&self, task: &Reprocess, time: TimeLeft) -> Result<Value, TaskError> {
        let mut run = Run {
            outbox: self,
            task,
            lookup: task.lookup()?,
            time,
            counts: Counts::default(),
            would_be: HashMap::new(),
        };
        let first = task.cursor.clone().unwrap_or_default();
        let walked = time
            .walk(Some(first), async |cursor: &mut Cursor| run.next_page(cursor).await)
            .await?;
        let Counts {
            accepted,
            duplicates,
            conflicts,
            unsupported,
            quarantined,
            expired,
        } = run.counts;
        tracing::info!(
            accepted,
            duplicates,
            conflicts,
            unsupported,
            quarantined,
            expired,
            outage = walked.outage,
            dry_run = task.dry_run,
            "reprocess"
        );
        Ok(walked.answer(json!({
            "accepted": accepted,
            "duplicates": duplicates,
            "conflicts": conflicts,
            "unsupported": unsupported,
            "quarantined": quarantined,
            "expired": expired,
            "dry_run": task.dry_run,
        })))
    }
}

impl Run<'_> {
    /// Reads the next deliveries, and moves the cursor past each.
    async fn next_page(&mut self, cursor: &mut Cursor) -> Result<Page, TaskError> {
        let store = &self.outbox.store;
        let (deliveries, next) = self.lookup.next(store, cursor).await?;
        let expiry = store.expiry(Timestamp::now()).await?;
        let ids: Vec<EventId> = deliveries.iter().map(|(id, _)| id.clone()).collect();
        let mut heads: HashMap<EventId, Head> = store.heads(&ids, Projection::Nothing).await?.into_iter().collect();
        for (id, received) in deliveries {
            if self.time.is_up() {
                return Ok(Page::More);
            }
            if let Some(head) = heads.remove(&id).filter(|head| self.wants(head)) {
                if expiry.has_expired(&head) {
                    self.counts.expired += 1;
                } else {
                    self.read_again(&id).await?;
                }
            }
            cursor.move_past(received);
        }
        let Some(next) = next else {
            return Ok(Page::Last);
        };
        *cursor = next;
        Ok(Page::More)
    }

    fn wants(&self, head: &Head) -> bool {
        let matches = |filter: &Option<String>, value| filter.as_deref().is_none_or(|filter| value == Some(filter));
        self.lookup.finds(head)
            && matches(&self.task.provider, head.provider())
            && matches(&self.task.shop, head.shop())
    }

    /// Reads a delivery completely, if it is still wanted, and reprocesses it.
    async fn read_again(&mut self, id: &EventId) -> Result<(), TaskError> {
        let store = &self.outbox.store;
        let heads = store.heads(std::slice::from_ref(id), Projection::Delivery).await?;
        let Some((_, head)) = heads.first().filter(|(_, head)| self.wants(head)) else {
            return Ok(());
        };
        let delivery = match store.delivery(id, head).await {
            Ok(delivery) => delivery,
            // A delivery that cannot be read does not hold up the others.
            Err(error @ StoreError::Corrupt(_)) => {
                tracing::error!(
                    code = Code::CorruptItem.as_str(),
                    event_id = %id,
                    cause = %error,
                    "a stored delivery cannot be read"
                );
                self.counts.add_not_understood(head.state);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let providers = self.outbox.providers.as_ref().map_err(Clone::clone)?;
        let classified = head
            .provider()
            .and_then(|provider| providers.classify(provider, &delivery));
        let Some((provider, classified)) = classified else {
            tracing::info!(event_id = %id, reason = "unknown_provider", "not understood");
            self.counts.add_not_understood(head.state);
            return Ok(());
        };
        match &classified.classification {
            Classification::Order(event) => {
                let json = EventJson::of(event, self.outbox.publisher.limit());
                let new_event = NewEvent {
                    id: &classified.id,
                    provider,
                    delivery: &delivery,
                    content: Content::Order(event, &json),
                };
                let event = self.store_event(id, head, &new_event).await?;
                self.counts.add_event(event);
            }
            Classification::Unsupported if head.state == State::Quarantined => {
                let is_marked = self.task.dry_run || store.mark_unsupported(id, head).await?;
                self.counts.unsupported += u64::from(is_marked);
            }
            Classification::Unsupported => self.counts.unsupported += 1,
            Classification::Quarantined(reason) => {
                tracing::info!(event_id = %id, reason = reason.as_str(), "not understood");
                self.counts.add_not_understood(head.state);
            }
        }
        Ok(())
    }

    /// Stores the event of a delivery, which now is understood, in place of the delivery or under the event's own id.
    async fn store_event(
        &mut self,
        id: &EventId,
        head: &Head,
        new_event: &NewEvent<'_>,
    ) -> Result<Superseded, StoreError> {
        let (store, until) = (&self.outbox.store, self.time.give_up_at);
        if self.task.dry_run {
            return self.would_store(id, head, new_event).await;
        }
        if new_event.id != id {
            return store.supersede(id, head.state, new_event, until).await;
        }
        let is_released = store.release(new_event, &AttemptId::random(), until).await?;
        Ok(if is_released {
            Superseded::Accepted
        } else {
            Superseded::ByAnother
        })
    }

    /// What storing the event would come to if nobody changed anything meanwhile.
    async fn would_store(
        &mut self,
        id: &EventId,
        head: &Head,
        new_event: &NewEvent<'_>,
    ) -> Result<Superseded, StoreError> {
        if new_event.id == id {
            return Ok(Superseded::Accepted);
        }
        let body = head.payload_sha256();
        let ids = std::slice::from_ref(new_event.id);
        let known = self.outbox.store.heads(ids, Projection::Nothing).await?;
        let (state, known) = match (known.first(), self.would_be.get(new_event.id)) {
            (Some((_, known)), _) => (known.state, known.payload_sha256()),
            (None, Some(known)) => (State::Pending, known.as_str()),
            (None, None) => {
                self.would_be.insert(new_event.id.clone(), body.to_owned());
                return Ok(Superseded::Accepted);
            }
        };
        Ok(match state {
            State::Erased => Superseded::Erased,
            _ if known != body => Superseded::Conflict,
            State::Quarantined | State::Unsupported => Superseded::Accepted,
            _ => Superseded::Duplicate,
        })
    }
}
