//! The function that publishes the outbox every minute, and does what operators ask for: it shows, folds,
//! replays, requeues, reprocesses, dismisses, compares and erases stored events.
//!
//! An invocation's payload names one task, a variant of [`Task`]: `{"redrive":{}}` or `{"get":{"event_id":"..."}}`. A
//! task that may take long stops before the function's deadline and answers with a cursor, from which the next
//! invocation goes on.

mod alerts;
mod audit;
mod by_hour;
mod compare;
mod dismiss;
mod drain;
mod erase;
mod get;
mod providers;
mod publish;
mod publish_conflict;
mod replay;
mod reprocess;
mod requeue;
mod retain;
mod state;
mod time_left;

use std::fmt;
use std::time::SystemTime;

use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::identity::EventId;
use shared::publisher::{PublishError, Publisher};
use shared::settings::{SettingError, Settings};
use shared::store::{Store, StoreError};
use shared::telemetry::Telemetry;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::alerts::Alerting;
use crate::providers::Providers;
use crate::time_left::TimeLeft;

/// The number of events that are read from an index at once.
const PAGE: i32 = 10;

/// The task of an invocation.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Publish every event that is due.
    Redrive(drain::Redrive),
    /// Show stored events in full.
    Get(get::Get),
    /// Show the state of an order.
    State(state::ShowState),
    /// Publish stored events again.
    Replay(replay::Replay),
    /// Put failed events back into the outbox.
    Requeue(requeue::Requeue),
    /// Classify again the deliveries that were not understood.
    Reprocess(reprocess::Reprocess),
    /// Close a quarantined delivery that will never be understood.
    Dismiss(dismiss::Dismiss),
    /// Take a dismissal back.
    Undismiss(dismiss::Dismiss),
    /// Publish a conflict as an event of its own.
    PublishConflict(publish_conflict::PublishConflict),
    /// Erase an event, an order or a customer.
    Erase(erase::Erase),
    /// Show what today's mapping would change in stored events.
    Compare(compare::Compare),
    /// Count what is stored and list faults.
    Audit(audit::Audit),
    /// Apply today's retention to stored events.
    Retain(retain::Retain),
    /// Report to operators what has newly gone wrong.
    Alert(alerts::SendAlerts),
}

/// The answer to a task.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// The task's counts or findings, and how far it came.
    Report(Value),
    /// Events, each with its JSON as it is stored.
    Shown(get::Shown),
}

/// An error of a task.
#[derive(thiserror::Error)]
pub enum TaskError {
    /// The payload is not a task with its parameters.
    #[error("invalid task: {0}; functions/redrive/README.md lists the tasks")]
    NoTask(String),
    /// The function is not configured correctly.
    #[error("{0}")]
    Setting(#[from] SettingError),
    /// The table cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// SNS does not take messages.
    #[error("{0}")]
    Publish(#[from] PublishError),
}

impl TaskError {
    /// The cause of the outage if the task can go on later; otherwise the error itself.
    fn into_outage(self) -> Result<String, Self> {
        match self {
            Self::Store(error) => Ok(error.to_string()),
            Self::Publish(error) => Ok(error.cause),
            error => Err(error),
        }
    }
}

/// The table, the topic and the providers, with which the tasks work.
pub struct Outbox {
    store: Store,
    publisher: Publisher,
    telemetry: Telemetry,
    /// Locked while an event is read, so that one is in memory at a time.
    reading: Mutex<()>,
    // A fault in one provider's settings does not stop publishing.
    providers: Result<Providers, SettingError>,
    alerting: Result<Alerting, SettingError>,
}

impl Outbox {
    /// Reads the settings of the table, the topic and the providers.
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

    /// Does the task of `payload`, until `deadline` at most.
    pub async fn handle(&self, payload: Value, deadline: Instant) -> Result<Answer, TaskError> {
        let task = serde_json::from_value(payload).map_err(|error| TaskError::NoTask(error.to_string()))?;
        let time = TimeLeft::until(deadline);
        let report = match task {
            Task::Get(get) => return self.get(get, time).await.map(Answer::Shown),
            Task::State(state) => self.state(&state, time).await,
            Task::Audit(audit) => self.audit(audit, time).await,
            // Boxed: these futures are large.
            Task::Redrive(redrive) => Box::pin(self.drain(redrive.shards()?, time)).await,
            Task::Replay(replay) => Box::pin(self.replay(replay, time)).await,
            Task::Requeue(requeue) => self.requeue(requeue, time).await,
            Task::Reprocess(reprocess) => Box::pin(self.reprocess(&reprocess, time)).await,
            Task::Dismiss(dismiss) => self.dismiss(&dismiss).await,
            Task::Undismiss(undismiss) => self.undismiss(&undismiss).await,
            Task::PublishConflict(conflict) => Box::pin(self.publish_conflict(&conflict, time)).await,
            Task::Erase(erase) => Box::pin(self.erase(&erase, time)).await,
            Task::Compare(compare) => Box::pin(self.compare(compare, time)).await,
            Task::Retain(retain) => self.retain(retain, time).await,
            Task::Alert(_) => Box::pin(self.send_alerts(time)).await,
        };
        report.map(Answer::Report)
    }
}

/// Reads the event id of a task.
fn event_id(text: &str) -> Result<EventId, TaskError> {
    EventId::parse(text).ok_or_else(|| TaskError::NoTask("event_id is not 64 hex digits".to_owned()))
}

/// The runtime logs errors like this: without the text about the payload, which may hold personal data.
impl fmt::Debug for TaskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTask(_) => write!(formatter, "the task failed: the payload is not a valid task"),
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
/// If the Lambda Runtime API is gone.
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
