//! The alerts that redrive has published, as the queue that is subscribed to the alarm topic receives them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::Value;

use crate::lock;

/// The most alerts that are kept.
const KEPT: usize = 1_000;

/// An alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// When the queue received the alert.
    pub at: Timestamp,
    /// The subject of the message.
    pub subject: String,
    /// The text for people.
    pub text: String,
    /// The JSON for programs.
    pub json: Value,
    /// The message attributes, as they are in SNS's envelope.
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

    /// A text in the JSON, or an empty one.
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
    /// The number of alerts that were received.
    count: usize,
    /// The number of alerts that [`Alerts::news`] has returned.
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

    /// The number of alerts that were received.
    pub(crate) fn count(&self) -> usize {
        lock(&self.0).count
    }

    /// Returns the alerts that were received since the last call.
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
    fn alerts_are_news_once_and_listed_newest_first() {
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
