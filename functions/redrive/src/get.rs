//! `{"get":{...}}`: whole events, as they are stored. What a message had to leave out is here.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::answer::Reason;
use shared::identity::EventId;
use shared::publisher::Stored;
use shared::store::{Head, StoreError, With};

use crate::{Outbox, TaskError, event_id};

/// What the events of one answer may come to, in bytes of JSON: Lambda returns 6 MB at most.
const ANSWER: usize = 5_000_000;

/// What an answer holds of an event beside the event itself.
const OVERHEAD: usize = 300;

/// Which events: one by its id, or all of an order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    event_id: Option<String>,
    provider: Option<String>,
    shop: Option<String>,
    order: Option<String>,
    /// Where an earlier answer was full.
    cursor: Option<Cursor>,
}

/// What is answered: as many events as an answer holds.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// Where to go on, unless it is done.
    cursor: Option<Cursor>,
    done: bool,
    events: Vec<Described>,
}

#[derive(Debug, Serialize)]
struct Described {
    attempts: u32,
    bytes: usize,
    /// The text as it is stored.
    event: Option<Box<RawValue>>,
    event_id: EventId,
    reason: Option<&'static str>,
    state: &'static str,
}

/// The event that was the last.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    after: EventId,
}

impl Outbox {
    pub(crate) async fn get(&self, get: Get) -> Result<Shown, TaskError> {
        let mut ids = match (get.event_id, get.provider, get.shop, get.order) {
            (Some(id), None, None, None) => {
                vec![event_id(&id)?]
            }
            (None, Some(provider), Some(shop), Some(order)) => self.store.of_order(&provider, &shop, &order).await?,
            _ => {
                return Err(TaskError::NoTask(
                    "get takes event_id, or provider, shop and order".to_owned(),
                ));
            }
        };
        if let Some(Cursor { after }) = get.cursor {
            let last = ids.iter().position(|id| *id == after);
            let last = last.ok_or_else(|| TaskError::NoTask("the cursor is of another get".to_owned()))?;
            ids.drain(..=last);
        }
        let expiry = self.store.expiry(Timestamp::now()).await?;
        let mut events = Vec::new();
        let (mut size, mut last) = (0, None);
        for ids in ids.chunks(10) {
            let mut heads = self.store.heads(ids, With::Event).await?;
            heads.retain(|(_, head)| !expiry.has_expired(head));
            // DynamoDB answers in an order of its own.
            heads.sort_by_key(|(id, _)| ids.iter().position(|wanted| wanted == id));
            for (id, head) in heads {
                let (event, bytes) = self.describe(&id, &head).await?;
                size += bytes;
                if let Some(after) = last.take_if(|_| size > ANSWER) {
                    return Ok(Shown {
                        cursor: Some(Cursor { after }),
                        done: false,
                        events,
                    });
                }
                events.push(event);
                last = Some(id);
            }
        }
        Ok(Shown {
            cursor: None,
            done: true,
            events,
        })
    }

    /// An event, and how many bytes it adds to the answer.
    async fn describe(&self, id: &EventId, head: &Head) -> Result<(Described, usize), TaskError> {
        let stored = if head.has_event() {
            self.readable_event(id, head).await?
        } else {
            None
        };
        let bytes = stored.as_ref().map_or(0, |stored| stored.json.len());
        // Many tiny items become an event that is larger than any answer; it is left to whoever reads the table.
        let event = stored.filter(|_| bytes <= ANSWER).map(|stored| stored.json);
        let event = event.map(RawValue::from_string).transpose();
        let event = event.map_err(|_| StoreError::Damaged("event"))?;
        let size = event.as_ref().map_or(0, |_| bytes) + OVERHEAD;
        let described = Described {
            attempts: head.attempts,
            bytes,
            event,
            event_id: id.clone(),
            reason: head.reason.map(Reason::as_str),
            state: head.state.as_str(),
        };
        Ok((described, size))
    }

    /// One that cannot be read hides no other.
    async fn readable_event(&self, id: &EventId, head: &Head) -> Result<Option<Stored>, StoreError> {
        match self.store.event(id, head).await {
            Ok(stored) => Ok(Some(stored)),
            Err(error @ StoreError::Damaged(_)) => {
                tracing::error!(event_id = %id, cause = %error, "a stored event cannot be read");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
