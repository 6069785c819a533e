//! Distinguishes the fault of one message from an outage.
//!
//! If no message is published, the cause is an outage, and no failure is counted. If other messages are published, the
//! event whose message fails is put off, longer each time. Only refusals of the message itself are counted: after
//! [`ATTEMPTS`] of them the event is `failed` and stays in the table.

use jiff::{SignedDuration, Timestamp};
use shared::codes::Code;
use shared::identity::EventId;
use shared::publisher::{Fault, PublishError};
use shared::store::{Head, StoreError};
use tokio::time::timeout_at;

use super::page::PageOutcome;
use super::plan::Plan;
use super::{Counts, Progress, Run};
use crate::time_left::NO_ANSWER;

/// How often SNS may refuse the message of an event before the event is `failed`, about a quarter of an hour after the
/// first time; and how often in a row an event may kill a run.
pub(super) const ATTEMPTS: u32 = 6;

/// The first delay of an event that is put off, in seconds. Each next one is twice as long, up to half an hour.
const FIRST_DELAY: i64 = 30;
const DOUBLINGS: u32 = 6;

/// A message that was tried alone and not published.
pub(super) struct Failure {
    pub(super) id: EventId,
    pub(super) error: PublishError,
    /// How often SNS has refused the message before.
    attempts: u32,
    /// How often the event was put off for other errors before.
    deferrals: u32,
}

impl Failure {
    /// Whether the cause may be an outage. An event that can never be a message says nothing about the topic.
    pub(super) fn may_be_an_outage(&self) -> bool {
        self.error.fault != Fault::Unpublishable
    }

    /// Whether the failure counts towards `failed`: SNS refuses the message, or there can be none.
    fn is_counted(&self) -> bool {
        matches!(self.error.fault, Fault::Refused | Fault::Unpublishable)
    }
}

impl Run<'_> {
    /// Adds an error of publishing to the outcome of its page: it stops the page or the run, or is a failure of the
    /// event's message.
    pub(super) fn add_error(&self, id: &EventId, head: &Head, error: PublishError, outcome: &mut PageOutcome) {
        let (has_published, is_worth_a_call) = (self.evidence.has_published(), self.evidence.is_worth_a_call());
        match error.fault {
            Fault::Throttled => outcome.throttled = Some(error.cause),
            Fault::Store => {
                outcome.is_table_failing = true;
                outcome.outage = Some(error.cause);
            }
            Fault::Outage if !has_published => outcome.outage = Some(error.cause),
            Fault::Outage | Fault::Unclear | Fault::Refused if has_published && !is_worth_a_call => {
                outcome.outage = Some(error.cause);
            }
            Fault::Outage | Fault::Unclear | Fault::Refused if !error.is_alone => outcome.unsplit = Some(error.cause),
            Fault::Outage | Fault::Unclear | Fault::Refused | Fault::Unpublishable => outcome.failures.push(Failure {
                id: id.clone(),
                error,
                attempts: head.attempts,
                deferrals: head.deferrals,
            }),
        }
    }

    /// Decides at the end of the run about the failures from before anything was published: each is the fault of its
    /// message if something has been published since, and an outage otherwise.
    pub(super) async fn resolve_failures(&self, plan: &Plan, progress: &mut Progress) {
        if timeout_at(self.time.give_up_at, self.resolve(plan, progress))
            .await
            .is_err()
        {
            progress.outage.get_or_insert_with(|| NO_ANSWER.to_owned());
        }
    }

    async fn resolve(&self, plan: &Plan, progress: &mut Progress) {
        let has_published = self.evidence.has_published();
        let failures = std::mem::take(&mut progress.failures).into_values();
        let (open, mut certain): (Vec<_>, Vec<_>) =
            failures.partition(|failure| failure.may_be_an_outage() && !has_published);
        if self.is_lone_refusal(&open, plan, progress).await {
            certain.extend(open);
        } else if !has_published {
            let first = open.into_iter().next().map(|failure| failure.error.cause);
            progress.outage = progress.outage.take().or(first).or(progress.unsplit.take());
        }
        if let Err(error) = self.record_failures(&certain, &mut progress.counts).await {
            progress.is_table_failing = true;
            progress.outage = Some(error.to_string());
        }
    }

    /// Whether SNS refuses the only event in the outbox, and the topic is not the cause. No other message can show
    /// that.
    async fn is_lone_refusal(&self, open: &[Failure], plan: &Plan, progress: &Progress) -> bool {
        matches!(open, [failure] if failure.error.fault == Fault::Refused)
            && plan.is_done()
            && progress.unsplit.is_none()
            && progress.may_go_on()
            && self.outbox.publisher.has_sound_topic().await
    }

    /// Puts off events whose messages failed while other messages were published, or marks them as failed.
    pub(super) async fn record_failures(&self, failures: &[Failure], counts: &mut Counts) -> Result<(), StoreError> {
        let store = &self.outbox.store;
        for failure in failures {
            let Failure {
                id,
                error,
                attempts,
                deferrals,
            } = failure;
            if !self.recorded.borrow_mut().insert(id.clone()) {
                continue;
            }
            let cause = error.cause.as_str();
            if !failure.is_counted() {
                let deferrals = *deferrals;
                tracing::warn!(
                    code = Code::EventDeferred.as_str(),
                    event_id = %id,
                    cause,
                    deferrals = deferrals + 1,
                    "the event fails alone; it is put off"
                );
                counts.put_off += u64::from(store.defer(id, cause, next_attempt(deferrals)).await?);
            } else if attempts + 1 < ATTEMPTS {
                tracing::warn!(
                    code = Code::MessageRefused.as_str(),
                    event_id = %id,
                    cause,
                    attempts = attempts + 1,
                    "the event has no message that SNS takes; it is put off"
                );
                let next = next_attempt(*attempts);
                counts.put_off += u64::from(store.put_off(id, *attempts, cause, next).await?);
            } else {
                tracing::error!(
                    code = Code::Failed.as_str(),
                    event_id = %id,
                    cause,
                    "the event has no message that SNS takes; it is marked as failed"
                );
                counts.failed += u64::from(store.mark_failed(id, *attempts, cause).await?);
            }
        }
        Ok(())
    }
}

/// The time of the next attempt for an event that was put off `times` times before.
pub(super) fn next_attempt(times: u32) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(FIRST_DELAY << times.min(DOUBLINGS))
}
