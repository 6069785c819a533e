//! The log lines of the functions of a stack, each checked when it is read.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use local::project::build::workspace;
use serde_json::Value;

use crate::Stack;

/// The namespace of the metrics in the tests.
pub const NAMESPACE: &str = "order-webhooks/tests";

/// A log line of a function.
#[derive(Clone, Debug)]
pub struct Line {
    /// The function.
    pub function: String,
    /// The text of the line.
    pub text: String,
    /// The JSON of the line.
    pub json: Value,
}

impl Line {
    /// A text of the line; empty if there is none.
    pub fn said(&self, name: &str) -> &str {
        self.json[name].as_str().unwrap_or_default()
    }

    /// Whether the line is about a delivery.
    pub fn is_delivery(&self) -> bool {
        self.said("message") == "delivery"
    }

    /// The metrics in the line: name, unit and values.
    pub fn metrics(&self) -> Vec<(&str, &str, Vec<f64>)> {
        let directives = self.json["_aws"]["CloudWatchMetrics"].as_array();
        let definitions = directives.into_iter().flatten().filter_map(|d| d["Metrics"].as_array());
        let metrics = definitions.flatten().map(|definition| {
            let name = definition["Name"].as_str().unwrap_or_default();
            let value = &self.json[name];
            let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            let unit = definition["Unit"].as_str().unwrap_or_default();
            (name, unit, values.iter().filter_map(Value::as_f64).collect())
        });
        metrics.collect()
    }

    /// The sets of dimensions of the metrics.
    pub fn dimensions(&self) -> Vec<Vec<&str>> {
        let directives = self.json["_aws"]["CloudWatchMetrics"].as_array();
        let lists = directives
            .into_iter()
            .flatten()
            .filter_map(|d| d["Dimensions"].as_array());
        let sets = lists.flatten().filter_map(Value::as_array);
        sets.map(|names| names.iter().filter_map(Value::as_str).collect())
            .collect()
    }

    /// Asserts that the metrics are in all and by provider, and also by shop if the secret configures the shop.
    ///
    /// # Panics
    /// If the dimensions are others.
    pub fn assert_dimensions(&self, configured: &[String]) {
        let mut expected = vec![vec![], vec!["provider"]];
        if configured.iter().any(|shop| shop == self.said("shop")) {
            expected.push(vec!["provider", "shop"]);
        }
        assert_eq!(self.dimensions(), expected, "{self:?}");
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let metrics = self.metrics();
        let (_, _, values) = metrics.iter().find(|(metric, _, _)| *metric == name)?;
        assert_eq!(values.len(), 1, "{self:?}");
        values.first().copied()
    }
}

/// Stops the functions, so that their log is complete, and returns all lines.
///
/// # Panics
/// If a line is not a JSON object, or its metrics are not in the format that CloudWatch reads.
pub async fn lines(stack: &Stack) -> Vec<Line> {
    stack.environments().kill_all().await;
    let log = stack.log();
    let lines = log.iter().filter_map(|line| line.strip_prefix('[')?.split_once("] "));
    let lines = lines.map(|(function, text)| Line {
        function: function.to_owned(),
        text: text.to_owned(),
        json: serde_json::from_str(text).unwrap_or_else(|_| panic!("{function} logs a line that is not JSON: {text}")),
    });
    let lines: Vec<Line> = lines.collect();
    for line in &lines {
        assert!(line.json.is_object(), "{line:?}");
        for member in ["timestamp", "level", "message"] {
            assert!(line.json[member].is_string(), "no {member}: {line:?}");
        }
        if line.json.get("_aws").is_some() {
            check_metrics(&line.json).unwrap_or_else(|fault| panic!("{fault}: {line:?}"));
        }
    }
    lines
}

/// The metrics that the README of redrive documents: of deliveries, and of a run of `redrive`.
///
/// # Panics
/// If the README does not have the tables.
pub fn documented() -> (BTreeSet<String>, BTreeSet<String>) {
    (
        metrics_under("\n| metric of a delivery |"),
        metrics_under("\n| metric of a run of `redrive` |"),
    )
}

/// The metrics of a run of `reconcile` that the README of redrive documents.
///
/// # Panics
/// If the README does not have the table.
pub fn documented_of_reconcile() -> BTreeSet<String> {
    metrics_under("\n| metric of a run of `reconcile` |")
}

/// The names in the first column of a table of the README of redrive.
fn metrics_under(header: &str) -> BTreeSet<String> {
    let readme = std::fs::read_to_string(workspace().join("functions/redrive/README.md")).expect("the README");
    let (_, rows) = readme.split_once(header).unwrap_or_else(|| panic!("no table {header}"));
    let rows = rows.lines().skip(1).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1).map(str::to_owned));
    let names = cells.flat_map(|cell| {
        let names = cell.split('`').skip(1).step_by(2).map(str::to_owned);
        names.collect::<Vec<_>>()
    });
    names.collect()
}

/// The units of CloudWatch.
const UNITS: &str = "Seconds Microseconds Milliseconds Bytes Kilobytes Megabytes Gigabytes Terabytes Bits Kilobits \
    Megabits Gigabits Terabits Percent Count Bytes/Second Kilobytes/Second Megabytes/Second Gigabytes/Second \
    Terabytes/Second Bits/Second Kilobits/Second Megabits/Second Gigabits/Second Terabits/Second Count/Second None";

/// Checks that a line follows the specification of CloudWatch's embedded metric format. CloudWatch drops other lines
/// silently.
///
/// # Errors
/// Describes the fault.
pub fn check_metrics(line: &Value) -> Result<(), String> {
    let text = |value: &Value, longest: usize| {
        let text = value
            .as_str()
            .filter(|text| (1..=longest).contains(&text.chars().count()));
        text.map(str::to_owned)
            .ok_or(format!("{value} is not a text of 1 to {longest} characters"))
    };
    let list = |value: &Value, most: usize| {
        let list = value.as_array().filter(|list| list.len() <= most);
        list.cloned()
            .ok_or(format!("{value} is not a list of at most {most} values"))
    };
    let aws = &line["_aws"];
    let written_at = aws["Timestamp"]
        .as_i64()
        .and_then(|time| Timestamp::from_millisecond(time).ok())
        .ok_or("Timestamp is not a time in milliseconds")?;
    let age = Timestamp::now().duration_since(written_at);
    if age > SignedDuration::from_hours(14 * 24) || age < SignedDuration::from_hours(-2) {
        return Err(format!("Timestamp is {written_at}"));
    }
    let directives = list(&aws["CloudWatchMetrics"], usize::MAX)?;
    if directives.is_empty() {
        return Err("CloudWatchMetrics is empty".to_owned());
    }
    for directive in &directives {
        text(&directive["Namespace"], 1024)?;
        let sets = list(&directive["Dimensions"], usize::MAX)?;
        if sets.is_empty() {
            return Err("Dimensions is empty".to_owned());
        }
        for set in &sets {
            for name in list(set, 30)? {
                text(&line[text(&name, 250)?], 1024)?;
            }
        }
        let metrics = list(&directive["Metrics"], 100)?;
        let mut names = BTreeSet::new();
        for metric in &metrics {
            let name = text(&metric["Name"], 1024)?;
            let unit = text(&metric["Unit"], 100)?;
            if !UNITS.split_whitespace().any(|known| known == unit) {
                return Err(format!("{unit} is not a unit"));
            }
            let resolution = metric.get("StorageResolution");
            if resolution.is_some_and(|resolution| *resolution != 1 && *resolution != 60) {
                return Err(format!("{name} has a resolution of {resolution:?}"));
            }
            let value = &line[&name];
            let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            if !(1..=100).contains(&values.len()) || !values.iter().all(Value::is_number) {
                return Err(format!("{name} is {value}"));
            }
            if !names.insert(name.clone()) {
                return Err(format!("{name} is defined twice"));
            }
        }
    }
    Ok(())
}

/// The sum of each metric of each provider, as the statistic `Sum` of CloudWatch.
pub fn sums(lines: &[Line]) -> BTreeMap<(String, String), u64> {
    let mut sums = BTreeMap::new();
    for line in lines {
        for (name, unit, values) in line.metrics() {
            let dimension = line.said("provider").to_owned();
            assert_eq!(
                (unit, line.json["_aws"]["CloudWatchMetrics"][0]["Namespace"].as_str()),
                ("Count", Some(NAMESPACE))
            );
            let sum: f64 = values.iter().sum();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "counts are small"
            )]
            let sum = sum as u64;
            *sums.entry((dimension, name.to_owned())).or_default() += sum;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_that_cloudwatch_would_drop_is_an_error() {
        let line = || {
            json!({
                "_aws": {"Timestamp": Timestamp::now().as_millisecond(), "CloudWatchMetrics": [{
                    "Namespace": "n", "Dimensions": [["provider"]], "Metrics": [{"Name": "Deliveries", "Unit": "Count"}],
                }]},
                "provider": "selldone", "Deliveries": 1,
            })
        };
        check_metrics(&line()).expect("a valid line");
        let faults: [(&str, Value); 11] = [
            ("/_aws/Timestamp", json!("now")),
            ("/_aws/Timestamp", json!(1)),
            ("/_aws/CloudWatchMetrics", json!([])),
            ("/_aws/CloudWatchMetrics/0/Namespace", json!("")),
            ("/_aws/CloudWatchMetrics/0/Dimensions", json!([])),
            ("/_aws/CloudWatchMetrics/0/Dimensions/0/0", json!("shop")),
            ("/_aws/CloudWatchMetrics/0/Metrics/0/Unit", json!("Counts")),
            ("/_aws/CloudWatchMetrics/0/Metrics/0/Name", json!("Accepted")),
            ("/provider", json!(1)),
            ("/Deliveries", json!("1")),
            ("/Deliveries", json!([])),
        ];
        for (pointer, wrong) in faults {
            let mut line = line();
            *line.pointer_mut(pointer).expect("a member") = wrong;
            assert!(check_metrics(&line).is_err(), "{pointer}: {line}");
        }
    }
}
