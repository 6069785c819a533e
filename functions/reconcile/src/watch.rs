//! The watch over the subscriptions of a shop, once in a regular run: an event whose subscription has ended is subscribed
//! again if that is on, and what is wrong with a subscription becomes an alert.
//!
//! Cartum reports the end of a subscription, and the function that receives the report marks the note. ABOUT YOU lists its
//! subscriptions. A subscription that is disabled or lacks an event is never changed, because somebody did that on
//! purpose. Nothing here makes a run fail.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use aboutyou::AboutYou;
use cartum::Cartum;
use jiff::Timestamp;
use selldone::Selldone;
use serde::Serialize;
use shared::alert::{Kind, Subject};
use shared::answer::Refusal;
use shared::codes::Code;
use shared::order_api::{Api, ApiError, Failure, ListedSubscription, OrderApi, Subscribes};
use shared::store::{NotedSubscription, StoreError, WebhookUrl};
use snipcart::Snipcart;
use tokio::time::Instant;

use crate::examine::{Examined, examine};
use crate::shop::OfShop;
use crate::subscriber::{Attempted, CALL, Subscriber, SubscriptionStatus};

/// The time of the watch over a shop. What is not begun by then is left to the next run.
const BUDGET: Duration = Duration::from_secs(30);

const MISSING: &str = "the subscription is missing";
const ENDED: &str = "the subscription was ended";
const OTHER_URL: &str = "the subscription calls another URL";
const UNCLEAR: &str = "the event may be subscribed; look in the shop, then connect it with `again`";
const UNSEEN: &str =
    "the subscription was made again and is still missing; look at the provider, then connect the shop";

/// The result for a subscription that is noted.
#[derive(Debug, Serialize)]
pub(crate) struct WatchedSubscription {
    event: &'static str,
    status: SubscriptionStatus,
}

/// A provider whose shops a run visits.
pub(crate) trait Watched: OrderApi {
    /// Looks after the subscriptions of a shop, if the provider has an API for them.
    fn watch(_: Watch<'_, Self>) -> impl Future<Output = Vec<WatchedSubscription>> + Send {
        std::future::ready(Vec::new())
    }
}

impl Watched for Snipcart {}

impl Watched for Selldone {}

impl Watched for Cartum {
    fn watch(watch: Watch<'_, Self>) -> impl Future<Output = Vec<WatchedSubscription>> + Send {
        watch.subscriptions()
    }
}

impl Watched for AboutYou {
    fn watch(watch: Watch<'_, Self>) -> impl Future<Output = Vec<WatchedSubscription>> + Send {
        watch.subscriptions()
    }
}

/// The shop whose subscriptions are looked after.
pub(crate) struct Watch<'r, P: OrderApi> {
    of: OfShop<'r, P>,
    api: &'r Api,
    /// The time until which an attempt may begin.
    begin_until: Instant,
}

/// Why the subscriptions of a shop cannot be looked after.
#[derive(Debug, thiserror::Error)]
enum NotWatched {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("{0}")]
    Secret(#[from] Refusal),
    #[error("the secret does not name the shop")]
    NoSecret,
}

impl<'r, P: OrderApi> Watch<'r, P> {
    pub(crate) fn new(of: OfShop<'r, P>, api: &'r Api) -> Self {
        Self {
            of,
            api,
            begin_until: Instant::now() + BUDGET,
        }
    }
}

impl<P: Subscribes> Watch<'_, P> {
    /// Looks after the subscriptions that are noted. An error is only logged: the next run looks again.
    async fn subscriptions(self) -> Vec<WatchedSubscription> {
        let mut watched = Vec::new();
        if let Err(cause) = self.look(&mut watched).await {
            tracing::warn!(
                code = Code::SubscriptionsNotWatched.as_str(),
                provider = P::NAME,
                shop = %self.of.shop,
                %cause,
                "the subscriptions of the shop cannot be checked"
            );
        }
        watched
    }

    async fn look(&self, watched: &mut Vec<WatchedSubscription>) -> Result<(), NotWatched> {
        let secrets = self.of.configured.secrets_of(self.of.shop, self.of.time).await?;
        let subscriber = Subscriber {
            store: self.of.reconciler.intake.store(),
            provider: &self.of.configured.provider,
            credentials: self.of.credentials,
            secrets: secrets.ok_or(NotWatched::NoSecret)?,
            shop: self.of.shop,
            api: self.api,
            look_until: self.begin_until,
            until: self.begin_until + CALL,
        };
        let mut noted = Vec::new();
        for &event in P::SUBSCRIPTIONS {
            noted.extend(subscriber.noted(event).await?.map(|noted| (event, noted)));
        }
        if noted.is_empty() {
            return Ok(());
        }
        let listed = match subscriber.listed().await {
            Ok(listed) => listed,
            Err(error) => {
                // An outage passes, and the others do not.
                if is_lasting(&error) {
                    let finding = format!("the subscriptions cannot be checked: {error}");
                    self.report(&subscriber, finding).await?;
                }
                return Err(error.into());
            }
        };
        for (event, noted) in noted {
            let status = self.event(&subscriber, event, &noted, listed.as_deref()).await?;
            watched.push(WatchedSubscription { event, status });
        }
        Ok(())
    }

    async fn event(
        &self,
        subscriber: &Subscriber<'_, P>,
        event: &'static str,
        noted: &NotedSubscription,
        listed: Option<&[ListedSubscription]>,
    ) -> Result<SubscriptionStatus, NotWatched> {
        let auto_resubscribe = self.of.reconciler.auto_resubscribe;
        let (status, finding) = match examine(noted, listed, Timestamp::now()) {
            Examined::Known => {
                if listed.is_some() && noted.unseen_since.is_some() {
                    let key = subscriber.key(event);
                    subscriber.store.note_seen_subscription(key, noted).await?;
                }
                (SubscriptionStatus::Known, None)
            }
            Examined::Listed(own) => {
                if let (Some(route), Some(url)) = (&noted.route, &own.url) {
                    let webhook = WebhookUrl { route, url };
                    subscriber.note_listed(event, webhook, own, Some(noted)).await?;
                }
                (SubscriptionStatus::Known, None)
            }
            Examined::Incomplete(defect) => (SubscriptionStatus::Incomplete, Some(defect)),
            Examined::OtherUrl => (SubscriptionStatus::Incomplete, Some(OTHER_URL.to_owned())),
            Examined::AtWork => return Ok(SubscriptionStatus::Unclear),
            Examined::Unclear => (SubscriptionStatus::Unclear, Some(UNCLEAR.to_owned())),
            Examined::Ended if !auto_resubscribe => (SubscriptionStatus::Ended, Some(ENDED.to_owned())),
            Examined::Missing if !auto_resubscribe => (SubscriptionStatus::Missing, Some(MISSING.to_owned())),
            Examined::Missing if noted.unseen_since.is_some() => (SubscriptionStatus::Missing, Some(UNSEEN.to_owned())),
            examined => {
                let is_missing = examined == Examined::Missing;
                let renewed = self.renew(subscriber, event, noted, is_missing, listed.is_some());
                match renewed.await? {
                    Renewal::Settled(status, finding) => (status, finding),
                    Renewal::Open(status) => return Ok(status),
                }
            }
        };
        self.settle(subscriber, event, noted, finding.as_deref()).await?;
        Ok(status)
    }

    /// Makes a subscription again that was ended, or that is missing.
    async fn renew(
        &self,
        subscriber: &Subscriber<'_, P>,
        event: &'static str,
        noted: &NotedSubscription,
        is_missing: bool,
        is_listed: bool,
    ) -> Result<Renewal, NotWatched> {
        let (status, what) = if is_missing {
            (SubscriptionStatus::Missing, MISSING)
        } else {
            (SubscriptionStatus::Ended, ENDED)
        };
        let not_renewed =
            |status, cause: &str| Renewal::Settled(status, Some(format!("{what} and is not renewed: {cause}")));
        // An earlier version has noted no route, and nothing of it is marked as ended.
        let Some(route) = &noted.route else {
            return Ok(not_renewed(status, "connect the shop"));
        };
        if let Some(cause) = P::needs_operator(&subscriber.secrets) {
            return Ok(not_renewed(status, cause));
        }
        // The next run makes up for it.
        let later = || Renewal::Settled(status, noted.finding.clone().or(is_missing.then(|| what.to_owned())));
        let is_time_up = || Instant::now() > self.begin_until || !self.of.time.leaves(CALL);
        if is_time_up() {
            return Ok(later());
        }
        let session = match subscriber.log_in().await {
            Ok(session) => session,
            Err(error) => {
                self.log_not_renewed(event, &error);
                return Ok(if is_lasting(&error) {
                    not_renewed(status, &error.to_string())
                } else {
                    later()
                });
            }
        };
        // The log-in may have used up the time.
        if is_time_up() {
            return Ok(later());
        }
        let attempted = subscriber.make(&session, event, route, Some(noted), is_listed);
        Ok(match attempted.await? {
            Attempted::Made {
                client_secret,
                not_noted: None,
                ..
            } => {
                if is_missing {
                    let secret = client_secret.map_or("", |_| "; it has another client_secret, which is not kept");
                    let finding = format!("{event}: the subscription was missing and was made again{secret}");
                    self.report(subscriber, finding).await?;
                }
                tracing::info!(provider = P::NAME, shop = %self.of.shop, event, cause = what, "the event is subscribed again");
                Renewal::Settled(SubscriptionStatus::Renewed, None)
            }
            Attempted::Made {
                not_noted: Some(cause), ..
            } => {
                self.log_not_renewed(event, &cause);
                Renewal::Open(SubscriptionStatus::Unclear)
            }
            Attempted::Refused(error) => {
                self.log_not_renewed(event, &error);
                if error.failure == Failure::Throttled {
                    return Ok(later());
                }
                not_renewed(SubscriptionStatus::Failed, "the provider refuses a new one")
            }
            // The next runs decide.
            Attempted::Unclear(error) => {
                self.log_not_renewed(event, &error);
                Renewal::Open(SubscriptionStatus::Unclear)
            }
            Attempted::Lost => Renewal::Open(SubscriptionStatus::Unclear),
        })
    }

    fn log_not_renewed(&self, event: &str, cause: &impl fmt::Display) {
        tracing::warn!(
            code = Code::SubscriptionNotRenewed.as_str(),
            provider = P::NAME,
            shop = %self.of.shop,
            event,
            %cause,
            "the event is not subscribed again"
        );
    }

    /// Reports what is wrong with a subscription, in every run while it is so, and logs and notes it if it has changed.
    async fn settle(
        &self,
        subscriber: &Subscriber<'_, P>,
        event: &'static str,
        noted: &NotedSubscription,
        finding: Option<&str>,
    ) -> Result<(), StoreError> {
        if let Some(finding) = finding {
            self.report(subscriber, format!("{event}: {finding}")).await?;
        }
        if noted.finding.as_deref() == finding {
            return Ok(());
        }
        if let Some(cause) = finding {
            tracing::warn!(
                code = Kind::Unsubscribed.as_str(),
                provider = P::NAME,
                shop = %self.of.shop,
                event,
                cause,
                "something is wrong with a subscription"
            );
        } else {
            tracing::info!(provider = P::NAME, shop = %self.of.shop, event, "the subscription is in order again");
        }
        subscriber.store.note_finding(subscriber.key(event), finding).await
    }

    /// Adds to the alert `unsubscribed`.
    async fn report(&self, subscriber: &Subscriber<'_, P>, finding: String) -> Result<(), StoreError> {
        let subject = Subject::new(Kind::Unsubscribed, P::NAME, Some(self.of.shop));
        subscriber.store.report(&subject, &finding).await
    }
}

/// The result of an attempt to make a subscription again.
enum Renewal {
    /// The status, and what is wrong with the subscription.
    Settled(SubscriptionStatus, Option<String>),
    /// The next runs find out what is wrong.
    Open(SubscriptionStatus),
}

/// Whether an error stays until somebody acts.
fn is_lasting(error: &ApiError) -> bool {
    match error.failure {
        Failure::Refused | Failure::Misconfigured | Failure::Unreadable => true,
        Failure::Unavailable | Failure::Throttled => false,
    }
}
