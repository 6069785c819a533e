//! `{"get":{...}}`: whole events, as they are stored. What a message had to leave out is here.

use serde::Deserialize;
use serde_json::{Value, json};
use shared::answer::Reason;
use shared::event::OrderEvent;
use shared::identity::EventId;
use shared::store::{Head, StoreError};

use crate::{Outbox, TaskError};

/// Which events: one by its id, or all of an order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    event_id: Option<String>,
    provider: Option<String>,
    shop: Option<String>,
    order: Option<String>,
}

impl Outbox {
    pub(crate) async fn get(&self, get: Get) -> Result<Value, TaskError> {
        let ids = match (get.event_id, get.provider, get.shop, get.order) {
            (Some(id), None, None, None) => {
                vec![EventId::parse(&id).ok_or_else(|| TaskError::NoTask("event_id is not 64 hex digits".to_owned()))?]
            }
            (None, Some(provider), Some(shop), Some(order)) => self.store.of_order(&provider, &shop, &order).await?,
            _ => {
                return Err(TaskError::NoTask(
                    "get takes event_id, or provider, shop and order".to_owned(),
                ));
            }
        };
        let mut events = Vec::with_capacity(ids.len());
        for ids in ids.chunks(25) {
            let mut heads = self.store.heads(ids).await?;
            // DynamoDB answers in an order of its own.
            heads.sort_by_key(|(id, _)| ids.iter().position(|wanted| wanted == id));
            for (id, head) in heads {
                events.push(self.describe(&id, &head).await?);
            }
        }
        Ok(json!({"events": events}))
    }

    async fn describe(&self, id: &EventId, head: &Head) -> Result<Value, TaskError> {
        let event = if head.has_event() {
            self.readable_event(id, head).await?
        } else {
            None
        };
        Ok(json!({
            "event_id": id,
            "state": head.state.as_str(),
            "reason": head.reason.map(Reason::as_str),
            "attempts": head.attempts,
            "event": event,
        }))
    }

    /// One that cannot be read hides no other.
    async fn readable_event(&self, id: &EventId, head: &Head) -> Result<Option<OrderEvent>, StoreError> {
        match self.store.event(id, head).await {
            Ok(stored) => Ok(Some(stored.event)),
            Err(error @ StoreError::Damaged(_)) => {
                tracing::error!(event_id = %id, cause = %error, "a stored event cannot be read");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
