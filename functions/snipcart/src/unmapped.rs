//! The fields of Snipcart's payload that have no place in the event.

/// JSON pointers to the fields that stay in `unmapped`, each with the reason. `*` in a pointer stands for any one name or
/// index, `**` at its end for all that is below.
///
/// The functions refer to the pointers at most: the reasons are for people and tests, and are not linked.
pub const UNMAPPED: &[(&str, &str)] = &[
    (
        "/content/adjustedAmount",
        "`grandTotal` less `refundsAmount`; the event has both",
    ),
    ("/content/baseTotal", "the total again, as of before later changes"),
    (
        "/content/billingAddress/fullAddress",
        "`address1` and `address2` in one text",
    ),
    (
        "/content/billingAddress/hasMinimalRequiredInfo",
        "a check of the checkout form",
    ),
    (
        "/content/billingAddressAddress1",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/billingAddressAddress2",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/billingAddressCity",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/billingAddressCompanyName",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/billingAddressCountry",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/billingAddressFirstName",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/billingAddressName",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/billingAddressPhone",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/billingAddressPostalCode",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/billingAddressProvince",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/billingAddressComplete",
        "a step of the checkout, done once there is an order",
    ),
    (
        "/content/body",
        "the notification as an e-mail with the shop's layout; `message` is what was said",
    ),
    (
        "/content/cardHolderName",
        "a name on a card is payment data that nobody downstream needs",
    ),
    (
        "/content/cardType",
        "a brand without the card's last digits: no card paid, and the brand is a default",
    ),
    (
        "/content/customFields/*/displayValue",
        "a label for `value`, which is the option's value",
    ),
    (
        "/content/customFields/*/operation",
        "what the choice costs; `unitPrice` has it in it",
    ),
    (
        "/content/customFields/*/options",
        "what there was to choose from, in the buy button's own notation",
    ),
    (
        "/content/customFields/*/optionsArray",
        "the same choices as a list, absent where there are none",
    ),
    (
        "/content/customFields/*/optionsArray/*",
        "what there was to choose from",
    ),
    ("/content/customFields/*/required", "a setting of the form"),
    ("/content/customFields/*/type", "the kind of input in the form"),
    ("/content/customFieldsJson", "`customFields` again, as text"),
    (
        "/content/discounts/*/amount",
        "the discount as it is set up; `amountSaved` is what it saved on this order",
    ),
    (
        "/content/discounts/*/combinable",
        "a setting of the discount, not a fact of the order",
    ),
    ("/content/discounts/*/creationDate", "when the discount was set up"),
    (
        "/content/discounts/*/discountId",
        "the key of the discount in the dashboard; `code` and `name` identify it for people",
    ),
    (
        "/content/discounts/*/hasSavedAmount",
        "says that `amountSaved` is not 0",
    ),
    ("/content/discounts/*/id", "the key of this use of the discount"),
    (
        "/content/discounts/*/modificationDate",
        "when the discount was last set up",
    ),
    (
        "/content/discounts/*/trigger",
        "how the discount is set off; `code` is there where the customer entered one",
    ),
    (
        "/content/finalGrandTotal",
        "`grandTotal` less `refundsAmount`; the event has both",
    ),
    (
        "/content/hasSubscriptions",
        "says that a line is a subscription; the lines say so themselves",
    ),
    (
        "/content/ipAddress",
        "personal data that is of no use to fulfil an order",
    ),
    (
        "/content/isRecurringOrder",
        "says that the order is a renewal; `order.parent_id` names what it renews",
    ),
    (
        "/content/isRecurringV3Order",
        "says that the order is a renewal; `order.parent_id` names what it renews",
    ),
    ("/content/items/*/addedOn", "when the line was put into the cart"),
    (
        "/content/items/*/alternatePrices/*",
        "prices for groups of customers; `unitPrice` is what this one pays",
    ),
    (
        "/content/items/*/cancellationAction",
        "a setting of the subscription, not of this order",
    ),
    (
        "/content/items/*/categories",
        "the product's categories in the shop, an empty list",
    ),
    ("/content/items/*/categories/*", "the product's categories in the shop"),
    (
        "/content/items/*/customFields/*/displayValue",
        "a label for `value`, which is the option's value",
    ),
    (
        "/content/items/*/customFields/*/operation",
        "what the choice costs; `unitPrice` has it in it",
    ),
    (
        "/content/items/*/customFields/*/options",
        "what there was to choose from, in the buy button's own notation",
    ),
    (
        "/content/items/*/customFields/*/optionsArray",
        "the same choices as a list, absent where there are none",
    ),
    (
        "/content/items/*/customFields/*/optionsArray/*",
        "what there was to choose from",
    ),
    ("/content/items/*/customFields/*/required", "a setting of the form"),
    ("/content/items/*/customFields/*/type", "the kind of input in the form"),
    (
        "/content/items/*/customFields/*/placeholder",
        "a hint in the empty form",
    ),
    ("/content/items/*/description", "the shop's text about the product"),
    ("/content/items/*/duplicatable", "a setting of the cart"),
    (
        "/content/items/*/fileGuid",
        "the key of a download at Snipcart, which delivers it",
    ),
    (
        "/content/items/*/hasDimensions",
        "says whether length, width and height are there",
    ),
    (
        "/content/items/*/hasTaxesIncluded",
        "true: prices include the tax, and the net price of one is not stated",
    ),
    (
        "/content/items/*/height",
        "the product's size, for which the event has no place",
    ),
    (
        "/content/items/*/initialData",
        "what the buy button passed on, of any shape",
    ),
    (
        "/content/items/*/length",
        "the product's size, for which the event has no place",
    ),
    ("/content/items/*/maxQuantity", "a limit of the cart"),
    ("/content/items/*/metadata", "data of the shop's own, of any shape"),
    ("/content/items/*/metadata/**", "data of the shop's own, of any shape"),
    ("/content/items/*/minQuantity", "a limit of the cart"),
    (
        "/content/items/*/modificationDate",
        "when the line was last changed in the cart",
    ),
    (
        "/content/items/*/parcels",
        "how the shop packs the product, of undocumented shape",
    ),
    (
        "/content/items/*/pausingAction",
        "a setting of the subscription, not of this order",
    ),
    (
        "/content/items/*/paymentSchedule/*",
        "when the subscription is charged again; each renewal is an order of its own",
    ),
    (
        "/content/items/*/price",
        "the price without the options; `unitPrice` has them in it",
    ),
    ("/content/items/*/stackable", "a setting of the cart"),
    (
        "/content/items/*/taxable",
        "whether the product is taxed; the taxes are listed on the order",
    ),
    (
        "/content/items/*/taxes",
        "the names of the taxes on the line, an empty list",
    ),
    (
        "/content/items/*/taxes/*",
        "the name of a tax on the line, without an amount; the order lists the taxes",
    ),
    (
        "/content/items/*/token",
        "the key of the product in the dashboard, not the shop's",
    ),
    (
        "/content/items/*/totalPriceWithoutDiscountsAndTaxes",
        "the net price before discounts, an intermediate sum",
    ),
    (
        "/content/items/*/totalWeight",
        "`weight` times `quantity`, which the event has both",
    ),
    (
        "/content/items/*/width",
        "the product's size, for which the event has no place",
    ),
    (
        "/content/itemsCount",
        "how many lines there are; `order.items` has them",
    ),
    ("/content/metadata", "data of the shop's own, of any shape"),
    ("/content/metadata/**", "data of the shop's own, of any shape"),
    ("/content/mode", "the delivery's `mode` again"),
    (
        "/content/modificationDate",
        "when a refund was last changed; the event has when it was made",
    ),
    (
        "/content/notifyCustomer",
        "whether the customer was to be told of the refund; the event has whether they were",
    ),
    (
        "/content/numberOfItemsInOrder",
        "how many pieces there are; the lines have their quantities",
    ),
    (
        "/content/order/items/*/price",
        "the price without the options; `unitPrice` has them in it",
    ),
    (
        "/content/order/shippingInformation/userDefinedId",
        "the shop's key of the shipping rate; `order.shipping.method` has its name",
    ),
    (
        "/content/order/taxes/*/appliesOnShipping",
        "a setting of the tax; its amount has shipping in it",
    ),
    (
        "/content/parentInvoiceNumber",
        "the number of the order that this one renews; `order.parent_id` is its key",
    ),
    (
        "/content/paymentDetails/*",
        "texts for the confirmation page about paying offline",
    ),
    (
        "/content/paymentStatus",
        "the status in the order, older than the `to` of the event",
    ),
    ("/content/plans", "the subscriptions in the order, an empty list"),
    (
        "/content/plans/**",
        "the subscriptions in the order, of undocumented shape; `order.items` is null beside them",
    ),
    (
        "/content/recoveredFromCampaignId",
        "which campaign brought the customer back, of use to marketing alone",
    ),
    (
        "/content/refundedByPaymentGateway",
        "how the refund was carried out, not that it was",
    ),
    (
        "/content/refunds/*/modificationDate",
        "when a refund was last changed; the event has when it was made",
    ),
    (
        "/content/refunds/*/notifyCustomer",
        "whether the customer was to be told of the refund; the event has whether they were",
    ),
    (
        "/content/refunds/*/orderToken",
        "the key of the order that the refund is in",
    ),
    (
        "/content/refunds/*/refundedByPaymentGateway",
        "how the refund was carried out, not that it was",
    ),
    (
        "/content/resourceUrl",
        "a link in the notification's e-mail, to a page for the customer",
    ),
    (
        "/content/savedAmount",
        "the discount again, read where `rebateAmount` is absent",
    ),
    (
        "/content/sentByEmailOn",
        "when the notification was sent; the event has that it was",
    ),
    (
        "/content/shippingAddress/fullAddress",
        "`address1` and `address2` in one text",
    ),
    (
        "/content/shippingAddress/hasMinimalRequiredInfo",
        "a check of the checkout form",
    ),
    (
        "/content/shippingAddressAddress1",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/shippingAddressAddress2",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/shippingAddressCity",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/shippingAddressCompanyName",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/shippingAddressCountry",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/shippingAddressFirstName",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/shippingAddressName",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/shippingAddressPhone",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/shippingAddressPostalCode",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/shippingAddressProvince",
        "a copy of a field of the address, read where the address is absent",
    ),
    (
        "/content/shippingAddressComplete",
        "a step of the checkout, done once there is an order",
    ),
    (
        "/content/shippingAddressSameAsBilling",
        "how the address was entered; it is true for orders without shipping, too",
    ),
    (
        "/content/shippingEnabled",
        "a setting of the shop; each line says whether it is shipped",
    ),
    (
        "/content/shippingLocalizedMethod",
        "`shippingMethod` in the customer's language",
    ),
    (
        "/content/shippingMethodComplete",
        "a step of the checkout, done once there is an order",
    ),
    (
        "/content/shippingRateUserDefinedId",
        "the shop's key of the shipping rate; `order.shipping.method` has its name",
    ),
    (
        "/content/status",
        "the status in the order, older than the `to` of the event",
    ),
    (
        "/content/subscription/**",
        "the subscription, of which the event reports one order",
    ),
    (
        "/content/subscriptionId",
        "the key of the subscription; `order.parent_id` names its first order",
    ),
    (
        "/content/summary/**",
        "the sums of the order again, as the cart shows them",
    ),
    ("/content/taxProvider", "which service computed the taxes"),
    ("/content/taxableTotal", "the sum that is taxed, an intermediate sum"),
    (
        "/content/taxes/*/appliesOnShipping",
        "a setting of the tax; its amount has shipping in it",
    ),
    (
        "/content/taxes/*/discountInducedAmountVariation",
        "how discounts changed the tax, an intermediate sum",
    ),
    (
        "/content/total",
        "the total before it was finished; `grandTotal` is what the customer pays",
    ),
    ("/content/totalNumberOfItems", "a count that Snipcart itself sends as 0"),
    (
        "/content/totalPriceWithoutDiscountsAndTaxes",
        "the net price before discounts, an intermediate sum",
    ),
    (
        "/content/totalRebateRate",
        "all discounts by rate in one; `order.discounts` has each",
    ),
    ("/content/totalWeight", "the sum of the weights of the lines"),
    (
        "/content/trackingNumber",
        "the number in the order, older than the one of the event; a removed one must not come back",
    ),
    (
        "/content/trackingUrl",
        "the address in the order, older than the one of the event; a removed one must not come back",
    ),
    (
        "/content/user/**",
        "the customer's account: what it says of the customer is in the order itself",
    ),
    (
        "/content/userAgent",
        "personal data that is of no use to fulfil an order",
    ),
    ("/content/userId", "`user.id` again, read where the account is absent"),
    (
        "/content/willBePaidLater",
        "says what `paymentMethod` and `paymentStatus` say",
    ),
];
