//! The way of a delivery, from the request to the answer, top to bottom.
//!
//! All of it has one deadline, 14.5 s after the function was invoked (its timeout of 15 s, less the time for the answer):
//!
//! | step | time |
//! |---|---|
//! | read the secret, if that is due | until 4 s before the deadline, in three tries of 1.5 s at most |
//! | verify; Snipcart is asked | until 4 s before the deadline, 5 s at most; Snipcart is not asked with less than 1 s left |
//! | read the secret again and verify again, if the first failed | the same |
//! | store | 4 s; until the deadline where a delivery can be verified only once |
//! | publish | 2 s, and until the deadline at most |
//! | mark as published | until the deadline |
//!
//! Where the deadline is closer than storing takes, verification has half of the time.

use std::time::Duration;

use futures_util::future::{join, join3};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout, timeout_at};

use crate::alert::{Kind, Subject};
use crate::answer::{Outcome, Reason, Refusal, Unverified};
use crate::classify::{Classification, Classified, classify};
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

/// How long init waits for connections. A function that cannot be set up in 10 s is started again by Lambda.
const CONNECT_BUDGET: Duration = Duration::from_secs(2);
/// How long init waits for the secret.
const SECRET_BUDGET: Duration = Duration::from_secs(5);
const STORE_BUDGET: Duration = Duration::from_secs(4);
const PUBLISH_BUDGET: Duration = Duration::from_secs(2);
/// How often a repeat looks whether the first attempt has published.
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

/// An event and what became of its delivery.
pub struct Receipt {
    /// The event's id.
    pub id: EventId,
    /// Its type, if it is an order event.
    pub event_type: Option<&'static str>,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether its event waits.
    pub publication: Publication,
    /// Where its payload is not as the mapping knows it, as far as this execution environment has not reported it before.
    pub drift: Vec<Drift>,
}

/// What became of an event's publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// This delivery leaves nothing to be published.
    Settled,
    /// This delivery could not publish the event: it waits in the outbox.
    Waits,
}

impl<P: Provider> Receiver<P> {
    /// Sets everything up. Nothing is asked of the network yet.
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

    /// Does ahead what the first delivery would pay for: reads the secrets, and calls each service that it will call, all at once.
    /// What fails here is found again there.
    pub async fn prepare(&self) {
        let connect = join3(self.store.connect(), self.publisher.connect(), self.provider.connect());
        let secrets = self.secrets.prepare(Instant::now() + SECRET_BUDGET);
        let (secrets, connected) = join(secrets, timeout(CONNECT_BUDGET, connect)).await;
        if let Err(refusal) = secrets {
            tracing::error!(provider = P::NAME, secret = self.secret(), cause = %refusal, "the secret cannot be read yet");
        }
        let cause = match connected {
            Ok((table, topic, ())) => table
                .err()
                .map(|error| error.to_string())
                .or(topic.err().map(|error| error.to_string())),
            Err(_) => Some("no answer in time".to_owned()),
        };
        if let Some(cause) = cause {
            tracing::warn!(provider = P::NAME, cause, "a service does not answer yet");
        }
    }

    /// What the operator knows the secret by.
    pub fn secret(&self) -> &str {
        self.secrets.name()
    }

    /// Whether the secret names `shop`, as far as it was read.
    pub(crate) fn knows(&self, shop: &Shop) -> bool {
        self.secrets.has_shop(shop)
    }

    /// What reads of the secret have found to be wrong with it since this was asked last, one text for each read.
    pub fn secret_reports(&self) -> Vec<String> {
        let reports = self.secrets.reports();
        for cause in &reports {
            self.note_fault(None, cause);
        }
        reports
    }

    /// Notes what a delivery for `shop` has shown that operators are alerted to. Nothing is written yet.
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
            // Whoever invents names of shops must not create items. A fault of the secret itself is its provider's.
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

    /// Writes the notes that are due, if there is time before `deadline`. No delivery depends on it.
    pub(crate) async fn write_notes(&self, deadline: Instant) {
        let silence_hours = |shop: &Shop| self.secrets.silence_hours(shop);
        self.notes.write(&self.store, P::NAME, silence_hours, deadline).await;
    }

    /// Takes a delivery the whole way, until `deadline` at most.
    ///
    /// # Errors
    /// Where it is not kept: what the provider is answered then.
    pub async fn receive(&self, event: HttpEvent, deadline: Instant) -> Result<Receipt, Refusal> {
        let delivery = Delivery::read(event, P::METHODS, P::EVENT_PARAMETERS, self.body_limit)?;
        let mut delivery = self.verify(delivery, Self::verify_until(deadline)).await?;
        match self.process(&delivery, deadline).await {
            Err(Interrupted::InProgress(first)) => {
                delivery.count_as_received_at(first);
                self.process(&delivery, deadline).await.map_err(Refusal::from)
            }
            kept => kept.map_err(Refusal::from),
        }
    }

    /// Understands a delivery, stores it and publishes its event.
    async fn process(&self, delivery: &Verified<Delivery>, deadline: Instant) -> Result<Receipt, Interrupted> {
        let Classified {
            id,
            classification,
            drift,
            order,
            ..
        } = classify(&self.provider, delivery, Some(&self.known));
        let (event_type, (outcome, publication)) = match classification {
            Classification::Order(event) => (
                Some(event.r#type.as_str()),
                self.process_order(&id, delivery, event, deadline).await?,
            ),
            Classification::Unsupported => (
                None,
                self.store_only(&id, delivery, Content::Unsupported, deadline).await?,
            ),
            Classification::Quarantined(reason) => (
                None,
                self.store_only(&id, delivery, Content::Quarantined(reason, order.as_deref()), deadline)
                    .await?,
            ),
        };
        Ok(Receipt {
            id,
            event_type,
            outcome,
            publication,
            drift: self.reported.news(drift),
        })
    }

    /// Verifies with the live secrets; after a failure once more, if they have changed: a rotation costs no delivery.
    async fn verify(&self, delivery: Delivery, until: Instant) -> Result<Verified<Delivery>, Refusal> {
        let unknown = Refusal::no_credentials("the shop is not configured");
        let secrets = self.secrets.of(delivery.shop(), until).await?;
        let first = match &secrets {
            Some(secrets) => self.provider.verify(&delivery, secrets, until).await,
            None => Err(unknown),
        };
        let proof = match first {
            // An outage says nothing about the secrets.
            Err(refusal @ (Refusal::Unauthorized(_) | Refusal::Misconfigured(_))) => {
                match self.secrets.changed(delivery.shop(), &secrets, until).await {
                    Some(secrets) => self.provider.verify(&delivery, &secrets, until).await?,
                    None => return Err(refusal),
                }
            }
            other => other?,
        };
        Ok(Verified::new(delivery, proof))
    }

    /// Store, publish, mark.
    async fn process_order(
        &self,
        id: &EventId,
        delivery: &Verified<Delivery>,
        mut event: Box<OrderEvent>,
        deadline: Instant,
    ) -> Result<(Outcome, Publication), Interrupted> {
        let json = EventJson::of(&event, self.publisher.limit());
        // A message holds all of the JSON or, without this, a part of the event.
        event.data.unmapped = None;
        let new_event = NewEvent {
            id,
            provider: P::NAME,
            delivery,
            content: Content::Order(&event, &json),
        };
        let attempt = AttemptId::random();
        let policy = Self::policy(deadline);
        match self.store.put(&new_event, &attempt, policy).await? {
            Put::Stored => {}
            Put::InProgress(first) => return Err(Interrupted::InProgress(first)),
            // What was erased on request is not kept again, under whatever body; nor is what has expired.
            Put::Existing(head) if self.store.has_expired(&head, Timestamp::now()) => {
                return Ok((Outcome::Duplicate, Publication::Settled));
            }
            Put::Existing(head) if head.state != State::Erased && !head.has_body(delivery.body()) => {
                let outcome = match self.store.put_conflict(&new_event, policy).await? {
                    KeptConflict::Kept => Outcome::Quarantined(Reason::Conflict),
                    KeptConflict::Erased => Outcome::Duplicate,
                };
                return Ok((outcome, Publication::Settled));
            }
            Put::Existing(head) => match head.state {
                State::Pending => {
                    let publication = self.publish_stored(id, *head, &attempt, deadline).await;
                    return Ok((Outcome::Duplicate, publication));
                }
                State::Published | State::Failed | State::Superseded | State::Erased => {
                    return Ok((Outcome::Duplicate, Publication::Settled));
                }
                // It is understood now, whatever it was taken for before.
                State::Quarantined | State::Unsupported => {
                    if !self.store.release(&new_event, &attempt, policy).await? {
                        return Ok((Outcome::Duplicate, Publication::Settled));
                    }
                }
            },
        }
        let message = self.publisher.new_message(*event, json.into_text());
        let publication = self.publish(id, message, deadline).await;
        Ok((Outcome::Accepted, publication))
    }

    /// Keeps what is not published.
    async fn store_only(
        &self,
        id: &EventId,
        delivery: &Verified<Delivery>,
        content: Content<'_>,
        deadline: Instant,
    ) -> Result<(Outcome, Publication), Interrupted> {
        let outcome_of_new = match content {
            Content::Quarantined(reason, _) => Outcome::Quarantined(reason),
            _ => Outcome::Unsupported,
        };
        let new_event = NewEvent {
            id,
            provider: P::NAME,
            delivery,
            content,
        };
        let outcome = match self
            .store
            .put(&new_event, &AttemptId::random(), Self::policy(deadline))
            .await?
        {
            Put::Stored => outcome_of_new,
            Put::InProgress(first) => return Err(Interrupted::InProgress(first)),
            Put::Existing(head) if self.store.has_expired(&head, Timestamp::now()) => Outcome::Duplicate,
            Put::Existing(head) => match (head.state, head.reason) {
                (State::Quarantined, Some(reason)) => Outcome::Quarantined(reason),
                (State::Quarantined, None) => outcome_of_new,
                (State::Unsupported, _) => Outcome::Unsupported,
                _ => Outcome::Duplicate,
            },
        };
        Ok((outcome, Publication::Settled))
    }

    /// Publishes an event that an earlier delivery stored and has not published.
    ///
    /// That delivery may be at it just now, so its lease is waited for: two at once would publish twice. Whoever takes
    /// the event over then publishes it; if there is no time left for that, it stays in the outbox.
    async fn publish_stored(&self, id: &EventId, head: Head, attempt: &AttemptId, deadline: Instant) -> Publication {
        let before = deadline.checked_sub(PUBLISH_BUDGET).unwrap_or(deadline);
        let cause = match timeout_at(before, self.take_over(id, head, attempt)).await {
            Ok(Ok(Some(stored))) => {
                let message = self.publisher.stored_message(stored, Occasion::First);
                return self.publish(id, message, deadline).await;
            }
            Ok(Ok(None)) => return Publication::Settled,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no time left".to_owned(),
        };
        tracing::warn!(event_id = %id, cause, "the stored event stays in the outbox");
        Publication::Waits
    }

    /// Waits until nobody else publishes the event; `None` where somebody has, or will.
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

    /// Publishes and marks. What goes wrong here costs time, not the event: it is stored, and waits in the outbox.
    async fn publish(&self, id: &EventId, message: Result<Message, PublishError>, deadline: Instant) -> Publication {
        let until = deadline.min(Instant::now() + PUBLISH_BUDGET);
        let published = async { self.publisher.publish(message?).await };
        let cause = match timeout_at(until, published).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        if let Some(cause) = cause {
            tracing::error!(event_id = %id, cause, "the event is not published yet and stays in the outbox");
            return Publication::Waits;
        }
        let cause = match timeout_at(deadline, self.store.mark_published(id)).await {
            Ok(Ok(_)) => return Publication::Settled,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(event_id = %id, cause, "the event is published and not marked; it will be published again");
        Publication::Settled
    }

    /// Until when a delivery must be verified, so that there is time left to store it.
    fn verify_until(deadline: Instant) -> Instant {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        now + left.saturating_sub(STORE_BUDGET).max(left / 2)
    }

    /// How long a write is tried. What cannot be verified again must be stored now, and what is large takes its time: both have
    /// all the time there is.
    fn policy(deadline: Instant) -> RetryPolicy {
        match P::VERIFIES {
            Verifies::AnyNumberOfTimes => RetryPolicy::new(deadline.min(Instant::now() + STORE_BUDGET), deadline),
            Verifies::Once => RetryPolicy::new(deadline, deadline).retrying_access_errors(),
        }
    }
}

/// Why a delivery is not kept.
enum Interrupted {
    /// The provider is answered this.
    Refused(Refusal),
    /// An earlier try has begun to store the same delivery, received at this time. This one goes on as if it were that one.
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
            Interrupted::InProgress(_) => Self::Unavailable("another try stores the same delivery".to_owned()),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
