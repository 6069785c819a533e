//! The tasks of an operator: get, replay, compare and erase.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use local::aws::faults::{Fault, Rule, Service};
use local::lambda::invoke_api;
use local::pretty_json;
use local::project::settings::REDRIVE;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tests::outbox::ids;
use tests::providers::PROVIDERS;
use tests::{Stack, json_body, noise, state};

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_what_the_message_omits() {
    let stack = Stack::start().await;
    let fixture = stack.large(400_000);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let messages = stack.messages().await;
    assert_eq!(messages[0].event["data"]["omitted"], json!(["/data/unmapped"]));

    let by_id = stack.ask(json!({"get": {"event_id": event_id}})).await;
    let [shown] = by_id["events"].as_array().unwrap().as_slice() else {
        panic!("{by_id}")
    };
    assert_eq!(
        (&shown["state"], &shown["event_id"]),
        (&json!("published"), &json!(event_id))
    );
    assert_eq!(shown["event"], stack.stored_event(&event_id).await);
    assert!(
        shown["event"]["data"]["unmapped"]["content"]["internalNotes"]
            .as_str()
            .is_some_and(|notes| notes.len() >= 400_000)
    );

    let order = shown["event"]["data"]["order"]["id"].as_str().unwrap();
    let key = |order: &str| json!({"get": {"provider": "snipcart", "shop": "main", "order": order}});
    assert_eq!(stack.ask(key(order)).await, by_id);
    assert_eq!(stack.ask(key("another")).await["events"], json!([]));
    for nonsense in [
        json!({"get": {"event_id": "x"}}),
        json!({"get": {}}),
        json!({"nothing": {}}),
    ] {
        let error = stack.invoke(REDRIVE, &nonsense).await.unwrap_err().to_string();
        assert!(error.contains("invalid task"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_names_that_serde_json_reserves() {
    let stack = Stack::start().await;
    let odd = r#""odd":[{"$serde_json::private::Number":"seven"},{"$serde_json::private::RawValue":"{"}]"#;
    let mut fixture = stack.unsigned("snipcart", "order-completed");
    let body = String::from_utf8(fixture.body().expect("a body")).expect("text");
    fixture.set_body(format!("{{{odd},{}", body.trim_start_matches('{')));
    stack.sign(&mut fixture);
    let event_id = stack.send(&fixture).await.event_id("accepted");

    let get = json!({"get": {"event_id": event_id}});
    let url = stack.endpoints().messages_url();
    let answer: Box<RawValue> = invoke_api::invoke(&url, REDRIVE, &get).await.expect("an answer");
    assert!(answer.get().contains(odd), "{answer}");
    assert!(
        pretty_json::indented(answer.get()).is_some(),
        "the answer can be indented"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn get_pages_through_the_events_of_an_order() {
    let stack = Stack::start().await;
    let mut delivered = Vec::new();
    for name in [
        "order-completed",
        "order-status-changed",
        "order-refund-created",
        "order-notification-created",
    ] {
        let mut fixture = stack.unsigned("snipcart", name);
        let mut order = json_body(&fixture);
        for field in ["token", "orderToken"] {
            if order["content"][field].is_string() {
                order["content"][field] = "one-order".into();
            }
        }
        order["content"]["added"] = noise(2_000_000).into();
        fixture.set_body(order.to_string());
        stack.sign(&mut fixture);
        delivered.push(stack.send(&fixture).await.event_id("accepted"));
    }
    let mut task = json!({"get": {"provider": "snipcart", "shop": "main", "order": "one-order"}});
    let (mut shown, mut answers) = (Vec::new(), 0);
    loop {
        let answer = stack.ask(task.clone()).await;
        answers += 1;
        assert!(
            answer.to_string().len() < 6_000_000,
            "the answer is over the limit of Lambda"
        );
        let events = answer["events"].as_array().unwrap();
        assert!(
            events
                .iter()
                .all(|event| event["event"]["data"]["unmapped"].is_object()),
            "the events are complete"
        );
        shown.extend(
            events
                .iter()
                .map(|event| event["event_id"].as_str().unwrap().to_owned()),
        );
        if answer["done"] == true {
            break;
        }
        task["get"]["cursor"] = answer["cursor"].clone();
    }
    assert_eq!((answers, shown), (2, delivered), "each answer has two events");
    task["get"]["cursor"] = json!({"after": "0".repeat(64)});
    let error = stack.invoke(REDRIVE, &task).await.unwrap_err().to_string();
    assert!(error.contains("the cursor belongs to another get"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_publishes_the_stored_events_marked_as_a_replay() {
    let stack = Stack::start().await;
    let begun = Timestamp::now() - SignedDuration::from_millis(1);
    stack.deliver_new(30).await;
    stack
        .deliver("snipcart", "taxes-calculate")
        .await
        .event_id("unsupported");
    let first = stack.messages().await;
    let end = Timestamp::now() + SignedDuration::from_secs(1);

    let task = |more: Value| {
        let mut task = json!({"replay": {"provider": "snipcart", "from": begun, "to": end}});
        task["replay"]
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        task
    };
    for (more, count) in [
        (json!({}), 6),
        (json!({"shop": "main", "types": ["order.created"]}), 6),
        (json!({"shop": "other"}), 0),
        (json!({"types": ["order.paid"]}), 0),
        (json!({"to": begun}), 0),
        (json!({"provider": "nobody"}), 0),
    ] {
        let mut more = more;
        more["dry_run"] = true.into();
        assert_eq!(stack.ask(task(more.clone())).await["replayed"], count, "{more}");
    }
    assert!(stack.messages().await.is_empty(), "a dry run publishes nothing");

    let answer = stack.ask(task(json!({}))).await;
    assert_eq!(
        (&answer["replayed"], &answer["done"], &answer["cursor"]),
        (&json!(6), &json!(true), &Value::Null)
    );
    let again = stack.messages().await;
    assert_eq!(again.len(), 6);
    for message in &again {
        let before = first
            .iter()
            .find(|first| first.event["id"] == message.event["id"])
            .expect("the first message of the event");
        assert_eq!(message.text, before.text);
        assert_eq!(message.attributes["replay"]["Value"], "true");
        assert_eq!(before.attributes["replay"], Value::Null);
        let event_id = message.event["id"].as_str().unwrap();
        assert_eq!(message.text.as_bytes(), stack.value(event_id, "event").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_out_of_time_continues_at_its_cursor() {
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(6))).await;
    let begun = Timestamp::now() - SignedDuration::from_millis(1);
    let deliveries = (0..150).map(|_| async {
        let fixture = stack.renewed("cartum", "order-created");
        stack.send(&fixture).await.event_id("accepted")
    });
    let delivered: BTreeSet<String> = join_all(deliveries).await.into_iter().collect();
    stack.messages().await;
    let _slow = stack.tap().inject(
        Rule::new(Service::Sns, "PublishBatch"),
        Fault::Slow(Duration::from_millis(400)),
    );
    let end = Timestamp::now() + SignedDuration::from_secs(1);
    let mut task = json!({"replay": {"provider": "cartum", "from": begun, "to": end}});
    let (mut replayed, mut runs) = (0, 0);
    loop {
        runs += 1;
        let answer = stack.ask(task.clone()).await;
        replayed += answer["replayed"].as_u64().unwrap();
        if answer["done"] == true {
            break;
        }
        assert!(answer["cursor"].is_object(), "{answer}");
        task["replay"]["cursor"] = answer["cursor"].clone();
    }
    assert!(runs > 1, "one run was enough");
    assert_eq!(replayed, 150);
    let messages = stack.messages().await;
    assert_eq!(
        (messages.len(), ids(&messages)),
        (150, delivered),
        "each event is published once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_order_leaves_a_tombstone_for_late_repeats() {
    let stack = Stack::start().await;
    let fixture = stack.large(1_000_000);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let mut conflict = fixture.clone();
    let mut other = json_body(&fixture);
    other["content"]["internalNotes"] = "another".into();
    conflict.set_body(other.to_string());
    stack.sign(&mut conflict);
    assert_eq!(stack.send(&conflict).await.event_id("quarantined"), event_id);
    assert!(stack.items().await.len() > 4, "head, parts and a conflict");

    let order = stack.stored_event(&event_id).await["data"]["order"]["id"].clone();
    let task = |dry_run| json!({"erase": {"provider": "snipcart", "shop": "main", "order": order, "dry_run": dry_run}});
    let by_default = json!({"erase": {"provider": "snipcart", "shop": "main", "order": order}});
    assert_eq!(
        stack.ask(by_default).await,
        json!({"erased": 1, "waiting": 0, "dry_run": true})
    );
    assert_eq!(state(&stack.head(&event_id).await), "published");

    assert_eq!(stack.ask(task(false)).await["erased"], 1);
    let items = stack.items().await;
    let [tombstone] = items.as_slice() else {
        panic!("{} items are left", items.len())
    };
    assert_eq!(state(tombstone), "erased");
    for personal in [
        "payload",
        "payload_parts",
        "event",
        "event_parts",
        "order",
        "order_key",
        "request",
    ] {
        assert!(!tombstone.contains_key(personal), "{personal} is left");
    }

    stack.messages().await;
    let mut small = fixture.clone();
    small.set_body(other.to_string());
    stack.sign(&mut small);
    assert_eq!(stack.send(&small).await.event_id("duplicate"), event_id);
    assert_eq!(stack.items().await.len(), 1);
    assert!(stack.messages().await.is_empty());
    assert_eq!(stack.ask(task(false)).await["erased"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_shows_what_the_current_mapping_would_change() {
    let stack = Stack::start().await;
    let begun = Timestamp::now() - SignedDuration::from_millis(1);
    let changed = stack.deliver("cartum", "order-created").await.event_id("accepted");
    stack
        .deliver("cartum", "order-created-coupon")
        .await
        .event_id("accepted");
    stack.deliver("cartum", "unknown-event").await.event_id("quarantined");
    stack.deliver("cartum", "user-signup").await.event_id("unsupported");
    let compare = |values: bool| {
        let to = Timestamp::now() + SignedDuration::from_secs(1);
        json!({"compare": {"provider": "cartum", "from": begun, "to": to, "values": values}})
    };
    let same = stack.ask(compare(false)).await;
    assert_eq!((&same["compared"], &same["changed"]), (&4.into(), &0.into()), "{same}");
    assert_eq!((&same["done"], &same["events"]), (&true.into(), &json!([])));

    // As if an older mapping had made the event.
    let mut event = stack.stored_event(&changed).await;
    event["data"]["order"]["note"] = "a note that only the customer may read".into();
    event["data"]["order"]["items"][0]
        .as_object_mut()
        .unwrap()
        .remove("sku");
    stack.put_stored_event(&changed, &event).await;
    stack.messages().await;
    let masked = stack.ask(compare(false)).await;
    assert_eq!(
        (&masked["compared"], &masked["changed"]),
        (&4.into(), &1.into()),
        "{masked}"
    );
    let [found] = masked["events"].as_array().unwrap().as_slice() else {
        panic!("{masked}")
    };
    assert_eq!(
        (&found["event_id"], &found["today"]),
        (&json!(changed), &json!("order.created"))
    );
    let pointers: Vec<_> = found["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(pointers, ["/data/order/items/0/sku", "/data/order/note"]);
    assert_eq!(masked["pointers"]["/data/order/items/*/sku"], 1);
    assert!(!masked.to_string().contains("only the customer"), "{masked}");

    let shown = stack.ask(compare(true)).await;
    assert!(shown.to_string().contains("only the customer"), "{shown}");
    assert!(stack.messages().await.is_empty(), "nothing is published");
    assert_eq!(stack.stored_event(&changed).await, event, "nothing is written");

    let mut misspelt = compare(false);
    misspelt["compare"]["provider"] = "cartun".into();
    let error = stack.invoke(REDRIVE, &misspelt).await.unwrap_err().to_string();
    assert!(error.contains("selldone, cartum"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_order_is_found_and_erased_by_its_order() {
    let stack = Stack::start().await;
    for facts in PROVIDERS {
        let provider = facts.name;
        let Some((name, order)) = facts.unknown_event else {
            continue;
        };
        let fixture = stack.signed(provider, name);
        let body = json_body(&fixture);
        let order = match body.pointer(order).expect("an order id") {
            Value::String(order) => order.clone(),
            number => number.to_string(),
        };
        let event_id = stack.send(&fixture).await.event_id("quarantined");
        let place = json!({"provider": provider, "shop": "main", "order": order});
        let shown = stack.ask(json!({"get": place})).await;
        let [event] = shown["events"].as_array().expect("a list").as_slice() else {
            panic!("{provider}: {shown}")
        };
        assert_eq!(
            (&event["event_id"], &event["state"]),
            (&json!(event_id), &json!("quarantined"))
        );
        assert_eq!(
            (&event["reason"], &event["event"]),
            (&json!("unknown_event"), &Value::Null)
        );

        let mut erase = place.clone();
        erase["dry_run"] = false.into();
        assert_eq!(stack.ask(json!({"erase": erase})).await["erased"], 1, "{provider}");
        assert_eq!(
            stack.ask(json!({"get": place})).await["events"],
            json!([]),
            "{provider}"
        );
        // A late repeat is not stored.
        stack.send(&stack.signed(provider, name)).await.event_id("duplicate");
    }
}
