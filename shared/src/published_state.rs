//! Publishes the state of an order after an event of it, if `PUBLISH_STATE` is `true`.
//!
//! The event is marked as published only after the state, so that a crash between the two repeats both. A state has a
//! version that only grows, and its events are read after the version is taken: of two events that meet, the later
//! version is the state after both.

use crate::codes::Code;
use crate::identity::{EventId, sha256_hex};
use crate::order_state::OrderState;
use crate::publisher::{Fault, Message, Occasion, PublishError, Publisher};
use crate::store::{OrderKey, PUBLISHED_HISTORY, Store, StoreError};

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
    match message(store, publisher, order, id, occasion).await? {
        Some(message) => send(publisher, id, message).await,
        None => Ok(()),
    }
}

/// Takes the next version of the order's state, and makes its message. Returns `None` if there is no state, or if it
/// can never be a message, which is logged.
///
/// # Errors
/// If a service fails, so that the event must be published again.
pub async fn message(
    store: &Store,
    publisher: &Publisher,
    order: &OrderKey,
    id: &EventId,
    occasion: Occasion,
) -> Result<Option<Message>, PublishError> {
    let message = try_to_fold(store, publisher, order, id, occasion).await;
    message.or_else(|error| log_if_final(id, error).map(|()| None))
}

/// Publishes a message that [`message`] has made.
///
/// # Errors
/// If a service fails, so that the event must be published again. A message that SNS refuses is only logged.
pub async fn send(publisher: &Publisher, id: &EventId, message: Message) -> Result<(), PublishError> {
    let sent = publisher.publish(message).await;
    sent.or_else(|error| log_if_final(id, error))
}

/// Logs an error that another attempt does not change, and returns any other.
fn log_if_final(id: &EventId, error: PublishError) -> Result<(), PublishError> {
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

async fn try_to_fold(
    store: &Store,
    publisher: &Publisher,
    order: &OrderKey,
    id: &EventId,
    occasion: Occasion,
) -> Result<Option<Message>, PublishError> {
    let next = store.next_state(order, id).await?;
    let next = next.ok_or_else(|| PublishError::unpublishable("the order has too many events"))?;
    let ids: Vec<_> = next.event_ids.into_iter().collect();
    let read = store.history(&ids, PUBLISHED_HISTORY).await?;
    if read.is_too_large {
        return Err(PublishError::unpublishable("the events of the order are too large"));
    }
    if !read.unreadable.is_empty() {
        // The facts of these events would be missing.
        return Err(PublishError::unpublishable("an event of the order cannot be read"));
    }
    // The events may name other orders too.
    let is_of_order = |state: &OrderState| {
        let id = state.order.get("id").and_then(|id| id.as_str());
        id.is_some_and(|id| OrderKey::of(&state.provider, &state.shop, id) == *order)
    };
    let Some(mut state) = read.history.states().into_values().find(is_of_order) else {
        // All events of the order were erased.
        return Ok(None);
    };
    state.version = Some(next.version);
    let message = publisher.state_message(&message_id(order, next.version), state, occasion)?;
    Ok(Some(message))
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
