//! The records: deliveries, log lines and messages, as many as fit, and the file that keeps them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufWriter, IntoInnerError};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Open;
use super::delivery::{Body, Delivery};

/// The number of recorded deliveries.
pub(super) const DELIVERIES: usize = 10_000;
/// The limit for the bytes of their bodies together. Over it, the oldest deliveries lose theirs.
pub(super) const BODIES: usize = 128 * 1024 * 1024;
/// The limits for the number of recorded messages and for their bytes.
const MESSAGES: usize = 20_000;
const MESSAGE_BYTES: usize = 128 * 1024 * 1024;

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

/// What is recorded.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) deliveries: VecDeque<Delivery>,
    pub(super) last: u64,
    pub(super) change: u64,
    pub(super) body_bytes: usize,
    /// The unsettled deliveries.
    pub(super) open: BTreeMap<u64, Open>,
    pub(super) invocations: HashMap<String, Invocation>,
    pub(super) order: VecDeque<String>,
    /// Log lines that name an event but no invocation.
    pub(super) loose: VecDeque<(Timestamp, String, String)>,
    pub(super) messages: VecDeque<Published>,
    pub(super) message_bytes: usize,
    pub(super) file: Option<File>,
}

/// An invocation that is under way, or has ended and may still log.
#[derive(Debug, Default)]
pub(super) struct Invocation {
    pub(super) delivery: Option<u64>,
    pub(super) lines: Vec<String>,
}

/// A line of the file that keeps the records.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Delivery(Box<Delivery>),
    Message(Published),
}

impl Kept {
    /// Loads the records of the file `path`, and appends new ones to it. Lines that cannot be read are dropped.
    pub(super) fn load(&mut self, path: &Path) -> io::Result<()> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text?,
        };
        // In the order of their numbers, not of the lines.
        let mut deliveries = BTreeMap::new();
        let lines = text.split(|byte| *byte == b'\n');
        for line in lines.filter_map(|line| serde_json::from_slice(line).ok()) {
            match line {
                Line::Delivery(delivery) => {
                    deliveries.insert(delivery.id, delivery);
                }
                Line::Message(message) => self.push_message(message),
            }
        }
        for (id, mut delivery) in deliveries {
            delivery.said = true;
            self.last = id;
            self.open.insert(id, Open::New);
            self.push(*delivery);
            self.touch(id);
        }
        // Rewritten, so that the file holds only what is still recorded.
        let new = path.with_extension("new");
        let mut file = BufWriter::new(File::create(&new)?);
        for message in &self.messages {
            write_line(&mut file, &Line::Message(message.clone()))?;
        }
        for delivery in &self.deliveries {
            write_line(&mut file, &Line::Delivery(Box::new(delivery.clone())))?;
        }
        self.file = Some(file.into_inner().map_err(IntoInnerError::into_error)?);
        fs::rename(&new, path)
    }

    pub(super) fn push(&mut self, delivery: Delivery) {
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

    pub(super) fn push_message(&mut self, message: Published) {
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

    pub(super) fn delivery(&self, id: u64) -> Option<&Delivery> {
        self.deliveries.get(self.index(id)?)
    }

    pub(super) fn delivery_mut(&mut self, id: u64) -> Option<&mut Delivery> {
        let index = self.index(id)?;
        self.deliveries.get_mut(index)
    }

    pub(super) fn deliveries_of<'a>(&'a self, event_id: &'a str) -> impl Iterator<Item = &'a Delivery> {
        let newest_first = self.deliveries.iter().rev();
        newest_first.filter(move |delivery| delivery.event_id.as_deref() == Some(event_id))
    }

    pub(super) fn touch(&mut self, id: u64) {
        self.change += 1;
        let change = self.change;
        if let Some(delivery) = self.delivery_mut(id) {
            delivery.changed = change;
        }
    }

    /// A full disk loses the line, and not the delivery.
    pub(super) fn write(&mut self, line: &Line) {
        if let Some(file) = &mut self.file {
            let _ = write_line(file, line);
        }
    }
}

fn write_line(file: &mut impl io::Write, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    file.write_all(&text)
}
