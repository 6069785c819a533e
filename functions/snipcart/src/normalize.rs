//! Maps Snipcart's payload to the normalized event, field by field.

use shared::event::{
    Address, Adjustment, AdjustmentKind, Card, Change, CustomField, Customer, Discount, Fulfillment, Item, ItemOption,
    ItemReference, Notification, Order, Payment, PaymentStatus, Refund, Shipping, TaxLine, Totals, unless_empty,
};
use shared::payload::{Fields, Payload, Value};
use shared::provider::{Assumed, Normalized};

use crate::payload::{Event, is_test, payment_status, status};

pub(crate) fn normalize(event: Event, payload: &Payload) -> Normalized {
    let root = payload.root();
    let content = root.object("content");
    let changes = matches!(event, Event::StatusChanged | Event::PaymentStatusChanged);
    let change = changes
        .then(|| Change {
            from: root.text("from"),
            to: root.text("to"),
        })
        .and_then(unless_empty);
    let to = change.as_ref().and_then(|change| change.to.as_deref());
    let mut assumed = Assumed::default();
    let partial = event.names_order_only() || is_renewal_without_items(event, &content);
    let order = match event {
        Event::RefundCreated => refunded_order(&content),
        Event::NotificationCreated => order_of_token(&content),
        Event::WithdrawalCreated => withdrawn_order(&content, &mut assumed),
        Event::RenewalPaid | Event::RenewalFailed => renewed_order(event, &root, &content, &mut assumed),
        _ => order(event, to, &root, &content),
    };
    let event_type = event.event_type(to);
    Normalized {
        time: root.time("createdOn"),
        test: root.read("mode", is_test).unwrap_or(false),
        partial,
        change,
        refund: (event == Event::RefundCreated)
            .then(|| refund(&content))
            .and_then(unless_empty),
        notification: (event == Event::NotificationCreated)
            .then(|| notification(&content))
            .and_then(unless_empty),
        assumed: assumed.into_pointers(),
        ..Normalized::new(event_type, root.text("eventName").unwrap_or_default(), order)
    }
}

fn order(event: Event, to: Option<&str>, root: &Fields<'_>, content: &Fields<'_>) -> Order {
    let id = content.id("token");
    // The top level of the payload is newer than the order in `content`.
    let word = |changed_by: Event, field: &str| match to {
        Some(to) if event == changed_by => Some(to.to_owned()),
        _ => content.text(field),
    };
    let tracking = if event == Event::TrackingNumberChanged {
        root
    } else {
        content
    };
    let status_word = word(Event::StatusChanged, "status");
    let payment_word = word(Event::PaymentStatusChanged, "paymentStatus");
    // The order of a renewal has its shipping in `shippingInformation`.
    let shipping_information = content.object("shippingInformation");
    let completed_at = content.time("completionDate");
    Order {
        number: content.id("invoiceNumber").or_else(|| id.clone()),
        id,
        parent_id: content.id("parentToken"),
        locale: content.text("lang"),
        status: status_word.as_deref().map(|word| status(word).0),
        provider_status: status_word,
        payment_status: payment_word.as_deref().map(|word| payment_status(word).0),
        provider_payment_status: payment_word,
        currency: content.currency("currency"),
        totals: Totals {
            items: content.price("itemsTotal"),
            // `savedAmount` is the name since version 3.
            discount: content.price("rebateAmount").or_else(|| content.price("savedAmount")),
            subtotal: content.price("subtotal"),
            shipping: content
                .price("shippingFees")
                .or_else(|| shipping_information.price("cost")),
            tax: content.amount("taxesTotal"),
            total: content.price("grandTotal").or_else(|| content.price("total")),
            refunded: content.amount("refundsAmount"),
            ..Totals::default()
        },
        discounts: content
            .objects("discounts")
            .map(|discounts| discounts.iter().map(discount).collect()),
        tax_lines: content
            .objects("taxes")
            .map(|taxes| taxes.iter().map(tax_line).collect()),
        // An empty list would also state that there is no withdrawal, and an order does not list its withdrawals.
        adjustments: content
            .objects("refunds")
            .filter(|refunds| !refunds.is_empty())
            .map(|refunds| refunds.iter().map(adjustment).collect()),
        customer: unless_empty(Customer {
            id: content.object("user").id("id").or_else(|| content.id("userId")),
            email: content.text("email"),
            ..Customer::default()
        }),
        billing_address: address(&content.object("billingAddress")).or_else(|| flat_address(content, "billingAddress")),
        shipping_address: address(&content.object("shippingAddress"))
            .or_else(|| flat_address(content, "shippingAddress")),
        items: items(content),
        shipping: shipping(content, &shipping_information, tracking),
        payment: Payment {
            method: content.text("paymentMethod"),
            gateway: content.text("paymentGatewayUsed"),
            id: content.id("paymentTransactionId"),
            card: card(content),
            ..Payment::default()
        },
        note: content.text("notes"),
        custom_fields: content
            .objects("customFields")
            .map(|fields| fields.iter().map(custom_field).collect()),
        // `creationDate` is when the cart was opened, `completionDate` when the customer checked out.
        placed_at: if content.has("completionDate") {
            completed_at
        } else {
            content.time("creationDate")
        },
        updated_at: content.time("modificationDate"),
        completed_at,
        ..Order::default()
    }
}

/// Returns an order of which the payload holds only the token.
fn order_of_token(content: &Fields<'_>) -> Order {
    let id = content.id("orderToken");
    Order {
        number: id.clone(),
        id,
        ..Order::default()
    }
}

fn refunded_order(content: &Fields<'_>) -> Order {
    Order {
        adjustments: Some(vec![adjustment(content)]),
        ..order_of_token(content)
    }
}

/// Returns the order that the customer withdraws from, with the withdrawal and its items. The fields of the items are
/// not documented.
fn withdrawn_order(content: &Fields<'_>, assumed: &mut Assumed) -> Order {
    let named = order_of_token(content);
    // The list may be empty if the customer withdraws from the complete order. That does not mean that the order has
    // no items.
    let items: Option<Vec<Item>> = content
        .objects("items")
        .filter(|items| !items.is_empty())
        .map(|items| items.iter().map(item).collect());
    let items = assumed.note("/data/order/items", items);
    let references = |items: &Vec<Item>| items.iter().map(reference).collect();
    Order {
        number: content.id("orderInvoiceNumber").or_else(|| named.number.clone()),
        customer: unless_empty(Customer {
            name: content.text("customerName"),
            ..Customer::default()
        }),
        adjustments: Some(vec![Adjustment {
            id: content.id("id"),
            number: content.id("confirmationNumber"),
            kind: Some(AdjustmentKind::Withdrawal),
            amount: content.amount("refundAmount"),
            resolution: content.text("resolution"),
            partial: content.flag("isPartial"),
            outside_period: content.flag("isOutsideWithdrawalPeriod"),
            items: items.as_ref().map(references),
            created_at: content.time("requestedAt"),
            ..Adjustment::default()
        }]),
        items,
        ..named
    }
}

/// Returns the order that renews a subscription. Facts that the order lacks come from the subscription and from the
/// name of the event.
fn renewed_order(event: Event, root: &Fields<'_>, content: &Fields<'_>, assumed: &mut Assumed) -> Order {
    let subscription = content.object("subscription");
    let mut renewed = order(event, None, root, &content.object("order"));
    if renewed.parent_id.is_none() {
        renewed.parent_id = subscription.object("initialOrder").id("token");
    }
    if renewed.items.is_none() {
        renewed.items = assumed.note("/data/order/items", items(&subscription));
    }
    if renewed.payment_status.is_none() {
        let by_name = if event == Event::RenewalPaid {
            PaymentStatus::Paid
        } else {
            PaymentStatus::Failed
        };
        renewed.payment_status = assumed.note("/data/order/payment_status", Some(by_name));
    }
    if renewed.payment.card.is_none() {
        let card = subscription.object("card");
        renewed.payment.card = unless_empty(Card {
            brand: card.text("brand"),
            last4: card.id("last4"),
        });
    }
    renewed
}

/// Whether the order of a renewal lists no items of its own, which does not mean that it has none.
fn is_renewal_without_items(event: Event, content: &Fields<'_>) -> bool {
    event.is_renewal() && !content.object("order").has("items")
}

fn discount(fields: &Fields<'_>) -> Discount {
    Discount {
        code: fields.text("code"),
        name: fields.text("name"),
        kind: fields.text("type"),
        rate: fields.amount("rate"),
        amount: fields.price("amountSaved"),
    }
}

/// Reads a tax. In the order of a renewal, its fields have shorter names.
fn tax_line(fields: &Fields<'_>) -> TaxLine {
    TaxLine {
        id: fields.id("numberForInvoice"),
        name: fields.text("taxName").or_else(|| fields.text("name")),
        rate: fields.fraction("taxRate").or_else(|| fields.fraction("rate")),
        amount: fields.amount("amount"),
        included: fields.flag("includedInPrice"),
    }
}

/// Reads a refund as an adjustment of its order.
fn adjustment(fields: &Fields<'_>) -> Adjustment {
    let refund = refund(fields);
    Adjustment {
        id: fields.id("id"),
        kind: Some(AdjustmentKind::Refund),
        amount: refund.amount,
        currency: refund.currency,
        reason: refund.reason,
        customer_notified: refund.customer_notified,
        created_at: fields.time("creationDate"),
        ..Adjustment::default()
    }
}

fn address(fields: &Fields<'_>) -> Option<Address> {
    if !fields.exist() {
        return None;
    }
    let [full, first, last] = names(fields.text("fullName"), fields.text("firstName"), fields.text("name"));
    unless_empty(Address {
        name: full,
        first_name: first,
        last_name: last,
        company: fields.text("company"),
        line1: fields.text("address1"),
        line2: fields.text("address2"),
        city: fields.text("city"),
        region_code: fields.look("province", Value::as_text).and_then(region_code),
        region: fields.text("province"),
        postal_code: fields.id("postalCode"),
        country: fields.country("country"),
        phone: fields.text("phone").or_else(|| fields.text("phoneNumber")),
        tax_id: fields.id("vatNumber"),
        ..Address::default()
    })
}

/// Reads the copy of an address in fields of the order, which counts only if the address itself is absent.
fn flat_address(content: &Fields<'_>, prefix: &str) -> Option<Address> {
    let name = |field: &str| format!("{prefix}{field}");
    let text = |field: &str| content.text(&name(field));
    let [full, first, last] = names(None, text("FirstName"), text("Name"));
    unless_empty(Address {
        name: full,
        first_name: first,
        last_name: last,
        company: text("CompanyName"),
        line1: text("Address1"),
        line2: text("Address2"),
        city: text("City"),
        region_code: content.look(&name("Province"), Value::as_text).and_then(region_code),
        region: text("Province"),
        postal_code: content.id(&name("PostalCode")),
        country: content.country(&name("Country")),
        phone: text("Phone"),
        ..Address::default()
    })
}

/// Returns the full, first and last name. `name` is the full name if it equals `full`, or if both `full` and `first`
/// are absent. Otherwise, it is the last name.
fn names(full: Option<String>, first: Option<String>, name: Option<String>) -> [Option<String>; 3] {
    let is_full = if full.is_none() { first.is_none() } else { full == name };
    if is_full {
        [name, first, None]
    } else {
        [full, first, name]
    }
}

/// Returns the province if it is a code, such as `QC`: the part of an ISO 3166-2 code after the country.
fn region_code(province: &str) -> Option<String> {
    let is_code = province
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    (is_code && (1..=3).contains(&province.len())).then(|| province.to_owned())
}

/// Returns the items of an order, or `None` if it has plans and no items. The fields of plans are not documented, so
/// they are not read, and an empty list would state that nothing was ordered.
fn items(fields: &Fields<'_>) -> Option<Vec<Item>> {
    let items: Vec<Item> = fields.objects("items")?.iter().map(item).collect();
    // Plans that are neither a list nor an object are warned of, and still count as plans.
    let has_plans = || fields.has("plans") && fields.look("plans", Value::is_empty) != Some(true);
    if items.is_empty() && has_plans() {
        return None;
    }
    Some(items)
}

fn item(fields: &Fields<'_>) -> Item {
    let product = fields.id("id");
    // `price` does not contain the price of the options.
    let unit_price = fields.price("unitPrice");
    let is_net = unit_price.is_some() && fields.look("hasTaxesIncluded", Value::as_flag) == Some(false);
    if is_net {
        fields.take("hasTaxesIncluded");
    }
    Item {
        id: fields.id("uniqueId"),
        sku: product.clone(),
        product_id: product,
        name: fields.text("name"),
        options: fields
            .objects("customFields")
            .unwrap_or_default()
            .iter()
            .map(option)
            .collect(),
        quantity: fields.quantity("quantity"),
        unit_price,
        unit_price_net: unit_price.filter(|_| is_net),
        original_unit_price: fields.price("originalPrice"),
        total: fields.price("totalPrice"),
        total_net: fields.price("totalPriceWithoutTaxes"),
        requires_shipping: fields.flag("shippable"),
        weight: fields.quantity("weight"),
        url: fields.text("url"),
        image_url: fields.text("image"),
        ..Item::default()
    }
}

fn option(fields: &Fields<'_>) -> ItemOption {
    ItemOption {
        name: fields.text("name"),
        value: fields.scalar("value"),
    }
}

fn reference(item: &Item) -> ItemReference {
    ItemReference {
        id: item.id.clone(),
        quantity: item.quantity,
    }
}

fn shipping(content: &Fields<'_>, shipping_information: &Fields<'_>, tracking: &Fields<'_>) -> Shipping {
    let shipping = Shipping {
        method: content
            .text("shippingMethod")
            .or_else(|| shipping_information.text("method")),
        carrier: content.text("shippingProvider"),
        tracking_number: tracking.id("trackingNumber"),
        tracking_url: tracking.text("trackingUrl"),
        ..Shipping::default()
    };
    // Snipcart has one tracking number per order, so the order is one parcel as soon as it has a number or a URL.
    let is_tracked = shipping.tracking_number.is_some() || shipping.tracking_url.is_some();
    let parcel = is_tracked.then(|| Fulfillment {
        carrier: shipping.carrier.clone(),
        tracking_number: shipping.tracking_number.clone(),
        tracking_url: shipping.tracking_url.clone(),
        ..Fulfillment::default()
    });
    Shipping {
        fulfillments: parcel.map(|parcel| vec![parcel]),
        ..shipping
    }
}

/// Returns the card that paid. An order that was not paid by card names a default brand, but no digits.
fn card(content: &Fields<'_>) -> Option<Card> {
    let last4 = content.id("creditCardLast4Digits")?;
    Some(Card {
        brand: content.text("cardType"),
        last4: Some(last4),
    })
}

fn custom_field(fields: &Fields<'_>) -> CustomField {
    CustomField {
        name: fields.text("name"),
        value: fields.scalar("value"),
    }
}

fn refund(content: &Fields<'_>) -> Refund {
    Refund {
        amount: content.amount("amount"),
        currency: content.currency("currency"),
        reason: content.text("comment"),
        customer_notified: content.flag("notifiedCustomerByEmail"),
    }
}

fn notification(content: &Fields<'_>) -> Notification {
    Notification {
        kind: content.text("notificationType"),
        subject: content.text("subject"),
        message: content.text("message"),
        sent_by_email: content.flag("sentByEmail"),
    }
}
