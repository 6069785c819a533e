//! What the table knows of orders: the versions in which their stored events describe them.
//!
//! The events of an order are found by the index `by_order`, and their heads are read without the body and the event.
//! Only the heads of versions that did not write `order_version` are read with their event.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use super::event_items::{PARTIAL, order_key};
use super::{Change, ErasedBy, Head, Item, Projection, State, Store, StoreError, head_key, item_key, text};
use crate::codes::Code;
use crate::event::OrderEvent;
use crate::identity::{EventId, sha256_hex};
use crate::reconciliation::{KnownOrder, OrderVersion, StoredVersion};

/// The number of an order's events that are read, the newest first. Orders have a handful.
const EVENTS_OF_ORDER: i32 = 25;
/// The number of queries, and of batches of heads, in progress at the same time.
pub(crate) const AT_ONCE: usize = 8;
const BATCH: usize = 100;

/// The attributes that are read of each head.
const ATTRIBUTES: [&str; 8] = [
    "pk",
    "state",
    "type",
    "time",
    "received_at",
    "order_key",
    "order_version",
    "erased_by",
];

impl Store {
    /// Reads what is known of the orders of a shop, in the order of `orders`.
    ///
    /// The index lags behind the table, so an event that was stored a moment ago may be missing. The conditional write of
    /// a reconciled event then decides.
    pub async fn known_orders(
        &self,
        provider: &str,
        shop: &str,
        orders: &[&str],
    ) -> Result<Vec<KnownOrder>, StoreError> {
        let keys: Vec<String> = orders.iter().map(|order| order_key(provider, shop, order)).collect();
        // One call cannot read a key twice.
        let distinct: BTreeSet<&String> = keys.iter().collect();
        let queries = distinct.into_iter().map(|key| self.newest_of_order(key));
        let ids: Vec<Vec<EventId>> = stream::iter(queries).buffered(AT_ONCE).try_collect().await?;
        let ids: Vec<EventId> = ids.into_iter().flatten().collect();
        let batches = ids.chunks(BATCH).map(|ids| {
            let keys = ids.iter().map(head_key).collect();
            self.items_with_keys(keys, Some(&ATTRIBUTES))
        });
        let heads: Vec<Vec<Item>> = stream::iter(batches).buffered(AT_ONCE).try_collect().await?;
        let mut known: BTreeMap<&str, KnownOrder> = BTreeMap::new();
        for head in heads.iter().flatten() {
            let Some(order_key) = text(head, "order_key") else {
                continue;
            };
            let known = known.entry(order_key).or_default();
            let version = match text(head, "state").and_then(|state| state.parse().ok()) {
                // The tombstone of an event that has expired says nothing about its order.
                Some(State::Erased) => {
                    known.is_erased |= text(head, "erased_by") != Some(ErasedBy::Retention.into());
                    continue;
                }
                Some(State::Pending | State::Published | State::Failed) => self.stored_version(head).await,
                Some(State::Quarantined | State::Unsupported | State::Superseded) => continue,
                None => Err(StoreError::Corrupt("state")),
            };
            match version {
                Ok(version) => known.versions.extend(version),
                // A head that cannot be read does not hold up the others.
                Err(error @ StoreError::Corrupt(_)) => tracing::error!(
                    code = Code::CorruptItem.as_str(),
                    event_id = text(head, "pk"),
                    cause = %error,
                    "a stored event cannot be read"
                ),
                Err(error) => return Err(error),
            }
        }
        let of_key = |key: &String| known.get(key.as_str()).cloned().unwrap_or_default();
        Ok(keys.iter().map(of_key).collect())
    }

    /// Lists the newest events under `order_key` in the index `by_order`.
    async fn newest_of_order(&self, order_key: &str) -> Result<Vec<EventId>, StoreError> {
        let query = self.client.query().table_name(&self.table).index_name("by_order");
        let query = query
            .key_condition_expression("order_key = :order")
            .expression_attribute_values(":order", AttributeValue::S(order_key.to_owned()))
            .scan_index_forward(false)
            .limit(EVENTS_OF_ORDER);
        Ok(super::ids_of(query.send().await?.items()))
    }

    /// The version of the order in a stored event; `None` if the event does not describe its order completely.
    async fn stored_version(&self, head: &Item) -> Result<Option<StoredVersion>, StoreError> {
        let id = EventId::stored(text(head, "pk").ok_or(StoreError::Corrupt("pk"))?);
        let version = match text(head, "order_version") {
            Some(PARTIAL) => None,
            Some(version) => Some(OrderVersion::parse(version).ok_or(StoreError::Corrupt("order_version"))?),
            None if head.contains_key("type") => self.version_in_event(&id).await?,
            None => None,
        };
        let time = |name: &'static str| {
            let time = text(head, name).and_then(|time| time.parse().ok());
            time.ok_or(StoreError::Corrupt(name))
        };
        let Some(version) = version else { return Ok(None) };
        Ok(Some(StoredVersion {
            version,
            time: time("time")?,
            received_at: time("received_at")?,
            id,
        }))
    }

    /// Reads the version from the event itself, which a version without `order_version` has stored.
    async fn version_in_event(&self, id: &EventId) -> Result<Option<OrderVersion>, StoreError> {
        let heads: Vec<(EventId, Head)> = self.heads(std::slice::from_ref(id), Projection::Event).await?;
        let Some((_, head)) = heads.first() else {
            return Ok(None);
        };
        let stored = self.event(id, head).await?;
        let event: OrderEvent = serde_json::from_str(&stored.json).map_err(|_| StoreError::Corrupt("event"))?;
        Ok((!event.data.partial).then(|| OrderVersion::of(&event.data.order)))
    }

    /// Returns those of `orders` of which an event, or all, was erased on request.
    pub async fn erased_orders(
        &self,
        provider: &str,
        shop: &str,
        orders: &[&str],
    ) -> Result<HashSet<String>, StoreError> {
        // One call cannot read a key twice.
        let notes: BTreeMap<String, &str> = orders
            .iter()
            .map(|order| (note_of(&order_key(provider, shop, order)), *order))
            .collect();
        let keys: Vec<Item> = notes.keys().map(|note| item_key(note, "erased_order")).collect();
        let mut erased = HashSet::new();
        for keys in keys.chunks(BATCH) {
            let found = self.items_with_keys(keys.to_vec(), Some(&["pk"])).await?;
            let found = found.iter().filter_map(|item| notes.get(text(item, "pk")?));
            erased.extend(found.map(|order| (*order).to_owned()));
        }
        Ok(erased)
    }

    /// Notes that an order is erased on request, also if nothing is stored of it, so that reconciliation does not store
    /// it.
    pub async fn note_erasure_of_order(&self, provider: &str, shop: &str, order: &str) -> Result<(), StoreError> {
        self.note_erased_order(&order_key(provider, shop, order), Timestamp::now())
            .await
    }

    /// Notes that an event of an order was erased on request, so that reconciliation does not bring the order back. The
    /// note holds a hash of the order's id and nothing else of it, and never expires.
    pub(super) async fn note_erased_order(&self, order_key: &str, now: Timestamp) -> Result<(), StoreError> {
        let change = Change::default().set("erased_at", &now);
        let key = item_key(&note_of(order_key), "erased_order");
        self.update_item(key, &change, ReturnValue::None).await?;
        Ok(())
    }
}

/// The partition of the note about an erased order.
fn note_of(order_key: &str) -> String {
    format!("erased_order#{}", sha256_hex(order_key.as_bytes()))
}
