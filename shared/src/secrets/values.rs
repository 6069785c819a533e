//! The types of the values in a shop's secrets.

use lambda_http::http;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq as _;

pub(super) const NO_TOKEN: &str = "a token is not [A-Za-z0-9_-]{20,128}";
pub(super) const NO_KEY: &str = "a key is empty";
pub(super) const NO_VALUES: &str = "a list of live values is empty";
pub(super) const NO_HEADER_NAME: &str = "not a valid header name";

/// A token that is part of a webhook's URL: `[A-Za-z0-9_-]{20,128}`.
#[derive(Debug)]
pub struct Token(SecretString);

impl Token {
    /// Whether `text` has the form of a token.
    pub(crate) fn is_well_formed(text: &[u8]) -> bool {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        (20..=128).contains(&text.len()) && text.iter().all(plain)
    }

    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }

    /// The token as a part of a URL, in which it needs no escapes.
    pub fn in_url(&self) -> &str {
        self.0.expose_secret()
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if Self::is_well_formed(text.as_bytes()) {
            Ok(Self(text.into()))
        } else {
            Err(D::Error::custom(NO_TOKEN))
        }
    }
}

/// A signing key or an API key: any text that is not empty.
#[derive(Debug)]
pub struct SigningKey(SecretString);

impl SigningKey {
    /// Whether the key equals `given`, compared in constant time.
    pub fn matches(&self, given: &[u8]) -> bool {
        self.expose().ct_eq(given).into()
    }

    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

impl<'de> Deserialize<'de> for SigningKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            Err(D::Error::custom(NO_KEY))
        } else {
            Ok(Self(text.into()))
        }
    }
}

/// The live values of a list: at least one, and two during a rotation.
#[derive(Debug)]
pub struct Live<T>(Vec<T>);

impl<T> std::ops::Deref for Live<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Live<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = Vec::deserialize(deserializer)?;
        if values.is_empty() {
            Err(D::Error::custom(NO_VALUES))
        } else {
            Ok(Self(values))
        }
    }
}

/// A list of live values that may be left out, which switches its check off. `null` is rejected, because it may be
/// meant to switch the check on.
///
/// A field of this type must be declared with `#[serde(default)]`.
#[derive(Debug)]
pub struct OptIn<T>(Option<Live<T>>);

impl<T> OptIn<T> {
    /// The live values, if the check is on.
    pub fn live(&self) -> Option<&Live<T>> {
        self.0.as_ref()
    }
}

impl<T> Default for OptIn<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OptIn<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Live::deserialize(deserializer).map(|live| Self(Some(live)))
    }
}

/// The name of a header of deliveries.
#[derive(Debug)]
pub struct HeaderName(http::HeaderName);

impl HeaderName {
    /// Creates a name from a literal in lower case. Panics if it is not valid.
    pub const fn from_static(name: &'static str) -> Self {
        Self(http::HeaderName::from_static(name))
    }

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl<'de> Deserialize<'de> for HeaderName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let name = http::HeaderName::try_from(name).map_err(|_| D::Error::custom(NO_HEADER_NAME))?;
        Ok(Self(name))
    }
}
