//! What a run of `redrive` tells: one line that is log and metrics in one, with what the outbox holds after it.

use std::time::Duration;

use jiff::Timestamp;
use metrics::Unit;
use serde::Serialize;
use shared::store::{State, StoreError};
use tokio::time::{Instant, timeout_at};
use tracing::Level;

use crate::Outbox;

/// What is measured of each run.
pub(crate) const UNITS: [(&str, Unit); 5] = [
    ("ExpiringQuarantined", Unit::Count),
    ("FailedEvents", Unit::Count),
    ("OutboxAge", Unit::Seconds),
    ("QuarantinedEvents", Unit::Count),
    ("Redriven", Unit::Count),
];

/// How long counting may take: it is never what a run fails by.
const COUNTING_BUDGET: Duration = Duration::from_secs(3);
/// Kept free before the function's own deadline, for the answer.
const ANSWER_BUDGET: Duration = Duration::from_millis(500);

/// What a run has come to: its answer, and its line.
#[derive(Serialize)]
pub(crate) struct Run {
    pub(crate) published: u64,
    pub(crate) put_off: u64,
    pub(crate) failed: u64,
    /// Expired events that were removed.
    pub(crate) expired: u64,
    pub(crate) done: bool,
    /// Why nothing more can be published at the moment; the events stay in the outbox.
    pub(crate) outage: Option<String>,
}

impl Outbox {
    /// Writes the line of a run. A number that cannot be had in time is left out.
    pub(crate) async fn tell(&self, run: &Run, deadline: Instant) {
        let until = deadline
            .checked_sub(ANSWER_BUDGET)
            .map_or(deadline, |last| last.min(Instant::now() + COUNTING_BUDGET));
        let (oldest, failed, quarantined, expiring) = tokio::join!(
            known(until, self.store.oldest_pending()),
            known(until, self.store.count(State::Failed)),
            known(until, self.store.count(State::Quarantined)),
            known(until, self.store.count_expiring_quarantined(Timestamp::now())),
        );
        if let Some(oldest) = oldest {
            let age = oldest.map_or(0.0, |oldest| Timestamp::now().duration_since(oldest).as_secs_f64());
            // Another machine's clock may be ahead.
            metrics::histogram!("OutboxAge").record((age.max(0.0) * 1e3).round() / 1e3);
        }
        for (name, count) in [
            ("FailedEvents", failed),
            ("QuarantinedEvents", quarantined),
            ("ExpiringQuarantined", expiring),
            ("Redriven", Some(run.published)),
        ] {
            if let Some(count) = count.and_then(|count| u32::try_from(count).ok()) {
                metrics::histogram!(name).record(count);
            }
        }
        let level = if run.outage.is_some() {
            Level::ERROR
        } else {
            Level::INFO
        };
        self.telemetry.write(level, "redrive", run);
    }
}

/// What a reading gives by `until`.
async fn known<T>(until: Instant, reading: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    let cause = match timeout_at(until, reading).await {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    tracing::warn!(cause, "the outbox is not measured");
    None
}
