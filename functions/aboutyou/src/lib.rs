//! The order webhooks of the ABOUT YOU Seller Center.
//!
//! How a delivery is signed is not documented, so a token in the URL authenticates it. An HMAC of the raw body can be
//! required in addition. The `timestamp` of the envelope is not checked for freshness: repeats arrive for 48 hours.

mod normalize;
mod orders_api;
mod payload;
mod subscribe;
mod unmapped;

use serde::Deserialize;
use shared::Provider;
use shared::answer::{Reason, Refusal};
use shared::delivery::Delivery;
use shared::identity::IdempotencyKey;
use shared::payload::Payload;
use shared::provider::{Identified, NoOrderEvent, Normalized, OrderPlace};
use shared::secrets::{HeaderName, Live, OptIn, SigningKey, Token};
use shared::settings::{SettingError, Settings};
use shared::verification::{Proof, Signature, Signed, Verified, hmac_sha256, url_token};
use tokio::time::Instant;

pub use orders_api::ApiCredentials;
pub use payload::Event;
pub use unmapped::UNMAPPED;

/// The provider ABOUT YOU.
pub struct AboutYou;

/// The secrets of one shop. An unknown field is an error: it may be a misspelt check that would silently stay off.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the fields are named as in the secret")]
pub struct Secrets {
    tokens: Live<Token>,
    /// If present, every delivery must also be signed with one of these.
    #[serde(default)]
    client_secrets: OptIn<SigningKey>,
    /// The name of the header that holds the signature.
    #[serde(default = "default_signature_header")]
    signature_header: HeaderName,
}

fn default_signature_header() -> HeaderName {
    HeaderName::from_static("x-signature")
}

impl Provider for AboutYou {
    const NAME: &'static str = "aboutyou";
    const UNMAPPED: &'static [&'static str] = &shared::drift::pointers::<{ UNMAPPED.len() }>(UNMAPPED);

    const ORDER: OrderPlace = OrderPlace {
        object: Some("message"),
        id: "order_number",
        items: "order_items",
    };

    type Secrets = Secrets;
    type Event = Event;

    fn from_settings(_: &Settings) -> Result<Self, SettingError> {
        Ok(Self)
    }

    async fn verify(&self, delivery: &Delivery, secrets: &Secrets, _: Instant) -> Result<Proof, Refusal> {
        let proof = url_token(delivery, &secrets.tokens)?;
        let Some(keys) = secrets.client_secrets.live() else {
            return Ok(proof);
        };
        let signature = delivery.header(secrets.signature_header.as_str());
        // The token is right, so this counts as wrong credentials of a known sender, which an alarm reports.
        let signature = signature.ok_or(Refusal::wrong_credentials("the signature is missing"))?;
        let signature = signature.strip_prefix("sha256=").unwrap_or(signature);
        let signature = Signature::from_hex_or_base64(signature)?;
        hmac_sha256(delivery, signature, Signed::default(), keys)
    }

    fn identify(&self, _: &Verified<Delivery>, payload: &Payload) -> Result<Identified<Event>, NoOrderEvent> {
        let root = payload.root();
        let word = root
            .text("event")
            .ok_or(NoOrderEvent::Quarantined(Reason::NoDiscriminator))?;
        if payload::is_unsupported(&word) {
            return Err(NoOrderEvent::Unsupported);
        }
        let event = Event::from_word(&word).ok_or(NoOrderEvent::Quarantined(Reason::UnknownEvent))?;
        let message = root.object("message");
        let is_complete = if event.is_about_items() {
            message.exist()
        } else {
            message.id("order_number").is_some()
        };
        if !is_complete {
            return Err(NoOrderEvent::Quarantined(Reason::NoOrderId));
        }
        let key = match (root.id("id"), event) {
            // `id` is null in some versions of the webhook.
            (None, _) => IdempotencyKey::Body,
            // Earlier versions of this function used the id alone. New orders keep that key, so that a repeat after
            // an upgrade does not create the order a second time.
            (Some(id), Event::OrderCreated) => IdempotencyKey::of([id]),
            // Whether two events can have the same id is not documented.
            (Some(id), _) => IdempotencyKey::of([word, id]),
        };
        Ok(Identified { event, key })
    }

    fn normalize(&self, event: Event, payload: &Payload) -> Normalized {
        normalize::normalize(event, payload)
    }
}
