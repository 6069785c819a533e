//! Records the last deliveries and what happened to them: in memory, within limits, and without secrets.

pub mod alerts;
mod delivery;
pub mod log;
pub mod outcome;
mod records;
pub mod redaction;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::project::answer::Answer;
use crate::recorder::alerts::Alerts;
use crate::recorder::redaction::Redactor;
use crate::{Error, lock};
pub use delivery::{Body, Delivery, Stored};
use delivery::{cut, headers};
pub use records::Published;
use records::{Invocation, Kept, Line};

/// The limit for the headers, the parameters and the log lines of a delivery: a person does not read more, and anyone
/// may send them.
const PAIRS: usize = 100;
/// The limit for invocations that are under way, or have ended and may still log.
const INVOCATIONS: usize = 2_000;
/// The number of deliveries that are looked up together.
const AT_ONCE: usize = 2_000;

/// Which deliveries are unsettled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Deliveries that changed since they were last looked up.
    New,
    /// These, and deliveries whose events are in the outbox.
    All,
}

/// A delivery whose event is to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    /// The number of the delivery.
    pub id: u64,
    /// The id of the event.
    pub event_id: Option<String>,
}

/// A request, and the route that it took.
#[derive(Debug)]
pub struct Received {
    /// When the request arrived.
    pub at: Timestamp,
    /// The id of the invocation.
    pub invocation: String,
    /// The provider of the route.
    pub provider: Option<String>,
    /// The shop in the path.
    pub shop: Option<String>,
    /// The request.
    pub request: Request<Bytes>,
}

/// The recorder. Clones share their records.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kept: Mutex<Kept>,
    redactor: Redactor,
    /// Identifies this run, so that a page that was opened in another run reloads.
    run: String,
    changes: watch::Sender<u64>,
    alerts: Alerts,
}

impl Recorder {
    /// Creates an empty recorder that masks the secrets of `redactor`.
    pub fn new(redactor: Redactor) -> Self {
        Self(Arc::new(Inner {
            kept: Mutex::default(),
            redactor,
            run: uuid::Uuid::new_v4().simple().to_string(),
            changes: watch::channel(0).0,
            alerts: Alerts::default(),
        }))
    }

    /// Loads the records of the file `path`, and appends new ones to it. Lines that cannot be read are dropped.
    pub fn keep_in(&self, path: &Path) -> Result<(), Error> {
        let kept = lock(&self.0.kept).load(path);
        kept.map_err(|error| Error::Start(format!("{}: {error}", path.display())))
    }

    /// The alerts that redrive has published.
    pub(crate) fn alerts(&self) -> &Alerts {
        &self.0.alerts
    }

    /// The id of this run.
    pub fn run(&self) -> &str {
        &self.0.run
    }

    /// Notifies of each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Records the log lines of this invocation from now on.
    pub fn expect(&self, invocation: &str) {
        let mut kept = lock(&self.0.kept);
        kept.invocations.insert(invocation.to_owned(), Invocation::default());
        kept.order.push_back(invocation.to_owned());
        while kept.order.len() > INVOCATIONS {
            let oldest = kept.order.pop_front().unwrap_or_default();
            kept.invocations.remove(&oldest);
        }
    }

    /// Records a delivery, and returns its number.
    pub fn delivered(&self, received: Received, response: &Response<Bytes>, took: Duration) -> u64 {
        let redactor = &self.0.redactor;
        let (parts, body) = received.request.into_parts();
        let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let answer = Answer::read(response);
        let mut kept = lock(&self.0.kept);
        kept.last += 1;
        let id = kept.last;
        let invocation = kept.invocations.get_mut(&received.invocation);
        let log = invocation.map(|invocation| {
            invocation.delivery = Some(id);
            std::mem::take(&mut invocation.lines)
        });
        kept.open.insert(id, Open::New);
        kept.push(Delivery {
            id,
            at: received.at,
            method: parts.method.to_string(),
            path: cut(&redactor.text(parts.uri.path())),
            query: query
                .take(PAIRS)
                .map(|(name, value)| {
                    let value = redactor.named(&name, &value);
                    (cut(&redactor.text(&name)), cut(&value))
                })
                .collect(),
            headers: headers(&parts.headers, redactor),
            body: Body::of(&body, redactor),
            provider: received.provider,
            shop: received.shop.map(|shop| cut(&redactor.text(&shop))),
            status: response.status().as_u16(),
            answer: cut(&redactor.text(&String::from_utf8_lossy(response.body()))),
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            outcome: outcome::outcome(&answer).to_owned(),
            reason: answer.reason,
            event_id: answer.event_id,
            log: log.unwrap_or_default(),
            stored: None,
            said: false,
            changed: 0,
        });
        kept.touch(id);
        self.0.changes.send_replace(kept.change);
        id
    }

    /// Records a log line of a function, if it belongs to a delivery.
    pub fn wrote(&self, line: &str) {
        let Ok(read) = serde_json::from_str::<Value>(line) else {
            return;
        };
        let line = cut(&self.0.redactor.text(line));
        let mut kept = lock(&self.0.kept);
        if let Some(invocation) = read["request_id"].as_str() {
            let Some(invocation) = kept.invocations.get_mut(invocation) else {
                return;
            };
            match invocation.delivery {
                None if invocation.lines.len() < PAIRS => invocation.lines.push(line),
                None => {}
                Some(id) => {
                    if let Some(delivery) = kept.delivery_mut(id).filter(|delivery| delivery.log.len() < PAIRS) {
                        delivery.log.push(line);
                        kept.touch(id);
                        self.0.changes.send_replace(kept.change);
                    }
                }
            }
        } else if let Some(event_id) = read["event_id"].as_str() {
            kept.loose.push_back((Timestamp::now(), event_id.to_owned(), line));
            if kept.loose.len() > INVOCATIONS {
                kept.loose.pop_front();
            }
        }
    }

    /// Records a message that the topic delivered to the queue.
    pub fn published(&self, envelope: &str) {
        let Ok(read) = serde_json::from_str::<Value>(envelope) else {
            return;
        };
        let event: Value = read["Message"]
            .as_str()
            .and_then(|message| serde_json::from_str(message).ok())
            .unwrap_or_default();
        let Some(event_id) = event["id"].as_str() else { return };
        let message = Published {
            at: Timestamp::now(),
            event_id: event_id.to_owned(),
            envelope: envelope.to_owned(),
        };
        let mut kept = lock(&self.0.kept);
        kept.write(&Line::Message(message.clone()));
        kept.push_message(message);
        if event["data"]["origin"] == "reconciliation" && kept.deliveries_of(event_id).next().is_none() {
            kept.last += 1;
            let id = kept.last;
            kept.push(Delivery::reconciled(id, &event));
            kept.touch(id);
        }
        // The deliveries of the event may show the message.
        let ids: Vec<u64> = kept.deliveries_of(event_id).map(|delivery| delivery.id).collect();
        for id in ids {
            kept.open.insert(id, Open::New);
        }
        self.0.changes.send_replace(kept.change);
    }

    /// The unsettled deliveries, in order.
    pub fn open(&self, which: Open) -> Vec<Unsettled> {
        let kept = lock(&self.0.kept);
        let open = kept
            .open
            .iter()
            .rev()
            .filter(|(_, open)| which == Open::All || **open == which);
        // The newest of very many; the others follow when these are settled.
        let open = open.filter_map(|(id, _)| {
            let event_id = kept.delivery(*id)?.event_id.clone();
            Some(Unsettled { id: *id, event_id })
        });
        let mut open: Vec<_> = open.take(AT_ONCE).collect();
        open.reverse();
        open
    }

    /// Sets what the table says about the event of a delivery. Returns the delivery the first time.
    ///
    /// A delivery whose event is in the outbox stays unsettled. What was known once is not forgotten.
    pub fn settle(&self, id: u64, stored: Option<Stored>) -> Option<Delivery> {
        let mut kept = lock(&self.0.kept);
        let waits = stored.as_ref().is_some_and(|stored| stored.state == "pending");
        let was_open = if waits {
            kept.open.insert(id, Open::All).is_some()
        } else {
            kept.open.remove(&id).is_some()
        };
        let Some(delivery) = kept.delivery(id) else {
            kept.open.remove(&id);
            return None;
        };
        let is_first = was_open && !delivery.said;
        let is_change = stored.is_some() && delivery.stored != stored;
        let (at, event_id) = (delivery.at, delivery.event_id.clone());
        let mut lines = Vec::new();
        if let Some(event_id) = event_id.filter(|_| is_first) {
            kept.loose.retain(|(time, of, line)| {
                let mine = *of == event_id && *time >= at;
                if mine {
                    lines.push(line.clone());
                }
                !mine
            });
        }
        if is_change || !lines.is_empty() {
            if let Some(delivery) = kept.delivery_mut(id) {
                delivery.stored = stored;
                delivery.log.extend(lines);
            }
            kept.touch(id);
            self.0.changes.send_replace(kept.change);
        }
        if !is_first {
            return None;
        }
        let delivery = kept.delivery_mut(id)?;
        delivery.said = true;
        let delivery = delivery.clone();
        kept.write(&Line::Delivery(Box::new(delivery.clone())));
        Some(delivery)
    }

    /// Returns the delivery `id`.
    pub fn delivery(&self, id: u64) -> Option<Delivery> {
        lock(&self.0.kept).delivery(id).cloned()
    }

    /// Returns the rows that changed after the change `after`, the newest first and at most `most`, and the number of
    /// the last change.
    pub fn rows(&self, after: u64, most: usize) -> (Vec<Value>, u64) {
        let kept = lock(&self.0.kept);
        let changed = kept.deliveries.iter().rev().filter(|delivery| delivery.changed > after);
        (changed.take(most).map(Delivery::row).collect(), kept.change)
    }

    /// Returns the deliveries of an event, the newest first.
    pub fn deliveries_of(&self, event_id: &str) -> Vec<Delivery> {
        lock(&self.0.kept).deliveries_of(event_id).cloned().collect()
    }

    /// Returns the messages of an event, the oldest first.
    pub fn messages_of(&self, event_id: &str) -> Vec<Published> {
        let kept = lock(&self.0.kept);
        let messages = kept.messages.iter().filter(|message| message.event_id == event_id);
        messages.cloned().collect()
    }
}
