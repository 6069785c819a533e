//! ABOUT YOU's words, and ours for them.

use shared::event::{EventType, Status};

/// The events that report orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `order.created`
    OrderCreated,
    /// `order.updated`
    OrderUpdated,
    /// `order_items.shipped`
    ItemsShipped,
    /// `order_items.cancelled`
    ItemsCancelled,
    /// `order_items.returned`
    ItemsReturned,
}

impl Event {
    /// The event that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [
            Self::OrderCreated,
            Self::OrderUpdated,
            Self::ItemsShipped,
            Self::ItemsCancelled,
            Self::ItemsReturned,
        ];
        all.into_iter().find(|event| event.as_str() == word)
    }

    /// ABOUT YOU's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrderCreated => "order.created",
            Self::OrderUpdated => "order.updated",
            Self::ItemsShipped => "order_items.shipped",
            Self::ItemsCancelled => "order_items.cancelled",
            Self::ItemsReturned => "order_items.returned",
        }
    }

    /// Our word; for an update the order's status tells what it was.
    pub(crate) fn event_type(self, status_word: Option<&str>) -> EventType {
        match self {
            Self::OrderCreated => EventType::Created,
            Self::OrderUpdated => status_word.map_or(EventType::Updated, |word| status(word).1),
            Self::ItemsShipped => EventType::ItemsShipped,
            Self::ItemsCancelled => EventType::ItemCancelled,
            Self::ItemsReturned => EventType::ItemsReturned,
        }
    }
}

/// Whether `word` names an event of the same webhooks that reports no order.
pub(crate) fn is_no_order_event(word: &str) -> bool {
    word == "stock.updated" || word.starts_with("product_master.")
}

/// Our word for the status of an order or an item, and the type of an update of the order to it.
pub(crate) fn status(word: &str) -> (Status, EventType) {
    match word {
        "open" => (Status::Pending, EventType::Updated),
        "shipped" => (Status::Shipped, EventType::Shipped),
        "cancelled" => (Status::Cancelled, EventType::Cancelled),
        "returned" => (Status::Returned, EventType::Returned),
        "mixed" => (Status::Mixed, EventType::Updated),
        _ => (Status::Unknown, EventType::Updated),
    }
}
