//! Subscribing to the order events of a shop (`/api/v1/webhooks/`), as two public clients of third parties do it. It was
//! not tried on a live account.

use serde::Deserialize;
use serde_json::{Value, json};
use shared::order_api::{
    Api, ApiError, Call, Credentials, ListedSubscription, NewSubscription, Subscribes, subscription_id,
};

use crate::orders_api::{ApiCredentials, KEY};
use crate::payload::Event;
use crate::{AboutYou, Secrets};

/// The path of the subscriptions. Without the slash at its end, the API answers with a redirect.
const PATH: &str = "/api/v1/webhooks/";

/// A subscription in the list. Any field may be absent, which is then not a defect.
#[derive(Deserialize)]
struct Listed {
    id: Option<Value>,
    url: Option<String>,
    events: Option<Vec<String>>,
    enabled: Option<bool>,
}

/// The answer to a new subscription.
#[derive(Deserialize)]
struct Made {
    id: Option<Value>,
    client_secret: Option<Credentials>,
}

impl Subscribes for AboutYou {
    /// One subscription has all order events.
    const SUBSCRIPTIONS: &'static [&'static str] = &["orders"];

    /// The API lists the subscriptions, so their URLs need no word.
    fn webhook_url(secrets: &Secrets, route: &str, _: &str, _: Option<&str>) -> String {
        // The first token of the list is the newest.
        let token = secrets.tokens.first().map_or("", |token| token.in_url());
        format!("{route}?token={token}")
    }

    fn needs_operator(secrets: &Secrets) -> Option<&'static str> {
        let is_checked = secrets.client_secrets.live().is_some();
        is_checked.then_some("deliveries are checked with client_secrets, and a new subscription has another secret")
    }

    async fn log_in(&self, _: &Api, _: &ApiCredentials) -> Result<(), ApiError> {
        Ok(())
    }

    async fn subscriptions(
        &self,
        api: &Api,
        credentials: &ApiCredentials,
    ) -> Result<Option<Vec<ListedSubscription>>, ApiError> {
        let call = Call::get(PATH).secret_header(KEY, credentials.key.expose())?;
        let (listed, _) = api.json::<Vec<Listed>>(&call).await?;
        Ok(Some(listed.into_iter().map(Listed::into_subscription).collect()))
    }

    async fn subscribe(
        &self,
        api: &Api,
        credentials: &ApiCredentials,
        (): &(),
        _: &str,
        url: &str,
    ) -> Result<NewSubscription, ApiError> {
        let events = Event::ALL.map(Event::as_str);
        let body = json!({"url": url, "events": events, "description": "order-webhooks"});
        let call = Call::post(PATH, body.to_string()).secret_header(KEY, credentials.key.expose())?;
        let made: Made = api.call_once(&call).await?.parse()?;
        let id = subscription_id(made.id.as_ref());
        // The secret is not answered a second time, so an answer with one is not given up.
        if id.is_none() && made.client_secret.is_none() {
            return Err(ApiError::unreadable("the answer names no subscription"));
        }
        Ok(NewSubscription {
            id: id.unwrap_or_default(),
            client_secret: made.client_secret,
        })
    }
}

impl Listed {
    fn into_subscription(self) -> ListedSubscription {
        let events = self
            .events
            .unwrap_or_else(|| Event::ALL.map(|event| event.as_str().to_owned()).into());
        let is_absent = |event: &&str| !events.iter().any(|listed| listed == event);
        let absent: Vec<_> = Event::ALL.map(Event::as_str).into_iter().filter(is_absent).collect();
        let defect = if self.enabled == Some(false) {
            Some("the subscription is disabled".to_owned())
        } else if absent.is_empty() {
            None
        } else {
            Some(format!("the subscription lacks {}", absent.join(", ")))
        };
        ListedSubscription {
            id: subscription_id(self.id.as_ref()).unwrap_or_default(),
            url: self.url,
            defect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str =
        r#"["order.created","order.updated","order_items.shipped","order_items.cancelled","order_items.returned"]"#;

    fn secrets(more: &str) -> Secrets {
        let json = format!(r#"{{"tokens":["a-new-token-of-the-shop","an-old-token-of-the-shop"]{more}}}"#);
        serde_json::from_str(&json).expect("secrets")
    }

    fn listed(json: &str) -> ListedSubscription {
        let listed: Listed = serde_json::from_str(json).expect("a subscription");
        listed.into_subscription()
    }

    #[test]
    fn the_url_has_the_newest_token() {
        let route = "https://api.example.com/webhooks/aboutyou/main";
        let expected = "https://api.example.com/webhooks/aboutyou/main?token=a-new-token-of-the-shop";
        for word in [None, Some("0a1b")] {
            assert_eq!(AboutYou::webhook_url(&secrets(""), route, "orders", word), expected);
        }
    }

    #[test]
    fn a_subscription_with_a_secret_is_made_by_an_operator() {
        assert_eq!(AboutYou::needs_operator(&secrets("")), None);
        let checked = secrets(r#","client_secrets":["the-secret-of-the-subscription"]"#);
        assert!(AboutYou::needs_operator(&checked).is_some());
    }

    #[test]
    fn a_defect_is_that_a_subscription_is_disabled_or_lacks_an_event() {
        let of = |enabled: &str, events: &str| {
            let url = "https://api.example.com/";
            listed(&format!(
                r#"{{"id":17,"url":"{url}","enabled":{enabled},"events":{events}}}"#
            ))
            .defect
        };
        assert_eq!(of("true", ALL), None);
        assert_eq!(of("false", ALL).as_deref(), Some("the subscription is disabled"));
        let more = ALL.replace('[', r#"["stock.updated","#);
        assert_eq!(of("true", &more), None);
        let fewer = ALL.replace(r#""order.updated","order_items.shipped","#, "");
        let expected = "the subscription lacks order.updated, order_items.shipped";
        assert_eq!(of("true", &fewer).as_deref(), Some(expected));
    }

    #[test]
    fn a_field_that_is_absent_is_not_a_defect() {
        let empty = listed("{}");
        assert_eq!((empty.id.as_str(), empty.url, empty.defect), ("", None, None));
        assert_eq!(listed(r#"{"id":null,"events":null,"enabled":null}"#).defect, None);
        assert_eq!(listed(r#"{"id":"17"}"#).id, "17");
        assert_eq!(listed(r#"{"id":17}"#).id, "17");
    }
}
