//! Alerts: each kind of finding is caused, and its message is read from a queue that is subscribed to the alarm topic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use local::aws::faults::{Fault, Rule, Service};
use local::project::settings::{REDRIVE, TOKEN};
use local::providers::samples::Fixture;
use local::providers::snipcart::Behaviour;
use local::recorder::alerts::Alert;
use local::stack::Config;
use local::{ALARMS, NAME};
use serde_json::{Value, json};
use tests::telemetry::{NAMESPACE, lines};
use tests::{ORDERS, Stack, json_body, order_of};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const PERIOD: SignedDuration = SignedDuration::from_mins(60);

/// More calls than a run makes in addition to its queries.
const CALLS: usize = 20;

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

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_within_a_period_is_one_digest_at_its_end() {
    let stack = stack_with(&["main", "other"], |config| {
        config
            .variables
            .insert("ALERT_PERIOD_MINUTES".to_owned(), "30".to_owned());
    })
    .await;
    let first = quarantine(&stack, "main").await;
    assert_alert(&next_alert(&stack).await, "quarantined", "selldone", "main", 1);
    let mut others = Vec::new();
    for _ in 0..7 {
        others.push(quarantine(&stack, "main").await);
        stack.alert_after(MINUTE).await;
    }
    assert!(stack.alerts().await.is_empty(), "the period has not ended");
    // Another shop has a period of its own.
    let elsewhere = quarantine(&stack, "other").await;
    assert_alert(&next_alert(&stack).await, "quarantined", "selldone", "other", 1);
    stack.let_time_pass(SignedDuration::from_mins(21)).await;
    let digest = next_alert(&stack).await;
    assert_alert(&digest, "quarantined", "selldone", "main", 7);
    assert_eq!(digest.json["total"], 8);
    assert_eq!(
        digest.json["events"].as_array().expect("events").len(),
        5,
        "the first few"
    );

    // It is over when none of them waits, whichever were dismissed first.
    for event_id in std::iter::once(&first).chain(&others[..6]) {
        dismiss(&stack, event_id).await;
        stack.alert_after(MINUTE).await;
    }
    assert!(stack.alerts().await.is_empty(), "one of them waits");
    dismiss(&stack, &others[6]).await;
    assert_over(&next_alert(&stack).await, "quarantined", "selldone", "main");
    dismiss(&stack, &elsewhere).await;
    assert_over(&next_alert(&stack).await, "quarantined", "selldone", "other");

    // A finding after the end is reported at the end of the period that the last message began.
    quarantine(&stack, "main").await;
    stack.alert_after(MINUTE).await;
    assert!(stack.alerts().await.is_empty());
    stack.let_time_pass(SignedDuration::from_mins(30)).await;
    let again = next_alert(&stack).await;
    assert_alert(&again, "quarantined", "selldone", "main", 1);
    assert_eq!(again.json["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_at_once_send_each_alert_once() {
    let stack = stack().await;
    for round in 1..=3_u64 {
        let (main, other) = (quarantine(&stack, "main").await, quarantine(&stack, "other").await);
        stack.let_time_pass(MINUTE).await;
        join_all((0..5).map(|_| stack.ask(json!({"alert": {}})))).await;
        // A finding that one run has taken during another one may be left to the next run.
        stack.alert_after(MINUTE).await;
        let alerts = stack.alerts().await;
        let shops: BTreeSet<_> = alerts.iter().map(|alert| alert.said("shop")).collect();
        assert_eq!((alerts.len(), shops.len()), (2, 2), "round {round}: {alerts:?}");
        for event_id in [main, other] {
            dismiss(&stack, &event_id).await;
        }
        join_all((0..5).map(|_| stack.ask(json!({"alert": {}})))).await;
        stack.alert_after(MINUTE).await;
        let over = stack.alerts().await;
        assert_eq!(over.len(), 2, "round {round}: {over:?}");
        stack.alert_after(PERIOD).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_dies_at_any_call_loses_no_alert() {
    let shops: Vec<String> = (0..CALLS * 2).map(|number| format!("shop-{number}")).collect();
    let stack = stack_with(&shops.iter().map(String::as_str).collect::<Vec<_>>(), |_| {}).await;
    let mut shops = shops.iter();
    for death in [Fault::KillBefore, Fault::KillAfter] {
        for call in 0..CALLS {
            let shop = shops.next().expect("a shop");
            let event_id = quarantine(&stack, shop).await;
            stack.let_time_pass(MINUTE).await;
            let calls = Arc::new(AtomicUsize::new(0));
            let seen = Arc::clone(&calls);
            stack.tap().follow(move |made| {
                made.caller.as_ref().filter(|caller| caller.starts_with(REDRIVE))?;
                let is_query = made.operation == "Query";
                (!is_query && seen.fetch_add(1, Ordering::SeqCst) == call).then_some(death)
            });
            let answer = stack.invoke(REDRIVE, &json!({"alert": {}})).await;
            stack.tap().follow_nothing();
            let has_died = calls.load(Ordering::SeqCst) > call;
            assert_eq!(answer.is_err(), has_died, "{answer:?}");
            for _ in 0..2 {
                stack.alert_after(MINUTE).await;
            }
            let alerts = stack.alerts().await;
            let ids: BTreeSet<_> = alerts.iter().map(|alert| alert.said("id")).collect();
            assert_eq!(ids.len(), 1, "{death:?} at call {call}: {alerts:?}");
            assert!(alerts.len() <= 2, "{death:?} at call {call}: {alerts:?}");
            for alert in &alerts {
                assert_alert(alert, "quarantined", "selldone", shop, 1);
                assert_eq!(
                    alert.json["events"], alerts[0].json["events"],
                    "{death:?} at call {call}"
                );
            }
            assert_eq!(alerts[0].json["events"][0]["event_id"], event_id);
            if !has_died {
                assert!(call >= 4, "a run makes more calls than {call}");
                assert_eq!(alerts.len(), 1);
                break;
            }
            assert!(call + 1 < CALLS, "it never came to its end");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_down_is_tried_again_by_the_next_run() {
    let stack = stack().await;
    for fault in [Fault::DOWN, Fault::THROTTLED, Fault::Hang] {
        let shop_events = [quarantine(&stack, "main").await, quarantine(&stack, "other").await];
        let down = stack
            .tap()
            .inject(Rule::new(Service::Sns, "PublishBatch").holding(ALARMS), fault);
        for _ in 0..2 {
            let answer = stack.alert_after(MINUTE).await;
            assert!(
                answer["outage"].is_string() && answer["done"] == false,
                "{fault:?}: {answer}"
            );
        }
        assert!(stack.alerts().await.is_empty(), "{fault:?}");
        drop(down);
        stack.alert_after(MINUTE).await;
        let alerts = stack.alerts().await;
        let reported: BTreeSet<_> = alerts
            .iter()
            .map(|alert| alert.json["events"][0]["event_id"].to_string())
            .collect();
        assert_eq!((alerts.len(), reported.len()), (2, 2), "{fault:?}: {alerts:?}");
        for event_id in shop_events {
            dismiss(&stack, &event_id).await;
        }
        stack.alert_after(MINUTE).await;
        assert_eq!(stack.alerts().await.len(), 2, "{fault:?}: both are over");
        stack.alert_after(PERIOD).await;
    }
    let lines = lines(&stack).await;
    let outage = lines
        .iter()
        .find(|line| line.said("message") == "alert" && !line.said("outage").is_empty());
    assert_eq!(outage.expect("a line").said("level"), "ERROR");
    let sent: f64 = lines.iter().filter_map(|line| line.metric("AlertsSent")).sum();
    assert!((sent - 12.0).abs() < 0.5, "{sent} alerts are counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_topic_refuses_holds_up_no_other() {
    let stack = stack().await;
    quarantine(&stack, "main").await;
    quarantine(&stack, "other").await;
    let refusal = Fault::Answer {
        status: 400,
        code: "InvalidParameter",
    };
    let rule = Rule::new(Service::Sns, "PublishBatch").holding("selldone%2Fmain");
    let refused = stack.tap().inject(rule, refusal);
    let alert = next_alert(&stack).await;
    assert_alert(&alert, "quarantined", "selldone", "other", 1);
    refused.hit(1).await;
    drop(refused);
    assert_alert(&next_alert(&stack).await, "quarantined", "selldone", "main", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_does_not_depend_on_its_notes() {
    for fault in [Fault::Hang, Fault::DOWN, Fault::THROTTLED, Fault::Reset] {
        let stack = stack().await;
        let rules =
            ["\"shops\"", "\"signals\""].map(|partition| Rule::new(Service::DynamoDb, "UpdateItem").holding(partition));
        let faults = rules.map(|rule| stack.tap().inject(rule, fault));
        let mut fixture = stack.unsigned("selldone", "checkout-order");
        fixture = stack.with_another_body(&fixture, "something_new", "7".into());
        let begun = Instant::now();
        let event_id = stack.send(&fixture).await.event_id("accepted");
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{fault:?}: {:?}",
            begun.elapsed()
        );
        assert_eq!(tests::state(&stack.head(&event_id).await), "published");
        assert!(faults[0].hits() > 0, "{fault:?}");
        // The next delivery does not try again at once.
        let hits: usize = faults.iter().map(local::aws::faults::Injection::hits).sum();
        stack.send(&fixture).await.event_id("duplicate");
        assert_eq!(
            faults.iter().map(local::aws::faults::Injection::hits).sum::<usize>(),
            hits,
            "{fault:?}"
        );
        assert_eq!(stack.partition("shops").await, []);
        let log = stack.log().join("\n");
        assert!(log.contains("a note for alerts is not written yet"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_notes_a_shop_once_in_a_few_minutes() {
    let stack = stack_with(&["main"], |config| config.environments = 1).await;
    for _ in 0..20 {
        let mut fixture = stack.unsigned("selldone", "checkout-order");
        fixture.renew().expect("an order");
        stack.sign(&mut fixture);
        stack.send(&fixture).await.event_id("accepted");
    }
    // One update marks each event as published.
    assert_eq!(stack.tap().count(Service::DynamoDb, "UpdateItem"), 20 + 1);
    let shops = stack.partition("shops").await;
    let [shop] = shops.as_slice() else { panic!("{shops:?}") };
    assert_eq!(shop["sk"], AttributeValue::S("selldone#main".to_owned()));
    assert_eq!(shop["first_seen"], shop["last_seen"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_for_alerts_are_small_whatever_is_sent() {
    let stack = stack_with(&["main"], |config| config.environments = 1).await;
    for round in 0..30 {
        // Each environment writes its signal at once.
        stack.environments().kill_all().await;
        let fixture = stack.unsigned("selldone", "checkout-order");
        let name = |number: usize| {
            format!(
                "{}-{}",
                "x".repeat(60),
                char::from(b'a' + u8::try_from(number % 26).expect("small"))
            )
        };
        let mut nested = json!(7);
        for level in 0..60 {
            nested = json!({name(level + round): nested});
        }
        let drifted = stack.with_another_body(&fixture, &name(round), nested);
        stack.send(&drifted).await;
        let mut unknown = not_understood(&stack, "main");
        let mut body: Value = json_body(&unknown);
        body["basket"]["id"] = format!("{round}\u{7}{}", "ö".repeat(10_000)).into();
        unknown.set_body(body.to_string());
        stack.sign(&mut unknown);
        stack.send(&unknown).await;
        stack.let_time_pass(SignedDuration::from_mins(2)).await;
        if round % 10 == 9 {
            stack.ask(json!({"alert": {}})).await;
        }
    }
    let alerts = stack.alerts().await;
    assert_eq!(alerts.len(), 2, "{alerts:?}");
    for alert in alerts {
        assert!(
            alert.text.len() + alert.json.to_string().len() < 16_000,
            "{}",
            alert.text.len()
        );
        assert!(!alert.text.contains('\u{7}'));
    }
    for item in stack
        .all_items()
        .await
        .iter()
        .filter(|item| tests::alerts::belongs_to_no_event(item))
    {
        let size: usize = item
            .iter()
            .map(|(name, value)| name.len() + format!("{value:?}").len())
            .sum();
        assert!(size < 16_000, "{size} bytes: {item:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_that_wait_are_read_once() {
    const EVENTS: usize = 10_000;
    let stack = stack_with(&["main", "other"], |config| {
        config.timeout = Some(Duration::from_mins(5));
    })
    .await;
    let known = quarantine(&stack, "main").await;
    let template = stack.head(&known).await;
    stack.delete(&known, "head").await;
    let dynamodb = &stack.clients().dynamodb;
    let since = Timestamp::now() - SignedDuration::from_hours(1);
    let items = (0..EVENTS).map(|number| {
        let mut item = template.clone();
        let id = format!("{:x}{number:063x}", number % 16);
        let due = since + SignedDuration::from_millis(i64::try_from(number).expect("small"));
        for (name, value) in [
            ("pk", id.clone()),
            ("event_id", id),
            ("work", format!("quarantined#{}", number % 16)),
            ("next_attempt_at", format!("{due:.3}")),
            ("shop", ["main", "other"][number % 2].to_owned()),
        ] {
            item.insert(name.to_owned(), AttributeValue::S(value));
        }
        let put = PutRequest::builder().set_item(Some(item)).build().expect("an item");
        WriteRequest::builder().put_request(put).build()
    });
    let requests: Vec<_> = items.collect();
    for some in requests.chunks(25) {
        let written = dynamodb
            .batch_write_item()
            .request_items(NAME, some.to_vec())
            .send()
            .await;
        written.expect("the table takes them");
    }
    let mut found = 0;
    loop {
        let answer = stack.ask(json!({"alert": {}})).await;
        found += answer["found"].as_u64().expect("a count");
        if answer["done"] == true {
            break;
        }
    }
    assert_eq!(found, EVENTS as u64);
    assert_eq!(stack.alerts().await.len(), 2);
    let calls = || {
        ["Query", "BatchGetItem", "TransactWriteItems"].map(|operation| stack.tap().count(Service::DynamoDb, operation))
    };
    let before = calls();
    stack.ask(json!({"alert": {}})).await;
    let made: Vec<_> = calls()
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    // One query for each shard of three states, three for the partitions, and one for each alert that is open.
    assert_eq!(made, [3 * 16 + 3 + 2, 0, 0]);

    // All of one shop are dismissed: the alert is over once the index has been searched.
    let dismissed = requests.iter().filter_map(|request| {
        let mut item = request.put_request()?.item().clone();
        let is_other = item["shop"] == AttributeValue::S("other".to_owned());
        item.insert("state".to_owned(), AttributeValue::S("unsupported".to_owned()));
        item.remove("work");
        let put = PutRequest::builder().set_item(Some(item)).build().expect("an item");
        is_other.then(|| WriteRequest::builder().put_request(put).build())
    });
    for some in dismissed.collect::<Vec<_>>().chunks(25) {
        let written = dynamodb
            .batch_write_item()
            .request_items(NAME, some.to_vec())
            .send()
            .await;
        written.expect("the table takes them");
    }
    let mut runs = 0;
    while stack.alerts().await.iter().all(|alert| alert.said("status") != "over") {
        let before = calls();
        stack.ask(json!({"alert": {}})).await;
        let read = calls()[1] - before[1];
        assert!(read <= 5, "{read} reads of 100 events in a run");
        runs += 1;
        assert!(runs < 20, "it is never over");
    }
    assert!(runs > 5, "5,000 events are searched 500 at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_run_makes_a_fixed_number_of_calls() {
    let stack = stack().await;
    stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    let count = |operation| stack.tap().count(Service::DynamoDb, operation);
    let before = count("Query");
    let answer = stack.ask(json!({"alert": {}})).await;
    let expected = json!({"found": 0, "sent": 0, "open": 0, "done": true, "outage": null});
    assert_eq!(answer, expected);
    assert_eq!(count("Query") - before, 51);
    assert_eq!(stack.partition("alerts").await, [], "nothing is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_topic_is_an_error_and_stops_no_other_task() {
    let stack = stack_with(&["main"], |config| {
        config.variables.insert("ALARM_TOPIC_ARN".to_owned(), String::new());
    })
    .await;
    let error = stack
        .invoke(REDRIVE, &json!({"alert": {}}))
        .await
        .expect_err("no topic")
        .to_string();
    assert!(error.contains("ALARM_TOPIC_ARN is not set"), "{error}");
    assert_eq!(stack.redrive().await["done"], true);
}
