//! Cartum's words, and ours for them.

use shared::event::{EventType, ItemKind, PaymentStatus, Status};

/// The events that report orders. The URL of each subscription names its event: the body does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `order_created`: an order was placed, in the shop or by its staff.
    OrderCreated,
    /// `order_paid`
    OrderPaid,
    /// `order_update`: the order's status changed to anything but new.
    OrderUpdate,
}

impl Event {
    const ALL: [Self; 3] = [Self::OrderCreated, Self::OrderPaid, Self::OrderUpdate];

    /// The event that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == word)
    }

    /// Cartum's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrderCreated => "order_created",
            Self::OrderPaid => "order_paid",
            Self::OrderUpdate => "order_update",
        }
    }

    /// Our word; for an update the order's status says what it was.
    pub(crate) fn event_type(self, stat_status: Option<&str>) -> EventType {
        match self {
            Self::OrderCreated => EventType::Created,
            Self::OrderPaid => EventType::Paid,
            Self::OrderUpdate => stat_status.map_or(EventType::Updated, |word| meaning(word).1),
        }
    }
}

/// Events of the same webhook that report no order.
pub(crate) const OTHER_EVENTS: [&str; 4] = ["user_signup", "user_update", "request_call_me", "comments_created"];

/// The `stat_status` that is "canceled" in English and "not delivered" in Ukrainian.
pub(crate) const CANCELED: &str = "4";

/// What a `stat_status` means, and what happened when an order came to it. Numbers that are not here are the shop's own.
fn meaning(stat_status: &str) -> (Status, EventType) {
    match stat_status {
        "1" => (Status::Pending, EventType::Updated),
        "2" => (Status::Processing, EventType::Processing),
        "3" => (Status::Delivered, EventType::Delivered),
        CANCELED => (Status::Cancelled, EventType::Cancelled),
        "6" => (Status::Shipped, EventType::Shipped),
        _ => (Status::Unknown, EventType::Updated),
    }
}

/// Our word for `stat_status`.
pub(crate) fn status(stat_status: &str) -> Status {
    meaning(stat_status).0
}

/// Our word for a product's `type`; `None` for a word that is not known.
pub(crate) fn item_kind(word: &str) -> Option<ItemKind> {
    match word {
        "product" => Some(ItemKind::Product),
        "gift" => Some(ItemKind::Gift),
        "set_main" => Some(ItemKind::Set),
        "set_item" => Some(ItemKind::SetItem),
        _ => None,
    }
}

/// Our word for `payed`.
pub(crate) fn payment_status(payed: &str) -> PaymentStatus {
    match payed {
        "0" => PaymentStatus::Unpaid,
        "1" => PaymentStatus::Paid,
        _ => PaymentStatus::Unknown,
    }
}
