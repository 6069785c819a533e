//! Authenticity. Every check fails closed, compares in constant time, and looks at the raw bytes before anything is parsed.
//!
//! A check that passes yields a [`Proof`]; only a proof makes a [`Verified`] delivery; and only a verified delivery
//! hands out its body. Handling an unverified body therefore does not compile:
//!
//! ```compile_fail
//! fn parse(delivery: &shared::delivery::Delivery) {
//!     let _ = delivery.body();
//! }
//! ```

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use crate::answer::Refusal;
use crate::delivery::Delivery;
use crate::identity::hex;
use crate::payload::{NotJson, Payload};
use crate::secrets::{SigningKey, Token};

/// Evidence that a check passed. It cannot be made outside of this crate's checks.
#[derive(Debug)]
pub struct Proof(());

impl Proof {
    /// For checks that live in a module of their own.
    pub(crate) fn of_a_passed_check() -> Self {
        Self(())
    }
}

/// Something that is known to come from the provider.
pub struct Verified<T>(T);

impl Verified<Delivery> {
    /// A delivery together with the evidence for it.
    pub fn new(delivery: Delivery, _: Proof) -> Self {
        Self(delivery)
    }

    /// A delivery out of the store: nothing is stored that was not verified.
    pub(crate) fn kept(delivery: Delivery) -> Self {
        Self(delivery)
    }

    /// Counts it as received at `time`, when an earlier try to store it was made.
    pub(crate) fn count_as_received_at(&mut self, time: Timestamp) {
        self.0.count_as_received_at(time);
    }

    /// The raw body.
    pub fn body(&self) -> &[u8] {
        self.0.body()
    }

    /// Parses the body.
    pub fn payload(&self) -> Result<Payload<'_>, NotJson> {
        Payload::parse(self.body())
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The token in the URL, `?token=...`, or else the password of HTTP Basic, is one of the live ones.
///
/// # Errors
/// 401 where there is no token, a repeated one or a wrong one.
pub fn url_token(delivery: &Delivery, tokens: &[Token]) -> Result<Proof, Refusal> {
    let in_query = delivery
        .parameter("token")
        .map_err(|_| Refusal::Unauthorized("the token is given more than once"))?;
    let in_header = delivery.header("authorization").and_then(basic_password);
    let given = in_query.map(str::as_bytes).or(in_header.as_deref());
    let given = given.ok_or(Refusal::Unauthorized("no token is given"))?;
    // Every live token is compared: the time tells nothing of which one matched.
    let matched = tokens
        .iter()
        .fold(Choice::from(0), |matched, token| matched | token.expose().ct_eq(given));
    if matched.into() {
        Ok(Proof(()))
    } else {
        Err(Refusal::Unauthorized("the token is wrong"))
    }
}

fn basic_password(header: &str) -> Option<Vec<u8>> {
    let (scheme, credentials) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let credentials = STANDARD.decode(credentials.trim()).ok()?;
    let colon = credentials.iter().position(|byte| *byte == b':')?;
    Some(credentials[colon + 1..].to_vec())
}

/// What a signature covers beside the body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signed<'a> {
    /// Bytes that go before the body.
    pub prefix: &'a [u8],
    /// What stands for a body that is empty.
    pub empty_body: &'a [u8],
}

/// The signature is the HMAC-SHA256 of the raw body under one of the live keys, in lower-case hex.
///
/// # Errors
/// 401 where it is not.
pub fn hmac_sha256(
    delivery: &Delivery,
    signature: &str,
    signed: Signed<'_>,
    keys: &[SigningKey],
) -> Result<Proof, Refusal> {
    let body = if delivery.body().is_empty() {
        signed.empty_body
    } else {
        delivery.body()
    };
    let matched = keys.iter().fold(Choice::from(0), |matched, key| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes a key of any length");
        mac.update(signed.prefix);
        mac.update(body);
        let expected = hex(&mac.finalize().into_bytes());
        // `ct_eq` looks at the lengths first: a shorter signature never matches.
        matched | expected.as_bytes().ct_eq(signature.as_bytes())
    });
    if matched.into() {
        Ok(Proof(()))
    } else {
        Err(Refusal::Unauthorized("the signature is wrong"))
    }
}

/// How old and how far ahead a signed timestamp may be.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Oldest age that passes.
    pub max_age: Duration,
    /// Furthest that a clock may be ahead of ours.
    pub max_ahead: Duration,
}

impl Window {
    /// `sent_at` lies within the window around `now`.
    ///
    /// # Errors
    /// 401 where it does not.
    pub fn check(self, sent_at: Timestamp, now: Timestamp) -> Result<(), Refusal> {
        let age = now.duration_since(sent_at);
        let limit = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        if age > limit(self.max_age) {
            return Err(Refusal::Unauthorized("the timestamp is too old"));
        }
        if -age > limit(self.max_ahead) {
            return Err(Refusal::Unauthorized("the timestamp is in the future"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "local-development-token";

    fn tokens() -> Vec<Token> {
        serde_json::from_str(&format!(r#"["an-older-token-still-live","{TOKEN}"]"#)).expect("tokens")
    }

    fn refused(result: Result<Proof, Refusal>) -> &'static str {
        match result {
            Err(Refusal::Unauthorized(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_live_token_passes_in_the_query_or_as_basic_password() {
        let basic = |credentials: &str| format!("Basic {}", STANDARD.encode(credentials));
        for (query, header) in [
            (format!("token={TOKEN}"), None),
            ("token=an-older-token-still-live&event=x".to_owned(), None),
            (String::new(), Some(basic(&format!(":{TOKEN}")))),
            (
                String::new(),
                Some(basic(&format!("anyone:{TOKEN}")).replace("Basic", "basic")),
            ),
            (format!("token={TOKEN}"), Some(basic(":wrong"))),
        ] {
            let headers: Vec<_> = header.iter().map(|value| ("authorization", value.as_str())).collect();
            let delivery = Delivery::sample(&query, &headers, "{}");
            url_token(&delivery, &tokens()).unwrap_or_else(|refusal| panic!("{query} {header:?}: {refusal:?}"));
        }
    }

    #[test]
    fn anything_else_is_no_token() {
        let right = STANDARD.encode(format!(":{TOKEN}"));
        for (query, header) in [
            (String::new(), None),
            ("token=".to_owned(), None),
            (format!("token={}", &TOKEN[1..]), None),
            (format!("token={TOKEN}x"), None),
            (format!("token={}", TOKEN.to_uppercase()), None),
            (format!("token={TOKEN}&token={TOKEN}"), None),
            ("token=..".to_owned(), Some(format!("Basic {right}"))),
            (String::new(), Some(format!("Bearer {TOKEN}"))),
            (String::new(), Some("Basic !!!".to_owned())),
            (String::new(), Some(format!("Basic {}", STANDARD.encode(TOKEN)))),
        ] {
            let headers: Vec<_> = header.iter().map(|value| ("authorization", value.as_str())).collect();
            refused(url_token(&Delivery::sample(&query, &headers, "{}"), &tokens()));
        }
        assert_eq!(
            refused(url_token(&Delivery::sample("token=", &[], ""), &[])),
            "the token is wrong"
        );
    }

    #[test]
    fn a_signature_is_checked_whole_and_over_the_raw_body() {
        let keys: Vec<SigningKey> = serde_json::from_str(r#"["retired","key"]"#).expect("keys");
        // printf 'what do ya want for nothing?' | openssl dgst -sha256 -hmac key
        let body = "what do ya want for nothing?";
        let right = {
            let mut mac = Hmac::<Sha256>::new_from_slice(b"key").expect("a key");
            mac.update(body.as_bytes());
            hex(&mac.finalize().into_bytes())
        };
        let check = |body: &str, signature: &str| {
            hmac_sha256(&Delivery::sample("", &[], body), signature, Signed::default(), &keys)
        };
        check(body, &right).expect("the right signature");
        for signature in [
            "",
            &right[..63],
            &format!("{right}0"),
            &right.to_uppercase(),
            &"z".repeat(64),
            &"0".repeat(64),
        ] {
            refused(check(body, signature));
        }
        refused(check("another body", &right));
        refused(hmac_sha256(
            &Delivery::sample("", &[], body),
            &right,
            Signed::default(),
            &[],
        ));
    }

    #[test]
    fn a_timestamp_may_be_old_but_hardly_ahead() {
        let window = Window {
            max_age: Duration::from_hours(24),
            max_ahead: Duration::from_mins(5),
        };
        let now = Timestamp::from_second(1_700_000_000).expect("a time");
        let at = |seconds: i64| window.check(now + SignedDuration::from_secs(seconds), now).is_ok();
        assert!(at(0) && at(-86_400) && at(300));
        assert!(!at(-86_401) && !at(301) && !at(10_000_000));
        let forever = Window {
            max_age: Duration::MAX,
            max_ahead: Duration::ZERO,
        };
        assert!(forever.check(Timestamp::MIN, now).is_ok());
    }
}
