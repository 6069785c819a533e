//! Subscribing to the events of a shop through the API of Cartum and of ABOUT YOU.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use local::net::server::{Port, Server};
use serde_json::{Value, json};
use shared::order_api::{Api, BaseUrl, Failure, Subscribes};
use tests::reader::Reader;
use tokio::time::Instant;

use crate::reconciliation::{LIMIT, Listed};

/// A server that answers every log-in of Cartum, and each other request with this status and body. Counts the latter, and
/// keeps the last one.
struct SubscriptionApi {
    server: Server,
    calls: Arc<AtomicUsize>,
    last: Arc<Mutex<Option<Request<Bytes>>>>,
}

impl SubscriptionApi {
    async fn answering(status: u16, body: &Value) -> Self {
        let calls = Arc::<AtomicUsize>::default();
        let last = Arc::<Mutex<_>>::default();
        let (counted, kept, answer) = (Arc::clone(&calls), Arc::clone(&last), body.to_string());
        let port = Port::take(0, "").await.expect("a free port");
        let server = port.serve(LIMIT, move |request: Request<Bytes>, _| {
            let (status, body) = if request.uri().path() == "/api/auth/" {
                let token = json!({"status": "OK", "response": {"token": "a-token"}});
                (200, token.to_string())
            } else {
                counted.fetch_add(1, Ordering::SeqCst);
                *kept.lock().expect("no panic") = Some(request);
                (status, answer.clone())
            };
            let response = Response::builder().status(status).body(body);
            async move { response.ok() }
        });
        Self { server, calls, last }
    }

    fn api(&self) -> Api {
        let base_url = BaseUrl::set_by_operator(&format!("http://{}", self.server.address()));
        Api::new(&base_url, Instant::now() + Duration::from_secs(10))
    }

    /// Makes a subscription, and returns its id and its secret.
    async fn subscribe<P: Listed + Subscribes>(&self) -> Result<(String, Option<String>), Failure> {
        let api = self.api();
        let credentials = serde_json::from_value(P::credentials(false)).unwrap_or_else(|_| panic!("the credentials"));
        let provider = Reader::<P>::new().provider;
        let session = provider
            .log_in(&api, &credentials)
            .await
            .map_err(|error| error.failure)?;
        let made = provider.subscribe(&api, &credentials, &session, "order_paid", "https://api.example.com/");
        let made = made.await.map_err(|error| error.failure)?;
        Ok((made.id, made.client_secret.map(|secret| secret.expose().to_owned())))
    }
}

#[tokio::test]
async fn a_subscription_of_cartum_is_made_once_and_has_an_id() {
    for (status, body, expected) in [
        (201, json!({"id": 17}), Ok(("17".to_owned(), None))),
        (
            200,
            json!({"status": "OK", "response": {"id": 17}}),
            Ok(("17".to_owned(), None)),
        ),
        (200, json!({"status": "ERROR"}), Err(Failure::Misconfigured)),
        (200, json!({"status": "AUTHORIZATION_ERROR"}), Err(Failure::Refused)),
        (400, json!({}), Err(Failure::Misconfigured)),
        (429, json!({}), Err(Failure::Throttled)),
        // An id says that it was made.
        (200, json!({"status": "DONE", "id": 17}), Ok(("17".to_owned(), None))),
        // It may have been made.
        (500, json!({}), Err(Failure::Unavailable)),
        (202, json!({"id": 17}), Err(Failure::Unavailable)),
        (302, json!({}), Err(Failure::Unavailable)),
        (200, json!({"status": "DONE"}), Err(Failure::Unreadable)),
        (201, json!({}), Err(Failure::Unreadable)),
    ] {
        let cartum = SubscriptionApi::answering(status, &body).await;
        let made = cartum.subscribe::<cartum::Cartum>().await;
        assert_eq!(made, expected, "{status} {body}");
        assert_eq!(cartum.calls.load(Ordering::SeqCst), 1, "{status} {body}");
    }
}

#[tokio::test]
async fn a_subscription_of_aboutyou_is_made_once_for_all_events() {
    let secret = Some("a-client-secret".to_owned());
    for (status, body, expected) in [
        (
            201,
            json!({"id": 17, "client_secret": "a-client-secret"}),
            Ok(("17".to_owned(), secret.clone())),
        ),
        (
            200,
            json!({"id": "17", "client_secret": null}),
            Ok(("17".to_owned(), None)),
        ),
        // The secret is not answered a second time.
        (
            201,
            json!({"client_secret": "a-client-secret"}),
            Ok((String::new(), secret.clone())),
        ),
        (400, json!({"detail": "unknown event"}), Err(Failure::Misconfigured)),
        (401, json!({}), Err(Failure::Refused)),
        // It may have been made.
        (500, json!({}), Err(Failure::Unavailable)),
        (202, json!({"id": 17}), Err(Failure::Unavailable)),
        (201, json!({"id": null}), Err(Failure::Unreadable)),
    ] {
        let aboutyou = SubscriptionApi::answering(status, &body).await;
        let made = aboutyou.subscribe::<aboutyou::AboutYou>().await;
        assert_eq!(made, expected, "{status} {body}");
        assert_eq!(aboutyou.calls.load(Ordering::SeqCst), 1, "{status} {body}");
        let request = aboutyou.last.lock().expect("no panic").take().expect("a request");
        assert_eq!(request.uri().path(), "/api/v1/webhooks/");
        assert_eq!(request.headers()["x-api-key"], "a-key");
        let asked: Value = serde_json::from_slice(request.body()).expect("JSON");
        let events = [
            "order.created",
            "order.updated",
            "order_items.shipped",
            "order_items.cancelled",
            "order_items.returned",
        ];
        let expected = json!({"url": "https://api.example.com/", "events": events, "description": "order-webhooks"});
        assert_eq!(asked, expected);
    }
}

#[tokio::test]
async fn the_subscriptions_of_aboutyou_are_listed() {
    let url = "https://api.example.com/";
    let body = json!([{"id": 17, "url": url, "events": ["order.created"], "enabled": true, "description": null}, {}]);
    let aboutyou = SubscriptionApi::answering(200, &body).await;
    let credentials = serde_json::from_value(<aboutyou::AboutYou as Listed>::credentials(false)).expect("credentials");
    let provider = Reader::<aboutyou::AboutYou>::new().provider;
    let listed = provider.subscriptions(&aboutyou.api(), &credentials).await;
    let listed = listed.expect("a list").expect("ABOUT YOU lists them");
    let ids: Vec<_> = listed
        .iter()
        .map(|listed| (listed.id.as_str(), listed.url.as_deref()))
        .collect();
    assert_eq!(ids, [("17", Some(url)), ("", None)]);
    assert!(
        listed[0]
            .defect
            .as_ref()
            .is_some_and(|defect| defect.contains("order.updated"))
    );
    assert_eq!(listed[1].defect, None);

    let cut = SubscriptionApi::answering(200, &json!({"detail": "no list"})).await;
    let error = provider.subscriptions(&cut.api(), &credentials).await.err();
    assert_eq!(error.map(|error| error.failure), Some(Failure::Unreadable));
}
