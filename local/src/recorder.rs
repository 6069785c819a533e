//! Records the last deliveries and what happened to them: in memory, within limits, and without secrets.

pub mod alerts;
mod delivery;
pub mod log;
pub mod outcome;
pub mod redaction;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::project::answer::Answer;
use crate::recorder::alerts::Alerts;
use crate::recorder::redaction::Redactor;
use crate::{Error, lock};
pub use delivery::{Body, Delivery, Stored};
use delivery::{cut, headers};

/// The number of recorded deliveries.
const DELIVERIES: usize = 10_000;
/// The limit for the bytes of their bodies together. Over it, the oldest deliveries lose theirs.
const BODIES: usize = 128 * 1024 * 1024;
/// The limits for the number of recorded messages and for their bytes.
const MESSAGES: usize = 20_000;
const MESSAGE_BYTES: usize = 128 * 1024 * 1024;
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

/// A message that the topic has delivered to the queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Published {
    /// When the queue received it.
    pub at: Timestamp,
    /// The id of the event.
    pub event_id: String,
    /// SNS's envelope, as the queue holds it.
    pub envelope: String,
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

#[derive(Debug, Default)]
struct Kept {
    deliveries: VecDeque<Delivery>,
    last: u64,
    change: u64,
    body_bytes: usize,
    /// The unsettled deliveries.
    open: BTreeMap<u64, Open>,
    invocations: HashMap<String, Invocation>,
    order: VecDeque<String>,
    /// Log lines that name an event but no invocation.
    loose: VecDeque<(Timestamp, String, String)>,
    messages: VecDeque<Published>,
    message_bytes: usize,
    file: Option<File>,
}

#[derive(Debug, Default)]
struct Invocation {
    delivery: Option<u64>,
    lines: Vec<String>,
}

/// A line of the file that keeps the records.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Delivery(Box<Delivery>),
    Message(Published),
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
    pub fn keep_in(&self, path: &std::path::Path) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::Start(format!("{}: {error}", path.display()));
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let mut kept = lock(&self.0.kept);
        // In the order of their numbers, not of the lines.
        let mut deliveries = BTreeMap::new();
        let lines = text.split(|byte| *byte == b'\n');
        for line in lines.filter_map(|line| serde_json::from_slice(line).ok()) {
            match line {
                Line::Delivery(delivery) => {
                    deliveries.insert(delivery.id, delivery);
                }
                Line::Message(message) => kept.push_message(message),
            }
        }
        for (id, mut delivery) in deliveries {
            delivery.said = true;
            kept.last = id;
            kept.open.insert(id, Open::New);
            kept.push(*delivery);
            kept.touch(id);
        }
        // Rewritten, so that the file holds only what is still recorded.
        let new = path.with_extension("new");
        let mut file = std::io::BufWriter::new(File::create(&new).map_err(failed)?);
        for message in &kept.messages {
            write_line(&mut file, &Line::Message(message.clone())).map_err(failed)?;
        }
        for delivery in &kept.deliveries {
            write_line(&mut file, &Line::Delivery(Box::new(delivery.clone()))).map_err(failed)?;
        }
        kept.file = Some(file.into_inner().map_err(|error| failed(error.into_error()))?);
        std::fs::rename(&new, path).map_err(failed)
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

impl Kept {
    fn push(&mut self, delivery: Delivery) {
        self.body_bytes += delivery.body.kept();
        self.deliveries.push_back(delivery);
        while self.deliveries.len() > DELIVERIES {
            if let Some(oldest) = self.deliveries.pop_front() {
                self.body_bytes -= oldest.body.kept();
                self.open.remove(&oldest.id);
            }
        }
        let mut index = 0;
        while self.body_bytes > BODIES && index < self.deliveries.len() {
            let body = &mut self.deliveries[index].body;
            self.body_bytes -= body.kept();
            *body = Body::Dropped { bytes: body.bytes() };
            index += 1;
        }
    }

    fn push_message(&mut self, message: Published) {
        self.message_bytes += message.envelope.len();
        self.messages.push_back(message);
        while self.messages.len() > MESSAGES || self.message_bytes > MESSAGE_BYTES {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.message_bytes -= oldest.envelope.len();
        }
    }

    fn index(&self, id: u64) -> Option<usize> {
        self.deliveries.binary_search_by_key(&id, |delivery| delivery.id).ok()
    }

    fn delivery(&self, id: u64) -> Option<&Delivery> {
        self.deliveries.get(self.index(id)?)
    }

    fn delivery_mut(&mut self, id: u64) -> Option<&mut Delivery> {
        let index = self.index(id)?;
        self.deliveries.get_mut(index)
    }

    fn deliveries_of<'a>(&'a self, event_id: &'a str) -> impl Iterator<Item = &'a Delivery> {
        let newest_first = self.deliveries.iter().rev();
        newest_first.filter(move |delivery| delivery.event_id.as_deref() == Some(event_id))
    }

    fn touch(&mut self, id: u64) {
        self.change += 1;
        let change = self.change;
        if let Some(delivery) = self.delivery_mut(id) {
            delivery.changed = change;
        }
    }

    /// A full disk loses the line, and not the delivery.
    fn write(&mut self, line: &Line) {
        if let Some(file) = &mut self.file {
            let _ = write_line(file, line);
        }
    }
}

fn write_line(file: &mut impl std::io::Write, line: &Line) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    file.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deliver(recorder: &Recorder, body: &str) {
        let invocation = uuid::Uuid::new_v4().to_string();
        recorder.expect(&invocation);
        recorder.wrote(&format!(
            r#"{{"message":"delivery","request_id":"{invocation}","cause":"as it is"}}"#
        ));
        let request = Request::post("/webhooks/selldone/main?token=a-long-random-token&x=1")
            .header("authorization", "Basic eDp5")
            .body(Bytes::from(body.to_owned()))
            .unwrap();
        let received = Received {
            at: Timestamp::now(),
            invocation,
            provider: Some("selldone".to_owned()),
            shop: Some("main".to_owned()),
            request,
        };
        let answer = Response::new(Bytes::from_static(br#"{"status":"accepted","event_id":"e1"}"#));
        recorder.delivered(received, &answer, Duration::from_millis(3));
    }

    fn recorder() -> Recorder {
        Recorder::new(Redactor::new(&[json!({"tokens": ["a-long-random-token"]})]))
    }

    fn stored(state: &str) -> Stored {
        Stored {
            r#type: Some("order.created".to_owned()),
            order: Some("1".to_owned()),
            state: state.to_owned(),
            attempts: 0,
        }
    }

    #[test]
    fn what_reconciliation_publishes_is_listed_once() {
        let recorder = recorder();
        let message = |id: &str, origin: &str| {
            let data = json!({"provider": "cartum", "shop": "main", "origin": origin});
            let event = json!({"id": id, "data": data}).to_string();
            recorder.published(&json!({ "Message": event }).to_string());
        };
        message("e1", "webhook");
        message("e2", "reconciliation");
        // A replay.
        message("e2", "reconciliation");
        let (rows, _) = recorder.rows(0, 10);
        let listed: Vec<_> = rows
            .iter()
            .map(|row| (&row["outcome"], &row["event_id"], &row["shop"]))
            .collect();
        assert_eq!(listed, [(&json!("reconciled"), &json!("e2"), &json!("main"))]);
        assert_eq!(recorder.open(Open::New).len(), 1, "its event is looked up");
    }

    #[test]
    fn a_delivery_is_reported_once_and_stays_unsettled() {
        let recorder = recorder();
        deliver(&recorder, "{}");
        let unsettled = Unsettled {
            id: 1,
            event_id: Some("e1".to_owned()),
        };
        assert_eq!(recorder.open(Open::New), [unsettled]);
        assert!(recorder.settle(1, Some(stored("pending"))).is_some());
        assert!(recorder.open(Open::New).is_empty());
        assert_eq!(recorder.open(Open::All).len(), 1);
        let (rows, change) = recorder.rows(0, 10);
        assert_eq!(rows[0]["state"], "pending");
        assert!(recorder.settle(1, Some(stored("pending"))).is_none());
        assert!(recorder.rows(change, 10).0.is_empty(), "nothing has changed");
        assert!(recorder.settle(1, Some(stored("published"))).is_none());
        assert_eq!(recorder.rows(change, 10).0[0]["state"], "published");
        assert!(recorder.open(Open::All).is_empty());
    }

    #[test]
    fn a_limited_number_is_recorded_without_secrets() {
        let recorder = recorder();
        for _ in 0..DELIVERIES + 3 {
            deliver(&recorder, "{}");
        }
        assert_eq!(recorder.rows(0, usize::MAX).0.len(), DELIVERIES);
        assert!(recorder.delivery(3).is_none());
        let kept = recorder.delivery(4).unwrap();
        let text = format!("{kept:?}");
        assert!(
            !text.contains("a-long-random-token") && !text.contains("eDp5"),
            "{text}"
        );
        assert_eq!(kept.cause().as_deref(), Some("as it is"));
    }

    #[test]
    fn the_oldest_bodies_are_dropped() {
        let recorder = recorder();
        let large = "x".repeat(512 * 1024);
        let most = BODIES / large.len();
        for _ in 0..=most {
            deliver(&recorder, &large);
        }
        assert_eq!(recorder.delivery(1).unwrap().body, Body::Dropped { bytes: large.len() });
        assert!(matches!(recorder.delivery(2).unwrap().body, Body::Whole { .. }));
    }

    #[test]
    fn a_file_keeps_the_records_but_not_a_broken_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deliveries.jsonl");
        let first = recorder();
        first.keep_in(&file).unwrap();
        deliver(&first, "{\"a\":1}");
        first.settle(1, Some(stored("published")));
        first.published(r#"{"Message":"{\"id\":\"e1\"}"}"#);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}{{\"delivery\":")).unwrap();

        let second = recorder();
        second.keep_in(&file).unwrap();
        assert_eq!(second.rows(0, 10).0.len(), 1);
        let kept = second.delivery(1).unwrap();
        assert_eq!(
            kept.body,
            Body::Whole {
                text: "{\"a\":1}".to_owned()
            }
        );
        assert_eq!(kept.stored, Some(stored("published")));
        assert_eq!(second.messages_of("e1").len(), 1);
        // The table was deleted in between.
        assert!(second.settle(1, None).is_none());
        assert_eq!(second.delivery(1).unwrap().stored, Some(stored("published")));
        deliver(&second, "{}");
        assert!(second.delivery(2).is_some());
    }

    #[test]
    fn an_unknown_event_is_reported_once_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deliveries.jsonl");
        for run in 0..3_u64 {
            let recorder = recorder();
            recorder.keep_in(&file).unwrap();
            for Unsettled { id, .. } in recorder.open(Open::All) {
                assert!(
                    recorder.settle(id, None).is_none(),
                    "{id} is reported again in run {run}"
                );
            }
            deliver(&recorder, "{}");
            assert!(recorder.settle(run + 1, None).is_some(), "a new number in run {run}");
            let kept: Vec<u64> = lock(&recorder.0.kept).deliveries.iter().map(|kept| kept.id).collect();
            assert_eq!(kept, (1..=run + 1).collect::<Vec<_>>());
        }
    }
}
