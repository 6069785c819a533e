//! The subscriptions of one shop: what is noted of them, what the provider lists, and the call that makes one.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use shared::identity::Shop;
use shared::order_api::{Api, ApiError, Credentials, Failure, ListedSubscription, Subscribes};
use shared::store::{NotedSubscription, Store, StoreError, SubscriptionAttempt, SubscriptionKey, WebhookUrl};

/// The time after which an attempt that has not noted its result is over: the longest timeout of a Lambda function.
const ATTEMPT: SignedDuration = SignedDuration::from_mins(15);

/// How an event is subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SubscriptionStatus {
    /// The task has subscribed the event.
    Subscribed,
    /// The event was subscribed before.
    Known,
    /// The event is subscribed to another URL.
    Elsewhere,
    /// The provider has the subscription, but it is disabled, lacks an event or calls another URL.
    Incomplete,
    /// An earlier attempt, or this one, may have subscribed the event.
    Unclear,
    /// The provider refuses.
    Failed,
    /// The provider has reported the end of the subscription.
    Ended,
    /// The provider does not list the subscription any more.
    Missing,
    /// A run has made the subscription again.
    Renewed,
}

/// The API of one shop, at which its events are subscribed.
pub(crate) struct Subscriber<'r, P: Subscribes> {
    pub(crate) store: &'r Store,
    pub(crate) provider: &'r P,
    pub(crate) credentials: &'r P::Credentials,
    pub(crate) secrets: Arc<P::Secrets>,
    pub(crate) shop: &'r Shop,
    pub(crate) api: &'r Api,
}

/// The result of an attempt to make a subscription.
#[derive(Debug)]
pub(crate) enum Attempted {
    /// The subscription is made and noted.
    Made {
        id: String,
        client_secret: Option<Credentials>,
    },
    /// The subscription may have been made.
    Unclear(ApiError),
    /// The provider refuses.
    Refused(ApiError),
    /// Another attempt was faster.
    Lost,
}

impl<'r, P: Subscribes> Subscriber<'r, P> {
    /// The key of the note of a subscription.
    pub(crate) fn key<'k>(&self, event: &'k str) -> SubscriptionKey<'k>
    where
        'r: 'k,
    {
        SubscriptionKey {
            provider: P::NAME,
            shop: self.shop,
            event,
        }
    }

    /// The URL of the subscription with this number.
    pub(crate) fn url(&self, route: &str, event: &str, number: u32) -> String {
        P::webhook_url(&self.secrets, route, event, number)
    }

    /// What is noted of a subscription.
    pub(crate) async fn noted(&self, event: &str) -> Result<Option<NotedSubscription>, StoreError> {
        self.store.subscription(self.key(event)).await
    }

    /// Begins a session, in which subscriptions are made.
    pub(crate) async fn log_in(&self) -> Result<P::Session, ApiError> {
        self.provider.log_in(self.api, self.credentials).await
    }

    /// The subscriptions that the provider lists, if it lists any.
    pub(crate) async fn listed(&self) -> Result<Option<Vec<ListedSubscription>>, ApiError> {
        self.provider.subscriptions(self.api, self.credentials).await
    }

    /// Notes a subscription that the provider lists, unless the note says the same.
    pub(crate) async fn note_listed(
        &self,
        event: &str,
        url: WebhookUrl<'_>,
        listed: &ListedSubscription,
        noted: Option<&NotedSubscription>,
    ) -> Result<(), StoreError> {
        let is_same = |noted: &NotedSubscription| {
            noted.is_made() && noted.is_of(url.url) && noted.id.as_deref() == Some(&listed.id)
        };
        if !noted.is_some_and(is_same) {
            // If somebody else has changed the note, the next look completes it.
            let store = self.store;
            store
                .note_listed_subscription(self.key(event), url, &listed.id, noted)
                .await?;
        }
        Ok(())
    }

    /// Makes a subscription in place of the one that is noted as `before`: notes it, makes the call, and notes its id.
    pub(crate) async fn make(
        &self,
        session: &P::Session,
        event: &str,
        route: &str,
        before: Option<&NotedSubscription>,
    ) -> Result<Attempted, StoreError> {
        let number = before.map_or(1, |before| before.number.saturating_add(1));
        let url = self.url(route, event, number);
        let webhook = WebhookUrl { route, url: &url };
        let noted = self.store.note_subscription(self.key(event), webhook, number, before);
        let Some(attempt) = noted.await? else {
            return Ok(Attempted::Lost);
        };
        let made = self
            .provider
            .subscribe(self.api, self.credentials, session, event, &url)
            .await;
        match made {
            Ok(made) => self.keep(&attempt, made.id, made.client_secret).await,
            Err(error) if error.failure == Failure::Unavailable => self.look_up(&attempt, &url, error).await,
            Err(error) => {
                self.store.withdraw_subscription(&attempt).await?;
                Ok(Attempted::Refused(error))
            }
        }
    }

    /// Looks whether the provider lists the subscription of an attempt whose answer was lost. If that is not known, the
    /// note stays, so that the next attempt does not take a second place.
    async fn look_up(
        &self,
        attempt: &SubscriptionAttempt,
        url: &str,
        error: ApiError,
    ) -> Result<Attempted, StoreError> {
        match self.listed().await {
            Ok(Some(listed)) => match with_url(&listed, |listed| listed == url) {
                Some(made) => self.keep(attempt, made.id.clone(), None).await,
                None => Ok(Attempted::Unclear(error)),
            },
            Ok(None) | Err(_) => Ok(Attempted::Unclear(error)),
        }
    }

    async fn keep(
        &self,
        attempt: &SubscriptionAttempt,
        id: String,
        client_secret: Option<Credentials>,
    ) -> Result<Attempted, StoreError> {
        Ok(if self.store.keep_subscription(attempt, &id).await? {
            Attempted::Made { id, client_secret }
        } else {
            Attempted::Lost
        })
    }
}

/// The listed subscription whose URL is wanted: one without a defect, if there are several.
pub(crate) fn with_url(listed: &[ListedSubscription], is_wanted: impl Fn(&str) -> bool) -> Option<&ListedSubscription> {
    let found = listed
        .iter()
        .filter(|listed| listed.url.as_deref().is_some_and(&is_wanted));
    found.min_by_key(|listed| listed.defect.is_some())
}

/// The listed subscription with an id of the provider.
pub(crate) fn with_id<'l>(listed: &'l [ListedSubscription], id: &str) -> Option<&'l ListedSubscription> {
    listed.iter().find(|listed| !id.is_empty() && listed.id == id)
}

/// Whether an attempt without a result may still be at work.
pub(crate) fn is_at_work(noted: &NotedSubscription, now: Timestamp) -> bool {
    noted.is_unclear()
        && noted
            .noted_at
            .is_some_and(|noted_at| now.duration_since(noted_at) < ATTEMPT)
}
