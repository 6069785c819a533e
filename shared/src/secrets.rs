//! The providers' secrets: read from Secrets Manager (or inline, locally), cached, and read again when they may have changed.
//!
//! Every list holds the live values, so a rotation needs no downtime. The last good value is used for as long as Secrets
//! Manager is unreachable. Once Secrets Manager has answered that there is no usable value (the secret is malformed, deleted,
//! or not ours to read), the last good value is used for [`GRACE`] and no longer, and each read that fails so is reported.
//! Shops are read one by one: a malformed one leaves the others as they are. No secret's text reaches a log or an error message.
//!
//! | Secrets Manager is asked | at most once in |
//! |---|---|
//! | about a good value that is five minutes old | 30 s |
//! | after a verification failed, since the value may have been rotated | 30 s |
//! | about a value that cannot be used any more, within its grace | 30 s |
//! | about a secret that cannot be used or holds no shop, while deliveries are refused for it | 5 s |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_secretsmanager::error::{ProvideErrorMetadata as _, SdkError};
use lambda_http::http;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_path_to_error::{Path, Segment};
use subtle::ConstantTimeEq as _;
use tokio::time::{Instant, timeout_at};

use crate::answer::Refusal;
use crate::aws;
use crate::identity::Shop;
use crate::moment::Moment;
use crate::settings::{SettingError, Settings};

mod options;

/// How long a value is used without asking again.
const CACHED_FOR: Duration = Duration::from_mins(5);
/// How soon a failed verification, or a failed read, may ask again while there is a good value.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How soon Secrets Manager is asked again while there is no good value to verify deliveries with.
const WANTED_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long the last good value is used after the first read that found the secret, or the shop's part of it, unusable.
pub const GRACE: Duration = Duration::from_mins(15);
/// How many malformed shops are named in one report.
const MOST_SHOPS_NAMED: usize = 10;

const NO_TOKEN: &str = "a token is not [A-Za-z0-9_-]{20,128}";
const NO_KEY: &str = "a key is empty";
const NO_VALUES: &str = "a list of live values is empty";
const NO_HEADER_NAME: &str = "this is not a valid name of a header";

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
            Err(D::Error::custom(NO_TOKEN))
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
            Err(D::Error::custom(NO_KEY))
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
            Err(D::Error::custom(NO_VALUES))
        } else {
            Ok(Self(values))
        }
    }
}

/// A list of live values that may be left out: without it, the check that it is for is off. `null` is refused, because it may be
/// meant to switch the check on.
///
/// A field of this type is declared with `#[serde(default)]`.
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

/// The name of a header that deliveries carry.
#[derive(Debug)]
pub struct HeaderName(http::HeaderName);

impl HeaderName {
    /// A name that is known to be valid, in lower case.
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

/// One provider's secret: what each shop is verified with, not parsed yet.
#[derive(Deserialize)]
struct Document {
    shops: BTreeMap<String, Box<RawValue>>,
}

/// What a secret says of each shop, or what is wrong with that.
type Parsed<S> = BTreeMap<String, Result<ParsedShop<S>, String>>;

/// A shop's secrets, and after how many hours without a delivery it counts as silent, if its secret says so.
type ParsedShop<S> = (S, Option<u16>);

/// The secrets of one shop, or of none: a shop that is not configured has none.
pub type ShopSecrets<S> = Option<Arc<S>>;

/// The secrets of all shops of one provider.
pub struct Secrets<S> {
    source: Source,
    cache: Mutex<Cache<S>>,
    /// Held during a read: whoever else wants one waits for this one's result.
    reading: tokio::sync::Mutex<()>,
    clock: fn() -> Moment,
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
    /// As of the last read that succeeded.
    shops: Option<BTreeMap<String, Known<S>>>,
    /// The `silence_hours` of the shops that have them.
    silence_hours: BTreeMap<String, u16>,
    /// Secrets Manager's name for this value.
    version: Option<String>,
    read_at: Option<Moment>,
    asked_at: Option<Moment>,
    /// Why the last read failed, if it did.
    failure: Option<Refusal>,
    /// Why the secret cannot be used as it is now. An outage says nothing about that.
    fault: Option<Fault>,
    /// What is wrong with the secret, by read, for the operator.
    reports: Vec<String>,
}

/// What is known of one shop.
enum Known<S> {
    Good(Arc<S>),
    Malformed { last_good: ShopSecrets<S>, fault: Fault },
}

/// Why a secret or one shop's part of it cannot be used.
struct Fault {
    cause: String,
    /// When it was first found.
    since: Moment,
}

impl Fault {
    fn is_within_grace(&self, now: Moment) -> bool {
        now.since(self.since) < GRACE
    }

    fn refusal(&self) -> Refusal {
        Refusal::Misconfigured(self.cause.clone())
    }
}

impl<S> Cache<S> {
    fn new() -> Self {
        Self {
            shops: None,
            silence_hours: BTreeMap::new(),
            version: None,
            read_at: None,
            asked_at: None,
            failure: None,
            fault: None,
            reports: Vec::new(),
        }
    }

    /// What a delivery for `shop` is verified with now.
    fn of(&self, shop: &Shop, now: Moment) -> Result<ShopSecrets<S>, Refusal> {
        if let Some(fault) = self.fault.as_ref().filter(|fault| !fault.is_within_grace(now)) {
            return Err(fault.refusal());
        }
        let Some(shops) = &self.shops else {
            let unread = || Refusal::Unavailable("the secret is not read yet".to_owned());
            return Err(self.failure.clone().unwrap_or_else(unread));
        };
        // A secret may be emptied, so that nothing is let in any more.
        if shops.is_empty() {
            return Err(no_shop());
        }
        match shops.get(shop.as_str()) {
            None => Ok(None),
            Some(Known::Good(secrets)) => Ok(Some(Arc::clone(secrets))),
            Some(Known::Malformed { last_good, fault }) => match last_good {
                Some(secrets) if fault.is_within_grace(now) => Ok(Some(Arc::clone(secrets))),
                _ => Err(fault.refusal()),
            },
        }
    }

    /// Whether Secrets Manager is asked before a delivery for `shop` is verified.
    fn is_due(&self, shop: &Shop, now: Moment) -> bool {
        let is_malformed = || matches!(self.shops.as_ref()?.get(shop.as_str())?, Known::Malformed { .. }).then_some(());
        match self.of(shop, now) {
            Err(_) => passed(self.asked_at, WANTED_AGAIN_AFTER, now),
            Ok(_) if self.fault.is_some() || is_malformed().is_some() => self.may_ask_again(now),
            Ok(_) => passed(self.read_at, CACHED_FOR, now) && self.may_ask_again(now),
        }
    }

    fn may_ask_again(&self, now: Moment) -> bool {
        passed(self.asked_at, ASKED_AGAIN_AFTER, now)
    }

    /// Takes in what a read found.
    fn update(&mut self, version: Option<String>, parsed: Parsed<S>, now: Moment) {
        self.read_at = Some(now);
        self.failure = None;
        let fault = self.fault.take();
        let known = match self.shops.take() {
            // The same value: whoever holds a shop's secrets can tell that they have not changed.
            Some(known) if self.version == version => known,
            known => {
                let mut known = known.unwrap_or_default();
                let since = fault.map_or(now, |fault| fault.since);
                self.silence_hours.clear();
                let silence_hours = &mut self.silence_hours;
                let of_shop = |(shop, parsed): (String, Result<ParsedShop<S>, String>)| {
                    let parsed = parsed.map(|(secrets, hours)| {
                        silence_hours.extend(hours.map(|hours| (shop.clone(), hours)));
                        secrets
                    });
                    let found = Known::of(parsed, known.remove(&shop), since);
                    (shop, found)
                };
                parsed.into_iter().map(of_shop).collect()
            }
        };
        self.version = version;
        self.reports.extend(report(&known));
        self.shops = Some(known);
    }

    /// Takes in that a read failed.
    fn fail(&mut self, refusal: &Refusal, now: Moment) {
        self.failure = Some(refusal.clone());
        if let Refusal::Misconfigured(cause) = refusal {
            let since = self.fault.take().map_or(now, |fault| fault.since);
            self.fault = Some(Fault {
                cause: cause.clone(),
                since,
            });
            self.reports.push(cause.clone());
        }
    }
}

impl<S> Known<S> {
    fn of(parsed: Result<S, String>, before: Option<Self>, now: Moment) -> Self {
        let cause = match parsed {
            Ok(secrets) => return Self::Good(Arc::new(secrets)),
            Err(cause) => cause,
        };
        let (last_good, since) = match before {
            Some(Self::Good(secrets)) => (Some(secrets), now),
            Some(Self::Malformed { last_good, fault }) => (last_good, fault.since),
            None => (None, now),
        };
        let fault = Fault { cause, since };
        Self::Malformed { last_good, fault }
    }
}

/// What is wrong with the malformed shops, if there are any.
fn report<S>(shops: &BTreeMap<String, Known<S>>) -> Option<String> {
    let causes = shops.values().filter_map(|known| match known {
        Known::Good(_) => None,
        Known::Malformed { fault, .. } => Some(fault.cause.as_str()),
    });
    let causes: Vec<&str> = causes.collect();
    let (named, others) = causes.split_at(causes.len().min(MOST_SHOPS_NAMED));
    let mut report = named.join("; ");
    if !others.is_empty() {
        // Writing to a text does not fail.
        let _ = write!(report, "; and {} other shops", others.len());
    }
    (!report.is_empty()).then_some(report)
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
            cache: Mutex::new(Cache::new()),
            reading: tokio::sync::Mutex::default(),
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

    /// The secrets of `shop`, as of at most five minutes ago where Secrets Manager answers until `until`.
    ///
    /// # Errors
    /// 503 where Secrets Manager cannot be reached and no value is cached, 500 where the secret, or the shop's part of it, is missing
    /// or malformed and no value is cached or the last good one is past its grace.
    pub async fn of(&self, shop: &Shop, until: Instant) -> Result<ShopSecrets<S>, Refusal> {
        self.refresh_if(until, |cache, now| cache.is_due(shop, now)).await;
        self.cached(|cache, now| cache.of(shop, now))
    }

    /// Whether the secret, as it was last read, names `shop`.
    pub(crate) fn has_shop(&self, shop: &Shop) -> bool {
        let shop = shop.as_str();
        self.cached(|cache, _| cache.shops.as_ref().is_some_and(|shops| shops.contains_key(shop)))
    }

    /// After how many hours without a delivery `shop` counts as silent, if the secret, as it was last read, says so.
    pub(crate) fn silence_hours(&self, shop: &Shop) -> Option<u16> {
        self.cached(|cache, _| cache.silence_hours.get(shop.as_str()).copied())
    }

    /// Whether deliveries for `shop` can be verified with the secret as it was last read.
    pub(crate) fn is_usable(&self, shop: &Shop) -> bool {
        self.cached(|cache, now| cache.of(shop, now).is_ok())
    }

    /// Reads the secrets ahead of their first use.
    ///
    /// # Errors
    /// Where that has failed, or the secret holds no shop. What is wrong with the secret itself is reported by [`Self::reports`].
    pub async fn prepare(&self, until: Instant) -> Result<(), Refusal> {
        self.refresh_if(until, |_, _| true).await;
        self.cached(|cache, _| match (&cache.failure, &cache.shops) {
            (Some(refusal @ Refusal::Unavailable(_)), _) => Err(refusal.clone()),
            (_, Some(shops)) if shops.is_empty() => Err(no_shop()),
            _ => Ok(()),
        })
    }

    /// The secrets of `shop`, if they are others than `used`; asked for after a verification failed, at most once in 30 seconds.
    pub async fn changed(&self, shop: &Shop, used: &ShopSecrets<S>, until: Instant) -> ShopSecrets<S> {
        if matches!(self.source, Source::Inline(_)) {
            return None;
        }
        self.refresh_if(until, Cache::may_ask_again).await;
        let current = self.cached(|cache, now| cache.of(shop, now)).ok()??;
        let is_same = used.as_ref().is_some_and(|used| Arc::ptr_eq(used, &current));
        (!is_same).then_some(current)
    }

    /// What reads have found to be wrong with the secret since this was asked last, one text for each read. Deliveries may still pass
    /// with the last good value.
    pub fn reports(&self) -> Vec<String> {
        self.cached(|cache, _| std::mem::take(&mut cache.reports))
    }

    /// Reads the secret if that is due, also once nobody else is reading it any more.
    async fn refresh_if(&self, until: Instant, is_due: impl Fn(&Cache<S>, Moment) -> bool) {
        if !self.cached(|cache, now| is_due(cache, now)) {
            return;
        }
        let Ok(_reading) = timeout_at(until, self.reading.lock()).await else {
            return;
        };
        if !self.cached(|cache, now| is_due(cache, now)) {
            return;
        }
        let late = || Refusal::Unavailable("Secrets Manager does not answer in time".to_owned());
        let read = timeout_at(until, self.read()).await.unwrap_or_else(|_| Err(late()));
        let failed = self.cached(|cache, now| {
            cache.asked_at = Some(now);
            match read {
                Ok((version, parsed)) => {
                    cache.update(version, parsed, now);
                    None
                }
                Err(refusal) => {
                    cache.fail(&refusal, now);
                    cache.shops.is_some().then_some(refusal)
                }
            }
        });
        if let Some(cause @ Refusal::Unavailable(_)) = failed {
            let secret = self.name();
            tracing::warn!(secret, %cause, "the secret could not be read again; the last good value is used");
        }
    }

    async fn read(&self) -> Result<(Option<String>, Parsed<S>), Refusal> {
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
                let parsed = parse(output.secret_string().ok_or_else(missing)?)?;
                Ok((output.version_id, parsed))
            }
            #[cfg(test)]
            Source::Script(script) => {
                let (version, json) = script.read().await?;
                Ok((Some(version), parse(&json)?))
            }
        }
    }

    fn cached<T>(&self, with: impl FnOnce(&mut Cache<S>, Moment) -> T) -> T {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        with(&mut cache, (self.clock)())
    }
}

fn no_shop() -> Refusal {
    Refusal::Misconfigured("the secret names no shop".to_owned())
}

/// Reads a secret, shop by shop. An editor may have put a byte order mark before it.
fn parse<S: DeserializeOwned>(json: &str) -> Result<Parsed<S>, Refusal> {
    let json = json.strip_prefix('\u{feff}').unwrap_or(json);
    // serde's own message may quote a value, so only the place is told.
    let document: Document = serde_json::from_str(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Refusal::Misconfigured(format!(
            "the secret is not as documented (line {line}, column {column})"
        ))
    })?;
    let shops = document.shops.into_iter().map(|(shop, json)| {
        let parsed = parse_shop(json.get()).map_err(|cause| {
            // What is no name of a shop may be a value in the wrong place.
            let name = Shop::parse(&shop);
            let name = name.as_ref().map_or("with an invalid name", Shop::as_str);
            format!("the secret is not as documented: shop {name}: {cause}")
        });
        (shop, parsed)
    });
    Ok(shops.collect())
}

/// Reads one shop's secrets; the error names the field, and never a value.
fn parse_shop<S: DeserializeOwned>(json: &str) -> Result<ParsedShop<S>, String> {
    let (silence_hours, json) = options::take_silence_hours(json)?;
    let mut json = serde_json::Deserializer::from_str(&json);
    let secrets = serde_path_to_error::deserialize(&mut json);
    secrets.map(|secrets| (secrets, silence_hours)).map_err(|error| {
        let place = place(error.path());
        // serde's own messages may quote a value: of them only the name of a missing field is used, which comes from the code.
        let message = error.inner().to_string();
        let ours = [NO_TOKEN, NO_KEY, NO_VALUES, NO_HEADER_NAME];
        if let Some(ours) = ours.into_iter().find(|ours| message.starts_with(ours)) {
            return format!("{place}: {ours}");
        }
        let missing = message
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split_once('`'));
        if let Some((field, _)) = missing {
            return format!("{field} is missing");
        }
        if message.starts_with("unknown field") {
            return format!("{place} is an unknown field");
        }
        format!("{place} is not as documented")
    })
}

/// Where something is within a shop's secrets, such as `tokens[1]`. A name that is not a field's is left out, because it may be a value.
fn place(path: &Path) -> String {
    let mut place = String::new();
    for segment in path {
        // Writing to a text does not fail.
        let _ = match segment {
            Segment::Seq { index } => write!(place, "[{index}]"),
            Segment::Map { key } if is_name_of_a_field(key) => {
                let dot = if place.is_empty() { "" } else { "." };
                write!(place, "{dot}{key}")
            }
            _ => place.write_char('?'),
        };
    }
    if place.is_empty() {
        "its value".to_owned()
    } else {
        place
    }
}

fn is_name_of_a_field(key: &str) -> bool {
    (1..=32).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Only an outage leaves the last good value in force for as long as it takes: no answer, throttling, and errors of the service.
fn refusal_for(error: &SdkError<aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError>) -> Refusal {
    const THROTTLED: [&str; 4] = [
        "ThrottlingException",
        "Throttling",
        "TooManyRequestsException",
        "RequestLimitExceeded",
    ];
    let Some(status) = error.raw_response().map(|response| response.status().as_u16()) else {
        return Refusal::Unavailable(format!("Secrets Manager cannot be reached: {}", aws::cause(error)));
    };
    let is_throttled = [408, 429].contains(&status) || error.code().is_some_and(|code| THROTTLED.contains(&code));
    let answer = error.code().map_or_else(|| status.to_string(), str::to_owned);
    let cause = format!("Secrets Manager answers {answer}");
    if (400..500).contains(&status) && !is_throttled {
        Refusal::Misconfigured(cause)
    } else {
        Refusal::Unavailable(cause)
    }
}

#[cfg(test)]
mod tests;
