//! Cartum's words, and ours for them.

use shared::event::{PaymentStatus, Status};
use shared::money::Amount;

/// The event that reports an order.
pub(crate) const ORDER_EVENT: &str = "order_created";

/// Events of the same webhook that report no order.
pub(crate) const OTHER_EVENTS: [&str; 2] = ["user_signup", "request_call_me"];

/// Our word for `stat_status`. 4 is "not delivered", 6 and others are the shop's own.
pub(crate) fn status(stat_status: &str) -> Status {
    match stat_status {
        "1" => Status::Pending,
        "2" => Status::Processing,
        "3" => Status::Delivered,
        _ => Status::Unknown,
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

/// The `delivery_price` that says "by the carrier's tariff" and is no price.
pub(crate) const BY_CARRIERS_TARIFF: Amount = Amount::MINUS_ONE;
