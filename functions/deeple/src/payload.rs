//! Deeple's words, and ours for them.

use serde_json::Value;
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

/// Whether prices include the tax, where `vatOptions` says so. Its words are not documented.
pub(crate) fn tax_included(vat_options: &Value) -> Option<bool> {
    match vat_options.as_str()?.to_ascii_uppercase().as_str() {
        "INCLUDE" | "INCLUDED" => Some(true),
        "EXCLUDE" | "EXCLUDED" => Some(false),
        _ => None,
    }
}
