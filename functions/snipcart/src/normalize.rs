//! Snipcart's order in our words.

use shared::event::{
    Address, Change, Customer, Discount, Item, ItemOption, Notification, Order, Payment, Refund, Shipping, TaxLine,
    Totals, unless_empty,
};
use shared::payload::{Fields, Payload};
use shared::provider::Normalized;

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
    let partial = matches!(event, Event::RefundCreated | Event::NotificationCreated);
    let order = if partial {
        order_named_only(event, &content)
    } else {
        order(event, to, &root, &content)
    };
    let event_type = event.event_type(to);
    root.take("eventName");
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
        ..Normalized::new(event_type, event.as_str(), order)
    }
}

fn order(event: Event, to: Option<&str>, root: &Fields<'_>, content: &Fields<'_>) -> Order {
    let id = content.id("token");
    // What the event says at its top is newer than the order it carries.
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
    Order {
        number: content.id("invoiceNumber").or_else(|| id.clone()),
        id,
        status: status_word.as_deref().map(status),
        provider_status: status_word,
        payment_status: payment_word.as_deref().map(payment_status),
        provider_payment_status: payment_word,
        currency: content.currency("currency"),
        totals: Totals {
            items: content.amount("itemsTotal"),
            discount: content.amount("rebateAmount"),
            subtotal: content.amount("subtotal"),
            shipping: content.amount("shippingFees"),
            tax: content.amount("taxesTotal"),
            total: content.amount("grandTotal"),
            ..Totals::default()
        },
        discounts: content
            .objects("discounts")
            .map(|discounts| discounts.iter().map(discount).collect()),
        tax_lines: content
            .objects("taxes")
            .map(|taxes| taxes.iter().map(tax_line).collect()),
        customer: unless_empty(Customer {
            id: content.object("user").id("id"),
            email: content.text("email"),
            ..Customer::default()
        }),
        billing_address: address(&content.object("billingAddress")),
        shipping_address: address(&content.object("shippingAddress")),
        items: content.objects("items").map(|items| items.iter().map(item).collect()),
        shipping: Shipping {
            method: content.text("shippingMethod"),
            carrier: content.text("shippingProvider"),
            tracking_number: tracking.id("trackingNumber"),
            tracking_url: tracking.text("trackingUrl"),
            ..Shipping::default()
        },
        payment: Payment {
            method: content.text("paymentMethod"),
            id: content.id("paymentTransactionId"),
            ..Payment::default()
        },
        note: None,
        placed_at: content.time("creationDate"),
        updated_at: content.time("modificationDate"),
        ..Order::default()
    }
}

/// Refunds and notifications know their order by its token alone.
fn order_named_only(event: Event, content: &Fields<'_>) -> Order {
    let id = content.id(event.order_field());
    Order {
        number: id.clone(),
        id,
        ..Order::default()
    }
}

fn discount(fields: &Fields<'_>) -> Discount {
    Discount {
        code: fields.text("code"),
        name: fields.text("name"),
        amount: fields.amount("amountSaved"),
        ..Discount::default()
    }
}

fn tax_line(fields: &Fields<'_>) -> TaxLine {
    TaxLine {
        name: fields.text("taxName"),
        rate: fields.fraction("taxRate"),
        amount: fields.amount("amount"),
        included: fields.flag("includedInPrice"),
        ..TaxLine::default()
    }
}

fn address(fields: &Fields<'_>) -> Option<Address> {
    unless_empty(Address {
        name: fields.text("fullName"),
        first_name: fields.text("firstName"),
        // `name` is the last name: the whole one is `fullName`.
        last_name: fields.text("name"),
        company: fields.text("company"),
        line1: fields.text("address1"),
        line2: fields.text("address2"),
        city: fields.text("city"),
        region: fields.text("province"),
        postal_code: fields.id("postalCode"),
        country: fields.country("country"),
        phone: fields.text("phone"),
        ..Address::default()
    })
}

fn item(fields: &Fields<'_>) -> Item {
    let product = fields.id("id");
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
        // `price` leaves the options out.
        unit_price: fields.amount("unitPrice"),
        total: fields.amount("totalPrice"),
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
