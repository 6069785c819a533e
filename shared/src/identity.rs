//! What makes an event the same event again.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Lower-case hex SHA-256 of `bytes`.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// The operator's own name for one shop, `[a-z0-9-]{1,64}`; it selects the shop's secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shop(String);

impl Shop {
    /// `None` if `name` is not `[a-z0-9-]{1,64}`.
    pub fn parse(name: &str) -> Option<Self> {
        let letters = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        ((1..=64).contains(&name.len()) && letters).then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Shop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The parts of a payload that make it this event and no other, in a fixed order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdempotencyKey {
    /// The provider's own words, the event's name among them where the provider has one.
    Parts(Vec<String>),
    /// The provider's own words, which several events share, so only the same bytes are the same event.
    PartsAndBody(Vec<String>),
    /// The provider gives nothing to tell a repeat by, so only the same bytes are the same event.
    Body,
}

impl IdempotencyKey {
    /// An identity of the provider's own words.
    pub fn of<const N: usize>(parts: [String; N]) -> Self {
        Self::Parts(parts.into())
    }
}

/// How many shards the indexes `work` and `by_hour` are cut into, so that neither a backlog nor a busy hour is one hot partition. An
/// event's shard is the first hex digit of its id.
///
/// Fewer shards than before would hide what is in the others; more are read by all code from here on.
pub const SHARDS: u8 = 16;

/// Lower-case hex SHA-256 of the JSON array `[provider, shop, identity...]`.
///
/// It follows from the payload alone, never from the clock: a retry must meet its first attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transparent))]
pub struct EventId(String);

impl EventId {
    /// The id of the event with this identity; `body` stands in where there is none.
    pub fn new(provider: &str, shop: &Shop, key: &IdempotencyKey, body: &[u8]) -> Self {
        let mut parts = vec![provider.to_owned(), shop.as_str().to_owned()];
        match key {
            IdempotencyKey::Parts(words) => parts.extend_from_slice(words),
            IdempotencyKey::PartsAndBody(words) => {
                parts.extend_from_slice(words);
                parts.push(sha256_hex(body));
            }
            IdempotencyKey::Body => parts.push(sha256_hex(body)),
        }
        let array = serde_json::to_vec(&parts).expect("strings are JSON");
        Self(sha256_hex(&array))
    }

    /// The id of a conflict that is published as an event of its own: the hash of the JSON array
    /// `[provider, shop, identity..., payload_sha256]`, so that it follows from the payload alone, too.
    #[cfg(feature = "receiver")]
    pub fn of_conflict(provider: &str, shop: &Shop, key: &IdempotencyKey, payload_sha256: &str) -> Self {
        let words = match key {
            IdempotencyKey::Parts(words) | IdempotencyKey::PartsAndBody(words) => words.as_slice(),
            // Where the body is part of the id, another body is another event and no conflict.
            IdempotencyKey::Body => &[],
        };
        let words = words.iter().cloned().chain([payload_sha256.to_owned()]);
        Self::new(provider, shop, &IdempotencyKey::Parts(words.collect()), b"")
    }

    /// Reads 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (text.len() == 64 && hex).then(|| Self(text.to_owned()))
    }

    /// The id as it stands in the table.
    #[cfg(feature = "receiver")]
    pub(crate) fn stored(key: &str) -> Self {
        Self(key.to_owned())
    }

    /// The 64 hex digits.
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
    fn words_never_run_into_each_other() {
        let one = EventId::new("cartum", &main(), &IdempotencyKey::of(["a\",\"b".into()]), b"");
        let two = EventId::new("cartum", &main(), &IdempotencyKey::of(["a".into(), "b".into()]), b"");
        assert_ne!(one, two);
    }

    #[test]
    fn without_words_the_bytes_decide() {
        let id = |body: &[u8]| EventId::new("deeple", &main(), &IdempotencyKey::Body, body);
        assert_eq!(id(b"{}"), id(b"{}"));
        assert_ne!(id(b"{}"), id(b"{ }"));
    }

    #[test]
    fn words_that_events_share_are_told_apart_by_the_bytes() {
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
