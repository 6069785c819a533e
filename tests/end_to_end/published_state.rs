//! `PUBLISH_STATE`: the state of an order follows each of its events on the topic.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join;
use jiff::{SignedDuration, Timestamp};
use local::aws::faults::{Fault, Rule, Service};
use local::providers::lifecycle::State::{Placed, Shipped};
use serde_json::{Value, json};
use tests::{Stack, state};

pub(crate) async fn publishing() -> Stack {
    Stack::with(|config| {
        config.variables.insert("PUBLISH_STATE".to_owned(), "true".to_owned());
    })
    .await
}

/// The events and the states that were published, each in the order of arrival.
pub(crate) async fn published(stack: &Stack) -> (Vec<Value>, Vec<Value>) {
    let messages = stack.messages().await.into_iter();
    messages
        .map(|message| message.event)
        .partition(|event| event["type"] != "order.state")
}

pub(crate) fn version(state: &Value) -> u64 {
    state["data"]["version"].as_u64().expect("a version")
}

pub(crate) fn ids(state: &Value) -> BTreeSet<&str> {
    let events = state["data"]["events"].as_array().expect("events").iter();
    events.map(|event| event["id"].as_str().expect("an id")).collect()
}

/// The state of the order of Selldone's samples, as redrive folds it.
async fn folded(stack: &Stack) -> Value {
    let order = json!({"provider": "selldone", "shop": "main", "order": "1001"});
    stack.ask(json!({"state": order})).await["state"].clone()
}

/// Asserts that a published state is the fold of all stored events.
async fn assert_is_the_fold_of_all(stack: &Stack, state: &Value) {
    let mut data = state["data"].clone();
    data.as_object_mut().expect("an object").remove("version");
    assert_eq!(data, folded(stack).await, "{state}");
}

/// The sends that publish a state.
fn publication_of_a_state() -> Rule {
    Rule::new(Service::Sns, "Publish").holding("order.state").times(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_follows_each_event_of_an_order() {
    let stack = publishing().await;
    let mut last = 0;
    for (count, name) in ["to-customer", "checkout-order", "payment-order"].iter().enumerate() {
        let event_id = stack.deliver("selldone", name).await.event_id("accepted");
        let messages = stack.messages().await;
        let [event, state] = messages.as_slice() else {
            panic!("{messages:?}")
        };
        assert_eq!(event.event["id"], event_id);
        let attributes = |name: &str| state.attributes[name]["Value"].clone();
        assert_eq!(
            ["type", "provider", "shop", "test", "currency", "replay"].map(attributes),
            [
                json!("order.state"),
                json!("selldone"),
                json!("main"),
                json!("false"),
                json!("USD"),
                Value::Null
            ]
        );
        let state = &state.event;
        assert_eq!(
            (
                &state["specversion"],
                &state["source"],
                &state["subject"],
                &state["dataschema"]
            ),
            (
                &json!("1.0"),
                &json!("/selldone/main"),
                &json!("1001"),
                &json!("urn:order-webhooks:order-state:v1")
            )
        );
        assert!(version(state) > last, "{state}");
        last = version(state);
        assert_eq!(ids(state).len(), count + 1);
        assert_is_the_fold_of_all(&stack, state).await;
    }
    // A duplicate publishes nothing, and neither does an event that names no order.
    stack.deliver("selldone", "to-customer").await.event_id("duplicate");
    assert_eq!(published(&stack).await, (vec![], vec![]));
    stack
        .deliver("aboutyou", "order-items-shipped")
        .await
        .event_id("accepted");
    assert_eq!(published(&stack).await.1, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_state_is_published_by_default() {
    let stack = Stack::start().await;
    stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    let (events, states) = published(&stack).await;
    assert_eq!((events.len(), states.len()), (1, 0));
    let is_of_states = |item: &tests::Item| item["sk"].as_s().is_ok_and(|key| key == "published_state");
    assert!(!stack.all_items().await.iter().any(is_of_states));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_events_at_once_the_last_version_is_the_fold_of_both() {
    let stack = publishing().await;
    // The state after the first event is on its way while the second event is stored and published.
    let held = stack.tap().inject(publication_of_a_state(), Fault::Hold);
    let first = async { stack.deliver("selldone", "to-customer").await };
    let second = async {
        held.hit(1).await;
        let answer = stack.deliver("selldone", "checkout-order").await;
        drop(held);
        answer
    };
    let (first, second) = join(first, second).await;
    let ids_of_both = [first.event_id("accepted"), second.event_id("accepted")];
    let (_, mut states) = published(&stack).await;
    states.sort_by_key(version);
    let [older, newer] = states.as_slice() else {
        panic!("{states:?}")
    };
    assert!(version(older) < version(newer));
    assert_eq!(ids(newer), ids_of_both.iter().map(String::as_str).collect());
    assert_is_the_fold_of_all(&stack, newer).await;

    // The same with both updates of the versions at the same time, many times.
    let names = [
        "order-confirm",
        "preparing-order",
        "sent-order",
        "payment-order",
        "delivery-canceled",
        "return-order",
    ];
    futures_util::future::join_all(names.map(|name| stack.deliver("selldone", name))).await;
    let (events, mut states) = published(&stack).await;
    assert_eq!((events.len(), states.len()), (names.len(), names.len()));
    states.sort_by_key(version);
    let versions: BTreeSet<u64> = states.iter().map(version).collect();
    assert_eq!(versions.len(), states.len(), "each version is published once");
    let last = states.last().expect("a state");
    assert_eq!(ids(last).len(), names.len() + 2);
    assert_is_the_fold_of_all(&stack, last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_event_and_mark_repeats_both() {
    let stack = publishing().await;
    for (name, fault) in [("checkout-order", Fault::KillBefore), ("sent-order", Fault::KillAfter)] {
        let kill = stack.tap().inject(publication_of_a_state(), fault);
        assert_eq!(stack.deliver("selldone", name).await.status, 500);
        kill.hit(1).await;
        let (events, before) = published(&stack).await;
        assert_eq!(
            (events.len(), before.len()),
            (1, usize::from(fault == Fault::KillAfter))
        );
        let event_id = events[0]["id"].as_str().expect("an id").to_owned();
        assert_eq!(state(&stack.head(&event_id).await), "pending");

        assert_eq!(stack.redrive().await["published"], 1);
        assert_eq!(state(&stack.head(&event_id).await), "published");
        let (again, states) = published(&stack).await;
        assert_eq!(again, events);
        let [after] = states.as_slice() else {
            panic!("{states:?}")
        };
        assert!(before.iter().all(|before| version(before) < version(after)));
        assert_is_the_fold_of_all(&stack, after).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_waits_while_its_state_cannot_be_published() {
    let stack = publishing().await;
    let no_version = Rule::new(Service::DynamoDb, "UpdateItem").holding("published_state");
    let down = stack.tap().inject(no_version, Fault::DOWN);
    let event_id = stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    assert_eq!(state(&stack.head(&event_id).await), "pending");
    // Nor does redrive mark it.
    stack.redrive().await;
    assert_eq!(state(&stack.head(&event_id).await), "pending");
    drop(down);
    assert_eq!(stack.redrive().await["published"], 1);
    let (_, states) = published(&stack).await;
    assert_is_the_fold_of_all(&stack, states.last().expect("a state")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_sns_refuses_does_not_hold_its_event_up() {
    let stack = publishing().await;
    let code = "InvalidParameter";
    let refused = stack
        .tap()
        .inject(publication_of_a_state(), Fault::Answer { status: 400, code });
    let event_id = stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    refused.hit(1).await;
    assert_eq!(state(&stack.head(&event_id).await), "published");
    let (events, states) = published(&stack).await;
    assert_eq!((events.len(), states.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_publishes_the_same_state_with_a_greater_version() {
    let stack = publishing().await;
    for name in ["sent-order", "checkout-order"] {
        stack.deliver("selldone", name).await.event_id("accepted");
    }
    let (_, before) = published(&stack).await;
    let (now, hour) = (Timestamp::now(), SignedDuration::from_hours(1));
    let replay = json!({"provider": "selldone", "from": now - hour, "to": now + hour});
    assert_eq!(stack.ask(json!({"replay": replay})).await["replayed"], 2);
    let messages = stack.messages().await;
    assert_eq!(messages.len(), 4);
    for message in &messages {
        assert_eq!(message.attributes["replay"]["Value"], "true");
        if message.event["type"] == "order.state" {
            assert!(before.iter().all(|before| version(before) < version(&message.event)));
            assert_is_the_fold_of_all(&stack, &message.event).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_event_is_in_no_later_state() {
    let stack = publishing().await;
    let erased = stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    stack.deliver("selldone", "payment-order").await.event_id("accepted");
    let (_, states) = published(&stack).await;
    let before = states.last().expect("a state");
    let erase = json!({"erase": {"event_id": erased, "dry_run": false}});
    assert_eq!(stack.ask(erase).await["erased"], 1);
    assert_eq!(
        published(&stack).await,
        (vec![], vec![]),
        "an erasure publishes nothing"
    );

    stack.deliver("selldone", "sent-order").await.event_id("accepted");
    let (_, states) = published(&stack).await;
    let after = states.last().expect("a state");
    assert!(version(after) > version(before));
    assert!(ids(before).contains(&*erased) && !ids(after).contains(&*erased));
    assert_is_the_fold_of_all(&stack, after).await;

    // The order is erased, and its item neither names it nor begins again.
    let order = json!({"provider": "selldone", "shop": "main", "order": "1001", "dry_run": false});
    stack.ask(json!({"erase": order})).await;
    assert_eq!(published(&stack).await, (vec![], vec![]));
    let items = stack.all_items().await;
    let item = items
        .iter()
        .find(|item| item["sk"].as_s().is_ok_and(|key| key == "published_state"));
    let item = item.expect("the item of the order");
    let names: BTreeSet<&str> = item.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["event_ids", "pk", "sk", "version"]));
    assert!(!item["pk"].as_s().expect("a text").contains("1001"));
    stack.deliver("selldone", "to-customer").await.event_id("accepted");
    let (_, states) = published(&stack).await;
    assert!(version(&states[0]) > version(after));
    assert_eq!(ids(&states[0]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_stored_before_the_first_state_are_part_of_it() {
    let stack = publishing().await;
    for name in ["checkout-order", "payment-order"] {
        stack.deliver("selldone", name).await.event_id("accepted");
    }
    // As if their states had not been published.
    let items = stack.all_items().await;
    let item = items
        .iter()
        .find(|item| item["sk"].as_s().is_ok_and(|key| key == "published_state"));
    let key = item.expect("the item of the order")["pk"].as_s().expect("a text");
    stack.delete(key, "published_state").await;
    stack.messages().await;

    stack.deliver("selldone", "sent-order").await.event_id("accepted");
    let (_, states) = published(&stack).await;
    assert_eq!(ids(&states[0]).len(), 3);
    assert_is_the_fold_of_all(&stack, &states[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_stored_between_two_states_are_part_of_the_second() {
    let stack = publishing().await;
    stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    let (_, states) = published(&stack).await;
    let first = version(&states[0]);
    let between = stack.deliver("selldone", "payment-order").await.event_id("accepted");
    stack.messages().await;
    // As if states had not been published when the second event was.
    let items = stack.all_items().await;
    let item = items
        .iter()
        .find(|item| item["sk"].as_s().is_ok_and(|key| key == "published_state"));
    let mut item = item.expect("the item of the order").clone();
    let ids_of_item = item["event_ids"].as_ss().expect("a set").iter();
    let others = ids_of_item.filter(|id| **id != between).cloned().collect::<Vec<_>>();
    assert_eq!(others.len(), 1);
    item.insert("event_ids".to_owned(), AttributeValue::Ss(others));
    stack.put(item).await;

    stack.deliver("selldone", "sent-order").await.event_id("accepted");
    let (_, states) = published(&stack).await;
    assert!(version(&states[0]) > first);
    assert!(ids(&states[0]).contains(&*between));
    assert_is_the_fold_of_all(&stack, &states[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_over_the_limit_of_sns_names_what_it_omits() {
    let stack = publishing().await;
    let mut fixture = stack.unsigned("snipcart", "order-completed");
    let mut order = tests::json_body(&fixture);
    order["content"]["items"][0]["name"] = "x".repeat(300_000).into();
    fixture.set_body(order.to_string());
    stack.sign(&mut fixture);
    stack.send(&fixture).await.event_id("accepted");
    let (_, states) = published(&stack).await;
    let data = &states[0]["data"];
    assert_eq!(data["omitted"], json!(["/order/items"]));
    assert_eq!(
        (&data["order"]["items"], &data["order"]["status"]),
        (&Value::Null, &json!("confirmed"))
    );
    let stated_by = data["stated_by"].as_object().expect("an object");
    assert!(stated_by.contains_key("/order/status") && !stated_by.keys().any(|key| key.starts_with("/order/items")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reprocessed_delivery_is_part_of_the_next_state() {
    let stack = publishing().await;
    stack.deliver("selldone", "sent-order").await.event_id("accepted");
    let (_, before) = published(&stack).await;
    let body = stack.signed("selldone", "checkout-order").body().expect("a body");
    stack.quarantined(&body, str::to_owned).await;
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["accepted"], 1);
    assert_eq!(stack.redrive().await["published"], 1);
    let (_, after) = published(&stack).await;
    assert!(version(&after[0]) > version(&before[0]));
    assert_eq!(ids(&after[0]).len(), 2);
    assert_is_the_fold_of_all(&stack, &after[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconciled_order_is_part_of_the_next_state() {
    let stack = publishing().await;
    let life = stack.life("selldone", 1, 120);
    stack.announce(&life, Placed, 120).await.event_id("accepted");
    stack.knows(&life, Shipped, 60);
    assert_eq!(stack.reconcile("selldone").await["accepted"], 1);
    let (events, states) = published(&stack).await;
    assert_eq!(events[1]["data"]["origin"], "reconciliation");
    assert!(version(&states[1]) > version(&states[0]));
    let ids_of_events: BTreeSet<_> = events.iter().filter_map(|event| event["id"].as_str()).collect();
    assert_eq!(ids(&states[1]), ids_of_events);
    assert_eq!(states[1]["data"]["stated_by"]["/order/status"], events[1]["id"]);
}
