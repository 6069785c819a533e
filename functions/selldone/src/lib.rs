//! Selldone's `OnlineOrder` webhook.
//!
//! Selldone documents no signature, so a token in the URL authenticates a delivery. The payload has no event id, so a
//! repeat is recognized by its body.

mod normalize;
mod orders_api;
mod payload;
mod unmapped;

use serde::Deserialize;
use shared::Provider;
use shared::answer::{Reason, Refusal};
use shared::delivery::Delivery;
use shared::identity::IdempotencyKey;
use shared::payload::Payload;
use shared::provider::{Identified, NoOrderEvent, Normalized, OrderPlace};
use shared::secrets::{Live, Token};
use shared::settings::{SettingError, Settings};
use shared::verification::{Proof, Verified, url_token};
use tokio::time::Instant;

pub use orders_api::ApiCredentials;
pub use payload::Event;
pub use unmapped::UNMAPPED;

/// The provider Selldone.
pub struct Selldone;

/// The secrets of one shop. An unknown field is an error: it may be a misspelt check that would silently stay off.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    tokens: Live<Token>,
}

impl Provider for Selldone {
    const NAME: &'static str = "selldone";
    const UNMAPPED: &'static [&'static str] = &shared::drift::pointers::<{ UNMAPPED.len() }>(UNMAPPED);

    const ORDER: OrderPlace = OrderPlace {
        object: Some("basket"),
        id: "id",
        items: "items",
    };

    type Secrets = Secrets;
    type Event = Event;

    fn from_settings(_: &Settings) -> Result<Self, SettingError> {
        Ok(Self)
    }

    async fn verify(&self, delivery: &Delivery, secrets: &Secrets, _: Instant) -> Result<Proof, Refusal> {
        url_token(delivery, &secrets.tokens)
    }

    fn identify(&self, _: &Verified<Delivery>, payload: &Payload) -> Result<Identified<Event>, NoOrderEvent> {
        let root = payload.root();
        let word = root
            .text("event")
            .ok_or(NoOrderEvent::Quarantined(Reason::NoDiscriminator))?;
        if payload::is_unsupported(&word) {
            return Err(NoOrderEvent::Unsupported);
        }
        if word != payload::ORDER_EVENT {
            return Err(NoOrderEvent::Quarantined(Reason::UnknownEvent));
        }
        let action = root
            .text("action")
            .ok_or(NoOrderEvent::Quarantined(Reason::NoDiscriminator))?;
        let event = Event::from_word(&action).ok_or(NoOrderEvent::Quarantined(Reason::UnknownEvent))?;
        root.object("basket")
            .id("id")
            .ok_or(NoOrderEvent::Quarantined(Reason::NoOrderId))?;
        Ok(Identified {
            event,
            key: IdempotencyKey::Body,
        })
    }

    fn normalize(&self, event: Event, payload: &Payload) -> Normalized {
        normalize::normalize(event, payload)
    }
}
