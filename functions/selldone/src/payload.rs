//! The words of Selldone's payload, and what they mean in the event.

use shared::event::{EventType, PaymentStatus, Status};

/// What happened to an order, as `action` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `CheckoutOrder`: the customer finished the checkout.
    CheckoutOrder,
    /// `PaymentOrder`: the order is paid.
    PaymentOrder,
    /// `CancelProduct`: a product of the order is cancelled.
    CancelProduct,
    /// `OrderConfirm`: the shop confirmed the order.
    OrderConfirm,
    /// `PreparingOrder`: the shop prepares the order.
    PreparingOrder,
    /// `SentOrder`: the order is dispatched.
    SentOrder,
    /// `ToCustomer`: the order reaches the customer.
    ToCustomer,
    /// `ReturnOrder`: the customer returns the order.
    ReturnOrder,
    /// `DeliveryCanceled`: the delivery is cancelled.
    DeliveryCanceled,
}

impl Event {
    const ALL: [Self; 9] = [
        Self::CheckoutOrder,
        Self::PaymentOrder,
        Self::CancelProduct,
        Self::OrderConfirm,
        Self::PreparingOrder,
        Self::SentOrder,
        Self::ToCustomer,
        Self::ReturnOrder,
        Self::DeliveryCanceled,
    ];

    /// The event that `word` names.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == word)
    }

    /// Selldone's word for the event.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::CheckoutOrder => "CheckoutOrder",
            Self::PaymentOrder => "PaymentOrder",
            Self::CancelProduct => "CancelProduct",
            Self::OrderConfirm => "OrderConfirm",
            Self::PreparingOrder => "PreparingOrder",
            Self::SentOrder => "SentOrder",
            Self::ToCustomer => "ToCustomer",
            Self::ReturnOrder => "ReturnOrder",
            Self::DeliveryCanceled => "DeliveryCanceled",
        }
    }

    /// The type of the event.
    pub(crate) fn event_type(self) -> EventType {
        match self {
            Self::CheckoutOrder => EventType::Created,
            Self::PaymentOrder => EventType::Paid,
            Self::CancelProduct => EventType::ItemCancelled,
            Self::OrderConfirm => EventType::Confirmed,
            Self::PreparingOrder => EventType::Processing,
            Self::SentOrder => EventType::Shipped,
            Self::ToCustomer => EventType::Delivered,
            Self::ReturnOrder => EventType::Returned,
            Self::DeliveryCanceled => EventType::DeliveryCancelled,
        }
    }
}

/// The `event` of every order event.
pub(crate) const ORDER_EVENT: &str = "OnlineOrder";

/// Whether `word` is the `event` of a known delivery that is not about an online order.
pub(crate) fn is_unsupported(word: &str) -> bool {
    matches!(
        word,
        "PosOrder" | "AvocadoOrder" | "HyperOrder" | "FulfillmentOrder" | "Inventory" | "Register" | "Leave"
    )
}

/// The `status` of a cancelled order, whatever its `delivery_state`.
pub(crate) const CANCELED: &str = "Canceled";

/// The delivery state that one table of the documentation calls "en route" and another "delivered".
pub(crate) const TO_CUSTOMER: &str = "ToCustomer";

/// The status that `delivery_state` means.
pub(crate) fn status(delivery_state: &str) -> Status {
    match delivery_state {
        "CheckQueue" => Status::Pending,
        "OrderConfirm" => Status::Confirmed,
        "PreparingOrder" => Status::Processing,
        "SentOrder" => Status::Shipped,
        TO_CUSTOMER => Status::Delivered,
        _ => Status::Unknown,
    }
}

/// The payment status that `status` means: Selldone's `status` is about the payment.
pub(crate) fn payment_status(status: &str) -> PaymentStatus {
    match status {
        "Open" | "Reserved" | "COD" => PaymentStatus::Unpaid,
        "Payed" => PaymentStatus::Paid,
        CANCELED => PaymentStatus::Cancelled,
        _ => PaymentStatus::Unknown,
    }
}

/// Whether the items of an order of this `type` are shipped, or `None` if the type does not say so.
pub(crate) fn requires_shipping(order_type: &str) -> Option<bool> {
    match order_type {
        "PHYSICAL" => Some(true),
        "VIRTUAL" | "FILE" => Some(false),
        _ => None,
    }
}

/// Whether `order_type` is a documented `type` of an order.
pub(crate) fn is_known_type(order_type: &str) -> bool {
    requires_shipping(order_type).is_some() || matches!(order_type, "SERVICE" | "SUBSCRIPTION")
}
