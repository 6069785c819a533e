//! Removing expired events: the last thing that a run of `{"redrive":{}}` does, in the time that publishing leaves.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use shared::codes::Code;
use shared::store::{Expiring, Projection, StoreError, Trimmed, WorkCursor};
use tokio::time::{Instant, timeout_at};

use crate::{Outbox, TimeLeft};

/// How long a run removes expired events at most: there is another one every minute.
const TRIM_BUDGET: Duration = Duration::from_secs(20);

/// Events that are removed at once.
const TRIM_PAGE: i32 = 25;

impl Outbox {
    /// Removes what has expired in these shards, and gives how many events that were. No run fails by it: what is left is removed by the next one.
    pub(crate) async fn trim(&self, shards: Range<u8>, time: TimeLeft) -> u64 {
        if !self.store.expires_anything() {
            return 0;
        }
        let removed = AtomicU64::new(0);
        let stop_at = time.stop_at.min(Instant::now() + TRIM_BUDGET);
        let cause = match timeout_at(time.give_up_at, self.trim_until(shards, stop_at, &removed)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        if let Some(cause) = cause {
            tracing::warn!(
                code = Code::ExpiredNotRemoved.as_str(),
                cause,
                "expired events are not removed yet"
            );
        }
        removed.into_inner()
    }

    async fn trim_until(&self, shards: Range<u8>, stop_at: Instant, removed: &AtomicU64) -> Result<(), StoreError> {
        let expiry = self.store.expiry(Timestamp::now()).await?;
        // A run that has not enough time must not always leave the same shards.
        let first = fastrand::u8(shards.clone());
        for shard in (first..shards.end).chain(shards.start..first) {
            for what in [Expiring::Quarantined, Expiring::Marked] {
                let mut cursor = Some(WorkCursor::at(shard));
                while let Some(here) = cursor.filter(|cursor| cursor.shard() == shard) {
                    if Instant::now() >= stop_at {
                        return Ok(());
                    }
                    let (ids, next) = self.store.due_to_expire(what, &expiry, &here, TRIM_PAGE).await?;
                    let heads = self.store.heads(&ids, Projection::Nothing).await?;
                    let trims = heads.iter().map(|(id, head)| self.store.trim(id, head, &expiry));
                    let trims = join_all(trims).await;
                    let done = trims.iter().filter(|trimmed| matches!(trimmed, Ok(Trimmed::Removed)));
                    removed.fetch_add(done.count() as u64, Ordering::Relaxed);
                    trims.into_iter().collect::<Result<Vec<_>, _>>()?;
                    cursor = next;
                }
            }
        }
        Ok(())
    }
}
