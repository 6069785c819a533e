//! Deeple's words, and ours for them.

use shared::event::{EventType, Status};

/// Our name for the one event; Deeple gives it none.
pub(crate) const ORDER_CHANGED: &str = "order changed";

/// Our word for a `state`, and the type of an event that reports it. One state is documented.
pub(crate) fn state(word: &str) -> (Status, EventType) {
    match word {
        "PREPARE_TO_SHIPPING" => (Status::Processing, EventType::Processing),
        _ => (Status::Unknown, EventType::Updated),
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
