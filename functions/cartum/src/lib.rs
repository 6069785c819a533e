//! Cartum's (Horoshop's) order webhooks.
//!
//! Cartum documents no signature, so a token in the URL authenticates a delivery. The body does not say which event it
//! reports, so the URL of the subscription does: `?event=`, by default `order_created`.

mod normalize;
mod orders_api;
mod payload;
mod subscribe;
mod unmapped;

use jiff::tz::TimeZone;
use lambda_http::http::Method;
use serde::Deserialize;
use shared::Provider;
use shared::answer::{Reason, Refusal};
use shared::delivery::Delivery;
use shared::identity::IdempotencyKey;
use shared::payload::Payload;
use shared::provider::{EndedSubscription, Identified, NoOrderEvent, Normalized, OrderPlace};
use shared::secrets::{Live, Token};
use shared::settings::{SettingError, Settings};
use shared::verification::{Proof, Verified, url_token};
use tokio::time::Instant;

pub use orders_api::ApiCredentials;
pub use payload::Event;
pub use unmapped::UNMAPPED;

/// The query parameter that names the event.
const EVENT_PARAMETER: &str = "event";
/// The query parameter whose word identifies a subscription. Only URLs of `connect` have it.
const SUBSCRIPTION_PARAMETER: &str = "subscription";

/// The provider Cartum.
pub struct Cartum {
    /// The time zone of `stat_created`, which does not name one.
    time_zone: TimeZone,
}

/// The secrets of one shop. An unknown field is an error: it may be a misspelt check that would silently stay off.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    tokens: Live<Token>,
}

impl Provider for Cartum {
    const NAME: &'static str = "cartum";
    const UNMAPPED: &'static [&'static str] = &shared::drift::pointers::<{ UNMAPPED.len() }>(UNMAPPED);
    /// PUT is documented, public handlers receive POST, and DELETE reports that the subscription was removed.
    const METHODS: &'static [Method] = &[Method::PUT, Method::POST, Method::DELETE];

    const ORDER: OrderPlace = OrderPlace {
        object: None,
        id: "order_id",
        items: "products",
    };

    type Secrets = Secrets;
    type Event = Event;

    /// A DELETE has an empty body, and the end of each subscription is a delivery of its own.
    fn event_parameters(method: &Method) -> &'static [&'static str] {
        if method == Method::DELETE {
            &[EVENT_PARAMETER, SUBSCRIPTION_PARAMETER]
        } else {
            &[EVENT_PARAMETER]
        }
    }

    fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        const NAME: &str = "CARTUM_TIME_ZONE";
        let zone = settings.optional(NAME).unwrap_or_else(|| "Europe/Kyiv".to_owned());
        let time_zone = TimeZone::get(&zone).map_err(|_| SettingError::Invalid {
            name: NAME,
            expected: "a time zone like Europe/Kyiv",
        })?;
        Ok(Self { time_zone })
    }

    async fn verify(&self, delivery: &Delivery, secrets: &Secrets, _: Instant) -> Result<Proof, Refusal> {
        url_token(delivery, &secrets.tokens)
    }

    fn identify(&self, delivery: &Verified<Delivery>, payload: &Payload) -> Result<Identified<Event>, NoOrderEvent> {
        let unknown = NoOrderEvent::Quarantined(Reason::UnknownEvent);
        let word = event_word(delivery.parameter(EVENT_PARAMETER).map_err(|_| unknown)?);
        if delivery.method() == Method::DELETE || payload::is_unsupported(word) {
            return Err(NoOrderEvent::Unsupported);
        }
        let event = Event::from_word(word).ok_or(unknown)?;
        let order = payload
            .root()
            .id("order_id")
            .ok_or(NoOrderEvent::Quarantined(Reason::NoOrderId))?;
        let words = [word.to_owned(), order];
        let key = match event {
            Event::OrderCreated => IdempotencyKey::of(words),
            // An order can be paid or changed more than once, and the body has no time of the change.
            Event::OrderPaid | Event::OrderUpdate => IdempotencyKey::PartsAndBody(words.into()),
        };
        Ok(Identified { event, key })
    }

    fn ends_subscription(&self, delivery: &Verified<Delivery>) -> Option<EndedSubscription> {
        if delivery.method() != Method::DELETE {
            return None;
        }
        let event = delivery.parameter(EVENT_PARAMETER).ok().map(event_word);
        let word = delivery.parameter(SUBSCRIPTION_PARAMETER).ok().flatten();
        Some(EndedSubscription {
            event: event.and_then(Event::from_word).map(Event::as_str),
            word: word.filter(|word| !word.is_empty()).map(str::to_owned),
        })
    }

    fn normalize(&self, event: Event, payload: &Payload) -> Normalized {
        normalize::normalize(event, payload, &self.time_zone)
    }
}

/// The word for the event of a URL, given the value of its query parameter.
fn event_word(parameter: Option<&str>) -> &str {
    parameter
        .filter(|event| !event.is_empty())
        .unwrap_or(Event::OrderCreated.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_zone_of_the_shop_is_a_setting() {
        let cartum = Cartum::from_settings(&Settings::from_table([("CARTUM_TIME_ZONE", "Europe/Warsaw")]));
        assert_eq!(cartum.expect("settings").time_zone.iana_name(), Some("Europe/Warsaw"));
        let default = Cartum::from_settings(&Settings::from_table([("CARTUM_TIME_ZONE", "")]));
        assert_eq!(default.expect("settings").time_zone.iana_name(), Some("Europe/Kyiv"));
        let error = Cartum::from_settings(&Settings::from_table([("CARTUM_TIME_ZONE", "Kyiv")])).err();
        assert!(error.expect("an error").to_string().contains("CARTUM_TIME_ZONE"));
    }
}
