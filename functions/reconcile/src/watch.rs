//! The watch over the subscriptions of a shop, once in a regular run: an event whose subscription has ended is subscribed
//! again if that is on, and what is wrong with a subscription becomes an alert.
//!
//! Cartum reports the end of a subscription, and the function that receives the report marks the note. ABOUT YOU lists its
//! subscriptions. A subscription that is disabled or lacks an event is never changed, because somebody did that on
//! purpose. Nothing here makes a run fail.

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
use shared::identity::Shop;
use shared::order_api::{Api, ApiError, ListedSubscription, OrderApi, Subscribes};
use shared::store::{NotedSubscription, StoreError, WebhookUrl};
use snipcart::Snipcart;

use crate::Reconciler;
use crate::providers::Configured;
use crate::subscriber::{Attempted, Subscriber, SubscriptionStatus, is_at_work, with_id, with_url};
use crate::time_left::TimeLeft;

/// The least time for a call that must not be cut off, because the provider may have made the subscription by then.
const CALL: Duration = Duration::from_secs(10);

const MISSING: &str = "the subscription is missing";
const ENDED: &str = "the subscription was ended";
const UNCLEAR: &str = "an attempt may have subscribed the event; look in the shop, then connect it with `again`";
const UNKNOWN_URL: &str = "an earlier version has made it; connect the shop with `again`";

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
    pub(crate) reconciler: &'r Reconciler,
    pub(crate) configured: &'r Configured<P>,
    pub(crate) credentials: &'r P::Credentials,
    pub(crate) shop: &'r Shop,
    pub(crate) api: &'r Api,
    pub(crate) time: TimeLeft,
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

/// What is known of a subscription that is noted.
#[derive(Debug, PartialEq, Eq)]
enum Examined<'l> {
    /// It is in order.
    Known,
    /// It is in order, and the note does not say so yet.
    Listed(&'l ListedSubscription),
    /// It has this defect.
    Incomplete(String),
    /// An attempt to make it may still be at work.
    AtWork,
    /// An attempt may have made it.
    Unclear,
    /// The provider has reported its end.
    Ended,
    /// The provider does not list it.
    Missing,
}

/// Examines a subscription, given what the provider lists, if it lists its subscriptions.
fn examine<'l>(noted: &NotedSubscription, listed: Option<&'l [ListedSubscription]>, now: Timestamp) -> Examined<'l> {
    let Some(listed) = listed else {
        return match (&noted.ended_at, &noted.id) {
            (Some(_), _) => Examined::Ended,
            (None, Some(_)) => Examined::Known,
            (None, None) if is_at_work(noted, now) => Examined::AtWork,
            (None, None) => Examined::Unclear,
        };
    };
    if let Some(own) = with_url(listed, |url| noted.is_of(url)) {
        return match &own.defect {
            Some(defect) => Examined::Incomplete(defect.clone()),
            None if noted.is_made() => Examined::Known,
            None => Examined::Listed(own),
        };
    }
    match noted.id.as_deref().and_then(|id| with_id(listed, id)) {
        Some(ListedSubscription { url: Some(_), .. }) => {
            Examined::Incomplete("the subscription calls another URL".to_owned())
        }
        Some(own) => own
            .defect
            .as_ref()
            .map_or(Examined::Known, |defect| Examined::Incomplete(defect.clone())),
        None if is_at_work(noted, now) => Examined::AtWork,
        None => Examined::Missing,
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
                shop = %self.shop,
                %cause,
                "the subscriptions of the shop cannot be checked"
            );
        }
        watched
    }

    async fn look(&self, watched: &mut Vec<WatchedSubscription>) -> Result<(), NotWatched> {
        let secrets = self.configured.secrets_of(self.shop, self.time).await?;
        let subscriber = Subscriber {
            store: self.reconciler.intake.store(),
            provider: &self.configured.provider,
            credentials: self.credentials,
            secrets: secrets.ok_or(NotWatched::NoSecret)?,
            shop: self.shop,
            api: self.api,
        };
        let mut noted = Vec::new();
        for &event in P::SUBSCRIPTIONS {
            noted.extend(subscriber.noted(event).await?.map(|noted| (event, noted)));
        }
        if noted.is_empty() {
            return Ok(());
        }
        let listed = subscriber.listed().await?;
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
        let (status, finding) = match examine(noted, listed, Timestamp::now()) {
            Examined::Known => (SubscriptionStatus::Known, None),
            Examined::Listed(own) => {
                if let (Some(route), Some(url)) = (&noted.route, &own.url) {
                    let webhook = WebhookUrl { route, url };
                    subscriber.note_listed(event, webhook, own, Some(noted)).await?;
                }
                (SubscriptionStatus::Known, None)
            }
            Examined::Incomplete(defect) => (SubscriptionStatus::Incomplete, Some(defect)),
            Examined::AtWork => return Ok(SubscriptionStatus::Unclear),
            Examined::Unclear => (SubscriptionStatus::Unclear, Some(UNCLEAR.to_owned())),
            Examined::Ended if !self.reconciler.auto_resubscribe => (SubscriptionStatus::Ended, None),
            Examined::Missing if !self.reconciler.auto_resubscribe => {
                (SubscriptionStatus::Missing, Some(MISSING.to_owned()))
            }
            Examined::Ended => self.renew(subscriber, event, noted, SubscriptionStatus::Ended).await?,
            Examined::Missing => {
                self.renew(subscriber, event, noted, SubscriptionStatus::Missing)
                    .await?
            }
        };
        self.settle(subscriber, event, noted, finding.as_deref()).await?;
        Ok(status)
    }

    /// Makes a subscription again that was ended, or that is missing. Returns its status and what is wrong with it.
    async fn renew(
        &self,
        subscriber: &Subscriber<'_, P>,
        event: &'static str,
        noted: &NotedSubscription,
        status: SubscriptionStatus,
    ) -> Result<(SubscriptionStatus, Option<String>), NotWatched> {
        let is_missing = status == SubscriptionStatus::Missing;
        let what = if is_missing { MISSING } else { ENDED };
        let not_renewed = |cause: &str| Some(format!("{what} and is not renewed: {cause}"));
        let Some(route) = &noted.route else {
            return Ok((status, not_renewed(UNKNOWN_URL)));
        };
        if let Some(cause) = P::needs_operator(&subscriber.secrets) {
            return Ok((status, not_renewed(cause)));
        }
        // The next run makes up for it.
        let later = || (status, noted.finding.clone().or(is_missing.then(|| what.to_owned())));
        if !self.time.leaves(CALL) {
            return Ok(later());
        }
        let session = match subscriber.log_in().await {
            Ok(session) => session,
            Err(error) => {
                self.log_not_renewed(event, &error);
                return Ok(later());
            }
        };
        // The log-in may have used up the time.
        if !self.time.leaves(CALL) {
            return Ok(later());
        }
        Ok(match subscriber.make(&session, event, route, Some(noted)).await? {
            Attempted::Made { .. } => {
                if is_missing {
                    self.report(subscriber, event, "the subscription was missing and was made again")
                        .await?;
                }
                tracing::info!(provider = P::NAME, shop = %self.shop, event, cause = what, "the event is subscribed again");
                (SubscriptionStatus::Renewed, None)
            }
            Attempted::Refused(error) => {
                self.log_not_renewed(event, &error);
                (
                    SubscriptionStatus::Failed,
                    not_renewed("the provider refuses a new one"),
                )
            }
            Attempted::Unclear(error) => {
                self.log_not_renewed(event, &error);
                (SubscriptionStatus::Unclear, Some(UNCLEAR.to_owned()))
            }
            Attempted::Lost => (SubscriptionStatus::Unclear, noted.finding.clone()),
        })
    }

    fn log_not_renewed(&self, event: &str, cause: &ApiError) {
        tracing::warn!(
            code = Code::SubscriptionNotRenewed.as_str(),
            provider = P::NAME,
            shop = %self.shop,
            event,
            %cause,
            "the event is not subscribed again"
        );
    }

    /// Reports what is wrong with a subscription if that has changed.
    async fn settle(
        &self,
        subscriber: &Subscriber<'_, P>,
        event: &'static str,
        noted: &NotedSubscription,
        finding: Option<&str>,
    ) -> Result<(), StoreError> {
        if noted.finding.as_deref() == finding {
            return Ok(());
        }
        if let Some(finding) = finding {
            self.report(subscriber, event, finding).await?;
        } else {
            tracing::info!(provider = P::NAME, shop = %self.shop, event, "the subscription is in order again");
        }
        subscriber.store.note_finding(subscriber.key(event), finding).await
    }

    /// Adds to the alert `unsubscribed`.
    async fn report(
        &self,
        subscriber: &Subscriber<'_, P>,
        event: &'static str,
        finding: &str,
    ) -> Result<(), StoreError> {
        tracing::warn!(
            code = Kind::Unsubscribed.as_str(),
            provider = P::NAME,
            shop = %self.shop,
            event,
            cause = finding,
            "something is wrong with a subscription"
        );
        let subject = Subject::new(Kind::Unsubscribed, P::NAME, Some(self.shop));
        subscriber.store.report(&subject, &format!("{event}: {finding}")).await
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use shared::identity::sha256_hex;

    use super::*;

    const URL: &str = "https://api.example.com/webhooks/aboutyou/main?token=a-token-of-the-shop";
    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn noted(id: Option<&str>) -> NotedSubscription {
        let mut noted = NotedSubscription::default();
        noted.id = id.map(str::to_owned);
        noted.url_sha256 = Some(sha256_hex(URL.as_bytes()));
        noted.noted_at = Some(NOW);
        noted
    }

    fn listed(id: &str, url: Option<&str>, defect: Option<&str>) -> ListedSubscription {
        ListedSubscription {
            id: id.to_owned(),
            url: url.map(str::to_owned),
            defect: defect.map(str::to_owned),
        }
    }

    #[test]
    fn without_a_list_a_subscription_ends_by_its_mark() {
        let mut made = noted(Some("7"));
        assert_eq!(examine(&made, None, NOW), Examined::Known);
        made.ended_at = Some(NOW);
        assert_eq!(examine(&made, None, NOW), Examined::Ended);
        let unclear = noted(None);
        assert_eq!(examine(&unclear, None, NOW), Examined::AtWork);
        let later = NOW + SignedDuration::from_mins(15);
        assert_eq!(examine(&unclear, None, later), Examined::Unclear);
    }

    #[test]
    fn with_a_list_a_subscription_is_found_by_its_url_or_its_id() {
        let disabled = "the subscription is disabled";
        let examine = |noted: &NotedSubscription, listed: ListedSubscription| match examine(noted, Some(&[listed]), NOW)
        {
            Examined::Incomplete(defect) => Err(defect),
            other => Ok(format!("{other:?}")),
        };
        let made = noted(Some("7"));
        let known = Ok("Known".to_owned());
        assert_eq!(examine(&made, listed("7", Some(URL), None)), known);
        assert_eq!(examine(&made, listed("", Some(URL), None)), known);
        assert_eq!(examine(&made, listed("7", None, None)), known);
        for url in [Some(URL), None] {
            assert_eq!(
                examine(&made, listed("7", url, Some(disabled))),
                Err(disabled.to_owned())
            );
        }
        let elsewhere = examine(&made, listed("7", Some("https://api.example.com/"), None));
        assert_eq!(elsewhere, Err("the subscription calls another URL".to_owned()));
        let other = || listed("8", Some("https://api.example.com/"), None);
        assert_eq!(examine(&made, other()), Ok("Missing".to_owned()));
        assert_eq!(examine(&noted(Some("")), other()), Ok("Missing".to_owned()));
    }

    #[test]
    fn an_attempt_whose_answer_was_lost_is_looked_up_in_the_list() {
        let unclear = noted(None);
        let own = listed("7", Some(URL), None);
        let list = [own.clone()];
        assert_eq!(examine(&unclear, Some(&list), NOW), Examined::Listed(&own));
        assert_eq!(examine(&unclear, Some(&[]), NOW), Examined::AtWork);
        let later = NOW + SignedDuration::from_mins(15);
        assert_eq!(examine(&unclear, Some(&[]), later), Examined::Missing);
    }
}
