//! The words of the event.

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
            /// The word as it stands in the event.
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
                let mut description = concat!($($doc),+).trim().to_owned() + " Words are added: one that is not listed here is no error.";
                for (word, meaning) in [$(($word, concat!($($variant_doc),+))),+] {
                    description.push_str(&format!("\n- `{word}`:{meaning}"));
                }
                schemars::json_schema!({"type": "string", "description": description, "examples": [$($word),+]})
            }
        }
    };
}

vocabulary! {
    /// What happened.
    EventType {
        /// The order exists.
        Created = "order.created",
        /// The order is paid.
        Paid = "order.paid",
        /// The shop accepted the order.
        Confirmed = "order.confirmed",
        /// The shop prepares the order.
        Processing = "order.processing",
        /// The order left the shop.
        Shipped = "order.shipped",
        /// The order reached the customer.
        Delivered = "order.delivered",
        /// The whole order is cancelled.
        Cancelled = "order.cancelled",
        /// The order came back.
        Returned = "order.returned",
        /// Money went back to the customer.
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
        /// Items of the order came back.
        ItemsReturned = "order.items_returned",
        /// The delivery, not the order, was cancelled.
        DeliveryCancelled = "order.delivery_cancelled",
        /// The customer asked to withdraw from the purchase; the shop has not decided yet.
        WithdrawalRequested = "order.withdrawal_requested",
    }
}

vocabulary! {
    /// Where an order or an item stands.
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
        /// Sent back.
        Returned = "returned",
        /// The items differ.
        Mixed = "mixed",
        /// Disputed by the customer.
        Disputed = "disputed",
        /// The provider said a word that has no mapping; it stands beside this one.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// Where the payment stands.
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
        /// The provider said a word that has no mapping; it stands beside this one.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// What a line of an order is. It says which lines add up: the parts of a set have prices of their own, and so has the set.
    ItemKind {
        /// A product sold by itself.
        Product = "product",
        /// A gift that comes with the order.
        Gift = "gift",
        /// A set of products, sold as one.
        Set = "set",
        /// A part of a set that is another line of the order.
        SetItem = "set_item",
        /// The provider used a word that has no mapping; it is kept in `unmapped`.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// Why an amount was added to or taken from an order after it was placed.
    AdjustmentKind {
        /// Money went back to the customer.
        Refund = "refund",
        /// The customer withdrew from the purchase, or asked to.
        Withdrawal = "withdrawal",
        /// The provider used a word that has no mapping; it is kept in `unmapped`.
        Unknown = "unknown",
    }
}
