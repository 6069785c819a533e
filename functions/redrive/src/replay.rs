//! `{"replay":{...}}`: publishes stored events again exactly as they are stored. They keep their ids; their messages
//! have the attribute `replay`.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::codes::Code;
use shared::identity::EventId;
use shared::publisher::{Evidence, Fault, Occasion, PublishError};
use shared::store::{Head, Projection, State};
use tokio::time::Instant;

use crate::by_hour::{HourCursor, Period};
use crate::time_left::{NO_ANSWER, Page, TimeLeft};
use crate::{Outbox, TaskError};

/// The events of a provider that were received in a period, or those of a shop or of some types among them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    provider: String,
    shop: Option<String>,
    /// Received at this time or later.
    from: Timestamp,
    /// Received before this time.
    to: Timestamp,
    /// Types of events, such as `order.created`. If there are none, all events are replayed.
    #[serde(default)]
    types: Vec<String>,
    /// Only count the events.
    #[serde(default)]
    dry_run: bool,
    /// Where an earlier run stopped.
    cursor: Option<HourCursor>,
}

impl Replay {
    fn wants(&self, head: &Head) -> bool {
        head.state == State::Published
            && self.shop.as_deref().is_none_or(|shop| head.shop() == Some(shop))
            && (self.types.is_empty() || self.types.iter().any(|wanted| head.event_type() == Some(wanted)))
    }
}

impl Outbox {
    pub(crate) async fn replay(&self, mut task: Replay, time: TimeLeft) -> Result<Value, TaskError> {
        // Expired events are counted and not replayed, although they are not removed yet.
        let (mut replayed, mut expired) = (0, 0);
        let evidence = Evidence::default();
        let cursor = task.cursor.take();
        let period = Period {
            provider: &task.provider,
            from: task.from,
            to: task.to,
        };
        let walked = self
            .walk_period(period, cursor, Projection::Event, time, async |mut events| {
                events.retain(|(_, head)| task.wants(head));
                let wanted = events.len();
                let now = Timestamp::now();
                events.retain(|(_, head)| !self.store.has_expired(head, now));
                let unpublished = if task.dry_run {
                    0
                } else {
                    self.replay_events(&events, time.deadline, &evidence).await?
                };
                replayed += events.len() - unpublished;
                expired += wanted - events.len();
                Ok(Page::More)
            })
            .await?;
        tracing::info!(
            replayed,
            expired,
            outage = walked.outage,
            dry_run = task.dry_run,
            provider = task.provider,
            "replay"
        );
        Ok(walked.answer(json!({"replayed": replayed, "expired": expired, "dry_run": task.dry_run})))
    }

    /// Publishes a page of events again. Returns how many of them cannot be published through a fault of their own.
    /// After any other error the page is replayed again, and those of its events that were published are published
    /// twice, under the same ids.
    async fn replay_events(
        &self,
        events: &[(EventId, Head)],
        until: Instant,
        evidence: &Evidence,
    ) -> Result<usize, TaskError> {
        let results = self.publish(events, Occasion::Replay, until, evidence).await;
        let is_cut_short = results.len() < events.len();
        let mut unpublished = 0;
        for ((id, _), result) in events.iter().zip(results) {
            match result {
                Ok(()) => {}
                Err(error) if is_its_own_fault(&error, evidence) => {
                    unpublished += 1;
                    tracing::error!(
                        code = Code::EventNotReplayed.as_str(),
                        event_id = %id,
                        cause = error.cause,
                        "the event cannot be published"
                    );
                }
                Err(error) => return Err(error.into()),
            }
        }
        if is_cut_short {
            // The cursor must not move past events that were not reached.
            let error = PublishError {
                fault: Fault::Unclear,
                cause: NO_ANSWER.to_owned(),
                is_alone: false,
            };
            return Err(error.into());
        }
        Ok(unpublished)
    }
}

/// Whether an error is one message's fault: other messages are published.
fn is_its_own_fault(error: &PublishError, evidence: &Evidence) -> bool {
    match error.fault {
        Fault::Unpublishable => true,
        Fault::Refused | Fault::Unclear | Fault::Outage => error.is_alone && evidence.is_worth_a_call(),
        Fault::Throttled | Fault::Store => false,
    }
}
