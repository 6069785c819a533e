//! The fields of Selldone's payload that have no place in the event.

/// JSON pointers to the fields that stay in `unmapped`, each with the reason.
///
/// In a pointer, `*` matches any one name or index, and `**` at its end matches everything below. The functions use
/// only the pointers; the reasons are for readers and tests.
pub const UNMAPPED: &[(&str, &str)] = &[
    (
        "/event",
        "The name of the webhook is the same for every order; `action` is the provider_event.",
    ),
    ("/shop/id", SHOP),
    ("/shop/name", SHOP),
    ("/shop/title", SHOP),
    ("/shop/domain", SHOP),
    ("/user", "An order of a customer without an account has no user."),
    ("/user/id", USER),
    ("/user/name", USER),
    ("/user/email", USER),
    ("/user/phone", USER),
    (
        "/basket/guest_email",
        "The e-mail of a guest is read only if there is neither a `customer` nor a `user`.",
    ),
    ("/basket/shop_id", "The same as the id of the shop."),
    ("/basket/user_id", "The same as the id of the user."),
    ("/basket/customer_id", "The same as the id of the customer."),
    (
        "/basket/code",
        "Only null has been seen, and its meaning is not documented.",
    ),
    (
        "/basket/created_at",
        "The time at which the cart was opened is read only if there is no time of the checkout.",
    ),
    (
        "/basket/delivery_at",
        "Not documented: the delivery may be planned, promised or done at this time.",
    ),
    (
        "/basket/delivery_price",
        "A negative price means that delivery is paid on receipt, so it is not an amount.",
    ),
    (
        "/basket/price",
        "Not a total if tax on shipping is added to it, or if it is not known whether it includes the taxes.",
    ),
    (
        "/basket/delivery_state",
        "The state before the order was cancelled no longer applies.",
    ),
    (
        "/basket/type",
        "It is not known whether orders of this type are shipped.",
    ),
    ("/basket/session", "A technical key of the visit to the shop."),
    ("/basket/stack", "A technical counter of the cart."),
    ("/basket/meta", "Free data of the shop, without a documented shape."),
    (
        "/basket/coupon",
        "Only null has been seen, and its shape is not documented. The discount is in `discount`.",
    ),
    (
        "/basket/coupon_id",
        "The shop's key of the coupon. The discount is in `discount`.",
    ),
    (
        "/basket/discount_code",
        "Only null has been seen, and its shape is not documented. The discount is in `discount`.",
    ),
    (
        "/basket/discount_id",
        "The shop's key of the discount. The discount is in `discount`.",
    ),
    (
        "/basket/billing/business",
        "A flag for a company; the event has no field for it.",
    ),
    ("/basket/billing/custom", "How the address was entered in the shop."),
    (
        "/basket/billing/location/*",
        "Coordinates of an address to which nothing is delivered.",
    ),
    (
        "/basket/receiver_info/business",
        "A flag for a company; the event has no field for it.",
    ),
    (
        "/basket/receiver_info/custom",
        "How the address was entered in the shop.",
    ),
    (
        "/basket/receiver_info/location/*",
        "A pin on a map: labels are made from the address, and the event has no field for coordinates.",
    ),
    (
        "/basket/receiver_info/pickup",
        "False means that the order is delivered, which is the normal case.",
    ),
    (
        "/basket/delivery_info/distance",
        "A basis of the price of the delivery.",
    ),
    (
        "/basket/delivery_info/weight",
        "The weight of the parcel, in a unit that is not documented.",
    ),
    (
        "/basket/delivery_info/volume/*",
        "The size of the parcel, in a unit that is not documented.",
    ),
    ("/basket/items/*/basket_id", "The same as the id of the order."),
    (
        "/basket/items/*/currency",
        "The same as the currency of the order. An item in another currency is warned of.",
    ),
    ("/basket/items/*/price", FOREIGN_AMOUNT),
    ("/basket/items/*/dis", FOREIGN_AMOUNT),
    ("/basket/items/*/tax/amount", FOREIGN_AMOUNT),
    (
        "/basket/items/*/product/sku",
        "The SKU of the product is read only if its variant has none.",
    ),
    (
        "/basket/items/*/preferences/*/**",
        "A choice of several values; an option of the event has one value.",
    ),
    (
        "/basket/items/*/tax/name",
        "The name of the tax of an item; the event lists only the taxes of the order.",
    ),
    (
        "/basket/items/*/tax/included",
        "True means that the price includes the tax; the net price of one piece is then not stated.",
    ),
    (
        "/basket/items/*/tax/shipping",
        "The tax on shipping is read from the order.",
    ),
    (
        "/basket/items/*/return_request/*",
        "A request to return some of the pieces; the event has no field for returns by line.",
    ),
    (
        "/basket/items/*/service_item/*",
        "The tasks of a service concern only the shop and its staff.",
    ),
    (
        "/basket/items/*/virtual_items/*/*",
        "Keys and states of codes that the shop delivers itself.",
    ),
];

const SHOP: &str = "The route of the delivery names the shop.";
const USER: &str = "The account of the customer is read only if there is no `customer`.";
const FOREIGN_AMOUNT: &str =
    "An amount in another currency than the order's, which is the currency of every amount in the event.";
