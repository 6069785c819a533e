//! What became of each event: what the providers were told, what is stored, and what was published.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use flate2::read::GzDecoder;
use jiff::{SignedDuration, Timestamp};

use super::{Kind, Received, Sent, sha256};
use crate::stack::Stack;
use crate::{Error, NAME};

/// Kept of what goes wrong; the rest is counted.
const SHOWN: usize = 20;

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Events that were sent.
    pub events: usize,
    /// Requests that were sent for them.
    pub deliveries: usize,
    /// Answers by what they said.
    pub answers: BTreeMap<String, usize>,
    /// Faults by their kind.
    pub faults: BTreeMap<String, usize>,
    /// Events that were answered 200.
    pub acknowledged: usize,
    /// Of them, no order events or not to be understood: kept and not published.
    pub set_aside: usize,
    /// Events that are kept in parts.
    pub in_parts: usize,
    /// Other bodies that came under the id of an event, and are kept beside it.
    pub conflicts: usize,
    /// Events of which their provider gave up before it was answered 200.
    pub given_up: usize,
    /// Items of the table that are events.
    pub stored: usize,
    /// Events that were answered 200 and are not stored, or were never published.
    pub lost: usize,
    /// Items that an event has beside its first.
    pub duplicated_items: usize,
    /// Messages.
    pub messages: usize,
    /// Events with more messages than one.
    pub published_more_than_once: usize,
    /// Events that redrive published.
    pub redriven: usize,
    /// From an event's receipt to its publication.
    pub longest_in_outbox: SignedDuration,
    /// How long it took.
    pub took: Duration,
    /// What must not be, the first few.
    pub violations: Vec<String>,
    /// All of them.
    pub violated: usize,
}

impl Report {
    fn violation(&mut self, what: impl FnOnce() -> String) {
        self.violated += 1;
        if self.violations.len() < SHOWN {
            self.violations.push(what());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: usize = self.faults.values().sum();
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(formatter, "| {name} | {value} |");
        row("events", &self.events)?;
        row("deliveries", &self.deliveries)?;
        for (answer, count) in &self.answers {
            row(&format!("- answered {answer}"), count)?;
        }
        row("faults injected", &faults)?;
        for (fault, count) in &self.faults {
            row(&format!("- {fault}"), count)?;
        }
        row("events answered 200", &self.acknowledged)?;
        row("- no order events, or not understood", &self.set_aside)?;
        row("- another body for a known event, kept beside it", &self.conflicts)?;
        row("- kept in parts", &self.in_parts)?;
        row("events their provider gave up", &self.given_up)?;
        row("events stored", &self.stored)?;
        row("published by redrive", &self.redriven)?;
        row("messages", &self.messages)?;
        row("events published more than once", &self.published_more_than_once)?;
        row(
            "longest time in the outbox",
            &format!("{:.1} s", self.longest_in_outbox.as_secs_f64()),
        )?;
        row("**lost**", &format!("**{}**", self.lost))?;
        row("**duplicated items**", &format!("**{}**", self.duplicated_items))?;
        row("took", &format!("{:.0} s", self.took.as_secs_f64()))
    }
}

/// An event of the table.
struct Stored {
    shop: String,
    state: String,
    payload: [u8; 32],
    event: [u8; 32],
    is_in_parts: bool,
}

/// The table.
#[derive(Default)]
struct Table {
    events: HashMap<String, Stored>,
    /// Other bodies that came under an event's id.
    conflicts: HashSet<(String, [u8; 32])>,
}

/// Compares what the providers were told, what is stored, and what was published.
pub(super) async fn check(
    stack: &Stack,
    sent: &[Sent],
    received: &HashMap<String, Received>,
    report: &mut Report,
) -> Result<(), Error> {
    let Table { events, mut conflicts } = read_table(stack, report).await?;
    report.stored = events.len();
    report.in_parts = events.values().filter(|event| event.is_in_parts).count();
    report.messages = received.values().map(|received| received.messages).sum();
    report.published_more_than_once = received.values().filter(|received| received.messages > 1).count();

    let mut items_of = HashMap::<(&str, [u8; 32]), usize>::new();
    for event in events.values() {
        *items_of.entry((&event.shop, event.payload)).or_default() += 1;
    }
    for sent in sent {
        let items = items_of.remove(&(sent.shop, sent.body)).unwrap_or_default();
        if items > 1 {
            report.duplicated_items += items - 1;
            report.violation(|| format!("one event has {items} items: {:?}", sent.event_ids));
        }
        if sent.event_ids.is_empty() {
            report.given_up += 1;
            // It may have been kept all the same.
            conflicts.retain(|(_, body)| *body != sent.body);
            continue;
        }
        report.acknowledged += 1;
        if sent.event_ids.len() > 1 {
            report.violation(|| format!("one event has several ids: {:?}", sent.event_ids));
        }
        for event_id in &sent.event_ids {
            let is_received = received.contains_key(event_id);
            if sent.outcomes.iter().any(|outcome| outcome == "quarantined") && sent.kind == Kind::Conflict {
                report.conflicts += 1;
                if !conflicts.remove(&(event_id.clone(), sent.body)) {
                    report.lost += 1;
                    report.violation(|| format!("{event_id} came with another body, which is not kept"));
                }
            } else {
                check_event(sent, event_id, events.get(event_id), is_received, report);
            }
        }
    }
    for (event_id, event) in &events {
        if !["published", "unsupported", "quarantined"].contains(&event.state.as_str()) {
            report.violation(|| format!("{event_id} is {} in the end", event.state));
        }
        if items_of.contains_key(&(event.shop.as_str(), event.payload)) {
            report.violation(|| format!("{event_id} is stored with a body that nobody sent"));
        }
    }
    for (event_id, _) in &conflicts {
        report.violation(|| format!("{event_id} has another body beside it that nobody sent"));
    }
    for (event_id, received) in received {
        match events.get(event_id) {
            None => report.violation(|| format!("{event_id} is published and not stored")),
            Some(event) if received.texts.iter().any(|text| *text != event.event) => {
                report.violation(|| format!("{event_id} was published otherwise than it is stored"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// An event that was answered 200.
fn check_event(sent: &Sent, event_id: &str, stored: Option<&Stored>, is_received: bool, report: &mut Report) {
    let Some(event) = stored else {
        report.lost += 1;
        report.violation(|| format!("{event_id} was answered 200 and is not stored"));
        return;
    };
    if event.payload != sent.body {
        report.violation(|| format!("{event_id} is stored with another body than it was sent with"));
    }
    if event.shop != sent.shop {
        report.violation(|| format!("{event_id} is stored under another shop than it was sent to"));
    }
    if sent.kind == Kind::Large && !event.is_in_parts {
        report.violation(|| format!("{event_id} is large and not kept in parts"));
    }
    if sent.kind == Kind::Other {
        report.set_aside += 1;
        if is_received {
            report.violation(|| format!("{event_id} is no order event and was published"));
        }
        if sent.outcomes.iter().any(|outcome| *outcome != event.state) {
            report.violation(|| format!("{event_id} was answered {:?} and is {}", sent.outcomes, event.state));
        }
        return;
    }
    if !is_received {
        report.lost += 1;
        report.violation(|| format!("{event_id} was answered 200 and never published"));
    }
    if event.state != "published" {
        report.violation(|| format!("{event_id} is an order event and {}", event.state));
    }
}

async fn read_table(stack: &Stack, report: &mut Report) -> Result<Table, Error> {
    let mut table = Table::default();
    let (mut heads, mut parts, mut manifests) = (Vec::new(), HashMap::new(), Vec::new());
    let scan = stack.clients().dynamodb.scan().table_name(NAME).consistent_read(true);
    let mut items = scan.into_paginator().items().send();
    while let Some(item) = items.next().await {
        let mut item = item.map_err(|error| Error::Send(format!("the table cannot be read: {error:?}")))?;
        let (event_id, sort_key) = (text(&item, "pk").to_owned(), text(&item, "sk").to_owned());
        // What is kept for alerts belongs to no event.
        if ["shops", "signals", "alerts"].contains(&event_id.as_str()) {
            continue;
        }
        match sort_key.split_once('#') {
            None if sort_key == "head" => heads.push(item),
            None if sort_key == "part" => {
                if let Some(AttributeValue::B(bytes)) = item.remove("data") {
                    parts.insert(event_id, bytes.into_inner());
                }
            }
            Some(("manifest", sha256)) => manifests.push((event_id, sha256.to_owned(), item)),
            Some(("conflict", _)) => {
                let body = value(&item, "payload", &HashMap::new());
                table.conflicts.insert((event_id, body));
            }
            // The mark that a run of redrive leaves.
            Some(("run", _)) if event_id == "redrive" => {}
            _ => report.violation(|| format!("{event_id} has an item {sort_key}")),
        }
    }
    for item in heads {
        let time = |name: &str| text(&item, name).parse::<Timestamp>().ok();
        if let (Some(from), Some(to)) = (time("received_at"), time("published_at")) {
            report.longest_in_outbox = report.longest_in_outbox.max(to.duration_since(from));
        }
        let event = Stored {
            shop: text(&item, "shop").to_owned(),
            state: text(&item, "state").to_owned(),
            payload: value(&item, "payload", &parts),
            event: value(&item, "event", &parts),
            is_in_parts: ["payload_parts", "event_parts"]
                .iter()
                .any(|name| item.contains_key(*name)),
        };
        let event_id = text(&item, "pk");
        let is_of_head =
            |(id, sha256, _): &&(String, String, Item)| id == event_id && sha256 == text(&item, "payload_sha256");
        // One that is due is left to the sweep.
        let now = Timestamp::now();
        if let Some((id, _, manifest)) = manifests.iter().find(is_of_head)
            && text(manifest, "next_attempt_at")
                .parse::<Timestamp>()
                .is_ok_and(|due| due > now)
        {
            report.violation(|| format!("{id} is stored and still has an open manifest"));
        }
        table.events.insert(event_id.to_owned(), event);
    }
    Ok(table)
}

type Item = HashMap<String, AttributeValue>;

fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    item.get(name)
        .and_then(|value| value.as_s().ok())
        .map_or("", String::as_str)
}

/// The hash of a value that is kept compressed, in the item or in parts.
fn value(item: &Item, name: &str, parts: &HashMap<String, Vec<u8>>) -> [u8; 32] {
    let mut compressed = Vec::new();
    match (item.get(name), item.get(&format!("{name}_parts"))) {
        (Some(AttributeValue::B(bytes)), _) => compressed.extend_from_slice(bytes.as_ref()),
        (None, Some(AttributeValue::L(names))) => {
            for part in names.iter().filter_map(|part| part.as_s().ok()) {
                compressed.extend(parts.get(part).into_iter().flatten());
            }
        }
        _ => {}
    }
    let mut value = Vec::new();
    // What cannot be read is not what was sent: the check finds it.
    let _ = GzDecoder::new(&compressed[..]).read_to_end(&mut value);
    sha256(&value)
}
