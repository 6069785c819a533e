//! Folds the events of one order.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};

use super::history::Event;
use super::lines::{Adjustments, Lines};
use super::{FoldedEvent, OrderState, StatedRefund};
use crate::identity::EventId;

/// The objects whose members are facts of their own.
const GROUPS: [&str; 3] = ["totals", "shipping", "payment"];

/// The facts that are taken from the event that states another one: the fact, and the one that it belongs to.
const BELONGS_TO: [(&str, &str); 3] = [
    ("/order/provider_status", "/order/status"),
    ("/order/provider_payment_status", "/order/payment_status"),
    ("/order/shipping/tracking_url", "/order/shipping/tracking_number"),
];

/// A state that is being written.
#[derive(Default)]
pub(super) struct Written {
    pub(super) order: Map<String, Value>,
    pub(super) stated_by: BTreeMap<String, EventId>,
}

/// A fact, and the event that states it.
type Fact<'e> = (&'e Value, &'e Event);

/// Folds the events of an order, and those events of its shop that name items and no order.
pub(super) fn fold(events: &[&Event], without_order: &[&Event]) -> OrderState {
    let mut all = [events, without_order].concat();
    all.sort_by_key(|event| event.place());
    let mut known = BTreeMap::<String, Fact<'_>>::new();
    let (mut lines, mut adjustments, mut refunds) = (Lines::default(), Adjustments::default(), Vec::new());
    for &event in &all {
        let mut facts = stated_facts(event);
        lines.apply(event, facts.remove("/order/items"));
        if event.order_id().is_none() {
            continue;
        }
        adjustments.apply(event, facts.remove("/order/adjustments"));
        if let Some(refund) = event.refund().filter(|_| !is_omitted(event, "/refund")) {
            refunds.push(StatedRefund {
                event_id: event.id().clone(),
                refund: refund.clone(),
            });
        }
        for (pointer, leader) in BELONGS_TO {
            match (facts.get(leader).copied(), known.get(leader).map(|(value, _)| *value)) {
                (Some(stated), before) if before != Some(stated) => {
                    known.remove(pointer);
                }
                (None, Some(_)) => {
                    facts.remove(pointer);
                }
                _ => {}
            }
        }
        for (pointer, value) in facts {
            match known.entry(pointer) {
                Entry::Vacant(place) => {
                    place.insert((value, event));
                }
                Entry::Occupied(mut place) => {
                    if replaces(place.key(), value, event, place.get()) {
                        place.insert((value, event));
                    }
                }
            }
        }
    }
    let mut written = Written::default();
    for name in GROUPS {
        written.order.insert(name.to_owned(), Map::new().into());
    }
    for (pointer, (value, event)) in known {
        written.write_fact(&pointer, value);
        written.stated_by.insert(pointer, event.id().clone());
    }
    lines.write(&mut written);
    adjustments.write(&mut written);
    all.retain(|event| event.order_id().is_some() || lines.have_one_of(event));
    let one = events
        .iter()
        .min_by_key(|event| event.place())
        .expect("an order has an event");
    OrderState {
        provider: one.provider().to_owned(),
        shop: one.shop().to_owned(),
        test: events.iter().any(|event| event.is_test()),
        order: written.order,
        refunds,
        stated_by: written.stated_by,
        events: all.iter().map(|event| folded(event)).collect(),
        version: None,
        omitted: Vec::new(),
    }
}

/// The facts that an event states, by their pointers in the state. Null states nothing, nor does an empty list of items.
pub(super) fn stated_facts(event: &Event) -> BTreeMap<String, &Value> {
    let mut facts = BTreeMap::new();
    for (name, value) in event.order() {
        match value {
            Value::Object(members) if GROUPS.contains(&name.as_str()) => {
                let members = members.iter();
                facts.extend(members.map(|(member, value)| (format!("/order/{name}/{member}"), value)));
            }
            Value::Array(items) if name == "items" && items.is_empty() => {}
            value => {
                facts.insert(format!("/order/{name}"), value);
            }
        }
    }
    facts.retain(|pointer, value| !value.is_null() && !is_omitted(event, pointer));
    facts
}

/// Whether the publisher has left out the part of an event at `pointer`.
fn is_omitted(event: &Event, pointer: &str) -> bool {
    event.omitted().iter().any(|part| {
        let rest = part.strip_prefix("/data").and_then(|part| pointer.strip_prefix(part));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Whether a fact of a later event replaces the known one.
fn replaces(pointer: &str, value: &Value, event: &Event, (known, known_by): &Fact<'_>) -> bool {
    if pointer == "/order/number" && value.as_str() == event.order_id() {
        // The provider did not state the number that people see, so the event has the id in its place.
        return *known == value;
    }
    // An address, another object or a list is one fact. A partial event may state less of it than a complete one.
    let is_compound = value.is_object() || value.is_array();
    !(is_compound && event.is_partial() && !known_by.is_partial())
}

fn folded(event: &Event) -> FoldedEvent {
    FoldedEvent {
        id: event.id().clone(),
        r#type: event.event_type().to_owned(),
        time: event.time(),
        updated_at: event.updated_at(),
    }
}

impl Written {
    fn write_fact(&mut self, pointer: &str, value: &Value) {
        let name = pointer.trim_start_matches("/order/");
        match name.split_once('/') {
            Some((group, member)) if GROUPS.contains(&group) => self.order[group][member] = value.clone(),
            _ => {
                self.order.insert(name.to_owned(), value.clone());
            }
        }
    }
}
