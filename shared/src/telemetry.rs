//! Writes log lines in JSON that carry metrics too.
//!
//! `CloudWatch` extracts the metrics from the line (the embedded metric format), so they cost no call, are written
//! before the answer is sent, and cannot disagree with the log. [`count`] and [`measure`] may be called anywhere; the
//! next line carries their values. Lambda gives a function one event at a time, so that is the line of the current
//! event.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing::Level;

use crate::settings::Settings;

/// The destination of lines.
type Sink = Box<dyn Fn(&[u8]) + Send + Sync>;

/// Sets of dimensions. Metrics are published once under each set. A dimension is the name of a member of the line.
pub type Dimensions = [&'static [&'static str]];

/// The unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// A count.
    Count,
    /// A duration in seconds.
    Seconds,
    /// A duration in minutes, for which `CloudWatch` has no unit.
    #[serde(rename = "None")]
    Minutes,
}

type Metrics = BTreeMap<&'static str, (Unit, Value)>;

/// The metrics that were counted and measured since the last line.
static NOTED: Mutex<Metrics> = Mutex::new(BTreeMap::new());

/// Increments the metric `name` of the next line.
pub fn count(name: &'static str) {
    add(&mut NOTED.lock().unwrap_or_else(PoisonError::into_inner), name);
}

/// Adds a measured value to the next line.
pub fn measure(name: &'static str, unit: Unit, value: impl Into<Value>) {
    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    noted.insert(name, (unit, value.into()));
}

fn add(metrics: &mut Metrics, name: &'static str) {
    let (_, value) = metrics.entry(name).or_insert((Unit::Count, 0.into()));
    *value = value.as_u64().map_or(1, |before| before + 1).into();
}

/// Writes the lines of one function.
pub struct Telemetry {
    namespace: Option<String>,
    sink: Sink,
}

impl Telemetry {
    /// Writes lines to standard output, with metrics in the namespace that `METRICS_NAMESPACE` names. Without a
    /// namespace, lines carry no metrics.
    pub fn from_settings(settings: &Settings) -> Self {
        Self {
            namespace: settings.optional("METRICS_NAMESPACE"),
            sink: Box::new(|line| {
                // Standard output is a pipe to the Lambda service. If it is closed, nothing can report an error.
                let _ = std::io::stdout().lock().write_all(line);
            }),
        }
    }

    /// Writes a line: time, level, `message`, the members of `fields`, and the metrics since the last line.
    ///
    /// Each set of `dimensions` must name members of `fields` that are texts: `CloudWatch` drops the metrics of a line
    /// that lacks one.
    pub fn write(&self, level: Level, message: &'static str, fields: &impl Serialize, dimensions: &Dimensions) {
        let noted = std::mem::take(&mut *NOTED.lock().unwrap_or_else(PoisonError::into_inner));
        (self.sink)(&self.line(level, message, fields, dimensions, noted));
    }

    fn line(
        &self,
        level: Level,
        message: &'static str,
        fields: &impl Serialize,
        dimensions: &Dimensions,
        metrics: Metrics,
    ) -> Vec<u8> {
        let now = Timestamp::now();
        let mut members = match serde_json::to_value(fields) {
            Ok(Value::Object(members)) => members,
            _ => Map::new(),
        };
        members.insert("timestamp".to_owned(), format!("{now:.6}").into());
        members.insert("level".to_owned(), level.as_str().into());
        members.insert("message".to_owned(), message.into());
        if let Some(namespace) = self.namespace.as_deref().filter(|_| !metrics.is_empty()) {
            let definition = |(name, (unit, _)): (&&str, &(Unit, Value))| json!({"Name": name, "Unit": unit});
            let directive = json!({
                "Namespace": namespace,
                "Dimensions": dimensions,
                "Metrics": metrics.iter().map(definition).collect::<Vec<_>>(),
            });
            let aws = json!({"Timestamp": now.as_millisecond(), "CloudWatchMetrics": [directive]});
            members.insert("_aws".to_owned(), aws);
            let values = metrics.into_iter().map(|(name, (_, value))| (name.to_owned(), value));
            members.extend(values);
        }
        let mut line = Value::Object(members).to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
impl Telemetry {
    /// Writes lines without metrics to `sink`.
    pub(crate) fn into(sink: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self {
            namespace: None,
            sink: Box::new(sink),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(namespace: &str, dimensions: &Dimensions, metrics: Metrics) -> Value {
        let telemetry = Telemetry::from_settings(&Settings::from_table([("METRICS_NAMESPACE", namespace)]));
        let fields = json!({"provider": "cartum", "shop": "main"});
        let line = telemetry.line(Level::ERROR, "delivery", &fields, dimensions, metrics);
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        serde_json::from_slice(&line).expect("JSON")
    }

    fn metrics() -> Metrics {
        let mut metrics = Metrics::new();
        for name in ["Deliveries", "Refused", "Deliveries"] {
            add(&mut metrics, name);
        }
        metrics.insert("OutboxAge", (Unit::Seconds, 1.5.into()));
        metrics
    }

    #[test]
    fn without_a_namespace_a_line_has_no_metrics() {
        let line = line("", &[&["provider"]], metrics());
        assert_eq!((&line["provider"], &line["shop"]), (&json!("cartum"), &json!("main")));
        assert!(line.get("_aws").is_none() && line.get("Deliveries").is_none(), "{line}");
    }

    #[test]
    fn a_line_without_metrics_has_no_directive() {
        let line = line("ours", &[&["provider"]], Metrics::new());
        assert_eq!(line["message"], "delivery");
        assert!(line.get("_aws").is_none(), "{line}");
    }

    #[test]
    fn metrics_are_published_under_each_set_of_dimensions() {
        let line = line("ours", &[&[], &["provider"], &["provider", "shop"]], metrics());
        assert_eq!(
            line["_aws"]["CloudWatchMetrics"],
            json!([{
                "Namespace": "ours",
                "Dimensions": [[], ["provider"], ["provider", "shop"]],
                "Metrics": [
                    {"Name": "Deliveries", "Unit": "Count"},
                    {"Name": "OutboxAge", "Unit": "Seconds"},
                    {"Name": "Refused", "Unit": "Count"},
                ],
            }])
        );
        assert_eq!(
            ["Deliveries", "OutboxAge", "Refused"].map(|name| &line[name]),
            [&json!(2), &json!(1.5), &json!(1)]
        );
        let written_at = line["timestamp"]
            .as_str()
            .and_then(|time| time.parse::<Timestamp>().ok());
        let millisecond = written_at.map(Timestamp::as_millisecond);
        assert_eq!(line["_aws"]["Timestamp"].as_i64(), millisecond);
    }
}
