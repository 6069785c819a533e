//! The table of a stack: what is stored in it, and changes that no function would make.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use flate2::read::GzDecoder;
use jiff::{SignedDuration, Timestamp};
use local::NAME;
use serde_json::{Value, json};

use crate::alerts::{belongs_to_no_event, change_times};
use crate::outbox::text;
use crate::{Stack, gzip, json_body};

/// An item of the table.
pub type Item = HashMap<String, AttributeValue>;

impl Stack {
    /// The number of events in each state.
    pub async fn states(&self) -> BTreeMap<String, usize> {
        let mut states = BTreeMap::new();
        for head in self.heads().await {
            *states.entry(state(&head).to_owned()).or_default() += 1;
        }
        states
    }

    /// The ids of the events that wait in the outbox.
    pub async fn pending(&self) -> Vec<String> {
        let heads = self.heads().await;
        let pending = heads.iter().filter(|head| state(head) == "pending");
        pending.map(|head| head["pk"].as_s().expect("a text").clone()).collect()
    }

    /// The ids of the events that are due first in the shard of `event_id`.
    pub async fn first_due(&self, event_id: &str, count: usize) -> Vec<String> {
        let work = self.head(event_id).await["work"].clone();
        let query = self.clients().dynamodb.query().table_name(NAME).index_name("work");
        let query = query
            .key_condition_expression("#work = :work")
            .expression_attribute_names("#work", "work")
            .expression_attribute_values(":work", work);
        let page = query.send().await.expect("the index can be read");
        let ids = page
            .items()
            .iter()
            .map(|item| item["pk"].as_s().expect("a text").clone());
        ids.take(count).collect()
    }

    /// Deletes an item.
    pub async fn delete(&self, partition_key: &str, sort_key: &str) {
        let delete = self.clients().dynamodb.delete_item().table_name(NAME);
        let delete = delete.key("pk", text(partition_key)).key("sk", text(sort_key));
        delete.send().await.expect("the item is deleted");
    }

    /// Writes an item.
    pub async fn put(&self, item: Item) {
        let put = self.clients().dynamodb.put_item().table_name(NAME).set_item(Some(item));
        put.send().await.expect("the item is written");
    }

    /// Stores a quarantined event of Selldone with the payload `body`, and returns its id: what `event_id` makes of the
    /// id of the delivery that was sent for it.
    pub async fn quarantined(&self, body: &[u8], event_id: impl FnOnce(&str) -> String) -> String {
        let mut fixture = self.unsigned("selldone", "checkout-order");
        fixture.renew().expect("an order");
        let mut unknown = json_body(&fixture);
        unknown["action"] = "SomethingNew".into();
        fixture.set_body(unknown.to_string());
        self.sign(&mut fixture);
        let sent_as = self.send(&fixture).await.event_id("quarantined");
        let mut head: Item = self.head(&sent_as).await;
        let kept_as = event_id(&sent_as);
        head.insert("pk".to_owned(), text(&kept_as));
        head.insert("event_id".to_owned(), text(&kept_as));
        head.insert("payload".to_owned(), compressed(body));
        if kept_as != sent_as {
            self.delete(&sent_as, "head").await;
        }
        self.put(head).await;
        kept_as
    }

    /// Changes a stored event as if a version of the code that did not understand the event had stored it: quarantined
    /// at `since` in a shard of the index, under the id `old`.
    pub async fn not_understood(&self, event_id: &str, old: &str, since: Timestamp, shard: usize) {
        let mut head = self.head(event_id).await;
        self.delete(event_id, "head").await;
        for name in [
            "event",
            "event_parts",
            "event_sha256",
            "type",
            "time",
            "order",
            "order_key",
            "order_sort",
            "published_at",
        ] {
            head.remove(name);
        }
        for (name, value) in [
            ("pk", old.to_owned()),
            ("event_id", old.to_owned()),
            ("state", "quarantined".to_owned()),
            ("reason", "unknown_event".to_owned()),
            ("work", format!("quarantined#{shard}")),
            ("next_attempt_at", format!("{since:.3}")),
            ("received_at", format!("{since:.3}")),
        ] {
            head.insert(name.to_owned(), AttributeValue::S(value));
        }
        self.put(head).await;
    }

    /// Moves an event to another state and takes its head item out of the index of work.
    pub async fn set_state(&self, event_id: &str, state: &str) {
        let mut head = self.head(event_id).await;
        head.insert("state".to_owned(), AttributeValue::S(state.to_owned()));
        head.remove("work");
        head.remove("next_attempt_at");
        self.put(head).await;
    }

    /// Moves every time in the table that a function reads, and every key that contains one, `by` into the past. The
    /// time at which redrive has seen a retention last stays, as if redrive had run in the meantime.
    pub async fn let_time_pass(&self, by: SignedDuration) {
        let earlier = |text: &str| {
            let time: Timestamp = text.parse().expect("a time");
            format!("{:.3}", time - by)
        };
        let table = &self.clients().dynamodb;
        for mut item in self.all_items().await {
            for (name, value) in &mut item {
                *value = match (name.as_str(), &*value) {
                    (
                        "received_at" | "next_attempt_at" | "published_at" | "dismissed_at" | "erased_at" | "since"
                        | "first_seen" | "last_seen" | "last_at",
                        AttributeValue::S(time),
                    ) => AttributeValue::S(earlier(time)),
                    ("alert" | "cursor", AttributeValue::S(json)) => {
                        let mut json = serde_json::from_str(json).expect("JSON");
                        change_times(&mut json, &earlier);
                        AttributeValue::S(json.to_string())
                    }
                    ("expires_at", AttributeValue::N(seconds)) => {
                        let seconds: i64 = seconds.parse().expect("seconds");
                        AttributeValue::N((seconds - by.as_secs()).to_string())
                    }
                    ("order_sort", AttributeValue::S(key)) => {
                        let (time, id) = key.split_once('#').expect("a time and an id");
                        AttributeValue::S(format!("{}#{id}", earlier(time)))
                    }
                    ("hour", AttributeValue::S(key)) => {
                        let [shard, hour, of] = key.rsplitn(3, '#').collect::<Vec<_>>()[..] else {
                            panic!("{key} is not the key of an hour")
                        };
                        let hour = earlier(&format!("{hour}:00:00Z"));
                        AttributeValue::S(format!("{of}#{}#{shard}", &hour[..13]))
                    }
                    (_, value) => value.clone(),
                };
            }
            let put = table.put_item().table_name(NAME).set_item(Some(item));
            put.send().await.expect("the item is written");
        }
    }

    /// All items of the table that belong to events.
    pub async fn items(&self) -> Vec<Item> {
        let mut items = self.all_items().await;
        items.retain(|item| !belongs_to_no_event(item));
        items
    }

    /// All items of the table.
    pub async fn all_items(&self) -> Vec<Item> {
        let pages = self
            .clients()
            .dynamodb
            .scan()
            .table_name(NAME)
            .consistent_read(true)
            .into_paginator();
        let items: Result<Vec<Item>, _> = pages.items().send().collect().await;
        items.expect("the table can be read")
    }

    /// The head items of all events.
    pub async fn heads(&self) -> Vec<Item> {
        let mut heads = self.items().await;
        heads.retain(|item| item["sk"].as_s().is_ok_and(|key| key == "head"));
        heads
    }

    /// The head item of an event.
    pub async fn head(&self, event_id: &str) -> Item {
        let head = self.item(event_id, "head").await;
        head.expect("the event is stored")
    }

    async fn item(&self, event_id: &str, sort_key: &str) -> Option<Item> {
        let get = self
            .clients()
            .dynamodb
            .get_item()
            .table_name(NAME)
            .consistent_read(true);
        let got = get.key("pk", text(event_id)).key("sk", text(sort_key)).send().await;
        got.expect("the table can be read").item
    }

    /// A value that is stored compressed, in the head item or in part items.
    pub async fn value(&self, event_id: &str, name: &str) -> Vec<u8> {
        let head = self.head(event_id).await;
        let mut compressed = Vec::new();
        match (head.get(name), head.get(&format!("{name}_parts"))) {
            (Some(AttributeValue::B(bytes)), None) => compressed.extend_from_slice(bytes.as_ref()),
            (None, Some(AttributeValue::L(names))) => {
                for name in names {
                    let name = name.as_s().expect("a part's name");
                    // The previous version kept parts in the event's own partition.
                    let part = if name.starts_with(&format!("part#{event_id}#")) {
                        self.item(name, "part").await
                    } else {
                        self.item(event_id, name).await
                    };
                    let part = part.expect("the part is stored");
                    compressed.extend_from_slice(part["data"].as_b().expect("bytes").as_ref());
                }
            }
            other => panic!("{name} is stored as {other:?}"),
        }
        let mut value = Vec::new();
        GzDecoder::new(&compressed[..])
            .read_to_end(&mut value)
            .expect("the value is compressed");
        value
    }

    /// The stored order event.
    pub async fn stored_event(&self, event_id: &str) -> Value {
        serde_json::from_slice(&self.value(event_id, "event").await).expect("an event")
    }

    /// Replaces the stored order event, as if another version of the mapping had made it.
    pub async fn put_stored_event(&self, event_id: &str, event: &Value) {
        let mut head = self.head(event_id).await;
        head.insert("event".to_owned(), compressed(event.to_string().as_bytes()));
        self.put(head).await;
    }

    /// Erases an event, and lets its tombstone expire before DynamoDB deletes it.
    pub async fn let_tombstone_end(&self, event_id: &str) {
        assert_eq!(
            self.ask(json!({"erase": {"event_id": event_id, "dry_run": false}}))
                .await["erased"],
            1
        );
        let mut head = self.head(event_id).await;
        head.insert("expires_at".to_owned(), AttributeValue::N("1".to_owned()));
        self.put(head).await;
    }
}

/// The state of a head item.
pub fn state(head: &Item) -> &str {
    head["state"].as_s().expect("a word")
}

fn compressed(value: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(gzip(value)))
}
