//! The fields of Cartum's payload that have no place in the event.

/// JSON pointers to the fields that stay in `unmapped`, each with the reason. `*` in a pointer stands for any one name or
/// index, `**` at its end for all that is below.
///
/// The functions refer to the pointers at most: the reasons are for people and tests, and are not linked.
pub const UNMAPPED: &[(&str, &str)] = &[
    (
        "/user",
        "Another number for nearly every order: it identifies no customer.",
    ),
    ("/total_quantity", "A sum over the lines, which say their quantities."),
    (
        "/order_without_callback",
        "Whether the customer wants to be called to confirm the order: a matter of the shop's own staff.",
    ),
    (
        "/payment_price",
        "A fee for the kind of payment, not seen in a delivery yet: whether a sum includes it is not known.",
    ),
    (
        "/delivery_price",
        "-1 means that the carrier's tariff applies, so it is not an amount.",
    ),
    (
        "/delivery_type/id",
        "A key that differs from shop to shop: the title says the same.",
    ),
    ("/coupon_type", "A number without a documented classification."),
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
        "The title of a discount that is 0 or no amount.",
    ),
    (
        "/products/*/discount_marker",
        "Which of the shop's rules made the price: the price is the one after it.",
    ),
    (
        "/products/*/type",
        "A kind of line that is not known: the event says unknown.",
    ),
];
