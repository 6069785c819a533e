//! The histories that a consumer is checked with, by the rule that they show.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::rule::Rule;
use crate::project::build::workspace;
use crate::providers::random::draw;
use crate::{Error, TOPIC_ARN};

/// The event of which the others are made.
const BASE: &str = include_str!("../../../events/selldone/checkout-order.normalized.json");
/// The beginning of each history.
const DAY: &str = "2026-01-31";
/// The facts that an event of a history does not state unless it says so.
const NOT_STATED: [&str; 3] = ["provider_status", "provider_payment_status", "note"];

/// Messages in the order in which they are sent.
#[derive(Debug, Clone)]
pub(super) struct History {
    pub(super) name: String,
    pub(super) messages: Vec<Message>,
}

/// A message of the topic.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) event: Value,
    pub(super) is_replay: bool,
}

impl Message {
    fn new(event: &Value) -> Self {
        Self {
            event: event.clone(),
            is_replay: false,
        }
    }

    fn replay(event: &Value) -> Self {
        Self {
            event: event.clone(),
            is_replay: true,
        }
    }

    /// The message with other ids of its event and its order.
    pub(super) fn renamed(&self, suffix: &str) -> Self {
        let mut event = self.event.clone();
        let id = format!("{suffix}/{}", event["id"].as_str().unwrap_or_default());
        event["id"] = hex::encode(Sha256::digest(id)).into();
        for pointer in ["/subject", "/data/order/id", "/data/order/number"] {
            if let Some(Value::String(text)) = event.pointer_mut(pointer) {
                *text = format!("{text}-{suffix}");
            }
        }
        Self {
            event,
            is_replay: self.is_replay,
        }
    }

    /// The body that SNS gives the message in a queue.
    pub(super) fn envelope(&self) -> String {
        let data = &self.event["data"];
        let attributes = [
            ("type", &self.event["type"]),
            ("provider", &data["provider"]),
            ("shop", &data["shop"]),
            ("currency", &data["order"]["currency"]),
        ];
        let mut attributes: BTreeMap<&str, Value> = attributes
            .into_iter()
            .filter(|(_, value)| value.is_string())
            .map(|(name, value)| (name, json!({"Type": "String", "Value": value})))
            .collect();
        let flags = [("test", data["test"] == true, true), ("replay", self.is_replay, false)];
        for (name, value, is_always_sent) in flags {
            if value || is_always_sent {
                attributes.insert(name, json!({"Type": "String", "Value": value.to_string()}));
            }
        }
        json!({
            "Type": "Notification",
            "MessageId": uuid::Uuid::new_v4().to_string(),
            "TopicArn": TOPIC_ARN,
            "Message": self.event.to_string(),
            "Timestamp": format!("{:.3}", Timestamp::now()),
            "SignatureVersion": "1",
            "MessageAttributes": attributes,
        })
        .to_string()
    }
}

impl fmt::Display for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = &self.event;
        let text = |value: &Value| value.as_str().unwrap_or("null").to_owned();
        let data = &event["data"];
        write!(
            formatter,
            "{} {} of {}/{}, time {}, updated_at {}",
            text(&event["type"]),
            text(&event["id"]),
            text(&event["source"]),
            text(&data["order"]["id"]),
            text(&event["time"]),
            text(&data["order"]["updated_at"])
        )?;
        for (is_so, word) in [
            (self.is_replay, "a replay"),
            (data["partial"] == true, "partial"),
            (data["test"] == true, "a test"),
        ] {
            if is_so {
                write!(formatter, ", {word}")?;
            }
        }
        if data["omitted"].as_array().is_some_and(|omitted| !omitted.is_empty()) {
            write!(formatter, ", omitted {}", data["omitted"])?;
        }
        Ok(())
    }
}

/// All histories, by their rules. Those of `combined` are shuffled by the seed.
pub(super) fn all(seed: u64) -> Result<Vec<(Rule, Vec<History>)>, Error> {
    let base: Value = serde_json::from_str(BASE).map_err(|error| Error::Fixture(error.to_string()))?;
    let events = Events::of(&base);
    let Events {
        created,
        paid,
        shipped,
        refunded,
        delivered,
    } = &events;
    let in_order = [created, paid, shipped, refunded, delivered];
    let plain = in_order.map(Message::new);
    let [first, refund] = [created, refunded].map(Message::new);
    let [first_again, refund_again, last_again] = [created, refunded, delivered].map(Message::replay);
    let history = |name: &str, messages: &[Message]| History {
        name: name.to_owned(),
        messages: messages.to_vec(),
    };
    let two_shops = events.of_two_shops();
    Ok(vec![
        (Rule::Plain, vec![history("a plain order", &plain)]),
        (
            Rule::UnknownFields,
            vec![history("added fields", &[Message::new(&with_unknown_fields(created))])],
        ),
        (
            Rule::Deduplication,
            vec![history(
                "a refund that arrives twice",
                &[first.clone(), refund.clone(), refund.clone()],
            )],
        ),
        (
            Rule::Replay,
            vec![history(
                "a replay of an order with a refund",
                &[first.clone(), refund.clone(), first_again.clone(), refund_again.clone()],
            )],
        ),
        (Rule::Ordering, permutations(&[created, shipped, delivered])),
        (
            Rule::Partial,
            vec![
                history(
                    "a partial refund event after a shipment",
                    &[created, shipped, &partial(refunded.clone())].map(Message::new),
                ),
                history(
                    "a part of the items",
                    &[created, &events.items_shipped()].map(Message::new),
                ),
            ],
        ),
        (
            Rule::Omitted,
            vec![history(
                "a message without its items",
                &[created, &without_items(shipped)].map(Message::new),
            )],
        ),
        (Rule::Shops, vec![history("one order id at two shops", &two_shops)]),
        (
            Rule::TestOrders,
            vec![history("a test order", &[created, &of_test(created)].map(Message::new))],
        ),
        (
            Rule::Erased,
            vec![history(
                "a replay without the erased shipment",
                &[&plain[..], &[first_again, refund_again, last_again]].concat(),
            )],
        ),
        (Rule::Combined, combined(seed, &plain)?),
    ])
}

/// The events of an ordinary order, in the order in which they happened.
struct Events {
    created: Value,
    paid: Value,
    shipped: Value,
    refunded: Value,
    delivered: Value,
}

impl Events {
    fn of(base: &Value) -> Self {
        let nothing = || json!({"status": null, "payment_status": null, "items": null});
        let event = |name: &str, minute: u32, stated: Value| event(base, name, minute, stated);
        let with = |mut facts: Value, name: &str, value: Value| {
            facts[name] = value;
            facts
        };
        let mut shipped = event("shipped", 2, with(nothing(), "status", "shipped".into()));
        shipped["data"]["order"]["shipping"]["tracking_number"] = "T-1".into();
        let mut refunded = event(
            "refunded",
            3,
            with(nothing(), "payment_status", "partially_refunded".into()),
        );
        refunded["data"]["refund"] =
            json!({"amount": "5", "currency": "USD", "reason": null, "customer_notified": null});
        Self {
            created: event(
                "created",
                0,
                json!({
                    "status": "pending",
                    "payment_status": "unpaid",
                    "items": [line(base, "line-1", 1), line(base, "line-2", 2)],
                }),
            ),
            paid: event("paid", 1, with(nothing(), "payment_status", "paid".into())),
            shipped,
            refunded,
            delivered: event("delivered", 4, with(nothing(), "status", "delivered".into())),
        }
    }

    /// A partial event that names one of the two items.
    fn items_shipped(&self) -> Value {
        let mut event = partial(self.refunded.clone());
        event["id"] = "items-shipped".into();
        event["type"] = "order.items_shipped".into();
        event["data"]["refund"] = Value::Null;
        let mut line = self.created["data"]["order"]["items"][0].clone();
        line["status"] = "shipped".into();
        line["tracking_number"] = "T-2".into();
        event["data"]["order"]["items"] = json!([line]);
        event
    }

    /// The events of two orders with the same id, at two shops.
    fn of_two_shops(&self) -> Vec<Message> {
        let at_second = |event: &Value| {
            let mut event = event.clone();
            event["id"] = format!("{}-second", event["id"].as_str().unwrap_or_default()).into();
            event["source"] = "/selldone/second".into();
            event["data"]["shop"] = "second".into();
            event
        };
        let [created, shipped] = [&self.created, &self.shipped].map(at_second);
        [&self.created, &created, &shipped].map(Message::new).to_vec()
    }
}

fn event(base: &Value, name: &str, minute: u32, stated: Value) -> Value {
    let mut event = base.clone();
    let time = format!("{DAY}T10:{minute:02}:00Z");
    event["id"] = name.into();
    event["type"] = format!("order.{name}").into();
    event["time"] = time.as_str().into();
    event["data"]["received_at"] = time.as_str().into();
    event["data"]["assumed"] = json!([]);
    event["data"]["unmapped"] = json!({});
    let order = &mut event["data"]["order"];
    order["updated_at"] = time.into();
    for name in NOT_STATED {
        order[name] = Value::Null;
    }
    if let Value::Object(stated) = stated {
        for (name, value) in stated {
            order[name] = value;
        }
    }
    event
}

/// An item of the order.
fn line(base: &Value, id: &str, quantity: u32) -> Value {
    let mut line = base["data"]["order"]["items"][0].clone();
    line["id"] = id.into();
    line["quantity"] = quantity.into();
    line
}

/// The event with nothing of its order but the ids.
fn partial(mut event: Value) -> Value {
    event["data"]["partial"] = true.into();
    if let Some(order) = event["data"]["order"].as_object_mut() {
        for (name, value) in order.iter_mut() {
            match (name.as_str(), &mut *value) {
                ("id" | "number", _) => {}
                ("totals" | "shipping" | "payment", Value::Object(members)) => {
                    members.values_mut().for_each(|member| *member = Value::Null);
                }
                _ => *value = Value::Null,
            }
        }
    }
    event
}

/// The event with its items left out, as the publisher does if the message is too large.
fn without_items(event: &Value) -> Value {
    let mut event = event.clone();
    event["data"]["unmapped"] = Value::Null;
    event["data"]["order"]["items"] = Value::Null;
    event["data"]["omitted"] = json!(["/data/unmapped", "/data/order/items"]);
    event
}

fn of_test(event: &Value) -> Value {
    let mut event = event.clone();
    event["id"] = "created-test".into();
    event["subject"] = "test-1001".into();
    event["data"]["test"] = true.into();
    event["data"]["order"]["id"] = "test-1001".into();
    event
}

fn with_unknown_fields(event: &Value) -> Value {
    let mut event = event.clone();
    let added = json!({"added": ["in", "a", {"later": "version"}]});
    for pointer in ["", "/data", "/data/order", "/data/order/items/0", "/data/order/totals"] {
        if let Some(Value::Object(members)) = event.pointer_mut(pointer) {
            members.insert("added_later".to_owned(), added.clone());
        }
    }
    event
}

/// Every order in which three events can arrive.
fn permutations([one, two, three]: &[&Value; 3]) -> Vec<History> {
    let orders = [
        [three, two, one],
        [one, three, two],
        [two, one, three],
        [two, three, one],
        [three, one, two],
        [one, two, three],
    ];
    let histories = orders.into_iter().enumerate().map(|(number, order)| History {
        name: format!("permutation {} of 6", number + 1),
        messages: order.map(|event| Message::new(event)).to_vec(),
    });
    histories.collect()
}

/// The histories of events/histories and an ordinary order, each shuffled and with duplicates and replays.
fn combined(seed: u64, plain: &[Message]) -> Result<Vec<History>, Error> {
    let mut histories = vec![History {
        name: "an ordinary order, shuffled".to_owned(),
        messages: shuffled(plain, seed, "plain"),
    }];
    let folder = workspace().join("events/histories");
    let unreadable = |error: String| Error::Fixture(format!("{} cannot be read: {error}", folder.display()));
    let files = std::fs::read_dir(&folder).map_err(|error| unreadable(error.to_string()))?;
    let mut files: Vec<_> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|error| unreadable(error.to_string()))?;
        let vector: Value = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        let Some(messages) = messages_of(&vector) else {
            continue;
        };
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        histories.push(History {
            messages: shuffled(&messages, seed, &name),
            name: format!("events/histories/{name}.json, shuffled"),
        });
        histories.push(History {
            name: format!("events/histories/{name}.json"),
            messages,
        });
    }
    Ok(histories)
}

/// The messages of a vector. `None` if a queue never has such messages, or if consumers may differ about them: a
/// tombstone, two contents under one id, a test order, or an event that names no order.
fn messages_of(vector: &Value) -> Option<Vec<Message>> {
    let events = vector["events"].as_array()?;
    let mut known = BTreeMap::new();
    for event in events {
        let is_plain =
            event["erased"] != true && event["data"]["test"] == false && event["data"]["order"]["id"].is_string();
        let is_same = *known.entry(event["id"].as_str()?).or_insert(event) == event;
        if !is_plain || !is_same {
            return None;
        }
    }
    let messages = events.iter().map(Message::new).collect::<Vec<_>>();
    (!messages.is_empty()).then_some(messages)
}

/// The messages in another order; about every third arrives twice or is replayed.
fn shuffled(messages: &[Message], seed: u64, name: &str) -> Vec<Message> {
    let mut all = messages.to_vec();
    for (index, message) in messages.iter().enumerate() {
        match draw(seed, &[name, "again", &index.to_string()]) % 6 {
            0 => all.push(message.clone()),
            1 => all.push(Message::replay(&message.event)),
            _ => {}
        }
    }
    let mut numbered: Vec<_> = all.into_iter().enumerate().collect();
    numbered.sort_by_key(|(index, _)| draw(seed, &[name, "place", &index.to_string()]));
    numbered.into_iter().map(|(_, message)| message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_of_a_history_is_valid() {
        let schema = include_str!("../../../shared/schema/order-event.v1.schema.json");
        let schema: Value = serde_json::from_str(schema).expect("JSON");
        let validator = jsonschema::options().should_validate_formats(true).build(&schema);
        let validator = validator.expect("a schema");
        for (rule, histories) in all(1).expect("histories") {
            assert!(!histories.is_empty(), "{rule:?}");
            for history in histories {
                for message in history.messages {
                    let event = message.renamed("x").event;
                    let errors: Vec<String> = validator.iter_errors(&event).map(|error| error.to_string()).collect();
                    assert!(errors.is_empty(), "{}: {errors:?}", history.name);
                }
            }
        }
    }

    #[test]
    fn the_combined_histories_are_those_of_the_seed() {
        let names = |seed| -> Vec<Vec<String>> {
            let all = all(seed).expect("histories");
            let (_, combined) = all.last().expect("the combined ones");
            assert!(combined.len() > 20, "{}", combined.len());
            let messages = |history: &History| history.messages.iter().map(ToString::to_string).collect();
            combined.iter().map(messages).collect()
        };
        assert_eq!(names(1), names(1));
        assert_ne!(names(1), names(2));
    }

    #[test]
    fn an_envelope_is_as_sns_makes_it() {
        let (_, histories) = all(1).expect("histories").swap_remove(3);
        let last = histories[0].messages.last().expect("a message");
        let envelope: Value = serde_json::from_str(&last.envelope()).expect("JSON");
        assert_eq!(envelope["MessageAttributes"]["replay"]["Value"], "true");
        assert_eq!(envelope["MessageAttributes"]["test"]["Value"], "false");
        let message = envelope["Message"].as_str().expect("text");
        assert_eq!(serde_json::from_str::<Value>(message).expect("JSON"), last.event);
    }
}
