//! Subscribing to the events of a shop (`hooks/subscribe`).

use serde_json::{Value, json};
use shared::order_api::{
    Answer, Api, ApiError, Call, Credentials, ListedSubscription, NewSubscription, Subscribes, subscription_id,
};

use crate::orders_api::{ApiCredentials, log_in};
use crate::payload::Event;
use crate::{Cartum, EVENT_PARAMETER, SUBSCRIPTION_PARAMETER, Secrets};

impl Subscribes for Cartum {
    const SUBSCRIPTIONS: &'static [&'static str] = &{
        let [created, paid, update] = Event::ALL;
        [created.as_str(), paid.as_str(), update.as_str()]
    };

    /// The body of a delivery does not name its event, and that of a DELETE does not name its subscription, so the URL
    /// does.
    fn webhook_url(secrets: &Secrets, route: &str, event: &str, word: Option<&str>) -> String {
        // The first token of the list is the newest.
        let token = secrets.tokens.first().map_or("", |token| token.in_url());
        let url = format!("{route}?token={token}&{EVENT_PARAMETER}={event}");
        match word {
            Some(word) => format!("{url}&{SUBSCRIPTION_PARAMETER}={word}"),
            None => url,
        }
    }

    async fn log_in(&self, api: &Api, credentials: &ApiCredentials) -> Result<Option<Credentials>, ApiError> {
        log_in(api, credentials).await.map(Some)
    }

    async fn subscriptions(&self, _: &Api, _: &ApiCredentials) -> Result<Option<Vec<ListedSubscription>>, ApiError> {
        Ok(None)
    }

    async fn subscribe(
        &self,
        api: &Api,
        _: &ApiCredentials,
        token: &Option<Credentials>,
        event: &str,
        url: &str,
    ) -> Result<NewSubscription, ApiError> {
        let token = token.as_ref().map(Credentials::expose);
        let body = json!({"token": token, "event": event, "target_url": url});
        let answer = api
            .call_once(&Call::post("/api/hooks/subscribe/", body.to_string()))
            .await?;
        Ok(NewSubscription {
            id: id_in(&answer)?,
            client_secret: None,
        })
    }
}

/// Reads the id of a subscription: `{"id":1}`, or the same as the `response` of the API's other answers.
fn id_in(answer: &Answer) -> Result<String, ApiError> {
    let answer: Value = answer.parse()?;
    let id = answer.get("id").or_else(|| answer.get("response")?.get("id"));
    let status = answer.get("status").and_then(Value::as_str);
    match (subscription_id(id), status) {
        (Some(id), _) => Ok(id),
        (None, Some("AUTHORIZATION_ERROR" | "UNAUTHORIZED")) => Err(ApiError::refused("the API refuses a new token")),
        // Any other text may quote the request, so it is not shown.
        (None, Some("ERROR")) => Err(ApiError::misconfigured("the API refuses the subscription")),
        // Whether the subscription was made does not follow from an answer that is not documented.
        (None, _) => Err(ApiError::unreadable("the answer names no subscription")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_names_the_event_and_its_subscription_and_has_the_newest_token() {
        let secrets = r#"{"tokens":["a-new-token-of-the-shop","an-old-token-of-the-shop"]}"#;
        let secrets: Secrets = serde_json::from_str(secrets).expect("secrets");
        let route = "https://api.example.com/webhooks/cartum/main";
        let first = "https://api.example.com/webhooks/cartum/main?token=a-new-token-of-the-shop&event=order_paid";
        assert_eq!(Cartum::webhook_url(&secrets, route, "order_paid", None), first);
        let second = Cartum::webhook_url(&secrets, route, "order_paid", Some("0a1b"));
        assert_eq!(second, format!("{first}&subscription=0a1b"));
        assert_eq!(Cartum::SUBSCRIPTIONS, ["order_created", "order_paid", "order_update"]);
    }
}
