//! Deeple's order in our words.

use shared::event::{Address, Customer, Order, Payment, Shipping, TaxLine, Totals, unless_empty};
use shared::money::Currency;
use shared::payload::{Fields, Payload, Value};
use shared::provider::{Assumed, Normalized};

use crate::payload::{ORDER_CHANGED, event_type, included, status};

pub(crate) fn normalize(payload: &Payload, currency: Currency) -> Normalized {
    let root = payload.root();
    let mut assumed = Assumed::default();
    let order = order(&root, currency, &mut assumed);
    Normalized {
        time: order.updated_at,
        assumed: assumed.into_pointers(),
        ..Normalized::new(event_type(order.provider_status.as_deref()), ORDER_CHANGED, order)
    }
}

fn order(root: &Fields<'_>, currency: Currency, assumed: &mut Assumed) -> Order {
    let id = root.id("orderNumber");
    let state = root.text("state");
    Order {
        number: id.clone(),
        id,
        channel: root.text("platform"),
        status: state.as_deref().map(status),
        provider_status: state,
        payment_status: None,
        provider_payment_status: None,
        currency: assumed.note("/data/order/currency", Some(currency)),
        totals: Totals {
            items: root.amount("totalPrice"),
            discount: root.amount("discountTotalPrice"),
            tax: root.amount("vatPrice"),
            total: root.amount("grandTotal"),
            ..Totals::default()
        },
        discounts: None,
        tax_lines: unless_empty(TaxLine {
            name: None,
            // Not documented as a percentage, but `number(1)` has room for no other reading.
            rate: assumed.note("/data/order/tax_lines/0/rate", root.amount("vatValue")),
            amount: root.amount("vatPrice"),
            included: assumed.note("/data/order/tax_lines/0/included", tax_included(root)),
            ..TaxLine::default()
        })
        .map(|line| vec![line]),
        customer: unless_empty(Customer {
            first_name: root.text("firstName"),
            last_name: root.text("lastName"),
            email: root.text("email"),
            phone: root.text("phoneNumber"),
            ..Customer::default()
        }),
        billing_address: None,
        shipping_address: unless_empty(Address {
            name: root.text("receiverName"),
            first_name: root.text("firstName"),
            last_name: root.text("lastName"),
            line1: root.text("streetAddress"),
            line2: root.text("streetAddress2"),
            // A Thai label needs district and subdistrict.
            district: root.text("district"),
            subdistrict: root.text("subDistrict"),
            region: root.text("province"),
            postal_code: root.id("postalCode"),
            phone: root.text("phoneNumber"),
            ..Address::default()
        }),
        // The shape of `items` is not documented: they stay in `unmapped`.
        items: None,
        shipping: Shipping::default(),
        payment: Payment::default(),
        note: root.text("note"),
        placed_at: root.time("createdAt"),
        updated_at: root.time("updatedAt"),
        ..Order::default()
    }
}

/// Whether prices include the tax, where a word that is documented nowhere says so; any other word stays in `unmapped`.
fn tax_included(root: &Fields<'_>) -> Option<bool> {
    let included = included(root.look("vatOptions", Value::as_text)?)?;
    root.take("vatOptions");
    Some(included)
}
