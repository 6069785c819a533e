//! Folds the stored events of an order.

use jiff::Timestamp;

use super::{Projection, Store, StoreError};
use crate::codes::Code;
use crate::identity::EventId;
use crate::order_state::History;

/// The number of events that are read at once.
const PAGE: usize = 10;

/// The limit for the JSON of all events of an order, in bytes, if its state is published: a function has 256 MiB.
pub const PUBLISHED_HISTORY: usize = 10_000_000;

/// The stored events of an order, of which its state is folded.
#[derive(Default)]
pub struct StoredHistory {
    /// The events.
    pub history: History,
    /// The ids of events that are stored and cannot be read, so that their facts are missing.
    pub unreadable: Vec<EventId>,
    /// Whether the events are larger than the limit, so that some of them were not read.
    pub is_too_large: bool,
}

impl Store {
    /// Reads the order events with these ids, consistently. Erased and expired events, and deliveries that were not
    /// understood, state nothing. Stops once the JSON of the events takes more than `limit` bytes.
    pub async fn history(&self, ids: &[EventId], limit: usize) -> Result<StoredHistory, StoreError> {
        let mut read = StoredHistory::default();
        let now = Timestamp::now();
        let mut size = 0;
        for ids in ids.chunks(PAGE) {
            for (id, head) in self.heads_or_faults(ids, Projection::Event).await? {
                let Ok(head) = head else {
                    read.unreadable.push(id);
                    continue;
                };
                if !head.has_event() || self.has_expired(&head, now) {
                    continue;
                }
                let fault = match self.event(&id, &head).await {
                    Ok(stored) => {
                        size += stored.json.len();
                        if size > limit {
                            read.is_too_large = true;
                            return Ok(read);
                        }
                        let added = read.history.add_json(&stored.json);
                        added.err().map(|_| StoreError::Corrupt("event"))
                    }
                    Err(error @ StoreError::Corrupt(_)) => Some(error),
                    Err(error) => return Err(error),
                };
                // An event that cannot be read does not hide the others.
                if let Some(error) = fault {
                    tracing::error!(
                        code = Code::CorruptItem.as_str(),
                        event_id = %id,
                        cause = %error,
                        "a stored event cannot be read"
                    );
                    read.unreadable.push(id);
                }
            }
        }
        Ok(read)
    }
}
