//! The flow of a delivery, from the request to the answer, top to bottom.
//!
//! All steps share one deadline, 14.5 s after the invocation of the function: its timeout of 15 s, less the time for
//! the answer.
//!
//! | step | time limit |
//! |---|---|
//! | read the secret, if that is due | until 4 s before the deadline, in at most three attempts of 1.5 s |
//! | verify | until 4 s before the deadline; a call to Snipcart takes at most 5 s and is not begun with less than 1 s left |
//! | read the secret and verify again, if verification failed | the same |
//! | store | 4 s; until the deadline if the delivery can be verified only once, or is stored in parts |
//! | publish | 2 s, and at most until the deadline |
//! | mark as published | until the deadline |
//!
//! If less than 8 s are left, verification may take half of them.

use std::time::Duration;

use futures_util::future::{join, join3};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout, timeout_at};

use crate::alert::{Kind, Subject};
use crate::answer::{Outcome, Reason, Refusal, Unverified};
use crate::classify::{Classification, Classified, classify};
use crate::codes::Code;
use crate::delivery::{BodyLimit, Delivery};
use crate::drift::{Drift, Known, Reported};
use crate::event::OrderEvent;
use crate::http_event::HttpEvent;
use crate::identity::{EventId, Shop};
use crate::notes::Notes;
use crate::provider::{Provider, Verifies};
use crate::publisher::{Message, Occasion, PublishError, Publisher, Stored};
use crate::secrets::Secrets;
use crate::settings::{SettingError, Settings};
use crate::store::{
    AttemptId, Content, EventJson, Head, KeptConflict, NewEvent, Put, RetryPolicy, State, Store, StoreError,
};
use crate::verification::Verified;

/// How long init waits for connections. Lambda restarts a function whose init takes longer than 10 s.
const CONNECT_BUDGET: Duration = Duration::from_secs(2);
/// How long init waits for the secret.
const SECRET_BUDGET: Duration = Duration::from_secs(5);
const STORE_BUDGET: Duration = Duration::from_secs(4);
const PUBLISH_BUDGET: Duration = Duration::from_secs(2);
/// The interval at which a repeat checks whether the first attempt has published the event.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Receives the deliveries of one provider.
pub struct Receiver<P: Provider> {
    provider: P,
    secrets: Secrets<P::Secrets>,
    store: Store,
    publisher: Publisher,
    body_limit: BodyLimit,
    /// The fields that are known to stay in `unmapped`.
    known: Known,
    reported: Reported,
    notes: Notes,
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
    /// The differences between the payload and the mapping that this execution environment has not reported before.
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

impl<P: Provider> Receiver<P> {
    /// Creates a receiver. Makes no network calls.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        let limit = settings.parsed("MAX_BODY_BYTES", BodyLimit::DEFAULT, "a number of bytes")?;
        Ok(Self {
            provider: P::from_settings(settings)?,
            secrets: Secrets::from_settings(settings)?,
            store: Store::from_settings(settings)?,
            publisher: Publisher::from_settings(settings)?,
            body_limit: BodyLimit::new(limit),
            known: Known::new(P::UNMAPPED),
            reported: Reported::default(),
            notes: Notes::default(),
        })
    }

    /// Reads the secret and calls each service once, all at the same time, so that the first delivery need not wait for
    /// connections. An error is only logged: the first delivery meets it again.
    pub async fn prepare(&self) {
        let connect = join3(self.store.connect(), self.publisher.connect(), self.provider.connect());
        let secrets = self.secrets.prepare(Instant::now() + SECRET_BUDGET);
        let (secrets, connected) = join(secrets, timeout(CONNECT_BUDGET, connect)).await;
        if let Err(refusal) = secrets {
            tracing::error!(
                code = Code::SecretNotRead.as_str(),
                provider = P::NAME,
                secret = self.secret(),
                cause = %refusal,
                "the secret cannot be read yet"
            );
        }
        let cause = match connected {
            Ok((table, topic, ())) => table
                .err()
                .map(|error| error.to_string())
                .or(topic.err().map(|error| error.to_string())),
            Err(_) => Some("no answer in time".to_owned()),
        };
        if let Some(cause) = cause {
            tracing::warn!(
                code = Code::ServiceNotReached.as_str(),
                provider = P::NAME,
                cause,
                "a service does not answer yet"
            );
        }
    }

    /// The name of the secret: its ARN, or the variable that holds it.
    pub fn secret(&self) -> &str {
        self.secrets.name()
    }

    /// Whether the secret, as it was last read, names `shop`.
    pub(crate) fn knows(&self, shop: &Shop) -> bool {
        self.secrets.has_shop(shop)
    }

    /// Returns the faults that reads of the secret have found since the last call, one text for each read.
    pub fn secret_reports(&self) -> Vec<String> {
        let reports = self.secrets.reports();
        for cause in &reports {
            self.note_fault(None, cause);
        }
        reports
    }

    /// Notes that `shop` has sent a delivery, and the findings about it for alerts. Nothing is written yet.
    pub(crate) fn note(&self, shop: &Shop, received: &Result<Receipt, Refusal>) {
        let subject = |kind| Subject::new(kind, P::NAME, Some(shop));
        match received {
            Ok(receipt) => {
                self.notes.saw(shop);
                if !receipt.drift.is_empty() {
                    let drift = receipt.drift.iter();
                    let details = drift.map(|drift| format!("{} ({})", drift.pointer, drift.r#type));
                    self.notes.found(subject(Kind::Drift), receipt.id.as_str(), details);
                }
            }
            Err(Refusal::Unauthorized(Unverified::WrongCredentials(cause))) => {
                let details = [(*cause).to_owned()];
                self.notes.found(subject(Kind::WrongCredentials), "", details);
            }
            // Invented shop names must not create items. A fault of the secret as a whole concerns the provider.
            Err(Refusal::Misconfigured(cause)) => {
                let is_own = self.knows(shop) && self.secrets.is_usable(shop);
                self.note_fault(Some(shop).filter(|_| is_own), cause);
            }
            Err(_) => {}
        }
    }

    fn note_fault(&self, shop: Option<&Shop>, cause: &str) {
        let subject = Subject::new(Kind::Misconfigured, P::NAME, shop);
        self.notes.found(subject, "", [cause.to_owned()]);
    }

    /// Writes the notes that are due, if there is time before `deadline`.
    pub(crate) async fn write_notes(&self, deadline: Instant) {
        let silence_hours = |shop: &Shop| self.secrets.silence_hours(shop);
        self.notes.write(&self.store, P::NAME, silence_hours, deadline).await;
    }

    /// Receives a delivery: reads and verifies it, classifies it, stores it and publishes its event, until `deadline`
    /// at most.
    ///
    /// # Errors
    /// The refusal that the provider is answered if the delivery is not stored.
    pub async fn receive(&self, event: HttpEvent, deadline: Instant) -> Result<Receipt, Refusal> {
        let delivery = Delivery::read(event, P::METHODS, P::EVENT_PARAMETERS, self.body_limit)?;
        let mut delivery = self.verify(delivery, Self::verify_until(deadline)).await?;
        match self.process(&delivery, deadline).await {
            Err(Interrupted::InProgress(first)) => {
                delivery.count_as_received_at(first);
                self.process(&delivery, deadline).await.map_err(Refusal::from)
            }
            processed => processed.map_err(Refusal::from),
        }
    }

    /// Verifies a delivery with the live secrets. If that fails and the secrets have changed since they were read,
    /// verifies it again with the new ones, so that a rotation costs no delivery.
    async fn verify(&self, delivery: Delivery, until: Instant) -> Result<Verified<Delivery>, Refusal> {
        let secrets = self.secrets.of(delivery.shop(), until).await?;
        let first = match &secrets {
            Some(secrets) => self.provider.verify(&delivery, secrets, until).await,
            None => Err(Refusal::no_credentials("the shop is not configured")),
        };
        let proof = match first {
            Err(refusal @ (Refusal::Unauthorized(_) | Refusal::Misconfigured(_))) => {
                match self.secrets.changed(delivery.shop(), &secrets, until).await {
                    Some(secrets) => self.provider.verify(&delivery, &secrets, until).await?,
                    None => return Err(refusal),
                }
            }
            // A proof, or an outage, which says nothing about the secrets.
            other => other?,
        };
        Ok(Verified::new(delivery, proof))
    }

    /// Classifies a verified delivery and stores it. An order event is published too.
    async fn process(&self, delivery: &Verified<Delivery>, deadline: Instant) -> Result<Receipt, Interrupted> {
        let classified = classify(&self.provider, delivery, Some(&self.known));
        let Classified { id, order, drift, .. } = classified;
        let mut event_type = None;
        let (outcome, publication) = match classified.classification {
            Classification::Order(event) => {
                event_type = Some(event.r#type.as_str());
                self.process_order(&id, delivery, event, deadline).await?
            }
            Classification::Unsupported => {
                self.store_only(&id, delivery, Content::Unsupported, Outcome::Unsupported, deadline)
                    .await?
            }
            Classification::Quarantined(reason) => {
                let content = Content::Quarantined(reason, order.as_deref());
                self.store_only(&id, delivery, content, Outcome::Quarantined(reason), deadline)
                    .await?
            }
        };
        Ok(Receipt {
            id,
            event_type,
            outcome,
            publication,
            drift: self.reported.unreported(drift),
        })
    }

    /// Stores an order event, publishes it and marks it as published.
    async fn process_order(
        &self,
        id: &EventId,
        delivery: &Verified<Delivery>,
        mut event: Box<OrderEvent>,
        deadline: Instant,
    ) -> Result<Processed, Interrupted> {
        let json = EventJson::of(&event, self.publisher.limit());
        // A message is either the complete JSON or is made of the event without this field.
        event.data.unmapped = None;
        let new_event = NewEvent {
            id,
            provider: P::NAME,
            delivery,
            content: Content::Order(&event, &json),
        };
        let attempt = AttemptId::random();
        let policy = Self::retry_policy(deadline);
        let head = match self.store.put(&new_event, &attempt, policy).await? {
            Put::Stored => return Ok(self.publish_new(id, event, json, deadline).await),
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
                let publication = self.publish_stored(id, *head, &attempt, deadline).await;
                Ok((Outcome::Duplicate, publication))
            }
            // An earlier version of the mapping did not understand the delivery, and this one does.
            State::Quarantined | State::Unsupported => {
                if self.store.release(&new_event, &attempt, policy).await? {
                    Ok(self.publish_new(id, event, json, deadline).await)
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
        deadline: Instant,
    ) -> Result<Processed, Interrupted> {
        let new_event = NewEvent {
            id,
            provider: P::NAME,
            delivery,
            content,
        };
        let attempt = AttemptId::random();
        let outcome = match self
            .store
            .put(&new_event, &attempt, Self::retry_policy(deadline))
            .await?
        {
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
        let message = self.publisher.new_message(*event, json.into_text());
        let publication = self.publish(id, message, deadline).await;
        (Outcome::Accepted, publication)
    }

    /// Publishes an event that an earlier delivery has stored and not published.
    ///
    /// The earlier delivery may be publishing it at this moment, and two at once would publish it twice. So this waits
    /// until the event's lease ends, takes the event over and publishes it. If there is no time left for that, the
    /// event stays in the outbox.
    async fn publish_stored(&self, id: &EventId, head: Head, attempt: &AttemptId, deadline: Instant) -> Publication {
        let take_over_until = deadline.checked_sub(PUBLISH_BUDGET).unwrap_or(deadline);
        let cause = match timeout_at(take_over_until, self.take_over(id, head, attempt)).await {
            Ok(Ok(Some(stored))) => {
                let message = self.publisher.stored_message(stored, Occasion::First);
                return self.publish(id, message, deadline).await;
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

    /// Publishes an event and marks it as published. An error here delays the event but does not lose it: it is stored,
    /// and redrive publishes it.
    async fn publish(&self, id: &EventId, message: Result<Message, PublishError>, deadline: Instant) -> Publication {
        let until = deadline.min(Instant::now() + PUBLISH_BUDGET);
        let published = async { self.publisher.publish(message?).await };
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

    /// The time until which a delivery must be verified, so that there is time left to store it.
    fn verify_until(deadline: Instant) -> Instant {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        now + left.saturating_sub(STORE_BUDGET).max(left / 2)
    }

    /// How long a write is tried. A delivery that cannot be verified again must be stored now, and an event with parts
    /// takes longer to write: both may use all the time until the deadline.
    fn retry_policy(deadline: Instant) -> RetryPolicy {
        match P::VERIFIES {
            Verifies::AnyNumberOfTimes => RetryPolicy::new(deadline.min(Instant::now() + STORE_BUDGET), deadline),
            Verifies::Once => RetryPolicy::new(deadline, deadline).retrying_access_errors(),
        }
    }
}

/// Why a delivery is not stored.
enum Interrupted {
    /// The delivery is refused.
    Refused(Refusal),
    /// An earlier attempt, received at this time, has begun to store the same delivery in parts and has not finished.
    /// This attempt uses the earlier time of receipt, so that both write the same items and either can finish: see
    /// `store/parts.rs`.
    InProgress(Timestamp),
}

impl From<StoreError> for Interrupted {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<Interrupted> for Refusal {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::Refused(refusal) => refusal,
            Interrupted::InProgress(_) => Self::Unavailable("another attempt is storing the same delivery".to_owned()),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
