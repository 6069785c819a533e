//! The versions of an order's published states: one item for each order, which names its events.
//!
//! One atomic update adds an event to the set and takes the next version, so the state with the last version is made of
//! all events, even if several are published at the same time. The index `by_order` adds the events that were published
//! while states were not. It alone would not do, because it lags behind the table.

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
    pub event_ids: BTreeSet<EventId>,
}

impl Store {
    /// Adds an event to those of its order, and takes the next version of the order's state. Returns `None` if the order
    /// has too many events.
    pub async fn next_state(&self, order: &OrderKey, id: &EventId) -> Result<Option<StateVersion>, StoreError> {
        let has_room = Condition::no_item().or(Condition::HasFewer("event_ids", EVENTS));
        let change = Change::default()
            .add("event_ids", &AttributeValue::Ss(vec![id.as_str().to_owned()]))
            .add("version", &1_u32)
            .only_if(has_room.or(Condition::contains("event_ids", id.as_str())));
        let item = self.update_item(order.item_key(), &change, ReturnValue::AllNew).await?;
        let Some(item) = item else {
            return Ok(None);
        };
        let mut next = read(&item)?;
        // Read for each state: states may have been published with interruptions.
        let indexed = self.keys_of_order(order.as_str()).await?;
        next.event_ids.extend(indexed.into_iter().map(|(id, _)| id));
        Ok((next.event_ids.len() <= EVENTS).then_some(next))
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
