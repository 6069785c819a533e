//! The log line of a run of `redrive`, which holds its answer and the metrics of the outbox after it.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use shared::codes::Code;
use shared::store::{State, StoreError};
use shared::telemetry::{self, Unit};
use tokio::time::{Instant, timeout_at};
use tracing::Level;

use crate::Outbox;
use crate::time_left::NO_ANSWER;

/// How long counting may take. A run never fails because of it.
const COUNTING_BUDGET: Duration = Duration::from_secs(3);

/// The time kept free for the answer before the function's own deadline.
const ANSWER_BUDGET: Duration = Duration::from_millis(500);

/// The answer of a run, which is also part of its log line.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) published: u64,
    pub(super) put_off: u64,
    pub(super) failed: u64,
    /// Expired events that were removed.
    pub(super) expired: u64,
    pub(super) done: bool,
    /// Why nothing more can be published at the moment. The events stay in the outbox.
    pub(super) outage: Option<String>,
}

/// The log line of a run.
#[derive(Serialize)]
struct LogRecord<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(flatten)]
    report: &'a Report,
}

impl Outbox {
    /// Writes the log line of a run. A number that is not available in time is left out. Only one of the runs that
    /// drain the outbox side by side `measures` all its shards, so that each metric is written once a minute.
    pub(super) async fn report(&self, report: &Report, measures: bool, deadline: Instant) {
        let until = deadline
            .checked_sub(ANSWER_BUDGET)
            .map_or(deadline, |last| last.min(Instant::now() + COUNTING_BUDGET));
        let (oldest, failed, (quarantined, expiring)) = if measures {
            tokio::join!(
                measured(until, self.store.oldest_pending()),
                measured(until, self.store.count(State::Failed)),
                self.count_quarantined(until),
            )
        } else {
            (None, None, (None, None))
        };
        if let Some(oldest) = oldest {
            let age = oldest.map_or(0.0, |oldest| Timestamp::now().duration_since(oldest).as_secs_f64());
            // The clock of another machine may be ahead.
            telemetry::measure("OutboxAge", Unit::Seconds, (age.max(0.0) * 1e3).round() / 1e3);
        }
        for (name, count) in [
            ("FailedEvents", failed),
            ("QuarantinedEvents", quarantined),
            ("ExpiringQuarantined", expiring),
            ("Redriven", Some(report.published)),
        ] {
            // CloudWatch bills a metric for each hour in which it has a value.
            if let Some(count) = count.filter(|count| *count > 0) {
                telemetry::measure(name, Unit::Count, count);
            }
        }
        let level = if report.outage.is_some() {
            Level::ERROR
        } else {
            Level::INFO
        };
        let record = LogRecord {
            code: report.outage.is_some().then(|| Code::RedriveOutage.as_str()),
            report,
        };
        // The metrics are the stack's, without a dimension.
        self.telemetry.write(level, "redrive", &record, &[&[]]);
    }

    /// Counts the quarantined deliveries, and those of them that expire within a week.
    async fn count_quarantined(&self, until: Instant) -> (Option<u64>, Option<u64>) {
        let quarantined = measured(until, self.store.count(State::Quarantined)).await;
        let expiring = match quarantined {
            Some(0) => Some(0),
            _ => measured(until, self.store.count_expiring_quarantined(Timestamp::now())).await,
        };
        (quarantined, expiring)
    }
}

/// The result of a measurement, if there is one by `until`.
async fn measured<T>(until: Instant, measurement: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    let cause = match timeout_at(until, measurement).await {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(error)) => error.to_string(),
        Err(_) => NO_ANSWER.to_owned(),
    };
    tracing::warn!(
        code = Code::OutboxNotMeasured.as_str(),
        cause,
        "the outbox is not measured"
    );
    None
}
