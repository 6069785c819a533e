//! Removes the parts of deliveries that were never stored, and expired events. A failure does not fail the run: a later
//! run removes the rest.

use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use shared::codes::Code;
use shared::store::{Expiring, Projection, StoreError, Trimmed, WorkCursor};
use tokio::time::{Instant, timeout_at};

use super::plan::rotated;
use crate::time_left::{NO_ANSWER, TimeLeft};
use crate::{Outbox, PAGE};

/// How long the sweep of abandoned parts may take.
const SWEEP_BUDGET: Duration = Duration::from_secs(3);

/// How long a run removes expired events at most. The next run is a minute later.
const TRIM_BUDGET: Duration = Duration::from_secs(20);

/// The number of expired events that are removed at once.
const TRIM_PAGE: i32 = 25;

impl Outbox {
    /// Deletes parts that were written for events that were never stored.
    pub(super) async fn sweep(&self, shards: Range<u8>, give_up_at: Instant) {
        let until = give_up_at.min(Instant::now() + SWEEP_BUDGET);
        let now = Timestamp::now();
        let sweeps = join_all(shards.map(|shard| self.store.sweep(shard, now, PAGE)));
        let Ok(sweeps) = timeout_at(until, sweeps).await else {
            tracing::warn!(
                code = Code::PartsNotSwept.as_str(),
                cause = NO_ANSWER,
                "abandoned parts are left to a later run"
            );
            return;
        };
        let mut swept = 0;
        for sweep in sweeps {
            match sweep {
                Ok(count) => swept += count,
                Err(error) => {
                    tracing::warn!(
                        code = Code::PartsNotSwept.as_str(),
                        cause = %error,
                        "abandoned parts are left to a later run"
                    );
                }
            }
        }
        if swept > 0 {
            tracing::info!(swept, "abandoned parts were deleted");
        }
    }

    /// Removes the expired events of these shards. Returns their number.
    pub(super) async fn trim(&self, shards: Range<u8>, time: TimeLeft) -> u64 {
        if !self.store.expires_anything() {
            return 0;
        }
        let removed = Cell::new(0);
        let stop_at = time.stop_at.min(Instant::now() + TRIM_BUDGET);
        let cause = match timeout_at(time.give_up_at, self.trim_until(shards, stop_at, &removed)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(NO_ANSWER.to_owned()),
        };
        if let Some(cause) = cause {
            tracing::warn!(
                code = Code::ExpiredNotRemoved.as_str(),
                cause,
                "expired events are left to a later run"
            );
        }
        removed.get()
    }

    async fn trim_until(&self, shards: Range<u8>, stop_at: Instant, removed: &Cell<u64>) -> Result<(), StoreError> {
        let expiry = self.store.expiry(Timestamp::now()).await?;
        for shard in rotated(shards) {
            for kind in [Expiring::Quarantined, Expiring::Marked] {
                let mut cursor = Some(WorkCursor::at(shard));
                while let Some(here) = cursor.filter(|cursor| cursor.shard() == shard) {
                    if Instant::now() >= stop_at {
                        return Ok(());
                    }
                    let (ids, next) = self.store.due_to_expire(kind, &expiry, &here, TRIM_PAGE).await?;
                    let heads = self.store.heads(&ids, Projection::Nothing).await?;
                    let trims = heads.iter().map(|(id, head)| self.store.trim(id, head, &expiry));
                    let trims = join_all(trims).await;
                    let done = trims.iter().filter(|trimmed| matches!(trimmed, Ok(Trimmed::Removed)));
                    removed.set(removed.get() + done.count() as u64);
                    trims.into_iter().collect::<Result<Vec<_>, _>>()?;
                    cursor = next;
                }
            }
        }
        Ok(())
    }
}
