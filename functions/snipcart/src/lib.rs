//! Snipcart's order webhooks.
//!
//! A delivery carries a request token, and Snipcart is asked whether it is its own. The token proves the origin, not
//! the body; a URL token can be demanded in addition.

mod normalize;
mod payload;
mod unmapped;

use std::time::Duration;

use serde::Deserialize;
use shared::Provider;
use shared::answer::{Reason, Refusal};
use shared::callback::{self, Confirmation};
use shared::delivery::Delivery;
use shared::identity::Identity;
use shared::payload::Payload;
use shared::provider::{Identified, NoOrderEvent, Normalized, OrderPlace, Verifies};
use shared::secrets::{Live, SigningKey, Token};
use shared::settings::{SettingError, Settings};
use shared::verification::{Proof, Verified, url_token};
use tokio::time::Instant;

pub use payload::Event;
pub use unmapped::UNMAPPED;

const VALIDATION_BUDGET: Duration = Duration::from_secs(5);

/// Snipcart.
pub struct Snipcart {
    api_url: String,
}

/// What one shop is verified with. A misspelt name is refused: it might have switched a check on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    api_keys: Live<SigningKey>,
    /// Where given, the URL must carry one of these too.
    tokens: Option<Live<Token>>,
}

impl Provider for Snipcart {
    const NAME: &'static str = "snipcart";
    const UNMAPPED: &'static [&'static str] = &shared::drift::pointers::<{ UNMAPPED.len() }>(UNMAPPED);
    /// Whether a request token validates a second time is not documented.
    const VERIFIES: Verifies = Verifies::Once;

    const ORDER: OrderPlace = OrderPlace {
        object: Some("content"),
        id: "token",
        items: "items",
    };

    type Secrets = Secrets;
    type Event = Event;

    fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        let api_url = settings.optional("SNIPCART_API_URL");
        Ok(Self {
            api_url: api_url.unwrap_or_else(|| "https://app.snipcart.com/api".to_owned()),
        })
    }

    async fn connect(&self) {
        callback::connect(&self.api_url).await;
    }

    async fn verify(&self, delivery: &Delivery, secrets: &Secrets) -> Result<Proof, Refusal> {
        if let Some(tokens) = &secrets.tokens {
            url_token(delivery, tokens)?;
        }
        // A caller who knows the URL's token is no stranger.
        let refuse = match secrets.tokens {
            Some(_) => Refusal::wrong_credentials,
            None => Refusal::no_credentials,
        };
        let token = delivery.header("x-snipcart-requesttoken");
        let token = token.ok_or_else(|| refuse("the request token is missing"))?;
        // It becomes a part of a URL: `..` would ask another endpoint.
        if !is_request_token(token) {
            return Err(refuse("malformed request token"));
        }
        let url = format!("{}/requestvalidation/{token}", self.api_url.trim_end_matches('/'));
        // One budget for all keys: what is left of the time is for storing.
        let until = Instant::now() + VALIDATION_BUDGET;
        for key in secrets.api_keys.iter() {
            match callback::ask(&url, key, until).await {
                Confirmation::Confirmed(proof) => return Ok(proof),
                Confirmation::Refused(status) => match status.as_u16() {
                    // Our key is wrong, or of the other mode: another live one may do.
                    401 | 403 => {}
                    404 => return Err(Refusal::wrong_credentials("Snipcart does not know the request token")),
                    status => return Err(Refusal::Unavailable(format!("Snipcart's validation answers {status}"))),
                },
                Confirmation::Unreachable(cause) => {
                    return Err(Refusal::Unavailable(format!("Snipcart's validation: {cause}")));
                }
            }
        }
        Err(Refusal::Misconfigured(
            "Snipcart refuses every API key of the secret".to_owned(),
        ))
    }

    fn identify(&self, _: &Verified<Delivery>, payload: &Payload) -> Result<Identified<Event>, NoOrderEvent> {
        let root = payload.root();
        let word = root
            .text("eventName")
            .ok_or(NoOrderEvent::Quarantined(Reason::NoDiscriminator))?;
        let content = root.object("content");
        let renewal = Event::of_invoice(&word, &content);
        if renewal.is_none() && payload::is_no_order_event(&word) {
            return Err(NoOrderEvent::Unsupported);
        }
        let event = renewal.or_else(|| Event::from_word(&word));
        let event = event.ok_or(NoOrderEvent::Quarantined(Reason::UnknownEvent))?;
        let names_order = if event.is_renewal() {
            content.object("order")
        } else {
            content
        };
        let order = names_order.id(event.order_field());
        let order = order.ok_or(NoOrderEvent::Quarantined(Reason::NoOrderId))?;
        // Without its time, an event of an order could not be told from the next one of its kind.
        let identity = match root.text("createdOn") {
            Some(created_on) => Identity::of([word, created_on, order]),
            None => Identity::Body,
        };
        Ok(Identified { event, identity })
    }

    fn normalize(&self, event: Event, payload: &Payload) -> Normalized {
        normalize::normalize(event, payload)
    }
}

fn is_request_token(token: &str) -> bool {
    let plain = token
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    (1..=128).contains(&token.len()) && plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_token_cannot_leave_its_place_in_the_url() {
        for good in ["a", "0b6d9f4e-2d8a_XYZ", &"x".repeat(128)] {
            assert!(is_request_token(good), "{good}");
        }
        for bad in ["", "..", ".", "a/b", "a%2fb", "a?b", "a b", "ä", &"x".repeat(129)] {
            assert!(!is_request_token(bad), "{bad}");
        }
    }
}
