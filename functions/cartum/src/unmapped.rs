//! The fields of Cartum's payload that have no place in the event.

/// JSON pointers to the fields that stay in `unmapped`, each with the reason.
///
/// In a pointer, `*` matches any one name or index, and `**` at its end matches everything below. The functions use
/// only the pointers; the reasons are for readers and tests.
pub const UNMAPPED: &[(&str, &str)] = &[
    (
        "/user",
        "The number differs for nearly every order, so it does not identify a customer.",
    ),
    ("/total_quantity", "The sum of the quantities of the lines."),
    (
        "/order_without_callback",
        "Whether the shop's staff should call the customer to confirm the order.",
    ),
    (
        "/payment_price",
        "A fee for the kind of payment, not yet seen in a delivery; whether a sum includes it is not known.",
    ),
    (
        "/delivery_price",
        "-1 means that the carrier's tariff applies, so it is not an amount.",
    ),
    (
        "/delivery_type/id",
        "A key that differs from shop to shop; the title names the delivery type.",
    ),
    (
        "/coupon_type",
        "The kind of the coupon, as a number; every coupon has the kind `coupon` in the event.",
    ),
    (
        "/coupon_percent",
        "0 means that no coupon was used, or that the coupon has no rate.",
    ),
    (
        "/coupon_discount_value",
        "0 means that no coupon was used; a negative number is not an amount.",
    ),
    (
        "/discount_percent",
        "0 means that the shop gave no discount, or one without a rate.",
    ),
    (
        "/discount_value",
        "0 means that the shop gave no discount; a negative number is not an amount.",
    ),
    (
        "/manager_discount",
        "0 means that no manager gave a discount; a negative number is not an amount.",
    ),
    (
        "/manager_discount_title",
        "The title of a discount that is 0 or not an amount.",
    ),
    (
        "/products/*/discount_marker",
        "The rule of the shop by which the price was made; the price is the one after the discount.",
    ),
    (
        "/products/*/type",
        "A kind of line without a mapping; it is `unknown` in the event.",
    ),
];
