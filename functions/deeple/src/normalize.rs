//! Deeple's order in our words.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, offset};
use shared::event::{Address, Customer, EventType, Item, Order, TaxLine, Totals, unless_empty};
use shared::money::Currency;
use shared::payload::{Fields, Payload, Value};
use shared::provider::{Assumed, Normalized};

use crate::payload::{ORDER_CHANGED, included, state};

pub(crate) fn normalize(payload: &Payload, currency: Currency) -> Normalized {
    let root = payload.root();
    let mut assumed = Assumed::default();
    let time = time(&root, "updatedAt", "/time", &mut assumed);
    let order = order(&root, currency, &mut assumed);
    let vat_options = root.peek("vatOptions").and_then(Value::as_text);
    let is_unknown = vat_options.is_some_and(|word| included(word).is_none());
    let event_type = match &order.provider_status {
        Some(word) => state(word).1,
        None => EventType::Updated,
    };
    Normalized {
        time,
        assumed: assumed.into_pointers(),
        unknown_words: is_unknown
            .then_some("/data/order/tax_lines/*/included")
            .into_iter()
            .collect(),
        ..Normalized::new(event_type, ORDER_CHANGED, order)
    }
}

fn order(root: &Fields<'_>, currency: Currency, assumed: &mut Assumed) -> Order {
    let id = root.id("orderNumber");
    let state_word = root.text("state");
    Order {
        number: id.clone(),
        id,
        channel: root.text("platform"),
        status: state_word.as_deref().map(|word| state(word).0),
        provider_status: state_word,
        currency: assumed.note("/data/order/currency", Some(currency)),
        totals: Totals {
            items: root.price("totalPrice"),
            discount: root.price("discountTotalPrice"),
            tax: root.price("vatPrice"),
            total: root.price("grandTotal"),
            ..Totals::default()
        },
        tax_lines: unless_empty(TaxLine {
            name: None,
            // Not documented as a percentage, but `number(1)` has room for no other reading.
            rate: assumed.note("/data/order/tax_lines/0/rate", root.amount("vatValue")),
            amount: root.price("vatPrice"),
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
        items: items(root, assumed),
        note: root.text("note"),
        placed_at: time(root, "createdAt", "/data/order/placed_at", assumed),
        updated_at: time(root, "updatedAt", "/data/order/updated_at", assumed),
        ..Order::default()
    }
}

/// Whether prices include the tax, where a word that is documented nowhere says so; any other word stays in `unmapped`.
fn tax_included(root: &Fields<'_>) -> Option<bool> {
    let included = included(root.look("vatOptions", Value::as_text)?)?;
    root.take("vatOptions");
    Some(included)
}

/// A time. How times are written is not documented: beside those that name their offset, milliseconds since 1970 are read, as in Deeple's
/// signatures, and local times of Thailand.
fn time(root: &Fields<'_>, name: &str, pointer: &str, assumed: &mut Assumed) -> Option<Timestamp> {
    let (time, is_stated) = root.read(name, |value| {
        let stated = value.as_str().and_then(|text| text.parse().ok());
        let supposed = || epoch_milliseconds(value).or_else(|| thai_time(value));
        stated.map(|time| (time, true)).or_else(|| Some((supposed()?, false)))
    })?;
    if is_stated {
        return Some(time);
    }
    assumed.note(pointer, Some(time))
}

/// A number or a text of 13 digits: a time since 2001 in milliseconds, and no other unit.
fn epoch_milliseconds(value: Value<'_>) -> Option<Timestamp> {
    let digits = value.as_text()?;
    let is_plausible = digits.len() == 13 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_plausible.then(|| Timestamp::from_millisecond(digits.parse().ok()?).ok())?
}

fn thai_time(value: Value<'_>) -> Option<Timestamp> {
    let local: DateTime = value.as_str()?.parse().ok()?;
    TimeZone::fixed(offset(7)).to_timestamp(local).ok()
}

/// The items. Their shape is not documented, so they are read by the likely names, and each value is named as assumed: an order without lines
/// is of no use.
fn items(root: &Fields<'_>, assumed: &mut Assumed) -> Option<Vec<Item>> {
    let items = root.objects("items")?;
    let items = items.iter().enumerate();
    Some(
        items
            .map(|(index, fields)| item(&mut Likely { fields, index, assumed }))
            .collect(),
    )
}

fn item(likely: &mut Likely<'_, '_>) -> Item {
    Item {
        id: likely.first("id", &["id", "itemId", "orderItemId"], Fields::id),
        product_id: likely.first("product_id", &["productId"], Fields::id),
        variant_id: likely.first("variant_id", &["variantId"], Fields::id),
        sku: likely.first("sku", &["sku", "skuCode", "productSku"], Fields::id),
        name: likely.first("name", &["name", "productName", "itemName", "title"], Fields::text),
        quantity: likely.first("quantity", &["quantity", "qty"], Fields::quantity),
        unit_price: likely.first("unit_price", &["unitPrice", "price"], Fields::price),
        original_unit_price: likely.first("original_unit_price", &["originalPrice"], Fields::price),
        total: likely.first("total", &["totalPrice", "total"], Fields::price),
        image_url: likely.first("image_url", &["imageUrl", "image"], Fields::text),
        ..Item::default()
    }
}

/// An item whose fields are looked for under likely names.
struct Likely<'l, 'p> {
    fields: &'l Fields<'p>,
    index: usize,
    assumed: &'l mut Assumed,
}

impl<'p> Likely<'_, 'p> {
    /// The first of `names` that is there, as `read` understands it; it is named as the assumed `place` of the item.
    fn first<T>(
        &mut self,
        place: &str,
        names: &[&str],
        read: impl FnOnce(&Fields<'p>, &str) -> Option<T>,
    ) -> Option<T> {
        let name = names.iter().find(|name| self.fields.has(name))?;
        let pointer = format!("/data/order/items/{}/{place}", self.index);
        self.assumed.note(pointer, read(self.fields, name))
    }
}
