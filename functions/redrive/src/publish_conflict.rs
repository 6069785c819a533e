//! `{"publish_conflict":{...}}`: publishes a conflict, which is another body of a known event, as an event of its own.

use serde::Deserialize;
use serde_json::{Value, json};
use shared::classify::Classification;
use shared::identity::EventId;
use shared::store::{Content, EventJson, NewEvent, PublishedConflict};

use crate::time_left::TimeLeft;
use crate::{Outbox, TaskError, event_id};

/// A conflict, by the two values with which `get` lists it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishConflict {
    event_id: String,
    payload_sha256: String,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
}

/// The result for a conflict.
enum Published {
    /// The conflict's event is in the outbox, or would be.
    Accepted(EventId),
    /// An earlier call has published the conflict.
    Before(EventId),
    /// There is no such conflict.
    NotFound,
    /// Today's code does not understand the conflict as an order event.
    NotUnderstood,
}

impl Outbox {
    pub(crate) async fn publish_conflict(&self, task: &PublishConflict, time: TimeLeft) -> Result<Value, TaskError> {
        let id = event_id(&task.event_id)?;
        if EventId::parse(&task.payload_sha256).is_none() {
            let not_a_hash = "payload_sha256 is not 64 hex digits";
            return Err(TaskError::NoTask(not_a_hash.to_owned()));
        }
        let published = self.publish_one_conflict(&id, task, time).await?;
        let (status, published_as) = match published {
            Published::Accepted(new) => ("accepted", Some(new)),
            Published::Before(before) => ("already_published", Some(before)),
            Published::NotFound => ("not_found", None),
            Published::NotUnderstood => ("not_understood", None),
        };
        tracing::info!(event_id = %id, status, dry_run = task.dry_run, "publish_conflict");
        Ok(json!({
            "accepted": u64::from(status == "accepted"),
            "status": status,
            "event_id": published_as,
            "dry_run": task.dry_run,
        }))
    }

    async fn publish_one_conflict(
        &self,
        id: &EventId,
        task: &PublishConflict,
        time: TimeLeft,
    ) -> Result<Published, TaskError> {
        let Some(conflict) = self.store.conflict(id, &task.payload_sha256).await? else {
            return Ok(Published::NotFound);
        };
        if let Some(before) = conflict.published_as() {
            return Ok(Published::Before(before));
        }
        let delivery = self.store.delivery(id, &conflict.head).await?;
        let providers = self.providers.as_ref().map_err(Clone::clone)?;
        let provider = conflict.head.provider().unwrap_or_default();
        let Some((provider, classified)) = providers.classify(provider, &delivery) else {
            return Ok(Published::NotUnderstood);
        };
        let Classification::Order(mut event) = classified.classification else {
            return Ok(Published::NotUnderstood);
        };
        let new = EventId::of_conflict(provider, delivery.shop(), &classified.key, &task.payload_sha256);
        if task.dry_run {
            return Ok(Published::Accepted(new));
        }
        event.id = new.clone();
        let json = EventJson::of(&event, self.publisher.limit());
        let new_event = NewEvent {
            id: &new,
            provider,
            delivery: &delivery,
            content: Content::Order(&event, &json),
        };
        let published = self
            .store
            .publish_conflict(&conflict, &new_event, time.give_up_at)
            .await?;
        Ok(match published {
            PublishedConflict::Accepted => Published::Accepted(new),
            PublishedConflict::Before(before) => Published::Before(before),
            PublishedConflict::Gone => Published::NotFound,
        })
    }
}
