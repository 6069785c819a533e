//! Reading events in the order of the hours in which they were received.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::identity::EventId;
use shared::store::{Hour, IndexPosition, SHARDS, StoreError};

use crate::{Outbox, PAGE};

/// A position in the index `by_hour`: an hour, a shard of it, and the event after which to continue.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HourCursor {
    hour: Timestamp,
    shard: u8,
    after: Option<IndexPosition>,
}

impl HourCursor {
    /// The beginning of the hour that contains `time`.
    pub(crate) fn at(time: Timestamp) -> Self {
        Self {
            hour: Hour::containing(time).start(),
            shard: 0,
            after: None,
        }
    }

    /// Whether its hour begins before `to`.
    pub(crate) fn is_before(&self, to: Timestamp) -> bool {
        self.hour < to
    }

    /// The position after a page that ended with `last`, or that reached the end of its shard.
    pub(crate) fn next(&self, last: Option<IndexPosition>) -> Self {
        let (hour, shard) = match (&last, self.shard + 1) {
            (Some(_), _) => (self.hour, self.shard),
            (None, next) if next < SHARDS => (self.hour, next),
            (None, _) => (Hour::containing(self.hour).next().start(), 0),
        };
        Self {
            hour,
            shard,
            after: last,
        }
    }
}

impl Outbox {
    /// Reads one page of the ids of a provider's events at `place`, and the key of the last one if the shard goes on.
    pub(crate) async fn received(
        &self,
        provider: &str,
        place: &HourCursor,
    ) -> Result<(Vec<EventId>, Option<IndexPosition>), StoreError> {
        let hour = Hour::containing(place.hour);
        self.store
            .of_hour(provider, hour, place.shard, PAGE, place.after.as_ref())
            .await
    }
}
