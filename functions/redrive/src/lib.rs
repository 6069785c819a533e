//! The function that works beside deliveries: every minute it publishes what waits in the outbox, and invoked by hand it shows
//! events, publishes them again, gives those that failed another try, reads again or closes what was not understood, publishes a
//! conflict, or erases an event, an order or a customer.
//!
//! An invocation's payload names one task, the variants of [`Task`]: `{"redrive":{}}`, `{"get":{"event_id":"..."}}`. A task that may take long stops in time before the function's own
//! deadline and says where it goes on.

mod alerts;
mod audit;
mod by_hour;
mod compare;
mod conflict;
mod dismiss;
mod drain;
mod erase;
mod get;
mod mentions;
mod plan;
mod providers;
mod replay;
mod report;
mod reprocess;
mod requeue;
mod retain;
mod throttle;
mod trim;

use std::fmt;
use std::time::{Duration, SystemTime};

use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::identity::EventId;
use shared::publisher::{Evidence, Fault, Message, Occasion, PublishError, Publisher};
use shared::settings::{SettingError, Settings};
use shared::store::{Head, Store, StoreError};
use shared::telemetry::Telemetry;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::alerts::Alerting;
use crate::providers::Providers;

/// Kept free before the function's own deadline: what one page of events may take at worst.
const LAST_PAGE_BUDGET: Duration = Duration::from_secs(15);

/// Kept free of pages before the function's own deadline: counting what is left, and the answer.
const TELLING_BUDGET: Duration = Duration::from_millis(3_500);

/// Events that are read from an index at once.
const PAGE: i32 = 10;

/// What an invocation asks for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Publish what is due.
    Redrive(drain::Redrive),
    /// Show whole events.
    Get(get::Get),
    /// Publish stored events again.
    Replay(replay::Replay),
    /// Give failed events another try.
    Requeue(requeue::Requeue),
    /// Read deliveries again that were not understood.
    Reprocess(reprocess::Reprocess),
    /// Close a quarantined delivery unread.
    Dismiss(dismiss::Dismiss),
    /// Take a dismissal back.
    Undismiss(dismiss::Dismiss),
    /// Publish another body of a known event as an event of its own.
    PublishConflict(conflict::PublishConflict),
    /// Remove what is stored of an event, an order or a customer.
    Erase(erase::Erase),
    /// Show what today's mapping would change in stored events.
    Compare(compare::Compare),
    /// List the parts that no event refers to.
    Audit(audit::Audit),
    /// Apply today's retention to events that are stored already.
    Retain(retain::Retain),
    /// Report to operators what has newly gone wrong.
    Alert(alerts::SendAlerts),
}

/// What is answered to a task.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// What was done.
    Report(Value),
    /// Events.
    Shown(get::Shown),
    /// What no event refers to.
    Audited(audit::Audited),
}

/// A task could not be done.
#[derive(thiserror::Error)]
pub enum TaskError {
    /// The payload names no task that is known, or not its parameters.
    #[error("not a task: {0}; functions/redrive/README.md lists them")]
    NoTask(String),
    /// The function is not set up correctly.
    #[error("{0}")]
    Setting(#[from] SettingError),
    /// The table cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// The time that a task has.
#[derive(Clone, Copy, Debug)]
struct TimeLeft {
    /// From here on no page is begun.
    stop_at: Instant,
    /// Here what is still in hand is let go: it is done again by the next run.
    give_up_at: Instant,
    /// The function's own deadline.
    deadline: Instant,
}

impl TimeLeft {
    fn until(deadline: Instant) -> Self {
        let left = deadline.saturating_duration_since(Instant::now());
        Self {
            stop_at: deadline - LAST_PAGE_BUDGET.min(left / 4),
            give_up_at: deadline - TELLING_BUDGET.min(left / 16),
            deadline,
        }
    }

    /// Does a step of a task, as long as there is time. The inner error says why it was not done to its end: it may be repeated.
    async fn cut<T>(self, step: impl Future<Output = Result<T, TaskError>>) -> Result<Result<T, String>, TaskError> {
        match timeout_at(self.give_up_at, step).await {
            Ok(Ok(done)) => Ok(Ok(done)),
            Ok(Err(TaskError::Store(error))) => Ok(Err(error.to_string())),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(Err("no answer in time".to_owned())),
        }
    }
}

/// The parts every task works with.
pub struct Outbox {
    store: Store,
    publisher: Publisher,
    telemetry: Telemetry,
    reading: Mutex<()>,
    // A fault in one provider's settings is no reason to stop publishing.
    providers: Result<Providers, SettingError>,
    alerting: Result<Alerting, SettingError>,
}

impl Outbox {
    /// The outbox that the settings name.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store: Store::from_settings(settings)?,
            publisher: Publisher::from_settings(settings)?,
            telemetry: Telemetry::from_settings(settings),
            reading: Mutex::default(),
            providers: Providers::from_settings(settings),
            alerting: Alerting::from_settings(settings),
        })
    }

    /// Does what `payload` asks for, until `deadline` at most.
    pub async fn handle(&self, payload: Value, deadline: Instant) -> Result<Answer, TaskError> {
        let task = serde_json::from_value(payload).map_err(|error| TaskError::NoTask(error.to_string()))?;
        let time = TimeLeft::until(deadline);
        let report = match task {
            Task::Get(get) => return self.get(get, time).await.map(Answer::Shown),
            Task::Audit(audit) => return self.audit(audit, time.stop_at).await.map(Answer::Audited),
            Task::Redrive(redrive) => Box::pin(self.drain(redrive.shards()?, time)).await,
            Task::Replay(replay) => self.replay(replay, time).await,
            Task::Requeue(requeue) => self.requeue(&requeue, time).await,
            // Boxed: these futures are large.
            Task::Reprocess(reprocess) => Box::pin(self.reprocess(&reprocess, time)).await,
            Task::Dismiss(dismiss) => self.dismiss(&dismiss).await,
            Task::Undismiss(undismiss) => self.undismiss(&undismiss).await,
            Task::PublishConflict(conflict) => Box::pin(self.publish_conflict(&conflict, time)).await,
            Task::Erase(erase) => Box::pin(self.erase(&erase, time)).await,
            Task::Compare(compare) => self.compare(compare, time).await,
            Task::Retain(retain) => self.retain(retain, time).await,
            Task::Alert(_) => Box::pin(self.send_alerts(time)).await,
        };
        report.map(Answer::Report)
    }

    /// Publishes stored events; one result for each, in their order, as far as there was time for them until `stop_at`. One that
    /// cannot be read holds up no other; once another call is not worth while, nothing more is tried.
    async fn publish(
        &self,
        heads: &[(EventId, Head)],
        occasion: Occasion,
        stop_at: Instant,
        evidence: &Evidence,
    ) -> Vec<Result<(), PublishError>> {
        let mut results = Vec::with_capacity(heads.len());
        let (mut chunk, mut size) = (Vec::new(), 0);
        // That much is held in memory for one page, and one message over that: no call to SNS takes more.
        let full = self.publisher.limit().bytes();
        let mut ended_by: Option<PublishError> = None;
        for (id, head) in heads {
            // Nothing waits in the chunk then.
            if let Some(error) = &ended_by {
                results.push(Err(error.clone()));
                continue;
            }
            // One is read at a time, however many pages are in hand: an event may be many times as large as its message.
            let reading = self.reading.lock().await;
            if Instant::now() >= stop_at {
                break;
            }
            let message = self.message(id, head, occasion).await;
            drop(reading);
            let unreadable = match message {
                Ok(message) => {
                    size += message.size();
                    chunk.push(message);
                    None
                }
                Err(error) => Some(error),
            };
            if size >= full || unreadable.is_some() {
                results.extend(self.publisher.publish_all(std::mem::take(&mut chunk), evidence).await);
                size = 0;
                ended_by = results.last().and_then(|result| ends(result, evidence));
            }
            if let Some(error) = unreadable {
                if matches!(error.fault, Fault::Store | Fault::Throttled) {
                    ended_by = Some(error.clone());
                }
                results.push(Err(error));
            }
        }
        results.extend(self.publisher.publish_all(chunk, evidence).await);
        results
    }

    /// The message of a stored event.
    async fn message(&self, id: &EventId, head: &Head, occasion: Occasion) -> Result<Message, PublishError> {
        match self.store.event(id, head).await {
            Ok(stored) => self.publisher.stored_message(stored, occasion),
            Err(error @ StoreError::Corrupt(_)) => Err(PublishError::unpublishable(error.to_string())),
            Err(error) => Err(PublishError {
                fault: if error.is_throttling() {
                    Fault::Throttled
                } else {
                    Fault::Store
                },
                cause: error.to_string(),
                is_alone: true,
            }),
        }
    }
}

/// The error of what is not tried any more after this result.
fn ends(result: &Result<(), PublishError>, evidence: &Evidence) -> Option<PublishError> {
    let error = result.as_ref().err()?;
    let ends = match error.fault {
        Fault::Unpublishable => false,
        Fault::Throttled | Fault::Store => true,
        Fault::Refused | Fault::Outage | Fault::Unclear => !evidence.is_worth_a_call(),
    };
    ends.then(|| PublishError {
        is_alone: false,
        ..error.clone()
    })
}

/// The event id that a task names.
fn event_id(text: &str) -> Result<EventId, TaskError> {
    EventId::parse(text).ok_or_else(|| TaskError::NoTask("event_id is not 64 hex digits".to_owned()))
}

/// As the runtime logs it: without what the payload says, which is the caller's business.
impl fmt::Debug for TaskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTask(_) => write!(formatter, "the task failed: the payload is not a task"),
            error => write!(formatter, "the task failed: {error}"),
        }
    }
}

impl From<TaskError> for Diagnostic {
    fn from(error: TaskError) -> Self {
        Self {
            error_type: "TaskError".to_owned(),
            error_message: error.to_string(),
        }
    }
}

/// Runs the function.
///
/// # Errors
/// Where the Lambda Runtime API is gone.
pub async fn run() -> Result<(), Error> {
    shared::log_to_standard_output();
    let outbox = Outbox::from_settings(&Settings::from_environment());
    let outbox = &outbox;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| async move {
        let left = event
            .context
            .deadline()
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        match outbox {
            Ok(outbox) => Box::pin(outbox.handle(event.payload, Instant::now() + left)).await,
            Err(error) => Err(error.clone().into()),
        }
    }))
    .await
}
