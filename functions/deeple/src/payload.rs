//! Deeple's words, and ours for them.

use shared::event::{EventType, Status};

/// Our name for the one event; Deeple gives it none.
pub(crate) const ORDER_CHANGED: &str = "order changed";

const PREPARE_TO_SHIPPING: &str = "PREPARE_TO_SHIPPING";

/// What happened, by the order's `state`. One state is documented.
pub(crate) fn event_type(state: Option<&str>) -> EventType {
    match state {
        Some(PREPARE_TO_SHIPPING) => EventType::Processing,
        _ => EventType::Updated,
    }
}

/// Our word for a `state`.
pub(crate) fn status(state: &str) -> Status {
    match state {
        PREPARE_TO_SHIPPING => Status::Processing,
        _ => Status::Unknown,
    }
}

/// Whether prices include the tax, by the word in `vatOptions`. No word is documented; these are the likely ones.
pub(crate) fn included(vat_options: &str) -> Option<bool> {
    match vat_options.to_ascii_uppercase().as_str() {
        "INCLUDE" | "INCLUDED" => Some(true),
        "EXCLUDE" | "EXCLUDED" => Some(false),
        _ => None,
    }
}
