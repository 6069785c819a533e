//! The function beside the way of a delivery: every minute it publishes what waits in the outbox, and invoked by hand it
//! shows events, publishes them again, gives those that failed another try, reads quarantined deliveries anew or closes them, or
//! erases an order.
//!
//! An invocation's payload names one task, the variants of [`Task`]: `{"redrive":{}}`, `{"get":{"event_id":"..."}}`. A task that may take long stops in time before the function's own
//! deadline and says where it goes on.

mod dismiss;
mod drain;
mod erase;
mod get;
mod providers;
mod replay;
mod report;
mod reprocess;
mod requeue;
mod retain;
mod trim;

use std::fmt;
use std::time::{Duration, SystemTime};

use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::identity::EventId;
use shared::publisher::{Message, Occasion, PublishError, Publisher};
use shared::settings::{SettingError, Settings};
use shared::store::{Head, Store, StoreError};
use shared::telemetry::Telemetry;
use tokio::sync::Mutex;
use tokio::time::Instant;

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
    /// Read quarantined deliveries anew.
    Reprocess(reprocess::Reprocess),
    /// Close a quarantined delivery unread.
    Dismiss(dismiss::Dismiss),
    /// Remove what is known of an order.
    Erase(erase::Erase),
    /// Apply today's retention to events that are stored already.
    Retain(retain::Retain),
}

/// What is answered to a task.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// What was done.
    Report(Value),
    /// Events.
    Shown(get::Shown),
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
}

/// The parts every task works with.
pub struct Outbox {
    store: Store,
    publisher: Publisher,
    telemetry: Telemetry,
    reading: Mutex<()>,
    // A fault in one provider's settings is no reason to stop publishing.
    providers: Result<Providers, SettingError>,
}

impl Outbox {
    /// The outbox that the settings name.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store: Store::from_settings(settings)?,
            publisher: Publisher::from_settings(settings)?,
            telemetry: Telemetry::from_settings(settings, None, &report::UNITS),
            reading: Mutex::default(),
            providers: Providers::from_settings(settings),
        })
    }

    /// Does what `payload` asks for, until `deadline` at most.
    pub async fn handle(&self, payload: Value, deadline: Instant) -> Result<Answer, TaskError> {
        let task = serde_json::from_value(payload).map_err(|error| TaskError::NoTask(error.to_string()))?;
        let time = TimeLeft::until(deadline);
        let report = match task {
            Task::Get(get) => return self.get(get).await.map(Answer::Shown),
            Task::Redrive(_) => self.drain(time).await,
            Task::Replay(replay) => self.replay(replay, time).await,
            Task::Requeue(requeue) => self.requeue(&requeue, time.stop_at).await,
            Task::Reprocess(reprocess) => self.reprocess(&reprocess, time.stop_at).await,
            Task::Dismiss(dismiss) => self.dismiss(&dismiss).await,
            Task::Erase(erase) => self.erase(erase).await,
            Task::Retain(retain) => self.retain(retain, time).await,
        };
        report.map(Answer::Report)
    }

    /// Publishes stored events; one result for each, in their order, as far as there was time for them until `stop_at`. One that
    /// cannot be read holds up no other; after an outage nothing more is tried.
    async fn publish(
        &self,
        heads: &[(EventId, Head)],
        occasion: Occasion,
        stop_at: Instant,
    ) -> Vec<Result<(), PublishError>> {
        let mut results = Vec::with_capacity(heads.len());
        let (mut chunk, mut size) = (Vec::new(), 0);
        // That much is held in memory for one page, and one message over that: no call to SNS takes more.
        let full = self.publisher.limit().bytes();
        for (id, head) in heads {
            // Nothing waits in the chunk then.
            if let Some(outage @ Err(PublishError::Unavailable(_))) = results.last() {
                results.push(outage.clone());
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
                results.extend(self.publisher.publish_all(std::mem::take(&mut chunk)).await);
                size = 0;
            }
            results.extend(unreadable.map(Err));
        }
        results.extend(self.publisher.publish_all(chunk).await);
        results
    }

    /// The message of a stored event.
    async fn message(&self, id: &EventId, head: &Head, occasion: Occasion) -> Result<Message, PublishError> {
        match self.store.event(id, head).await {
            Ok(stored) => self.publisher.message(stored.event, Some(stored.json), occasion),
            Err(error @ StoreError::Damaged(_)) => Err(PublishError::Message(error.to_string())),
            Err(error) => Err(PublishError::Unavailable(error.to_string())),
        }
    }
}

/// The event id that a task names.
fn event_id(text: &str) -> Result<EventId, TaskError> {
    EventId::parse(text).ok_or_else(|| TaskError::NoTask("event_id is not 64 hex digits".to_owned()))
}

/// As the runtime logs it: without what the payload says, which is the caller's business.
impl fmt::Debug for TaskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTask(_) => write!(formatter, "the task failed: the payload is none"),
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
            Ok(outbox) => outbox.handle(event.payload, Instant::now() + left).await,
            Err(error) => Err(error.clone().into()),
        }
    }))
    .await
}
