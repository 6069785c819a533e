//! Working through a provider's events, hour by hour of their receipt.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::identity::EventId;
use shared::store::{Head, Hour, IndexPosition, Projection, SHARDS};

use crate::time_left::{Page, TimeLeft, Walked};
use crate::{Outbox, PAGE, TaskError};

/// The events of a provider that were received from `from` on and before `to`.
#[derive(Clone, Copy)]
pub(crate) struct Period<'t> {
    pub(crate) provider: &'t str,
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

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
    fn at(time: Timestamp) -> Self {
        Self {
            hour: Hour::containing(time).start(),
            shard: 0,
            after: None,
        }
    }

    /// The position after a page that ended with `last`, or that reached the end of its shard.
    fn next(&self, last: Option<IndexPosition>) -> Self {
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
    /// Gives the events of a period to `work`, a page at a time, from `cursor` or else from the beginning on.
    pub(crate) async fn walk_period(
        &self,
        period: Period<'_>,
        cursor: Option<HourCursor>,
        projection: Projection,
        time: TimeLeft,
        mut work: impl AsyncFnMut(Vec<(EventId, Head)>) -> Result<Page, TaskError>,
    ) -> Result<Walked<HourCursor>, TaskError> {
        let Period { provider, from, to } = period;
        let first = Some(cursor.unwrap_or_else(|| HourCursor::at(from)));
        let first = first.filter(|cursor| cursor.hour < to);
        time.walk(first, async |cursor: &mut HourCursor| {
            let hour = Hour::containing(cursor.hour);
            let ids = self
                .store
                .of_hour(provider, hour, cursor.shard, PAGE, cursor.after.as_ref());
            let (ids, last) = ids.await?;
            let mut events = self.store.heads(&ids, projection).await?;
            events.retain(|(_, head)| head.received_at().is_some_and(|time| (from..to).contains(&time)));
            let page = work(events).await?;
            *cursor = cursor.next(last);
            Ok(if cursor.hour < to { page } else { Page::Last })
        })
        .await
    }
}
