//! The items of an event: its head, and the parts for values that do not fit into the head.

use std::borrow::Cow;
use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;

use super::compressed::gzip;
use super::parts::part_name;
use super::{AttemptId, Content, FIRST_REDRIVE_AFTER, Hour, Item, NewEvent};
use crate::delivery::Delivery;
use crate::event::OrderEvent;
use crate::identity::{EventId, sha256_hex};
use crate::reconciliation::{Base, OrderVersion};

/// The room for the two large values in a head. An item takes 400 KB, names included; the other attributes stay far
/// below the rest.
const VALUES_IN_HEAD: usize = 350_000;
const PART_SIZE: usize = 350_000;
/// The longest order id in an index key, which takes 2 KB. Order ids are much shorter, so that the keys stay readable.
const ORDER_IN_KEY: usize = 512;

/// The `order_version` of an event that does not describe its order completely.
pub(super) const PARTIAL: &str = "partial";

/// The items of a new event: its head, and the parts to which the head refers.
pub(super) struct EventItems {
    pub(super) head: Item,
    pub(super) payload_sha256: String,
    pub(super) parts: Vec<(String, Vec<u8>)>,
}

impl EventItems {
    pub(super) fn of(new_event: &NewEvent<'_>, attempt: &AttemptId) -> Self {
        let delivery = new_event.delivery;
        let received_at = sortable(delivery.received_at());
        let state = new_event.content.state();
        let mut items = Self {
            head: Item::new(),
            payload_sha256: sha256_hex(delivery.body()),
            parts: Vec::new(),
        };
        items.text("pk", new_event.id.as_str());
        items.text("sk", "head");
        items.text("event_id", new_event.id.as_str());
        items.text("state", state.as_str());
        items.text("provider", new_event.provider);
        items.text("shop", delivery.shop().as_str());
        items.text("received_at", &received_at);
        items.text("attempt_id", &attempt.0);
        items.insert("attempts", AttributeValue::N("0".to_owned()));
        items.insert("payload_sha256", AttributeValue::S(items.payload_sha256.clone()));
        items.insert("request", AttributeValue::M(request(delivery)));
        if let Some(reconciled) = delivery.reconciled() {
            items.text("origin", delivery.origin().as_str());
            if let Some(base) = &reconciled.base {
                items.insert("reconciled_from", AttributeValue::M(reconciled_from(base)));
            }
        }
        let hour = Hour::containing(delivery.received_at()).key();
        items.text(
            "hour",
            &format!("{}#{hour}#{}", new_event.provider, new_event.id.shard()),
        );
        if state.is_work() {
            items.text("work", &format!("{}#{}", state.as_str(), new_event.id.shard()));
            items.text("next_attempt_at", &sortable(Timestamp::now() + FIRST_REDRIVE_AFTER));
        }
        let mut event = None;
        match new_event.content {
            Content::Order(order_event, json) => {
                items.text("type", order_event.r#type.as_str());
                items.text("time", &order_event.time.to_string());
                if let Some(order) = &order_event.data.order.id {
                    items.order(new_event, order, &received_at);
                    items.text("order_version", &order_version(order_event));
                }
                items.text("event_sha256", json.sha256());
                event = Some(json.compressed().to_vec());
            }
            Content::Quarantined(reason, order) => {
                items.text("reason", reason.as_str());
                if let Some(order) = order {
                    items.order(new_event, order, &received_at);
                }
            }
            Content::Unsupported => {}
        }
        items.values(new_event.id, gzip(delivery.body()), event);
        items
    }

    fn insert(&mut self, name: &str, value: AttributeValue) {
        self.head.insert(name.to_owned(), value);
    }

    fn text(&mut self, name: &str, value: &str) {
        self.insert(name, AttributeValue::S(value.to_owned()));
    }

    fn order(&mut self, new_event: &NewEvent<'_>, order: &str, received_at: &str) {
        let key = order_key(new_event.provider, new_event.delivery.shop().as_str(), order);
        self.text("order", &short(order));
        self.text("order_key", &key);
        self.text("order_sort", &format!("{received_at}#{}", new_event.id));
    }

    /// Puts the two large values into the head, or the larger ones into parts if they do not fit.
    fn values(&mut self, id: &EventId, payload: Vec<u8>, event: Option<Vec<u8>>) {
        let mut values: Vec<_> = [("payload", Some(payload)), ("event", event)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        values.sort_by_key(|(_, value)| value.len());
        let mut room = VALUES_IN_HEAD;
        for (name, value) in values {
            if value.len() <= room {
                room -= value.len();
                self.insert(name, AttributeValue::B(Blob::new(value)));
                continue;
            }
            let sha256 = sha256_hex(&value);
            let parts: Vec<_> = value
                .chunks(PART_SIZE)
                .enumerate()
                .map(|(index, chunk)| {
                    let name = part_name(id, &self.payload_sha256, &sha256, index);
                    (name, chunk.to_vec())
                })
                .collect();
            let names = parts.iter().map(|(name, _)| AttributeValue::S(name.clone())).collect();
            self.insert(&format!("{name}_parts"), AttributeValue::L(names));
            self.parts.extend(parts);
        }
    }
}

/// The version of the order in an event, or [`PARTIAL`].
fn order_version(event: &OrderEvent) -> String {
    if event.data.partial {
        PARTIAL.to_owned()
    } else {
        OrderVersion::of(&event.data.order).to_json()
    }
}

/// The event with which a reconciled order was compared.
fn reconciled_from(base: &Base) -> Item {
    let text = |value: String| AttributeValue::S(value);
    HashMap::from([
        ("event_id".to_owned(), text(base.id.to_string())),
        ("order_version".to_owned(), text(base.version.to_json())),
    ])
}

/// The key of an order's history in the index `by_order`.
pub(super) fn order_key(provider: &str, shop: &str, order: &str) -> String {
    format!("{provider}#{shop}#{}", short(order))
}

fn short(order: &str) -> Cow<'_, str> {
    if order.len() <= ORDER_IN_KEY {
        order.into()
    } else {
        sha256_hex(order.as_bytes()).into()
    }
}

/// The parts of the request, in addition to its body, that are needed to read it again. The token is not stored.
fn request(delivery: &Delivery) -> Item {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    let query = delivery
        .parameters_without_credentials()
        .into_iter()
        .map(|(name, values)| {
            let values = values.into_iter().map(text).collect();
            (name.to_owned(), AttributeValue::L(values))
        });
    HashMap::from([
        ("method".to_owned(), text(delivery.method().as_str())),
        ("query".to_owned(), AttributeValue::M(query.collect())),
    ])
}

/// Writes a time with exactly three digits of a second, so that texts sort as the times do.
pub(super) fn sortable(time: Timestamp) -> String {
    format!("{time:.3}")
}
