//! The function that compares the orders of each shop, as the provider's order API lists them, with the stored events,
//! and sends what is missing or newer through the same flow as a delivery.
//!
//! An invocation's payload names the task: `{"reconcile":{"provider":"snipcart"}}`. A run stops before the function's
//! deadline. A regular run is continued by the next one; a run of a period answers with a cursor.

mod providers;
mod report;
mod shop;
mod task;
mod time_left;

use std::fmt;
use std::time::SystemTime;

use jiff::SignedDuration;
use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use serde_json::Value;
use shared::intake::Intake;
use shared::settings::{SettingError, Settings};
use shared::store::StoreError;
use shared::telemetry::Telemetry;
use tokio::time::Instant;

use crate::providers::Providers;
pub use crate::report::{Answer, Status};
use crate::task::Task;
use crate::time_left::TimeLeft;

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

/// The table, the topic and the providers, with which a run works.
pub struct Reconciler {
    intake: Intake,
    telemetry: Telemetry,
    providers: Providers,
    windows: Windows,
}

/// How far back and how close to the present a regular run looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    /// How far back the first run looks, and every run of a provider whose API lists orders by the day when they were
    /// placed.
    lookback: SignedDuration,
    /// The age that a change must have, so that its webhook is not overtaken.
    settle: SignedDuration,
    /// How long published events are kept, if not for ever.
    kept: Option<SignedDuration>,
}

impl Reconciler {
    /// Reads the settings of the table, the topic and the providers.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        let hours = settings.parsed("RECONCILE_LOOKBACK_HOURS", 48_u16, "a whole number of hours")?;
        let minutes = settings.parsed("RECONCILE_SETTLE_MINUTES", 5_u16, "a whole number of minutes")?;
        let intake = Intake::from_settings(settings)?;
        let kept = intake.store().keeps_orders_for();
        Ok(Self {
            intake,
            telemetry: Telemetry::from_settings(settings),
            providers: Providers::from_settings(settings)?,
            windows: Windows {
                lookback: SignedDuration::from_hours(hours.into()),
                settle: SignedDuration::from_mins(minutes.into()),
                kept,
            },
        })
    }

    /// Does the task of `payload`, until `deadline` at most.
    pub async fn handle(&self, payload: Value, deadline: Instant) -> Result<Answer, TaskError> {
        let task = serde_json::from_value(payload).map_err(|error| TaskError::NoTask(error.to_string()))?;
        let Task::Reconcile(task) = task;
        task.check()?;
        self.reconcile(&task, TimeLeft::until(deadline)).await
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
