//! Snipcart's words, and ours for them.

use shared::event::{EventType, PaymentStatus, Status};
use shared::payload::Value;

/// The events that report orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `order.completed`
    Completed,
    /// `order.status.changed`
    StatusChanged,
    /// `order.paymentStatus.changed`
    PaymentStatusChanged,
    /// `order.trackingNumber.changed`
    TrackingNumberChanged,
    /// `order.refund.created`
    RefundCreated,
    /// `order.notification.created`
    NotificationCreated,
}

impl Event {
    const ALL: [Self; 6] = [
        Self::Completed,
        Self::StatusChanged,
        Self::PaymentStatusChanged,
        Self::TrackingNumberChanged,
        Self::RefundCreated,
        Self::NotificationCreated,
    ];

    /// The event that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == word)
    }

    /// Snipcart's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "order.completed",
            Self::StatusChanged => "order.status.changed",
            Self::PaymentStatusChanged => "order.paymentStatus.changed",
            Self::TrackingNumberChanged => "order.trackingNumber.changed",
            Self::RefundCreated => "order.refund.created",
            Self::NotificationCreated => "order.notification.created",
        }
    }

    /// The field of `content` that names the order: refunds and notifications hold no order of their own.
    pub(crate) fn order_field(self) -> &'static str {
        match self {
            Self::RefundCreated | Self::NotificationCreated => "orderToken",
            _ => "token",
        }
    }

    /// Our word; for a change, `to` tells what it was.
    pub(crate) fn event_type(self, to: Option<&str>) -> EventType {
        match (self, to) {
            (Self::Completed, _) => EventType::Created,
            (Self::StatusChanged, Some("Processed")) => EventType::Confirmed,
            (Self::StatusChanged, Some("Shipped" | "Dispatched")) => EventType::Shipped,
            (Self::StatusChanged, Some("Delivered")) => EventType::Delivered,
            (Self::StatusChanged, Some("Cancelled")) => EventType::Cancelled,
            (Self::StatusChanged, _) => EventType::Updated,
            (Self::PaymentStatusChanged, Some("Paid")) => EventType::Paid,
            (Self::PaymentStatusChanged, Some("Refunded")) | (Self::RefundCreated, _) => EventType::Refunded,
            (Self::PaymentStatusChanged, _) => EventType::PaymentUpdated,
            (Self::TrackingNumberChanged, _) => EventType::TrackingUpdated,
            (Self::NotificationCreated, _) => EventType::NotificationCreated,
        }
    }
}

/// Whether `word` names an event of the same webhook that reports no order.
pub(crate) fn is_no_order_event(word: &str) -> bool {
    let families = ["subscription.", "v3/subscription.", "customauth:"];
    ["shippingrates.fetch", "taxes.calculate"].contains(&word) || families.iter().any(|family| word.starts_with(family))
}

/// Whether a `mode` is that of orders that are no business.
pub(crate) fn is_test(mode: Value<'_>) -> Option<bool> {
    match mode.as_str()? {
        "Test" => Some(true),
        "Live" => Some(false),
        _ => None,
    }
}

/// Our word for a `status`.
pub(crate) fn status(word: &str) -> Status {
    match word {
        "Pending" | "InProgress" => Status::Pending,
        "Processed" => Status::Confirmed,
        "Shipped" | "Dispatched" => Status::Shipped,
        "Delivered" => Status::Delivered,
        "Cancelled" => Status::Cancelled,
        "Returned" => Status::Returned,
        "Disputed" => Status::Disputed,
        _ => Status::Unknown,
    }
}

/// Our word for a `paymentStatus`.
pub(crate) fn payment_status(word: &str) -> PaymentStatus {
    match word {
        "Paid" | "PaidDeferred" | "Paidout" => PaymentStatus::Paid,
        "Authorized" => PaymentStatus::Authorized,
        "Deferred" | "Pending" | "Open" => PaymentStatus::Unpaid,
        "Refunded" => PaymentStatus::Refunded,
        "Failed" | "Expired" => PaymentStatus::Failed,
        "Cancelled" => PaymentStatus::Cancelled,
        "ChargedBack" => PaymentStatus::Disputed,
        _ => PaymentStatus::Unknown,
    }
}
