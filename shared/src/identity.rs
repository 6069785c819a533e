//! The identity of an event: a repeat is recognized by the id of its event.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The SHA-256 of `bytes` in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The operator's name for one shop, `[a-z0-9-]{1,64}`. It selects the shop's secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shop(String);

impl Shop {
    /// Reads a name; `None` if it is not `[a-z0-9-]{1,64}`.
    pub fn parse(name: &str) -> Option<Self> {
        let letters = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        ((1..=64).contains(&name.len()) && letters).then(|| Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Shop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The parts of a payload that identify its event, in a fixed order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdempotencyKey {
    /// Values of the provider, including the name of the event if the provider has one.
    Parts(Vec<String>),
    /// Values of the provider that several events share. Two deliveries with them are the same event only if their
    /// bodies are equal.
    PartsAndBody(Vec<String>),
    /// The provider gives no identifying values. Two deliveries are the same event only if their bodies are equal.
    Body,
}

impl IdempotencyKey {
    /// A key made of the provider's values.
    pub fn of<const N: usize>(parts: [String; N]) -> Self {
        Self::Parts(parts.into())
    }
}

/// The number of shards of the indexes `work` and `by_hour`, so that neither a backlog nor a busy hour makes one
/// partition hot. The shard of an event is the first hex digit of its id.
///
/// The number may grow, but never shrink: the events in the removed shards would not be found.
pub const SHARDS: u8 = 16;

/// The id of an event: the SHA-256, in lower-case hex, of the JSON array `[provider, shop, key...]`.
///
/// It depends on the payload alone and never on the clock, so that a retry has the id of its first attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transparent))]
pub struct EventId(String);

impl EventId {
    /// The id of the event with this key and this body.
    pub fn new(provider: &str, shop: &Shop, key: &IdempotencyKey, body: &[u8]) -> Self {
        let mut parts = vec![provider.to_owned(), shop.as_str().to_owned()];
        match key {
            IdempotencyKey::Parts(values) => parts.extend_from_slice(values),
            IdempotencyKey::PartsAndBody(values) => {
                parts.extend_from_slice(values);
                parts.push(sha256_hex(body));
            }
            IdempotencyKey::Body => parts.push(sha256_hex(body)),
        }
        let array = serde_json::to_vec(&parts).expect("strings are JSON");
        Self(sha256_hex(&array))
    }

    /// The id of a conflict that is published as an event of its own: the hash of the JSON array
    /// `[provider, shop, key..., payload_sha256]`, so that it depends on the payload alone too.
    #[cfg(feature = "receiver")]
    pub fn of_conflict(provider: &str, shop: &Shop, key: &IdempotencyKey, payload_sha256: &str) -> Self {
        let values = match key {
            IdempotencyKey::Parts(values) | IdempotencyKey::PartsAndBody(values) => values.as_slice(),
            // If the body is a part of the id, another body is another event and not a conflict.
            IdempotencyKey::Body => &[],
        };
        let values = values.iter().cloned().chain([payload_sha256.to_owned()]);
        Self::new(provider, shop, &IdempotencyKey::Parts(values.collect()), b"")
    }

    /// Reads 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (text.len() == 64 && hex).then(|| Self(text.to_owned()))
    }

    /// An id from the table, which is not checked.
    #[cfg(feature = "receiver")]
    pub(crate) fn stored(key: &str) -> Self {
        Self(key.to_owned())
    }

    /// The id as 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The event's shard, below [`SHARDS`].
    #[cfg(feature = "receiver")]
    pub(crate) fn shard(&self) -> u8 {
        self.0
            .bytes()
            .next()
            .and_then(|digit| u8::try_from(char::from(digit).to_digit(16)?).ok())
            .map_or(0, |digit| digit % SHARDS)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn main() -> Shop {
        Shop::parse("main").expect("a shop")
    }

    #[test]
    fn an_event_id_is_the_hash_of_a_json_array() {
        let id = EventId::new(
            "cartum",
            &main(),
            &IdempotencyKey::of(["order_created".into(), "115".into()]),
            b"{}",
        );
        // printf '["cartum","main","order_created","115"]' | sha256sum
        assert_eq!(id.as_str(), sha256_hex(br#"["cartum","main","order_created","115"]"#));
        assert_eq!(id.as_str().len(), 64);
    }

    #[test]
    #[cfg(feature = "receiver")]
    fn the_id_of_a_conflict_adds_the_bodys_hash() {
        let key = IdempotencyKey::of(["order_created".into(), "115".into()]);
        let id = EventId::of_conflict("cartum", &main(), &key, "abc");
        assert_eq!(
            id.as_str(),
            sha256_hex(br#"["cartum","main","order_created","115","abc"]"#)
        );
    }

    #[test]
    fn values_never_run_into_each_other() {
        let one = EventId::new("cartum", &main(), &IdempotencyKey::of(["a\",\"b".into()]), b"");
        let two = EventId::new("cartum", &main(), &IdempotencyKey::of(["a".into(), "b".into()]), b"");
        assert_ne!(one, two);
    }

    #[test]
    fn without_values_the_body_identifies_the_event() {
        let id = |body: &[u8]| EventId::new("deeple", &main(), &IdempotencyKey::Body, body);
        assert_eq!(id(b"{}"), id(b"{}"));
        assert_ne!(id(b"{}"), id(b"{ }"));
    }

    #[test]
    fn the_body_distinguishes_events_with_shared_values() {
        let id = |event: &str, body: &[u8]| {
            let key = IdempotencyKey::PartsAndBody(vec![event.to_owned(), "115".to_owned()]);
            EventId::new("cartum", &main(), &key, body)
        };
        assert_eq!(id("order_paid", b"{}"), id("order_paid", b"{}"));
        assert_ne!(id("order_paid", b"{}"), id("order_paid", b"{ }"));
        assert_ne!(id("order_paid", b"{}"), id("order_update", b"{}"));
    }

    #[test]
    fn a_shop_name_is_short_and_plain() {
        for good in ["main", "a", "shop-2", &"x".repeat(64)] {
            assert!(Shop::parse(good).is_some(), "{good}");
        }
        for bad in ["", "Main", "a b", "a/b", "..", "ä", &"x".repeat(65)] {
            assert!(Shop::parse(bad).is_none(), "{bad}");
        }
    }
}
