//! The state of an order, folded from its events.
//!
//! A [`History`] takes events in any order, with duplicates and replays, and [`History::states`] is always the same for
//! the same events: adding and merging are commutative, associative and idempotent. `events/README.md` states the
//! rules, and `events/histories` has examples.
//!
//! Events are folded as JSON, not as [`OrderEvent`](crate::event::OrderEvent): words and fields that this version does not know are facts too.

mod fold;
mod history;
mod lines;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::history::History;
#[cfg(feature = "schema")]
use crate::event::{EventType, Order, Refund};
use crate::identity::EventId;

/// The `dataschema` of a message that holds a state.
pub const SCHEMA: &str = "urn:order-webhooks:order-state:v1";

/// The state of an order: for each fact the value that the latest event states, and which event that is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OrderState {
    /// The provider's slug.
    pub provider: String,
    /// The operator's name for the shop.
    pub shop: String,
    /// True if any event of the order says that it is a test.
    pub test: bool,
    /// The facts that the events state, at the same places as in `data.order` of an event. A fact that no event states is absent; within an item, an address or another compound fact it is null.
    #[cfg_attr(feature = "schema", schemars(with = "Order"))]
    pub order: Map<String, Value>,
    /// The refunds that events report in `data.refund`, the earliest first. `order.adjustments` names the same refunds, as a set by their ids.
    pub refunds: Vec<StatedRefund>,
    /// The id of the event that states each fact, by the JSON pointer of the fact. The nearest enclosing pointer counts: `/order/items/0/status` before `/order/items`.
    pub stated_by: BTreeMap<String, EventId>,
    /// The events of which this is the state, the earliest first.
    pub events: Vec<FoldedEvent>,
    /// The version of a published state. It grows with each state of the order that is published, and may skip numbers: a state with a lower version is older. Absent from a state that is not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// JSON pointers to the parts that a published state leaves out because of its size. Absent if nothing is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted: Vec<String>,
}

/// A refund, and the event that reported it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StatedRefund {
    /// The id of the event.
    pub event_id: EventId,
    /// The refund as the event reports it.
    #[cfg_attr(feature = "schema", schemars(with = "Refund"))]
    pub refund: Map<String, Value>,
}

/// An event of which a state is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FoldedEvent {
    /// The id of the event.
    pub id: EventId,
    /// The type of the event.
    #[cfg_attr(feature = "schema", schemars(with = "EventType"))]
    pub r#type: String,
    /// The time of the event, RFC 3339 in UTC, by the provider's clock.
    pub time: Timestamp,
    /// `data.order.updated_at` of the event, RFC 3339 in UTC, by the provider's clock; null: not stated.
    pub updated_at: Option<Timestamp>,
}
