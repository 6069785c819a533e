//! The words of Cartum's payload, and what they mean in the event.

use shared::event::{EventType, ItemKind, PaymentStatus, Status};

/// What happened to an order. The body does not say it: the URL of each subscription names its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `order_created`: an order was placed, in the shop or by its staff.
    OrderCreated,
    /// `order_paid`: the order is paid.
    OrderPaid,
    /// `order_update`: the status of the order changed to anything but new.
    OrderUpdate,
}

impl Event {
    pub(crate) const ALL: [Self; 3] = [Self::OrderCreated, Self::OrderPaid, Self::OrderUpdate];

    /// The event that `word` names.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == word)
    }

    /// Cartum's word for the event.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::OrderCreated => "order_created",
            Self::OrderPaid => "order_paid",
            Self::OrderUpdate => "order_update",
        }
    }

    /// The type of the event. The type of an update follows from the status of the order.
    pub(crate) fn event_type(self, stat_status: Option<&str>) -> EventType {
        match self {
            Self::OrderCreated => EventType::Created,
            Self::OrderPaid => EventType::Paid,
            Self::OrderUpdate => stat_status.map_or(EventType::Updated, |word| status(word).1),
        }
    }
}

/// Whether `word` is a known event that is not about an order.
pub(crate) fn is_unsupported(word: &str) -> bool {
    matches!(
        word,
        "user_signup" | "user_update" | "request_call_me" | "comments_created"
    )
}

/// The `stat_status` that is "canceled" in English and "not delivered" in Ukrainian.
pub(crate) const CANCELED: &str = "4";

/// The status that `stat_status` means, and the type of an update to it. Other numbers are statuses of the shop's own.
pub(crate) fn status(stat_status: &str) -> (Status, EventType) {
    match stat_status {
        "1" => (Status::Pending, EventType::Updated),
        "2" => (Status::Processing, EventType::Processing),
        "3" => (Status::Delivered, EventType::Delivered),
        CANCELED => (Status::Cancelled, EventType::Cancelled),
        "6" => (Status::Shipped, EventType::Shipped),
        _ => (Status::Unknown, EventType::Updated),
    }
}

/// The payment status that `payed` means.
pub(crate) fn payment_status(payed: &str) -> PaymentStatus {
    match payed {
        "0" => PaymentStatus::Unpaid,
        "1" => PaymentStatus::Paid,
        _ => PaymentStatus::Unknown,
    }
}

/// The kind of item that the `type` of a product means.
pub(crate) fn item_kind(product_type: &str) -> ItemKind {
    match product_type {
        "product" => ItemKind::Product,
        "gift" => ItemKind::Gift,
        "set_main" => ItemKind::Set,
        "set_item" => ItemKind::SetItem,
        _ => ItemKind::Unknown,
    }
}
