//! Subscribing to the events of a Cartum shop, which has five places for each event and lists none of them.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use jiff::SignedDuration;
use local::net::server::{Port, Server};
use local::project::settings::{RECONCILE, SHOP, TOKEN, order_api_variable};
use serde_json::{Value, json};
use tests::Stack;

/// The bodies of the subscriptions that Cartum was asked for.
type Asked = Arc<Mutex<Vec<Value>>>;

/// Cartum's API. It answers the first `failing` subscriptions with 500, although it makes them.
async fn cartum(failing: usize) -> (Server, Asked) {
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let port = Port::take(0, "").await.expect("a free port");
    let server = port.serve(100_000, move |request: Request<Bytes>, _| {
        let (status, body) = if request.uri().path() == "/api/auth/" {
            (
                200,
                json!({"status": "OK", "response": {"token": "a-token-of-the-api"}}),
            )
        } else {
            assert_eq!(request.uri().path(), "/api/hooks/subscribe/");
            let body = serde_json::from_slice(request.body()).expect("JSON");
            let mut seen = seen.lock().expect("no panic");
            seen.push(body);
            let status = if seen.len() > failing { 201 } else { 500 };
            (status, json!({"id": seen.len()}))
        };
        let response = Response::builder().status(status).body(body.to_string());
        async move { response.ok() }
    });
    (server, asked)
}

async fn stack(cartum: &Server) -> Stack {
    let url = format!("http://{}", cartum.address());
    Stack::with(|config| {
        config.variables.insert(order_api_variable("cartum"), url);
    })
    .await
}

/// Connects the shop, and returns the status and the id of each event.
async fn connect(stack: &Stack, more: Value) -> Vec<(String, Value)> {
    let mut task = json!({"provider": "cartum", "shop": SHOP, "url": "https://api.example.com"});
    if let (Some(task), Value::Object(more)) = (task.as_object_mut(), more) {
        task.extend(more);
    }
    let answer = stack
        .invoke(RECONCILE, &json!({ "connect": task }))
        .await
        .expect("an answer");
    let subscriptions = answer["subscriptions"].as_array().expect("subscriptions");
    let events: Vec<_> = subscriptions.iter().map(|subscribed| &subscribed["event"]).collect();
    assert_eq!(events, ["order_created", "order_paid", "order_update"], "{answer}");
    let of = |subscribed: &Value| {
        (
            subscribed["status"].as_str().unwrap_or_default().to_owned(),
            subscribed["id"].clone(),
        )
    };
    subscriptions.iter().map(of).collect()
}

fn all(status: &str, ids: [Value; 3]) -> Vec<(String, Value)> {
    ids.map(|id| (status.to_owned(), id)).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_subscribed_once() {
    let (server, asked) = cartum(0).await;
    let stack = stack(&server).await;
    let ids = || ["1", "2", "3"].map(Value::from);
    assert_eq!(connect(&stack, json!({})).await, all("subscribed", ids()));
    assert_eq!(connect(&stack, json!({})).await, all("known", ids()));
    let other = json!({"url": "https://other.example.com"});
    assert_eq!(connect(&stack, other.clone()).await, all("elsewhere", ids()));

    let asked = asked.lock().expect("no panic").clone();
    assert_eq!(asked.len(), 3, "{asked:?}");
    for (body, event) in asked.iter().zip(["order_created", "order_paid", "order_update"]) {
        let url = format!("https://api.example.com/webhooks/cartum/{SHOP}?token={TOKEN}&event={event}");
        assert_eq!(
            *body,
            json!({"token": "a-token-of-the-api", "event": event, "target_url": url})
        );
    }
    let items = format!("{:?}", stack.partition("subscriptions").await);
    let log = stack.log().join("\n");
    for secret in [TOKEN, "a-token-of-the-api"] {
        assert!(!items.contains(secret) && !log.contains(secret), "{secret}");
    }
    drop(server);
    let mut again = other;
    again["again"] = json!(["order_paid"]);
    let without_api = connect(&stack, again).await;
    assert_eq!(without_api, all("failed", [(); 3].map(|()| Value::Null)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_takes_no_second_place() {
    let (server, asked) = cartum(3).await;
    let stack = stack(&server).await;
    let unclear = || all("unclear", [(); 3].map(|()| Value::Null));
    for _ in 0..2 {
        assert_eq!(connect(&stack, json!({})).await, unclear());
        assert_eq!(asked.lock().expect("no panic").len(), 3, "no call is repeated");
    }
    // Only the named events take another place.
    let mut expected = unclear();
    expected[1] = ("subscribed".to_owned(), "4".into());
    assert_eq!(connect(&stack, json!({"again": ["order_paid"]})).await, expected);
    let others = json!({"again": ["order_created", "order_update"]});
    expected = all("subscribed", ["5", "4", "6"].map(Value::from));
    expected[1].0 = "known".to_owned();
    assert_eq!(connect(&stack, others).await, expected);
    let asked = asked.lock().expect("no panic").clone();
    assert_eq!(asked.len(), 6, "{asked:?}");
    assert_eq!(asked[3]["event"], "order_paid");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_subscription_is_an_alert() {
    let stack = Stack::start().await;
    let ended = stack.deliver("cartum", "delete-unsubscribed").await;
    let event_id = ended.event_id("unsupported");
    stack.alert_after(SignedDuration::from_mins(1)).await;
    let alerts = stack.alerts().await;
    let of_end = alerts.iter().find(|alert| alert.said("kind") == "unsubscribed");
    let of_end = of_end.unwrap_or_else(|| panic!("no alert: {alerts:?}"));
    assert_eq!((of_end.said("provider"), of_end.said("shop")), ("cartum", SHOP));
    assert_eq!(of_end.json["events"][0]["event_id"], event_id, "{}", of_end.json);
}
