//! The fields of ABOUT YOU's payload that have no place in the event.

/// JSON pointers to the fields that stay in `unmapped`, each with the reason.
///
/// In a pointer, `*` matches any one name or index, and `**` at its end matches everything below. The functions use
/// only the pointers; the reasons are for readers and tests.
pub const UNMAPPED: &[(&str, &str)] = &[
    (
        "/id",
        "The key of the delivery, from which the id of the event is made.",
    ),
    ("/message/cost_with_tax", NO_CURRENCY),
    ("/message/cost_without_tax", NO_CURRENCY),
    (
        "/message/custom_data/**",
        "A list or an object of the seller's own data.",
    ),
    (
        "/message/fulfillment_type",
        "Who ships the order, in words that are not documented.",
    ),
    ("/message/items/*/price_with_tax", NO_CURRENCY),
    ("/message/items/*/price_without_tax", NO_CURRENCY),
    (
        "/message/order_items/*/custom_data/**",
        "A list or an object of the seller's own data.",
    ),
    ("/message/order_items/*/price_with_tax", NO_CURRENCY),
    ("/message/order_items/*/price_without_tax", NO_CURRENCY),
    (
        "/message/order_items/*/status",
        "A word without a mapping: the item is `unknown`, and has no field for the provider's word.",
    ),
    (
        "/message/return_tracking_key",
        "A common return number although each item has its own.",
    ),
    (
        "/subscription_id",
        "The key of the subscription to the webhook, which is not about the order.",
    ),
];

const NO_CURRENCY: &str = "An amount without a currency: its number of decimal places is not known.";
