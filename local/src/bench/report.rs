//! The measured figures, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Sample;
use crate::stats::{median, quantile};

/// The figures by the name of the target.
pub type Table = BTreeMap<String, Figures>;

/// The figures of one target. Times are in milliseconds, and are medians of all runs.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// From the start to the first call to a service, before the network is involved.
    pub quiet: Option<f64>,
    /// From the start to the request for the first event.
    pub init: f64,
    /// From the first event to its answer.
    pub first: f64,
    /// From the start to the first answer.
    pub start_to_answer: f64,
    /// The median of later events.
    pub warm: f64,
    /// The p99 of later events.
    pub warm_p99: f64,
    /// The processor time of a later event.
    pub cpu: Option<f64>,
    /// The processor time from the start to the first answer.
    pub cpu_of_start: Option<f64>,
    /// The peak memory in MiB.
    pub peak_memory: Option<f64>,
    /// The number of calls to services for each event.
    pub calls: f64,
}

impl Figures {
    pub(super) fn of(samples: &[Sample]) -> Self {
        let of = |pick: fn(&Sample) -> Duration| milliseconds(median(samples.iter().map(pick).collect()));
        let perhaps = |pick: fn(&Sample) -> Option<Duration>| {
            let values: Vec<_> = samples.iter().filter_map(pick).collect();
            median(values).map(|value| milliseconds(Some(value)))
        };
        let warm: Vec<_> = samples.iter().flat_map(|sample| sample.warm.clone()).collect();
        let peak = median(samples.iter().filter_map(|sample| sample.peak_memory).collect());
        Self {
            quiet: perhaps(|sample| sample.quiet),
            init: of(|sample| sample.init),
            first: of(|sample| sample.first),
            start_to_answer: of(|sample| sample.start_to_answer),
            warm: milliseconds(median(warm.clone())),
            warm_p99: milliseconds(quantile(warm, 0.99)),
            cpu: perhaps(|sample| sample.cpu),
            cpu_of_start: perhaps(|sample| sample.cpu_of_start),
            peak_memory: peak.map(mebibytes),
            calls: median(samples.iter().map(|sample| sample.calls).collect()).unwrap_or_default(),
        }
    }

    /// The figures as JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "start_to_first_call_ms": self.quiet,
            "start_to_next_ms": self.init,
            "first_answer_ms": self.first,
            "start_to_first_answer_ms": self.start_to_answer,
            "warm_p50_ms": self.warm,
            "warm_p99_ms": self.warm_p99,
            "cpu_per_event_ms": self.cpu,
            "cpu_of_start_ms": self.cpu_of_start,
            "events_per_second_of_one_core": self.cpu.map(|cpu| 1000.0 / cpu),
            "peak_memory_mib": self.peak_memory,
            "calls_per_event": self.calls,
        })
    }
}

pub(super) fn milliseconds(duration: Option<Duration>) -> f64 {
    duration.map_or(f64::NAN, |duration| duration.as_secs_f64() * 1000.0)
}

/// Converts KiB to MiB.
#[expect(clippy::cast_precision_loss, reason = "a process has far less memory than 2^52 KiB")]
pub(super) fn mebibytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}

/// Formats a number with three significant digits.
pub fn short(number: f64) -> String {
    match number {
        number if !number.is_finite() => "-".to_owned(),
        number if number < 1.0 => format!("{number:.2}"),
        number if number < 100.0 => format!("{number:.1}"),
        number => format!("{number:.0}"),
    }
}

/// Formats the figures as a Markdown table.
pub fn table(figures: &Table) -> String {
    let mut text = "| ms, medians | start to first `/next` | first answer after it | start to first answer | warm p50 | warm p99 | CPU of the start | CPU per event | calls per event | events/s and core | peak MiB |\n|---|---|---|---|---|---|---|---|---|---|---|\n".to_owned();
    for (name, figures) in figures {
        let some = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
        let columns = [
            short(figures.init),
            short(figures.first),
            short(figures.start_to_answer),
            short(figures.warm),
            short(figures.warm_p99),
            some(figures.cpu_of_start),
            some(figures.cpu),
            short(figures.calls),
            some(figures.cpu.map(|cpu| 1000.0 / cpu)),
            some(figures.peak_memory),
        ];
        let _ = writeln!(text, "| {name} | {} |", columns.join(" | "));
    }
    text
}
