//! Maps ABOUT YOU's payload to the normalized event, field by field.

use std::collections::HashMap;

use jiff::Timestamp;
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
    let order = if event.is_about_items() {
        order_of_items(&message, &mut assumed)
    } else {
        order(&message, &mut assumed)
    };
    root.take("event");
    Normalized {
        time: time(&root, "timestamp").or(order.updated_at),
        partial: event.is_about_items(),
        assumed: assumed.into_pointers(),
        ..Normalized::new(
            event.event_type(order.provider_status.as_deref()),
            event.as_str(),
            order,
        )
    }
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
        currency,
        totals: Totals {
            total_net: message.minor_units("cost_without_tax", currency),
            total: message.minor_units("cost_with_tax", currency),
            ..Totals::default()
        },
        customer: unless_empty(Customer {
            id: message.id("customer_key"),
            email: message.text("customer_email"),
            phone: message.text("customer_phone"),
            ..Customer::default()
        }),
        billing_address: address(message, "billing", assumed),
        // A missing shipping address is not replaced by the billing address.
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
            // Without the pick-up point, the parcel goes to the wrong place.
            pickup_point: unless_empty(PickupPoint {
                id: message.id("shipping_collection_point_key"),
                r#type: message.text("shipping_collection_point_type"),
                name: message.text("shipping_collection_point_description"),
                // A parcel machine does not accept a parcel without this number.
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

/// The list of items in an event about items.
const ITEMS: &str = "items";

/// Reads an event about items, which names neither the order nor a currency.
fn order_of_items(message: &Fields<'_>, assumed: &mut Assumed) -> Order {
    let items = items(message, ITEMS, None, assumed);
    let return_key = message.look("return_tracking_key", |value| value.as_text().map(str::to_owned));
    let parcel = Fulfillment {
        carrier: message.id("carrier_key"),
        tracking_number: message.id("tracking_key"),
        return_tracking_number: return_key,
        ..Fulfillment::default()
    };
    let fulfillments = parcels(items.as_deref(), &parcel);
    // If each item has its own return number, the common one belongs to no parcel and stays in `unmapped`.
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
    // A gender alone is not an address.
    let gender = message.text(&field("recipient_gender"));
    Some(Address {
        salutation: assumed.note(format!("/data/order/{of}_address/salutation"), gender),
        ..address
    })
}

/// Reads a list of items. In an event about items, an item may be a bare key instead of an object, which is not
/// documented.
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
        // An item is one piece, although the payload does not say so.
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
        // Data of the seller's shop, such as an engraving.
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

/// Reads the status of an item. The event has no field for the provider's word, so a word without a mapping stays in
/// `unmapped`.
fn item_status(fields: &Fields<'_>) -> Option<Status> {
    let (status, _) = status(fields.look("status", Value::as_text)?);
    if status != Status::Unknown {
        fields.take("status");
    }
    Some(status)
}

/// Reads the texts, numbers and booleans of the seller's own data. Its lists and objects stay in `unmapped`.
fn custom_data<T>(fields: &Fields<'_>, field: impl Fn(Option<String>, Option<String>) -> T) -> Vec<T> {
    let scalars = fields.object("custom_data").scalars().into_iter();
    scalars.map(|(name, value)| field(Some(name), Some(value))).collect()
}

/// Returns the parcels of the items. Items with the same tracking numbers share a parcel. `common` holds the numbers
/// of the items that have none of their own.
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
        // If the items of a parcel differ in status, the status of the parcel is not known.
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

/// Reads a time. Times are documented as UTC, and some of them do not name their offset.
fn time(fields: &Fields<'_>, name: &str) -> Option<Timestamp> {
    fields.time_in(name, &TimeZone::UTC)
}
