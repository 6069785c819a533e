//! Selldone's words, and ours for them.

use shared::event::{EventType, PaymentStatus, Status};

/// The event whose `action` says what happened to an order.
pub(crate) const ORDER_EVENT: &str = "OnlineOrder";

/// Events of the same webhook that report no online order.
pub(crate) const OTHER_EVENTS: [&str; 7] = [
    "PosOrder",
    "AvocadoOrder",
    "HyperOrder",
    "FulfillmentOrder",
    "Inventory",
    "Register",
    "Leave",
];

/// What happened to an online order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The checkout is finalized.
    CheckoutOrder,
    /// The order is paid.
    PaymentOrder,
    /// A product of the order is cancelled.
    CancelProduct,
    /// The shop confirmed the order.
    OrderConfirm,
    /// The shop prepares the order.
    PreparingOrder,
    /// The order is dispatched.
    SentOrder,
    /// The order reaches the customer.
    ToCustomer,
    /// The customer returns the order.
    ReturnOrder,
    /// The delivery is cancelled.
    DeliveryCanceled,
}

impl Action {
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

    /// The action that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }

    /// Selldone's word.
    pub fn as_str(self) -> &'static str {
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

    /// Our word.
    pub fn event_type(self) -> EventType {
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

/// The `status` of an order that is cancelled, whatever its delivery state still says.
pub(crate) const CANCELED: &str = "Canceled";

/// The delivery state that one table of the documentation calls "en route" and another "delivered".
pub(crate) const TO_CUSTOMER: &str = "ToCustomer";

/// Our word for a `delivery_state`.
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

/// Whether the items of an order of this `type` are shipped; `None` where that is not known.
pub(crate) fn requires_shipping(r#type: Option<&str>) -> Option<bool> {
    match r#type? {
        "PHYSICAL" => Some(true),
        "VIRTUAL" | "FILE" => Some(false),
        _ => None,
    }
}

/// Whether an order's `type` is one of Selldone's, shipped or not.
pub(crate) fn is_known_type(word: &str) -> bool {
    requires_shipping(Some(word)).is_some() || matches!(word, "SERVICE" | "SUBSCRIPTION")
}

/// Our word for a `status`, which speaks of the payment.
pub(crate) fn payment_status(status: &str) -> PaymentStatus {
    match status {
        "Open" | "Reserved" | "COD" => PaymentStatus::Unpaid,
        "Payed" => PaymentStatus::Paid,
        CANCELED => PaymentStatus::Cancelled,
        _ => PaymentStatus::Unknown,
    }
}
