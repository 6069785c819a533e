//! Which deliveries are reprocessed, and in which order.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::identity::EventId;
use shared::store::{Head, Hour, Received, State, Store, StoreError};

/// The number of deliveries that are looked up at once and read one by one.
const KEYS: usize = 10;

/// Where deliveries are looked up.
pub(super) enum Lookup<'t> {
    One(EventId),
    Quarantined,
    /// Among the deliveries of a provider that were received in a period.
    Unsupported {
        provider: &'t str,
        from: Timestamp,
        to: Timestamp,
    },
}

/// The delivery after which to continue, and the hour in which it was received if the lookup goes hour by hour.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cursor {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hour: Option<Timestamp>,
    after: Option<Received>,
}

impl Cursor {
    /// Moves past a delivery, if an index names it.
    pub(super) fn move_past(&mut self, received: Option<Received>) {
        self.after = received.or(self.after.take());
    }
}

impl Lookup<'_> {
    /// The next deliveries, and the cursor after them; no cursor if they are the last.
    pub(super) async fn next(
        &self,
        store: &Store,
        cursor: &Cursor,
    ) -> Result<(Vec<(EventId, Option<Received>)>, Option<Cursor>), StoreError> {
        let after = cursor.after.as_ref();
        let after_page = |page: &[Received], hour| Cursor {
            hour,
            after: page.last().or(after).cloned(),
        };
        let (received, next) = match self {
            Self::One(id) => return Ok((vec![(id.clone(), None)], None)),
            Self::Quarantined => {
                let (page, has_more) = store.work_in_order(State::Quarantined, after, KEYS).await?;
                let next = has_more.then(|| after_page(&page, None));
                (page, next)
            }
            Self::Unsupported { provider, from, to } => {
                let hour = Hour::containing(cursor.hour.unwrap_or(*from));
                if hour.start() >= *to {
                    return Ok((Vec::new(), None));
                }
                let (page, has_more) = store.received_in(provider, hour, after, KEYS).await?;
                let next = if has_more {
                    after_page(&page, Some(hour.start()))
                } else {
                    Cursor {
                        hour: Some(hour.next().start()),
                        after: None,
                    }
                };
                (page, Some(next))
            }
        };
        let deliveries = received.into_iter().filter(|received| received.conflict.is_none());
        let deliveries = deliveries.map(|received| (received.id.clone(), Some(received)));
        Ok((deliveries.collect(), next))
    }

    /// Whether a delivery is still one of those that are looked up.
    pub(super) fn finds(&self, head: &Head) -> bool {
        match self {
            Self::One(_) => matches!(head.state, State::Quarantined | State::Unsupported),
            Self::Quarantined => head.state == State::Quarantined,
            Self::Unsupported { from, to, .. } => {
                let received_at = head.received_at();
                head.state == State::Unsupported && received_at.is_some_and(|time| (*from..*to).contains(&time))
            }
        }
    }
}
