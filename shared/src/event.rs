//! The normalized order event: one CloudEvents 1.0 JSON object, the same for every provider.
//!
//! Facts that the provider does not state are null. Nothing is guessed, and no total is computed. Within v1 fields are only added.

pub(crate) mod json;
mod unmapped;
mod vocabulary;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::unmapped::Unmapped;
pub use self::vocabulary::{AdjustmentKind, EventType, ItemKind, Origin, PaymentStatus, Status};

use crate::identity::EventId;
use crate::money::{Amount, Currency, Quantity};

/// A normalized order event in CloudEvents 1.0 JSON format, as published to the topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OrderEvent {
    /// The version of CloudEvents: `1.0`.
    pub specversion: String,
    /// The id of the event: 64 hex digits, computed from the provider's payload. The same event always has the same id, also when it is replayed: deduplicate by it.
    pub id: EventId,
    /// The source of the event: `/{provider}/{shop}`.
    pub source: String,
    /// The type of the event, in normalized words; `data.provider_event` is the provider's word.
    pub r#type: EventType,
    /// The provider's id of the order, as in `data.order.id`; absent if the provider names no order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The time of the event, RFC 3339 in UTC, by the provider's clock; the time of receipt if the provider states none (then named in `data.assumed`).
    pub time: Timestamp,
    /// The format of `data`: `application/json`.
    pub datacontenttype: String,
    /// The schema of `data`: `urn:order-webhooks:order-event:v1`.
    pub dataschema: String,
    /// The event and its order.
    pub data: Data,
}

/// The event, and the order as the provider describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Data {
    /// The provider's slug, from the route of the delivery: `selldone`, `cartum`, `deeple`, `aboutyou`, `snipcart`.
    pub provider: String,
    /// The operator's name for the shop, from the route of the delivery.
    pub shop: String,
    /// The provider's word for the event; `reconciliation` if no delivery reported it.
    pub provider_event: String,
    /// How the event became known. Absent in events that were stored before this field existed, which are all from deliveries.
    #[serde(default)]
    pub origin: Origin,
    /// True for an order of the provider's test mode; false if the provider has no test mode or does not state it.
    pub test: bool,
    /// The time at which the delivery of the event was received: RFC 3339 in UTC, by the receiver's clock, to the millisecond.
    pub received_at: Timestamp,
    /// The order as the provider describes it. Facts that it does not state are null.
    pub order: Order,
    /// The change that a change event reports, in the provider's words; null for other events.
    pub change: Option<Change>,
    /// The refund that the event reports; null for other events.
    pub refund: Option<Refund>,
    /// The notification that the event reports; null for other events.
    pub notification: Option<Notification>,
    /// True if the provider sent only a part of the order. Null then means "not stated", never "removed".
    pub partial: bool,
    /// JSON pointers, from the event's root, to values that the provider did not state explicitly.
    pub assumed: Vec<String>,
    /// JSON pointers, from the payload's root, to fields that were not as documented. They are null in the event, and `unmapped` holds them unchanged.
    pub warnings: Vec<String>,
    /// JSON pointers, from the event's root, to the values that the publisher left out of this message because of its size or for privacy. The stored event is complete.
    pub omitted: Vec<String>,
    /// The parts of the provider's payload that have no field in the event, unchanged and at their own places; null if they were left out.
    pub unmapped: Option<Unmapped>,
}

/// An order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Order {
    /// The provider's key of the order.
    pub id: Option<String>,
    /// The number that people see; the same as `id` if only one of the two is known.
    pub number: Option<String>,
    /// The sales channel of the order, in the provider's words, if the provider sells on several.
    pub channel: Option<String>,
    /// The provider's key of the order that this one follows from: the first order of a subscription whose renewal this is.
    pub parent_id: Option<String>,
    /// The URL of the order's page at the provider, unchanged. It may be relative to the provider's or the shop's site.
    pub url: Option<String>,
    /// The language of the order, as the provider writes it: `en`, `fr-CA`.
    pub locale: Option<String>,
    /// The status of the order; null: not stated.
    pub status: Option<Status>,
    /// The provider's word for `status`, unchanged.
    pub provider_status: Option<String>,
    /// The status of the payment; null: not stated.
    pub payment_status: Option<PaymentStatus>,
    /// The provider's word for `payment_status`, unchanged.
    pub provider_payment_status: Option<String>,
    /// The reason why the order was cancelled or rejected, unchanged; null: not cancelled, or not stated.
    pub cancel_reason: Option<String>,
    /// The currency of every amount that does not name its own, as the provider states it; the operator's setting if the provider states none (then named in `data.assumed`).
    pub currency: Option<Currency>,
    /// The totals, as the provider states them.
    pub totals: Totals,
    /// The discounts on the order; null: not stated.
    pub discounts: Option<Vec<Discount>>,
    /// The taxes on the order; null: not stated.
    pub tax_lines: Option<Vec<TaxLine>>,
    /// The refunds and withdrawals since the order was placed; null: not stated.
    pub adjustments: Option<Vec<Adjustment>>,
    /// The customer who placed the order.
    pub customer: Option<Customer>,
    /// The billing address.
    pub billing_address: Option<Address>,
    /// The shipping address.
    pub shipping_address: Option<Address>,
    /// The items of the order; null: not stated.
    pub items: Option<Vec<Item>>,
    /// The shipping of the order.
    pub shipping: Shipping,
    /// The payment of the order.
    pub payment: Payment,
    /// The customer's note, unchanged.
    pub note: Option<String>,
    /// The fields that the shop added to its checkout, with the customer's input; null: not stated.
    pub custom_fields: Option<Vec<CustomField>>,
    /// The time at which the order was placed, RFC 3339 in UTC, by the provider's clock.
    pub placed_at: Option<Timestamp>,
    /// The time of the order's last change, RFC 3339 in UTC, by the provider's clock. Order a consumer's view by this, never by arrival.
    pub updated_at: Option<Timestamp>,
    /// The time at which the order was completed, RFC 3339 in UTC, by the provider's clock.
    pub completed_at: Option<Timestamp>,
    /// The time at which the order was cancelled or rejected, RFC 3339 in UTC, by the provider's clock.
    pub cancelled_at: Option<Timestamp>,
}

/// The totals of an order in its currency, each as the provider states it.
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
    /// The amount that the customer pays, without taxes, in the order's currency.
    pub total_net: Option<Amount>,
    /// The amount that the customer pays, in the order's currency.
    pub total: Option<Amount>,
    /// The amount that was paid back so far, in the order's currency.
    pub refunded: Option<Amount>,
    /// The amount that is still to be paid, in the order's currency.
    pub outstanding: Option<Amount>,
}

/// A discount on the order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Discount {
    /// The code that the customer entered.
    pub code: Option<String>,
    /// The name of the discount.
    pub name: Option<String>,
    /// The kind of discount, in the provider's words: `coupon`, `Rate`.
    pub kind: Option<String>,
    /// The rate in percent, if the discount has one: `25`.
    pub rate: Option<Amount>,
    /// The amount of the discount, in the order's currency.
    pub amount: Option<Amount>,
}

/// A tax on the order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TaxLine {
    /// The number under which the tax is registered, as it is printed on invoices, or the provider's key of the tax.
    pub id: Option<String>,
    /// The name of the tax.
    pub name: Option<String>,
    /// The rate in percent: `19`.
    pub rate: Option<Amount>,
    /// The amount of the tax, in the order's currency.
    pub amount: Option<Amount>,
    /// Whether the prices include the tax.
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
    /// The kind of adjustment: a refund or a withdrawal.
    pub kind: Option<AdjustmentKind>,
    /// The amount that goes back to the customer, in the adjustment's own `currency`.
    pub amount: Option<Amount>,
    /// The currency of `amount`, as the provider states it; null: the order's currency.
    pub currency: Option<Currency>,
    /// The reason, as the provider states it.
    pub reason: Option<String>,
    /// The decision, in the provider's words; null: not stated.
    pub resolution: Option<String>,
    /// Whether the adjustment concerns only a part of the order; null: not stated.
    pub partial: Option<bool>,
    /// Whether the customer asked after the end of the withdrawal period; null: not stated.
    pub outside_period: Option<bool>,
    /// Whether the provider notified the customer; null: not stated.
    pub customer_notified: Option<bool>,
    /// The lines that the adjustment concerns; null: not stated.
    pub items: Option<Vec<ItemReference>>,
    /// The time of the adjustment, RFC 3339 in UTC, by the provider's clock.
    pub created_at: Option<Timestamp>,
}

/// The customer who placed the order.
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
    /// Telephone number, as the provider writes it; some providers mask it.
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
    /// Street and number, or the complete address if the provider has one line for it.
    pub line1: Option<String>,
    /// Second line.
    pub line2: Option<String>,
    /// District, a part of the city.
    pub district: Option<String>,
    /// Subdistrict, a part of the district.
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
    /// Tax or VAT number of the person or company at this address, unchanged.
    pub tax_id: Option<String>,
    /// The customer's instructions for the delivery to this address, unchanged.
    pub instructions: Option<String>,
}

/// An item of the order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Item {
    /// The provider's key of this line.
    pub id: Option<String>,
    /// `id` of the line to which this one belongs: the set of which it is a part.
    pub parent_id: Option<String>,
    /// The kind of line: a product, a gift, a set or a part of one; null: not stated.
    pub kind: Option<ItemKind>,
    /// The provider's key of the product.
    pub product_id: Option<String>,
    /// The provider's key of the product's variant, such as its size or colour.
    pub variant_id: Option<String>,
    /// Stock-keeping unit.
    pub sku: Option<String>,
    /// The name of the product.
    pub name: Option<String>,
    /// The options that the customer chose.
    pub options: Vec<ItemOption>,
    /// The number of pieces, or of the unit in which the shop sells.
    pub quantity: Option<Quantity>,
    /// Price of one piece, in the order's currency.
    pub unit_price: Option<Amount>,
    /// Price of one piece without tax, in the order's currency.
    pub unit_price_net: Option<Amount>,
    /// Price of one piece before discounts, in the order's currency.
    pub original_unit_price: Option<Amount>,
    /// The discount on the line, in the order's currency.
    pub discount: Option<Amount>,
    /// Price of the line, in the order's currency.
    pub total: Option<Amount>,
    /// Price of the line without tax, in the order's currency.
    pub total_net: Option<Amount>,
    /// Tax, in the order's currency, as the provider states it.
    pub tax: Option<Amount>,
    /// Tax rate in percent: `19`.
    pub tax_rate: Option<Amount>,
    /// The status of the item; null: not stated.
    pub status: Option<Status>,
    /// Whether the item is shipped; false for downloads, services and the like; null: not stated.
    pub requires_shipping: Option<bool>,
    /// Weight of one piece, in grams.
    pub weight: Option<Quantity>,
    /// Tracking number of the item's parcel.
    pub tracking_number: Option<String>,
    /// Tracking number of the item's return.
    pub return_tracking_number: Option<String>,
    /// The URL of the product's page, unchanged. It may be relative to the shop's site.
    pub url: Option<String>,
    /// The URL of the product's picture, unchanged. It may be relative to the shop's site.
    pub image_url: Option<String>,
}

/// An option that the customer chose for an item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ItemOption {
    /// The name of the option: `Size`.
    pub name: Option<String>,
    /// The value that was chosen: `S`.
    pub value: Option<String>,
}

/// A field that the shop added to its checkout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CustomField {
    /// The name or label of the field: `Gift message`.
    pub name: Option<String>,
    /// The value that the customer entered or chose, as text.
    pub value: Option<String>,
}

/// The shipping of an order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shipping {
    /// The method that the customer chose, in the provider's words.
    pub method: Option<String>,
    /// The carrier, in the provider's words.
    pub carrier: Option<String>,
    /// Tracking number at the carrier.
    pub tracking_number: Option<String>,
    /// The URL of the tracking page, unchanged. It may be relative to the provider's site.
    pub tracking_url: Option<String>,
    /// The URL of the delivery note or label, unchanged. It may be relative to the provider's site.
    pub document_url: Option<String>,
    /// The pick-up point to which the parcel goes in place of an address.
    pub pickup_point: Option<PickupPoint>,
    /// The parcels, if the provider states them; null: not stated. For an order in one parcel the fields above state the same.
    pub fulfillments: Option<Vec<Fulfillment>>,
}

/// A parcel of the order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fulfillment {
    /// The lines in the parcel; null: not stated.
    pub items: Option<Vec<ItemReference>>,
    /// The carrier, in the provider's words.
    pub carrier: Option<String>,
    /// Tracking number at the carrier.
    pub tracking_number: Option<String>,
    /// The URL of the tracking page, unchanged. It may be relative to the provider's site.
    pub tracking_url: Option<String>,
    /// Tracking number of the parcel's return.
    pub return_tracking_number: Option<String>,
    /// The status of the parcel; null: not stated.
    pub status: Option<Status>,
}

/// A line of the order, or some of its pieces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ItemReference {
    /// `id` of the line in `order.items`.
    pub id: Option<String>,
    /// The number of pieces of the line, or of the unit in which the shop sells; null: not stated.
    pub quantity: Option<Quantity>,
}

/// A parcel shop or locker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PickupPoint {
    /// The key of the pick-up point at the carrier.
    pub id: Option<String>,
    /// The kind of pick-up point, in the provider's words.
    pub r#type: Option<String>,
    /// The name of the pick-up point.
    pub name: Option<String>,
    /// The number of the branch or locker that people use.
    pub number: Option<String>,
    /// The key in the carrier's own directory, if that is not `id`.
    pub r#ref: Option<String>,
    /// The customer's number at the carrier, without which some lockers do not accept a parcel.
    pub customer_number: Option<String>,
}

/// The payment of an order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Payment {
    /// The method, in the provider's words; the gateway if the provider names nothing else.
    pub method: Option<String>,
    /// The provider's key of the method. It may differ between shops.
    pub method_id: Option<String>,
    /// The gateway or processor of the payment, in the provider's words.
    pub gateway: Option<String>,
    /// The provider's key of the payment.
    pub id: Option<String>,
    /// The card with which the order is paid.
    pub card: Option<Card>,
}

/// A payment card, as far as it may be shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Card {
    /// The brand, as the provider writes it: `Visa`.
    pub brand: Option<String>,
    /// The last four digits of the card number.
    pub last4: Option<String>,
}

/// A change from one word of the provider to another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    /// The provider's word before the change.
    pub from: Option<String>,
    /// The provider's word after the change.
    pub to: Option<String>,
}

/// A refund to the customer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refund {
    /// The amount, in the refund's own `currency`.
    pub amount: Option<Amount>,
    /// The currency of `amount`, as the provider states it.
    pub currency: Option<Currency>,
    /// The reason, as the provider states it.
    pub reason: Option<String>,
    /// Whether the provider notified the customer.
    pub customer_notified: Option<bool>,
}

/// A message that was added to the order. The texts may contain HTML from the provider: never show them unescaped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Notification {
    /// The provider's word for the kind of notification.
    pub kind: Option<String>,
    /// The subject, unchanged.
    pub subject: Option<String>,
    /// The text, unchanged.
    pub message: Option<String>,
    /// Whether the provider sent the notification by e-mail.
    pub sent_by_email: Option<bool>,
}

/// Returns `value`, or `None` if no field of it is known, so that an absent fact is null.
pub fn unless_empty<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn characters_that_sqs_rejects_are_escaped() {
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
                origin: Origin::Webhook,
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
