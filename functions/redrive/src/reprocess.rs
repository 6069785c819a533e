//! `{"reprocess":{}}`: reading deliveries again that were not understood, with today's code over the bodies as they were kept.
//!
//! What is understood now goes into the outbox, from where the next run of `redrive` publishes it. The oldest is read first, so
//! that of two bodies of one event the first is the event.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::classify::Classification;
use shared::codes::Code;
use shared::identity::EventId;
use shared::store::{
    AttemptId, Content, EventJson, Head, Hour, NewEvent, Projection, Received, State, StoreError, Superseded,
};
use tokio::time::Instant;

use crate::{Outbox, TaskError, TimeLeft, event_id};

/// Deliveries that are looked up at once, and read one by one.
const KEYS: usize = 10;

/// Which deliveries: all that are quarantined, or those of a provider, or of a shop; one by its id; or, with a time, those that a
/// provider sent and that were taken for unsupported.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reprocess {
    #[serde(default)]
    state: NotUnderstood,
    /// One, whether it is quarantined or unsupported.
    event_id: Option<String>,
    provider: Option<String>,
    shop: Option<String>,
    /// Received at this time or later.
    from: Option<Timestamp>,
    /// Received before this time.
    to: Option<Timestamp>,
    /// Count them only.
    #[serde(default)]
    dry_run: bool,
    /// Where an earlier run stopped.
    cursor: Option<Cursor>,
}

/// The states that are read again.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum NotUnderstood {
    #[default]
    Quarantined,
    Unsupported,
}

/// The delivery that was the last, and the hour that was looked through.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cursor {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hour: Option<Timestamp>,
    after: Option<Received>,
}

/// Where deliveries are looked up.
enum Source<'t> {
    One(EventId),
    Quarantined,
    Received {
        provider: &'t str,
        from: Timestamp,
        to: Timestamp,
    },
}

/// What has come of the deliveries so far.
#[derive(Default)]
struct Reprocessed {
    accepted: u64,
    duplicates: u64,
    conflicts: u64,
    unsupported: u64,
    quarantined: u64,
    /// Not read: they have expired, and are not removed yet.
    expired: u64,
    /// What a dry run would have made of a new id: the hash of its body.
    would_be: HashMap<EventId, String>,
}

impl Reprocess {
    fn source(&self) -> Result<Source<'_>, TaskError> {
        match (
            self.event_id.as_deref(),
            self.state,
            self.provider.as_deref(),
            self.from,
            self.to,
        ) {
            (Some(id), _, None, None, None) => event_id(id).map(Source::One),
            (None, NotUnderstood::Quarantined, _, None, None) => Ok(Source::Quarantined),
            (None, NotUnderstood::Unsupported, Some(provider), Some(from), Some(to)) => {
                Ok(Source::Received { provider, from, to })
            }
            (None, NotUnderstood::Unsupported, ..) => Err(TaskError::NoTask(
                "reprocess of unsupported deliveries takes provider, from and to".to_owned(),
            )),
            _ => Err(TaskError::NoTask(
                "reprocess takes event_id alone, and from and to with the state unsupported".to_owned(),
            )),
        }
    }
}

impl Outbox {
    pub(crate) async fn reprocess(&self, task: &Reprocess, time: TimeLeft) -> Result<Value, TaskError> {
        let source = task.source()?;
        let mut reprocessed = Reprocessed::default();
        let mut cursor = task.cursor.clone().unwrap_or_default();
        let mut is_done = false;
        let mut outage = None;
        while !is_done && Instant::now() < time.stop_at {
            let page = Box::pin(self.reprocess_page(task, &source, &mut cursor, time, &mut reprocessed));
            match time.cut(page).await? {
                Ok(was_last) => is_done = was_last,
                Err(cause) => {
                    outage = Some(cause);
                    break;
                }
            }
        }
        let Reprocessed {
            accepted,
            duplicates,
            conflicts,
            unsupported,
            quarantined,
            expired,
            ..
        } = reprocessed;
        tracing::info!(
            accepted,
            duplicates,
            conflicts,
            unsupported,
            quarantined,
            expired,
            outage,
            dry_run = task.dry_run,
            "reprocess"
        );
        Ok(json!({
            "accepted": accepted,
            "duplicates": duplicates,
            "conflicts": conflicts,
            "unsupported": unsupported,
            "quarantined": quarantined,
            "expired": expired,
            "dry_run": task.dry_run,
            "done": is_done,
            "cursor": (!is_done).then_some(cursor),
            "outage": outage,
        }))
    }

    /// Reads the next deliveries, and moves the cursor past each. True where they were the last.
    async fn reprocess_page(
        &self,
        task: &Reprocess,
        source: &Source<'_>,
        cursor: &mut Cursor,
        time: TimeLeft,
        reprocessed: &mut Reprocessed,
    ) -> Result<bool, TaskError> {
        let (keys, next) = self.next_deliveries(source, cursor).await?;
        let expiry = self.store.expiry(Timestamp::now()).await?;
        let ids: Vec<EventId> = keys.iter().map(|(id, _)| id.clone()).collect();
        let mut heads: HashMap<EventId, Head> = HashMap::new();
        if !ids.is_empty() {
            heads.extend(self.store.heads(&ids, Projection::Nothing).await?);
        }
        for (id, received) in keys {
            if Instant::now() >= time.stop_at {
                return Ok(false);
            }
            if let Some(head) = heads.remove(&id)
                && task.wants(&head, source)
            {
                if expiry.has_expired(&head) {
                    reprocessed.expired += 1;
                    cursor.after = received.or(cursor.after.take());
                    continue;
                }
                let whole = self
                    .store
                    .heads(std::slice::from_ref(&id), Projection::Delivery)
                    .await?;
                if let Some((id, head)) = whole.first().filter(|(_, head)| task.wants(head, source)) {
                    self.reprocess_one(task, id, head, time, reprocessed).await?;
                }
            }
            cursor.after = received.or(cursor.after.take());
        }
        match next {
            Some(next) => {
                *cursor = next;
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// The next deliveries, and where to go on after them; nothing where they are the last.
    async fn next_deliveries(
        &self,
        source: &Source<'_>,
        cursor: &Cursor,
    ) -> Result<(Vec<(EventId, Option<Received>)>, Option<Cursor>), TaskError> {
        let after = cursor.after.as_ref();
        let (received, next) = match source {
            Source::One(id) => return Ok((vec![(id.clone(), None)], None)),
            Source::Quarantined => {
                let (work, has_more) = self.store.work_in_order(State::Quarantined, after, KEYS).await?;
                let last = work.last().cloned().or_else(|| cursor.after.clone());
                (
                    work,
                    has_more.then_some(Cursor {
                        hour: None,
                        after: last,
                    }),
                )
            }
            Source::Received { provider, from, to } => {
                let hour = Hour::containing(cursor.hour.unwrap_or(*from));
                if hour.start() >= *to {
                    return Ok((Vec::new(), None));
                }
                let (received, has_more) = self.store.received_in(provider, hour, after, KEYS).await?;
                let next = if has_more {
                    Cursor {
                        hour: Some(hour.start()),
                        after: received.last().cloned().or_else(|| cursor.after.clone()),
                    }
                } else {
                    Cursor {
                        hour: Some(hour.next().start()),
                        after: None,
                    }
                };
                (received, Some(next))
            }
        };
        let heads = received.into_iter().filter(|received| received.conflict.is_none());
        Ok((
            heads.map(|received| (received.id.clone(), Some(received))).collect(),
            next,
        ))
    }

    async fn reprocess_one(
        &self,
        task: &Reprocess,
        id: &EventId,
        head: &Head,
        time: TimeLeft,
        reprocessed: &mut Reprocessed,
    ) -> Result<(), TaskError> {
        let not_understood = |reprocessed: &mut Reprocessed| match head.state {
            State::Unsupported => reprocessed.unsupported += 1,
            _ => reprocessed.quarantined += 1,
        };
        let delivery = match self.store.delivery(id, head).await {
            Ok(delivery) => delivery,
            // One that cannot be read holds up no other.
            Err(error @ StoreError::Corrupt(_)) => {
                tracing::error!(
                    code = Code::CorruptItem.as_str(),
                    event_id = %id,
                    cause = %error,
                    "a kept delivery cannot be read"
                );
                not_understood(reprocessed);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let providers = self.providers.as_ref().map_err(Clone::clone)?;
        let understood = head
            .provider()
            .and_then(|provider| providers.classify(provider, &delivery));
        let Some((provider, classified)) = understood else {
            tracing::info!(event_id = %id, reason = "unknown_provider", "not understood");
            not_understood(reprocessed);
            return Ok(());
        };
        match &classified.classification {
            Classification::Order(event) => {
                let json = EventJson::of(event, self.publisher.limit());
                let new_event = NewEvent {
                    id: &classified.id,
                    provider,
                    delivery: &delivery,
                    content: Content::Order(event, &json),
                };
                let superseded = if task.dry_run {
                    self.would_supersede(id, &new_event, head, reprocessed).await?
                } else if classified.id == *id {
                    let attempt = AttemptId::random();
                    if self.store.release(&new_event, &attempt, time.give_up_at).await? {
                        Superseded::Accepted
                    } else {
                        Superseded::ByAnother
                    }
                } else {
                    self.store
                        .supersede(id, head.state, &new_event, time.give_up_at)
                        .await?
                };
                match superseded {
                    Superseded::Accepted => reprocessed.accepted += 1,
                    Superseded::Conflict => reprocessed.conflicts += 1,
                    Superseded::Duplicate | Superseded::Erased => reprocessed.duplicates += 1,
                    Superseded::ByAnother => {}
                }
            }
            Classification::Unsupported if head.state == State::Quarantined => {
                reprocessed.unsupported += u64::from(task.dry_run || self.store.mark_unsupported(id, head).await?);
            }
            Classification::Unsupported => reprocessed.unsupported += 1,
            Classification::Quarantined(reason) => {
                tracing::info!(event_id = %id, reason = reason.as_str(), "not understood");
                not_understood(reprocessed);
            }
        }
        Ok(())
    }

    /// What would come of a delivery, as far as nobody changes anything meanwhile.
    async fn would_supersede(
        &self,
        id: &EventId,
        new_event: &NewEvent<'_>,
        head: &Head,
        reprocessed: &mut Reprocessed,
    ) -> Result<Superseded, TaskError> {
        let body = head.payload_sha256();
        if new_event.id == id {
            return Ok(Superseded::Accepted);
        }
        let known = self
            .store
            .heads(std::slice::from_ref(new_event.id), Projection::Nothing)
            .await?;
        let (state, known) = match (known.first(), reprocessed.would_be.get(new_event.id)) {
            (Some((_, known)), _) => (known.state, known.payload_sha256().to_owned()),
            (None, Some(known)) => (State::Pending, known.clone()),
            (None, None) => {
                reprocessed.would_be.insert(new_event.id.clone(), body.to_owned());
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

impl Reprocess {
    fn wants(&self, head: &Head, source: &Source<'_>) -> bool {
        let wanted = |filter: &Option<String>, value| filter.as_deref().is_none_or(|filter| value == Some(filter));
        let is_in_state = match source {
            Source::One(_) => matches!(head.state, State::Quarantined | State::Unsupported),
            Source::Quarantined => head.state == State::Quarantined,
            Source::Received { from, to, .. } => {
                let received_at = head.received_at();
                head.state == State::Unsupported && received_at.is_some_and(|time| (*from..*to).contains(&time))
            }
        };
        is_in_state && wanted(&self.provider, head.provider()) && wanted(&self.shop, head.shop())
    }
}
