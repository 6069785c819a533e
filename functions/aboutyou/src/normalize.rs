//! ABOUT YOU's order in our words.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use shared::event::{
    Address, CustomField, Customer, Fulfillment, Item, ItemOption, ItemReference, Order, Payment, PickupPoint,
    Shipping, Status, Totals, unless_empty,
};
use shared::money::{Currency, Quantity};
use shared::payload::{Element, Fields, Payload, Value};
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
        ..Normalized::new(
            event.event_type(order.provider_status.as_deref()),
            event.as_str(),
            order,
        )
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
    let items = items(message, "order_items", currency, assumed);
    let carrier = message.id("carrier_key");
    let custom_fields = custom_data(message, |name, value| CustomField { name, value });
    let custom_fields = Some(custom_fields).filter(|fields| !fields.is_empty());
    Order {
        number: id.clone(),
        id,
        channel: message.id("shop"),
        status: status_word.as_deref().map(|word| status(word).0),
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
        billing_address: address(message, "billing", assumed),
        // Where there is no shipping address, the billing address does not stand in for it.
        shipping_address: address(message, "shipping", assumed),
        shipping: Shipping {
            fulfillments: parcels(
                items.as_deref(),
                &Fulfillment {
                    carrier: carrier.clone(),
                    ..Fulfillment::default()
                },
            ),
            carrier,
            document_url: message.text("delivery_document_url"),
            // Without it the parcel goes to the wrong place.
            pickup_point: unless_empty(PickupPoint {
                id: message.id("shipping_collection_point_key"),
                r#type: message.text("shipping_collection_point_type"),
                name: message.text("shipping_collection_point_description"),
                // A parcel machine takes no parcel without it.
                customer_number: message.id("shipping_collection_point_customer_key"),
                ..PickupPoint::default()
            }),
            ..Shipping::default()
        },
        items,
        payment: Payment {
            method: message.text("payment_method"),
            ..Payment::default()
        },
        custom_fields: assumed.note("/data/order/custom_fields", custom_fields),
        placed_at: time(message, "created_at"),
        updated_at: time(message, "updated_at"),
        ..Order::default()
    }
}

/// The list of an event of items.
const ITEMS: &str = "items";

/// The events of items name neither their order nor a currency.
fn items_only(message: &Fields<'_>, assumed: &mut Assumed) -> Order {
    let items = items(message, ITEMS, None, assumed);
    let return_key = message.look("return_tracking_key", |value| value.as_text().map(str::to_owned));
    let parcel = Fulfillment {
        carrier: message.id("carrier_key"),
        tracking_number: message.id("tracking_key"),
        return_tracking_number: return_key,
        ..Fulfillment::default()
    };
    let fulfillments = parcels(items.as_deref(), &parcel);
    // Where each item has a return number of its own, this one may have no place: it stays in `unmapped` then.
    let is_used = |number: &String| {
        let mut parcels = fulfillments.iter().flatten();
        parcels.any(|parcel| parcel.return_tracking_number.as_ref() == Some(number))
    };
    if parcel.return_tracking_number.as_ref().is_some_and(is_used) {
        message.take("return_tracking_key");
    }
    Order {
        shipping: Shipping {
            carrier: parcel.carrier,
            tracking_number: parcel.tracking_number,
            fulfillments,
            ..Shipping::default()
        },
        items,
        ..Order::default()
    }
}

/// The parcels that the items travel in: items with the same numbers share one. What an item does not say, `common` says.
fn parcels(items: Option<&[Item]>, common: &Fulfillment) -> Option<Vec<Fulfillment>> {
    let mut parcels: Vec<Fulfillment> = Vec::new();
    let mut known = HashMap::new();
    for item in items.unwrap_or_default() {
        let tracking_number = item.tracking_number.as_ref().or(common.tracking_number.as_ref());
        let return_tracking_number = item
            .return_tracking_number
            .as_ref()
            .or(common.return_tracking_number.as_ref());
        if tracking_number.is_none() && return_tracking_number.is_none() {
            continue;
        }
        let at = *known
            .entry((tracking_number, return_tracking_number))
            .or_insert(parcels.len());
        if at == parcels.len() {
            parcels.push(Fulfillment {
                items: Some(Vec::new()),
                tracking_number: tracking_number.cloned(),
                return_tracking_number: return_tracking_number.cloned(),
                status: item.status,
                ..common.clone()
            });
        }
        let parcel = &mut parcels[at];
        // Items of one parcel that differ leave open where the parcel is.
        parcel.status = parcel.status.filter(|status| Some(*status) == item.status);
        parcel.items.get_or_insert_default().push(ItemReference {
            id: item.id.clone(),
            quantity: item.quantity,
        });
    }
    let is_tracked = common.tracking_number.is_some() || common.return_tracking_number.is_some();
    if parcels.is_empty() && is_tracked {
        parcels.push(common.clone());
    }
    (!parcels.is_empty()).then_some(parcels)
}

fn address(message: &Fields<'_>, of: &str, assumed: &mut Assumed) -> Option<Address> {
    let field = |name: &str| format!("{of}_{name}");
    let address = unless_empty(Address {
        first_name: message.text(&field("recipient_first_name")),
        last_name: message.text(&field("recipient_last_name")),
        line1: message.text(&field("street")),
        line2: message.text(&field("additional")),
        city: message.text(&field("city")),
        postal_code: message.id(&field("zip_code")),
        country: message.country(&field("country_code")),
        ..Address::default()
    })?;
    // A gender alone makes no address.
    let gender = message.text(&field("recipient_gender"));
    Some(Address {
        salutation: assumed.note(format!("/data/order/{of}_address/salutation"), gender),
        ..address
    })
}

/// The items of a list. In the events of items an item may be its bare key, which is documented nowhere.
fn items(message: &Fields<'_>, name: &str, currency: Option<Currency>, assumed: &mut Assumed) -> Option<Vec<Item>> {
    let mut index = 0_usize;
    message.list(name, |element| {
        let at = |field: &str| format!("/data/order/items/{index}/{field}");
        let item = match element {
            Element::Object(fields) => item(&fields, currency),
            Element::Other(value) if name == ITEMS => Item {
                id: assumed.note(at("id"), Some(value.as_text()?.to_owned())),
                ..Item::default()
            },
            Element::Other(_) => return None,
        };
        // An item is one piece; the payload does not say so.
        let quantity = assumed.note(at("quantity"), Some(Quantity::ONE));
        if !item.options.is_empty() {
            assumed.note(at("options"), Some(()));
        }
        index += 1;
        Some(Item { quantity, ..item })
    })
}

fn item(fields: &Fields<'_>, currency: Option<Currency>) -> Item {
    Item {
        id: fields.id("id"),
        variant_id: fields.id("product_variant"),
        sku: fields.id("sku"),
        // What the seller's shop passed on, an engraving perhaps.
        options: custom_data(fields, |name, value| ItemOption { name, value }),
        unit_price: fields.minor_units("price_with_tax", currency),
        unit_price_net: fields.minor_units("price_without_tax", currency),
        tax_rate: fields.amount("vat"),
        status: item_status(fields),
        tracking_number: fields.id("shipment_tracking_key"),
        return_tracking_number: fields.id("return_tracking_key"),
        ..Item::default()
    }
}

/// The seller's own data: its texts, numbers and truth values. Lists and objects in it stay in `unmapped`.
fn custom_data<T>(fields: &Fields<'_>, field: impl Fn(Option<String>, Option<String>) -> T) -> Vec<T> {
    let scalars = fields.object("custom_data").scalars().into_iter();
    scalars.map(|(name, value)| field(Some(name), Some(value))).collect()
}

/// An item has no place for a word beside ours: one that has no mapping stays in `unmapped`.
fn item_status(fields: &Fields<'_>) -> Option<Status> {
    let (status, _) = status(fields.look("status", Value::as_text)?);
    if status != Status::Unknown {
        fields.take("status");
    }
    Some(status)
}
