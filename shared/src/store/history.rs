//! Reads the stored events by order, by hour of receipt, and by state.

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::conflicts::CONFLICT;
use super::event_items::{order_key, sortable};
use super::{IndexPosition, SHARDS, State, Store, StoreError, ids_of, text};
use crate::identity::EventId;

/// An hour in UTC, the unit into which the index `by_hour` is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour(Timestamp);

impl Hour {
    /// The hour that contains `time`.
    pub fn containing(time: Timestamp) -> Self {
        let start = time.as_second() - time.as_second().rem_euclid(3600);
        Self(Timestamp::from_second(start).unwrap_or(time))
    }

    /// The time at which the hour begins.
    pub fn start(self) -> Timestamp {
        self.0
    }

    /// The next hour.
    pub fn next(self) -> Self {
        Self(self.0 + SignedDuration::from_hours(1))
    }

    /// The hour as the index writes it: `2024-09-30T10`.
    pub(super) fn key(self) -> String {
        sortable(self.0)[..13].to_owned()
    }
}

impl Store {
    /// Lists the events of an order, in the order of receipt.
    pub async fn of_order(&self, provider: &str, shop: &str, order: &str) -> Result<Vec<EventId>, StoreError> {
        let keys = self.keys_of_order(&order_key(provider, shop, order)).await?;
        Ok(keys.into_iter().map(|(id, _)| id).collect())
    }

    /// Lists the items under `order_key` in the index `by_order`: their event ids and sort keys.
    pub(super) async fn keys_of_order(&self, order_key: &str) -> Result<Vec<(EventId, String)>, StoreError> {
        let mut keys = Vec::new();
        let mut start = None;
        loop {
            let query = self.client.query().table_name(&self.table).index_name("by_order");
            let query = query
                .key_condition_expression("order_key = :order")
                .expression_attribute_values(":order", AttributeValue::S(order_key.to_owned()))
                .set_exclusive_start_key(start);
            let page = query.send().await?;
            keys.extend(page.items().iter().filter_map(|item| {
                let (id, sort_key) = (text(item, "pk")?, text(item, "sk")?);
                Some((EventId::stored(id), sort_key.to_owned()))
            }));
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(keys);
            }
        }
    }

    /// Lists events of a provider that were received in `hour`, from one shard of the index: at most `limit` after
    /// `after`. Returns the position of the last one too, if there are more.
    pub async fn of_hour(
        &self,
        provider: &str,
        hour: Hour,
        shard: u8,
        limit: i32,
        after: Option<&IndexPosition>,
    ) -> Result<(Vec<EventId>, Option<IndexPosition>), StoreError> {
        let key = AttributeValue::S(format!("{provider}#{}#{shard}", hour.key()));
        let start = after.map(|after| after.to_key(("hour", &key), "received_at"));
        let query = self.client.query().table_name(&self.table).index_name("by_hour");
        let query = query
            .key_condition_expression("#hour = :hour")
            .expression_attribute_names("#hour", "hour")
            .expression_attribute_values(":hour", key)
            .limit(limit)
            .set_exclusive_start_key(start);
        let page = query.send().await?;
        let last = page.last_evaluated_key.as_ref();
        let last = last.and_then(|key| IndexPosition::read(key, "received_at"));
        Ok((ids_of(page.items()), last))
    }

    /// Lists the events and conflicts of a provider that were received in `hour`, the oldest first: at most `limit`
    /// after `after`. The flag says whether there are more.
    pub async fn received_in(
        &self,
        provider: &str,
        hour: Hour,
        after: Option<&Received>,
        limit: usize,
    ) -> Result<(Vec<Received>, bool), StoreError> {
        let kinds = ["", CONFLICT];
        let shards = kinds
            .iter()
            .flat_map(|kind| (0..SHARDS).map(move |shard| format!("{kind}{provider}#{}#{shard}", hour.key())));
        let from = after.map_or(BEGINNING, |after| &after.at);
        let pages =
            try_join_all(shards.map(|key| self.first_of_index(("by_hour", "hour", "received_at"), key, from, limit)));
        Ok(merged(pages.await?, after, limit))
    }

    /// Lists the events in `state` by the time of their next attempt: at most `limit` after `after`. The flag says
    /// whether there are more.
    pub async fn work_in_order(
        &self,
        state: State,
        after: Option<&Received>,
        limit: usize,
    ) -> Result<(Vec<Received>, bool), StoreError> {
        let shards = (0..SHARDS).map(|shard| format!("{}#{shard}", state.as_str()));
        let from = after.map_or(BEGINNING, |after| &after.at);
        let pages =
            try_join_all(shards.map(|key| self.first_of_index(("work", "work", "next_attempt_at"), key, from, limit)));
        Ok(merged(pages.await?, after, limit))
    }

    /// Reads keys of one partition of an index from a time on: at least one later than `from` if there is one, and all
    /// keys of each time that it returns. The flag says whether there are more.
    pub(super) async fn first_of_index(
        &self,
        index: (&str, &str, &str),
        key: String,
        from: &str,
        limit: usize,
    ) -> Result<(Vec<Received>, bool), StoreError> {
        let (index, hash, range) = index;
        let mut keys = Vec::<Received>::new();
        let mut start = None;
        loop {
            let query = self.client.query().table_name(&self.table).index_name(index);
            let query = query
                .key_condition_expression("#hash = :hash AND #range >= :from")
                .expression_attribute_names("#hash", hash)
                .expression_attribute_names("#range", range)
                .expression_attribute_values(":hash", AttributeValue::S(key.clone()))
                .expression_attribute_values(":from", AttributeValue::S(from.to_owned()))
                .limit(i32::try_from(limit + 1).unwrap_or(i32::MAX))
                .set_exclusive_start_key(start);
            let page = query.send().await?;
            keys.extend(page.items().iter().filter_map(|item| {
                Some(Received {
                    at: text(item, range)?.to_owned(),
                    id: EventId::stored(text(item, "pk")?),
                    conflict: text(item, "sk")?.strip_prefix(CONFLICT).map(str::to_owned),
                })
            }));
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok((keys, false));
            }
            // The last time may have more keys on the next page.
            let last = keys.last().map(|key| key.at.clone()).unwrap_or_default();
            if keys.iter().any(|key| key.at.as_str() > from && key.at < last) {
                keys.retain(|key| key.at < last);
                return Ok((keys, true));
            }
        }
    }
}

/// An item in an index. Items are ordered as a task reads them: by time, then by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Received {
    pub(super) at: String,
    /// The id of the event.
    pub id: EventId,
    /// The SHA-256 of the body, if the item is a conflict of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<String>,
}

/// A text that sorts before every time in an index. Keys cannot be empty.
pub(super) const BEGINNING: &str = "0";

/// Merges the keys of all shards, and returns the first `limit` after `after`. The flag says whether there are more.
pub(super) fn merged(
    pages: Vec<(Vec<Received>, bool)>,
    after: Option<&Received>,
    limit: usize,
) -> (Vec<Received>, bool) {
    // The keys that a shard has not returned yet are later than those that it has.
    let last_of_shards = pages.iter().filter(|(_, has_more)| *has_more);
    let complete_to = last_of_shards
        .filter_map(|(keys, _)| Some(keys.last()?.at.clone()))
        .min();
    let mut next: Vec<_> = pages.into_iter().flat_map(|(keys, _)| keys).collect();
    next.retain(|key| after.is_none_or(|after| key > after));
    next.retain(|key| complete_to.as_ref().is_none_or(|complete_to| key.at <= *complete_to));
    next.sort();
    let has_more = complete_to.is_some() || next.len() > limit;
    next.truncate(limit);
    (next, has_more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(at: &str, id: char) -> Received {
        Received {
            at: at.to_owned(),
            id: EventId::stored(&id.to_string()),
            conflict: None,
        }
    }

    #[test]
    fn shards_are_merged_in_the_order_of_receipt() {
        let early = received("1", 'c');
        let shards = || {
            vec![
                (vec![early.clone(), received("3", 'a')], true),
                (vec![received("2", 'b'), received("4", 'd')], false),
            ]
        };
        let (first, has_more) = merged(shards(), None, 2);
        assert_eq!((first, has_more), (vec![early.clone(), received("2", 'b')], true));
        let (rest, has_more) = merged(shards(), Some(&received("2", 'b')), 9);
        // The next key of the first shard may be earlier than the fourth.
        assert_eq!((rest, has_more), (vec![received("3", 'a')], true));
    }

    #[test]
    fn an_hour_begins_on_the_hour() {
        let hour = Hour::containing("2024-09-30T10:43:44.5Z".parse().expect("a time"));
        assert_eq!(hour.start().to_string(), "2024-09-30T10:00:00Z");
        assert_eq!(
            (hour.key().as_str(), hour.next().key().as_str()),
            ("2024-09-30T10", "2024-09-30T11")
        );
    }
}
