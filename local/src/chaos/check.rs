//! Compares what the providers were answered with what is stored and what was published.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};

use super::model::{Kind, Received, Sent, sha256};
use super::violations::Violations;
use crate::stack::Stack;
use crate::{Error, NAME, gzip};

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// The events that were sent.
    pub events: usize,
    /// The requests that were sent for the events.
    pub deliveries: usize,
    /// The answers by what they said.
    pub answers: BTreeMap<String, usize>,
    /// The injected faults by their kind.
    pub faults: BTreeMap<String, usize>,
    /// The events that were answered 200.
    pub acknowledged: usize,
    /// The events that were answered 200 and only stored: unsupported or quarantined.
    pub not_published: usize,
    /// The events that are stored in parts.
    pub in_parts: usize,
    /// The conflicts: other bodies that came under the id of an event.
    pub conflicts: usize,
    /// The events that were not answered 200 before their provider gave up.
    pub given_up: usize,
    /// The events in the table.
    pub stored: usize,
    /// The events that were answered 200, but are not stored or were never published.
    pub lost: usize,
    /// The items that an event has in addition to its first.
    pub duplicated_items: usize,
    /// The messages that were received.
    pub messages: usize,
    /// The events with more than one message.
    pub published_more_than_once: usize,
    /// The events that redrive published.
    pub redriven: usize,
    /// The messages to the alarm topic.
    pub alerts: usize,
    /// The quarantined deliveries and conflicts that alerts have reported.
    pub alerted: usize,
    /// The events and conflicts in the books of the audit.
    pub audited: usize,
    /// The longest time from the receipt of an event to its publication.
    pub longest_in_outbox: SignedDuration,
    /// How long the run took.
    pub took: Duration,
    /// What is wrong.
    pub violations: Violations,
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
        row("- unsupported or quarantined", &self.not_published)?;
        row("- conflicts", &self.conflicts)?;
        row("- stored in parts", &self.in_parts)?;
        row("events given up by their provider", &self.given_up)?;
        row("events stored", &self.stored)?;
        row("published by redrive", &self.redriven)?;
        row("messages", &self.messages)?;
        row("events published more than once", &self.published_more_than_once)?;
        row("alerts", &self.alerts)?;
        row("- quarantined deliveries and conflicts in them", &self.alerted)?;
        row("events and conflicts audited", &self.audited)?;
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

/// What the table holds.
#[derive(Default)]
struct Table {
    events: HashMap<String, Stored>,
    /// The conflicts: the id of the event, and the hash of the other body.
    conflicts: HashSet<(String, [u8; 32])>,
}

/// Compares what the providers were answered with what is stored and what was published.
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
            report
                .violations
                .add(|| format!("one event has {items} items: {:?}", sent.event_ids));
        }
        if sent.event_ids.is_empty() {
            report.given_up += 1;
            // The event may be stored all the same.
            conflicts.retain(|(_, body)| *body != sent.body);
            continue;
        }
        report.acknowledged += 1;
        if sent.event_ids.len() > 1 {
            report
                .violations
                .add(|| format!("one event has several ids: {:?}", sent.event_ids));
        }
        for event_id in &sent.event_ids {
            let is_received = received.contains_key(event_id);
            if sent.outcomes.iter().any(|outcome| outcome == "quarantined") && sent.kind == Kind::Conflict {
                report.conflicts += 1;
                if !conflicts.remove(&(event_id.clone(), sent.body)) {
                    report.lost += 1;
                    report
                        .violations
                        .add(|| format!("{event_id} came with another body, which is not stored"));
                }
            } else {
                check_event(sent, event_id, events.get(event_id), is_received, report);
            }
        }
    }
    for (event_id, event) in &events {
        if !["published", "unsupported", "quarantined"].contains(&event.state.as_str()) {
            report
                .violations
                .add(|| format!("{event_id} is {} in the end", event.state));
        }
        if items_of.contains_key(&(event.shop.as_str(), event.payload)) {
            report
                .violations
                .add(|| format!("{event_id} is stored with a body that was not sent"));
        }
    }
    for (event_id, _) in &conflicts {
        report
            .violations
            .add(|| format!("{event_id} has a conflict with a body that was not sent"));
    }
    for (event_id, received) in received {
        match events.get(event_id) {
            None => report
                .violations
                .add(|| format!("{event_id} is published but not stored")),
            Some(event) if received.texts.iter().any(|text| *text != event.event) => {
                report
                    .violations
                    .add(|| format!("{event_id} was published with other content than is stored"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Checks an event that was answered 200.
fn check_event(sent: &Sent, event_id: &str, stored: Option<&Stored>, is_received: bool, report: &mut Report) {
    let Some(event) = stored else {
        report.lost += 1;
        report
            .violations
            .add(|| format!("{event_id} was answered 200 but is not stored"));
        return;
    };
    if event.payload != sent.body {
        report
            .violations
            .add(|| format!("{event_id} is stored with another body than was sent"));
    }
    if event.shop != sent.shop {
        report
            .violations
            .add(|| format!("{event_id} is stored under another shop than it was sent to"));
    }
    if sent.kind == Kind::Large && !event.is_in_parts {
        report
            .violations
            .add(|| format!("{event_id} is large but not stored in parts"));
    }
    if sent.kind == Kind::Other {
        report.not_published += 1;
        if is_received {
            report
                .violations
                .add(|| format!("{event_id} is not an order event but was published"));
        }
        if sent.outcomes.iter().any(|outcome| *outcome != event.state) {
            report
                .violations
                .add(|| format!("{event_id} was answered {:?} but is {}", sent.outcomes, event.state));
        }
        return;
    }
    if !is_received {
        report.lost += 1;
        report
            .violations
            .add(|| format!("{event_id} was answered 200 but never published"));
    }
    if event.state != "published" {
        report
            .violations
            .add(|| format!("{event_id} is an order event but {}", event.state));
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
        // These partitions belong to alerts, not to events.
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
            // The record that a run of redrive leaves.
            Some(("run", _)) if event_id == "redrive" => {}
            _ => report
                .violations
                .add(|| format!("{event_id} has an unexpected item {sort_key}")),
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
        // A manifest that is due is left to the sweep.
        let now = Timestamp::now();
        if let Some((id, _, manifest)) = manifests.iter().find(is_of_head)
            && text(manifest, "next_attempt_at")
                .parse::<Timestamp>()
                .is_ok_and(|due| due > now)
        {
            report
                .violations
                .add(|| format!("{id} is stored but still has an open manifest"));
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

/// The hash of a compressed value that is stored in the item or in parts.
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
    // A value that cannot be unpacked has another hash than the sent one, which the check finds.
    sha256(&gzip::unpack(&compressed).unwrap_or_default())
}
