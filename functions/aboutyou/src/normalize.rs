//! ABOUT YOU's order in our words.

use jiff::tz::TimeZone;
use shared::event::{Address, Customer, Item, Order, Payment, PickupPoint, Shipping, Status, Totals, unless_empty};
use shared::money::{Currency, Quantity};
use shared::payload::{Fields, Payload, Value};
use shared::provider::{Assumed, Normalized};

use crate::payload::{Event, status};

pub(crate) fn normalize(event: Event, payload: &Payload) -> Normalized {
    let root = payload.root();
    let message = root.object("message");
    let mut assumed = Assumed::default();
    let (order, partial) = match event {
        Event::OrderCreated | Event::OrderUpdated => (order(&message, &mut assumed), false),
        Event::ItemsShipped | Event::ItemsCancelled | Event::ItemsReturned => {
            (items_only(&message, &mut assumed), true)
        }
    };
    root.take("event");
    Normalized {
        time: time(&root, "timestamp").or(order.updated_at),
        partial,
        assumed: assumed.into_pointers(),
        ..Normalized::new(event.event_type(order.status), event.as_str(), order)
    }
}

/// A time, documented as UTC; the offset is sometimes left out.
fn time(fields: &Fields<'_>, name: &str) -> Option<jiff::Timestamp> {
    fields.time_in(name, &TimeZone::UTC)
}

fn order(message: &Fields<'_>, assumed: &mut Assumed) -> Order {
    let id = message.id("order_number");
    let status_word = message.text("status");
    let currency = message.currency("currency_code");
    Order {
        number: id.clone(),
        id,
        status: status_word.as_deref().map(status),
        provider_status: status_word,
        payment_status: None,
        provider_payment_status: None,
        currency,
        totals: Totals {
            total_net: message.minor_units("cost_without_tax", currency),
            total: message.minor_units("cost_with_tax", currency),
            ..Totals::default()
        },
        discounts: None,
        tax_lines: None,
        customer: unless_empty(Customer {
            id: message.id("customer_key"),
            email: message.text("customer_email"),
            phone: message.text("customer_phone"),
            ..Customer::default()
        }),
        billing_address: address(message, "billing"),
        // Where there is no shipping address, the billing address does not stand in for it.
        shipping_address: address(message, "shipping"),
        items: items(message, "order_items", currency, assumed),
        shipping: Shipping {
            carrier: message.id("carrier_key"),
            document_url: message.text("delivery_document_url"),
            // Without it the parcel goes to the wrong place.
            pickup_point: unless_empty(PickupPoint {
                id: message.id("shipping_collection_point_key"),
                r#type: message.text("shipping_collection_point_type"),
                name: message.text("shipping_collection_point_description"),
                ..PickupPoint::default()
            }),
            ..Shipping::default()
        },
        payment: Payment {
            method: message.text("payment_method"),
            ..Payment::default()
        },
        note: None,
        placed_at: time(message, "created_at"),
        updated_at: time(message, "updated_at"),
        ..Order::default()
    }
}

/// The events of items name neither their order nor a currency.
fn items_only(message: &Fields<'_>, assumed: &mut Assumed) -> Order {
    Order {
        items: items(message, "items", None, assumed),
        shipping: Shipping {
            carrier: message.id("carrier_key"),
            tracking_number: message.id("tracking_key"),
            ..Shipping::default()
        },
        ..Order::default()
    }
}

fn address(message: &Fields<'_>, of: &str) -> Option<Address> {
    let field = |name: &str| format!("{of}_{name}");
    unless_empty(Address {
        first_name: message.text(&field("recipient_first_name")),
        last_name: message.text(&field("recipient_last_name")),
        line1: message.text(&field("street")),
        line2: message.text(&field("additional")),
        city: message.text(&field("city")),
        postal_code: message.id(&field("zip_code")),
        country: message.country(&field("country_code")),
        ..Address::default()
    })
}

fn items(message: &Fields<'_>, name: &str, currency: Option<Currency>, assumed: &mut Assumed) -> Option<Vec<Item>> {
    let items = message.objects(name)?;
    Some(
        items
            .iter()
            .enumerate()
            .map(|(index, fields)| item(index, fields, currency, assumed))
            .collect(),
    )
}

fn item(index: usize, fields: &Fields<'_>, currency: Option<Currency>, assumed: &mut Assumed) -> Item {
    Item {
        id: fields.id("id"),
        sku: fields.id("sku"),
        // An item is one piece; the payload does not say so.
        quantity: assumed.note(format!("/data/order/items/{index}/quantity"), Some(Quantity::ONE)),
        unit_price: fields.minor_units("price_with_tax", currency),
        unit_price_net: fields.minor_units("price_without_tax", currency),
        tax_rate: fields.amount("vat"),
        status: item_status(fields),
        tracking_number: fields.id("shipment_tracking_key"),
        return_tracking_number: fields.id("return_tracking_key"),
        ..Item::default()
    }
}

/// An item has no place for a word beside ours: one that has no mapping stays in `unmapped`.
fn item_status(fields: &Fields<'_>) -> Option<Status> {
    let status = status(fields.look("status", Value::as_text)?);
    if status != Status::Unknown {
        fields.take("status");
    }
    Some(status)
}
