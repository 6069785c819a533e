//! The subscription at ABOUT YOU: one for all events of orders, which its API lists.

use local::aws::faults::{Rule, Service};
use local::project::settings;
use tests::outbox::DENIED;

use super::*;

const ORDER_EVENTS: [&str; 5] = [
    "order.created",
    "order.updated",
    "order_items.shipped",
    "order_items.cancelled",
    "order_items.returned",
];
const POST: &str = "POST /aboutyou/api/v1/webhooks/";
const LIST: &str = "GET /aboutyou/api/v1/webhooks/";

/// A stack with a connected shop, whose subscription is renewed.
async fn connected() -> Stack {
    let stack = Stack::with(renewing).await;
    assert_eq!(
        connected_as(&connect_with(&stack, "aboutyou", json!({})).await),
        "subscribed"
    );
    stack
}

/// The status in an answer of `connect`.
#[track_caller]
fn connected_as(answer: &Value) -> &str {
    let subscriptions = answer["subscriptions"].as_array().expect("subscriptions");
    assert_eq!(
        (subscriptions.len(), &subscriptions[0]["event"]),
        (1, &json!("orders")),
        "{answer}"
    );
    let status = subscriptions[0]["status"].as_str().expect("a status");
    assert_eq!(answer["done"], ["subscribed", "known"].contains(&status), "{answer}");
    status
}

/// The only subscription of the shop.
#[track_caller]
fn only(stack: &Stack) -> Subscription {
    let mut all = stack.order_apis().subscriptions().of("aboutyou", SHOP);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn remove(stack: &Stack) {
    let removed = stack
        .order_apis()
        .subscriptions()
        .remove("aboutyou", SHOP, only(stack).id);
    assert!(removed.is_some());
}

fn orders_are(status: &str) -> Vec<(String, String)> {
    vec![("orders".to_owned(), status.to_owned())]
}

#[tokio::test(flavor = "multi_thread")]
async fn all_events_of_orders_are_subscribed_at_once() {
    let stack = Stack::start().await;
    let answer = connect_with(&stack, "aboutyou", json!({})).await;
    assert_eq!(connected_as(&answer), "subscribed");
    let made = only(&stack);
    assert_eq!(answer["subscriptions"][0]["id"], made.id.to_string(), "{answer}");
    assert_eq!(
        answer["subscriptions"][0]["client_secret"].as_str(),
        made.client_secret.as_deref()
    );
    let mut events = made.events.clone();
    events.sort_unstable();
    let mut expected = ORDER_EVENTS;
    expected.sort_unstable();
    assert_eq!(events, expected);
    assert_eq!(
        made.url,
        format!("{}/webhooks/aboutyou/{SHOP}?token={TOKEN}", stack.url())
    );

    let again = connect_with(&stack, "aboutyou", json!({})).await;
    assert_eq!(connected_as(&again), "known");
    assert!(again["subscriptions"][0]["client_secret"].is_null(), "{again}");
    assert_eq!(watch(&stack, "aboutyou").await, orders_are("known"));
    let other = json!({"url": "https://other.example.com"});
    assert_eq!(
        connected_as(&connect_with(&stack, "aboutyou", other).await),
        "elsewhere"
    );
    assert_eq!(only(&stack), made);

    let items = format!("{:?}", stack.partition("subscriptions").await);
    let log = stack.log().join("\n");
    for secret in [
        made.client_secret.as_deref().expect("a secret"),
        TOKEN,
        "local-order-api-of-",
    ] {
        assert!(
            !items.contains(secret) && !log.contains(secret),
            "{secret} is stored or logged"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_exists_is_only_noted() {
    let stack = Stack::with(renewing).await;
    let url = format!("{}/webhooks/aboutyou/{SHOP}?token={TOKEN}", stack.url());
    let id = stack
        .order_apis()
        .subscriptions()
        .add("aboutyou", SHOP, &ORDER_EVENTS, &url);
    assert_eq!(
        connected_as(&connect_with(&stack, "aboutyou", json!({})).await),
        "known"
    );
    assert_eq!(only(&stack).id, id);
    assert_eq!(watch(&stack, "aboutyou").await, orders_are("known"));
    remove(&stack);
    assert_eq!(watch(&stack, "aboutyou").await, orders_are("renewed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_looked_up_in_the_list() {
    for lost in [Fault::Status(500), Fault::Cut] {
        let stack = Stack::with(renewing).await;
        stack.order_apis().inject_at("aboutyou", POST, lost, 1);
        connect_with(&stack, "aboutyou", json!({})).await;
        let made = only(&stack);
        assert_eq!(
            connected_as(&connect_with(&stack, "aboutyou", json!({})).await),
            "known",
            "{lost:?}"
        );

        remove(&stack);
        stack.order_apis().inject_at("aboutyou", POST, lost, 1);
        stack.reconcile("aboutyou").await;
        let renewed = only(&stack);
        assert_ne!(renewed.id, made.id);
        watch(&stack, "aboutyou").await;
        assert_eq!(watch(&stack, "aboutyou").await, orders_are("known"), "{lost:?}");
        assert_eq!(only(&stack), renewed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_subscription_is_an_alert_and_is_renewed() {
    let stack = connected().await;
    let first = only(&stack);
    for _ in 0..3 {
        remove(&stack);
        assert_eq!(watch(&stack, "aboutyou").await, orders_are("renewed"));
        let alert = alert(&stack, "aboutyou").await;
        assert!(alert.text.contains("another client_secret"), "{}", alert.text);
        assert_eq!(watch(&stack, "aboutyou").await, orders_are("known"));
        assert_eq!(alerts(&stack).await, [], "the subscription is there");
    }
    let last = only(&stack);
    assert_eq!((&last.url, &last.events), (&first.url, &first.events));
    let items = format!("{:?}", stack.partition("subscriptions").await);
    let secret = last.client_secret.expect("a secret");
    assert!(!items.contains(&secret) && !stack.log().join("\n").contains(&secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_subscription_is_an_alert_without_renewal() {
    let stack = Stack::start().await;
    connect_with(&stack, "aboutyou", json!({})).await;
    remove(&stack);
    assert_eq!(watch(&stack, "aboutyou").await, orders_are("missing"));
    alert(&stack, "aboutyou").await;
    assert_eq!(stack.order_apis().subscriptions().of("aboutyou", SHOP), []);
    // An operator subscribes again.
    let again = connect_with(&stack, "aboutyou", json!({"again": ["orders"]})).await;
    assert_eq!(connected_as(&again), "subscribed");
    assert_eq!(watch(&stack, "aboutyou").await, orders_are("known"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_somebody_changed_is_only_an_alert() {
    let acts: [fn(&mut Subscription); 2] = [
        |subscription| subscription.is_enabled = false,
        |subscription| subscription.events.retain(|event| event != "order_items.returned"),
    ];
    for act in acts {
        let stack = connected().await;
        stack.order_apis().subscriptions().change("aboutyou", SHOP, act);
        let changed = only(&stack);
        assert_eq!(watch(&stack, "aboutyou").await, orders_are("incomplete"));
        alert(&stack, "aboutyou").await;
        let answer = connect_with(&stack, "aboutyou", json!({})).await;
        assert_eq!(connected_as(&answer), "incomplete");
        assert!(answer["subscriptions"][0]["cause"].is_string(), "{answer}");
        assert_eq!(only(&stack), changed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_whose_signatures_are_checked_is_not_renewed() {
    let stack = Stack::with(|config| {
        renewing(config);
        let mut secret = settings::secret("aboutyou").expect("a secret");
        secret["shops"][SHOP]["client_secrets"] = json!(["a-client-secret-of-the-shop"]);
        config.secrets.insert("aboutyou".to_owned(), secret);
    })
    .await;
    connect_with(&stack, "aboutyou", json!({})).await;
    remove(&stack);
    for _ in 0..2 {
        assert_eq!(watch(&stack, "aboutyou").await, orders_are("missing"));
        assert_eq!(stack.order_apis().subscriptions().of("aboutyou", SHOP), []);
    }
    let alert = alert(&stack, "aboutyou").await;
    assert!(
        format!("{} {}", alert.text, alert.json).contains("client_secrets"),
        "{}",
        alert.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_fails_is_logged_and_no_run_fails() {
    let faults = [
        // An outage passes.
        (Fault::Status(500), false),
        (Fault::Half, true),
        (Fault::Redirect(1), true),
        (Fault::Status(403), true),
    ];
    for (fault, is_alert) in faults {
        let stack = connected().await;
        let subscribed = only(&stack);
        stack.order_apis().inject_at("aboutyou", LIST, fault, usize::MAX);
        for _ in 0..2 {
            let run = stack.reconcile("aboutyou").await;
            assert_eq!(run["status"], "complete", "{fault:?}: {run}");
            let alerts = alerts(&stack).await;
            let is_said = |alert: &Alert| alert.text.contains("the subscriptions cannot be checked");
            assert_eq!(
                (alerts.len(), alerts.iter().all(is_said)),
                (usize::from(is_alert), true),
                "{fault:?}: {alerts:?}"
            );
        }
        let log = stack.log();
        let logged = log.iter().filter(|line| line.contains("subscriptions_not_watched"));
        assert_eq!(logged.count(), 2, "{fault:?}");
        stack.order_apis().end_faults_of("aboutyou");
        assert_eq!(watch(&stack, "aboutyou").await, orders_are("known"));
        assert_eq!(only(&stack), subscribed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_no_list_has_shown_is_renewed_once() {
    let stack = connected().await;
    let first = only(&stack);
    remove(&stack);
    assert_eq!(watch(&stack, "aboutyou").await, orders_are("renewed"));
    alerts(&stack).await;
    // The list never shows what is made.
    remove(&stack);
    for _ in 0..2 {
        assert_eq!(watch(&stack, "aboutyou").await, orders_are("missing"));
        assert_eq!(stack.order_apis().subscriptions().of("aboutyou", SHOP), []);
        let alert = alert(&stack, "aboutyou").await;
        assert!(alert.text.contains("still missing"), "{}", alert.text);
    }
    // An operator has looked.
    assert_eq!(
        connected_as(&connect_with(&stack, "aboutyou", json!({})).await),
        "subscribed"
    );
    assert_eq!(watch(&stack, "aboutyou").await, orders_are("known"));
    remove(&stack);
    assert_eq!(watch(&stack, "aboutyou").await, orders_are("renewed"));
    assert_eq!(watch(&stack, "aboutyou").await, orders_are("known"));
    assert_ne!(only(&stack).id, first.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_cannot_be_noted_is_answered_with_the_client_secret() {
    let stack = Stack::with(renewing).await;
    let down = stack.tap().inject(
        Rule::new(Service::DynamoDb, "UpdateItem").holding("subscribed_at"),
        DENIED,
    );
    let answer = connect_with(&stack, "aboutyou", json!({})).await;
    assert_eq!(connected_as(&answer), "unclear");
    assert!(down.hits() > 0);
    drop(down);
    let made = only(&stack);
    let subscribed = &answer["subscriptions"][0];
    assert_eq!(
        (&subscribed["id"], subscribed["client_secret"].as_str()),
        (&json!(made.id.to_string()), made.client_secret.as_deref()),
        "{answer}"
    );
    assert!(subscribed["cause"].is_string(), "{answer}");
    // As long as the attempt may be at work, nobody else decides.
    assert_eq!(watch(&stack, "aboutyou").await, orders_are("unclear"));
    let_attempts_end(&stack).await;
    assert_eq!(watch(&stack, "aboutyou").await, orders_are("known"));
    assert_eq!(only(&stack), made);
}
