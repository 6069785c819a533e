//! Deeple's order hook: one event, "the order changed".
//!
//! The signature is the one of Deeple's API: HMAC-SHA256 over `METHOD\r\nTIMESTAMP\r\nbody`. Whether a repeat is signed
//! anew is not documented, so the window reaches far into the past: a replay is only a duplicate.

mod normalize;
mod payload;

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use shared::Provider;
use shared::answer::{Reason, Refusal};
use shared::delivery::Delivery;
use shared::identity::Identity;
use shared::money::Currency;
use shared::payload::Payload;
use shared::provider::{Identified, NoOrderEvent, Normalized};
use shared::secrets::{Live, SigningKey};
use shared::settings::{SettingError, Settings};
use shared::verification::{Proof, Signed, Verified, Window, hmac_sha256};

/// Deeple.
pub struct Deeple {
    window: Window,
    /// The currency of all amounts: the payload names none.
    currency: Currency,
}

/// What one shop is verified with.
#[derive(Deserialize)]
pub struct Secrets {
    pid: SigningKey,
    secrets: Live<SigningKey>,
}

/// The one event: something of the order changed.
pub struct OrderChanged;

impl Provider for Deeple {
    const NAME: &'static str = "deeple";

    type Secrets = Secrets;
    type Event = OrderChanged;

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

    async fn verify(&self, delivery: &Delivery, secrets: &Secrets) -> Result<Proof, Refusal> {
        // The hook's page names the bare headers, the API's pages the prefixed ones.
        let header = |bare, prefixed| delivery.header(bare).or_else(|| delivery.header(prefixed));
        let pid = header("pid", "x-deeple-pid").ok_or(Refusal::Unauthorized("the PID is missing"))?;
        let timestamp =
            header("timestamp", "x-deeple-timestamp").ok_or(Refusal::Unauthorized("the timestamp is missing"))?;
        let signature =
            header("signature", "x-deeple-signature").ok_or(Refusal::Unauthorized("the signature is missing"))?;
        if !secrets.pid.matches(pid.as_bytes()) {
            return Err(Refusal::Unauthorized("the PID is another project's"));
        }
        let sent_at = epoch_milliseconds(timestamp).ok_or(Refusal::Unauthorized("the timestamp is no time"))?;
        self.window.check(sent_at, delivery.received_at())?;
        let prefix = format!("{}\r\n{timestamp}\r\n", delivery.method());
        let signed = Signed {
            prefix: prefix.as_bytes(),
            empty_body: b"{}",
        };
        hmac_sha256(delivery, signature, signed, &secrets.secrets)
    }

    fn identify(&self, _: &Verified<Delivery>, payload: &Payload) -> Result<Identified<OrderChanged>, NoOrderEvent> {
        payload
            .root()
            .id("orderNumber")
            .ok_or(NoOrderEvent::Quarantined(Reason::NoOrderId))?;
        Ok(Identified {
            event: OrderChanged,
            identity: Identity::Body,
        })
    }

    fn normalize(&self, _: OrderChanged, payload: &Payload) -> Normalized {
        normalize::normalize(payload, self.currency)
    }
}

fn epoch_milliseconds(text: &str) -> Option<Timestamp> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Timestamp::from_millisecond(text.parse().ok()?).ok())?
}
