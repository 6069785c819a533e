//! Cartum's order in our words.

use jiff::tz::TimeZone;
use shared::event::{Address, Customer, Discount, EventType, Item, Order, Payment, Shipping, Totals, unless_empty};
use shared::money::Amount;
use shared::payload::{Fields, Payload, Value};
use shared::provider::{Assumed, Normalized};

use crate::payload::{BY_CARRIERS_TARIFF, ORDER_EVENT, payment_status, status};

pub(crate) fn normalize(payload: &Payload, time_zone: &TimeZone) -> Normalized {
    let root = payload.root();
    let mut assumed = Assumed::default();
    let order = order(&root, time_zone, &mut assumed);
    Normalized {
        time: assumed.note("/time", order.placed_at),
        assumed: assumed.into_pointers(),
        ..Normalized::new(EventType::Created, ORDER_EVENT, order)
    }
}

fn order(root: &Fields<'_>, time_zone: &TimeZone, assumed: &mut Assumed) -> Order {
    let id = root.id("order_id");
    let status_word = root.id("stat_status");
    let payment_word = root.id("payed");
    Order {
        number: id.clone(),
        id,
        status: status_word.as_deref().map(status),
        provider_status: status_word,
        payment_status: payment_word.as_deref().map(payment_status),
        provider_payment_status: payment_word,
        currency: root.currency("currency"),
        // `total_sum` leaves shipping out, so there is no total.
        totals: Totals {
            items: root.amount("total_default"),
            subtotal: root.amount("total_sum"),
            shipping: root.amount_unless("delivery_price", BY_CARRIERS_TARIFF),
            ..Totals::default()
        },
        discounts: discounts(root),
        tax_lines: None,
        customer: unless_empty(Customer {
            // "Unique for each user": hardly the key of a customer, but nothing else is.
            id: assumed.note("/data/order/customer/id", root.id("user")),
            name: root.text("delivery_name"),
            email: root.text("delivery_email"),
            phone: root.text("delivery_phone"),
            ..Customer::default()
        }),
        billing_address: None,
        shipping_address: unless_empty(Address {
            name: root.text("delivery_name"),
            // For UkrPoshta the fields of the address are separated by `@`; which is which is documented nowhere.
            line1: root.text("delivery_address"),
            city: root.text("delivery_city"),
            phone: root.text("delivery_phone"),
            ..Address::default()
        }),
        items: root
            .objects("products")
            .map(|products| products.iter().map(item).collect()),
        shipping: Shipping {
            method: root.object("delivery_type").text("title"),
            ..Shipping::default()
        },
        payment: Payment {
            method: root.object("payment_type").text("title"),
            ..Payment::default()
        },
        note: root.text("comment"),
        placed_at: assumed.note("/data/order/placed_at", root.time_in("stat_created", time_zone)),
        updated_at: None,
        ..Order::default()
    }
}

/// A discount of 0 is none, and stays in `unmapped`.
fn discounts(root: &Fields<'_>) -> Option<Vec<Discount>> {
    let own = root.look("discount_value", Value::as_amount);
    let coupon = root.look("coupon_discount_value", Value::as_amount);
    let code = root.text("coupon_code");
    let mut discounts = Vec::new();
    if own.is_some_and(|amount| amount != Amount::ZERO) {
        discounts.push(Discount {
            amount: root.amount("discount_value"),
            ..Discount::default()
        });
    }
    if code.is_some() || coupon.is_some_and(|amount| amount != Amount::ZERO) {
        discounts.push(Discount {
            code,
            amount: root.amount("coupon_discount_value"),
            ..Discount::default()
        });
    }
    (own.is_some() || !discounts.is_empty()).then_some(discounts)
}

fn item(fields: &Fields<'_>) -> Item {
    Item {
        sku: fields.id("article"),
        name: fields.text("title"),
        quantity: fields.quantity("quantity"),
        unit_price: fields.amount("price"),
        total: fields.amount("total_price"),
        url: fields.text("url"),
        image_url: fields.text("photo_url"),
        ..Item::default()
    }
}
