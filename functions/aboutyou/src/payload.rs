//! The words of ABOUT YOU's payload, and what they mean in the event.

use shared::event::{EventType, Status};

/// What happened to an order or to some of its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `order.created`: the order was placed.
    OrderCreated,
    /// `order.updated`: the status of the order changed.
    OrderUpdated,
    /// `order_items.shipped`: items of an order were shipped.
    ItemsShipped,
    /// `order_items.cancelled`: items of an order were cancelled.
    ItemsCancelled,
    /// `order_items.returned`: items of an order were returned.
    ItemsReturned,
}

impl Event {
    pub(crate) const ALL: [Self; 5] = [
        Self::OrderCreated,
        Self::OrderUpdated,
        Self::ItemsShipped,
        Self::ItemsCancelled,
        Self::ItemsReturned,
    ];

    /// The event that `word` names.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == word)
    }

    /// ABOUT YOU's word for the event.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::OrderCreated => "order.created",
            Self::OrderUpdated => "order.updated",
            Self::ItemsShipped => "order_items.shipped",
            Self::ItemsCancelled => "order_items.cancelled",
            Self::ItemsReturned => "order_items.returned",
        }
    }

    /// The type of the event. The type of an update follows from the status of the order.
    pub(crate) fn event_type(self, status_word: Option<&str>) -> EventType {
        match self {
            Self::OrderCreated => EventType::Created,
            Self::OrderUpdated => status_word.map_or(EventType::Updated, |word| status(word).1),
            Self::ItemsShipped => EventType::ItemsShipped,
            Self::ItemsCancelled => EventType::ItemCancelled,
            Self::ItemsReturned => EventType::ItemsReturned,
        }
    }

    /// Whether the event lists items without their order.
    pub(crate) fn is_about_items(self) -> bool {
        matches!(self, Self::ItemsShipped | Self::ItemsCancelled | Self::ItemsReturned)
    }
}

/// Whether `word` is a known event that is not about an order.
pub(crate) fn is_unsupported(word: &str) -> bool {
    word == "stock.updated" || word.starts_with("product_master.")
}

/// The status of an order or an item that `word` means, and the type of an update of an order to it.
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
