//! The alerts that redrive has published on the alarm topic, as the queue that is subscribed to it receives them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::Value;

use crate::lock;

/// The name of the alarm topic and of the queue that is subscribed to it.
pub const ALARMS: &str = "order-alarms";
/// The ARN of the alarm topic.
pub const ALARM_TOPIC_ARN: &str = "arn:aws:sns:us-east-1:000000000000:order-alarms";

/// How many alerts are kept.
const KEPT: usize = 1_000;

/// An alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// When it was received.
    pub at: Timestamp,
    /// The subject of the message.
    pub subject: String,
    /// The text for people.
    pub text: String,
    /// The JSON for programs.
    pub json: Value,
    /// The message attributes as SNS's envelope has them.
    pub attributes: Value,
}

impl Alert {
    /// Reads an alert from SNS's envelope; `None` if the message is not an alert.
    pub fn read(envelope: &str) -> Option<Self> {
        let envelope: Value = serde_json::from_str(envelope).ok()?;
        let attributes = envelope["MessageAttributes"].clone();
        Some(Self {
            at: Timestamp::now(),
            subject: envelope["Subject"].as_str()?.to_owned(),
            text: envelope["Message"].as_str()?.to_owned(),
            json: serde_json::from_str(attributes["alert"]["Value"].as_str()?).ok()?,
            attributes,
        })
    }

    /// The value of a text in the JSON.
    pub fn said(&self, name: &str) -> &str {
        self.json[name].as_str().unwrap_or_default()
    }

    /// The line for a terminal: the subject, and the first command to run.
    pub fn line(&self) -> String {
        match self.json["commands"][0].as_str() {
            Some(command) => format!("{}: {command}", self.subject),
            None => self.subject.clone(),
        }
    }
}

/// The last alerts. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Alerts(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    alerts: VecDeque<Alert>,
    /// How many were received.
    count: usize,
    /// How many of these [`Alerts::news`] has returned.
    returned: usize,
}

impl Alerts {
    /// Keeps a message if it is an alert.
    pub(crate) fn receive(&self, envelope: &str) {
        let Some(alert) = Alert::read(envelope) else { return };
        let mut kept = lock(&self.0);
        kept.alerts.push_back(alert);
        kept.count += 1;
        if kept.alerts.len() > KEPT {
            kept.alerts.pop_front();
        }
    }

    /// How many alerts were received.
    pub(crate) fn count(&self) -> usize {
        lock(&self.0).count
    }

    /// The alerts that were received since the last call.
    pub(crate) fn news(&self) -> Vec<Alert> {
        let mut kept = lock(&self.0);
        let new = kept.count - kept.returned;
        kept.returned = kept.count;
        let before = kept.alerts.len().saturating_sub(new);
        kept.alerts.iter().skip(before).cloned().collect()
    }

    /// The alerts that are kept, the newest first.
    pub(crate) fn newest_first(&self) -> Vec<Alert> {
        lock(&self.0).alerts.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn envelope(subject: &str) -> String {
        let alert = json!({"kind": "failed", "commands": ["cargo local requeue"]}).to_string();
        let attributes = json!({"alert": {"Type": "String", "Value": alert}});
        json!({"Subject": subject, "Message": "text", "MessageAttributes": attributes}).to_string()
    }

    #[test]
    fn each_alert_is_news_once_and_the_newest_is_first() {
        let alerts = Alerts::default();
        alerts.receive(r#"{"Message":"{\"id\":\"an event\"}"}"#);
        alerts.receive("no envelope");
        assert_eq!(alerts.count(), 0);
        for subject in ["one", "two"] {
            alerts.receive(&envelope(subject));
        }
        let lines: Vec<_> = alerts.news().iter().map(Alert::line).collect();
        assert_eq!(lines, ["one: cargo local requeue", "two: cargo local requeue"]);
        assert!(alerts.news().is_empty());
        for _ in 0..KEPT {
            alerts.receive(&envelope("three"));
        }
        assert_eq!(alerts.news().len(), KEPT);
        let kept = alerts.newest_first();
        assert_eq!((kept.len(), alerts.count()), (KEPT, KEPT + 2));
        assert!(kept.iter().all(|alert| alert.subject == "three"));
    }
}
