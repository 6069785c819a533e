//! Deeple's order hook, which has one event: the order changed.
//!
//! A delivery is signed as a call of Deeple's API is: HMAC-SHA256 over `METHOD\r\nTIMESTAMP\r\nbody`. Whether a
//! repeat gets a new signature is not documented, so timestamps are accepted for a day: a replayed delivery is only a
//! duplicate.

mod normalize;
mod payload;
mod unmapped;

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use shared::Provider;
use shared::answer::{Reason, Refusal};
use shared::delivery::Delivery;
use shared::identity::IdempotencyKey;
use shared::money::Currency;
use shared::payload::Payload;
use shared::provider::{Identified, NoOrderEvent, Normalized, OrderPlace};
use shared::secrets::{Live, SigningKey};
use shared::settings::{SettingError, Settings};
use shared::verification::{Proof, Signature, Signed, Verified, Window, hmac_sha256};
use tokio::time::Instant;

pub use payload::Event;
pub use unmapped::UNMAPPED;

/// The provider Deeple.
pub struct Deeple {
    /// How far the timestamp of a delivery may be from the time of receipt.
    window: Window,
    /// The currency of all amounts. The payload does not name one.
    currency: Currency,
}

/// The secrets of one shop. An unknown field is an error: it may be a misspelt check that would silently stay off.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// The project id.
    pid: SigningKey,
    secrets: Live<SigningKey>,
}

impl Provider for Deeple {
    const NAME: &'static str = "deeple";
    const UNMAPPED: &'static [&'static str] = &shared::drift::pointers::<{ UNMAPPED.len() }>(UNMAPPED);

    const ORDER: OrderPlace = OrderPlace {
        object: None,
        id: "orderNumber",
        items: "items",
    };

    type Secrets = Secrets;
    type Event = Event;

    fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        let seconds = |name, default: Duration| {
            settings
                .parsed(name, default.as_secs(), "a number of seconds")
                .map(Duration::from_secs)
        };
        let currency = settings.optional("DEEPLE_CURRENCY").unwrap_or_else(|| "THB".to_owned());
        Ok(Self {
            window: Window {
                max_age: seconds("TIMESTAMP_MAX_AGE_SECONDS", Duration::from_hours(24))?,
                max_ahead: seconds("TIMESTAMP_MAX_AHEAD_SECONDS", Duration::from_mins(5))?,
            },
            currency: Currency::parse(&currency).ok_or(SettingError::Invalid {
                name: "DEEPLE_CURRENCY",
                expected: "a currency code like THB",
            })?,
        })
    }

    async fn verify(&self, delivery: &Delivery, secrets: &Secrets, _: Instant) -> Result<Proof, Refusal> {
        // The documentation of the hook names the bare headers, that of the API the prefixed ones.
        let header = |bare, prefixed| {
            let named = |name| delivery.header(name).filter(|value| !value.is_empty());
            named(bare).or_else(|| named(prefixed))
        };
        let pid = header("pid", "x-deeple-pid").ok_or(Refusal::no_credentials("the PID is missing"))?;
        let timestamp =
            header("timestamp", "x-deeple-timestamp").ok_or(Refusal::no_credentials("the timestamp is missing"))?;
        let signature =
            header("signature", "x-deeple-signature").ok_or(Refusal::no_credentials("the signature is missing"))?;
        if !secrets.pid.matches(pid.as_bytes()) {
            return Err(Refusal::wrong_credentials("the PID belongs to another project"));
        }
        let sent_at = epoch_milliseconds(timestamp).ok_or(Refusal::wrong_credentials("malformed timestamp"))?;
        self.window.check(sent_at, delivery.received_at())?;
        let prefix = format!("{}\r\n{timestamp}\r\n", delivery.method());
        let signed = Signed {
            prefix: prefix.as_bytes(),
            empty_body: b"{}",
        };
        hmac_sha256(
            delivery,
            Signature::from_lower_hex(signature)?,
            signed,
            &secrets.secrets,
        )
    }

    fn identify(&self, _: &Verified<Delivery>, payload: &Payload) -> Result<Identified<Event>, NoOrderEvent> {
        payload
            .root()
            .id("orderNumber")
            .ok_or(NoOrderEvent::Quarantined(Reason::NoOrderId))?;
        Ok(Identified {
            event: Event::OrderChanged,
            key: IdempotencyKey::Body,
        })
    }

    fn normalize(&self, event: Event, payload: &Payload) -> Normalized {
        normalize::normalize(event, payload, self.currency)
    }
}

fn epoch_milliseconds(text: &str) -> Option<Timestamp> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Timestamp::from_millisecond(text.parse().ok()?).ok())?
}

#[cfg(test)]
mod tests {
    use shared::answer::Unverified;
    use shared::delivery::BodyLimit;
    use shared::http_event::HttpEvent;

    use super::*;

    const SECRETS: &str = r#"{"pid":"local-pid","secrets":["another-secret","__SECRET__"]}"#;
    /// The example on Deeple's API authentication page, for POST, `1608016559719` and `{}`.
    const SIGNATURE: &str = "724f97f6bade275634d1f81cdd42fd5977e5b5f0e5eecd91e10df93a47e9a49c";
    const TIMESTAMP: &str = "1608016559719";

    async fn verify(headers: &[(&str, &str)], body: &'static str) -> Result<(), Refusal> {
        let headers: serde_json::Map<_, _> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()))
            .collect();
        let event = serde_json::json!({
            "requestContext": {"http": {"method": "POST"}},
            "pathParameters": {"shop": "main"},
            "headers": headers,
            "body": body,
        });
        let event = HttpEvent::read(event.to_string().as_bytes()).expect("an event");
        let limit = BodyLimit::new(1000);
        let delivery = Delivery::read(event, Deeple::METHODS, Deeple::event_parameters, limit).expect("a delivery");
        let settings = Settings::from_table([("TIMESTAMP_MAX_AGE_SECONDS", "3153600000")]);
        let deeple = Deeple::from_settings(&settings).expect("settings");
        let secrets = serde_json::from_str(SECRETS).expect("secrets");
        deeple.verify(&delivery, &secrets, Instant::now()).await.map(|_| ())
    }

    #[tokio::test]
    async fn the_published_signature_passes_under_both_header_names() {
        let bare = [("PID", "local-pid"), ("TIMESTAMP", TIMESTAMP), ("SIGNATURE", SIGNATURE)];
        verify(&bare, "{}").await.expect("the published vector");
        verify(&bare, "").await.expect("an empty body counts as {}");
        let prefixed = [
            ("x-deeple-pid", "local-pid"),
            ("x-deeple-timestamp", TIMESTAMP),
            ("x-deeple-signature", SIGNATURE),
        ];
        verify(&prefixed, "{}").await.expect("the published vector");
    }

    #[tokio::test]
    async fn a_delivery_with_any_other_header_or_body_is_refused() {
        for (pid, timestamp, signature, body) in [
            ("other-pid", TIMESTAMP, SIGNATURE, "{}"),
            ("local-pid", "1608016559718", SIGNATURE, "{}"),
            ("local-pid", "+1608016559719", SIGNATURE, "{}"),
            ("local-pid", "", SIGNATURE, "{}"),
            ("local-pid", "99999999999999999999", SIGNATURE, "{}"),
            ("local-pid", TIMESTAMP, "", "{}"),
            ("local-pid", TIMESTAMP, &SIGNATURE.to_uppercase(), "{}"),
            ("local-pid", TIMESTAMP, SIGNATURE, "{ }"),
        ] {
            let headers = [("pid", pid), ("timestamp", timestamp), ("signature", signature)];
            let refusal = verify(&headers, body).await.expect_err("refused");
            let complete = headers.iter().all(|(_, value)| !value.is_empty());
            match refusal {
                Refusal::Unauthorized(Unverified::WrongCredentials(_)) if complete => {}
                Refusal::Unauthorized(Unverified::NoCredentials(_)) if !complete => {}
                other => panic!("{headers:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_error_names_the_malformed_setting() {
        let error = Deeple::from_settings(&Settings::from_table([("DEEPLE_CURRENCY", "baht")])).err();
        assert!(error.expect("an error").to_string().contains("DEEPLE_CURRENCY"));
    }
}
