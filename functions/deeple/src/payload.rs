//! The words of Deeple's payload, and what they mean in the event.

use shared::event::{EventType, Status};

/// What happened to an order. Deeple has one event, without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something about the order changed.
    OrderChanged,
}

impl Event {
    /// The name that the project gives to the event, since Deeple has none.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::OrderChanged => "order changed",
        }
    }

    /// The type of the event, which follows from the state of the order.
    pub(crate) fn event_type(self, state: Option<&str>) -> EventType {
        match self {
            Self::OrderChanged => state.map_or(EventType::Updated, |word| status(word).1),
        }
    }
}

/// The status that `state` means, and the type of an event that reports it. Only one state is documented.
pub(crate) fn status(state: &str) -> (Status, EventType) {
    match state {
        "PREPARE_TO_SHIPPING" => (Status::Processing, EventType::Processing),
        _ => (Status::Unknown, EventType::Updated),
    }
}

/// Whether prices include the tax, as `vatOptions` says it. Its words are not documented; these are the likely ones.
pub(crate) fn is_tax_included(vat_options: &str) -> Option<bool> {
    match vat_options.to_ascii_uppercase().as_str() {
        "INCLUDE" | "INCLUDED" => Some(true),
        "EXCLUDE" | "EXCLUDED" => Some(false),
        _ => None,
    }
}
