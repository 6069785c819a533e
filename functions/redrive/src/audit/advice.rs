//! What each fault means, and what to do about it.

use shared::store::Fault;

/// Describes a fault in words.
pub(super) fn description(fault: Fault) -> &'static str {
    match fault {
        Fault::ItemMissing => "an index names the item, and the table does not hold it",
        Fault::ItemUnreadable => "the item lacks an attribute that every event has",
        Fault::OtherId => "the item was written for another event id",
        Fault::HourKey => "the index by_hour does not name the event, or names it under another hour",
        Fault::WorkKey => "the key in the index work does not belong to the state of the event",
        Fault::OrderKey => "the index by_order does not name the event under its order",
        Fault::ValueMissing => "the body or the event is missing",
        Fault::PartMissing => "a part of the body or of the event is missing",
        Fault::ValueUnreadable => "the body or the event cannot be decompressed",
        Fault::PayloadDiffers => "the body has another SHA-256 than when it was stored",
        Fault::EventInvalid => "the stored event is not an order event",
        Fault::EventDiffers => {
            "the stored event has another SHA-256 than when it was stored, or is not the event that its item describes"
        }
        Fault::StateDiffers => "the state does not fit what is stored",
        Fault::HalfErased => "the erasure of the event is not complete",
        Fault::ConflictAlone => "the item is a conflict of an event that is not stored",
        Fault::SuccessorMissing => "the event is superseded by one that is not stored",
        Fault::PartAlone => "neither an event nor a manifest names the part",
    }
}

/// Says what to do about a fault.
pub(super) fn action(fault: Fault) -> &'static str {
    match fault {
        Fault::ItemMissing => {
            "audit again in a minute, because an index lags behind the table; then restore the item from point-in-time \
             recovery"
        }
        Fault::HalfErased => "erase the event again: cargo local erase EVENT_ID --yes",
        Fault::PartAlone => {
            "check whether its event was deleted; if so, restore the event from point-in-time recovery, otherwise run \
             the audit with --repair"
        }
        Fault::OtherId => {
            "if the item is a copy, delete it; otherwise restore it from point-in-time recovery. If very many events \
             have this fault, the idempotency key of the provider has changed: return to the previous version"
        }
        Fault::HourKey
        | Fault::WorkKey
        | Fault::OrderKey
        | Fault::StateDiffers
        | Fault::ItemUnreadable
        | Fault::ValueMissing
        | Fault::PartMissing
        | Fault::ValueUnreadable
        | Fault::PayloadDiffers
        | Fault::EventInvalid
        | Fault::EventDiffers
        | Fault::ConflictAlone
        | Fault::SuccessorMissing => {
            "restore the table to a new one from point-in-time recovery, and copy the event's items from there"
        }
    }
}
