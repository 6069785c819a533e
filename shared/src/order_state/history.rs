//! A set of events, from which states are folded.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::OrderState;
use super::fold::fold;
use crate::event::OrderEvent;
use crate::identity::EventId;

/// Events of any number of orders.
#[derive(Clone, Debug, Default)]
pub struct History {
    events: BTreeMap<EventId, Known>,
}

/// What is known of an event.
#[derive(Clone, Debug)]
enum Known {
    Event(Box<Event>),
    /// The event was erased. It stays erased if a copy of it is added later.
    Erased,
}

/// The sort key of an event: `order.updated_at` (or `time` if it is absent), then `time`, then `received_at`, then the
/// id. The provider's clock decides; the receiver's clock only breaks ties.
type Place<'e> = (Timestamp, Timestamp, Timestamp, &'e EventId);

/// An event as it is folded.
#[derive(Clone, Debug)]
pub(super) struct Event {
    head: EventHead,
    /// The event without `data.unmapped` and `data.origin`, in which no fact is.
    json: Value,
}

#[derive(Clone, Debug, Deserialize)]
struct EventHead {
    id: EventId,
    source: String,
    r#type: String,
    time: Timestamp,
    data: DataHead,
}

#[derive(Clone, Debug, Deserialize)]
struct DataHead {
    provider: String,
    shop: String,
    test: bool,
    received_at: Timestamp,
    partial: bool,
    omitted: Vec<String>,
    order: OrderHead,
}

#[derive(Clone, Debug, Deserialize)]
struct OrderHead {
    id: Option<String>,
    updated_at: Option<Timestamp>,
}

impl History {
    /// Adds an event.
    pub fn add(&mut self, event: &OrderEvent) {
        let json = serde_json::to_value(event).expect("an event has string keys");
        self.add_value(json).expect("an event is read as it was written");
    }

    /// Adds an event that is given as JSON text: the message of the topic, or the stored event.
    ///
    /// # Errors
    /// If the text is not an event.
    pub fn add_json(&mut self, json: &str) -> serde_json::Result<()> {
        self.add_value(serde_json::from_str(json)?)
    }

    /// Adds an event that is given as JSON.
    ///
    /// # Errors
    /// If the value is not an event.
    pub fn add_value(&mut self, json: Value) -> serde_json::Result<()> {
        let event = Event::read(json)?;
        self.put(event.head.id.clone(), Known::Event(Box::new(event)));
        Ok(())
    }

    /// Notes that an event was erased. Its facts are dropped.
    pub fn erase(&mut self, id: EventId) {
        self.put(id, Known::Erased);
    }

    /// Adds the events of another history.
    pub fn merge(&mut self, other: Self) {
        for (id, known) in other.events {
            self.put(id, known);
        }
    }

    /// The state of each order by `{source}/{order id}`: `/selldone/main/1001`.
    ///
    /// An event without an order id belongs to each order of its shop of which it names a line.
    pub fn states(&self) -> BTreeMap<String, OrderState> {
        let mut orders = BTreeMap::<(&str, Option<&str>), Vec<&Event>>::new();
        for event in self.events() {
            orders
                .entry((event.source(), event.order_id()))
                .or_default()
                .push(event);
        }
        let states = orders.iter().filter_map(|((source, order), events)| {
            let key = format!("{source}/{}", (*order)?);
            let without_order = orders.get(&(*source, None)).map_or(&[][..], Vec::as_slice);
            Some((key, fold(events, without_order)))
        });
        states.collect()
    }

    fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.values().filter_map(|known| match known {
            Known::Event(event) => Some(&**event),
            Known::Erased => None,
        })
    }

    fn put(&mut self, id: EventId, known: Known) {
        match self.events.entry(id) {
            Entry::Vacant(place) => {
                place.insert(known);
            }
            Entry::Occupied(mut place) => {
                if known.precedes(place.get()) {
                    place.insert(known);
                }
            }
        }
    }
}

impl Known {
    /// Whether this is used instead of `other`, which has the same id: an erasure before any content, and the content
    /// with fewer omitted parts before one with more. Otherwise the greater JSON text decides, so that the choice does
    /// not depend on the order of arrival.
    fn precedes(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Erased) => false,
            (Self::Erased, _) => true,
            (Self::Event(one), Self::Event(other)) => one.precedence() > other.precedence(),
        }
    }
}

impl Event {
    fn read(mut json: Value) -> serde_json::Result<Self> {
        let head = EventHead::deserialize(&json)?;
        if let Some(Value::Object(data)) = json.get_mut("data") {
            data.remove("unmapped");
            data.remove("origin");
        }
        json.sort_all_objects();
        Ok(Self { head, json })
    }

    /// Decides between contents of one event.
    fn precedence(&self) -> (Reverse<usize>, String) {
        (Reverse(self.omitted().len()), self.json.to_string())
    }

    pub(super) fn id(&self) -> &EventId {
        &self.head.id
    }

    pub(super) fn source(&self) -> &str {
        &self.head.source
    }

    pub(super) fn event_type(&self) -> &str {
        &self.head.r#type
    }

    pub(super) fn time(&self) -> Timestamp {
        self.head.time
    }

    pub(super) fn provider(&self) -> &str {
        &self.head.data.provider
    }

    pub(super) fn shop(&self) -> &str {
        &self.head.data.shop
    }

    pub(super) fn is_test(&self) -> bool {
        self.head.data.test
    }

    pub(super) fn is_partial(&self) -> bool {
        self.head.data.partial
    }

    pub(super) fn omitted(&self) -> &[String] {
        &self.head.data.omitted
    }

    pub(super) fn order_id(&self) -> Option<&str> {
        self.head.data.order.id.as_deref()
    }

    pub(super) fn updated_at(&self) -> Option<Timestamp> {
        self.head.data.order.updated_at
    }

    pub(super) fn place(&self) -> Place<'_> {
        let EventHead { time, data, .. } = &self.head;
        (self.updated_at().unwrap_or(*time), *time, data.received_at, self.id())
    }

    pub(super) fn order(&self) -> &Map<String, Value> {
        self.json["data"]["order"]
            .as_object()
            .expect("read as an object before")
    }

    pub(super) fn refund(&self) -> Option<&Map<String, Value>> {
        self.json["data"]["refund"].as_object()
    }
}
