//! The subscriptions of one shop: what is noted of them, what the provider lists, and the call that makes one.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use shared::identity::Shop;
use shared::order_api::{ATTEMPT, Api, ApiError, Credentials, ListedSubscription, Subscribes};
use shared::store::{
    NOTE_BUDGET, NotedSubscription, Store, StoreError, SubscriptionAttempt, SubscriptionKey, WebhookUrl,
};
use tokio::time::Instant;

use crate::examine::with_url;

/// How long the note of the id of a subscription is tried that the provider has confirmed. The other events need the rest
/// of the time.
const KEEP: Duration = Duration::from_secs(10);
/// The least time for that note. Less than what is kept free for the answer.
const LEAST_KEEP: Duration = Duration::from_secs(2);

/// The time that an attempt takes: its note, the call, and the note of the id. The call must not be cut off, because the
/// provider may have made the subscription by then.
pub(crate) const CALL: Duration = NOTE_BUDGET.saturating_add(ATTEMPT).saturating_add(KEEP);

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
    /// The provider refuses or cannot be reached, and nothing was subscribed.
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
    /// The end of the time for calls that make nothing.
    pub(crate) look_until: Instant,
    /// The end of the time for an attempt.
    pub(crate) until: Instant,
}

/// The result of an attempt to make a subscription.
#[derive(Debug)]
pub(crate) enum Attempted {
    /// The subscription is made.
    Made {
        id: String,
        client_secret: Option<Credentials>,
        /// Why its id is not noted; `None` if it is.
        not_noted: Option<String>,
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

    /// The URL of the subscription with this word.
    pub(crate) fn url(&self, route: &str, event: &str, word: Option<&str>) -> String {
        P::webhook_url(&self.secrets, route, event, word)
    }

    /// What is noted of a subscription.
    pub(crate) async fn noted(&self, event: &str) -> Result<Option<NotedSubscription>, StoreError> {
        self.store.subscription(self.key(event)).await
    }

    /// Begins a session, in which subscriptions are made.
    pub(crate) async fn log_in(&self) -> Result<P::Session, ApiError> {
        let api = self.api.until(self.look_until);
        self.provider.log_in(&api, self.credentials).await
    }

    /// The subscriptions that the provider lists, if it lists any.
    pub(crate) async fn listed(&self) -> Result<Option<Vec<ListedSubscription>>, ApiError> {
        self.listed_until(self.look_until).await
    }

    async fn listed_until(&self, until: Instant) -> Result<Option<Vec<ListedSubscription>>, ApiError> {
        let api = self.api.until(until);
        self.provider.subscriptions(&api, self.credentials).await
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
            let attempt = self.key(event).attempt(noted);
            self.store.note_listed_subscription(&attempt, url, &listed.id).await?;
        }
        Ok(())
    }

    /// Makes a subscription in place of the one that is noted as `before`: notes it, makes the call, and notes its id.
    /// `is_unseen` means that it is not made once more by a run until the provider has listed it.
    pub(crate) async fn make(
        &self,
        session: &P::Session,
        event: &str,
        route: &str,
        before: Option<&NotedSubscription>,
        is_unseen: bool,
    ) -> Result<Attempted, StoreError> {
        let attempt = self.key(event).attempt(before);
        let url = self.url(route, event, Some(attempt.word()));
        let webhook = WebhookUrl { route, url: &url };
        if !self.store.note_subscription(&attempt, webhook, is_unseen).await? {
            return Ok(Attempted::Lost);
        }
        let api = self.api.until(self.until);
        let made = self
            .provider
            .subscribe(&api, self.credentials, session, event, &url)
            .await;
        match made {
            Ok(made) => Ok(self.keep(&attempt, made.id, made.client_secret).await),
            Err(error) if error.is_refusal() => {
                self.store.withdraw_subscription(&attempt).await?;
                Ok(Attempted::Refused(error))
            }
            Err(error) => Ok(self.look_up(&attempt, &url, error).await),
        }
    }

    /// Looks whether the provider lists the subscription of an attempt whose answer was lost. If that is not known, the
    /// note stays, so that the next attempt does not take a second place.
    async fn look_up(&self, attempt: &SubscriptionAttempt, url: &str, error: ApiError) -> Attempted {
        match self.listed_until(self.until).await {
            Ok(Some(listed)) => match with_url(&listed, |listed| listed == url) {
                Some(made) => self.keep(attempt, made.id.clone(), None).await,
                None => Attempted::Unclear(error),
            },
            Ok(None) | Err(_) => Attempted::Unclear(error),
        }
    }

    /// Notes the id. The result has the id and the secret even if that fails, because the provider does not say them again.
    async fn keep(&self, attempt: &SubscriptionAttempt, id: String, client_secret: Option<Credentials>) -> Attempted {
        let now = Instant::now();
        let until = self.until.min(now + KEEP).max(now + LEAST_KEEP);
        let not_noted = match self.store.keep_subscription(attempt, &id, until).await {
            Ok(true) => None,
            Ok(false) => Some("the note has been changed in the meantime".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        Attempted::Made {
            id,
            client_secret,
            not_noted,
        }
    }
}
