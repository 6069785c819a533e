//! Alerts: each kind of finding is caused, and its message is read from a queue that is subscribed to the alarm topic.

mod notes;
mod reads;
mod runs;

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::SignedDuration;
use local::aws::faults::{Fault, Rule, Service};
use local::project::settings::TOKEN;
use local::providers::samples::Fixture;
use local::providers::snipcart::Behaviour;
use local::recorder::alerts::Alert;
use local::stack::Config;
use serde_json::{Value, json};
use tests::telemetry::NAMESPACE;
use tests::{ORDERS, Stack, json_body, order_of};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const PERIOD: SignedDuration = SignedDuration::from_mins(60);

/// A stack whose alerts name it `mine`, with these shops of Selldone.
async fn stack_with(shops: &[&str], configure: impl FnOnce(&mut Config)) -> Stack {
    let shops = shops
        .iter()
        .map(|shop| ((*shop).to_owned(), json!({"tokens": [TOKEN]})));
    let secret = json!({"shops": Value::Object(shops.collect())});
    Stack::with(|config| {
        config.secrets.insert("selldone".to_owned(), secret);
        let variables = [("STACK_NAME", "mine"), ("METRICS_NAMESPACE", NAMESPACE)];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        config.variables.extend(variables);
        configure(config);
    })
    .await
}

async fn stack() -> Stack {
    stack_with(&["main", "other"], |_| {}).await
}

/// A delivery that is not understood and is clearly an order.
fn not_understood(stack: &Stack, shop: &str) -> Fixture {
    let mut fixture = stack.unsigned("selldone", "checkout-order");
    fixture.renew().expect("an order");
    let mut body: Value = json_body(&fixture);
    body["action"] = "SomethingNew".into();
    fixture.set_body(body.to_string());
    stack.sign(&mut fixture);
    fixture.set_shop(shop);
    fixture
}

async fn quarantine(stack: &Stack, shop: &str) -> String {
    stack.send(&not_understood(stack, shop)).await.event_id("quarantined")
}

async fn dismiss(stack: &Stack, event_id: &str) {
    let dismissed = stack.ask(json!({"dismiss": {"event_id": event_id}})).await;
    assert_eq!(dismissed["dismissed"], 1, "{dismissed}");
}

/// The only alert of a list.
#[track_caller]
fn only(alerts: &[Alert]) -> &Alert {
    let [alert] = alerts else {
        panic!("{} alerts: {alerts:?}", alerts.len())
    };
    alert
}

/// Runs the task a minute later, and returns the only alert that it sends.
async fn next_alert(stack: &Stack) -> Alert {
    let answer = stack.alert_after(MINUTE).await;
    assert_eq!(
        (&answer["outage"], &answer["done"]),
        (&Value::Null, &json!(true)),
        "{answer}"
    );
    only(&stack.alerts().await).clone()
}

/// Checks what every alert has.
#[track_caller]
fn assert_alert(alert: &Alert, kind: &str, provider: &str, shop: &str, count: u64) {
    for (name, value) in [("kind", kind), ("provider", provider), ("shop", shop)] {
        assert_eq!(alert.said(name), value, "{alert:?}");
        let attribute = alert.attributes[name]["Value"].as_str().unwrap_or_default();
        assert_eq!(attribute, value, "{alert:?}");
    }
    assert_eq!(
        (&alert.json["count"], alert.said("code")),
        (&json!(count), kind),
        "{alert:?}"
    );
    assert!(alert.subject.starts_with("mine: ") && alert.subject.is_ascii() && alert.subject.len() <= 100);
    assert!(
        alert.text.contains(&format!("shared/CODES.md#{kind}")),
        "{}",
        alert.text
    );
    if alert.said("status") == "open" {
        let commands = alert.json["commands"].as_array().expect("commands");
        assert!(!commands.is_empty(), "{alert:?}");
        for command in commands {
            assert!(
                alert.text.contains(command.as_str().expect("a command")),
                "{}",
                alert.text
            );
        }
    }
}

/// Checks that an alert is over.
#[track_caller]
fn assert_over(alert: &Alert, kind: &str, provider: &str, shop: &str) {
    assert_eq!(alert.said("status"), "over", "{alert:?}");
    assert_eq!(
        (alert.said("kind"), alert.said("provider"), alert.said("shop")),
        (kind, provider, shop),
        "{alert:?}"
    );
    assert!(alert.subject.contains("is over"), "{}", alert.subject);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_holds_the_order_id_and_no_personal_data() {
    let stack = stack().await;
    let fixture = not_understood(&stack, "main");
    let event_id = stack.send(&fixture).await.event_id("quarantined");
    let answer = stack.ask(json!({"alert": {}})).await;
    assert_eq!(answer["found"], 0, "its key may not be in the index yet: {answer}");
    let alert = next_alert(&stack).await;
    assert_alert(&alert, "quarantined", "selldone", "main", 1);
    let body: Value = json_body(&fixture);
    let order = body["basket"]["id"].to_string();
    assert_eq!(alert.json["events"], json!([{"event_id": event_id, "order": order}]));
    assert_eq!(alert.json["details"], json!(["unknown_event"]));
    assert_eq!(alert.subject, "mine: 1 quarantined, selldone/main");
    for named in [
        format!("Event: {event_id}, order {order}\n"),
        format!("cargo local get {event_id} --stack mine\n"),
        "cargo local reprocess --provider selldone --shop main --stack mine\n".to_owned(),
        format!(
            "aws lambda invoke --function-name redrive --cli-read-timeout 900 --cli-binary-format raw-in-base64-out --payload '{{\"get\":{{\"event_id\":\"{event_id}\"}}}}' answer.json"
        ),
    ] {
        assert!(alert.text.contains(&named), "{named} is not in {}", alert.text);
    }
    let mut leaves = BTreeSet::new();
    texts(&body, &mut leaves);
    let known = [order.as_str(), "selldone", "shop", "order", "events"];
    let leaked = leaves
        .iter()
        .filter(|leaf| !known.contains(&leaf.as_str()) && alert.text.contains(*leaf));
    assert_eq!(leaked.collect::<Vec<_>>(), Vec::<&String>::new());

    let again = stack.alert_after(PERIOD).await;
    assert_eq!(
        (&again["found"], &again["sent"]),
        (&json!(0), &json!(0)),
        "it is reported once"
    );
    dismiss(&stack, &event_id).await;
    assert_over(&next_alert(&stack).await, "quarantined", "selldone", "main");
    stack.alert_after(PERIOD).await;
    assert!(stack.alerts().await.is_empty());
    let left: Vec<_> = stack
        .partition("alerts")
        .await
        .into_iter()
        .map(|item| item["sk"].clone())
        .collect();
    assert_eq!(left, [AttributeValue::S("cursor#quarantined".to_owned())]);
}

/// Collects the texts of at least four characters in a document.
fn texts(document: &Value, into: &mut BTreeSet<String>) {
    match document {
        Value::String(text) if text.len() >= 4 => drop(into.insert(text.clone())),
        Value::Array(values) => values.iter().for_each(|value| texts(value, into)),
        Value::Object(members) => members.values().for_each(|value| texts(value, into)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_alert_is_over_after_a_quiet_period() {
    let stack = stack().await;
    let fixture = stack.signed("snipcart", "order-completed");
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let other = stack.with_another_body(&fixture, "something_else", "another".into());
    assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);
    // The other body also has an unknown field.
    stack.alert_after(MINUTE).await;
    let alerts = stack.alerts().await;
    let conflict = alerts
        .iter()
        .find(|alert| alert.said("kind") == "conflict")
        .expect("an alert");
    assert_alert(conflict, "conflict", "snipcart", "main", 1);
    let shown = stack.ask(json!({"get": {"event_id": event_id}})).await;
    let sha256 = shown["conflicts"][0]["payload_sha256"].as_str().expect("a hash");
    assert_eq!(
        (
            &conflict.json["events"][0]["event_id"],
            &conflict.json["events"][0]["payload_sha256"]
        ),
        (&json!(event_id), &json!(sha256))
    );
    let publish = format!("cargo local publish-conflict {event_id} {sha256} --stack mine");
    assert!(conflict.text.contains(&publish), "{}", conflict.text);

    stack.alert_after(PERIOD).await;
    let over = stack.alerts().await;
    let over = over
        .iter()
        .find(|alert| alert.said("kind") == "conflict")
        .expect("an alert");
    assert_over(over, "conflict", "snipcart", "main");
    let published = stack
        .ask(json!({"publish_conflict": {"event_id": event_id, "payload_sha256": sha256}}))
        .await;
    assert_eq!(published["accepted"], 1, "{published}");
    let conflicts = stack
        .items()
        .await
        .into_iter()
        .filter(|item| item.contains_key("published_as"));
    assert!(
        conflicts.into_iter().all(|conflict| !conflict.contains_key("work")),
        "it has left the index"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_of_a_failed_event_is_over_once_it_is_requeued() {
    let stack = stack().await;
    let down = stack.tap().inject(Rule::all(Service::Sns), Fault::DOWN);
    let event_id = stack.deliver("deeple", "order-changed").await.event_id("accepted");
    drop(down);
    stack.let_an_event_fail().await;
    let alert = next_alert(&stack).await;
    assert_alert(&alert, "failed", "deeple", "main", 1);
    assert_eq!(alert.json["events"][0]["event_id"], event_id);
    assert_eq!(alert.json["details"], json!(["InvalidParameter"]));
    assert!(
        alert.text.contains("cargo local requeue --stack mine"),
        "{}",
        alert.text
    );
    let requeued = stack.ask(json!({"requeue": {}})).await;
    assert_eq!(requeued["requeued"], 1, "{requeued}");
    assert_over(&next_alert(&stack).await, "failed", "deeple", "main");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drift_alert_names_the_pointer_and_no_value() {
    let stack = stack().await;
    let fixture = stack.unsigned("cartum", "order-created");
    let drifted = stack.with_another_body(&fixture, "renamed_field", "a secret of a customer".into());
    let event_id = stack.send(&drifted).await.event_id("accepted");
    let alert = next_alert(&stack).await;
    assert_alert(&alert, "drift", "cartum", "main", 1);
    assert_eq!(alert.json["events"][0]["event_id"], event_id);
    assert_eq!(alert.json["details"], json!(["/renamed_field (string)"]));
    assert!(
        !alert.text.contains("customer's") && !alert.text.contains("a secret of"),
        "{}",
        alert.text
    );
    stack.alert_after(PERIOD - MINUTE).await;
    assert!(stack.alerts().await.is_empty());
    assert_over(&next_alert(&stack).await, "drift", "cartum", "main");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_secret_is_reported_for_its_provider() {
    let stack = Stack::with(|config| {
        let malformed = json!({"shops": {"main": {"tokens": ["hunter2"]}}});
        config.secrets.insert("cartum".to_owned(), malformed);
        config.secrets.insert("selldone".to_owned(), json!({"shops": {}}));
        config.variables.insert("STACK_NAME".to_owned(), "mine".to_owned());
    })
    .await;
    for provider in ["cartum", "selldone"] {
        assert_eq!(stack.deliver(provider, order_of(provider)).await.status, 500);
    }
    // The provider refuses the key of one shop.
    stack.snipcart().behave(Behaviour::Status(401));
    assert_eq!(stack.deliver("snipcart", "order-completed").await.status, 500);
    stack.ask(json!({"alert": {}})).await;
    let alerts = stack.alerts().await;
    let [cartum, selldone, snipcart] = ["cartum", "selldone", "snipcart"].map(|provider| {
        let of_provider: Vec<_> = alerts
            .iter()
            .filter(|alert| alert.said("provider") == provider)
            .cloned()
            .collect();
        only(&of_provider).clone()
    });
    // The read of the secret, and the delivery that was answered 500.
    let count = cartum.json["count"].as_u64().expect("a count");
    assert_alert(&cartum, "misconfigured", "cartum", "", count);
    assert!(count >= 2 && !cartum.text.contains("hunter2"), "{}", cartum.text);
    let detail = cartum.json["details"][0].as_str().expect("a detail");
    assert!(detail.contains("shop main: tokens[0]"), "{detail}");
    assert!(cartum.text.contains("put-secret-value"), "{}", cartum.text);
    assert_alert(&selldone, "misconfigured", "selldone", "", 1);
    assert!(selldone.text.contains("the secret names no shop"), "{}", selldone.text);
    assert_alert(&snipcart, "misconfigured", "snipcart", "main", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_reported_for_configured_shops_only() {
    let stack = stack().await;
    let send = async |shop: &str, token: &str| {
        let mut fixture = stack.signed("selldone", "checkout-order");
        fixture.set_shop(shop);
        fixture.set_query(&[("token".to_owned(), token.to_owned())]);
        assert_eq!(stack.send(&fixture).await.status, 401);
    };
    send("invented", "a-token-that-is-well-formed").await;
    send("main", "short").await;
    let answer = stack.ask(json!({"alert": {}})).await;
    assert_eq!(answer["found"], 0, "{answer}");
    for partition in ["signals", "shops", "alerts"] {
        assert_eq!(stack.partition(partition).await, [], "a stranger creates no items");
    }
    send("main", "a-token-that-is-well-formed").await;
    let alert = next_alert(&stack).await;
    assert_alert(&alert, "wrong_credentials", "selldone", "main", 1);
    assert!(!alert.text.contains("a-token-that"), "{}", alert.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_reported_once_until_the_next_delivery() {
    let stack = stack().await;
    let send = async |shop: &str| {
        // A new environment: one that lives notes a shop once in five minutes.
        stack.environments().kill_all().await;
        let mut fixture = stack.unsigned("selldone", "checkout-order");
        fixture.renew().expect("an order");
        stack.sign(&mut fixture);
        fixture.set_shop(shop);
        stack.send(&fixture).await.event_id("accepted");
    };
    send("main").await;
    send("other").await;
    stack.alert_after(SignedDuration::from_hours(23)).await;
    assert!(stack.alerts().await.is_empty());
    send("other").await;
    stack.let_time_pass(SignedDuration::from_hours(1)).await;
    let alert = next_alert(&stack).await;
    assert_alert(&alert, "silence", "selldone", "main", 1);
    assert!(alert.text.contains("the last delivery was at"), "{}", alert.text);
    for _ in 0..3 {
        stack.alert_after(SignedDuration::from_hours(5)).await;
    }
    assert!(stack.alerts().await.is_empty(), "it is reported once");
    send("main").await;
    assert_over(&next_alert(&stack).await, "silence", "selldone", "main");
    // The other shop has been silent for long enough by now.
    stack.let_time_pass(SignedDuration::from_hours(9)).await;
    assert_alert(&next_alert(&stack).await, "silence", "selldone", "other", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_hours_of_any_secret_replace_the_default() {
    let stack = Stack::with(|config| {
        for (index, (provider, _)) in ORDERS.into_iter().enumerate() {
            let mut secret = local::project::settings::secret(provider).expect("a secret");
            secret["shops"]["main"]["silence_hours"] = [72, 0][index % 2].into();
            config.secrets.insert(provider.to_owned(), secret);
        }
    })
    .await;
    for (provider, order) in ORDERS {
        stack.deliver(provider, order).await.event_id("accepted");
    }
    let noted = stack.partition("shops").await;
    let hours: Vec<_> = noted
        .iter()
        .map(|shop| shop["silence_hours"].as_n().expect("hours").as_str())
        .collect();
    assert_eq!(hours.iter().filter(|hours| **hours == "72").count(), 3, "{noted:?}");
    stack.alert_after(SignedDuration::from_hours(71)).await;
    assert!(stack.alerts().await.is_empty());
    stack.alert_after(SignedDuration::from_hours(2)).await;
    let silent: BTreeSet<_> = stack
        .alerts()
        .await
        .iter()
        .map(|alert| alert.said("provider").to_owned())
        .collect();
    let expected = ORDERS.into_iter().step_by(2).map(|(provider, _)| provider.to_owned());
    assert_eq!(silent, expected.collect(), "0 turns it off");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_off_if_its_hours_are_zero() {
    let stack = stack_with(&["main"], |config| {
        config.variables.insert("SILENCE_HOURS".to_owned(), "0".to_owned());
    })
    .await;
    stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    stack.alert_after(SignedDuration::from_hours(24 * 365)).await;
    assert!(stack.alerts().await.is_empty());
}
