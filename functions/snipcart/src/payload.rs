//! Snipcart's words, and ours for them.

use shared::event::{EventType, PaymentStatus, Status};
use shared::payload::{Fields, Value};

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
    /// `order.withdrawal.created`
    WithdrawalCreated,
    /// `v3/subscription.invoice.payment.succeeded`, or another event of an invoice with a paid order.
    RenewalPaid,
    /// `v3/subscription.invoice.payment.failed` of an order
    RenewalFailed,
}

impl Event {
    /// The event that `word` names, unless it is one of a subscription.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        match word {
            "order.completed" => Some(Self::Completed),
            "order.status.changed" => Some(Self::StatusChanged),
            "order.paymentStatus.changed" => Some(Self::PaymentStatusChanged),
            "order.trackingNumber.changed" => Some(Self::TrackingNumberChanged),
            "order.refund.created" => Some(Self::RefundCreated),
            "order.notification.created" => Some(Self::NotificationCreated),
            "order.withdrawal.created" => Some(Self::WithdrawalCreated),
            _ => None,
        }
    }

    /// The event that a subscription's invoice reports. Only renewals have one: the first order comes as `order.completed`.
    pub(crate) fn of_invoice(word: &str, content: &Fields<'_>) -> Option<Self> {
        let word = word.strip_prefix("v3/").unwrap_or(word);
        let step = word.strip_prefix("subscription.invoice.")?;
        let order = content.object("order");
        let is_paid = || {
            let word = order.look("paymentStatus", Value::as_text);
            word.is_some_and(|word| payment_status(word).0 == PaymentStatus::Paid)
        };
        match step {
            "payment.succeeded" => Some(Self::RenewalPaid),
            // An invoice that was not paid may have no order yet. An order that is there and cannot be read is no reason to drop it.
            "payment.failed" => {
                let names_order = !content.exist() || content.has("order") && (!order.exist() || order.has("token"));
                names_order.then_some(Self::RenewalFailed)
            }
            _ => (order.id("token").is_some() && is_paid()).then_some(Self::RenewalPaid),
        }
    }

    /// Whether the event reports the renewal of a subscription, with the new order inside of its content.
    pub(crate) fn is_renewal(self) -> bool {
        matches!(self, Self::RenewalPaid | Self::RenewalFailed)
    }

    /// Whether the event names its order and holds nothing else of it.
    pub(crate) fn names_order_only(self) -> bool {
        matches!(
            self,
            Self::RefundCreated | Self::NotificationCreated | Self::WithdrawalCreated
        )
    }

    /// The field that names the order.
    pub(crate) fn order_field(self) -> &'static str {
        if self.names_order_only() { "orderToken" } else { "token" }
    }

    /// Our word for the event; a change is told by the word that it leads to.
    pub(crate) fn event_type(self, to: Option<&str>) -> EventType {
        match (self, to) {
            (Self::Completed | Self::RenewalPaid, _) => EventType::Created,
            (Self::StatusChanged, Some(to)) => status(to).1,
            (Self::StatusChanged, None) => EventType::Updated,
            (Self::PaymentStatusChanged, Some(to)) => payment_status(to).1,
            (Self::PaymentStatusChanged, None) | (Self::RenewalFailed, _) => EventType::PaymentUpdated,
            (Self::TrackingNumberChanged, _) => EventType::TrackingUpdated,
            (Self::RefundCreated, _) => EventType::Refunded,
            (Self::NotificationCreated, _) => EventType::NotificationCreated,
            (Self::WithdrawalCreated, _) => EventType::WithdrawalRequested,
        }
    }
}

/// Whether `word` names an event of the same webhook that reports no order. An invoice of a subscription may report one.
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

/// Our word for a `status`, and the type of an event that reports the step to it.
pub(crate) fn status(word: &str) -> (Status, EventType) {
    match word {
        "Pending" | "InProgress" => (Status::Pending, EventType::Updated),
        "Processed" => (Status::Confirmed, EventType::Confirmed),
        "Shipped" | "Dispatched" => (Status::Shipped, EventType::Shipped),
        "Delivered" => (Status::Delivered, EventType::Delivered),
        "Cancelled" => (Status::Cancelled, EventType::Cancelled),
        "Returned" => (Status::Returned, EventType::Returned),
        "Disputed" => (Status::Disputed, EventType::Updated),
        _ => (Status::Unknown, EventType::Updated),
    }
}

/// Our word for a `paymentStatus`, and the type of an event that reports the step to it.
pub(crate) fn payment_status(word: &str) -> (PaymentStatus, EventType) {
    match word {
        "Paid" | "PaidDeferred" | "Paidout" => (PaymentStatus::Paid, EventType::Paid),
        "Refunded" => (PaymentStatus::Refunded, EventType::Refunded),
        "Authorized" => (PaymentStatus::Authorized, EventType::PaymentUpdated),
        "Deferred" | "Pending" | "Open" => (PaymentStatus::Unpaid, EventType::PaymentUpdated),
        "Failed" | "Expired" => (PaymentStatus::Failed, EventType::PaymentUpdated),
        "Cancelled" => (PaymentStatus::Cancelled, EventType::PaymentUpdated),
        "ChargedBack" => (PaymentStatus::Disputed, EventType::PaymentUpdated),
        _ => (PaymentStatus::Unknown, EventType::PaymentUpdated),
    }
}
