//! The fields of ABOUT YOU's payload that have no place in the event.

/// JSON pointers to the fields that stay in `unmapped`, each with the reason. `*` in a pointer stands for any one name or
/// index, `**` at its end for all that is below.
///
/// The functions refer to the pointers at most: the reasons are for people and tests, and are not linked.
pub const UNMAPPED: &[(&str, &str)] = &[
    ("/id", "the delivery's key, of which the event's `id` is made"),
    (
        "/message/cost_with_tax",
        "an amount without a currency: how many decimal places it has is not known",
    ),
    (
        "/message/cost_without_tax",
        "an amount without a currency: how many decimal places it has is not known",
    ),
    ("/message/custom_data/**", "a list or an object of the seller's own"),
    (
        "/message/fulfillment_type",
        "who ships, in words that are not documented",
    ),
    (
        "/message/items/*/price_with_tax",
        "an amount without a currency: the events of items name none",
    ),
    (
        "/message/items/*/price_without_tax",
        "an amount without a currency: the events of items name none",
    ),
    (
        "/message/order_items/*/custom_data/**",
        "a list or an object of the seller's own",
    ),
    (
        "/message/order_items/*/price_with_tax",
        "an amount without a currency: how many decimal places it has is not known",
    ),
    (
        "/message/order_items/*/price_without_tax",
        "an amount without a currency: how many decimal places it has is not known",
    ),
    (
        "/message/order_items/*/status",
        "a word without a mapping; an item has no place for it beside `unknown`",
    ),
    (
        "/message/return_tracking_key",
        "a return number beside those that each of the items has",
    ),
    (
        "/subscription_id",
        "the subscription to these deliveries, nothing of the order",
    ),
];
