//! What deliveries note for alerts: after the answer, rarely, and little.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::SignedDuration;
use local::aws::faults::{Fault, Rule, Service};
use serde_json::{Value, json};
use tests::json_body;

use super::{not_understood, stack, stack_with};

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
