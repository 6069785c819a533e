//! What a run of `redrive` tells: one line that is log and metrics in one, with what the outbox holds after it.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use shared::store::{State, StoreError};
use shared::telemetry::{self, Unit};
use tokio::time::{Instant, timeout_at};
use tracing::Level;

use crate::Outbox;

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
    /// Writes the line of a run. A number that cannot be had in time is left out. Of runs that drain the outbox side by side only one
    /// `measures` it, all shards of it: a metric is then written once a minute, however many runs there are.
    pub(crate) async fn report(&self, run: &Run, measures: bool, deadline: Instant) {
        let until = deadline
            .checked_sub(ANSWER_BUDGET)
            .map_or(deadline, |last| last.min(Instant::now() + COUNTING_BUDGET));
        let (oldest, failed, (quarantined, expiring)) = if measures {
            tokio::join!(
                known(until, self.store.oldest_pending()),
                known(until, self.store.count(State::Failed)),
                self.count_quarantined(until),
            )
        } else {
            (None, None, (None, None))
        };
        if let Some(oldest) = oldest {
            let age = oldest.map_or(0.0, |oldest| Timestamp::now().duration_since(oldest).as_secs_f64());
            // Another machine's clock may be ahead.
            telemetry::measure("OutboxAge", Unit::Seconds, (age.max(0.0) * 1e3).round() / 1e3);
        }
        for (name, count) in [
            ("FailedEvents", failed),
            ("QuarantinedEvents", quarantined),
            ("ExpiringQuarantined", expiring),
            ("Redriven", Some(run.published)),
        ] {
            // CloudWatch bills a metric for each hour in which it has a value.
            if let Some(count) = count.filter(|count| *count > 0) {
                telemetry::measure(name, Unit::Count, count);
            }
        }
        let level = if run.outage.is_some() {
            Level::ERROR
        } else {
            Level::INFO
        };
        // They are the whole stack's: without a dimension.
        self.telemetry.write(level, "redrive", run, &[&[]]);
    }

    /// How many deliveries are quarantined, and how many of them expire within a week.
    async fn count_quarantined(&self, until: Instant) -> (Option<u64>, Option<u64>) {
        let quarantined = known(until, self.store.count(State::Quarantined)).await;
        let expiring = match quarantined {
            Some(0) => Some(0),
            _ => known(until, self.store.count_expiring_quarantined(Timestamp::now())).await,
        };
        (quarantined, expiring)
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
