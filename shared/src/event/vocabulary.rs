//! The vocabularies of the event.

use serde::{Deserialize, Serialize};

/// Declares a vocabulary of the event: an enum in Rust, an open string in the schema, so that a new word breaks no consumer.
macro_rules! vocabulary {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[doc = $variant_doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// The word in the event.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut description = concat!($($doc),+).trim().to_owned() + " More words may be added: an unlisted word is not an error.";
                for (word, meaning) in [$(($word, concat!($($variant_doc),+))),+] {
                    description.push_str(&format!("\n- `{word}`:{meaning}"));
                }
                schemars::json_schema!({"type": "string", "description": description, "examples": [$($word),+]})
            }
        }
    };
}

vocabulary! {
    /// The type of an event.
    EventType {
        /// The order was placed.
        Created = "order.created",
        /// The order was paid.
        Paid = "order.paid",
        /// The shop accepted the order.
        Confirmed = "order.confirmed",
        /// The shop prepares the order.
        Processing = "order.processing",
        /// The order left the shop.
        Shipped = "order.shipped",
        /// The order reached the customer.
        Delivered = "order.delivered",
        /// The complete order was cancelled.
        Cancelled = "order.cancelled",
        /// The order was returned.
        Returned = "order.returned",
        /// Money was paid back to the customer.
        Refunded = "order.refunded",
        /// The order changed in a way that has no type of its own.
        Updated = "order.updated",
        /// The payment changed in a way that has no type of its own.
        PaymentUpdated = "order.payment_updated",
        /// The tracking number changed.
        TrackingUpdated = "order.tracking_updated",
        /// A message was added to the order.
        NotificationCreated = "order.notification_created",
        /// Items of the order were cancelled.
        ItemCancelled = "order.item_cancelled",
        /// Items of the order were shipped.
        ItemsShipped = "order.items_shipped",
        /// Items of the order were returned.
        ItemsReturned = "order.items_returned",
        /// The delivery, not the order, was cancelled.
        DeliveryCancelled = "order.delivery_cancelled",
        /// The customer asked to withdraw from the purchase; the shop has not decided yet.
        WithdrawalRequested = "order.withdrawal_requested",
    }
}

vocabulary! {
    /// The status of an order or an item.
    Status {
        /// Not yet accepted.
        Pending = "pending",
        /// Accepted by the shop.
        Confirmed = "confirmed",
        /// Being prepared.
        Processing = "processing",
        /// On its way.
        Shipped = "shipped",
        /// Some of the items are on their way, others are not.
        PartiallyShipped = "partially_shipped",
        /// With the customer.
        Delivered = "delivered",
        /// Cancelled.
        Cancelled = "cancelled",
        /// Returned by the customer.
        Returned = "returned",
        /// The items have different statuses.
        Mixed = "mixed",
        /// Disputed by the customer.
        Disputed = "disputed",
        /// The provider used a word that has no mapping; for an order, `provider_status` holds it.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// The status of a payment.
    PaymentStatus {
        /// Nothing paid.
        Unpaid = "unpaid",
        /// Reserved, not captured.
        Authorized = "authorized",
        /// Paid.
        Paid = "paid",
        /// A part is paid, the rest is outstanding.
        PartiallyPaid = "partially_paid",
        /// Paid back.
        Refunded = "refunded",
        /// Paid, and a part of it paid back.
        PartiallyRefunded = "partially_refunded",
        /// Failed or expired.
        Failed = "failed",
        /// Cancelled.
        Cancelled = "cancelled",
        /// Charged back or disputed.
        Disputed = "disputed",
        /// The provider used a word that has no mapping; `provider_payment_status` holds it.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// The kind of an order's line. It determines which lines add up, because both a set and its parts have prices.
    ItemKind {
        /// A product sold by itself.
        Product = "product",
        /// A gift that comes with the order.
        Gift = "gift",
        /// A set of products, sold as one.
        Set = "set",
        /// A part of a set. The set is another line of the order.
        SetItem = "set_item",
        /// The provider used a word that has no mapping; it is kept in `unmapped`.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// The kind of an adjustment: why an amount was added to or subtracted from an order after it was placed.
    AdjustmentKind {
        /// Money went back to the customer.
        Refund = "refund",
        /// The customer withdrew from the purchase, or asked to.
        Withdrawal = "withdrawal",
        /// The provider used a word that has no mapping; it is kept in `unmapped`.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// How an event became known.
    Origin {
        /// The provider delivered it.
        Webhook = "webhook",
        /// No delivery reported it: the order was found in the provider's list of orders.
        Reconciliation = "reconciliation",
    }
}

impl Default for Origin {
    /// The origin of events that were stored before there was another one.
    fn default() -> Self {
        Self::Webhook
    }
}
