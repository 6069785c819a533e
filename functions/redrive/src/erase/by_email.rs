//! Erases the events and conflicts of one shop that were received in a period and contain an e-mail address.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::codes::Code;
use shared::identity::EventId;
use shared::store::{Head, Hour, Projection, Received, State, StoreError};

use super::Erasure;
use super::email_address::EmailAddress;
use crate::TaskError;
use crate::time_left::{Page, Walked};

/// The number of keys that are read from the index at once. The items that they name are read one by one.
const KEYS: usize = 25;

/// The items of a shop that were received in a period and name an e-mail address.
pub(super) struct Search<'t> {
    pub(super) provider: &'t str,
    pub(super) shop: &'t str,
    pub(super) address: EmailAddress,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Search<'_> {
    /// Whether an item belongs to the shop and was received in the period.
    fn covers(&self, head: &Head) -> bool {
        let received_at = head.received_at();
        head.shop() == Some(self.shop) && received_at.is_some_and(|time| (self.from..self.to).contains(&time))
    }
}

/// The hour that is searched, and the item after which to continue.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cursor {
    hour: Timestamp,
    after: Option<Received>,
}

impl Cursor {
    fn at(hour: Hour) -> Self {
        Self {
            hour: hour.start(),
            after: None,
        }
    }
}

impl Erasure<'_> {
    pub(super) async fn erase_by_email(
        &mut self,
        search: &Search<'_>,
        cursor: Option<Cursor>,
    ) -> Result<Walked<Cursor>, TaskError> {
        let first = cursor.unwrap_or_else(|| Cursor::at(Hour::containing(search.from)));
        let first = Some(first).filter(|cursor| cursor.hour < search.to);
        let time = self.time;
        time.walk(first, async |cursor: &mut Cursor| self.erase_page(search, cursor).await)
            .await
    }

    /// Reads the items that the next keys name, and moves the cursor past each.
    async fn erase_page(&mut self, search: &Search<'_>, cursor: &mut Cursor) -> Result<Page, TaskError> {
        let store = &self.outbox.store;
        let hour = Hour::containing(cursor.hour);
        let keys = store.received_in(search.provider, hour, cursor.after.as_ref(), KEYS);
        let (keys, has_more) = keys.await?;
        for key in keys {
            if self.time.is_up() {
                return Ok(Page::More);
            }
            match &key.conflict {
                None => self.erase_event_if_found(search, &key.id).await?,
                Some(payload_sha256) => self.erase_conflict_if_found(search, &key.id, payload_sha256).await?,
            }
            cursor.after = Some(key);
        }
        if !has_more {
            *cursor = Cursor::at(hour.next());
        }
        Ok(if cursor.hour < search.to {
            Page::More
        } else {
            Page::Last
        })
    }

    async fn erase_event_if_found(&mut self, search: &Search<'_>, id: &EventId) -> Result<(), TaskError> {
        let ids = std::slice::from_ref(id);
        let heads = self.outbox.store.heads(ids, Projection::Delivery).await?;
        if let Some((_, head)) = heads.first() {
            // An interrupted erasure has removed the text that may have named the address. It is completed in any case.
            let is_half_erased = head.state == State::Erased && !head.is_erased_to_its_end();
            if (is_half_erased && search.covers(head)) || self.is_found(search, id, head).await? {
                self.erase_head(id, head).await?;
            }
        }
        Ok(())
    }

    async fn erase_conflict_if_found(
        &mut self,
        search: &Search<'_>,
        id: &EventId,
        payload_sha256: &str,
    ) -> Result<(), TaskError> {
        if let Some(conflict) = self.outbox.store.conflict(id, payload_sha256).await? {
            let head = &conflict.head;
            // Here too an interrupted erasure is completed.
            if (head.is_being_erased() && search.covers(head)) || self.is_found(search, id, head).await? {
                self.erase_conflict(id, payload_sha256).await?;
            }
        }
        Ok(())
    }

    /// Whether the search covers an item and the item names the address: in its event, which holds all that the
    /// provider has sent, or in its body if there is no event.
    async fn is_found(&self, search: &Search<'_>, id: &EventId, head: &Head) -> Result<bool, TaskError> {
        if !search.covers(head) || head.state == State::Erased {
            return Ok(false);
        }
        let (outbox, store) = (self.outbox, &self.outbox.store);
        // One event is in memory at a time: it may be very large.
        let _reading = outbox.reading.lock().await;
        let text = if head.has_event() {
            store.event(id, head).await.map(|stored| stored.json.into_bytes())
        } else {
            store.delivery(id, head).await.map(|delivery| delivery.body().to_vec())
        };
        match text {
            Ok(text) => Ok(search.address.is_in(&String::from_utf8_lossy(&text))),
            // An item that cannot be read does not hold up the others.
            Err(error @ StoreError::Corrupt(_)) => {
                tracing::error!(
                    code = Code::CorruptItem.as_str(),
                    event_id = %id,
                    cause = %error,
                    "a stored item cannot be read and is not erased"
                );
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}
