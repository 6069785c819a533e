//! Subscribing to the events of a shop, the end of a subscription, and its renewal. Cartum has five places for each
//! event and lists none of them.

mod aboutyou;
mod renewal;

use std::collections::BTreeSet;

use bytes::Bytes;
use http::Request;
use jiff::SignedDuration;
use local::project::settings::{AUTO_RESUBSCRIBE_NAME, RECONCILE, SHOP, TOKEN};
use local::providers::order_apis::Fault;
use local::providers::subscriptions::Subscription;
use local::recorder::alerts::Alert;
use local::stack::Config;
use serde_json::{Value, json};
use tests::{Answer, Item, Stack};

const EVENTS: [&str; 3] = ["order_created", "order_paid", "order_update"];
/// The request that subscribes to an event of Cartum.
const SUBSCRIBE: &str = "POST /cartum/api/hooks/subscribe/";
/// Longer than alerts of one kind are collected.
const PERIOD: SignedDuration = SignedDuration::from_mins(61);

/// Turns renewal on.
fn renewing(config: &mut Config) {
    let name = AUTO_RESUBSCRIBE_NAME.to_owned();
    config.variables.insert(name, "true".to_owned());
}

/// Runs the task `connect` with more parameters, for the URL of the stack's gateway unless they name another, and returns
/// its answer.
async fn connect_with(stack: &Stack, provider: &str, more: Value) -> Value {
    let mut task = json!({"provider": provider, "shop": SHOP, "url": stack.url()});
    if let (Some(task), Value::Object(more)) = (task.as_object_mut(), more) {
        task.extend(more);
    }
    let answer = stack.invoke(RECONCILE, &json!({ "connect": task })).await;
    answer.expect("an answer of connect")
}

/// Connects the shop of Cartum, and returns the status and the id of each event.
async fn connect(stack: &Stack, more: Value) -> Vec<(String, Value)> {
    let answer = connect_with(stack, "cartum", more).await;
    let subscriptions = answer["subscriptions"].as_array().expect("subscriptions");
    let events: Vec<_> = subscriptions.iter().map(|subscribed| &subscribed["event"]).collect();
    assert_eq!(events, EVENTS, "{answer}");
    let status = |subscribed: &Value| subscribed["status"].as_str().unwrap_or_default().to_owned();
    let of = |subscribed: &Value| (status(subscribed), subscribed["id"].clone());
    subscriptions.iter().map(of).collect()
}

fn all(status: &str, ids: [Value; 3]) -> Vec<(String, Value)> {
    ids.map(|id| (status.to_owned(), id)).into()
}

/// Runs reconcile, which completes, and returns the status of each subscription that it has looked at.
async fn watch(stack: &Stack, provider: &str) -> Vec<(String, String)> {
    let run = stack.reconcile(provider).await;
    assert_eq!(run["status"], "complete", "{run}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let watched = run["subscriptions"].as_array().into_iter().flatten();
    watched.map(|one| (text(&one["event"]), text(&one["status"]))).collect()
}

/// What a run says if `order_paid` has this status, and nothing is to be said about the other events.
fn paid_is(status: &str) -> Vec<(String, String)> {
    let statuses = ["known", status, "known"];
    let statuses = EVENTS.into_iter().zip(statuses);
    statuses
        .map(|(event, status)| (event.to_owned(), status.to_owned()))
        .collect()
}

/// The subscriptions of the shop to an event of Cartum.
fn places(stack: &Stack, event: &str) -> Vec<Subscription> {
    let mut places = stack.order_apis().subscriptions().of("cartum", SHOP);
    places.retain(|place| place.events == [event]);
    places
}

/// The only subscription of the shop to an event of Cartum.
#[track_caller]
fn place(stack: &Stack, event: &str) -> Subscription {
    let mut places = places(stack, event);
    assert_eq!(places.len(), 1, "{places:?}");
    places.remove(0)
}

/// Removes a subscription of Cartum, without the DELETE that reports it.
fn remove(stack: &Stack, subscription: &Subscription) {
    let removed = stack
        .order_apis()
        .subscriptions()
        .remove("cartum", SHOP, subscription.id);
    assert!(removed.is_some(), "{subscription:?} was removed before");
}

/// Reports the end of a subscription, as Cartum does.
async fn report_end(stack: &Stack, subscription: &Subscription) -> Answer {
    let request = Request::delete(&subscription.url).body(Bytes::new());
    stack.send_request(request.expect("a request")).await
}

/// Removes a subscription of Cartum and reports it. Returns the id of the delivery.
async fn end(stack: &Stack, subscription: &Subscription) -> String {
    remove(stack, subscription);
    report_end(stack, subscription).await.event_id("unsupported")
}

/// What the table knows about the subscription to an event.
async fn item(stack: &Stack, provider: &str, event: &str) -> Item {
    let key = tests::outbox::text(&format!("{provider}#{SHOP}#{event}"));
    let mut items = stack.partition("subscriptions").await.into_iter();
    items.find(|item| item["sk"] == key).expect("a subscription")
}

/// Lets every attempt to subscribe have begun so long ago that none is at work.
async fn let_attempts_end(stack: &Stack) {
    for mut item in stack.partition("subscriptions").await {
        let noted_at = tests::outbox::text(&stack.minutes_ago(16).to_string());
        assert!(item.insert("noted_at".to_owned(), noted_at).is_some(), "{item:?}");
        stack.put(item).await;
    }
}

/// The alerts about ended subscriptions, after the time for which they are collected.
async fn alerts(stack: &Stack) -> Vec<Alert> {
    stack.alert_after(PERIOD).await;
    let mut alerts = stack.alerts().await;
    alerts.retain(|alert| alert.said("kind") == "unsubscribed" && alert.said("status") == "open");
    alerts
}

/// The only alert about an ended subscription.
async fn alert(stack: &Stack, provider: &str) -> Alert {
    let mut alerts = alerts(stack).await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let alert = alerts.remove(0);
    assert_eq!((alert.said("provider"), alert.said("shop")), (provider, SHOP));
    alert
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_subscribed_once() {
    let stack = Stack::start().await;
    let public = json!({"url": "https://api.example.com"});
    let ids = || ["1", "2", "3"].map(Value::from);
    assert_eq!(connect(&stack, public.clone()).await, all("subscribed", ids()));
    assert_eq!(connect(&stack, public).await, all("known", ids()));
    let other = json!({"url": "https://other.example.com"});
    assert_eq!(connect(&stack, other.clone()).await, all("elsewhere", ids()));

    let mut words = BTreeSet::new();
    for event in EVENTS {
        let url = format!("https://api.example.com/webhooks/cartum/{SHOP}?token={TOKEN}&event={event}&subscription=");
        let place = place(&stack, event);
        let word = place.url.strip_prefix(&url).expect("the URL of the event");
        assert_eq!(
            item(&stack, "cartum", event).await["attempt_id"],
            tests::outbox::text(word)
        );
        words.insert(word.to_owned());
    }
    assert_eq!(words.len(), EVENTS.len(), "{words:?}");
    let items = format!("{:?}", stack.partition("subscriptions").await);
    assert!(!items.contains(TOKEN) && !stack.log().join("\n").contains(TOKEN));

    let refused = Fault::Status(403);
    stack.order_apis().inject("cartum", refused, usize::MAX);
    let mut again = other;
    again["again"] = json!(["order_paid"]);
    let without_api = connect(&stack, again).await;
    assert_eq!(without_api, all("failed", [(); 3].map(|()| Value::Null)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_takes_no_second_place() {
    let stack = Stack::start().await;
    // Cartum makes the subscriptions and answers 500.
    stack.order_apis().inject_at("cartum", SUBSCRIBE, Fault::Status(500), 3);
    let unclear = || all("unclear", [(); 3].map(|()| Value::Null));
    for _ in 0..2 {
        assert_eq!(connect(&stack, json!({})).await, unclear());
        for event in EVENTS {
            place(&stack, event);
        }
    }
    let unclear_events = EVENTS.map(|event| (event.to_owned(), "unclear".to_owned()));
    assert_eq!(watch(&stack, "cartum").await, unclear_events);
    // The attempts may be at work, so not even the named events take another place.
    assert_eq!(connect(&stack, json!({"again": EVENTS})).await, unclear());
    let_attempts_end(&stack).await;
    assert_eq!(watch(&stack, "cartum").await, unclear_events);
    // Only the named events take another place.
    let mut expected = unclear();
    expected[1] = ("subscribed".to_owned(), "4".into());
    assert_eq!(connect(&stack, json!({"again": ["order_paid"]})).await, expected);
    let others = json!({"again": ["order_created", "order_update"]});
    expected = all("subscribed", ["5", "4", "6"].map(Value::from));
    expected[1].0 = "known".to_owned();
    assert_eq!(connect(&stack, others).await, expected);
    for event in EVENTS {
        assert_eq!(places(&stack, event).len(), 2, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_nobody_has_noted_ends_with_an_alert() {
    let stack = Stack::start().await;
    let event_id = stack
        .deliver("cartum", "delete-unsubscribed")
        .await
        .event_id("unsupported");
    let alert = alert(&stack, "cartum").await;
    assert_eq!(alert.json["events"][0]["event_id"], event_id, "{}", alert.json);
    assert!(!alert.text.contains("cargo local connect"), "{}", alert.text);
    assert_eq!(stack.partition("subscriptions").await, []);
    assert_eq!(watch(&stack, "cartum").await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_provider_with_an_api_for_subscriptions_is_connected() {
    let stack = Stack::start().await;
    for provider in ["selldone", "snipcart", "deeple"] {
        let task = json!({"provider": provider, "shop": SHOP, "url": "https://api.example.com"});
        let error = stack.invoke(RECONCILE, &json!({ "connect": task })).await;
        let error = error.expect_err("an error").to_string();
        assert!(error.contains(&format!("functions/{provider}/README.md")), "{error}");
    }
}
