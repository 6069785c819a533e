//! Selldone's order in our words.

use shared::event::{
    Address, Customer, Discount, Item, Order, Payment, Shipping, Status, TaxLine, Totals, unless_empty,
};
use shared::money::{Amount, Quantity};
use shared::payload::{Fields, Payload};
use shared::provider::{Assumed, Normalized};

use crate::payload::{Action, CANCELED, TO_CUSTOMER, payment_status, status};

pub(crate) fn normalize(action: Action, payload: &Payload) -> Normalized {
    let root = payload.root();
    let basket = root.object("basket");
    let mut assumed = Assumed::default();
    let order = order(&root, &basket, &mut assumed);
    root.take("action");
    Normalized {
        time: order.updated_at,
        assumed: assumed.into_pointers(),
        ..Normalized::new(action.event_type(), action.as_str(), order)
    }
}

fn order(root: &Fields<'_>, basket: &Fields<'_>, assumed: &mut Assumed) -> Order {
    let id = basket.id("id");
    let payment_word = basket.text("status");
    let (discount, tax) = (basket.amount("discount"), basket.amount("tax"));
    let (status, status_word) = status_of(basket, payment_word.as_deref(), assumed);
    Order {
        number: basket.id("label").or_else(|| id.clone()),
        id,
        status,
        provider_status: status_word,
        payment_status: payment_word.as_deref().map(payment_status),
        provider_payment_status: payment_word,
        currency: basket.currency("currency"),
        totals: Totals {
            discount,
            shipping: basket.amount("delivery_price"),
            tax,
            // The documentation does not say what `price` is the price of.
            total: assumed.note("/data/order/totals/total", basket.amount("price")),
            ..Totals::default()
        },
        discounts: discount.map(|amount| {
            let discount = Discount {
                amount: Some(amount),
                ..Discount::default()
            };
            unless_zero(amount, discount)
        }),
        tax_lines: tax.map(|amount| {
            let line = TaxLine {
                amount: Some(amount),
                ..TaxLine::default()
            };
            unless_zero(amount, line)
        }),
        customer: customer(root),
        billing_address: address("billing", basket, assumed),
        shipping_address: address("receiver_info", basket, assumed),
        items: items(basket, assumed),
        shipping: shipping(basket, assumed),
        payment: Payment {
            method: basket.text("payment_type"),
            id: basket.id("payment_id"),
            ..Payment::default()
        },
        note: None,
        placed_at: basket.time("created_at"),
        updated_at: basket.time("updated_at"),
        ..Order::default()
    }
}

/// A list of one, or of none where the amount says that there is none.
fn unless_zero<T>(amount: Amount, entry: T) -> Vec<T> {
    if amount == Amount::ZERO {
        Vec::new()
    } else {
        vec![entry]
    }
}

/// A cancelled order keeps its last delivery state, which then says nothing of where it stands.
fn status_of(
    basket: &Fields<'_>,
    payment_word: Option<&str>,
    assumed: &mut Assumed,
) -> (Option<Status>, Option<String>) {
    if payment_word == Some(CANCELED) {
        return (Some(Status::Cancelled), Some(CANCELED.to_owned()));
    }
    let word = basket.text("delivery_state");
    let mut status = word.as_deref().map(status);
    if word.as_deref() == Some(TO_CUSTOMER) {
        status = assumed.note("/data/order/status", status);
    }
    (status, word)
}

/// The customer, or where there is none the account that ordered. E-mail and phone may come masked.
fn customer(root: &Fields<'_>) -> Option<Customer> {
    let customer = root.object("customer");
    let person = if customer.exist() {
        customer
    } else {
        root.object("user")
    };
    unless_empty(Customer {
        id: person.id("id"),
        name: person.text("name"),
        email: person.text("email"),
        phone: person.text("phone"),
        ..Customer::default()
    })
}

/// The fields are those of the shop's own public models; the webhook's documentation shows no address.
fn address(name: &str, basket: &Fields<'_>, assumed: &mut Assumed) -> Option<Address> {
    let fields = basket.object(name);
    let place = if name == "billing" {
        "billing_address"
    } else {
        "shipping_address"
    };
    // House number and unit: how they go together with `address` is not documented, but no label may lose them.
    let details: Vec<_> = [fields.id("no"), fields.id("unit")].into_iter().flatten().collect();
    let line2 = (!details.is_empty()).then(|| details.join(", "));
    unless_empty(Address {
        name: fields.text("name"),
        line1: fields.text("address"),
        line2: assumed.note(format!("/data/order/{place}/line2"), line2),
        city: fields.text("city"),
        region: fields.text("state"),
        postal_code: fields.id("postal"),
        country: fields.country("country"),
        phone: fields.text("phone"),
        ..Address::default()
    })
}

/// Read as the shop's own storefront reads it; the webhook's documentation shows no tracking.
fn shipping(basket: &Fields<'_>, assumed: &mut Assumed) -> Shipping {
    let delivery = basket.object("delivery_info");
    let pointer = |field: &str| format!("/data/order/shipping/{field}");
    Shipping {
        tracking_number: assumed.note(pointer("tracking_number"), delivery.id("tracking_code")),
        tracking_url: assumed.note(pointer("tracking_url"), delivery.text("tracking_url")),
        ..Shipping::default()
    }
}

fn items(basket: &Fields<'_>, assumed: &mut Assumed) -> Option<Vec<Item>> {
    let items = basket.objects("items")?;
    Some(
        items
            .iter()
            .enumerate()
            .map(|(index, fields)| item(index, fields, assumed))
            .collect(),
    )
}

fn item(index: usize, fields: &Fields<'_>, assumed: &mut Assumed) -> Item {
    let pointer = |field: &str| format!("/data/order/items/{index}/{field}");
    // The sample has no count; the shop's own models do. One that cannot be read is no reason to assume another.
    let count = fields.quantity("count");
    let assume_one = (!fields.has("count")).then_some(Quantity::ONE);
    Item {
        id: fields.id("id"),
        product_id: fields.id("product_id"),
        quantity: count.or_else(|| assumed.note(pointer("quantity"), assume_one)),
        unit_price: assumed.note(pointer("unit_price"), fields.amount("price")),
        tax: fields.object("tax").amount("amount"),
        ..Item::default()
    }
}
