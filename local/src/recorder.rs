//! What came in and what became of it: the last deliveries, in memory and within bounds, without their secrets.

mod delivery;

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

use crate::alerts::Alerts;
use crate::masking::Masking;
use crate::{Error, lock};
pub use delivery::{Body, Delivery, Stored};
use delivery::{cut, headers, outcome};

/// How many deliveries are kept.
const DELIVERIES: usize = 10_000;
/// How many bytes their bodies may have together; then the oldest lose theirs.
const BODIES: usize = 128 * 1024 * 1024;
/// How many messages are kept, and how many bytes of them.
const MESSAGES: usize = 20_000;
const MESSAGE_BYTES: usize = 128 * 1024 * 1024;
/// How many headers, parameters and lines of log a delivery is kept with: a person reads no more, and anyone may send them.
const PAIRS: usize = 100;
/// How many invocations may be under way, or have just ended, with lines of theirs still to come.
const INVOCATIONS: usize = 2_000;
/// How many deliveries are looked up at once.
const AT_ONCE: usize = 2_000;

/// What is not yet known of as it will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// What nobody has looked at since something happened to it.
    New,
    /// That, and what waits in the outbox.
    All,
}

/// A message that the topic has delivered to the queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Published {
    /// When.
    pub at: Timestamp,
    /// The event's id.
    pub event_id: String,
    /// SNS's envelope, as the queue has it.
    pub envelope: String,
}

/// A request as it came, and whose it is.
#[derive(Debug)]
pub struct Received {
    /// When it came.
    pub at: Timestamp,
    /// The invocation that it led to.
    pub invocation: String,
    /// The provider whose route it is.
    pub provider: Option<String>,
    /// The shop in the path.
    pub shop: Option<String>,
    /// The request.
    pub request: Request<Bytes>,
}

/// Keeps them. Clones share what is kept.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kept: Mutex<Kept>,
    masking: Masking,
    /// Names this run: a page that was opened in another one begins anew.
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
    /// What is not yet known of as it will be.
    open: BTreeMap<u64, Open>,
    invocations: HashMap<String, Invocation>,
    order: VecDeque<String>,
    /// Lines that name an event and no invocation.
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

/// A line of the file that the list is kept in.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Delivery(Box<Delivery>),
    Message(Published),
}

impl Recorder {
    /// An empty one, which masks what `masking` knows.
    pub fn new(masking: Masking) -> Self {
        Self(Arc::new(Inner {
            kept: Mutex::default(),
            masking,
            run: uuid::Uuid::new_v4().simple().to_string(),
            changes: watch::channel(0).0,
            alerts: Alerts::default(),
        }))
    }

    /// Takes up what the file `path` holds, and keeps in it from now on what comes. A line that cannot be read is left out.
    pub fn keep_in(&self, path: &std::path::Path) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::Start(format!("{}: {error}", path.display()));
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let mut kept = lock(&self.0.kept);
        // By their numbers, whatever order they were written in.
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
        // Written anew, so that it does not grow over what is kept.
        let beside = path.with_extension("new");
        let mut file = std::io::BufWriter::new(File::create(&beside).map_err(failed)?);
        for message in &kept.messages {
            write_line(&mut file, &Line::Message(message.clone())).map_err(failed)?;
        }
        for delivery in &kept.deliveries {
            write_line(&mut file, &Line::Delivery(Box::new(delivery.clone()))).map_err(failed)?;
        }
        kept.file = Some(file.into_inner().map_err(|error| failed(error.into_error()))?);
        std::fs::rename(&beside, path).map_err(failed)
    }

    /// The alerts that redrive has sent.
    pub(crate) fn alerts(&self) -> &Alerts {
        &self.0.alerts
    }

    /// Names this run.
    pub fn run(&self) -> &str {
        &self.0.run
    }

    /// Told of each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Lines of this invocation are kept from now on.
    pub fn expect(&self, invocation: &str) {
        let mut kept = lock(&self.0.kept);
        kept.invocations.insert(invocation.to_owned(), Invocation::default());
        kept.order.push_back(invocation.to_owned());
        while kept.order.len() > INVOCATIONS {
            let oldest = kept.order.pop_front().unwrap_or_default();
            kept.invocations.remove(&oldest);
        }
    }

    /// Keeps a delivery.
    pub fn delivered(&self, received: Received, response: &Response<Bytes>, took: Duration) {
        let masking = &self.0.masking;
        let (parts, body) = received.request.into_parts();
        let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let said = outcome(response);
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
            path: cut(&masking.text(parts.uri.path())),
            query: query
                .take(PAIRS)
                .map(|(name, value)| {
                    let value = masking.named(&name, &value);
                    (cut(&masking.text(&name)), cut(&value))
                })
                .collect(),
            headers: headers(&parts.headers, masking),
            body: Body::of(&body, masking),
            provider: received.provider,
            shop: received.shop.map(|shop| cut(&masking.text(&shop))),
            status: response.status().as_u16(),
            answer: cut(&masking.text(&String::from_utf8_lossy(response.body()))),
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            outcome: said.word,
            reason: said.reason,
            event_id: said.event_id,
            log: log.unwrap_or_default(),
            stored: None,
            said: false,
            changed: 0,
        });
        kept.touch(id);
        self.0.changes.send_replace(kept.change);
    }

    /// Keeps a line that a function wrote, if it belongs to a delivery.
    pub fn wrote(&self, line: &str) {
        let Ok(read) = serde_json::from_str::<Value>(line) else {
            return;
        };
        let line = cut(&self.0.masking.text(line));
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

    /// Keeps a message that the topic delivered to the queue.
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
        // The event's deliveries may show it.
        let ids: Vec<u64> = kept.deliveries_of(event_id).map(|delivery| delivery.id).collect();
        for id in ids {
            kept.open.insert(id, Open::New);
        }
        self.0.changes.send_replace(kept.change);
    }

    /// What is not yet known of as it will be, in its order: its number and its event's id.
    pub fn open(&self, which: Open) -> Vec<(u64, Option<String>)> {
        let kept = lock(&self.0.kept);
        let open = kept
            .open
            .iter()
            .rev()
            .filter(|(_, open)| which == Open::All || **open == which);
        // Of very many the newest: the others follow when these are known.
        let open = open.filter_map(|(id, _)| Some((*id, kept.delivery(*id)?.event_id.clone())));
        let mut open: Vec<_> = open.take(AT_ONCE).collect();
        open.reverse();
        open
    }

    /// Says what the table has of a delivery's event; gives the delivery where that is the first that is said of it.
    ///
    /// One that still waits in the outbox stays open. Nothing is forgotten that was known once.
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

    /// One delivery.
    pub fn delivery(&self, id: u64) -> Option<Delivery> {
        lock(&self.0.kept).delivery(id).cloned()
    }

    /// The rows that changed after the change `after`, the newest first and at most `most`; and the last change.
    pub fn rows(&self, after: u64, most: usize) -> (Vec<Value>, u64) {
        let kept = lock(&self.0.kept);
        let changed = kept.deliveries.iter().rev().filter(|delivery| delivery.changed > after);
        (changed.take(most).map(Delivery::row).collect(), kept.change)
    }

    /// The deliveries of an event, the newest first.
    pub fn deliveries_of(&self, event_id: &str) -> Vec<Delivery> {
        lock(&self.0.kept).deliveries_of(event_id).cloned().collect()
    }

    /// The messages of an event, the oldest first.
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

    /// A full disk costs the line, and not the delivery.
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
        Recorder::new(Masking::new(&[json!({"tokens": ["a-long-random-token"]})]))
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
    fn a_delivery_is_said_once_and_stays_open_while_it_waits() {
        let recorder = recorder();
        deliver(&recorder, "{}");
        assert_eq!(recorder.open(Open::New), [(1, Some("e1".to_owned()))]);
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
    fn only_so_many_are_kept_and_never_a_secret() {
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
    fn the_oldest_bodies_make_room() {
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
    fn a_file_keeps_the_list_and_a_broken_line_costs_that_line() {
        let file = std::env::temp_dir().join(format!("order-webhooks-{}.jsonl", uuid::Uuid::new_v4()));
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
        // The table was deleted meanwhile.
        assert!(second.settle(1, None).is_none());
        assert_eq!(second.delivery(1).unwrap().stored, Some(stored("published")));
        deliver(&second, "{}");
        assert!(second.delivery(2).is_some());
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn what_the_table_knows_nothing_of_is_told_once_over_any_number_of_restarts() {
        let file = std::env::temp_dir().join(format!("order-webhooks-{}.jsonl", uuid::Uuid::new_v4()));
        for run in 0..3_u64 {
            let recorder = recorder();
            recorder.keep_in(&file).unwrap();
            for (id, _) in recorder.open(Open::All) {
                assert!(recorder.settle(id, None).is_none(), "{id} is told again in run {run}");
            }
            deliver(&recorder, "{}");
            assert!(recorder.settle(run + 1, None).is_some(), "a new number in run {run}");
            let kept: Vec<u64> = lock(&recorder.0.kept).deliveries.iter().map(|kept| kept.id).collect();
            assert_eq!(kept, (1..=run + 1).collect::<Vec<_>>());
        }
        std::fs::remove_file(file).unwrap();
    }
}
