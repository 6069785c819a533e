//! The words of Snipcart's payload, and what they mean in the event.

use shared::event::{EventType, PaymentStatus, Status};
use shared::payload::{Fields, Value};

/// What happened to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `order.completed`: the order was placed.
    Completed,
    /// `order.status.changed`: the status of the order changed.
    StatusChanged,
    /// `order.paymentStatus.changed`: the payment status of the order changed.
    PaymentStatusChanged,
    /// `order.trackingNumber.changed`: the tracking number of the order was set, changed or removed.
    TrackingNumberChanged,
    /// `order.refund.created`: the order was refunded, in full or in part.
    RefundCreated,
    /// `order.notification.created`: a message was added to the order.
    NotificationCreated,
    /// `order.withdrawal.created`: the customer asked to withdraw from the order.
    WithdrawalCreated,
    /// `v3/subscription.invoice.payment.succeeded`, or another event of an invoice whose order is paid.
    RenewalPaid,
    /// `v3/subscription.invoice.payment.failed`, if the invoice has an order.
    RenewalFailed,
}

impl Event {
    /// The event that `word` names, unless it is about a subscription.
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

    /// The event that the invoice of a subscription reports. Only renewals have an invoice: the first order of a
    /// subscription is reported as `order.completed`.
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
            // An unpaid invoice may have no order yet. If the content or the order cannot be read, the delivery is
            // still an order event, so that it is quarantined and not dropped as unsupported.
            "payment.failed" => {
                let names_order = !content.exist() || content.has("order") && (!order.exist() || order.has("token"));
                names_order.then_some(Self::RenewalFailed)
            }
            _ => (order.id("token").is_some() && is_paid()).then_some(Self::RenewalPaid),
        }
    }

    /// Whether the event reports the renewal of a subscription. The new order is then in the field `order` of the
    /// content.
    pub(crate) fn is_renewal(self) -> bool {
        matches!(self, Self::RenewalPaid | Self::RenewalFailed)
    }

    /// Whether the event names its order without describing it.
    pub(crate) fn names_order_only(self) -> bool {
        matches!(
            self,
            Self::RefundCreated | Self::NotificationCreated | Self::WithdrawalCreated
        )
    }

    /// The name of the field that holds the token of the order.
    pub(crate) fn order_field(self) -> &'static str {
        if self.names_order_only() { "orderToken" } else { "token" }
    }

    /// The type of the event. The type of a change of status follows from `to`, the new status.
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

/// Whether `word` is a known event that is not about an order. An invoice of a subscription is not covered: it may
/// report an order, so `Event::of_invoice` must be asked first.
pub(crate) fn is_unsupported(word: &str) -> bool {
    let families = ["subscription.", "v3/subscription.", "customauth:"];
    ["shippingrates.fetch", "taxes.calculate"].contains(&word) || families.iter().any(|family| word.starts_with(family))
}

/// Whether `mode` is the test mode.
pub(crate) fn is_test(mode: Value<'_>) -> Option<bool> {
    match mode.as_str()? {
        "Test" => Some(true),
        "Live" => Some(false),
        _ => None,
    }
}

/// The status that `word` means, and the type of a change to it.
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

/// The payment status that `word` means, and the type of a change to it.
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
