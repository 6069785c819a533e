//! The flow of a delivery after its verification: it is classified and stored, and its event is published.
//!
//! The [receiver](crate::receiver) of a provider passes each verified delivery on to it, and reconciliation each order
//! that it finds missing.
//!
//! | step | time limit |
//! |---|---|
//! | store | 4 s; until the deadline if the delivery can be verified only once, or is stored in parts |
//! | publish | 2 s, and 2 s more for the state of the order if it is published too, and at most until the deadline |
//! | mark as published | until the deadline |

use std::time::Duration;

use futures_util::future::join;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout_at};

use crate::answer::{Outcome, Reason, Refusal};
use crate::classify::{Classification, Classified, classify};
use crate::codes::Code;
use crate::delivery::Delivery;
use crate::drift::{Drift, Known};
use crate::event::OrderEvent;
use crate::identity::EventId;
use crate::provider::{Provider, Verifies};
use crate::published_state;
use crate::publisher::{Message, Occasion, PublishError, Publisher, Stored};
use crate::settings::{SettingError, Settings};
use crate::store::{
    AT_ONCE, AttemptId, Content, EventJson, Head, KeptConflict, NewEvent, OrderKey, Put, RetryPolicy, State, Store,
    StoreError,
};
use crate::verification::Verified;

pub(crate) const STORE_BUDGET: Duration = Duration::from_secs(4);
const PUBLISH_BUDGET: Duration = Duration::from_secs(2);
const STATE_BUDGET: Duration = Duration::from_secs(2);
/// The interval at which a repeat checks whether the first attempt has published the event.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Stores verified deliveries and publishes their events.
pub struct Intake {
    store: Store,
    publisher: Publisher,
}

/// The result of a delivery that is stored.
pub struct Receipt {
    /// The id of the event.
    pub id: EventId,
    /// The type of the event, if it is an order event.
    pub event_type: Option<&'static str>,
    /// The outcome, which the provider is answered.
    pub outcome: Outcome,
    /// Whether the event waits in the outbox.
    pub publication: Publication,
    /// The differences between the payload and the mapping.
    pub drift: Vec<Drift>,
}

/// Whether a delivery leaves an event to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// Nothing is left to be published by this delivery.
    Settled,
    /// This delivery could not publish the event, which waits in the outbox.
    Waits,
}

/// The outcome of a delivery, and whether its event waits in the outbox.
type Processed = (Outcome, Publication);

/// The origin of a delivery, and the time until which it is stored and published.
#[derive(Clone, Copy)]
struct Terms {
    provider: &'static str,
    verifies: Verifies,
    deadline: Instant,
}

impl Intake {
    /// Stores in the table that `TABLE_NAME` names, and publishes to the topic that `TOPIC_ARN` names.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store: Store::from_settings(settings)?,
            publisher: Publisher::from_settings(settings)?,
        })
    }

    /// The same, for a function that also reads what is known of many orders.
    pub fn for_many_orders(settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            store: Store::with_connections(settings, AT_ONCE)?,
            publisher: Publisher::from_settings(settings)?,
        })
    }

    /// The table.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Calls the table and the topic once, both at the same time, to open connections. Returns the cause if one of them
    /// does not answer. The first delivery meets an error again.
    pub async fn connect(&self) -> Option<String> {
        let (table, topic) = join(self.store.connect(), self.publisher.connect()).await;
        let of_table = table.err().map(|error| error.to_string());
        of_table.or(topic.err().map(|error| error.to_string()))
    }

    /// Classifies a verified delivery and stores it, until `deadline` at most. An order event is published too.
    ///
    /// `known` are the provider's fields that are known to stay in `unmapped`. With them, drift is reported too.
    ///
    /// # Errors
    /// If the delivery is not stored.
    pub async fn take<P: Provider>(
        &self,
        provider: &P,
        known: Option<&Known>,
        delivery: &mut Verified<Delivery>,
        deadline: Instant,
    ) -> Result<Receipt, NotStored> {
        let terms = Terms {
            provider: P::NAME,
            // The next run finds a reconciled order again.
            verifies: match delivery.reconciled() {
                Some(_) => Verifies::AnyNumberOfTimes,
                None => P::VERIFIES,
            },
            deadline,
        };
        let classified = classify(provider, delivery, known);
        let id = classified.id.clone();
        let mut processed = self.process(delivery, classified, terms).await;
        if let Err(Interrupted::InProgress(first)) = processed {
            delivery.count_as_received_at(first);
            let classified = classify(provider, delivery, known);
            processed = self.process(delivery, classified, terms).await;
        }
        processed.map_err(|interrupted| match interrupted {
            Interrupted::Failed(StoreError::Corrupt(attribute)) => NotStored::Corrupt(id, attribute),
            Interrupted::Failed(error) => NotStored::Refused(error.into()),
            Interrupted::InProgress(_) => NotStored::Refused(Refusal::Unavailable(
                "another attempt is storing the same delivery".to_owned(),
            )),
        })
    }

    /// Stores a classified delivery. An order event is published too.
    async fn process(
        &self,
        delivery: &Verified<Delivery>,
        classified: Classified,
        terms: Terms,
    ) -> Result<Receipt, Interrupted> {
        let Classified { id, order, drift, .. } = classified;
        let mut event_type = None;
        let (outcome, publication) = match classified.classification {
            Classification::Order(event) => {
                event_type = Some(event.r#type.as_str());
                self.process_order(&id, delivery, event, terms).await?
            }
            Classification::Unsupported => {
                self.store_only(&id, delivery, Content::Unsupported, Outcome::Unsupported, terms)
                    .await?
            }
            Classification::Quarantined(reason) => {
                let content = Content::Quarantined(reason, order.as_deref());
                self.store_only(&id, delivery, content, Outcome::Quarantined(reason), terms)
                    .await?
            }
        };
        Ok(Receipt {
            id,
            event_type,
            outcome,
            publication,
            drift,
        })
    }

    /// Stores an order event, publishes it and marks it as published.
    async fn process_order(
        &self,
        id: &EventId,
        delivery: &Verified<Delivery>,
        mut event: Box<OrderEvent>,
        terms: Terms,
    ) -> Result<Processed, Interrupted> {
        let json = EventJson::of(&event, self.publisher.limit());
        // A message is either the complete JSON or is made of the event without this field.
        event.data.unmapped = None;
        let new_event = NewEvent {
            id,
            provider: terms.provider,
            delivery,
            content: Content::Order(&event, &json),
        };
        let attempt = AttemptId::random();
        let policy = terms.retry_policy();
        let head = match self.store.put(&new_event, &attempt, policy).await? {
            Put::Stored => return Ok(self.publish_new(id, event, json, terms.deadline).await),
            Put::InProgress(first) => return Err(Interrupted::InProgress(first)),
            Put::Existing(head) => head,
        };
        // An event that was erased or has expired is not stored again, whatever its body is.
        if head.state == State::Erased || self.store.has_expired(&head, Timestamp::now()) {
            return Ok((Outcome::Duplicate, Publication::Settled));
        }
        if !head.has_body(delivery.body()) {
            return self.store_conflict(&new_event, policy).await;
        }
        match head.state {
            State::Pending => {
                let publication = self.publish_stored(id, *head, &attempt, terms.deadline).await;
                Ok((Outcome::Duplicate, publication))
            }
            // An earlier version of the mapping did not understand the delivery, and this one does.
            State::Quarantined | State::Unsupported => {
                if self.store.release(&new_event, &attempt, policy).await? {
                    Ok(self.publish_new(id, event, json, terms.deadline).await)
                } else {
                    Ok((Outcome::Duplicate, Publication::Settled))
                }
            }
            State::Published | State::Failed | State::Superseded | State::Erased => {
                Ok((Outcome::Duplicate, Publication::Settled))
            }
        }
    }

    /// Stores another body for an event that is stored already.
    async fn store_conflict(&self, new_event: &NewEvent<'_>, policy: RetryPolicy) -> Result<Processed, Interrupted> {
        let outcome = match self.store.put_conflict(new_event, policy).await? {
            KeptConflict::Kept => Outcome::Quarantined(Reason::Conflict),
            KeptConflict::Erased => Outcome::Duplicate,
        };
        Ok((outcome, Publication::Settled))
    }

    /// Stores a delivery that has nothing to publish. A repeat gets the stored outcome, or `duplicate` if the stored
    /// delivery has been reprocessed since.
    async fn store_only(
        &self,
        id: &EventId,
        delivery: &Verified<Delivery>,
        content: Content<'_>,
        outcome_of_new: Outcome,
        terms: Terms,
    ) -> Result<Processed, Interrupted> {
        let new_event = NewEvent {
            id,
            provider: terms.provider,
            delivery,
            content,
        };
        let attempt = AttemptId::random();
        let outcome = match self.store.put(&new_event, &attempt, terms.retry_policy()).await? {
            Put::Stored => outcome_of_new,
            Put::InProgress(first) => return Err(Interrupted::InProgress(first)),
            Put::Existing(head) if self.store.has_expired(&head, Timestamp::now()) => Outcome::Duplicate,
            Put::Existing(head) => match head.state {
                State::Quarantined => head.reason.map_or(outcome_of_new, Outcome::Quarantined),
                State::Unsupported => Outcome::Unsupported,
                _ => Outcome::Duplicate,
            },
        };
        Ok((outcome, Publication::Settled))
    }

    /// Publishes an event that this delivery has stored.
    async fn publish_new(&self, id: &EventId, event: Box<OrderEvent>, json: EventJson, deadline: Instant) -> Processed {
        let order = event
            .data
            .order
            .id
            .as_ref()
            .filter(|_| self.publisher.publishes_states());
        let order = order.map(|order| OrderKey::of(&event.data.provider, &event.data.shop, order));
        let message = self.publisher.new_message(*event, json.into_text());
        let publication = self.publish(id, message, order, deadline).await;
        (Outcome::Accepted, publication)
    }

    /// Publishes an event that an earlier delivery has stored and not published.
    ///
    /// The earlier delivery may be publishing it at this moment, and two at once would publish it twice. So this waits
    /// until the event's lease ends, takes the event over and publishes it. If there is no time left for that, the
    /// event stays in the outbox.
    async fn publish_stored(&self, id: &EventId, head: Head, attempt: &AttemptId, deadline: Instant) -> Publication {
        let take_over_until = deadline.checked_sub(PUBLISH_BUDGET).unwrap_or(deadline);
        let order = head.order_key().filter(|_| self.publisher.publishes_states());
        let cause = match timeout_at(take_over_until, self.take_over(id, head, attempt)).await {
            Ok(Ok(Some(stored))) => {
                let message = self.publisher.stored_message(stored, Occasion::First);
                return self.publish(id, message, order, deadline).await;
            }
            Ok(Ok(None)) => return Publication::Settled,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no time left".to_owned(),
        };
        tracing::warn!(
            code = Code::EventNotPublished.as_str(),
            event_id = %id,
            cause,
            "the stored event stays in the outbox"
        );
        Publication::Waits
    }

    /// Waits until no other attempt is publishing the event, and takes it over. Returns `None` if the event is
    /// published by then, or if redrive has put it off and will publish it.
    async fn take_over(&self, id: &EventId, mut head: Head, attempt: &AttemptId) -> Result<Option<Stored>, StoreError> {
        while head.state == State::Pending && !head.is_put_off() {
            let lease = head
                .leased_until()
                .map_or(SignedDuration::ZERO, |until| until.duration_since(Timestamp::now()));
            if lease.is_positive() {
                let wait = Duration::try_from(lease).unwrap_or_default();
                tokio::time::sleep(wait.min(LOOK_AGAIN_AFTER)).await;
            } else if self.store.take_over(id, &head, attempt).await? {
                return self.store.event(id, &head).await.map(Some);
            }
            head = self.store.head(id).await?;
        }
        Ok(None)
    }

    /// Publishes an event, and the state of `order` if it is given, and marks the event as published. An error here delays
    /// the event but does not lose it: it is stored, and redrive publishes it.
    async fn publish(
        &self,
        id: &EventId,
        message: Result<Message, PublishError>,
        order: Option<OrderKey>,
        deadline: Instant,
    ) -> Publication {
        let budget = PUBLISH_BUDGET + order.as_ref().map_or(Duration::ZERO, |_| STATE_BUDGET);
        let until = deadline.min(Instant::now() + budget);
        let published = async {
            self.publisher.publish(message?).await?;
            if let Some(order) = order {
                let state = published_state::publish(&self.store, &self.publisher, &order, id, Occasion::First);
                // Boxed, because this future is large.
                Box::pin(state).await?;
            }
            Ok::<_, PublishError>(())
        };
        let cause = match timeout_at(until, published).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        if let Some(cause) = cause {
            tracing::error!(
                code = Code::EventNotPublished.as_str(),
                event_id = %id,
                cause,
                "the event is not published yet and stays in the outbox"
            );
            return Publication::Waits;
        }
        let cause = match timeout_at(deadline, self.store.mark_published(id)).await {
            Ok(Ok(_)) => return Publication::Settled,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(
            code = Code::EventNotMarked.as_str(),
            event_id = %id,
            cause,
            "the event is published but not marked; it will be published again"
        );
        Publication::Settled
    }
}

impl Terms {
    /// How long a write is tried. A delivery that cannot be verified again must be stored now, and an event with parts
    /// takes longer to write: both may use all the time until the deadline.
    fn retry_policy(self) -> RetryPolicy {
        let deadline = self.deadline;
        match self.verifies {
            Verifies::AnyNumberOfTimes => RetryPolicy::new(deadline.min(Instant::now() + STORE_BUDGET), deadline),
            Verifies::Once => RetryPolicy::new(deadline, deadline).retrying_access_errors(),
        }
    }
}

/// Why a delivery is not stored.
pub enum NotStored {
    /// An item of this event exists, and this attribute of it is not as this project writes it.
    Corrupt(EventId, &'static str),
    /// The delivery is refused.
    Refused(Refusal),
}

impl From<NotStored> for Refusal {
    fn from(cause: NotStored) -> Self {
        match cause {
            NotStored::Corrupt(_, attribute) => StoreError::Corrupt(attribute).into(),
            NotStored::Refused(refusal) => refusal,
        }
    }
}

/// Why the processing of a delivery ends early.
enum Interrupted {
    /// The table cannot be used.
    Failed(StoreError),
    /// An earlier attempt, received at this time, has begun to store the same delivery in parts and has not finished.
    /// This attempt uses the earlier time of receipt, so that both write the same items and either can finish: see
    /// `store/parts.rs`.
    InProgress(Timestamp),
}

impl From<StoreError> for Interrupted {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
