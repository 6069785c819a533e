//! Maps Selldone's payload to the normalized event, field by field.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use shared::event::{
    Address, Customer, Discount, Item, ItemOption, Order, Payment, PaymentStatus, PickupPoint, Shipping, Status,
    TaxLine, Totals, unless_empty,
};
use shared::money::{Amount, Quantity};
use shared::payload::{Fields, Payload, Value, Zone};
use shared::provider::{Assumed, Normalized};

use crate::payload::{CANCELED, Event, TO_CUSTOMER, is_known_type, payment_status, requires_shipping, status};

pub(crate) fn normalize(event: Event, payload: &Payload) -> Normalized {
    let root = payload.root();
    let basket = root.object("basket");
    let mut assumed = Assumed::default();
    let order = order(event, &root, &basket, &mut assumed);
    root.take("action");
    let order_type = basket.look("type", Value::as_text);
    let is_unknown = order_type.is_some_and(|word| !is_known_type(word));
    let time = order.updated_at;
    if assumed.names("/data/order/updated_at") {
        assumed.note("/time", time);
    }
    Normalized {
        time,
        assumed: assumed.into_pointers(),
        unknown_words: is_unknown
            .then_some("/data/order/items/*/requires_shipping")
            .into_iter()
            .collect(),
        ..Normalized::new(event.event_type(), event.as_str(), order)
    }
}

fn order(event: Event, root: &Fields<'_>, basket: &Fields<'_>, assumed: &mut Assumed) -> Order {
    let id = basket.id("id");
    let payment_word = basket.text("status");
    let (discount, tax) = (basket.price("discount"), basket.price("tax"));
    let taxes = Taxes {
        amount: tax,
        are_included: basket.flag("tax_included"),
        is_inclusion_stated: basket.has("tax_included"),
        are_elsewhere: is_taxed(basket, "tax_shipping") || are_items_taxed(basket),
    };
    let (status, status_word) = order_status(basket, payment_word.as_deref(), assumed);
    let payment_status = order_payment_status(event, payment_word.as_deref(), assumed);
    Order {
        number: basket.id("label").or_else(|| id.clone()),
        id,
        channel: basket.text("channel"),
        locale: basket.text("language"),
        status,
        provider_status: status_word,
        payment_status,
        provider_payment_status: payment_word,
        cancel_reason: basket.text("reject"),
        currency: basket.currency("currency"),
        totals: Totals {
            discount,
            // A negative number means "paid on delivery" or "priced later".
            shipping: basket.price("delivery_price"),
            shipping_tax: basket.price("tax_shipping"),
            tax,
            ..total(basket, &taxes, assumed)
        },
        discounts: discount.map(|amount| {
            let discount = Discount {
                amount: Some(amount),
                ..Discount::default()
            };
            unless_zero(amount, discount)
        }),
        tax_lines: tax_lines(&taxes),
        customer: customer(root, basket),
        billing_address: address("billing", basket, assumed),
        shipping_address: address("receiver_info", basket, assumed),
        items: items(basket, assumed),
        shipping: shipping(basket, assumed),
        payment: Payment {
            method: basket.text("payment_type"),
            id: basket.id("payment_id"),
            ..Payment::default()
        },
        // `created_at` is when the cart was opened, `reserved_at` when the customer checked out.
        placed_at: if basket.has("reserved_at") {
            time(basket, "reserved_at", "placed_at", assumed)
        } else {
            time(basket, "created_at", "placed_at", assumed)
        },
        updated_at: time(basket, "updated_at", "updated_at", assumed),
        cancelled_at: time(basket, "reject_at", "cancelled_at", assumed),
        ..Order::default()
    }
}

/// Returns the status of the order and Selldone's word for it. A cancelled order keeps its last delivery state, which
/// then no longer applies.
fn order_status(
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

/// Returns the payment status of the order. If the event reports a payment and the order is still unpaid by its own
/// `status`, as with cash on delivery, the event is right: it is newer.
fn order_payment_status(event: Event, word: Option<&str>, assumed: &mut Assumed) -> Option<PaymentStatus> {
    let status = word.map(payment_status);
    if event == Event::PaymentOrder && status == Some(PaymentStatus::Unpaid) {
        return assumed.note("/data/order/payment_status", Some(PaymentStatus::Paid));
    }
    status
}

/// What the payload says about the taxes of an order.
struct Taxes {
    /// The `tax` of the order, which does not contain the tax on shipping.
    amount: Option<Amount>,
    /// Whether `price` includes the taxes, or `None` if `tax_included` is absent or cannot be read.
    are_included: Option<bool>,
    /// Whether `tax_included` is present.
    is_inclusion_stated: bool,
    /// Whether shipping or an item is taxed, whatever `amount` says.
    are_elsewhere: bool,
}

/// Returns `total` or `total_net`, whichever `price` is.
///
/// The customer pays `price`, plus `tax` unless `price` includes it, plus `tax_shipping`. So `price` is the total
/// only if nothing is added to it. If taxes are added, `price` is the net total. A missing `tax_included` counts as
/// false, as in Selldone's own back office.
///
/// `price` is neither of the two if tax on shipping is added to a price that includes the other taxes, or if
/// `tax_included` cannot be read.
fn total(basket: &Fields<'_>, taxes: &Taxes, assumed: &mut Assumed) -> Totals {
    match taxes.are_included {
        Some(true) if is_taxed(basket, "tax_shipping") => Totals::default(),
        Some(true) => Totals {
            total: basket.price("price"),
            ..Totals::default()
        },
        None if taxes.is_inclusion_stated => Totals::default(),
        is_included => {
            let price = basket.price("price");
            if is_included.is_none() {
                assumed.note("/data/order/totals/total_net", price);
            }
            let is_untaxed = taxes.amount == Some(Amount::ZERO) && !taxes.are_elsewhere;
            Totals {
                total_net: price,
                total: assumed.note("/data/order/totals/total", price.filter(|_| is_untaxed)),
                ..Totals::default()
            }
        }
    }
}

/// Returns the tax of the order as one line. An empty list states that the order is untaxed, so it is returned only if
/// neither shipping nor an item is taxed.
fn tax_lines(taxes: &Taxes) -> Option<Vec<TaxLine>> {
    let amount = taxes.amount?;
    let line = TaxLine {
        amount: Some(amount),
        included: taxes.are_included,
        ..TaxLine::default()
    };
    let lines = unless_zero(amount, line);
    (!lines.is_empty() || !taxes.are_elsewhere).then_some(lines)
}

/// Whether the field holds a tax other than 0. A value that cannot be read counts as a tax.
fn is_taxed(fields: &Fields<'_>, name: &str) -> bool {
    fields
        .peek(name)
        .is_some_and(|tax| tax.as_amount() != Some(Amount::ZERO))
}

fn are_items_taxed(basket: &Fields<'_>) -> bool {
    let items = basket.objects("items").unwrap_or_default();
    items.iter().any(|item| {
        let is_named = item.peek("tax").is_some_and(|tax| tax.is_empty() != Some(true));
        let tax = item.object("tax");
        is_named && (!tax.exist() || is_taxed(&tax, "amount"))
    })
}

/// Returns a list with `entry`, or an empty list if the amount is 0.
fn unless_zero<T>(amount: Amount, entry: T) -> Vec<T> {
    if amount == Amount::ZERO {
        Vec::new()
    } else {
        vec![entry]
    }
}

/// Reads `customer`, or `user` (the account that ordered) if there is no customer, or the guest's e-mail if there is
/// neither. E-mail and phone may be masked.
fn customer(root: &Fields<'_>, basket: &Fields<'_>) -> Option<Customer> {
    let customer = root.object("customer");
    let person = if customer.exist() {
        customer
    } else {
        root.object("user")
    };
    let guest_email = || basket.text("guest_email");
    unless_empty(Customer {
        id: person.id("id"),
        name: person.text("name"),
        email: if person.exist() {
            person.text("email")
        } else {
            guest_email()
        },
        phone: person.text("phone"),
        ..Customer::default()
    })
}

/// Reads an address. Its fields are those of Selldone's public data models: the documentation of the webhook shows
/// none.
fn address(name: &str, basket: &Fields<'_>, assumed: &mut Assumed) -> Option<Address> {
    let fields = basket.object(name);
    let place = if name == "billing" {
        "billing_address"
    } else {
        "shipping_address"
    };
    // How house number and unit go together with `address` is not documented, but a label needs both.
    let details: Vec<_> = [fields.id("no"), fields.id("unit")].into_iter().flatten().collect();
    let line2 = (!details.is_empty()).then(|| details.join(", "));
    unless_empty(Address {
        name: fields.text("name"),
        line1: fields.text("address"),
        line2: assumed.note(format!("/data/order/{place}/line2"), line2),
        city: fields.text("city"),
        region: fields.text("state"),
        region_code: fields.text("state_code"),
        postal_code: fields.id("postal"),
        country: fields.country("country"),
        phone: fields.text("phone"),
        email: fields.text("email"),
        tax_id: fields.id("tax_id"),
        instructions: fields.text("message"),
        ..Address::default()
    })
}

fn items(basket: &Fields<'_>, assumed: &mut Assumed) -> Option<Vec<Item>> {
    let items = basket.objects("items")?;
    let order_type = basket.peek("type").and_then(Value::as_text);
    let requires_shipping = order_type.and_then(requires_shipping);
    let currency = basket.peek("currency").and_then(Value::as_str);
    if requires_shipping.is_some() && !items.is_empty() {
        basket.take("type");
    }
    let items = items.iter().enumerate();
    let read = items.map(|(index, fields)| {
        let price: ReadPrice = if is_foreign(fields, currency) {
            |_, _| None
        } else {
            |fields, name| fields.price(name)
        };
        item(index, fields, price, requires_shipping, assumed)
    });
    Some(read.collect())
}

/// Reads an amount of an item.
type ReadPrice = fn(&Fields<'_>, &str) -> Option<Amount>;

/// Whether the amounts of an item are in another currency than the order's, which is the currency of every amount in
/// the event. Such a currency is warned of.
fn is_foreign(item: &Fields<'_>, currency: Option<&str>) -> bool {
    let Some(currency) = currency else {
        return false;
    };
    let Some(own) = item.look("currency", |value| value.as_str().map(str::to_owned)) else {
        return item.has("currency");
    };
    let is_foreign = !own.eq_ignore_ascii_case(currency);
    if is_foreign {
        item.warn_unused("currency");
    }
    is_foreign
}

/// Reads an item. Its name and SKU are in `product` and `variant`, which not every delivery has.
fn item(
    index: usize,
    fields: &Fields<'_>,
    price: ReadPrice,
    requires_shipping: Option<bool>,
    assumed: &mut Assumed,
) -> Item {
    let pointer = |field: &str| format!("/data/order/items/{index}/{field}");
    // The documented sample has no `count`; the public data models have one. 1 is assumed only if `count` is absent,
    // not if it cannot be read.
    let count = fields.quantity("count");
    let assume_one = (!fields.has("count")).then_some(Quantity::ONE);
    let quantity = count.or_else(|| assumed.note(pointer("quantity"), assume_one));
    let (product, variant, tax) = (fields.object("product"), fields.object("variant"), fields.object("tax"));
    let unit_price = assumed.note(pointer("unit_price"), price(fields, "price"));
    let is_net = unit_price.is_some() && tax.look("included", Value::as_flag) == Some(false);
    if is_net {
        tax.take("included");
    }
    Item {
        id: fields.id("id"),
        product_id: fields.id("product_id"),
        variant_id: fields.id("variant_id"),
        sku: variant.id("sku").or_else(|| product.id("sku")),
        name: product.text("title"),
        options: [
            variant_title(&variant),
            options(fields, "preferences"),
            options(fields, "message"),
        ]
        .concat(),
        quantity,
        unit_price,
        unit_price_net: assumed.note(pointer("unit_price_net"), unit_price.filter(|_| is_net)),
        // Whether `dis` is the discount on one piece or on the line is not documented.
        discount: assumed.note(pointer("discount"), price(fields, "dis")),
        tax: price(&tax, "amount"),
        tax_rate: tax.fraction("tax_rate"),
        requires_shipping,
        ..Item::default()
    }
}

/// Returns the title of a variant, such as `Silver, 17`, as an option of the item.
fn variant_title(variant: &Fields<'_>) -> Vec<ItemOption> {
    let option = |title| ItemOption {
        name: Some("variant".to_owned()),
        value: Some(title),
    };
    variant.text("title").map(option).into_iter().collect()
}

/// Reads what the customer chose or wrote, such as a size or an engraving. Nested values stay in `unmapped`.
fn options(fields: &Fields<'_>, name: &str) -> Vec<ItemOption> {
    let chosen = if fields.peek(name).and_then(Value::as_text).is_some() {
        fields
            .text(name)
            .map(|text| (name.to_owned(), text))
            .into_iter()
            .collect()
    } else {
        fields.object(name).scalars()
    };
    let option = |(name, value)| ItemOption {
        name: Some(name),
        value: Some(value),
    };
    chosen.into_iter().map(option).collect()
}

/// Reads the tracking as Selldone's storefront does: the documentation of the webhook shows none.
fn shipping(basket: &Fields<'_>, assumed: &mut Assumed) -> Shipping {
    let delivery = basket.object("delivery_info");
    let pointer = |field: &str| format!("/data/order/shipping/{field}");
    Shipping {
        method: delivery.text("type"),
        tracking_number: assumed.note(pointer("tracking_number"), delivery.id("tracking_code")),
        tracking_url: assumed.note(pointer("tracking_url"), delivery.text("tracking_url")),
        pickup_point: pickup_point(&basket.object("receiver_info"), assumed),
        ..Shipping::default()
    }
}

/// Returns the shop as the pick-up point if the customer collects the order there. The payload does not name the place.
fn pickup_point(receiver: &Fields<'_>, assumed: &mut Assumed) -> Option<PickupPoint> {
    let is_collected = receiver.look("pickup", Value::as_flag)?;
    let word = is_collected.then(|| {
        receiver.take("pickup");
        "pickup".to_owned()
    });
    unless_empty(PickupPoint {
        r#type: assumed.note("/data/order/shipping/pickup_point/type", word),
        ..PickupPoint::default()
    })
}

/// Reads a time. Without a zone it is taken as UTC, which Selldone's framework writes by default.
fn time(basket: &Fields<'_>, name: &str, place: &str, assumed: &mut Assumed) -> Option<Timestamp> {
    let (time, zone) = basket.zoned_time_in(name, &TimeZone::UTC)?;
    match zone {
        Zone::Stated => Some(time),
        Zone::Assumed => assumed.note(format!("/data/order/{place}"), Some(time)),
    }
}
