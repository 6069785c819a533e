//! The secrets of a provider: read from Secrets Manager (or from the setting itself, locally), cached, and read again
//! when they may have changed.
//!
//! Every list holds the live values, so a rotation needs no downtime. While Secrets Manager is unreachable, the last
//! good value stays in use. After Secrets Manager has answered that there is no usable value (the secret is malformed,
//! deleted, or must not be read), the last good value is used for [`GRACE`] only, and each such read is reported. Shops
//! are parsed one by one, so a malformed shop does not affect the others. No text of a secret reaches a log or an error
//! message.
//!
//! | Secrets Manager is called | at most once in |
//! |---|---|
//! | for a good value that is five minutes old | 30 s |
//! | after a failed verification, because the value may have been rotated | 30 s |
//! | for a value that is no longer usable, within its grace period | 30 s |
//! | for a secret that is not usable or names no shop, while deliveries are refused because of it | 5 s |

mod document;
mod options;
mod values;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_secretsmanager::error::{ProvideErrorMetadata as _, SdkError};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use self::document::{Parsed, ParsedShop, parse, parse_api};
use self::options::Options;
pub use self::values::{HeaderName, Live, OptIn, SigningKey, Token};
use crate::answer::Refusal;
use crate::aws;
use crate::codes::Code;
use crate::identity::Shop;
use crate::moment::Moment;
use crate::settings::{SettingError, Settings};

/// How long a value is used before it is read again.
const CACHED_FOR: Duration = Duration::from_mins(5);
/// The time after which a value is read again, after a failed verification or a failed read, while there is a good
/// value.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// The time after which a value is read again while there is no good value with which deliveries can be verified.
const READ_AGAIN_WITHOUT_VALUE_AFTER: Duration = Duration::from_secs(5);
/// How long the last good value is used after the first read that found the secret, or the part of a shop, unusable.
pub const GRACE: Duration = Duration::from_mins(15);
/// How many malformed shops are named in one report.
const MOST_SHOPS_NAMED: usize = 10;

/// The secrets of one shop; `None` if the shop is not configured.
pub type ShopSecrets<S> = Option<Arc<S>>;

/// The secrets of all shops of one provider.
pub struct Secrets<S> {
    source: Source,
    cache: Mutex<Cache<S>>,
    /// Held during a read, so that concurrent deliveries share its result.
    reading: tokio::sync::Mutex<()>,
    clock: fn() -> Moment,
}

enum Source {
    /// The name of the setting, and the JSON that it holds.
    Inline(&'static str, SecretString),
    Arn {
        client: aws_sdk_secretsmanager::Client,
        arn: String,
    },
    #[cfg(test)]
    Script(tests::Script),
}

struct Cache<S> {
    /// The shops as of the last successful read.
    shops: Option<BTreeMap<String, Known<S>>>,
    /// The options of the shops that are not malformed.
    options: BTreeMap<String, Options>,
    /// The version id of this value in Secrets Manager.
    version: Option<String>,
    read_at: Option<Moment>,
    called_at: Option<Moment>,
    /// The error of the last read, if it failed.
    failure: Option<Refusal>,
    /// The fault because of which the secret is not usable. An outage is not such a fault.
    fault: Option<Fault>,
    /// The faults of the secret for the operator, one text for each read.
    reports: Vec<String>,
}

/// The cached secrets of one shop.
enum Known<S> {
    Good(Arc<S>),
    Malformed { last_good: ShopSecrets<S>, fault: Fault },
}

/// The fault because of which a secret, or the part of a shop, is not usable.
struct Fault {
    cause: String,
    /// The time at which the fault was first found.
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
            options: BTreeMap::new(),
            version: None,
            read_at: None,
            called_at: None,
            failure: None,
            fault: None,
            reports: Vec::new(),
        }
    }

    /// The secrets with which a delivery for `shop` is verified at `now`.
    fn of(&self, shop: &Shop, now: Moment) -> Result<ShopSecrets<S>, Refusal> {
        if let Some(fault) = self.fault.as_ref().filter(|fault| !fault.is_within_grace(now)) {
            return Err(fault.refusal());
        }
        let Some(shops) = &self.shops else {
            let unread = || Refusal::Unavailable("the secret has not been read yet".to_owned());
            return Err(self.failure.clone().unwrap_or_else(unread));
        };
        // An operator may have emptied the secret to refuse all deliveries.
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

    /// Whether the secret must be read before a delivery for `shop` is verified.
    fn is_due(&self, shop: &Shop, now: Moment) -> bool {
        let is_malformed = || matches!(self.shops.as_ref()?.get(shop.as_str())?, Known::Malformed { .. }).then_some(());
        match self.of(shop, now) {
            Err(_) => passed(self.called_at, READ_AGAIN_WITHOUT_VALUE_AFTER, now),
            Ok(_) if self.fault.is_some() || is_malformed().is_some() => self.may_read_again(now),
            Ok(_) => passed(self.read_at, CACHED_FOR, now) && self.may_read_again(now),
        }
    }

    fn may_read_again(&self, now: Moment) -> bool {
        passed(self.called_at, READ_AGAIN_AFTER, now)
    }

    /// Stores the result of a successful read.
    fn update(&mut self, version: Option<String>, parsed: Parsed<S>, now: Moment) {
        self.read_at = Some(now);
        self.failure = None;
        let fault = self.fault.take();
        let known = match self.shops.take() {
            // Keep the same `Arc`s, because `changed` compares them by pointer.
            Some(known) if self.version == version => known,
            known => {
                let mut known = known.unwrap_or_default();
                let since = fault.map_or(now, |fault| fault.since);
                self.options.clear();
                let options_of = &mut self.options;
                let of_shop = |(shop, parsed): (String, Result<ParsedShop<S>, String>)| {
                    let parsed = parsed.map(|(secrets, options)| {
                        options_of.insert(shop.clone(), options);
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

    /// Stores the error of a failed read.
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

/// Describes the faults of the malformed shops, if there are any.
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
    /// The secrets to which `SECRETS` refers: it is an ARN, or the JSON itself.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        Self::from_setting(settings, "SECRETS")
    }

    /// The secrets to which the setting `name` refers.
    pub fn from_setting(settings: &Settings, name: &'static str) -> Result<Self, SettingError> {
        let secrets = settings.required(name)?;
        let source = if secrets.starts_with("arn:") {
            Source::Arn {
                client: aws::secrets_manager(settings)?,
                arn: secrets,
            }
        } else {
            Source::Inline(name, secrets.into())
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

    /// The name of the secret for the operator: its ARN, or the variable that holds it.
    pub fn name(&self) -> &str {
        match &self.source {
            Source::Arn { arn, .. } => arn,
            Source::Inline(name, _) => name,
            #[cfg(test)]
            Source::Script(_) => "script",
        }
    }

    /// The secrets of `shop`, at most five minutes old if Secrets Manager answers by `until`.
    ///
    /// # Errors
    /// 503 if Secrets Manager cannot be reached and no value is cached. 500 if the secret, or the part of the shop, is
    /// missing or malformed, and no value is cached or the grace period of the last good one is over.
    pub async fn of(&self, shop: &Shop, until: Instant) -> Result<ShopSecrets<S>, Refusal> {
        self.refresh_if(until, |cache, now| cache.is_due(shop, now)).await;
        self.cached(|cache, now| cache.of(shop, now))
    }

    /// Whether the secret, as it was last read, names `shop`.
    pub(crate) fn has_shop(&self, shop: &Shop) -> bool {
        let shop = shop.as_str();
        self.cached(|cache, _| cache.shops.as_ref().is_some_and(|shops| shops.contains_key(shop)))
    }

    /// The `silence_hours` of `shop`, if the secret, as it was last read, has them.
    pub(crate) fn silence_hours(&self, shop: &Shop) -> Option<u16> {
        self.cached(|cache, _| cache.options.get(shop.as_str())?.silence_hours)
    }

    /// The shops that the secret, as it was last read, names.
    pub fn shops(&self) -> Vec<Shop> {
        self.cached(|cache, _| {
            let shops = cache.shops.iter().flat_map(BTreeMap::keys);
            shops.filter_map(|shop| Shop::parse(shop)).collect()
        })
    }

    /// The credentials of `shop` for the provider's order API, as the secret was last read; `None` if it has none.
    ///
    /// # Errors
    /// If they are not as documented. The error names the field and never contains a value.
    pub fn api<C: DeserializeOwned>(&self, shop: &Shop) -> Option<Result<C, String>> {
        self.cached(|cache, _| {
            let api = cache.options.get(shop.as_str())?.api.as_ref()?;
            Some(parse_api(api.expose_secret()))
        })
    }

    /// Whether deliveries for `shop` can be verified with the secret as it was last read.
    pub(crate) fn is_usable(&self, shop: &Shop) -> bool {
        self.cached(|cache, now| cache.of(shop, now).is_ok())
    }

    /// Reads the secrets ahead of their first use.
    ///
    /// # Errors
    /// If Secrets Manager cannot be reached, or the secret names no shop. Faults of the secret itself are in
    /// [`Self::reports`].
    pub async fn prepare(&self, until: Instant) -> Result<(), Refusal> {
        self.refresh_if(until, |_, _| true).await;
        self.cached(|cache, _| match (&cache.failure, &cache.shops) {
            (Some(refusal @ Refusal::Unavailable(_)), _) => Err(refusal.clone()),
            (_, Some(shops)) if shops.is_empty() => Err(no_shop()),
            _ => Ok(()),
        })
    }

    /// The secrets of `shop` if they differ from `used`. For use after a failed verification; reads the secret at most
    /// once in 30 seconds.
    pub async fn changed(&self, shop: &Shop, used: &ShopSecrets<S>, until: Instant) -> ShopSecrets<S> {
        if matches!(self.source, Source::Inline(..)) {
            return None;
        }
        self.refresh_if(until, Cache::may_read_again).await;
        let current = self.cached(|cache, now| cache.of(shop, now)).ok()??;
        let is_same = used.as_ref().is_some_and(|used| Arc::ptr_eq(used, &current));
        (!is_same).then_some(current)
    }

    /// Returns the faults that reads of the secret have found since the last call, one text for each read. Deliveries
    /// may still pass with the last good value.
    pub fn reports(&self) -> Vec<String> {
        self.cached(|cache, _| std::mem::take(&mut cache.reports))
    }

    /// Reads the secret if that is due, and still is after a concurrent read has ended.
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
        let late = || Refusal::Unavailable("Secrets Manager did not answer in time".to_owned());
        let read = timeout_at(until, self.read()).await.unwrap_or_else(|_| Err(late()));
        let failed = self.cached(|cache, now| {
            cache.called_at = Some(now);
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
            tracing::warn!(
                code = Code::SecretNotRefreshed.as_str(),
                secret,
                %cause,
                "the secret could not be read again; the last good value is used"
            );
        }
    }

    async fn read(&self) -> Result<(Option<String>, Parsed<S>), Refusal> {
        match &self.source {
            Source::Inline(_, json) => Ok((None, parse(json.expose_secret())?)),
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

/// Distinguishes an outage (no answer, throttling, or an error of the service), during which the last good value stays
/// in use, from a fault of the secret.
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
    let cause = format!("Secrets Manager answered {answer}");
    if (400..500).contains(&status) && !is_throttled {
        Refusal::Misconfigured(cause)
    } else {
        Refusal::Unavailable(cause)
    }
}

#[cfg(test)]
mod tests;
