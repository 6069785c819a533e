//! `{"redrive":{}}`: publishing what is due.
//!
//! An outage counts against no event: whatever SNS does not take stays due, and the next run tries it again. Only an
//! event whose own message SNS blames is put off, longer each time, and given up in the end: it stays in the table,
//! in the state `failed`.

use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::identity::EventId;
use shared::publisher::{Occasion, PublishError, Stored};
use shared::store::{Head, SHARDS, State, StoreError};
use tokio::time::Instant;

use crate::{Outbox, PAGE, TaskError};

/// How often SNS may blame an event's message before it is given up: about half an hour in all.
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
    /// Why SNS took nothing more.
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
        let mut done = true;
        'shards: for shard in 0..SHARDS {
            let now = Timestamp::now();
            let mut cursor = None;
            loop {
                if Instant::now() >= stop_at {
                    done = false;
                    break 'shards;
                }
                let (ids, next) = self.store.due(State::Pending, shard, now, PAGE, cursor).await?;
                self.drain_page(&ids, now, &mut drained).await?;
                if drained.outage.is_some() {
                    done = false;
                    break 'shards;
                }
                match next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
        }
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
                "SNS takes nothing at the moment; the events stay in the outbox"
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
        let (events, due) = self.readable(due, drained).await?;
        let results = self.publisher.publish_all(&events, Occasion::News).await;
        let marks = due
            .iter()
            .zip(results)
            .map(|((id, head), result)| self.mark(id, head, result));
        for marked in try_join_all(marks).await? {
            drained.count(marked);
        }
        Ok(())
    }

    /// The stored events of `heads`. One that cannot be read holds up no other: it is treated as a message that SNS refuses.
    async fn readable(
        &self,
        heads: Vec<(EventId, Head)>,
        drained: &mut Drained,
    ) -> Result<(Vec<Stored>, Vec<(EventId, Head)>), TaskError> {
        let mut readable = (Vec::with_capacity(heads.len()), Vec::with_capacity(heads.len()));
        for (id, head) in heads {
            match self.store.event(&id, &head).await {
                Ok(event) => {
                    readable.0.push(event);
                    readable.1.push((id, head));
                }
                Err(error @ StoreError::Damaged(_)) => {
                    let damaged = Err(PublishError::Message(error.to_string()));
                    drained.count(self.mark(&id, &head, damaged).await?);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(readable)
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
                let wait = SignedDuration::from_secs(30 << head.attempts.min(10));
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
