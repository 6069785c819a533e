//! What a function tells of its work: one line of JSON for each piece of it, which is log and metrics in one.
//!
//! `CloudWatch` reads the metrics out of the line (the embedded metric format): they cost no call, are written before the
//! answer is, and cannot disagree with the log. What is counted goes through the facade `metrics`; the next line carries it.

use std::io::Write as _;

use jiff::Timestamp;
use metrics::Unit;
use metrics_cloudwatch_embedded::{Builder, Collector};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::Level;

use crate::settings::Settings;

/// Where lines go.
type Sink = Box<dyn Fn(&[u8]) + Send + Sync>;

/// The lines of one function.
pub struct Telemetry {
    dimension: Option<(&'static str, &'static str)>,
    metrics: Option<&'static Collector>,
    sink: Sink,
}

impl Telemetry {
    /// Metrics go to the namespace `METRICS_NAMESPACE`, under `dimension`, each with the unit it has in `units`. Without a
    /// namespace there are none.
    pub fn from_settings(
        settings: &Settings,
        dimension: Option<(&'static str, &'static str)>,
        units: &[(&'static str, Unit)],
    ) -> Self {
        Self {
            dimension,
            metrics: settings
                .optional("METRICS_NAMESPACE")
                .and_then(|namespace| collector(namespace, dimension, units)),
            sink: Box::new(|line| {
                // Standard output is a pipe to the Lambda service: without it there is nobody to tell.
                let _ = std::io::stdout().lock().write_all(line);
            }),
        }
    }

    /// Writes a line: when and how grave, `message`, the members of `fields`, and the metrics counted since the last line.
    pub fn write(&self, level: Level, message: &'static str, fields: &impl Serialize) {
        (self.sink)(&self.line(level, message, fields));
    }

    fn line(&self, level: Level, message: &'static str, fields: &impl Serialize) -> Vec<u8> {
        let mut members = match serde_json::to_value(fields) {
            Ok(Value::Object(members)) => members,
            _ => Map::new(),
        };
        members.insert("timestamp".to_owned(), format!("{:.6}", Timestamp::now()).into());
        members.insert("level".to_owned(), level.as_str().into());
        members.insert("message".to_owned(), message.into());
        let mut line = self
            .metrics
            .map_or_else(Vec::new, |metrics| with_metrics(metrics, &members));
        // Nothing was counted.
        if line.is_empty() {
            members.extend(self.dimension.map(|(name, value)| (name.to_owned(), value.into())));
            line = Value::Object(members).to_string().into_bytes();
            line.push(b'\n');
        }
        line
    }
}

#[cfg(test)]
impl Telemetry {
    /// Without metrics, into `sink`.
    pub(crate) fn into(sink: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self {
            dimension: None,
            metrics: None,
            sink: Box::new(sink),
        }
    }
}

fn collector(
    namespace: String,
    dimension: Option<(&'static str, &'static str)>,
    units: &[(&'static str, Unit)],
) -> Option<&'static Collector> {
    let mut builder = Builder::new().cloudwatch_namespace(namespace);
    if let Some((name, value)) = dimension {
        builder = builder.with_dimension(name, value);
    }
    let collector = builder
        .init()
        .inspect_err(|error| tracing::error!(cause = %error, "there are no metrics"))
        .ok()?;
    for (name, unit) in units {
        metrics::describe_histogram!(*name, *unit, "");
    }
    Some(collector)
}

/// The line with all that was counted; empty where nothing was.
fn with_metrics(metrics: &Collector, members: &Map<String, Value>) -> Vec<u8> {
    for (name, value) in members {
        metrics.set_property(name.clone(), value.clone());
    }
    let mut line = Vec::new();
    // Writing to memory does not fail.
    let _ = metrics.flush(&mut line);
    // The next line has members of its own.
    for name in members.keys() {
        metrics.remove_property(name.as_str());
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn without_a_namespace_a_line_is_log_alone() {
        let settings = Settings::from_table([("METRICS_NAMESPACE", "")]);
        let telemetry = Telemetry::from_settings(&settings, Some(("provider", "cartum")), &[]);
        let line = telemetry.line(Level::ERROR, "delivery", &json!({"shop": "main"}));
        let line: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(
            (line["provider"].as_str(), line["shop"].as_str()),
            (Some("cartum"), Some("main"))
        );
        assert!(line.get("_aws").is_none());
    }
}
