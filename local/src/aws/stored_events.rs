//! Stored events, read behind the fault injector, so that a fault does not hide its own effect.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, Select};

use crate::aws::table::SHARDS;
use crate::recorder::Stored;
use crate::{Error, NAME, gzip};

/// An item of the table.
pub type Item = HashMap<String, AttributeValue>;

/// The most keys that DynamoDB takes in one batch.
const BATCH: usize = 100;
/// The states in which an event needs attention.
pub const WORK: [&str; 3] = ["pending", "failed", "quarantined"];

/// A stored event.
#[derive(Debug, Clone)]
pub struct Event {
    /// The head item.
    pub head: Item,
    /// The body of the delivery, unpacked.
    pub payload: Option<Vec<u8>>,
    /// The exact JSON that is published.
    pub event: Option<String>,
}

/// Returns a string attribute.
pub fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

/// Reads an event; `None` if it is not stored.
pub async fn event(client: &Client, event_id: &str) -> Result<Option<Event>, Error> {
    let Some(head) = item(client, event_id, "head").await? else {
        return Ok(None);
    };
    let payload = value(client, &head, "payload").await?;
    let event = value(client, &head, "event").await?;
    Ok(Some(Event {
        payload,
        event: event.map(|event| String::from_utf8_lossy(&event).into_owned()),
        head,
    }))
}

/// The ids of an order's events, the first received first.
pub async fn order(client: &Client, provider: &str, shop: &str, order: &str) -> Result<Vec<String>, Error> {
    let items = of_order(client, format!("{provider}#{shop}#{order}")).await?;
    Ok(items
        .iter()
        .filter_map(|item| text(item, "pk").map(str::to_owned))
        .collect())
}

/// A conflict: another body that came under the id of a stored event.
#[derive(Debug, Clone)]
pub struct Conflict {
    /// The id of the event.
    pub event_id: String,
    /// The SHA-256 of the body.
    pub payload_sha256: String,
    /// When the body was received.
    pub received_at: String,
    /// The id of the event that the body was published as, if it was.
    pub published_as: Option<String>,
    /// The size of the body in bytes.
    pub bytes: Option<usize>,
}

/// The conflicts of these events, and those whose body names this order, the first received first.
pub async fn conflicts(
    client: &Client,
    event_ids: &[String],
    order: Option<(&str, &str, &str)>,
) -> Result<Vec<Conflict>, Error> {
    let mut keys = BTreeSet::new();
    for event_id in event_ids {
        let items = client
            .query()
            .table_name(NAME)
            .key_condition_expression("pk = :id AND begins_with(sk, :conflict)")
            .expression_attribute_values(":id", AttributeValue::S(event_id.clone()))
            .expression_attribute_values(":conflict", AttributeValue::S("conflict#".to_owned()))
            .projection_expression("pk, sk")
            .into_paginator()
            .items()
            .send();
        let items: Vec<Item> = items.collect::<Result<_, _>>().await.map_err(unread)?;
        keys.extend(items.iter().filter_map(key_of));
    }
    if let Some((provider, shop, order)) = order {
        let key = format!("conflict#{provider}#{shop}#{order}");
        keys.extend(of_order(client, key).await?.iter().filter_map(key_of));
    }
    let mut conflicts = Vec::new();
    for Key { event_id, sort_key } in keys {
        let Some(item) = item(client, &event_id, &sort_key).await? else {
            continue;
        };
        conflicts.push(Conflict {
            payload_sha256: text(&item, "payload_sha256").unwrap_or_default().to_owned(),
            received_at: text(&item, "received_at").unwrap_or_default().to_owned(),
            published_as: text(&item, "published_as").map(str::to_owned),
            bytes: value(client, &item, "payload").await?.map(|body| body.len()),
            event_id,
        });
    }
    conflicts.sort_by(|one, other| one.received_at.cmp(&other.received_at));
    Ok(conflicts)
}

/// The key of an item.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    event_id: String,
    sort_key: String,
}

fn key_of(item: &Item) -> Option<Key> {
    Some(Key {
        event_id: text(item, "pk")?.to_owned(),
        sort_key: text(item, "sk")?.to_owned(),
    })
}

async fn of_order(client: &Client, order_key: String) -> Result<Vec<Item>, Error> {
    let items = client
        .query()
        .table_name(NAME)
        .index_name("by_order")
        .key_condition_expression("order_key = :order")
        .expression_attribute_values(":order", AttributeValue::S(order_key))
        .into_paginator()
        .items()
        .send();
    items.collect::<Result<_, _>>().await.map_err(unread)
}

/// The summaries of these events for the list.
pub async fn summaries(client: &Client, event_ids: &[String]) -> Result<BTreeMap<String, Stored>, Error> {
    let mut summaries = BTreeMap::new();
    for chunk in event_ids.chunks(BATCH) {
        let keys = chunk.iter().map(|id| key(id, "head")).collect();
        let asked = KeysAndAttributes::builder()
            .set_keys(Some(keys))
            .projection_expression("pk, #type, #order, #state, attempts")
            .expression_attribute_names("#type", "type")
            .expression_attribute_names("#order", "order")
            .expression_attribute_names("#state", "state")
            .consistent_read(true)
            .build()
            .map_err(unread)?;
        let got = client.batch_get_item().request_items(NAME, asked).send().await;
        let items = got.map_err(unread)?.responses.unwrap_or_default();
        for item in items.into_values().flatten() {
            let Some(id) = text(&item, "pk") else { continue };
            let attempts = item.get("attempts").and_then(|attempts| attempts.as_n().ok());
            let stored = Stored {
                r#type: text(&item, "type").map(str::to_owned),
                order: text(&item, "order").map(str::to_owned),
                state: text(&item, "state").unwrap_or_default().to_owned(),
                attempts: attempts.and_then(|attempts| attempts.parse().ok()).unwrap_or_default(),
            };
            summaries.insert(id.to_owned(), stored);
        }
    }
    Ok(summaries)
}

/// The number of events in each state of [`WORK`].
pub async fn work(client: &Client) -> Result<[u64; 3], Error> {
    let mut counts = [0; 3];
    for (state, count) in WORK.iter().zip(&mut counts) {
        for shard in 0..SHARDS {
            let mut pages = client
                .query()
                .table_name(NAME)
                .index_name("work")
                .select(Select::Count)
                .key_condition_expression("#work = :work")
                .expression_attribute_names("#work", "work")
                .expression_attribute_values(":work", AttributeValue::S(format!("{state}#{shard}")))
                .into_paginator()
                .send();
            while let Some(page) = pages.next().await {
                *count += u64::try_from(page.map_err(unread)?.count).unwrap_or_default();
            }
        }
    }
    Ok(counts)
}

async fn item(client: &Client, event_id: &str, sort_key: &str) -> Result<Option<Item>, Error> {
    let get = client.get_item().table_name(NAME).consistent_read(true);
    let got = get.set_key(Some(key(event_id, sort_key))).send().await;
    Ok(got.map_err(unread)?.item)
}

/// Reads a compressed value from the head item or from its parts.
async fn value(client: &Client, head: &Item, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let mut compressed = Vec::new();
    if let Some(AttributeValue::B(bytes)) = head.get(name) {
        compressed.extend_from_slice(bytes.as_ref());
    } else if let Some(AttributeValue::L(parts)) = head.get(&format!("{name}_parts")) {
        let event_id = text(head, "pk").unwrap_or_default();
        for part in parts.iter().filter_map(|part| part.as_s().ok()) {
            // The previous version stored the parts in the partition of the event.
            let part = if part.starts_with(&format!("part#{event_id}#")) {
                item(client, part, "part").await?
            } else {
                item(client, event_id, part).await?
            };
            let part = part.unwrap_or_default();
            if let Some(AttributeValue::B(bytes)) = part.get("data") {
                compressed.extend_from_slice(bytes.as_ref());
            }
        }
    } else {
        return Ok(None);
    }
    let value = gzip::unpack(&compressed);
    let value = value.map_err(|error| Error::Start(format!("the stored {name} is corrupt: {error}")))?;
    Ok(Some(value))
}

fn key(event_id: &str, sort_key: &str) -> Item {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    HashMap::from([("pk".to_owned(), text(event_id)), ("sk".to_owned(), text(sort_key))])
}

fn unread(error: impl std::error::Error) -> Error {
    Error::Start(format!("the table cannot be read: {}", DisplayErrorContext(error)))
}
