//! ABOUT YOU Seller Center's order webhooks.
//!
//! Which signature comes with a delivery is not documented, so the URL carries a token; an HMAC over the raw body can be
//! demanded in addition. The envelope's `timestamp` is no proof of freshness: repeats come for 48 hours.

mod normalize;
mod payload;
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

pub use payload::Event;
pub use unmapped::UNMAPPED;

/// ABOUT YOU Seller Center.
pub struct AboutYou;

/// What one shop is verified with. A misspelt name is refused: it might have switched a check on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the fields are named as in the secret")]
pub struct Secrets {
    tokens: Live<Token>,
    /// Where given, every delivery must be signed with one of these too.
    #[serde(default)]
    client_secrets: OptIn<SigningKey>,
    /// The header with the signature.
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
        // The token was right, so this is no stranger's request.
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
        if payload::is_no_order_event(&word) {
            return Err(NoOrderEvent::Unsupported);
        }
        let event = Event::from_word(&word).ok_or(NoOrderEvent::Quarantined(Reason::UnknownEvent))?;
        let message = root.object("message");
        // The events of items name no order.
        let names_its_subject = match event {
            Event::OrderCreated | Event::OrderUpdated => message.id("order_number").is_some(),
            Event::ItemsShipped | Event::ItemsCancelled | Event::ItemsReturned => message.exist(),
        };
        if !names_its_subject {
            return Err(NoOrderEvent::Quarantined(Reason::NoOrderId));
        }
        let key = match (root.id("id"), event) {
            // Other versions of the webhook have no `id`.
            (None, _) => IdempotencyKey::Body,
            // Versions before this one took the id alone for the identity. It stays so for new orders: a repeat that comes after an
            // upgrade is then no second order.
            (Some(id), Event::OrderCreated) => IdempotencyKey::of([id]),
            // Whether two events may have the same id is not documented.
            (Some(id), _) => IdempotencyKey::of([word, id]),
        };
        Ok(Identified { event, key })
    }

    fn normalize(&self, event: Event, payload: &Payload) -> Normalized {
        normalize::normalize(event, payload)
    }
}
