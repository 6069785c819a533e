//! The function that compares the orders of each shop, as the provider's order API lists them, with the stored events,
//! and sends what is missing or newer through the same flow as a delivery.
//!
//! An invocation's payload names the task: `{"reconcile":{"provider":"snipcart"}}`. A run stops before the function's
//! deadline. A regular run is continued by the next one; a run of a period answers with a cursor. The other task,
//! `connect`, subscribes to the events of a shop, and regular runs look after its subscriptions.

mod connect;
mod examine;
mod providers;
mod report;
mod shop;
mod subscriber;
mod task;
mod time_left;
mod watch;

use std::fmt;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use serde::Serialize;
use serde_json::Value;
use shared::codes::Code;
use shared::intake::Intake;
use shared::settings::{SettingError, Settings};
use shared::store::StoreError;
use shared::telemetry::Telemetry;
use tokio::time::{Instant, timeout};

pub use crate::connect::Connected;
use crate::providers::Providers;
pub use crate::report::{RunAnswer, Status};
use crate::task::{OVERLAP, Task};
use crate::time_left::TimeLeft;

/// How long init waits for connections.
const CONNECT_BUDGET: Duration = Duration::from_secs(2);

/// An error of a task.
#[derive(thiserror::Error)]
pub enum TaskError {
    /// The payload is not a task with its parameters.
    #[error("invalid task: {0}; functions/reconcile/README.md describes the task")]
    NoTask(String),
    /// The function is not configured correctly.
    #[error("{0}")]
    Setting(#[from] SettingError),
    /// The table cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The secret cannot be read.
    #[error("{0}")]
    Secret(String),
}

/// The answer to a task.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// What a run has found.
    Run(RunAnswer),
    /// The subscriptions of a shop.
    Connected(Connected),
}

/// The table, the topic and the providers, with which a run works.
pub struct Reconciler {
    intake: Intake,
    telemetry: Telemetry,
    providers: Providers,
    windows: Windows,
    /// Whether a run makes a subscription again that has ended.
    auto_resubscribe: bool,
}

/// How far back and how close to the present a regular run looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    /// How far back the first run looks, and every run of a provider whose API lists orders by the day when they were
    /// placed.
    lookback: SignedDuration,
    /// How far back one run a day looks for a provider whose API lists orders by the day when they were placed; zero: no
    /// run does.
    daily: SignedDuration,
    /// The age that a change must have, so that its webhook is not overtaken.
    settle: SignedDuration,
    /// How long published events are kept, if not for ever.
    kept: Option<SignedDuration>,
}

impl Windows {
    /// Whether events of an order that was placed at `placed_at` may have expired, with a margin for clocks that differ.
    fn has_expired(self, placed_at: Option<Timestamp>, now: Timestamp) -> bool {
        let (Some(placed_at), Some(kept)) = (placed_at, self.kept) else {
            return false;
        };
        now.duration_since(placed_at) > kept - OVERLAP
    }
}

impl Reconciler {
    /// Reads the settings of the table, the topic and the providers.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        let hours = settings.parsed("RECONCILE_LOOKBACK_HOURS", 48_u16, "a whole number of hours")?;
        let days = settings.parsed("RECONCILE_DAILY_LOOKBACK_DAYS", 30_u16, "a number of days")?;
        let minutes = settings.parsed("RECONCILE_SETTLE_MINUTES", 5_u16, "a whole number of minutes")?;
        let intake = Intake::for_many_orders(settings)?;
        let kept = intake.store().keeps_orders_for();
        Ok(Self {
            intake,
            telemetry: Telemetry::from_settings(settings),
            auto_resubscribe: settings.parsed("AUTO_RESUBSCRIBE", false, "`true` or `false`")?,
            providers: Providers::from_settings(settings)?,
            windows: Windows {
                lookback: SignedDuration::from_hours(hours.into()),
                daily: SignedDuration::from_hours(24 * i64::from(days)),
                settle: SignedDuration::from_mins(minutes.into()),
                kept,
            },
        })
    }

    /// Opens the connections to the table and the topic. An error is only logged: the first run meets it again.
    async fn prepare(&self) {
        let connected = timeout(CONNECT_BUDGET, self.intake.connect()).await;
        if let Some(cause) = connected.unwrap_or_else(|_| Some("no answer in time".to_owned())) {
            tracing::warn!(
                code = Code::ServiceNotReached.as_str(),
                cause,
                "a service does not answer yet"
            );
        }
    }

    /// Does the task of `payload`, until `deadline` at most.
    pub async fn handle(&self, payload: Value, deadline: Instant) -> Result<Answer, TaskError> {
        let task = serde_json::from_value(payload).map_err(|error| TaskError::NoTask(error.to_string()))?;
        let time = TimeLeft::until(deadline);
        match task {
            Task::Reconcile(task) => {
                task.check()?;
                self.reconcile(&task, time).await.map(Answer::Run)
            }
            Task::Connect(task) => self.connect(&task, time).await.map(Answer::Connected),
        }
    }
}

/// The runtime logs errors like this: without the text about the payload, which an operator has written.
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
    let reconciler = Reconciler::from_settings(&Settings::from_environment());
    if let Ok(reconciler) = &reconciler {
        // Boxed, so that the memory of init is released when it ends.
        Box::pin(reconciler.prepare()).await;
    }
    let reconciler = &reconciler;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| async move {
        let left = event
            .context
            .deadline()
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        match reconciler {
            // Boxed, so that the runtime's own futures do not grow with the state of a run.
            Ok(reconciler) => Box::pin(reconciler.handle(event.payload, Instant::now() + left)).await,
            Err(error) => Err(error.clone().into()),
        }
    }))
    .await
}
