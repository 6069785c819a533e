//! The versions of an order's published states: one item for each order, which names its events.
//!
//! One atomic update adds an event to the set and takes the next version, so the state with the last version is made of
//! all events, even if several are published at the same time. The index `by_order` lags behind the table; it is read
//! only once for each order, for the events that were stored before states were published.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};

use super::event_items::order_key;
use super::{Change, Condition, Head, Item, Store, StoreError, item_key};
use crate::identity::{EventId, sha256_hex};

/// The limit for the events of an order whose state is published: all of them are read for each state.
const EVENTS: usize = 500;

/// The sort key of the items.
const SORT_KEY: &str = "published_state";

/// The key of an order in the table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OrderKey(String);

impl OrderKey {
    /// The key of a provider's order.
    pub fn of(provider: &str, shop: &str, order: &str) -> Self {
        Self(order_key(provider, shop, order))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of the order's item. It holds the hash of the order's id, because the item outlives the erasure of the
    /// order: its version must never begin again.
    fn item_key(&self) -> Item {
        item_key(&format!("published_state#{}", sha256_hex(self.0.as_bytes())), SORT_KEY)
    }
}

impl Head {
    /// The key of the event's order; `None` if the event names none, or was erased.
    pub fn order_key(&self) -> Option<OrderKey> {
        self.text("order_key").map(|key| OrderKey(key.to_owned()))
    }
}

/// A version of an order's state, and the events of which it is made.
pub struct StateVersion {
    /// The version. Later ones are greater.
    pub version: u64,
    /// The ids of the events.
    pub event_ids: Vec<EventId>,
}

impl Store {
    /// Adds an event to those of its order, and takes the next version of the order's state. Returns `None` if the order
    /// has too many events.
    pub async fn next_state(&self, order: &OrderKey, id: &EventId) -> Result<Option<StateVersion>, StoreError> {
        let Some(item) = self.add_to_state(order, BTreeSet::from([id.clone()]), false).await? else {
            return Ok(None);
        };
        if item.contains_key("has_earlier_events") {
            return read(&item).map(Some);
        }
        let earlier = self.keys_of_order(order.as_str()).await?;
        let ids = earlier.into_iter().map(|(id, _)| id).chain([id.clone()]).collect();
        let item = self.add_to_state(order, ids, true).await?;
        item.map(|item| read(&item)).transpose()
    }

    async fn add_to_state(
        &self,
        order: &OrderKey,
        ids: BTreeSet<EventId>,
        has_earlier_events: bool,
    ) -> Result<Option<Item>, StoreError> {
        let ids = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let has_room = Condition::no_item().or(Condition::HasFewer("event_ids", EVENTS));
        let mut change = Change::default()
            .add("event_ids", &AttributeValue::Ss(ids))
            .add("version", &1_u32);
        if has_earlier_events {
            change = change.set("has_earlier_events", &true);
        }
        let change = change.only_if(has_room);
        Ok(self.update_item(order.item_key(), &change, ReturnValue::AllNew).await?)
    }
}

fn read(item: &Item) -> Result<StateVersion, StoreError> {
    let version = item
        .get("version")
        .and_then(|version| version.as_n().ok()?.parse().ok());
    let ids = item.get("event_ids").and_then(|ids| ids.as_ss().ok());
    Ok(StateVersion {
        version: version.ok_or(StoreError::Corrupt("version"))?,
        event_ids: ids
            .ok_or(StoreError::Corrupt("event_ids"))?
            .iter()
            .map(|id| EventId::stored(id))
            .collect(),
    })
}
