//! Verifies deliveries. Every check fails closed, compares in constant time, and works on the raw bytes before anything
//! is parsed.
//!
//! A check that passes returns a [`Proof`]. Only a proof makes a [`Verified`] delivery, and only a verified delivery
//! gives access to its body. Code that handles an unverified body therefore does not compile:
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
use crate::delivery::{Delivery, TOKEN_PARAMETER};
use crate::http_event::decode_base64;
use crate::payload::{NotJson, Payload};
use crate::reconciliation::Base;
use crate::secrets::{SigningKey, Token};

/// Evidence that a check passed. Only the checks of this crate can create one.
#[derive(Debug)]
pub struct Proof(());

impl Proof {
    /// For checks in other modules of this crate.
    pub(crate) fn of_a_passed_check() -> Self {
        Self(())
    }
}

/// A value that comes from the provider, as a check has proved.
pub struct Verified<T>(T);

impl Verified<Delivery> {
    /// A delivery, given the proof that a check of it passed.
    pub fn new(delivery: Delivery, _: Proof) -> Self {
        Self(delivery)
    }

    /// A delivery from the table, where only verified ones are stored.
    pub(crate) fn stored(delivery: Delivery) -> Self {
        Self(delivery)
    }

    /// A delivery that is made of an order in an answer of the provider's API, which TLS and the credentials
    /// authenticate.
    pub(crate) fn of_api(delivery: Delivery) -> Self {
        Self(delivery)
    }

    /// Names the latest stored event of the order, if the delivery is made of one that the provider's API has listed.
    pub fn reconcile_after(&mut self, base: Option<Base>) {
        self.0.reconcile_after(base);
    }

    /// Counts the delivery as received at `time`, when an earlier attempt to store it was made.
    pub(crate) fn count_as_received_at(&mut self, time: Timestamp) {
        self.0.count_as_received_at(time);
    }

    /// The raw body.
    pub fn body(&self) -> &[u8] {
        self.0.body()
    }

    /// Parses the body, which may be compressed with gzip or begin with a byte order mark.
    pub fn payload(&self) -> Result<Payload<'_>, NotJson> {
        Payload::unwrap_and_parse(self.body(), self.body_limit().bytes())
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Checks that the token in the URL (`?token=...`), or else the password of HTTP Basic, is one of the live tokens.
///
/// # Errors
/// 401 if the token is missing, repeated or wrong.
pub fn url_token(delivery: &Delivery, tokens: &[Token]) -> Result<Proof, Refusal> {
    let in_query = delivery
        .parameter(TOKEN_PARAMETER)
        .map_err(|_| Refusal::no_credentials("the token is given more than once"))?;
    let in_header = delivery.header("authorization").and_then(basic_password);
    let given = in_query.map(str::as_bytes).or(in_header.as_deref());
    let given = given.ok_or(Refusal::no_credentials("no token is given"))?;
    // Every live token is compared, so that the time does not depend on which one matches.
    let matched = tokens
        .iter()
        .fold(Choice::from(0), |matched, token| matched | token.expose().ct_eq(given));
    if matched.into() {
        Ok(Proof(()))
    } else if Token::is_well_formed(given) {
        Err(Refusal::wrong_credentials("the token is wrong"))
    } else {
        // No secret can hold such a text, so it never was a live token.
        Err(Refusal::no_credentials("the token is wrong"))
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

/// What a signature covers in addition to the body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signed<'a> {
    /// The bytes before the body.
    pub prefix: &'a [u8],
    /// The bytes that are signed in place of an empty body.
    pub empty_body: &'a [u8],
}

/// The HMAC-SHA256 that a delivery carries.
#[derive(Clone, Copy, Debug)]
pub struct Signature([u8; 32]);

impl Signature {
    /// Reads 64 lower-case hex digits.
    ///
    /// # Errors
    /// 401 if `text` is anything else.
    pub fn from_lower_hex(text: &str) -> Result<Self, Refusal> {
        let is_upper = |byte: u8| byte.is_ascii_uppercase();
        let bytes = hex_digits(text).filter(|_| !text.bytes().any(is_upper));
        bytes.map(Self).ok_or(WRONG_SIGNATURE)
    }

    /// Reads hex digits of any case, or base64: for a provider that does not document its encoding.
    ///
    /// # Errors
    /// 401 if `text` is neither.
    pub fn from_hex_or_base64(text: &str) -> Result<Self, Refusal> {
        let base64 = || decode_base64(text)?.try_into().ok();
        hex_digits(text).or_else(base64).map(Self).ok_or(WRONG_SIGNATURE)
    }
}

const WRONG_SIGNATURE: Refusal = Refusal::wrong_credentials("the signature is wrong");

fn hex_digits(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// Checks that the signature is the HMAC-SHA256 of the raw body under one of the live keys.
///
/// # Errors
/// 401 if it is not.
pub fn hmac_sha256(
    delivery: &Delivery,
    Signature(signature): Signature,
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
        matched | mac.finalize().into_bytes().as_slice().ct_eq(&signature)
    });
    if matched.into() {
        Ok(Proof(()))
    } else {
        Err(WRONG_SIGNATURE)
    }
}

/// The range in which a signed timestamp must be.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The oldest age that passes.
    pub max_age: Duration,
    /// How far the provider's clock may be ahead of this one.
    pub max_ahead: Duration,
}

impl Window {
    /// Checks that `sent_at` is within the window around `now`.
    ///
    /// # Errors
    /// 401 if it is not.
    pub fn check(self, sent_at: Timestamp, now: Timestamp) -> Result<(), Refusal> {
        let age = now.duration_since(sent_at);
        let limit = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        if age > limit(self.max_age) {
            return Err(Refusal::wrong_credentials("the timestamp is too old"));
        }
        if -age > limit(self.max_ahead) {
            return Err(Refusal::wrong_credentials("the timestamp is in the future"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Unverified;

    const TOKEN: &str = "local-development-token";

    fn tokens() -> Vec<Token> {
        serde_json::from_str(&format!(r#"["an-older-token-still-live","{TOKEN}"]"#)).expect("tokens")
    }

    fn refused(result: Result<Proof, Refusal>) -> Unverified {
        match result {
            Err(Refusal::Unauthorized(unverified)) => unverified,
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
    fn any_other_text_is_refused() {
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
            Unverified::NoCredentials("the token is wrong")
        );
    }

    #[test]
    fn only_a_well_formed_token_counts_as_wrong_credentials() {
        let basic = |password: &str| format!("Basic {}", STANDARD.encode(format!(":{password}")));
        let retired = "a-token-that-was-live-once";
        for (token, is_wrong) in [
            (retired, true),
            (&retired[..20], true),
            (&"x".repeat(128), true),
            (&retired[..19], false),
            (&"x".repeat(129), false),
            ("a.token.that.was.live.once", false),
            ("admin", false),
            ("", false),
        ] {
            let in_query = Delivery::sample(&format!("token={token}"), &[], "");
            let in_header = Delivery::sample("", &[("authorization", &basic(token))], "");
            for delivery in [in_query, in_header] {
                let unverified = refused(url_token(&delivery, &tokens()));
                let wrong = matches!(unverified, Unverified::WrongCredentials(_));
                assert_eq!(wrong, is_wrong, "{token}: {unverified:?}");
            }
        }
    }

    #[test]
    fn a_signature_must_match_completely_and_cover_the_raw_body() {
        let keys: Vec<SigningKey> = serde_json::from_str(r#"["retired","key"]"#).expect("keys");
        let body = "what do ya want for nothing?";
        let right = signature_of(body);
        let check = |body: &str, signature: &str| {
            let signature = Signature::from_lower_hex(signature)?;
            hmac_sha256(&Delivery::sample("", &[], body), signature, Signed::default(), &keys)
        };
        check(body, &right).expect("the right signature");
        for signature in [
            "",
            &right[..63],
            &right[..62],
            &format!("{right}0"),
            &format!("{right}00"),
            &right.to_uppercase(),
            &"z".repeat(64),
            &"+1".repeat(32),
            &"0".repeat(64),
            &"é".repeat(32),
        ] {
            refused(check(body, signature));
        }
        refused(check("another body", &right));
        refused(hmac_sha256(
            &Delivery::sample("", &[], body),
            Signature::from_lower_hex(&right).expect("hex"),
            Signed::default(),
            &[],
        ));
    }

    fn signature_of(body: &str) -> String {
        // printf 'what do ya want for nothing?' | openssl dgst -sha256 -hmac key
        let mut mac = Hmac::<Sha256>::new_from_slice(b"key").expect("a key");
        mac.update(body.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    #[test]
    fn a_signature_may_be_in_hex_or_base64() {
        let right = signature_of("");
        let Signature(bytes) = Signature::from_lower_hex(&right).expect("hex");
        let base64 = STANDARD.encode(bytes);
        let url_safe = base64.replace('+', "-").replace('/', "_");
        for text in [
            &right,
            &right.to_uppercase(),
            &base64,
            base64.trim_end_matches('='),
            &url_safe,
        ] {
            let Signature(read) = Signature::from_hex_or_base64(text).expect("an encoding");
            assert_eq!(read, bytes, "{text}");
        }
        for text in [
            "",
            "=",
            &right[..62],
            &base64[..40],
            &STANDARD.encode(&right),
            &"z".repeat(64),
        ] {
            assert!(Signature::from_hex_or_base64(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_timestamp_must_be_within_its_window() {
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
