//! How an event is written: its head, and the parts that its large values are kept in.

use std::borrow::Cow;
use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;

use super::compressed::gzip;
use super::parts::part_name;
use super::{AttemptId, Content, FIRST_REDRIVE_AFTER, Hour, Item, NewEvent};
use crate::delivery::Delivery;
use crate::identity::{EventId, sha256_hex};

/// An item takes 400 KB, names included; the rest of a head stays far below the difference.
const VALUES_IN_HEAD: usize = 350_000;
const PART_SIZE: usize = 350_000;
/// A partition key takes 2 KB; the index stays readable for any sensible order id.
const ORDER_IN_KEY: usize = 512;

/// The items an entry is written as: the head, and the parts it refers to.
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
        let mut written = Self {
            head: Item::new(),
            payload_sha256: sha256_hex(delivery.body()),
            parts: Vec::new(),
        };
        written.text("pk", new_event.id.as_str());
        written.text("sk", "head");
        written.text("event_id", new_event.id.as_str());
        written.text("state", state.as_str());
        written.text("provider", new_event.provider);
        written.text("shop", delivery.shop().as_str());
        written.text("received_at", &received_at);
        written.text("attempt_id", &attempt.0);
        written
            .head
            .insert("attempts".to_owned(), AttributeValue::N("0".to_owned()));
        written.head.insert(
            "payload_sha256".to_owned(),
            AttributeValue::S(written.payload_sha256.clone()),
        );
        written
            .head
            .insert("request".to_owned(), AttributeValue::M(request(delivery)));
        let hour = Hour::containing(delivery.received_at()).key();
        written.text(
            "hour",
            &format!("{}#{hour}#{}", new_event.provider, new_event.id.shard()),
        );
        if state.is_work() {
            written.text("work", &format!("{}#{}", state.as_str(), new_event.id.shard()));
            written.text("next_attempt_at", &sortable(Timestamp::now() + FIRST_REDRIVE_AFTER));
        }
        let mut event = None;
        match new_event.content {
            Content::Order(order_event, json) => {
                written.text("type", order_event.r#type.as_str());
                written.text("time", &order_event.time.to_string());
                if let Some(order) = &order_event.data.order.id {
                    written.order(new_event, order, &received_at);
                }
                event = Some(json.compressed().to_vec());
            }
            Content::Quarantined(reason, order) => {
                written.text("reason", reason.as_str());
                if let Some(order) = order {
                    written.order(new_event, order, &received_at);
                }
            }
            Content::Unsupported => {}
        }
        written.values(new_event.id, gzip(delivery.body()), event);
        written
    }

    fn text(&mut self, name: &str, value: &str) {
        self.head.insert(name.to_owned(), AttributeValue::S(value.to_owned()));
    }

    fn order(&mut self, new_event: &NewEvent<'_>, order: &str, received_at: &str) {
        let key = order_key(new_event.provider, new_event.delivery.shop().as_str(), order);
        self.text("order", &short(order));
        self.text("order_key", &key);
        self.text("order_sort", &format!("{received_at}#{}", new_event.id));
    }

    /// Puts the two large values into the head, or where they do not fit the larger ones into parts.
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
                self.head.insert(name.to_owned(), AttributeValue::B(Blob::new(value)));
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
            self.head.insert(format!("{name}_parts"), AttributeValue::L(names));
            self.parts.extend(parts);
        }
    }
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

/// What of the request beside its body is needed to understand it again. The token is not kept.
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

/// A time whose text sorts as the time does: always milliseconds.
pub(super) fn sortable(time: Timestamp) -> String {
    format!("{time:.3}")
}
