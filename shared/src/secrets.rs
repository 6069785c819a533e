//! The providers' secrets: read from Secrets Manager (or inline, locally), cached, and read again when they may have changed.
//!
//! Every list holds the live values, so a rotation needs no downtime. The last good value is kept while Secrets
//! Manager is unreachable. No secret's text reaches a log or an error message.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_secretsmanager::error::{ProvideErrorMetadata as _, SdkError};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq as _;

use crate::answer::Refusal;
use crate::aws;
use crate::identity::Shop;
use crate::settings::{SettingError, Settings};

/// How long a value is used without asking again.
const CACHED_FOR: Duration = Duration::from_mins(5);
/// How soon a failed verification, or a failed read, may ask again.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// A token that is part of a webhook's URL: `[A-Za-z0-9_-]{20,128}`.
#[derive(Debug)]
pub struct Token(SecretString);

impl Token {
    /// Whether `text` has the form that every token has.
    pub(crate) fn is_well_formed(text: &[u8]) -> bool {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        (20..=128).contains(&text.len()) && text.iter().all(plain)
    }

    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if Self::is_well_formed(text.as_bytes()) {
            Ok(Self(text.into()))
        } else {
            Err(D::Error::custom("a token is not [A-Za-z0-9_-]{20,128}"))
        }
    }
}

/// A key that signatures are made with, or an API key: any text but none.
#[derive(Debug)]
pub struct SigningKey(SecretString);

impl SigningKey {
    /// Whether it is `given`, compared in constant time.
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
            Err(D::Error::custom("a key is empty"))
        } else {
            Ok(Self(text.into()))
        }
    }
}

/// The values that are live at the moment: at least one, two during a rotation.
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
            Err(D::Error::custom("a list of live values is empty"))
        } else {
            Ok(Self(values))
        }
    }
}

/// One provider's secret: what each shop is verified with.
#[derive(Deserialize)]
struct Document<S> {
    shops: BTreeMap<String, S>,
}

/// The secrets of one shop, or of none: a shop that is not configured has none.
pub type ShopSecrets<S> = Option<Arc<S>>;

/// The secrets of all shops of one provider.
pub struct Secrets<S> {
    source: Source,
    cache: Mutex<Cache<S>>,
    clock: fn() -> Moment,
}

/// A point in time on two clocks. Between deliveries Lambda freezes the process, and the one that never goes back may
/// have stood still; the other may have been set back.
#[derive(Clone, Copy)]
struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// The time since `earlier`, by whichever clock shows more of it.
    fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        self.steady.saturating_duration_since(earlier.steady).max(wall)
    }
}

enum Source {
    Inline(SecretString),
    Arn {
        client: aws_sdk_secretsmanager::Client,
        arn: String,
    },
    #[cfg(test)]
    Script(tests::Script),
}

struct Cache<S> {
    shops: Option<BTreeMap<String, Arc<S>>>,
    /// Secrets Manager's name for this value.
    version: Option<String>,
    read_at: Option<Moment>,
    asked_at: Option<Moment>,
}

enum Refreshed {
    Changed,
    Same,
}

impl<S> Cache<S> {
    /// There is no value yet, or one without a shop, or it is old and was not asked for just now: an outage is not asked through by every delivery.
    fn is_due(&self, now: Moment) -> bool {
        self.shops.as_ref().is_none_or(BTreeMap::is_empty)
            || (passed(self.read_at, CACHED_FOR, now) && self.may_ask_again(now))
    }

    fn may_ask_again(&self, now: Moment) -> bool {
        passed(self.asked_at, ASKED_AGAIN_AFTER, now)
    }
}

fn passed(since: Option<Moment>, time: Duration, now: Moment) -> bool {
    since.is_none_or(|since| now.since(since) >= time)
}

impl<S: DeserializeOwned> Secrets<S> {
    /// The secrets that `SECRETS` names (an ARN) or holds (the JSON itself).
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        let secrets = settings.required("SECRETS")?;
        let source = if secrets.starts_with("arn:") {
            Source::Arn {
                client: aws::secrets_manager(settings)?,
                arn: secrets,
            }
        } else {
            Source::Inline(secrets.into())
        };
        Ok(Self::of_source(source, Moment::now))
    }

    fn of_source(source: Source, clock: fn() -> Moment) -> Self {
        Self {
            source,
            cache: Mutex::new(Cache {
                shops: None,
                version: None,
                read_at: None,
                asked_at: None,
            }),
            clock,
        }
    }

    /// What the operator knows the secret by: its ARN, or the variable that holds it.
    pub fn name(&self) -> &str {
        match &self.source {
            Source::Arn { arn, .. } => arn,
            Source::Inline(_) => "SECRETS",
            #[cfg(test)]
            Source::Script(_) => "script",
        }
    }

    /// The secrets of `shop`, as of at most five minutes ago.
    ///
    /// # Errors
    /// 503 where Secrets Manager cannot be reached and no value is cached, 500 where the secret is missing or malformed.
    pub async fn of(&self, shop: &Shop) -> Result<ShopSecrets<S>, Refusal> {
        if self.cached(|cache| cache.is_due((self.clock)()))
            && let Err(refusal) = self.refresh().await
        {
            if self.cached(|cache| cache.shops.is_none()) {
                return Err(refusal);
            }
            self.warn_of(&refusal);
        }
        self.cached(|cache| match &cache.shops {
            Some(shops) => of_shop(shops, shop),
            None => Ok(None),
        })
    }

    /// Whether the secret, as it was last read, names `shop`.
    pub(crate) fn has_shop(&self, shop: &Shop) -> bool {
        let shop = shop.as_str();
        self.cached(|cache| cache.shops.as_ref().is_some_and(|shops| shops.contains_key(shop)))
    }

    /// Reads the secrets ahead of their first use.
    pub async fn prepare(&self) -> Result<(), Refusal> {
        self.refresh().await?;
        self.cached(|cache| match &cache.shops {
            Some(shops) if shops.is_empty() => Err(no_shop()),
            _ => Ok(()),
        })
    }

    /// The secrets of `shop`, if they have changed; asked for after a verification failed, at most once in 30 seconds.
    pub async fn changed(&self, shop: &Shop) -> ShopSecrets<S> {
        let inline = matches!(self.source, Source::Inline(_));
        if inline || !self.cached(|cache| cache.may_ask_again((self.clock)())) {
            return None;
        }
        match self.refresh().await {
            Ok(Refreshed::Changed) => self.cached(|cache| cache.shops.as_ref()?.get(shop.as_str()).cloned()),
            Ok(Refreshed::Same) => None,
            Err(refusal) => {
                self.warn_of(&refusal);
                None
            }
        }
    }

    fn warn_of(&self, refusal: &Refusal) {
        let secret = self.name();
        tracing::warn!(secret, cause = %refusal, "the secret could not be read again; the last good value is used");
    }

    async fn refresh(&self) -> Result<Refreshed, Refusal> {
        let read = self.read().await;
        self.cached(|cache| {
            let now = Some((self.clock)());
            cache.asked_at = now;
            let (version, shops) = read?;
            let same = cache.shops.is_some() && cache.version == version;
            *cache = Cache {
                shops: Some(shops),
                version,
                read_at: now,
                asked_at: now,
            };
            Ok(if same { Refreshed::Same } else { Refreshed::Changed })
        })
    }

    async fn read(&self) -> Result<(Option<String>, BTreeMap<String, Arc<S>>), Refusal> {
        match &self.source {
            Source::Inline(json) => Ok((None, parse(json.expose_secret())?)),
            Source::Arn { client, arn } => {
                let output = client
                    .get_secret_value()
                    .secret_id(arn)
                    .send()
                    .await
                    .map_err(|error| refusal_for(&error))?;
                let missing = || Refusal::Misconfigured("the secret holds no text".to_owned());
                let shops = parse(output.secret_string().ok_or_else(missing)?)?;
                Ok((output.version_id, shops))
            }
            #[cfg(test)]
            Source::Script(script) => {
                let (version, json) = script.read()?;
                Ok((Some(version), parse(&json)?))
            }
        }
    }

    fn cached<T>(&self, with: impl FnOnce(&mut Cache<S>) -> T) -> T {
        with(&mut self.cache.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A secret may be emptied, so that nothing is let in any more.
fn of_shop<S>(shops: &BTreeMap<String, Arc<S>>, shop: &Shop) -> Result<ShopSecrets<S>, Refusal> {
    if shops.is_empty() {
        return Err(no_shop());
    }
    Ok(shops.get(shop.as_str()).cloned())
}

fn no_shop() -> Refusal {
    Refusal::Misconfigured("the secret names no shop".to_owned())
}

fn parse<S: DeserializeOwned>(json: &str) -> Result<BTreeMap<String, Arc<S>>, Refusal> {
    // serde's own message may quote a value, so only the place is told.
    let document: Document<S> = serde_json::from_str(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Refusal::Misconfigured(format!(
            "the secret is not as documented (line {line}, column {column})"
        ))
    })?;
    Ok(document
        .shops
        .into_iter()
        .map(|(shop, secrets)| (shop, Arc::new(secrets)))
        .collect())
}

fn refusal_for(error: &SdkError<aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError>) -> Refusal {
    const OURS: [&str; 5] = [
        "ResourceNotFoundException",
        "AccessDeniedException",
        "DecryptionFailure",
        "InvalidRequestException",
        "InvalidParameterException",
    ];
    match error.code() {
        Some(code) if OURS.contains(&code) => Refusal::Misconfigured(format!("Secrets Manager answers {code}")),
        Some(code) => Refusal::Unavailable(format!("Secrets Manager answers {code}")),
        None => Refusal::Unavailable(format!("Secrets Manager cannot be reached: {}", aws::cause(error))),
    }
}

#[cfg(test)]
mod tests;
