//! The fields of Snipcart's payload that have no place in the event.

/// JSON pointers to the fields that stay in `unmapped`, each with the reason.
///
/// In a pointer, `*` matches any one name or index, and `**` at its end matches everything below. The functions use
/// only the pointers; the reasons are for readers and tests.
pub const UNMAPPED: &[(&str, &str)] = &[
    (
        "/content/adjustedAmount",
        "`grandTotal` less `refundsAmount`; the event has both.",
    ),
    ("/content/baseTotal", "The total before later changes."),
    (
        "/content/billingAddress/fullAddress",
        "`address1` and `address2` in one text.",
    ),
    ("/content/billingAddress/hasMinimalRequiredInfo", FORM_CHECK),
    ("/content/billingAddressAddress1", FLAT_ADDRESS),
    ("/content/billingAddressAddress2", FLAT_ADDRESS),
    ("/content/billingAddressCity", FLAT_ADDRESS),
    ("/content/billingAddressCompanyName", FLAT_ADDRESS),
    ("/content/billingAddressCountry", FLAT_ADDRESS),
    ("/content/billingAddressFirstName", FLAT_ADDRESS),
    ("/content/billingAddressName", FLAT_ADDRESS),
    ("/content/billingAddressPhone", FLAT_ADDRESS),
    ("/content/billingAddressPostalCode", FLAT_ADDRESS),
    ("/content/billingAddressProvince", FLAT_ADDRESS),
    ("/content/billingAddressComplete", CHECKOUT_STEP),
    (
        "/content/body",
        "The notification as an e-mail in the shop's layout; `message` is its text.",
    ),
    (
        "/content/cardHolderName",
        "The name on a card is payment data that no consumer needs.",
    ),
    (
        "/content/cardType",
        "A brand without the last digits of a card is a default: the order was not paid by card.",
    ),
    (
        "/content/creationDate",
        "The time at which the cart was opened is read only if there is no time of the checkout.",
    ),
    (
        "/content/order/creationDate",
        "The time at which the cart was opened is read only if there is no time of the checkout.",
    ),
    ("/content/customFields/*/displayValue", LABEL),
    ("/content/customFields/*/operation", COST),
    ("/content/customFields/*/options", CHOICES),
    ("/content/customFields/*/optionsArray", CHOICES),
    ("/content/customFields/*/optionsArray/*", CHOICES),
    ("/content/customFields/*/required", FORM),
    ("/content/customFields/*/type", FORM),
    ("/content/customFieldsJson", "`customFields` as text."),
    (
        "/content/discounts/*/amount",
        "The discount as the shop defined it; `amountSaved` is its amount on this order.",
    ),
    ("/content/discounts/*/combinable", "A setting of the discount."),
    (
        "/content/discounts/*/creationDate",
        "When the shop defined the discount.",
    ),
    (
        "/content/discounts/*/discountId",
        "The key of the discount in the dashboard; `code` and `name` identify it.",
    ),
    (
        "/content/discounts/*/hasSavedAmount",
        "A flag for an `amountSaved` other than 0.",
    ),
    ("/content/discounts/*/id", "The key of this use of the discount."),
    (
        "/content/discounts/*/modificationDate",
        "When the shop last changed the discount.",
    ),
    (
        "/content/discounts/*/trigger",
        "The condition of the discount; `code` is present if the customer entered one.",
    ),
    (
        "/content/finalGrandTotal",
        "`grandTotal` less `refundsAmount`; the event has both.",
    ),
    (
        "/content/hasSubscriptions",
        "A flag for an order with a subscription; the lines and plans show it.",
    ),
    ("/content/ipAddress", PERSONAL),
    ("/content/isRecurringOrder", RENEWAL),
    ("/content/isRecurringV3Order", RENEWAL),
    ("/content/items/*/addedOn", "When the line was added to the cart."),
    (
        "/content/items/*/alternatePrices/*",
        "Prices for groups of customers; `unitPrice` is the price of this customer.",
    ),
    ("/content/items/*/cancellationAction", SUBSCRIPTION_SETTING),
    (
        "/content/items/*/categories",
        "The categories of the product in the shop, an empty list.",
    ),
    (
        "/content/items/*/categories/*",
        "The categories of the product in the shop.",
    ),
    ("/content/items/*/customFields/*/displayValue", LABEL),
    ("/content/items/*/customFields/*/operation", COST),
    ("/content/items/*/customFields/*/options", CHOICES),
    ("/content/items/*/customFields/*/optionsArray", CHOICES),
    ("/content/items/*/customFields/*/optionsArray/*", CHOICES),
    ("/content/items/*/customFields/*/required", FORM),
    ("/content/items/*/customFields/*/type", FORM),
    ("/content/items/*/customFields/*/placeholder", FORM),
    ("/content/items/*/description", "The shop's description of the product."),
    ("/content/items/*/duplicatable", CART),
    (
        "/content/items/*/fileGuid",
        "The key of a download, which Snipcart delivers.",
    ),
    ("/content/items/*/hasDimensions", "A flag for length, width and height."),
    (
        "/content/items/*/hasTaxesIncluded",
        "True means that prices include the tax; the net price of one piece is then not stated.",
    ),
    ("/content/items/*/height", SIZE),
    (
        "/content/items/*/initialData",
        "Data that the buy button passed on, of any shape.",
    ),
    ("/content/items/*/length", SIZE),
    ("/content/items/*/maxQuantity", CART),
    ("/content/items/*/metadata", SHOP_DATA),
    ("/content/items/*/metadata/**", SHOP_DATA),
    ("/content/items/*/minQuantity", CART),
    (
        "/content/items/*/modificationDate",
        "When the line was last changed in the cart.",
    ),
    (
        "/content/items/*/parcels",
        "How the shop packs the product, in a shape that is not documented.",
    ),
    ("/content/items/*/pausingAction", SUBSCRIPTION_SETTING),
    (
        "/content/items/*/paymentSchedule/*",
        "When the subscription is charged again; each renewal is a separate order.",
    ),
    ("/content/items/*/price", WITHOUT_OPTIONS),
    ("/content/items/*/stackable", CART),
    (
        "/content/items/*/taxable",
        "Whether the product is taxed; the order lists the taxes.",
    ),
    (
        "/content/items/*/taxes",
        "The names of the taxes on the line, an empty list.",
    ),
    (
        "/content/items/*/taxes/*",
        "The name of a tax on the line, without an amount; the order lists the taxes.",
    ),
    (
        "/content/items/*/token",
        "The key of the product in the dashboard; `id` is the shop's key.",
    ),
    (
        "/content/items/*/totalPriceWithoutDiscountsAndTaxes",
        NET_BEFORE_DISCOUNTS,
    ),
    (
        "/content/items/*/totalWeight",
        "`weight` times `quantity`; the event has both.",
    ),
    ("/content/items/*/width", SIZE),
    ("/content/itemsCount", "The number of lines."),
    ("/content/metadata", SHOP_DATA),
    ("/content/metadata/**", SHOP_DATA),
    ("/content/mode", "The same as the `mode` of the delivery."),
    ("/content/modificationDate", REFUND_CHANGED),
    ("/content/notifyCustomer", REFUND_NOTICE),
    (
        "/content/numberOfItemsInOrder",
        "The number of pieces; the lines have their quantities.",
    ),
    ("/content/order/items/*/price", WITHOUT_OPTIONS),
    ("/content/order/shippingInformation/userDefinedId", SHIPPING_RATE),
    ("/content/order/taxes/*/appliesOnShipping", TAX_SETTING),
    (
        "/content/parentInvoiceNumber",
        "The number of the order that this one renews; `order.parent_id` is its key.",
    ),
    (
        "/content/paymentDetails/*",
        "Texts about offline payment for the confirmation page.",
    ),
    ("/content/paymentStatus", OLDER),
    ("/content/plans", "The subscriptions in the order, an empty list."),
    (
        "/content/plans/**",
        "The subscriptions in the order, in a shape that is not documented; without lines, `order.items` is null.",
    ),
    (
        "/content/recoveredFromCampaignId",
        "The campaign that brought the customer back, which concerns only marketing.",
    ),
    ("/content/refundedByPaymentGateway", REFUND_METHOD),
    ("/content/refunds/*/modificationDate", REFUND_CHANGED),
    ("/content/refunds/*/notifyCustomer", REFUND_NOTICE),
    (
        "/content/refunds/*/orderToken",
        "The key of the order that holds the refund.",
    ),
    ("/content/refunds/*/refundedByPaymentGateway", REFUND_METHOD),
    (
        "/content/resourceUrl",
        "A link in the e-mail of the notification to a page for the customer.",
    ),
    (
        "/content/savedAmount",
        "The discount since version 3, read only if `rebateAmount` is absent.",
    ),
    (
        "/content/sentByEmailOn",
        "When the e-mail was sent; the event has whether it was sent.",
    ),
    (
        "/content/shippingAddress/fullAddress",
        "`address1` and `address2` in one text.",
    ),
    ("/content/shippingAddress/hasMinimalRequiredInfo", FORM_CHECK),
    ("/content/shippingAddressAddress1", FLAT_ADDRESS),
    ("/content/shippingAddressAddress2", FLAT_ADDRESS),
    ("/content/shippingAddressCity", FLAT_ADDRESS),
    ("/content/shippingAddressCompanyName", FLAT_ADDRESS),
    ("/content/shippingAddressCountry", FLAT_ADDRESS),
    ("/content/shippingAddressFirstName", FLAT_ADDRESS),
    ("/content/shippingAddressName", FLAT_ADDRESS),
    ("/content/shippingAddressPhone", FLAT_ADDRESS),
    ("/content/shippingAddressPostalCode", FLAT_ADDRESS),
    ("/content/shippingAddressProvince", FLAT_ADDRESS),
    ("/content/shippingAddressComplete", CHECKOUT_STEP),
    (
        "/content/shippingAddressSameAsBilling",
        "How the address was entered; it is also true for orders without shipping.",
    ),
    (
        "/content/shippingEnabled",
        "A setting of the shop; each line states whether it is shipped.",
    ),
    (
        "/content/shippingLocalizedMethod",
        "`shippingMethod` in the customer's language.",
    ),
    ("/content/shippingMethodComplete", CHECKOUT_STEP),
    ("/content/shippingRateUserDefinedId", SHIPPING_RATE),
    ("/content/status", OLDER),
    (
        "/content/subscription/**",
        "The subscription; the event reports one of its orders.",
    ),
    (
        "/content/subscriptionId",
        "The key of the subscription; `order.parent_id` is its first order.",
    ),
    ("/content/summary/**", "The sums of the order as the cart shows them."),
    ("/content/taxProvider", "The service that computed the taxes."),
    ("/content/taxableTotal", SUM),
    ("/content/taxes/*/appliesOnShipping", TAX_SETTING),
    ("/content/taxes/*/discountInducedAmountVariation", SUM),
    (
        "/content/total",
        "The total without later changes; `grandTotal` is what the customer pays.",
    ),
    (
        "/content/totalNumberOfItems",
        "A count that is 0 in Snipcart's own samples.",
    ),
    ("/content/totalPriceWithoutDiscountsAndTaxes", NET_BEFORE_DISCOUNTS),
    (
        "/content/totalRebateRate",
        "The sum of the discounts by rate; `order.discounts` lists each.",
    ),
    ("/content/totalWeight", "The sum of the weights of the lines."),
    ("/content/trackingNumber", OLDER_TRACKING),
    ("/content/trackingUrl", OLDER_TRACKING),
    (
        "/content/user/**",
        "The customer's account; the order contains the same facts about the customer.",
    ),
    ("/content/userAgent", PERSONAL),
    (
        "/content/userId",
        "The same as `user.id`, read only if the account is absent.",
    ),
    (
        "/content/willBePaidLater",
        "The same as `paymentMethod` and `paymentStatus` state.",
    ),
];

const FLAT_ADDRESS: &str = "A copy of a field of the address, read only if the address is absent.";
const CHECKOUT_STEP: &str = "A step of the checkout, which is complete once there is an order.";
const FORM: &str = "A setting of the checkout form.";
const CART: &str = "A setting of the cart.";
const SUBSCRIPTION_SETTING: &str = "A setting of the subscription, not of this order.";
const CHOICES: &str = "The choices that the customer had; `value` is what was chosen.";
const LABEL: &str = "A label for `value`, which is the value of the option.";
const COST: &str = "The price of the choice, which `unitPrice` contains.";
const SIZE: &str = "The size of the product, for which the event has no field.";
const SHOP_DATA: &str = "The shop's own data, of any shape.";
const RENEWAL: &str = "A flag for a renewal; `order.parent_id` is the order that it renews.";
const SUM: &str = "An intermediate sum.";
const PERSONAL: &str = "Personal data that is not needed to fulfil an order.";
const OLDER: &str = "The word in the order, which is older than the `to` of the event.";
const OLDER_TRACKING: &str =
    "The value in the order is older than that of the event: a removed one must not come back.";
const REFUND_METHOD: &str = "How the refund was carried out.";
const REFUND_CHANGED: &str = "When the refund was last changed; the event has when it was made.";
const REFUND_NOTICE: &str =
    "Whether the customer should be notified of the refund; the event has whether this was done.";
const NET_BEFORE_DISCOUNTS: &str = "The net price before discounts, an intermediate sum.";
const WITHOUT_OPTIONS: &str = "The price without the options; `unitPrice` contains them.";
const SHIPPING_RATE: &str = "The shop's key of the shipping rate; `order.shipping.method` is its name.";
const TAX_SETTING: &str = "A setting of the tax; the amount of the tax contains the tax on shipping.";
const FORM_CHECK: &str = "A check of the checkout form.";
