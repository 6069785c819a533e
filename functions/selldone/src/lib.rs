//! Selldone's `OnlineOrder` webhook.
//!
//! Selldone documents no signature, so the URL carries a token. It names no event id either: the same bytes are the
//! same event.

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
use shared::secrets::{Live, Token};
use shared::settings::{SettingError, Settings};
use shared::verification::{Proof, Verified, url_token};
use tokio::time::Instant;

pub use payload::Action;
pub use unmapped::UNMAPPED;

/// Selldone.
pub struct Selldone;

/// What one shop is verified with. A misspelt name is refused: it might have switched a check on.
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
    type Event = Action;

    fn from_settings(_: &Settings) -> Result<Self, SettingError> {
        Ok(Self)
    }

    async fn verify(&self, delivery: &Delivery, secrets: &Secrets, _: Instant) -> Result<Proof, Refusal> {
        url_token(delivery, &secrets.tokens)
    }

    fn identify(&self, _: &Verified<Delivery>, payload: &Payload) -> Result<Identified<Action>, NoOrderEvent> {
        let root = payload.root();
        let event = root
            .text("event")
            .ok_or(NoOrderEvent::Quarantined(Reason::NoDiscriminator))?;
        if payload::OTHER_EVENTS.contains(&event.as_str()) {
            return Err(NoOrderEvent::Unsupported);
        }
        if event != payload::ORDER_EVENT {
            return Err(NoOrderEvent::Quarantined(Reason::UnknownEvent));
        }
        let action = root
            .text("action")
            .ok_or(NoOrderEvent::Quarantined(Reason::NoDiscriminator))?;
        let action = Action::from_word(&action).ok_or(NoOrderEvent::Quarantined(Reason::UnknownEvent))?;
        root.object("basket")
            .id("id")
            .ok_or(NoOrderEvent::Quarantined(Reason::NoOrderId))?;
        Ok(Identified {
            event: action,
            key: IdempotencyKey::Body,
        })
    }

    fn normalize(&self, action: Action, payload: &Payload) -> Normalized {
        normalize::normalize(action, payload)
    }
}
