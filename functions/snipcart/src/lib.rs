//! Snipcart's order webhooks.
//!
//! A delivery carries a request token, which a call to Snipcart validates. The token proves where the delivery comes
//! from, not what is in its body. A token in the URL can be required in addition.

mod normalize;
mod orders_api;
mod payload;
mod unmapped;

use std::time::Duration;

use lambda_http::http::StatusCode;
use serde::Deserialize;
use shared::Provider;
use shared::answer::{Reason, Refusal};
use shared::callback::{self, Confirmation};
use shared::delivery::Delivery;
use shared::identity::IdempotencyKey;
use shared::payload::Payload;
use shared::provider::{Identified, NoOrderEvent, Normalized, OrderPlace, Verifies};
use shared::secrets::{Live, OptIn, SigningKey, Token};
use shared::settings::{SettingError, Settings};
use shared::verification::{Proof, Verified, url_token};
use tokio::time::Instant;

pub use orders_api::ApiCredentials;
pub use payload::Event;
pub use unmapped::UNMAPPED;

/// How long all calls to Snipcart for one delivery may take.
const VALIDATION_BUDGET: Duration = Duration::from_secs(5);
/// With less time left, Snipcart is not called: its answer could come too late, and the token would be used up.
const LEAST_TIME: Duration = Duration::from_secs(1);

/// The event's name in the idempotency key of every event that reports a paid renewal. If it changes, a repeat of an
/// event that is already stored becomes a new event.
const RENEWAL_PAID: &str = "subscription.invoice.paid";

/// The provider Snipcart.
pub struct Snipcart {
    /// The base URL of the API that validates request tokens.
    api_url: String,
}

/// The secrets of one shop. An unknown field is an error: it may be a misspelt check that would silently stay off.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    api_keys: Live<SigningKey>,
    /// If present, the URL must also carry one of these.
    #[serde(default)]
    tokens: OptIn<Token>,
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

    async fn verify(&self, delivery: &Delivery, secrets: &Secrets, until: Instant) -> Result<Proof, Refusal> {
        if let Some(tokens) = secrets.tokens.live() {
            url_token(delivery, tokens)?;
        }
        // A sender that knows the token of the URL counts as a known one with wrong credentials, which an alarm reports.
        let refuse = match secrets.tokens.live() {
            Some(_) => Refusal::wrong_credentials,
            None => Refusal::no_credentials,
        };
        let token = delivery.header("x-snipcart-requesttoken");
        let token = token.ok_or_else(|| refuse("the request token is missing"))?;
        // The token becomes a part of a URL, in which `..` would lead to another endpoint.
        if !is_request_token(token) {
            return Err(refuse("malformed request token"));
        }
        let url = format!("{}/requestvalidation/{token}", self.api_url.trim_end_matches('/'));
        let until = until.min(Instant::now() + VALIDATION_BUDGET);
        let mut answers = Vec::new();
        for key in secrets.api_keys.iter() {
            if until.saturating_duration_since(Instant::now()) < LEAST_TIME {
                answers.push(Answer::Inconclusive("no time left for the call".to_owned()));
                break;
            }
            match callback::ask(&url, key, until).await {
                Confirmation::Confirmed(proof) => return Ok(proof),
                Confirmation::Refused { status, is_certain } => answers.push(Answer::of(status, is_certain)),
                Confirmation::Unreachable(cause) => {
                    answers.push(Answer::Inconclusive(cause));
                    // With another key, the call would fail in the same way.
                    break;
                }
            }
        }
        Err(refusal_for(answers))
    }

    fn identify(&self, _: &Verified<Delivery>, payload: &Payload) -> Result<Identified<Event>, NoOrderEvent> {
        let root = payload.root();
        let word = root
            .text("eventName")
            .ok_or(NoOrderEvent::Quarantined(Reason::NoDiscriminator))?;
        let content = root.object("content");
        let renewal = Event::of_invoice(&word, &content);
        if renewal.is_none() && payload::is_unsupported(&word) {
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
        let key = match (event, root.text("createdOn")) {
            // Several events of an invoice may report the same paid order, which must be created only once.
            (Event::RenewalPaid, _) => IdempotencyKey::of([RENEWAL_PAID.to_owned(), order]),
            (_, Some(created_on)) => IdempotencyKey::of([word, created_on, order]),
            // Without its time, an event cannot be distinguished from the next one of the same kind and order.
            (_, None) => IdempotencyKey::Body,
        };
        Ok(Identified { event, key })
    }

    fn normalize(&self, event: Event, payload: &Payload) -> Normalized {
        normalize::normalize(event, payload)
    }
}

/// An answer of Snipcart that does not confirm a request token, for one API key.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// 404: the token is unknown under this key.
    Unknown,
    /// 401 or 403: the key is wrong, or belongs to the other mode.
    KeyRefused,
    /// Anything else, which says nothing about the token. Holds the cause.
    Inconclusive(String),
}

impl Answer {
    fn of(status: StatusCode, is_certain: bool) -> Self {
        match (status, is_certain) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Self::KeyRefused,
            (StatusCode::NOT_FOUND, true) => Self::Unknown,
            // The call whose answer was lost may have used up the token.
            (StatusCode::NOT_FOUND, false) => {
                Self::Inconclusive("status 404 after a call whose answer was lost".to_owned())
            }
            (status, _) => Self::Inconclusive(format!("status {}", status.as_u16())),
        }
    }
}

/// Returns the refusal of a delivery that no API key has confirmed.
///
/// A secret may hold the keys of both test and live mode. Each key knows the tokens of its own mode only, so the keys
/// are tried in order until one of them confirms the token.
///
/// | answers | refused with |
/// |---|---|
/// | at least one is inconclusive | 503: its key may be the right one |
/// | 401 or 403 for every key | 500: the keys are wrong, which says nothing about the token |
/// | 404 for at least one key, 401 or 403 for the others | 401: the token is unknown, used or expired |
fn refusal_for(answers: Vec<Answer>) -> Refusal {
    let keys = answers.len();
    let is_unknown = answers.contains(&Answer::Unknown);
    let inconclusive = answers.into_iter().find_map(|answer| match answer {
        Answer::Inconclusive(cause) => Some(cause),
        _ => None,
    });
    match inconclusive {
        Some(cause) => Refusal::Unavailable(format!("Snipcart has not validated the request token: {cause}")),
        None if is_unknown => Refusal::wrong_credentials("Snipcart does not know the request token"),
        None => Refusal::Misconfigured(format!("Snipcart rejects all {keys} API keys of the secret")),
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
    fn the_refusal_follows_from_the_answers_for_all_keys() {
        let answer = |status| Answer::of(StatusCode::from_u16(status).expect("a status"), true);
        for (statuses, refused_with) in [
            (&[404][..], 401),
            (&[404, 404], 401),
            (&[401], 500),
            (&[403, 401], 500),
            (&[404, 401], 401),
            (&[403, 404], 401),
            (&[500], 503),
            (&[302], 503),
            (&[429, 404], 503),
            (&[404, 503], 503),
            (&[401, 500], 503),
        ] {
            let refusal = refusal_for(statuses.iter().copied().map(answer).collect());
            assert_eq!(refusal.status(), refused_with, "{statuses:?}: {refusal}");
        }
        let uncertain = Answer::of(StatusCode::NOT_FOUND, false);
        assert_eq!(refusal_for(vec![answer(404), uncertain]).status(), 503);
    }

    #[test]
    fn a_request_token_cannot_change_the_path_of_the_url() {
        for good in ["a", "0b6d9f4e-2d8a_XYZ", &"x".repeat(128)] {
            assert!(is_request_token(good), "{good}");
        }
        for bad in ["", "..", ".", "a/b", "a%2fb", "a?b", "a b", "ä", &"x".repeat(129)] {
            assert!(!is_request_token(bad), "{bad}");
        }
    }
}
