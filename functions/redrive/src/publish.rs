//! Publishing stored events.

use shared::identity::EventId;
use shared::published_state;
use shared::publisher::{Evidence, Fault, Message, Occasion, PublishError};
use shared::store::Head;
use tokio::time::Instant;

use crate::Outbox;

impl Outbox {
    /// Publishes stored events. Returns one result for each, in their order. Events that are not reached by `stop_at`
    /// get no result. An event that cannot be read does not hold up the others. Once another call is not worthwhile,
    /// no further event is tried.
    pub(crate) async fn publish(
        &self,
        events: &[(EventId, Head)],
        occasion: Occasion,
        stop_at: Instant,
        evidence: &Evidence,
    ) -> Vec<Result<(), PublishError>> {
        let mut results = Vec::with_capacity(events.len());
        let (mut chunk, mut size) = (Vec::new(), 0);
        // A page holds that much in memory, and one message more: no call to SNS takes more.
        let full = self.publisher.limit().bytes();
        let mut ended_by: Option<PublishError> = None;
        for (id, head) in events {
            // The chunk is empty then.
            if let Some(error) = &ended_by {
                results.push(Err(error.clone()));
                continue;
            }
            // One event is read at a time, however many pages are in hand: an event may be many times as large as its
            // message.
            let reading = self.reading.lock().await;
            if Instant::now() >= stop_at {
                break;
            }
            let message = self.message(id, head, occasion).await;
            drop(reading);
            let unreadable = match message {
                Ok(message) => {
                    size += message.size();
                    chunk.push(message);
                    None
                }
                Err(error) => Some(error),
            };
            if size >= full || unreadable.is_some() {
                results.extend(self.publisher.publish_all(std::mem::take(&mut chunk), evidence).await);
                size = 0;
                ended_by = results.last().and_then(|result| reason_to_stop(result, evidence));
            }
            if let Some(error) = unreadable {
                if is_of_all(&error) {
                    ended_by = Some(error.clone());
                }
                results.push(Err(error));
            }
        }
        results.extend(self.publisher.publish_all(chunk, evidence).await);
        if self.publisher.publishes_states() {
            self.publish_states(events, &mut results, occasion, stop_at).await;
        }
        results
    }

    /// Publishes the state of the order of each event that is published. If that fails, the event counts as not
    /// published. If the table fails or a service asks for fewer calls, so do the published events after it. The results
    /// end with the first event whose state is not reached by `stop_at`.
    async fn publish_states(
        &self,
        events: &[(EventId, Head)],
        results: &mut Vec<Result<(), PublishError>>,
        occasion: Occasion,
        stop_at: Instant,
    ) {
        let mut ended_by: Option<PublishError> = None;
        for (index, (id, head)) in events.iter().enumerate().take(results.len()) {
            let result = &mut results[index];
            let (Ok(()), Some(order)) = (&result, head.order_key()) else {
                continue;
            };
            if let Some(error) = &ended_by {
                *result = Err(error.clone());
                continue;
            }
            // One history is read at a time, as one event is.
            let reading = self.reading.lock().await;
            if Instant::now() >= stop_at {
                results.truncate(index);
                return;
            }
            let message = published_state::message(&self.store, &self.publisher, &order, id, occasion).await;
            drop(reading);
            *result = match message {
                Ok(Some(message)) => published_state::send(&self.publisher, id, message).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            ended_by = result.as_ref().err().filter(|error| is_of_all(error)).cloned();
        }
    }

    /// Reads a stored event and makes its message.
    async fn message(&self, id: &EventId, head: &Head, occasion: Occasion) -> Result<Message, PublishError> {
        match self.store.event(id, head).await {
            Ok(stored) => self.publisher.stored_message(stored, occasion),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether an error holds for the events after it too.
fn is_of_all(error: &PublishError) -> bool {
    matches!(error.fault, Fault::Store | Fault::Throttled)
}

/// The error of the events that are not tried after this result; `None` if the next one is tried.
fn reason_to_stop(result: &Result<(), PublishError>, evidence: &Evidence) -> Option<PublishError> {
    let error = result.as_ref().err()?;
    let stops = match error.fault {
        Fault::Unpublishable => false,
        Fault::Throttled | Fault::Store => true,
        Fault::Refused | Fault::Outage | Fault::Unclear => !evidence.is_worth_a_call(),
    };
    stops.then(|| PublishError {
        is_alone: false,
        ..error.clone()
    })
}
