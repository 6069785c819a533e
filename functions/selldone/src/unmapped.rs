//! The fields of Selldone's payload that have no place in the event.

/// JSON pointers to the fields that stay in `unmapped`, each with the reason. `*` in a pointer stands for any one name or
/// index, `**` at its end for all that is below.
///
/// The functions refer to the pointers at most: the reasons are for people and tests, and are not linked.
pub const UNMAPPED: &[(&str, &str)] = &[
    (
        "/event",
        "The name of the webhook: it is the same for every order, and the action is the provider_event.",
    ),
    ("/shop/id", "The shop is named by the route of the delivery."),
    ("/shop/name", "The shop is named by the route of the delivery."),
    ("/shop/title", "The shop is named by the route of the delivery."),
    (
        "/shop/domain",
        "The address of the shop, not of the order: the route names the shop.",
    ),
    ("/user", "An order of a customer without an account has no user."),
    (
        "/user/id",
        "The account that the customer used: the customer is read in its place where there is one.",
    ),
    (
        "/user/name",
        "The account that the customer used: the customer is read in its place where there is one.",
    ),
    (
        "/user/email",
        "The account that the customer used: the customer is read in its place where there is one.",
    ),
    (
        "/user/phone",
        "The account that the customer used: the customer is read in its place where there is one.",
    ),
    (
        "/basket/guest_email",
        "The e-mail of the checkout: the one of the customer is read in its place where there is one.",
    ),
    ("/basket/shop_id", "The same as the id of the shop."),
    ("/basket/user_id", "The same as the id of the user."),
    ("/basket/customer_id", "The same as the id of the customer."),
    (
        "/basket/code",
        "Only null was seen, and no document says what it holds.",
    ),
    (
        "/basket/created_at",
        "When the cart was opened: an order that has a time of checkout is placed at that.",
    ),
    (
        "/basket/delivery_at",
        "Not documented: it may be planned, promised or done.",
    ),
    (
        "/basket/delivery_price",
        "A negative price means that delivery is paid on receipt, so it is not an amount.",
    ),
    (
        "/basket/price",
        "No total of the event where tax on shipping is added to it, or where it is not known whether it includes the taxes.",
    ),
    (
        "/basket/delivery_state",
        "The last state before the order was cancelled says nothing of where it is now.",
    ),
    ("/basket/type", "Whether orders of this type are shipped is not known."),
    ("/basket/session", "A technical key of the visit to the shop."),
    ("/basket/stack", "A technical counter of the cart."),
    ("/basket/meta", "Free data of the shop, of no documented shape."),
    (
        "/basket/coupon",
        "Only null was seen: its shape is not documented. What it saved is in the discount.",
    ),
    (
        "/basket/coupon_id",
        "The key of the coupon in the shop. What it saved is in the discount.",
    ),
    (
        "/basket/discount_code",
        "Only null was seen: its shape is not documented. What it saved is in the discount.",
    ),
    (
        "/basket/discount_id",
        "The key of the discount in the shop. What it saved is in the discount.",
    ),
    (
        "/basket/billing/business",
        "Says that the name is that of a company, which the event does not tell apart from a person by a flag.",
    ),
    (
        "/basket/billing/custom",
        "Says how the address was entered in the shop.",
    ),
    (
        "/basket/billing/location/*",
        "Coordinates of an address that nothing is delivered to.",
    ),
    (
        "/basket/receiver_info/business",
        "Says that the name is that of a company, which the event does not tell apart from a person by a flag.",
    ),
    (
        "/basket/receiver_info/custom",
        "Says how the address was entered in the shop.",
    ),
    (
        "/basket/receiver_info/location/*",
        "A pin on a map: labels are made of the address, and the event has no place for coordinates.",
    ),
    (
        "/basket/receiver_info/pickup",
        "False says that the order is delivered, as orders are.",
    ),
    (
        "/basket/delivery_info/distance",
        "What the price of the delivery was computed from.",
    ),
    (
        "/basket/delivery_info/weight",
        "The weight of the parcel in a unit that is not documented.",
    ),
    (
        "/basket/delivery_info/volume/*",
        "The size of the parcel in a unit that is not documented.",
    ),
    ("/basket/items/*/basket_id", "The same as the id of the order."),
    (
        "/basket/items/*/currency",
        "The currency of the order, in which the event has all amounts. An item in another currency is warned of.",
    ),
    (
        "/basket/items/*/price",
        "An amount in another currency than the order's: the event has all amounts in that one.",
    ),
    (
        "/basket/items/*/dis",
        "An amount in another currency than the order's: the event has all amounts in that one.",
    ),
    (
        "/basket/items/*/tax/amount",
        "An amount in another currency than the order's: the event has all amounts in that one.",
    ),
    (
        "/basket/items/*/product/sku",
        "The key of the product: the one of its variant is read in its place where there is one.",
    ),
    (
        "/basket/items/*/preferences/*/**",
        "A choice that is made of several values: an option of the event has one.",
    ),
    (
        "/basket/items/*/tax/name",
        "The name of the tax: the tax lines of the event are the order's.",
    ),
    (
        "/basket/items/*/tax/included",
        "Whether prices include the tax is said of the order.",
    ),
    ("/basket/items/*/tax/shipping", "Tax on shipping is said of the order."),
    (
        "/basket/items/*/return_request/*",
        "A request to return some of the pieces: the event has no place for a return by line.",
    ),
    (
        "/basket/items/*/service_item/*",
        "The tasks of a service are between the shop and its staff.",
    ),
    (
        "/basket/items/*/virtual_items/*/*",
        "Keys and states of codes that the shop delivers by itself.",
    ),
];
