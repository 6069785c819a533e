//! Measures the backlog in the index `work`. The reads are bounded, so that watching a backlog costs less than draining
//! it.

use aws_sdk_dynamodb::types::{AttributeValue, Select};
use futures_util::future::try_join_all;
use jiff::Timestamp;

use super::event_items::sortable;
use super::{SHARDS, State, Store, StoreError, WorkCursor, text};

/// The most keys that are counted in one shard.
const COUNTED_PER_SHARD: i32 = 1_000;
/// The number of events in one shard that are searched for the oldest.
const SEARCHED_PER_SHARD: i32 = 3;

impl Store {
    /// Counts the events in `state`, which must be one of the states in the index `work`: at most 1,000 in each shard.
    pub async fn count(&self, state: State) -> Result<u64, StoreError> {
        self.count_until(state, Timestamp::MAX).await
    }

    /// Counts the events in `state` whose next attempt is due at `until`: at most 1,000 in each shard.
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
                .limit(COUNTED_PER_SHARD);
            let page = query.send().await?;
            Ok::<_, StoreError>(u64::try_from(page.count()).unwrap_or_default())
        });
        Ok(try_join_all(counts).await?.iter().sum())
    }

    /// The time at which the oldest pending event was received; `None` if no event is pending.
    ///
    /// Only the three events that are due first in each shard are searched. They were received first, except for events
    /// that SNS has refused or that a repeat has taken over; if there are more of those, the oldest event may be older.
    pub async fn oldest_pending(&self) -> Result<Option<Timestamp>, StoreError> {
        let pages = (0..SHARDS).map(|shard| async move {
            let cursor = WorkCursor::at(shard);
            self.due(State::Pending, &cursor, Timestamp::MAX, SEARCHED_PER_SHARD)
                .await
        });
        let pages = try_join_all(pages).await?;
        let ids: Vec<_> = pages.into_iter().flat_map(|(ids, _)| ids).collect();
        // The index lags behind the table: an event may be published by now.
        let heads = self.head_items(&ids, Some(&["work", "received_at"])).await?;
        let pending = heads
            .iter()
            .filter(|head| text(head, "work").is_some_and(|work| work.starts_with(State::Pending.as_str())))
            .filter_map(|head| text(head, "received_at")?.parse().ok());
        Ok(pending.min())
    }
}
