//! What `cargo local send` says about one event: a summary, the items in full, or JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use http::Response;
use local::aws::clients::Clients;
use local::aws::queue::{Message, Queue};
use local::aws::stored_events::{self, Event, text};
use local::project::answer::Answer;
use local::recorder::outcome::{meaning, outcome};
use local::stack::DELIVERY;
use local::terminal::{Paint, printable, style_of};
use local::{Error, gzip, pretty_json};
use serde_json::{Map, Value, json};

use super::args::Ports;

/// How long a published message may take to reach the queue.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many fields the summary names.
const NAMES: usize = 3;
/// A longer text is not printed in full: nobody reads it on a terminal.
const LONGEST: usize = 64 * 1024;

/// An event that was sent: the answer, and what the local stack has of it.
pub(super) struct Sent {
    request: String,
    answer: Answer,
    body: String,
    took: Duration,
    delivery: Option<String>,
    found: Option<Found>,
}

/// What the local stack has of the event.
struct Found {
    stored: Option<Event>,
    message: Option<Message>,
    page: Option<String>,
}

impl Sent {
    /// The response to `request`, which took so long.
    pub(super) fn new(request: String, response: &Response<Bytes>, took: Duration) -> Self {
        let delivery = response.headers().get(DELIVERY);
        Self {
            request,
            answer: Answer::read(response),
            body: String::from_utf8_lossy(response.body()).into_owned(),
            took,
            delivery: delivery.and_then(|id| id.to_str().ok()).map(str::to_owned),
            found: None,
        }
    }

    /// Reads the stored event of the local stack at `url`, and takes the published message from its queue.
    pub(super) async fn look_up(&mut self, url: &str, ports: Ports) -> Result<(), Error> {
        let mut found = Found {
            stored: None,
            message: None,
            page: self.delivery.as_ref().map(|id| format!("{url}/deliveries/{id}")),
        };
        if let Some(event_id) = &self.answer.event_id {
            let messages_url = format!("http://127.0.0.1:{}", ports.sns_port);
            let clients = Clients::new(&format!("http://127.0.0.1:{}", ports.dynamodb_port), &messages_url);
            let stored = stored_events::event(&clients.dynamodb, event_id).await;
            found.stored = stored.map_err(|error| {
                Error::Send(format!(
                    "{error}. --dynamodb-port has to be the port that `cargo local` printed"
                ))
            })?;
            // An accepted event is published before it is answered. Any other message is in the queue now, or gone.
            let is_new = self.outcome() == "accepted" && found.state() == Some("published");
            let patience = if is_new { PATIENCE } else { Duration::ZERO };
            let queue = Queue::new(clients.sqs, &messages_url);
            found.message = queue.take(event_id, patience).await?;
        }
        self.found = Some(found);
        Ok(())
    }

    fn outcome(&self) -> &str {
        outcome(&self.answer)
    }

    /// The summary for a person.
    pub(super) fn summary(&self) -> String {
        let paint = Paint::stdout();
        let outcome = self.outcome();
        let reason = self.answer.reason.as_deref();
        let mut word = format!("{} {outcome}", self.answer.status);
        if let Some(reason) = reason {
            let _ = write!(word, " ({})", printable(reason));
        }
        let mut text = format!(
            "{}\n{} in {} ms\n{}\n\n",
            self.request,
            paint.paint(style_of(outcome).bold(), word),
            self.took.as_millis(),
            meaning(outcome, reason),
        );
        for (name, value) in self.rows() {
            let style = match value.split_once(':') {
                Some(("pending", _)) => AnsiColor::Yellow.on_default(),
                Some(("failed", _)) => AnsiColor::Red.on_default(),
                _ => Style::new(),
            };
            let name = paint.paint(Style::new().dimmed(), format!("{name:<9}"));
            let _ = writeln!(text, "  {name}  {}", paint.paint(style, value));
        }
        text
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        if let Some(event_id) = &self.answer.event_id {
            rows.push(("event", printable(event_id)));
        } else if let Some(title) = &self.answer.title {
            rows.push(("answer", printable(title)));
        }
        let Some(found) = &self.found else { return rows };
        if let Some(stored) = &found.stored {
            let event = found.event();
            let head = |name| text(&stored.head, name).map(printable);
            rows.extend(head("type").map(|kind| ("type", kind)));
            let number = event["data"]["order"]["number"].as_str().map(printable);
            rows.extend(match (head("order"), number) {
                (Some(id), Some(number)) if id != number => Some(("order", format!("{id}, number {number}"))),
                (Some(order), _) | (None, Some(order)) => Some(("order", order)),
                (None, None) => None,
            });
            if stored.event.is_some() {
                rows.push(("assumed", listed(&event["data"]["assumed"])));
                rows.push(("warnings", listed(&event["data"]["warnings"])));
            }
            rows.extend(found.standing().map(|standing| ("state", standing)));
        }
        if let Some(message) = &found.message {
            rows.push(("message", format!("{} bytes, taken from the queue", message.text.len())));
        }
        rows.extend(found.page.clone().map(|page| ("dashboard", page)));
        rows
    }

    /// The answer, the stored item and the published event in full.
    pub(super) fn details(&self) -> String {
        let mut details = format!("\nAnswer\n{}\n", indented(&self.body));
        let Some(found) = &self.found else { return details };
        if let Some(stored) = &found.stored {
            details.push_str("\nStored item\n");
            for (name, value) in stored.head.iter().collect::<BTreeMap<_, _>>() {
                let _ = writeln!(details, "  {name:16} {}", shown(value));
            }
        }
        if let Some(message) = &found.message {
            let _ = writeln!(
                details,
                "\nPublished event (taken from the queue)\n{}",
                indented(&message.text)
            );
        }
        details
    }

    /// All of it for a program.
    pub(super) fn to_json(&self) -> Value {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|_| self.body.clone().into());
        let mut document = json!({
            "request": self.request,
            "status": self.answer.status,
            "outcome": self.outcome(),
            "answer": body,
            "milliseconds": self.took.as_secs_f64() * 1000.0,
        });
        if let Some(found) = &self.found {
            document["item"] = match &found.stored {
                Some(stored) => fields(&stored.head),
                None => Value::Null,
            };
            document["event"] = found.event();
            document["message"] = match &found.message {
                Some(message) => json!({"event": message.event, "attributes": message.attributes}),
                None => Value::Null,
            };
            document["page"] = json!(found.page);
        }
        document
    }
}

impl Found {
    fn state(&self) -> Option<&str> {
        text(&self.stored.as_ref()?.head, "state")
    }

    /// The stored event; null if there is none.
    fn event(&self) -> Value {
        let event = self.stored.as_ref().and_then(|stored| stored.event.as_deref());
        event
            .and_then(|event| serde_json::from_str(event).ok())
            .unwrap_or_default()
    }

    /// The state of the stored event, and what follows from it.
    fn standing(&self) -> Option<String> {
        let due = text(&self.stored.as_ref()?.head, "next_attempt_at").map(printable);
        Some(match self.state()? {
            "published" if self.message.is_none() => "published; the message is no longer in the queue".to_owned(),
            "pending" => format!(
                "pending: waits in the outbox until {}; `cargo local redrive` publishes what is due",
                due.unwrap_or_else(|| "the next run".to_owned())
            ),
            "failed" => "failed: SNS rejects the message; `cargo local requeue` retries it".to_owned(),
            state => printable(state),
        })
    }
}

/// The first of a list of JSON pointers.
fn listed(pointers: &Value) -> String {
    let pointers = pointers.as_array().into_iter().flatten();
    let pointers: Vec<String> = pointers.filter_map(Value::as_str).map(printable).collect();
    let first = pointers[..pointers.len().min(NAMES)].join(", ");
    match pointers.len().saturating_sub(NAMES) {
        _ if pointers.is_empty() => "none".to_owned(),
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn indented(json: &str) -> String {
    pretty_json::indented(json).unwrap_or_else(|| json.to_owned())
}

/// A value of the item for a person: compressed text is unpacked, unless it is long.
fn shown(value: &AttributeValue) -> String {
    match value {
        AttributeValue::S(text) | AttributeValue::N(text) => text.clone(),
        AttributeValue::B(bytes) => {
            let size = bytes.as_ref().len();
            match unpacked(bytes.as_ref()).filter(|text| text.len() <= LONGEST) {
                Some(text) => format!("({size} bytes, {} unpacked) {text}", text.len()),
                None => format!("({size} bytes)"),
            }
        }
        other => as_json(other).to_string(),
    }
}

/// The fields of an item for a program.
fn fields<'a>(item: impl IntoIterator<Item = (&'a String, &'a AttributeValue)>) -> Value {
    let fields = item.into_iter().map(|(name, value)| (name.clone(), as_json(value)));
    fields.collect::<Map<_, _>>().into()
}

/// A value of the item for a program: compressed text is unpacked, and other bytes are null.
fn as_json(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => text.as_str().into(),
        AttributeValue::N(number) => serde_json::from_str(number).unwrap_or_default(),
        AttributeValue::Bool(word) => (*word).into(),
        AttributeValue::B(bytes) => unpacked(bytes.as_ref()).into(),
        AttributeValue::L(values) => values.iter().map(as_json).collect(),
        AttributeValue::M(item) => fields(item),
        _ => Value::Null,
    }
}

fn unpacked(bytes: &[u8]) -> Option<String> {
    String::from_utf8(gzip::unpack(bytes).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_to_its_first_names() {
        assert_eq!(listed(&json!([])), "none");
        assert_eq!(listed(&json!(["/a", "/b", "/c"])), "/a, /b, /c");
        assert_eq!(listed(&json!(["/a", "/b", "/c", "/d", "/e"])), "/a, /b, /c and 2 more");
    }
}
