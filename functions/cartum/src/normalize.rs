//! Maps Cartum's payload to the normalized event, field by field.

use jiff::tz::TimeZone;
use shared::event::{
    Address, Customer, Discount, Fulfillment, Item, ItemKind, Order, Payment, PaymentStatus, PickupPoint, Shipping,
    Totals, unless_empty,
};
use shared::money::Amount;
use shared::payload::{Fields, Payload, Value};
use shared::provider::{Assumed, Normalized};

use crate::payload::{CANCELED, Event, item_kind, payment_status, status};

pub(crate) fn normalize(event: Event, payload: &Payload, time_zone: &TimeZone) -> Normalized {
    let root = payload.root();
    let mut assumed = Assumed::default();
    let order = order(event, &root, time_zone, &mut assumed);
    // In `order_paid` the payment status is paid whatever the word is, so an unknown word would go unnoticed.
    let payment_word = order.provider_payment_status.as_deref();
    let is_unknown = payment_word.is_some_and(|word| payment_status(word) == PaymentStatus::Unknown);
    // `stat_created` is when the order was placed. For a later change, the time of receipt is closer.
    let time = order.placed_at.filter(|_| event == Event::OrderCreated);
    Normalized {
        time: assumed.note("/time", time),
        assumed: assumed.into_pointers(),
        unknown_words: is_unknown.then_some("/data/order/payment_status").into_iter().collect(),
        ..Normalized::new(
            event.event_type(order.provider_status.as_deref()),
            event.as_str(),
            order,
        )
    }
}

fn order(event: Event, root: &Fields<'_>, time_zone: &TimeZone, assumed: &mut Assumed) -> Order {
    let id = root.id("order_id");
    let status_word = root.id("stat_status");
    let mut status = status_word.as_deref().map(|word| status(word).0);
    if status_word.as_deref() == Some(CANCELED) {
        status = assumed.note("/data/order/status", status);
    }
    let payment_word = root.id("payed");
    let mut payment_status = payment_word.as_deref().map(payment_status);
    // If the body contradicts `order_paid`, the body is probably older than the payment.
    if event == Event::OrderPaid && payment_status != Some(PaymentStatus::Paid) {
        payment_status = assumed.note("/data/order/payment_status", Some(PaymentStatus::Paid));
    }
    Order {
        number: id.clone(),
        id,
        status,
        provider_status: status_word,
        payment_status,
        provider_payment_status: payment_word,
        currency: root.currency("currency"),
        // `total_sum` does not contain shipping, so it is not the total.
        totals: Totals {
            items: root.price("total_default"),
            subtotal: root.price("total_sum"),
            // -1 means "by the carrier's tariff".
            shipping: root.price("delivery_price"),
            ..Totals::default()
        },
        discounts: discounts(root, assumed),
        customer: unless_empty(Customer {
            // `user` differs for nearly every order, so it does not identify a customer.
            name: root.text("delivery_name"),
            email: root.text("delivery_email"),
            phone: root.text("delivery_phone"),
            ..Customer::default()
        }),
        shipping_address: unless_empty(Address {
            name: root.text("delivery_name"),
            // For UkrPoshta it holds several fields separated by `@`. Their order is not documented.
            line1: root.text("delivery_address"),
            city: root.text("delivery_city"),
            phone: root.text("delivery_phone"),
            ..Address::default()
        }),
        items: root
            .objects("products")
            .map(|products| products.iter().map(item).collect()),
        shipping: shipping(root),
        payment: payment(&root.object("payment_type")),
        note: root.text("comment"),
        placed_at: assumed.note("/data/order/placed_at", root.time_in("stat_created", time_zone)),
        ..Order::default()
    }
}

/// Reads the shop's own discount, the coupon's, and the one that a manager gave.
///
/// An amount of 0 means that the discount was not given, and a negative number is not an amount. Both stay in
/// `unmapped`.
fn discounts(root: &Fields<'_>, assumed: &mut Assumed) -> Option<Vec<Discount>> {
    let saved = |name: &str| root.look(name, Value::as_amount);
    let is_given = |amount: Option<Amount>| amount.is_some_and(|amount| amount > Amount::ZERO);
    let is_zero = |amount: Option<Amount>| amount == Some(Amount::ZERO);
    let (own, coupon, manager) = (
        saved("discount_value"),
        saved("coupon_discount_value"),
        saved("manager_discount"),
    );
    let code = root.text("coupon_code");
    let mut discounts = Vec::new();
    if is_given(own) {
        discounts.push(Discount {
            rate: rate(root, "discount_percent"),
            amount: root.price("discount_value"),
            ..Discount::default()
        });
    }
    if code.is_some() || is_given(coupon) {
        discounts.push(Discount {
            code,
            kind: Some("coupon".to_owned()),
            rate: rate(root, "coupon_percent"),
            amount: root.price("coupon_discount_value"),
            ..Discount::default()
        });
    }
    // This field is known from the orders API only; it has not been seen in a delivery.
    if is_given(manager) {
        let pointer = |field: &str| format!("/data/order/discounts/{}/{field}", discounts.len());
        let (name, amount) = (pointer("name"), pointer("amount"));
        discounts.push(Discount {
            name: assumed.note(name, root.text("manager_discount_title")),
            kind: Some("manager".to_owned()),
            amount: assumed.note(amount, root.price("manager_discount")),
            ..Discount::default()
        });
    }
    // An empty list states that no discount was given. The sums must confirm it, because an unknown field may hold a
    // discount.
    let sums_agree = || {
        let sum = saved("total_sum");
        sum.is_some() && sum == saved("total_default")
    };
    let is_without_manager = is_zero(manager) || !root.has("manager_discount");
    let is_known = is_zero(own) && is_zero(coupon) && is_without_manager && sums_agree();
    (is_known || !discounts.is_empty()).then_some(discounts)
}

/// Reads a rate. A rate of 0 means that the discount is a fixed amount, and stays in `unmapped`.
fn rate(root: &Fields<'_>, name: &str) -> Option<Amount> {
    let rate = root.look(name, Value::as_amount).filter(|rate| *rate > Amount::ZERO)?;
    root.take(name);
    Some(rate)
}

fn item(fields: &Fields<'_>) -> Item {
    Item {
        kind: kind(fields),
        sku: fields.id("article"),
        name: fields.text("title"),
        quantity: fields.quantity("quantity"),
        unit_price: fields.price("price"),
        total: fields.price("total_price"),
        url: fields.text("url"),
        image_url: fields.text("photo_url"),
        ..Item::default()
    }
}

/// Reads the kind of an item. A word without a mapping stays in `unmapped`.
fn kind(fields: &Fields<'_>) -> Option<ItemKind> {
    let kind = item_kind(fields.look("type", Value::as_text)?);
    if kind != ItemKind::Unknown {
        fields.take("type");
    }
    Some(kind)
}

/// Reads the shipping. An order has one parcel, so its waybill is the tracking number of the order too.
fn shipping(root: &Fields<'_>) -> Shipping {
    let waybill = root.object("delivery_data").id("tnNumber");
    let branch = root.object("delivery_branch");
    Shipping {
        method: root.object("delivery_type").text("title"),
        tracking_number: waybill.clone(),
        pickup_point: unless_empty(PickupPoint {
            number: branch.id("number"),
            r#ref: branch.id("ref"),
            ..PickupPoint::default()
        }),
        fulfillments: waybill.map(|waybill| {
            vec![Fulfillment {
                tracking_number: Some(waybill),
                ..Fulfillment::default()
            }]
        }),
        ..Shipping::default()
    }
}

fn payment(payment_type: &Fields<'_>) -> Payment {
    Payment {
        method: payment_type.text("title"),
        method_id: payment_type.id("id"),
        ..Payment::default()
    }
}
