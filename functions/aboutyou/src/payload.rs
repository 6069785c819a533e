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
    pub(crate) fn event_type(self, status: Option<Status>) -> EventType {
        match (self, status) {
            (Self::OrderCreated, _) => EventType::Created,
            (Self::ItemsShipped, _) => EventType::ItemsShipped,
            (Self::ItemsCancelled, _) => EventType::ItemCancelled,
            (Self::ItemsReturned, _) => EventType::ItemsReturned,
            (Self::OrderUpdated, Some(Status::Shipped)) => EventType::Shipped,
            (Self::OrderUpdated, Some(Status::Cancelled)) => EventType::Cancelled,
            (Self::OrderUpdated, Some(Status::Returned)) => EventType::Returned,
            (Self::OrderUpdated, _) => EventType::Updated,
        }
    }
}

/// Whether `word` names an event of the same webhooks that reports no order.
pub(crate) fn is_no_order_event(word: &str) -> bool {
    word == "stock.updated" || word.starts_with("product_master.")
}

/// Our word for the status of an order or an item.
pub(crate) fn status(word: &str) -> Status {
    match word {
        "open" => Status::Pending,
        "shipped" => Status::Shipped,
        "cancelled" => Status::Cancelled,
        "returned" => Status::Returned,
        "mixed" => Status::Mixed,
        _ => Status::Unknown,
    }
}
