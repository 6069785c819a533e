//! What waits in the index `work`, in numbers: bounded, so that watching a backlog does not cost what draining it does.

use aws_sdk_dynamodb::types::{AttributeValue, Select};
use futures_util::future::try_join_all;
use jiff::Timestamp;

use super::event_items::sortable;
use super::{SHARDS, State, Store, StoreError, WorkCursor, describe};

/// Keys that are counted in one shard, at most.
const COUNTED_A_SHARD: i32 = 1_000;
/// Events looked at in one shard for the oldest.
const LOOKED_AT_A_SHARD: i32 = 3;

impl Store {
    /// Counts the events in `state`, which must be one of those in the index `work`: at most 1,000 in a shard.
    pub async fn count(&self, state: State) -> Result<u64, StoreError> {
        self.count_until(state, Timestamp::MAX).await
    }

    /// Counts the events in `state` whose next attempt is due at `until`: at most 1,000 in a shard.
    pub(super) async fn count_until(&self, state: State, until: Timestamp) -> Result<u64, StoreError> {
        let counts = (0..SHARDS).map(|shard| async move {
            let work = AttributeValue::S(format!("{}#{shard}", state.as_str()));
            let query = self.client.query().table_name(&self.table).index_name("work");
            let query = query
                .key_condition_expression("#work = :work AND next_attempt_at <= :until")
                .expression_attribute_names("#work", "work")
                .expression_attribute_values(":work", work)
                .expression_attribute_values(":until", AttributeValue::S(sortable(until)))
                .select(Select::Count)
                .limit(COUNTED_A_SHARD);
            let page = query
                .send()
                .await
                .map_err(|error| StoreError::DynamoDb(describe(&error)))?;
            Ok(u64::try_from(page.count()).unwrap_or_default())
        });
        Ok(try_join_all(counts).await?.iter().sum())
    }

    /// When the oldest of the pending events was received; `None` where none is pending.
    ///
    /// It is looked for among those that are due first, three in each shard. What is due first was received first, but for
    /// events that SNS has refused or a repeat has taken over; with more of these waiting the oldest may be older.
    pub async fn oldest_pending(&self) -> Result<Option<Timestamp>, StoreError> {
        let pages = (0..SHARDS).map(|shard| async move {
            let cursor = WorkCursor::at(shard);
            self.due(State::Pending, &cursor, Timestamp::MAX, LOOKED_AT_A_SHARD)
                .await
        });
        let pages = try_join_all(pages).await?;
        let ids: Vec<_> = pages.into_iter().flat_map(|(ids, _)| ids).collect();
        // The index lags: what is published by now is not pending.
        let heads = self.head_items(&ids, Some(&["work", "received_at"])).await?;
        let pending = heads
            .iter()
            .filter(|head| {
                let work = head.get("work").and_then(|work| work.as_s().ok());
                work.is_some_and(|work| work.starts_with(State::Pending.as_str()))
            })
            .filter_map(|head| head.get("received_at")?.as_s().ok()?.parse().ok());
        Ok(pending.min())
    }
}
