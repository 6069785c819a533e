//! What a run has found: its counts, its answer, its log line and its metrics.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use shared::codes::Code;
use shared::order_api::Period;
use shared::telemetry::{self, Dimensions, Telemetry, Unit};
use tracing::Level;

use crate::task::Cursor;
use crate::watch::WatchedSubscription;

const DIMENSIONS: &Dimensions = &[&[], &["provider"], &["provider", "shop"]];

/// The answer to the task `reconcile`.
#[derive(Debug, Serialize)]
pub struct RunAnswer {
    pub(crate) provider: &'static str,
    pub(crate) shops: Vec<ShopReport>,
    pub(crate) done: bool,
    /// Where the next call of a run of a period goes on.
    pub(crate) cursor: Option<Cursor>,
}

/// How a run of a shop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All orders of the period are compared.
    Complete,
    /// Another run works at the shop.
    Busy,
    /// The provider's API or the table cannot be used.
    Unavailable,
    /// The time was up.
    Partial,
    /// The shop's secret has no credentials for the API.
    NotConfigured,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Partial => "partial",
            Self::NotConfigured => "not_configured",
        }
    }
}

/// The numbers of orders by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Orders that were compared.
    pub(crate) compared: u64,
    /// Orders of which nothing is stored.
    pub(crate) missing: u64,
    /// Orders that have changed since the latest stored event.
    pub(crate) newer: u64,
    /// Orders whose state is stored, or that were erased.
    pub(crate) known: u64,
    /// Orders that cannot be read, and are quarantined.
    pub(crate) unreadable: u64,
    /// Events that this run has stored.
    pub(crate) accepted: u64,
    /// Events that another run or an earlier attempt has stored.
    pub(crate) duplicates: u64,
}

/// The numbers of the orders that were placed on one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct DayCounts {
    compared: u64,
    missing: u64,
    newer: u64,
}

/// The result of comparing one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Missing,
    Newer,
    Known,
}

/// What a run has found at one shop.
#[derive(Debug, Serialize)]
pub(crate) struct ShopReport {
    pub(crate) shop: String,
    pub(crate) status: Status,
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Option<Timestamp>,
    #[serde(flatten)]
    pub(crate) counts: Counts,
    /// The counts by the day on which the orders were placed, in UTC.
    pub(crate) by_day: BTreeMap<String, DayCounts>,
    pub(crate) cause: Option<String>,
    /// The subscriptions of the shop that are noted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) subscriptions: Vec<WatchedSubscription>,
    #[serde(skip)]
    pub(crate) code: Option<Code>,
}

impl ShopReport {
    pub(crate) fn new(shop: &str) -> Self {
        Self {
            shop: shop.to_owned(),
            status: Status::Partial,
            from: None,
            to: None,
            counts: Counts::default(),
            by_day: BTreeMap::new(),
            cause: None,
            subscriptions: Vec::new(),
            code: None,
        }
    }

    /// Names the period of the run.
    pub(crate) fn of_period(mut self, period: Period) -> Self {
        (self.from, self.to) = (Some(period.from), Some(period.to));
        self
    }

    /// A run that ends with `status`.
    pub(crate) fn with_status(self, status: Status) -> Self {
        Self { status, ..self }
    }

    /// A run that ends with `status`, for this cause.
    pub(crate) fn ended(mut self, status: Status, code: Option<Code>, cause: impl Into<String>) -> Self {
        self.status = status;
        self.code = code;
        self.cause = Some(cause.into());
        self
    }

    /// Counts an order that was placed at `placed_at`.
    pub(crate) fn add(&mut self, found: Found, placed_at: Option<Timestamp>, by_day: bool) {
        let mut of_day = DayCounts {
            compared: 1,
            ..DayCounts::default()
        };
        self.counts.compared += 1;
        match found {
            Found::Missing => (self.counts.missing, of_day.missing) = (self.counts.missing + 1, 1),
            Found::Newer => (self.counts.newer, of_day.newer) = (self.counts.newer + 1, 1),
            Found::Known => self.counts.known += 1,
        }
        if by_day {
            let day = placed_at.map(|time| time.to_zoned(TimeZone::UTC).date().to_string());
            let day = self
                .by_day
                .entry(day.unwrap_or_else(|| "unknown".to_owned()))
                .or_default();
            day.compared += of_day.compared;
            day.missing += of_day.missing;
            day.newer += of_day.newer;
        }
    }
}

/// The log line of a run of a shop.
#[derive(Serialize)]
struct LogRecord<'a> {
    provider: &'static str,
    shop: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Timestamp>,
    dry_run: bool,
    compared: u64,
    missing: u64,
    newer: u64,
    known: u64,
    unreadable: u64,
    accepted: u64,
    duplicates: u64,
}

/// What the line and the metrics of a run say beside its report.
pub(crate) struct Circumstances {
    pub(crate) provider: &'static str,
    pub(crate) dry_run: bool,
    /// Whether this is a regular run. A run of a period that an operator has chosen may find old gaps, so it writes no
    /// metrics.
    pub(crate) is_regular: bool,
    /// The minutes since a run was complete.
    pub(crate) age_minutes: Option<i64>,
}

/// Writes the line of a run of a shop, with its metrics.
pub(crate) fn write(telemetry: &Telemetry, report: &ShopReport, circumstances: &Circumstances) {
    let Counts {
        compared,
        missing,
        newer,
        known,
        unreadable,
        accepted,
        duplicates,
    } = report.counts;
    if circumstances.is_regular && !matches!(report.status, Status::Busy | Status::NotConfigured) {
        for (name, count) in [
            ("Compared", compared),
            ("Missing", missing),
            ("Newer", newer),
            ("Unreadable", unreadable),
            ("ReconcileFailures", u64::from(report.status == Status::Unavailable)),
        ] {
            // A metric is billed for each hour in which it is written.
            if count > 0 {
                telemetry::measure(name, Unit::Count, count);
            }
        }
        if let Some(age) = circumstances.age_minutes {
            telemetry::measure("ReconcileAgeMinutes", Unit::Minutes, age);
        }
    }
    let line = LogRecord {
        provider: circumstances.provider,
        shop: &report.shop,
        outcome: report.status.as_str(),
        code: report.code.map(Code::as_str),
        cause: report.cause.as_deref(),
        from: report.from,
        to: report.to,
        dry_run: circumstances.dry_run,
        compared,
        missing,
        newer,
        known,
        unreadable,
        accepted,
        duplicates,
    };
    let level = if report.status == Status::Unavailable {
        Level::ERROR
    } else {
        Level::INFO
    };
    telemetry.write(level, "reconcile", &line, DIMENSIONS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_counted_by_the_day_they_were_placed() {
        let mut report = ShopReport::new("main");
        let day = |text: &str| Some(text.parse().expect("a time"));
        report.add(Found::Missing, day("2026-01-31T23:59:59Z"), true);
        report.add(Found::Known, day("2026-01-31T00:00:00Z"), true);
        report.add(Found::Newer, None, true);
        let answer = serde_json::to_value(&report).expect("JSON");
        assert_eq!(
            answer["by_day"],
            serde_json::json!({
                "2026-01-31": {"compared": 2, "missing": 1, "newer": 0},
                "unknown": {"compared": 1, "missing": 0, "newer": 1},
            })
        );
        assert_eq!((&answer["compared"], &answer["known"]), (&3.into(), &1.into()));
        assert_eq!((&answer["status"], &answer["cause"]), (&"partial".into(), &().into()));
    }

    #[test]
    fn a_regular_run_does_not_count_by_day() {
        let mut report = ShopReport::new("main");
        report.add(Found::Known, None, false);
        assert!(report.by_day.is_empty());
    }
}
