//! `{"reprocess":{}}`: reading quarantined deliveries anew, with today's code over the bodies as they were kept.
//!
//! What is understood now goes into the outbox, from where the next run of `redrive` publishes it.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::identity::EventId;
use shared::publisher::MessageLimit;
use shared::store::{AttemptId, Content, Entry, EventJson, Head, Place, State, StoreError, With};
use shared::understanding::Meaning;
use tokio::time::Instant;

use crate::{Outbox, PAGE, TaskError};

/// Which quarantined deliveries: all, or those of a provider, or of a shop.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reprocess {
    /// What they are in. It may be said, and can be nothing else.
    #[serde(default)]
    #[expect(dead_code, reason = "read for its fault alone")]
    state: Quarantined,
    provider: Option<String>,
    shop: Option<String>,
    /// Count them only.
    #[serde(default)]
    dry_run: bool,
    /// Where an earlier run stopped.
    cursor: Option<Place>,
}

/// The only state that is read anew.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Quarantined {
    #[default]
    Quarantined,
}

#[derive(Default)]
struct Reprocessed {
    accepted: u64,
    unsupported: u64,
    quarantined: u64,
    /// Not read: they have expired, and are not removed yet.
    expired: u64,
}

impl Outbox {
    pub(crate) async fn reprocess(&self, task: &Reprocess, stop_at: Instant) -> Result<Value, TaskError> {
        let mut reprocessed = Reprocessed::default();
        let mut place = Some(task.cursor.clone().unwrap_or_default());
        let expiry = self.store.expiry(Timestamp::now()).await?;
        // Whenever it came: nothing is due here.
        let now = Timestamp::MAX;
        while let Some(here) = place.as_ref().filter(|_| Instant::now() < stop_at) {
            let (ids, next) = self.store.due(State::Quarantined, here, now, PAGE).await?;
            for (id, head) in self.store.heads(&ids, With::Delivery).await? {
                let wanted =
                    |filter: &Option<String>, value| filter.as_deref().is_none_or(|filter| value == Some(filter));
                if head.state == State::Quarantined
                    && wanted(&task.provider, head.provider())
                    && wanted(&task.shop, head.shop())
                {
                    if expiry.has_expired(&head) {
                        reprocessed.expired += 1;
                        continue;
                    }
                    self.reprocess_one(task, &id, &head, stop_at, &mut reprocessed).await?;
                }
            }
            place = next;
        }
        let Reprocessed {
            accepted,
            unsupported,
            quarantined,
            expired,
        } = reprocessed;
        tracing::info!(
            accepted,
            unsupported,
            quarantined,
            expired,
            dry_run = task.dry_run,
            "reprocess"
        );
        Ok(json!({
            "accepted": accepted,
            "unsupported": unsupported,
            "quarantined": quarantined,
            "expired": expired,
            "dry_run": task.dry_run,
            "done": place.is_none(),
            "cursor": place,
        }))
    }

    async fn reprocess_one(
        &self,
        task: &Reprocess,
        id: &EventId,
        head: &Head,
        until: Instant,
        reprocessed: &mut Reprocessed,
    ) -> Result<(), TaskError> {
        let delivery = match self.store.delivery(id, head).await {
            Ok(delivery) => delivery,
            // One that cannot be read holds up no other.
            Err(error @ StoreError::Damaged(_)) => {
                tracing::error!(event_id = %id, cause = %error, "a kept delivery cannot be read");
                reprocessed.quarantined += 1;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let providers = self.providers.as_ref().map_err(Clone::clone)?;
        let understood = head
            .provider()
            .and_then(|provider| providers.understand(provider, &delivery));
        let Some((provider, understanding)) = understood else {
            tracing::info!(event_id = %id, reason = "unknown_provider", "still quarantined");
            reprocessed.quarantined += 1;
            return Ok(());
        };
        match &understanding.meaning {
            Meaning::Order(event) => {
                let json = EventJson::of(event, MessageLimit::default());
                let entry = Entry {
                    id: &understanding.id,
                    provider,
                    delivery: &delivery,
                    content: Content::Order(event, &json),
                };
                let changed = if task.dry_run {
                    true
                } else if understanding.id == *id {
                    self.store.release(&entry, &AttemptId::random(), until).await?
                } else {
                    self.store.supersede(id, &entry, until).await?
                };
                reprocessed.accepted += u64::from(changed);
            }
            Meaning::Unsupported => {
                reprocessed.unsupported += u64::from(task.dry_run || self.store.set_aside(id).await?);
            }
            Meaning::Quarantined(reason) => {
                tracing::info!(event_id = %id, reason = reason.as_str(), "still quarantined");
                reprocessed.quarantined += 1;
            }
        }
        Ok(())
    }
}
