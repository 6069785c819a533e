//! Runs of the task `alert`: within a period, several at once, killed, and with a topic that does not take messages.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use jiff::SignedDuration;
use local::ALARMS;
use local::aws::faults::{Fault, Rule, Service};
use local::project::settings::REDRIVE;
use serde_json::json;
use tests::telemetry::lines;

use super::{MINUTE, PERIOD, assert_alert, assert_over, dismiss, next_alert, quarantine, stack, stack_with};

/// More calls than a run makes in addition to its queries.
const CALLS: usize = 20;

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
