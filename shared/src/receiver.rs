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
//! | store, publish, mark as published | see [`crate::intake`] |
//! | mark a subscription as ended | 4 s |
//!
//! If less than 8 s are left, verification may take half of them.

use std::time::Duration;

use futures_util::future::join;
use tokio::time::{Instant, timeout};

use crate::alert::{Kind, NOT_NOTED, Subject};
use crate::answer::{Refusal, Unverified};
use crate::codes::Code;
use crate::delivery::{BodyLimit, Delivery};
use crate::drift::{Known, Reported};
use crate::http_event::HttpEvent;
use crate::identity::Shop;
use crate::intake::{Intake, Receipt, STORE_BUDGET};
use crate::notes::Notes;
use crate::provider::{EndedSubscription, Provider};
use crate::secrets::Secrets;
use crate::settings::{SettingError, Settings};
use crate::store::{StoreError, SubscriptionKey};
use crate::verification::Verified;

/// How long init waits for connections. Lambda restarts a function whose init takes longer than 10 s.
const CONNECT_BUDGET: Duration = Duration::from_secs(2);
/// How long init waits for the secret.
const SECRET_BUDGET: Duration = Duration::from_secs(5);

/// Receives the deliveries of one provider.
pub struct Receiver<P: Provider> {
    provider: P,
    secrets: Secrets<P::Secrets>,
    intake: Intake,
    body_limit: BodyLimit,
    /// The fields that are known to stay in `unmapped`.
    known: Known,
    reported: Reported,
    notes: Notes,
}

impl<P: Provider> Receiver<P> {
    /// Creates a receiver. Makes no network calls.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        let limit = settings.parsed("MAX_BODY_BYTES", BodyLimit::DEFAULT, "a number of bytes")?;
        Ok(Self {
            provider: P::from_settings(settings)?,
            secrets: Secrets::from_settings(settings)?,
            intake: Intake::from_settings(settings)?,
            body_limit: BodyLimit::new(limit),
            known: Known::new(P::UNMAPPED),
            reported: Reported::default(),
            notes: Notes::default(),
        })
    }

    /// Reads the secret and calls each service once, all at the same time, so that the first delivery need not wait for
    /// connections. An error is only logged: the first delivery meets it again.
    pub async fn prepare(&self) {
        let connect = join(self.intake.connect(), self.provider.connect());
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
            Ok((cause, ())) => cause,
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
        self.notes
            .write(self.intake.store(), P::NAME, silence_hours, deadline)
            .await;
    }

    /// Receives a delivery: reads and verifies it, and passes it on to the [intake](crate::intake), which classifies and
    /// stores it and publishes its event, until `deadline` at most.
    ///
    /// # Errors
    /// The refusal that the provider is answered if the delivery is not stored.
    pub async fn receive(&self, event: HttpEvent, deadline: Instant) -> Result<Receipt, Refusal> {
        let delivery = Delivery::read(event, P::METHODS, P::event_parameters, self.body_limit)?;
        let mut delivery = self.verify(delivery, Self::verify_until(deadline)).await?;
        let taken = self
            .intake
            .take(&self.provider, Some(&self.known), &mut delivery, deadline);
        let receipt = taken.await?;
        if let Some(ended) = self.provider.ends_subscription(&delivery) {
            let marked = self.mark(delivery.shop(), &ended, deadline).await;
            // The finding is noted even if the mark fails: the provider may not repeat the delivery.
            let event = ended.event.map(|event| format!("{event}: ")).unwrap_or_default();
            let what = match marked {
                Ok(false) => NOT_NOTED,
                Ok(true) | Err(_) => "the subscription was ended",
            };
            let subject = Subject::new(Kind::Unsubscribed, P::NAME, Some(delivery.shop()));
            self.notes
                .found(subject, receipt.id.as_str(), [format!("{event}{what}")]);
            marked?;
        }
        Ok(Receipt {
            drift: self.reported.unreported(receipt.drift),
            ..receipt
        })
    }

    /// Marks a subscription that `reconcile` has made as ended, if it is the one that is noted. Returns false if it is not.
    /// A repeat of the delivery marks it too, in case the first attempt could not.
    async fn mark(&self, shop: &Shop, ended: &EndedSubscription, deadline: Instant) -> Result<bool, StoreError> {
        let (Some(event), Some(word)) = (ended.event, &ended.word) else {
            return Ok(false);
        };
        let key = SubscriptionKey {
            provider: P::NAME,
            shop,
            event,
        };
        let until = deadline.min(Instant::now() + STORE_BUDGET);
        self.intake.store().end_subscription(key, word, until).await
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

    /// The time until which a delivery must be verified, so that there is time left to store it.
    fn verify_until(deadline: Instant) -> Instant {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        now + left.saturating_sub(STORE_BUDGET).max(left / 2)
    }
}
