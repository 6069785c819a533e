//! The lists of an order whose elements are merged by their ids: items and adjustments.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fold::{Written, stated_facts};
use super::history::Event;

/// The facts about a line that are merged by the line's id.
const LINE_FACTS: [&str; 3] = ["status", "tracking_number", "return_tracking_number"];

/// The items of an order: the list of the latest complete event, with what other events state about its lines.
#[derive(Default)]
pub(super) struct Lines<'e> {
    list: Vec<Line<'e>>,
    stated: Option<&'e Event>,
    facts: BTreeMap<(&'e str, &'static str), (&'e Value, &'e Event)>,
}

/// A line, and the latest event that states it.
struct Line<'e> {
    id: Option<&'e str>,
    value: Cow<'e, Value>,
    event: &'e Event,
}

/// The refunds and withdrawals of an order, as a set by their ids.
#[derive(Default)]
pub(super) struct Adjustments<'e> {
    stated: Option<&'e Event>,
    /// In the order in which they were first stated.
    by_id: Vec<(&'e str, Map<String, Value>, &'e Event)>,
    without_id: Vec<(&'e Value, &'e Event)>,
}

impl<'e> Lines<'e> {
    /// Applies the items of an event, which is later than all before.
    pub(super) fn apply(&mut self, event: &'e Event, items: Option<&'e Value>) {
        let Some(items) = items.and_then(Value::as_array) else {
            return;
        };
        let ids = unique_ids(items);
        for line in items {
            let Some(id) = id_of(line).filter(|id| ids.contains(id)) else {
                continue;
            };
            let facts = LINE_FACTS.iter().map(|fact| (*fact, &line[*fact]));
            let stated = facts.filter(|(_, value)| !value.is_null());
            self.facts
                .extend(stated.map(|(fact, value)| ((id, fact), (value, event))));
        }
        if event.order_id().is_none() {
            return;
        }
        if !event.is_partial() {
            self.list = items.iter().map(|line| Line::new(line, event)).collect();
            self.stated = Some(event);
            return;
        }
        let has_complete = self.stated.is_some_and(|event| !event.is_partial());
        if !has_complete {
            // Lines without an id cannot be matched, so only those of the latest event are kept.
            let known = self.ids();
            self.list.retain(|line| line.id.is_some_and(|id| known.contains(id)));
            self.stated = Some(event);
        }
        for line in items {
            let id = id_of(line).filter(|id| ids.contains(id));
            let mut known = self.list.iter_mut().rev();
            match known.find(|known| id.is_some() && known.id == id) {
                Some(same) if same.event.is_partial() => same.merge(line, event),
                None if id.is_some() || !has_complete => self.list.push(Line::new(line, event)),
                _ => {}
            }
        }
    }

    /// Whether an event names one of the lines.
    pub(super) fn have_one_of(&self, event: &Event) -> bool {
        let facts = stated_facts(event);
        let named = facts.get("/order/items").and_then(|items| items.as_array());
        named.is_some_and(|named| !unique_ids(named).is_disjoint(&self.ids()))
    }

    pub(super) fn write(&self, written: &mut Written) {
        let Some(stated) = self.stated else { return };
        let ids = self.ids();
        let mut items = Vec::with_capacity(self.list.len());
        let mut note_source = |pointer: String, event: &Event| written.stated_by.insert(pointer, event.id().clone());
        note_source("/order/items".to_owned(), stated);
        for (index, line) in self.list.iter().enumerate() {
            let pointer = format!("/order/items/{index}");
            let mut merged = line.value.clone().into_owned();
            for fact in LINE_FACTS {
                let id = line.id.filter(|id| ids.contains(id));
                if let Some((value, event)) = id.and_then(|id| self.facts.get(&(id, fact))) {
                    merged[fact] = (*value).clone();
                    if event.id() != line.event.id() {
                        note_source(format!("{pointer}/{fact}"), event);
                    }
                }
            }
            if line.event.id() != stated.id() {
                note_source(pointer, line.event);
            }
            items.push(merged);
        }
        written.order.insert("items".to_owned(), items.into());
    }

    fn ids(&self) -> BTreeSet<&'e str> {
        unique(self.list.iter().filter_map(|line| line.id))
    }
}

impl<'e> Line<'e> {
    fn new(line: &'e Value, event: &'e Event) -> Self {
        Self {
            id: id_of(line),
            value: Cow::Borrowed(line),
            event,
        }
    }

    /// Adds what a later event states about the line.
    fn merge(&mut self, line: &Value, event: &'e Event) {
        if let (Some(known), Some(stated)) = (self.value.to_mut().as_object_mut(), line.as_object()) {
            merge(known, stated);
        }
        self.event = event;
    }
}

impl<'e> Adjustments<'e> {
    /// Applies the adjustments of an event, which is later than all before.
    pub(super) fn apply(&mut self, event: &'e Event, adjustments: Option<&'e Value>) {
        let Some(adjustments) = adjustments.and_then(Value::as_array) else {
            return;
        };
        self.stated = Some(event);
        if !event.is_partial() {
            self.without_id.clear();
        }
        for adjustment in adjustments {
            let (Some(id), Some(stated)) = (id_of(adjustment), adjustment.as_object()) else {
                self.without_id.push((adjustment, event));
                continue;
            };
            match self.by_id.iter_mut().find(|(known, ..)| *known == id) {
                Some((_, known, by)) => {
                    merge(known, stated);
                    *by = event;
                }
                None => self.by_id.push((id, stated.clone(), event)),
            }
        }
    }

    pub(super) fn write(self, written: &mut Written) {
        let Some(stated) = self.stated else { return };
        let mut note_source = |pointer: String, event: &Event| written.stated_by.insert(pointer, event.id().clone());
        note_source("/order/adjustments".to_owned(), stated);
        let by_id = self.by_id.into_iter().map(|(_, known, by)| (Value::Object(known), by));
        let without_id = self
            .without_id
            .into_iter()
            .map(|(adjustment, by)| (adjustment.clone(), by));
        let mut adjustments = Vec::new();
        for (index, (adjustment, by)) in by_id.chain(without_id).enumerate() {
            note_source(format!("/order/adjustments/{index}"), by);
            adjustments.push(adjustment);
        }
        written.order.insert("adjustments".to_owned(), adjustments.into());
    }
}

fn id_of(line: &Value) -> Option<&str> {
    line.get("id")?.as_str()
}

/// Adds the facts that are stated later to the known ones. Null states nothing.
fn merge(known: &mut Map<String, Value>, stated: &Map<String, Value>) {
    for (name, value) in stated {
        if !value.is_null() || !known.contains_key(name) {
            known.insert(name.clone(), value.clone());
        }
    }
}

/// The ids that exactly one of the lines has.
fn unique_ids<'v>(lines: impl IntoIterator<Item = &'v Value>) -> BTreeSet<&'v str> {
    unique(lines.into_iter().filter_map(id_of))
}

/// The ids that occur once.
fn unique<'v>(ids: impl Iterator<Item = &'v str>) -> BTreeSet<&'v str> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for id in ids {
        *counts.entry(id).or_default() += 1;
    }
    let unique = counts.into_iter().filter(|(_, count)| *count == 1);
    unique.map(|(id, _)| id).collect()
}
