//! `{"connect":{...}}`: subscribes to the order events of a shop through the provider's API.
//!
//! Each event is subscribed once. What is made is noted in the table, because Cartum does not list its subscriptions and
//! allows five for an event.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use shared::identity::Shop;
use shared::order_api::{Api, ApiError, Credentials, Host, ListedSubscription, Subscribes};
use shared::store::{NotedSubscription, StoreError, WebhookUrl};

use crate::examine::{Examined, examine, is_at_work, with_url};
use crate::providers::Configured;
use crate::subscriber::{Attempted, Subscriber, SubscriptionStatus};
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
    status: SubscriptionStatus,
    /// The provider's id of the subscription.
    id: Option<String>,
    cause: Option<String>,
    /// The secret of a subscription that was made just now. It is in no log and not in the table.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "exposed")]
    client_secret: Option<Credentials>,
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn exposed<S: Serializer>(secret: &Option<Credentials>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(Credentials::expose).serialize(serializer)
}

impl Subscribed {
    fn new(event: &'static str, status: SubscriptionStatus, id: Option<String>, cause: Option<String>) -> Self {
        Self {
            event,
            status,
            id: id.filter(|id| !id.is_empty()),
            cause,
            client_secret: None,
        }
    }

    /// The result of an attempt.
    fn attempted(event: &'static str, attempted: Attempted) -> Self {
        let (status, cause) = match attempted {
            Attempted::Made {
                id,
                client_secret,
                not_noted,
            } => {
                let cause = not_noted.map(|cause| format!("the event is subscribed, and its id is not noted: {cause}"));
                let status = match cause {
                    None => SubscriptionStatus::Subscribed,
                    Some(_) => SubscriptionStatus::Unclear,
                };
                return Self {
                    client_secret,
                    ..Self::new(event, status, Some(id), cause)
                };
            }
            Attempted::Unclear(error) => (SubscriptionStatus::Unclear, error.to_string()),
            Attempted::Refused(error) => (SubscriptionStatus::Failed, error.to_string()),
            Attempted::Lost => {
                let cause = "another task subscribes the event at the same time";
                (SubscriptionStatus::Unclear, cause.to_owned())
            }
        };
        Self::new(event, status, None, Some(cause))
    }
}

/// What to do for an event.
#[derive(Debug, PartialEq, Eq)]
enum Decision<'l> {
    /// Subscribe it.
    Make,
    /// It is subscribed, and the provider lists the subscription.
    Listed(&'l ListedSubscription),
    /// It is subscribed under this id.
    Known(String),
    /// It is subscribed to another URL, under this id.
    Elsewhere(String),
    /// The subscription under this id has this defect.
    Incomplete(String, String),
    /// An attempt may still be at work.
    AtWork,
    /// An earlier attempt may have subscribed it.
    Unclear,
}

/// Decides what to do for an event, given what is noted and what the provider lists, if it lists its subscriptions.
fn decide<'l>(
    noted: Option<&NotedSubscription>,
    listed: Option<&'l [ListedSubscription]>,
    url: &str,
    is_again: bool,
    now: Timestamp,
) -> Decision<'l> {
    // Whatever an operator has seen in the shop, the attempt may subscribe the event a moment later.
    if noted.is_some_and(|noted| is_at_work(noted, now)) {
        return Decision::AtWork;
    }
    if let Some(own) = listed.and_then(|listed| with_url(listed, |listed| listed == url)) {
        return match &own.defect {
            None => Decision::Listed(own),
            Some(defect) => Decision::Incomplete(own.id.clone(), defect.clone()),
        };
    }
    let Some(noted) = noted.filter(|_| !is_again) else {
        return Decision::Make;
    };
    let id = || noted.id.clone().unwrap_or_default();
    match examine(noted, listed, now) {
        Examined::AtWork => Decision::AtWork,
        Examined::Unclear => Decision::Unclear,
        Examined::Ended | Examined::Missing => Decision::Make,
        Examined::Known if noted.is_of(url) => Decision::Known(id()),
        Examined::Incomplete(defect) if noted.is_of(url) => Decision::Incomplete(id(), defect),
        Examined::Listed(own) => Decision::Elsewhere(own.id.clone()),
        Examined::Known | Examined::Incomplete(_) | Examined::OtherUrl => Decision::Elsewhere(id()),
    }
}

impl Connected {
    /// The answer if no event is subscribed, for the same cause.
    fn failed<P: Subscribes>(shop: &Shop, error: &ApiError) -> Self {
        let failed = P::SUBSCRIPTIONS
            .iter()
            .map(|&event| Subscribed::new(event, SubscriptionStatus::Failed, None, Some(error.to_string())));
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
        task.check_again(P::SUBSCRIPTIONS)?;
        let route = task.route(configured.base_url.is_some())?;
        let secrets = self.read_secrets(configured, time).await?;
        let not_configured = || TaskError::NoTask("the shop's secret has no `api`".to_owned());
        let credentials = secrets.api::<P::Credentials>(&shop).ok_or_else(not_configured)?;
        let credentials = credentials.map_err(TaskError::Secret)?;
        let of_shop = configured
            .secrets_of(&shop, time)
            .await
            .map_err(|refusal| TaskError::Secret(refusal.to_string()))?;
        let base_url = configured
            .base_url(&credentials)
            .map_err(|error| TaskError::Secret(error.to_string()))?;
        let api = Api::new(&base_url, time.give_up_at);
        let subscriber = Subscriber {
            store: self.intake.store(),
            provider: &configured.provider,
            credentials: &credentials,
            secrets: of_shop.ok_or_else(not_configured)?,
            shop: &shop,
            api: &api,
            look_until: time.give_up_at,
            until: time.give_up_at,
        };
        let begun = async { Ok((subscriber.log_in().await?, subscriber.listed().await?)) };
        let (session, listed) = match begun.await {
            Ok(begun) => begun,
            Err(error) => return Ok(Connected::failed::<P>(&shop, &error)),
        };
        let connecting = Connecting {
            subscriber: &subscriber,
            session: &session,
            listed: listed.as_deref(),
            route: &route,
        };
        let mut subscriptions = Vec::new();
        for &event in P::SUBSCRIPTIONS {
            let result = connecting.event(event, task.is_again(event)).await?;
            let status = result.status;
            tracing::info!(provider = P::NAME, shop = %shop, event, ?status, "connect");
            subscriptions.push(result);
        }
        let is_done = |status| matches!(status, SubscriptionStatus::Subscribed | SubscriptionStatus::Known);
        Ok(Connected {
            provider: P::NAME,
            done: subscriptions.iter().all(|subscribed| is_done(subscribed.status)),
            shop: shop.to_string(),
            subscriptions,
        })
    }
}

/// A shop that is being connected.
struct Connecting<'r, P: Subscribes> {
    subscriber: &'r Subscriber<'r, P>,
    session: &'r P::Session,
    /// The subscriptions that the provider lists, if it lists any.
    listed: Option<&'r [ListedSubscription]>,
    route: &'r str,
}

impl<P: Subscribes> Connecting<'_, P> {
    /// Subscribes an event, unless it is subscribed or may be.
    async fn event(&self, event: &'static str, is_again: bool) -> Result<Subscribed, StoreError> {
        let (subscriber, route) = (self.subscriber, self.route);
        let noted = subscriber.noted(event).await?;
        let word = noted.as_ref().and_then(|noted| noted.word.as_deref());
        let url = subscriber.url(route, event, word);
        let decision = decide(noted.as_ref(), self.listed, &url, is_again, Timestamp::now());
        let (status, id, cause) = match decision {
            Decision::Make => {
                let attempted = subscriber.make(self.session, event, route, noted.as_ref(), false);
                return Ok(Subscribed::attempted(event, attempted.await?));
            }
            Decision::Listed(own) => {
                let webhook = WebhookUrl { route, url: &url };
                subscriber.note_listed(event, webhook, own, noted.as_ref()).await?;
                (SubscriptionStatus::Known, Some(own.id.clone()), None)
            }
            Decision::Known(id) => (SubscriptionStatus::Known, Some(id), None),
            Decision::Elsewhere(id) => {
                let cause =
                    "the event is subscribed to another URL; end that subscription, then name the event in `again`";
                (SubscriptionStatus::Elsewhere, Some(id), Some(cause.to_owned()))
            }
            Decision::Incomplete(id, defect) => {
                let cause = format!("{defect}; correct it at the provider, or end it there and run the task again");
                (SubscriptionStatus::Incomplete, Some(id), Some(cause))
            }
            Decision::AtWork => {
                let cause = "another attempt is at work; try again in 15 minutes";
                (SubscriptionStatus::Unclear, None, Some(cause.to_owned()))
            }
            Decision::Unclear => {
                let cause = "an earlier attempt may have subscribed the event; look in the shop, then name the event in `again`";
                (SubscriptionStatus::Unclear, None, Some(cause.to_owned()))
            }
        };
        Ok(Subscribed::new(event, status, id, cause))
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use shared::identity::sha256_hex;

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

    const URL: &str = "https://api.example.com/webhooks/aboutyou/main?token=a-token-of-the-shop";

    fn noted(id: Option<&str>, url: &str) -> NotedSubscription {
        let mut noted = NotedSubscription::default();
        noted.id = id.map(str::to_owned);
        noted.url_sha256 = Some(sha256_hex(url.as_bytes()));
        noted.noted_at = Some(Timestamp::UNIX_EPOCH);
        noted
    }

    fn listed(id: &str, url: &str, defect: Option<&str>) -> ListedSubscription {
        ListedSubscription {
            id: id.to_owned(),
            url: Some(url.to_owned()),
            defect: defect.map(str::to_owned),
        }
    }

    #[test]
    fn without_a_list_the_note_decides() {
        let now = Timestamp::UNIX_EPOCH;
        let decide = |noted: &NotedSubscription, again| decide(Some(noted), None, URL, again, now);
        let made = noted(Some("7"), URL);
        assert_eq!(decide(&made, false), Decision::Known("7".to_owned()));
        assert_eq!(decide(&made, true), Decision::Make);
        let other = noted(Some("7"), "https://api.example.com/");
        assert_eq!(decide(&other, false), Decision::Elsewhere("7".to_owned()));
        let unclear = noted(None, URL);
        for again in [false, true] {
            assert_eq!(decide(&unclear, again), Decision::AtWork);
        }
        let mut over = unclear;
        over.noted_at = Some(now - SignedDuration::from_mins(15));
        assert_eq!(decide(&over, false), Decision::Unclear);
        assert_eq!(decide(&over, true), Decision::Make);
        let mut ended = made;
        ended.ended_at = Some(now);
        assert_eq!(decide(&ended, false), Decision::Make);
    }

    #[test]
    fn with_a_list_the_list_decides() {
        let (own, defect) = (listed("7", URL, None), "the subscription is disabled");
        let disabled = listed("8", URL, Some(defect));
        let other = listed("9", "https://api.example.com/", None);
        let now = Timestamp::UNIX_EPOCH;
        let later = now + SignedDuration::from_hours(1);
        let both = [disabled.clone(), own.clone()];
        for (is_again, id) in [(false, None), (true, Some("6"))] {
            let noted = noted(id, URL);
            let found = decide(Some(&noted), Some(&both), URL, is_again, later);
            assert_eq!(found, Decision::Listed(&own));
            let found = decide(Some(&noted), Some(&both[..1]), URL, is_again, later);
            assert_eq!(found, Decision::Incomplete("8".to_owned(), defect.to_owned()));
        }
        let others = [other];
        let decide = |id, now| {
            decide(
                Some(&noted(id, "https://before.example.com/")),
                Some(&others),
                URL,
                false,
                now,
            )
        };
        assert_eq!(decide(Some("9"), now), Decision::Elsewhere("9".to_owned()));
        // Somebody has ended it.
        assert_eq!(decide(Some("7"), now), Decision::Make);
        assert_eq!(decide(Some(""), now), Decision::Make);
        // An attempt of another task may still be at work.
        assert_eq!(decide(None, now), Decision::AtWork);
        assert_eq!(decide(None, later), Decision::Make);
    }

    #[test]
    fn a_list_that_says_little_takes_no_second_place() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
        let decide =
            |noted: NotedSubscription, listed| decide(Some(&noted), Some(&[listed]), URL, false, now) == Decision::Make;
        let without_url = |id| ListedSubscription {
            url: None,
            ..listed(id, URL, None)
        };
        assert!(!decide(noted(Some("7"), URL), without_url("7")));
        assert!(!decide(noted(None, URL), without_url("7")));
        assert!(!decide(noted(Some("7"), URL), without_url("")));
        // The token was changed, and the provider gives no ids.
        let before = "https://api.example.com/webhooks/aboutyou/main?token=the-token-before";
        assert!(!decide(noted(Some(""), before), listed("", before, None)));
        assert!(decide(noted(Some("7"), URL), without_url("8")));
    }

    #[test]
    fn the_secret_of_a_subscription_is_answered_and_not_shown() {
        let secret = || serde_json::from_str(r#""the-secret-of-it""#).ok();
        let made = |client_secret, not_noted: Option<&str>| Attempted::Made {
            id: "17".to_owned(),
            client_secret,
            not_noted: not_noted.map(str::to_owned),
        };
        for (not_noted, status) in [(None, "subscribed"), (Some("no answer"), "unclear")] {
            let subscribed = Subscribed::attempted("orders", made(secret(), not_noted));
            assert!(!format!("{subscribed:?}").contains("the-secret-of-it"));
            let answer = serde_json::to_value(subscribed).expect("JSON");
            assert_eq!((&answer["status"], &answer["id"]), (&status.into(), &"17".into()));
            assert_eq!(answer["client_secret"], "the-secret-of-it");
        }
        let answer = serde_json::to_value(Subscribed::attempted("orders", made(None, None))).expect("JSON");
        assert_eq!(answer.get("client_secret"), None);
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
