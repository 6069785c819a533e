//! `{"redrive":{}}`: publishing what is due.
//!
//! An outage counts against no event: whatever SNS does not take stays due, and the next run tries it again. Only an
//! event whose own message SNS blames is put off, longer each time, and given up in the end: it stays in the table,
//! in the state `failed`.

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::identity::EventId;
use shared::publisher::{Occasion, PublishError};
use shared::store::{Head, Place, SHARDS, State, StoreError};
use tokio::time::Instant;

use crate::{Outbox, PAGE, TaskError};

/// How often SNS may blame an event's message before it is given up: about a quarter of an hour in all.
const ATTEMPTS: u32 = 6;

/// No parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redrive {}

#[derive(Default)]
struct Drained {
    published: u64,
    put_off: u64,
    failed: u64,
    /// Why nothing more could be published.
    outage: Option<String>,
}

impl Drained {
    fn count(&mut self, marked: Marked) {
        match marked {
            Marked::Published => self.published += 1,
            Marked::PutOff => self.put_off += 1,
            Marked::Failed => self.failed += 1,
            Marked::Outage(cause) => self.outage = Some(cause),
        }
    }
}

impl Outbox {
    pub(crate) async fn drain(&self, stop_at: Instant) -> Result<Value, TaskError> {
        let mut drained = Drained::default();
        let now = Timestamp::now();
        let mut done = true;
        // What ends a run early, again and again, must not keep it from the same shards each time.
        let first = fastrand::u8(..SHARDS);
        for shard in (first..SHARDS).chain(0..first) {
            let mut place = Some(Place::at(shard));
            while let Some(here) = place.filter(|place| place.shard() == shard) {
                if Instant::now() >= stop_at || drained.outage.is_some() {
                    done = false;
                    break;
                }
                let (ids, next) = self.store.due(State::Pending, &here, now, PAGE).await?;
                self.drain_page(&ids, now, &mut drained).await?;
                place = next;
            }
        }
        done &= drained.outage.is_none();
        let Drained {
            published,
            put_off,
            failed,
            outage,
        } = drained;
        if let Some(cause) = &outage {
            tracing::error!(
                cause,
                published,
                "nothing can be published at the moment; the events stay in the outbox"
            );
        }
        tracing::info!(published, put_off, failed, done, "redrive");
        Ok(json!({"published": published, "put_off": put_off, "failed": failed, "done": done, "outage": outage}))
    }

    async fn drain_page(&self, ids: &[EventId], now: Timestamp, drained: &mut Drained) -> Result<(), TaskError> {
        // The index lags: the heads say what is still to be done.
        let heads = self.store.heads(ids).await?;
        let due: Vec<_> = heads
            .into_iter()
            .filter(|(_, head)| head.state == State::Pending && head.is_due(now))
            .collect();
        let results = self.publish(&due, Occasion::News).await;
        let marks = due
            .iter()
            .zip(results)
            .map(|((id, head), result)| self.mark(id, head, result));
        // Every mark is waited for, whatever becomes of another: one that is left out is an event published twice.
        for marked in join_all(marks).await {
            match marked {
                Ok(marked) => drained.count(marked),
                Err(error) => drained.outage = Some(error.to_string()),
            }
        }
        Ok(())
    }

    async fn mark(&self, id: &EventId, head: &Head, result: Result<(), PublishError>) -> Result<Marked, StoreError> {
        match result {
            Ok(()) => {
                self.store.mark_published(id).await?;
                Ok(Marked::Published)
            }
            Err(PublishError::Unavailable(cause)) => Ok(Marked::Outage(cause)),
            Err(PublishError::Message(cause)) if head.attempts + 1 >= ATTEMPTS => {
                tracing::error!(event_id = %id, cause, "SNS refuses the event for good");
                self.store.give_up(id, head, &cause).await?;
                Ok(Marked::Failed)
            }
            Err(PublishError::Message(cause)) => {
                tracing::warn!(event_id = %id, cause, attempts = head.attempts + 1, "SNS refuses the event");
                let wait = SignedDuration::from_secs(30 << head.attempts);
                self.store.put_off(id, head, &cause, Timestamp::now() + wait).await?;
                Ok(Marked::PutOff)
            }
        }
    }
}

enum Marked {
    Published,
    PutOff,
    Failed,
    Outage(String),
}
