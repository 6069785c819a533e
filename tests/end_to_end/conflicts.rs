//! Conflicts, which are other bodies with the id of a known event, are listed, shown, and published on request.

use jiff::{SignedDuration, Timestamp};
use local::dashboard;
use local::project::settings::{self};
use local::recorder::Recorder;
use local::recorder::redaction::Redactor;
use serde_json::json;
use tests::outbox::ids;
use tests::{ORDERS, Stack, json_body, noise, state};

#[tokio::test(flavor = "multi_thread")]
async fn get_lists_conflicts_beyond_one_page_of_the_table() {
    let stack = Stack::start().await;
    let fixture = stack.signed("cartum", "order-created");
    let event_id = stack.send(&fixture).await.event_id("accepted");
    for count in 0..5 {
        // Each conflict is one item, and a page of a query is 1 MB.
        let other = stack.with_another_body(&fixture, "something_new", noise(330_000 + 4 * count).into());
        assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);
    }
    let shown = stack.ask(json!({"get": {"event_id": event_id}})).await;
    assert_eq!(shown["conflicts"].as_array().unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_published_over_an_expired_tombstone() {
    let stack = Stack::start().await;
    let fixture = stack.signed("cartum", "order-created");
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let other = stack.with_another_body(&fixture, "something_new", "another".into());
    assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);
    let conflict = stack.ask(json!({"get": {"event_id": event_id}})).await["conflicts"][0].clone();
    let task = json!({"publish_conflict": {"event_id": event_id, "payload_sha256": conflict["payload_sha256"]}});
    let new = stack.ask(task.clone()).await["event_id"].as_str().unwrap().to_owned();
    assert_eq!(stack.redrive().await["published"], 1);
    stack.let_tombstone_end(&new).await;
    // As if the same body had been sent again as a conflict of a new event.
    let mut items = stack.items().await;
    items.retain(|item| item["sk"].as_s().is_ok_and(|key| key.starts_with("conflict#")));
    let mut conflict = items.remove(0);
    conflict.remove("published_as");
    stack.put(conflict).await;

    let again = stack.ask(task).await;
    assert_eq!(
        (&again["status"], &again["event_id"]),
        (&json!("accepted"), &json!(new))
    );
    assert_eq!(state(&stack.head(&new).await), "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_listed_and_published_once_as_a_new_event() {
    let stack = Stack::start().await;
    let fixture = stack.signed("cartum", "order-created");
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let other = stack.with_another_body(&fixture, "something_new", noise(600_000).into());
    let body = other.body().unwrap();
    assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);
    stack.messages().await;

    let by_id = stack.ask(json!({"get": {"event_id": event_id}})).await;
    let conflict = by_id["conflicts"][0].clone();
    assert_eq!(
        (&conflict["event_id"], &conflict["bytes"]),
        (&json!(event_id), &json!(body.len()))
    );
    assert!(
        conflict["received_at"].is_string() && conflict["published_as"].is_null(),
        "{conflict}"
    );
    let of_order = json!({"get": {"provider": "cartum", "shop": "main", "order": "115"}});
    assert_eq!(stack.ask(of_order.clone()).await, by_id);

    let task = |dry_run| {
        let hash = &conflict["payload_sha256"];
        json!({"publish_conflict": {"event_id": event_id, "payload_sha256": hash, "dry_run": dry_run}})
    };
    let dry = stack.ask(task(true)).await;
    assert_eq!((&dry["accepted"], &dry["status"]), (&json!(1), &json!("accepted")));
    assert!(stack.ask(of_order.clone()).await["conflicts"][0]["published_as"].is_null());
    let accepted = stack.ask(task(false)).await;
    assert_eq!(
        (&accepted["accepted"], &accepted["event_id"]),
        (&json!(1), &dry["event_id"])
    );
    let new = accepted["event_id"].as_str().unwrap();
    assert_ne!(new, event_id);
    assert_eq!(stack.redrive().await["published"], 1);
    let messages = stack.messages().await;
    assert_eq!(ids(&messages), [new.to_owned()].into());
    assert_eq!(messages[0].event["data"]["order"]["id"], "115");
    assert_eq!(stack.value(new, "payload").await, body);

    let again = stack.ask(task(false)).await;
    assert_eq!(
        (&again["accepted"], &again["status"], &again["event_id"]),
        (&json!(0), &json!("already_published"), &json!(new))
    );
    let now = Timestamp::now();
    let minute = SignedDuration::from_mins(1);
    let compared = stack
        .ask(json!({"compare": {"provider": "cartum", "from": now - minute, "to": now + minute}}))
        .await;
    assert_eq!(
        (&compared["compared"], &compared["changed"]),
        (&json!(2), &json!(0)),
        "{compared}"
    );
    let events = stack.ask(of_order).await;
    assert_eq!(
        events["events"].as_array().unwrap().len(),
        2,
        "the order has both events"
    );
    assert_eq!(events["conflicts"][0]["published_as"], new);
    let absent = json!({"publish_conflict": {"event_id": event_id, "payload_sha256": "0".repeat(64)}});
    assert_eq!(stack.ask(absent).await["status"], "not_found");
    // The same body is still a conflict when it is sent again.
    let mut repeat = other;
    stack.sign(&mut repeat);
    assert_eq!(stack.send(&repeat).await.event_id("quarantined"), event_id);
    assert_eq!(stack.ask(task(false)).await["accepted"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_lists_conflicts() {
    let providers = ORDERS.map(|(provider, _)| provider);
    let recorder = Recorder::new(Redactor::new(settings::secrets(providers).values()));
    let stack = Stack::with(|config| {
        config.dashboard = Some(dashboard::Config {
            recorder,
            catalogue: tests::catalogue(),
            secrets: dashboard::Secrets::Development,
        });
    })
    .await;
    let fixture = stack.signed("cartum", "order-created");
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let other = stack.with_another_body(&fixture, "something_new", "another".into());
    stack.send(&other).await.event_id("quarantined");
    let shown = stack.ask(json!({"get": {"event_id": event_id}})).await;
    let hash = shown["conflicts"][0]["payload_sha256"].as_str().unwrap();
    for page in [
        "/order?provider=cartum&shop=main&id=115",
        "/deliveries/1",
        "/deliveries/2",
    ] {
        let request = http::Request::get(format!("{}{page}", stack.url())).body(bytes::Bytes::new());
        let answer = stack.send_request(request.unwrap()).await;
        assert_eq!(answer.status, 200, "{page}: {answer:?}");
        assert!(
            answer.text.contains(hash) && answer.text.contains("Conflicts (1)"),
            "{page}: {answer:?}"
        );
    }

    let unknown = stack.signed("cartum", "unknown-event");
    let body = json_body(&unknown);
    let event_id = stack.send(&unknown).await.event_id("quarantined");
    let page = format!(
        "{}/order?provider=cartum&shop=main&id={}",
        stack.url(),
        body["order_id"]
    );
    let request = http::Request::get(page).body(bytes::Bytes::new());
    let answer = stack.send_request(request.unwrap()).await;
    assert!(
        answer.text.contains(&event_id) && answer.text.contains("Not understood (1)"),
        "{answer:?}"
    );
}
