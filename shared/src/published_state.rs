//! Publishes the state of an order after an event of it, if `PUBLISH_STATE` is `true`.
//!
//! The event is marked as published only after the state, so that a crash between the two repeats both. A state has a
//! version that only grows, and its events are read after the version is taken: of two events that meet, the later
//! version is the state after both.

use crate::codes::Code;
use crate::identity::{EventId, sha256_hex};
use crate::publisher::{Fault, Occasion, PublishError, Publisher};
use crate::store::{OrderKey, Store, StoreError};

/// Publishes the state of the order `order` after its event `id`, which is published.
///
/// # Errors
/// If a service fails, so that the event must be published again. A state that can never be a message is only logged.
pub async fn publish(
    store: &Store,
    publisher: &Publisher,
    order: &OrderKey,
    id: &EventId,
    occasion: Occasion,
) -> Result<(), PublishError> {
    let error = match try_to_publish(store, publisher, order, id, occasion).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    match error.fault {
        Fault::Unpublishable | Fault::Refused => {
            tracing::warn!(
                code = Code::StateNotPublished.as_str(),
                event_id = %id,
                cause = error.cause,
                "the state of the order is not published"
            );
            Ok(())
        }
        Fault::Throttled | Fault::Outage | Fault::Unclear | Fault::Store => Err(error),
    }
}

async fn try_to_publish(
    store: &Store,
    publisher: &Publisher,
    order: &OrderKey,
    id: &EventId,
    occasion: Occasion,
) -> Result<(), PublishError> {
    let next = store.next_state(order, id).await?;
    let next = next.ok_or_else(|| PublishError::unpublishable("the order has too many events"))?;
    let read = store.history(&next.event_ids).await?;
    if !read.unreadable.is_empty() {
        // The facts of these events would be missing.
        return Err(PublishError::unpublishable("an event of the order cannot be read"));
    }
    // All events of the order were erased.
    let Some(mut state) = read.history.states().into_values().next() else {
        return Ok(());
    };
    state.version = Some(next.version);
    let message = publisher.state_message(&message_id(order, next.version), state, occasion)?;
    publisher.publish(message).await
}

/// The id of the message: the hash of the order's key and the version.
fn message_id(order: &OrderKey, version: u64) -> String {
    let parts = serde_json::json!(["order.state", order.as_str(), version]);
    sha256_hex(parts.to_string().as_bytes())
}

impl From<StoreError> for PublishError {
    fn from(error: StoreError) -> Self {
        let fault = match &error {
            StoreError::Corrupt(_) => Fault::Unpublishable,
            error if error.is_throttling() => Fault::Throttled,
            _ => Fault::Store,
        };
        Self {
            fault,
            cause: error.to_string(),
            is_alone: true,
        }
    }
}
