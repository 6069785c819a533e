//! The normalized order event: one CloudEvents 1.0 JSON object, the same for every provider.
//!
//! Absent facts are null, nothing is guessed and no total is computed. Within v1 fields are only added.

mod json;
mod unmapped;
mod vocabulary;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::unmapped::Unmapped;
pub use self::vocabulary::{AdjustmentKind, EventType, ItemKind, PaymentStatus, Status};

use crate::identity::EventId;
use crate::money::{Amount, Currency, Quantity};

/// A normalized order event in CloudEvents 1.0 JSON format, as published to the topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OrderEvent {
    /// Version of CloudEvents: `1.0`.
    pub specversion: String,
    /// The event's id: 64 hex digits, made of what the provider sent. The same event always has the same id, replays included: deduplicate by it.
    pub id: EventId,
    /// Where the event comes from: `/{provider}/{shop}`.
    pub source: String,
    /// What happened, in our words; `data.provider_event` is the provider's own.
    pub r#type: EventType,
    /// The provider's id of the order, as in `data.order.id`; absent where the provider names no order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When it happened, RFC 3339 in UTC, by the provider's clock; the time of receipt where the provider does not say (then named in `data.assumed`).
    pub time: Timestamp,
    /// Format of `data`: `application/json`.
    pub datacontenttype: String,
    /// Schema of `data`: `urn:order-webhooks:order-event:v1`.
    pub dataschema: String,
    /// What happened, and the order.
    pub data: Data,
}

/// What happened, and the order as the provider described it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Data {
    /// The provider's slug, by the route of the delivery: `selldone`, `cartum`, `deeple`, `aboutyou`, `snipcart`.
    pub provider: String,
    /// The operator's own name for the shop, by the route of the delivery.
    pub shop: String,
    /// The provider's word for the event.
    pub provider_event: String,
    /// True for an order of the provider's test mode; false where the provider has none or does not say.
    pub test: bool,
    /// When the delivery was received that the event was made of: RFC 3339 in UTC, by the receiver's clock, to the millisecond.
    pub received_at: Timestamp,
    /// The order as the provider describes it: what it does not say is null.
    pub order: Order,
    /// The step that a change event reports, in the provider's words; null for other events.
    pub change: Option<Change>,
    /// The refund that the event reports; null for other events.
    pub refund: Option<Refund>,
    /// The notification that the event reports; null for other events.
    pub notification: Option<Notification>,
    /// True where the provider sent only a part of the order: then null means "not said", never "removed".
    pub partial: bool,
    /// JSON pointers, from the event's root, to values that the provider did not state in so many words.
    pub assumed: Vec<String>,
    /// JSON pointers, from the provider's payload, to fields that were not as documented. They are null here and stand in `unmapped` as they came.
    pub warnings: Vec<String>,
    /// JSON pointers, from the event's root, to what the publisher left out of this message, for its size or for privacy. The stored event is whole.
    pub omitted: Vec<String>,
    /// What of the provider's payload has no place above, at its own place and as it came; null where it was left out.
    pub unmapped: Option<Unmapped>,
}

/// An order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Order {
    /// The provider's key of the order.
    pub id: Option<String>,
    /// The number that people see; the same as `id` where only one of the two is known.
    pub number: Option<String>,
    /// The sales channel the order came from, in the provider's words, where the provider sells on several.
    pub channel: Option<String>,
    /// The provider's key of the order that this one follows from: the first order of a subscription whose renewal this is.
    pub parent_id: Option<String>,
    /// The order's page at the provider, a URL as it came: it may be relative to the provider's or the shop's site.
    pub url: Option<String>,
    /// The language of the order, as the provider writes it: `en`, `fr-CA`.
    pub locale: Option<String>,
    /// Where the order stands; null: not said.
    pub status: Option<Status>,
    /// The provider's word for `status`, as it came.
    pub provider_status: Option<String>,
    /// Where the payment stands; null: not said.
    pub payment_status: Option<PaymentStatus>,
    /// The provider's word for `payment_status`, as it came.
    pub provider_payment_status: Option<String>,
    /// Why the order was cancelled or rejected, as it came; null: not cancelled, or not said.
    pub cancel_reason: Option<String>,
    /// Currency of every amount that does not name its own, by the provider; by the operator's setting where the provider names none (then named in `data.assumed`).
    pub currency: Option<Currency>,
    /// Sums, as the provider states them.
    pub totals: Totals,
    /// Discounts on the order; null: not said.
    pub discounts: Option<Vec<Discount>>,
    /// Taxes on the order; null: not said.
    pub tax_lines: Option<Vec<TaxLine>>,
    /// Refunds and withdrawals since the order was placed; null: not said.
    pub adjustments: Option<Vec<Adjustment>>,
    /// Who ordered.
    pub customer: Option<Customer>,
    /// Who pays.
    pub billing_address: Option<Address>,
    /// Where it goes.
    pub shipping_address: Option<Address>,
    /// What was ordered; null: not said.
    pub items: Option<Vec<Item>>,
    /// How it goes there.
    pub shipping: Shipping,
    /// How it is paid.
    pub payment: Payment,
    /// The customer's note, as it came.
    pub note: Option<String>,
    /// Fields that the shop added to its checkout, with what the customer entered; null: not said.
    pub custom_fields: Option<Vec<CustomField>>,
    /// When the order was placed, RFC 3339 in UTC, by the provider's clock.
    pub placed_at: Option<Timestamp>,
    /// When the order last changed, RFC 3339 in UTC, by the provider's clock: order a consumer's view by this, never by arrival.
    pub updated_at: Option<Timestamp>,
    /// When the order was completed, RFC 3339 in UTC, by the provider's clock.
    pub completed_at: Option<Timestamp>,
    /// When the order was cancelled or rejected, RFC 3339 in UTC, by the provider's clock.
    pub cancelled_at: Option<Timestamp>,
}

/// Sums of an order in its currency, each as the provider states it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Totals {
    /// The items alone, before discounts, in the order's currency.
    pub items: Option<Amount>,
    /// All discounts together, in the order's currency.
    pub discount: Option<Amount>,
    /// The items less discounts, in the order's currency.
    pub subtotal: Option<Amount>,
    /// Shipping, in the order's currency.
    pub shipping: Option<Amount>,
    /// Tax on shipping, in the order's currency.
    pub shipping_tax: Option<Amount>,
    /// All taxes together, in the order's currency.
    pub tax: Option<Amount>,
    /// What the customer pays, without taxes, in the order's currency.
    pub total_net: Option<Amount>,
    /// What the customer pays, in the order's currency.
    pub total: Option<Amount>,
    /// What was paid back so far, in the order's currency.
    pub refunded: Option<Amount>,
    /// What is still to be paid, in the order's currency.
    pub outstanding: Option<Amount>,
}

/// A discount on the order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Discount {
    /// The code the customer entered.
    pub code: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// The kind of discount, in the provider's words: `coupon`, `Rate`.
    pub kind: Option<String>,
    /// Its rate in percent, where it is one: `25`.
    pub rate: Option<Amount>,
    /// What it saved, in the order's currency.
    pub amount: Option<Amount>,
}

/// A tax on the order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TaxLine {
    /// The number under which the tax is registered, as it is printed on invoices, or the provider's key of the tax.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its rate in percent: `19`.
    pub rate: Option<Amount>,
    /// Its amount, in the order's currency.
    pub amount: Option<Amount>,
    /// Whether the prices include it.
    pub included: Option<bool>,
}

/// A refund of the order or a withdrawal from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Adjustment {
    /// The provider's key of the adjustment.
    pub id: Option<String>,
    /// The number that people see: the confirmation number of a withdrawal.
    pub number: Option<String>,
    /// What it is: a refund or a withdrawal.
    pub kind: Option<AdjustmentKind>,
    /// How much goes back to the customer, in the adjustment's own `currency`.
    pub amount: Option<Amount>,
    /// The currency of `amount`, by the provider; null: the order's.
    pub currency: Option<Currency>,
    /// Why, as the provider has it.
    pub reason: Option<String>,
    /// What was decided, in the provider's words; null: not said.
    pub resolution: Option<String>,
    /// Whether it concerns a part of the order only; null: not said.
    pub partial: Option<bool>,
    /// Whether the customer asked after the end of the withdrawal period; null: not said.
    pub outside_period: Option<bool>,
    /// Whether the provider told the customer; null: not said.
    pub customer_notified: Option<bool>,
    /// The lines that it concerns; null: not said.
    pub items: Option<Vec<ItemReference>>,
    /// When it was made, RFC 3339 in UTC, by the provider's clock.
    pub created_at: Option<Timestamp>,
}

/// Who ordered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Customer {
    /// The provider's key of the customer.
    pub id: Option<String>,
    /// Full name.
    pub name: Option<String>,
    /// First name.
    pub first_name: Option<String>,
    /// Last name.
    pub last_name: Option<String>,
    /// E-mail address; some providers mask it.
    pub email: Option<String>,
    /// Telephone number as the provider writes it; some providers mask it.
    pub phone: Option<String>,
}

/// A postal address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Address {
    /// Full name.
    pub name: Option<String>,
    /// Salutation or title, as the provider writes it.
    pub salutation: Option<String>,
    /// First name.
    pub first_name: Option<String>,
    /// Last name.
    pub last_name: Option<String>,
    /// Company.
    pub company: Option<String>,
    /// Street and number, or the whole address where the provider has one line for it.
    pub line1: Option<String>,
    /// Second line.
    pub line2: Option<String>,
    /// District, between city and subdistrict.
    pub district: Option<String>,
    /// Part of a district.
    pub subdistrict: Option<String>,
    /// City.
    pub city: Option<String>,
    /// State, province or region.
    pub region: Option<String>,
    /// Code of the state, province or region, as the provider writes it: `CA`.
    pub region_code: Option<String>,
    /// Postal code.
    pub postal_code: Option<String>,
    /// Country, ISO 3166-1 alpha-2, upper case.
    pub country: Option<String>,
    /// Telephone number as the provider writes it.
    pub phone: Option<String>,
    /// E-mail address; some providers mask it.
    pub email: Option<String>,
    /// Tax or VAT number of the person or company at this address, as it came.
    pub tax_id: Option<String>,
    /// The customer's instructions for the delivery to this address, as they came.
    pub instructions: Option<String>,
}

/// An item of the order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Item {
    /// The provider's key of this line.
    pub id: Option<String>,
    /// `id` of the line that this one belongs to: the set that it is a part of.
    pub parent_id: Option<String>,
    /// What the line is: a product, a gift, a set or a part of one; null: not said.
    pub kind: Option<ItemKind>,
    /// The provider's key of the product.
    pub product_id: Option<String>,
    /// The provider's key of the product's variant: its size, its colour.
    pub variant_id: Option<String>,
    /// Stock-keeping unit.
    pub sku: Option<String>,
    /// The product's name.
    pub name: Option<String>,
    /// What the customer chose.
    pub options: Vec<ItemOption>,
    /// How many: pieces, or the unit that the shop sells in.
    pub quantity: Option<Quantity>,
    /// Price of one, in the order's currency.
    pub unit_price: Option<Amount>,
    /// Price of one without tax, in the order's currency.
    pub unit_price_net: Option<Amount>,
    /// Price of one before discounts, in the order's currency.
    pub original_unit_price: Option<Amount>,
    /// What discounts saved on the line, in the order's currency.
    pub discount: Option<Amount>,
    /// Price of the line, in the order's currency.
    pub total: Option<Amount>,
    /// Price of the line without tax, in the order's currency.
    pub total_net: Option<Amount>,
    /// Tax, in the order's currency, as the provider states it.
    pub tax: Option<Amount>,
    /// Tax rate in percent: `19`.
    pub tax_rate: Option<Amount>,
    /// Where the item stands; null: not said.
    pub status: Option<Status>,
    /// Whether the item is shipped; false for downloads, services and the like; null: not said.
    pub requires_shipping: Option<bool>,
    /// Weight of one piece, in grams.
    pub weight: Option<Quantity>,
    /// Tracking number of its parcel.
    pub tracking_number: Option<String>,
    /// Tracking number of its return.
    pub return_tracking_number: Option<String>,
    /// The product's page, a URL as it came: it may be relative to the shop's site.
    pub url: Option<String>,
    /// The product's picture, a URL as it came: it may be relative to the shop's site.
    pub image_url: Option<String>,
}

/// A choice the customer made for an item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ItemOption {
    /// What there was to choose: `Size`.
    pub name: Option<String>,
    /// What was chosen: `S`.
    pub value: Option<String>,
}

/// A field that the shop added to its checkout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CustomField {
    /// The field's name or label: `Gift message`.
    pub name: Option<String>,
    /// What the customer entered or chose, as text.
    pub value: Option<String>,
}

/// How the order travels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shipping {
    /// The method the customer chose, in the provider's words.
    pub method: Option<String>,
    /// The carrier, in the provider's words.
    pub carrier: Option<String>,
    /// Tracking number at the carrier.
    pub tracking_number: Option<String>,
    /// Tracking page, a URL as it came: it may be relative to the provider's site.
    pub tracking_url: Option<String>,
    /// Delivery note or label, a URL as it came: it may be relative to the provider's site.
    pub document_url: Option<String>,
    /// The pick-up point the parcel goes to, instead of an address.
    pub pickup_point: Option<PickupPoint>,
    /// The parcels, where the provider tells of them; null: not said. The fields above say the same of an order that travels as one.
    pub fulfillments: Option<Vec<Fulfillment>>,
}

/// A parcel of the order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fulfillment {
    /// The lines in it; null: not said.
    pub items: Option<Vec<ItemReference>>,
    /// The carrier, in the provider's words.
    pub carrier: Option<String>,
    /// Tracking number at the carrier.
    pub tracking_number: Option<String>,
    /// Tracking page, a URL as it came: it may be relative to the provider's site.
    pub tracking_url: Option<String>,
    /// Tracking number of its return.
    pub return_tracking_number: Option<String>,
    /// Where the parcel stands; null: not said.
    pub status: Option<Status>,
}

/// A line of the order, or some of its pieces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ItemReference {
    /// `id` of the line in `order.items`.
    pub id: Option<String>,
    /// How many of it: pieces, or the unit that the shop sells in; null: not said.
    pub quantity: Option<Quantity>,
}

/// A parcel shop or locker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PickupPoint {
    /// Its key at the carrier.
    pub id: Option<String>,
    /// Its kind, in the provider's words.
    pub r#type: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// The number that people know it by: of a branch or a locker.
    pub number: Option<String>,
    /// Its key in the carrier's own directory, where that is not `id`.
    pub r#ref: Option<String>,
    /// The customer's own number at the carrier, without which some lockers take no parcel.
    pub customer_number: Option<String>,
}

/// How the order is paid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Payment {
    /// The method, in the provider's words; the gateway where the provider names nothing else.
    pub method: Option<String>,
    /// The provider's key of the method; it may differ from shop to shop.
    pub method_id: Option<String>,
    /// The gateway or processor that takes the payment, in the provider's words.
    pub gateway: Option<String>,
    /// The provider's key of the payment.
    pub id: Option<String>,
    /// The card that it is paid with.
    pub card: Option<Card>,
}

/// A payment card, as far as it may be shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Card {
    /// The brand, as the provider writes it: `Visa`.
    pub brand: Option<String>,
    /// The last four digits of its number.
    pub last4: Option<String>,
}

/// A step from one word of the provider to another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    /// The provider's word before.
    pub from: Option<String>,
    /// The provider's word after.
    pub to: Option<String>,
}

/// Money that went back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refund {
    /// How much, in the refund's own `currency`.
    pub amount: Option<Amount>,
    /// In which currency, by the provider.
    pub currency: Option<Currency>,
    /// Why, as the provider has it.
    pub reason: Option<String>,
    /// Whether the provider told the customer.
    pub customer_notified: Option<bool>,
}

/// A message added to the order. Texts may hold HTML from the provider: never show them unescaped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Notification {
    /// The provider's word for its kind.
    pub kind: Option<String>,
    /// Subject, as it came.
    pub subject: Option<String>,
    /// Text, as it came.
    pub message: Option<String>,
    /// Whether the provider sent it by e-mail.
    pub sent_by_email: Option<bool>,
}

/// `value`, or nothing if no field of it is known: an absent fact is null as a whole.
pub fn unless_empty<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn characters_that_sqs_refuses_are_escaped_and_read_back_the_same() {
        let item = Item {
            name: Some("a\u{ffff}b\u{fffe}\u{0}".to_owned()),
            ..Item::default()
        };
        let order = Order {
            items: Some(vec![item]),
            ..Order::default()
        };
        let event = sample(order);
        let json = event.to_json();
        assert!(json.contains(r"a\uffffb\ufffe\u0000"));
        assert!(!json.contains(['\u{fffe}', '\u{ffff}', '\u{0}']));
        assert_eq!(serde_json::from_str::<OrderEvent>(&json).expect("an event"), event);
    }

    #[test]
    fn an_event_is_read_back_exactly_as_it_was_written() {
        let mut event = sample(Order {
            id: Some("1".to_owned()),
            ..Order::default()
        });
        let unmapped = r#"{"big":123456789012345678901234567890.10,"list":[{}, null]}"#;
        event.data.unmapped = Some(serde_json::from_str(unmapped).expect("an object"));
        let json = event.to_json();
        assert!(json.contains("123456789012345678901234567890.10"));
        assert_eq!(
            serde_json::from_str::<OrderEvent>(&json).expect("an event").to_json(),
            json
        );
    }

    pub(crate) fn sample(order: Order) -> OrderEvent {
        let shop = crate::identity::Shop::parse("main").expect("a shop");
        OrderEvent {
            specversion: "1.0".to_owned(),
            id: EventId::new("selldone", &shop, &crate::identity::IdempotencyKey::Body, b"{}"),
            source: "/selldone/main".to_owned(),
            r#type: EventType::Created,
            subject: order.id.clone(),
            time: Timestamp::UNIX_EPOCH,
            datacontenttype: "application/json".to_owned(),
            dataschema: "urn:order-webhooks:order-event:v1".to_owned(),
            data: Data {
                provider: "selldone".to_owned(),
                shop: "main".to_owned(),
                provider_event: "CheckoutOrder".to_owned(),
                test: false,
                received_at: Timestamp::UNIX_EPOCH,
                order,
                change: None,
                refund: None,
                notification: None,
                partial: false,
                assumed: Vec::new(),
                warnings: Vec::new(),
                omitted: Vec::new(),
                unmapped: Some(Unmapped::default()),
            },
        }
    }
}
