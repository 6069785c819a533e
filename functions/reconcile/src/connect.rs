//! `{"connect":{...}}`: subscribes to the order events of a shop through the provider's API.
//!
//! Each event is subscribed once. The ids are kept in the table, because Cartum does not list its subscriptions and allows
//! five for an event.

use serde::{Deserialize, Serialize};
use shared::identity::Shop;
use shared::order_api::{Api, ApiError, Failure, Host, Subscribes};
use shared::secrets::ShopSecrets;
use shared::store::{Noted, Subscription};

use crate::providers::Configured;
use crate::time_left::TimeLeft;
use crate::{Reconciler, TaskError};

/// A shop, and the URL of its route or of the API that has the route.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connect {
    pub(crate) provider: String,
    shop: String,
    url: String,
    /// The events to subscribe although an earlier subscription is known, or may have been made: an operator has ended
    /// it.
    #[serde(default)]
    again: Vec<String>,
}

/// The answer to the task.
#[derive(Debug, Serialize)]
pub struct Connected {
    provider: &'static str,
    shop: String,
    subscriptions: Vec<Subscribed>,
    done: bool,
}

/// The result for one event.
#[derive(Debug, Serialize)]
struct Subscribed {
    event: &'static str,
    status: SubscribedAs,
    /// The provider's id of the subscription.
    id: Option<String>,
    cause: Option<String>,
}

/// How an event is subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum SubscribedAs {
    /// The task has subscribed the event.
    Subscribed,
    /// The event was subscribed before.
    Known,
    /// The event is subscribed to another URL.
    Elsewhere,
    /// An earlier attempt, or this one, may have subscribed the event.
    Unclear,
    /// The provider refuses.
    Failed,
}

impl Connected {
    /// The answer if no event is subscribed, for the same cause.
    fn failed<P: Subscribes>(shop: &Shop, error: &ApiError) -> Self {
        let failed = P::EVENTS.iter().map(|&event| Subscribed {
            event,
            status: SubscribedAs::Failed,
            id: None,
            cause: Some(error.to_string()),
        });
        Self {
            provider: P::NAME,
            shop: shop.to_string(),
            subscriptions: failed.collect(),
            done: false,
        }
    }
}

impl Connect {
    fn shop(&self) -> Result<Shop, TaskError> {
        Shop::parse(&self.shop).ok_or_else(|| TaskError::NoTask("shop is not a shop's name".to_owned()))
    }

    /// Whether an event is subscribed again.
    fn is_again(&self, event: &str) -> bool {
        self.again.iter().any(|again| again == event)
    }

    /// Checks that `again` names events.
    fn check_again(&self, events: &[&str]) -> Result<(), TaskError> {
        if self.again.iter().all(|again| events.contains(&again.as_str())) {
            return Ok(());
        }
        let events = events.join(", ");
        Err(TaskError::NoTask(format!("again is a list of events: {events}")))
    }

    /// The URL of the shop's route, without a query.
    ///
    /// A plain or a private URL is accepted only together with an API whose URL an operator has set: the local stack.
    fn route(&self, is_local: bool) -> Result<String, TaskError> {
        let wrong = || TaskError::NoTask("url is not like https://API_ID.execute-api.REGION.amazonaws.com".to_owned());
        let (rest, is_plain) = match (self.url.strip_prefix("https://"), self.url.strip_prefix("http://")) {
            (Some(rest), _) => (rest, false),
            (None, Some(rest)) => (rest, true),
            (None, None) => return Err(wrong()),
        };
        let rest = rest.trim_end_matches('/');
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_public = Host::public(host).is_ok() && !is_plain;
        let is_plain_path = path
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
        if !(is_public || is_local) || !is_plain_path {
            return Err(wrong());
        }
        let scheme = if is_plain { "http" } else { "https" };
        let route = format!("/webhooks/{}/{}", self.provider, self.shop);
        let path = if path.ends_with(&route) {
            path.to_owned()
        } else {
            format!("{path}{route}")
        };
        Ok(format!("{scheme}://{host}{path}"))
    }
}

impl Reconciler {
    /// Subscribes to the events of a shop.
    pub(crate) async fn subscribe<P: Subscribes>(
        &self,
        configured: &Configured<P>,
        task: &Connect,
        time: TimeLeft,
    ) -> Result<Connected, TaskError> {
        let shop = task.shop()?;
        task.check_again(P::EVENTS)?;
        let route = task.route(configured.base_url.is_some())?;
        let secrets = self.read_secrets(configured, time).await?;
        let not_configured = || TaskError::NoTask("the shop's secret has no `api`".to_owned());
        let credentials = secrets.api::<P::Credentials>(&shop).ok_or_else(not_configured)?;
        let credentials = credentials.map_err(TaskError::Secret)?;
        let of_shop: ShopSecrets<P::Secrets> = secrets
            .of(&shop, time.give_up_at)
            .await
            .map_err(|refusal| TaskError::Secret(refusal.to_string()))?;
        let of_shop = of_shop.ok_or_else(not_configured)?;
        let base_url = configured
            .base_url(&credentials)
            .map_err(|error| TaskError::Secret(error.to_string()))?;
        let api = Api::new(&base_url, time.give_up_at);
        let session = match configured.provider.log_in(&api, &credentials).await {
            Ok(session) => session,
            Err(error) => return Ok(Connected::failed::<P>(&shop, &error)),
        };
        let mut subscriptions = Vec::new();
        for &event in P::EVENTS {
            let url = P::webhook_url(&of_shop, &route, event);
            let subscription = Subscription {
                provider: P::NAME,
                shop: &shop,
                event,
                url: &url,
            };
            let subscribing = configured.provider.subscribe(&api, &session, event, &url);
            let store = self.intake.store();
            let noted = if task.is_again(event) {
                store.note_new_subscription(&subscription).await?;
                Noted::New
            } else {
                store.note_subscription(&subscription).await?
            };
            let (status, id, cause) = match noted {
                Noted::New => match subscribing.await {
                    Ok(id) => {
                        self.intake.store().keep_subscription(&subscription, &id).await?;
                        (SubscribedAs::Subscribed, Some(id), None)
                    }
                    Err(error) => (
                        self.not_subscribed(&subscription, &error).await?,
                        None,
                        Some(error.to_string()),
                    ),
                },
                Noted::Made(id) => (SubscribedAs::Known, Some(id), None),
                Noted::Elsewhere(id) => {
                    let cause =
                        "the event is subscribed to another URL; end that subscription, then name the event in `again`";
                    (SubscribedAs::Elsewhere, Some(id), Some(cause.to_owned()))
                }
                Noted::Unclear => {
                    let cause = "an earlier attempt may have subscribed the event; look in the shop, then name the event in `again`";
                    (SubscribedAs::Unclear, None, Some(cause.to_owned()))
                }
            };
            tracing::info!(provider = P::NAME, shop = %shop, event, ?status, "connect");
            subscriptions.push(Subscribed {
                event,
                status,
                id,
                cause,
            });
        }
        Ok(Connected {
            provider: P::NAME,
            done: subscriptions
                .iter()
                .all(|subscribed| matches!(subscribed.status, SubscribedAs::Subscribed | SubscribedAs::Known)),
            shop: shop.to_string(),
            subscriptions,
        })
    }

    /// Forgets a subscription that was certainly not made. One that may have been made stays noted, so that the next
    /// attempt does not take a second place.
    async fn not_subscribed(
        &self,
        subscription: &Subscription<'_>,
        error: &ApiError,
    ) -> Result<SubscribedAs, TaskError> {
        if error.failure == Failure::Unavailable {
            return Ok(SubscribedAs::Unclear);
        }
        self.intake.store().forget_subscription(subscription).await?;
        Ok(SubscribedAs::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(url: &str, is_local: bool) -> Option<String> {
        let task = Connect {
            provider: "cartum".to_owned(),
            shop: "main".to_owned(),
            url: url.to_owned(),
            again: Vec::new(),
        };
        task.route(is_local).ok()
    }

    #[test]
    fn the_route_of_the_shop_is_added_to_the_url_of_the_api() {
        let expected = Some("https://api.example.com/webhooks/cartum/main".to_owned());
        for url in [
            "https://api.example.com",
            "https://api.example.com/",
            "https://api.example.com/webhooks/cartum/main",
        ] {
            assert_eq!(route(url, false), expected, "{url}");
        }
        let with_stage = route("https://api.example.com/live", false);
        assert_eq!(
            with_stage.as_deref(),
            Some("https://api.example.com/live/webhooks/cartum/main")
        );
    }

    #[test]
    fn only_events_are_subscribed_again() {
        let task = |again: &str| -> Option<Connect> {
            let json =
                format!(r#"{{"provider":"cartum","shop":"main","url":"https://api.example.com","again":{again}}}"#);
            let task: Connect = serde_json::from_str(&json).ok()?;
            task.check_again(&["order_paid", "order_update"]).ok()?;
            Some(task)
        };
        let paid = task(r#"["order_paid"]"#).expect("an event");
        assert!(paid.is_again("order_paid") && !paid.is_again("order_update"));
        for again in [r#"["order_deleted"]"#, "true", r#""order_paid""#] {
            assert!(task(again).is_none(), "{again}");
        }
    }

    #[test]
    fn a_url_that_a_provider_cannot_call_is_refused() {
        for url in [
            "http://api.example.com",
            "https://127.0.0.1:9000",
            "https://api.example.com/?token=x",
            "https://user@api.example.com",
            "api.example.com",
            "",
        ] {
            assert_eq!(route(url, false), None, "{url}");
        }
        let local = route("http://127.0.0.1:9000", true);
        assert_eq!(local.as_deref(), Some("http://127.0.0.1:9000/webhooks/cartum/main"));
    }
}
