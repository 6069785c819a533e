//! Maps Deeple's payload to the normalized event, field by field.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, offset};
use shared::event::{Address, Customer, Item, Order, TaxLine, Totals, unless_empty};
use shared::money::Currency;
use shared::payload::{Fields, Payload, Value};
use shared::provider::{Assumed, Normalized};

use crate::payload::{Event, is_tax_included, status};

pub(crate) fn normalize(event: Event, payload: &Payload, currency: Currency) -> Normalized {
    let root = payload.root();
    let mut assumed = Assumed::default();
    let time = time(&root, "updatedAt", "/time", &mut assumed);
    let order = order(&root, currency, &mut assumed);
    let vat_options = root.peek("vatOptions").and_then(Value::as_text);
    let is_unknown = vat_options.is_some_and(|word| is_tax_included(word).is_none());
    Normalized {
        time,
        assumed: assumed.into_pointers(),
        unknown_words: is_unknown
            .then_some("/data/order/tax_lines/*/included")
            .into_iter()
            .collect(),
        ..Normalized::new(
            event.event_type(order.provider_status.as_deref()),
            event.as_str(),
            order,
        )
    }
}

fn order(root: &Fields<'_>, currency: Currency, assumed: &mut Assumed) -> Order {
    let id = root.id("orderNumber");
    let status_word = root.text("state");
    Order {
        number: id.clone(),
        id,
        channel: root.text("platform"),
        status: status_word.as_deref().map(|word| status(word).0),
        provider_status: status_word,
        currency: assumed.note("/data/order/currency", Some(currency)),
        totals: Totals {
            items: root.price("totalPrice"),
            discount: root.price("discountTotalPrice"),
            tax: root.price("vatPrice"),
            total: root.price("grandTotal"),
            ..Totals::default()
        },
        tax_lines: unless_empty(TaxLine {
            // Not documented as a percentage, but the documented type `number(1)` leaves no other reading.
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
            // A Thai address label needs both district and subdistrict.
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

/// Reads whether prices include the tax. A word that does not say so stays in `unmapped`.
fn tax_included(root: &Fields<'_>) -> Option<bool> {
    let included = is_tax_included(root.look("vatOptions", Value::as_text)?)?;
    root.take("vatOptions");
    Some(included)
}

/// Reads the items. Their fields are not documented, so they are read by likely names, and each value is listed in
/// `assumed`: an order without lines would be of no use.
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

/// An item whose fields are read by likely names.
struct Likely<'l, 'p> {
    fields: &'l Fields<'p>,
    index: usize,
    assumed: &'l mut Assumed,
}

impl<'p> Likely<'_, 'p> {
    /// Reads the first of `names` that is present, and lists the value in `assumed` as the field `place` of the item.
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

/// Reads a time. The format is not documented, so three are read: a time with its offset from UTC, milliseconds since
/// 1970 as in Deeple's signatures, and a local time, which is taken as Thailand's.
fn time(root: &Fields<'_>, name: &str, pointer: &str, assumed: &mut Assumed) -> Option<Timestamp> {
    let (time, is_stated) = root.read(name, |value| {
        let stated = value.as_str().and_then(|text| text.parse().ok());
        let assumed = || epoch_milliseconds(value).or_else(|| thai_time(value));
        stated.map(|time| (time, true)).or_else(|| Some((assumed()?, false)))
    })?;
    if is_stated {
        return Some(time);
    }
    assumed.note(pointer, Some(time))
}

/// Reads a number or a text of 13 digits. Since 2001, a time in milliseconds has 13 digits, and one in seconds has
/// fewer.
fn epoch_milliseconds(value: Value<'_>) -> Option<Timestamp> {
    let digits = value.as_text()?;
    let is_plausible = digits.len() == 13 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_plausible.then(|| Timestamp::from_millisecond(digits.parse().ok()?).ok())?
}

fn thai_time(value: Value<'_>) -> Option<Timestamp> {
    let local: DateTime = value.as_str()?.parse().ok()?;
    TimeZone::fixed(offset(7)).to_timestamp(local).ok()
}
