//! `PUBLISH_STATE`: an order with too many events, with too large ones or with an unreadable one has no published state,
//! and its events are published all the same.

use std::collections::{BTreeSet, HashSet};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use tests::outbox::text;
use tests::{Item, Stack, gzip, state};

use crate::published_state::{ids, publishing, version};

/// The limit for the events of an order whose state is published.
const EVENTS: usize = 500;
/// The limit for the JSON of these events, in bytes.
const BYTES: usize = 10_000_000;

/// Delivers an event of Selldone's order 1001, publishes what waits, and returns its id.
async fn delivered(stack: &Stack, name: &str, extra: usize) -> String {
    let fixture = stack.signed("selldone", name);
    let fixture = stack.with_another_body(&fixture, "extra", "x".repeat(extra).into());
    let event_id = stack.send(&fixture).await.event_id("accepted");
    // On a busy machine, a large history may take longer than the delivery has for it.
    if state(&stack.head(&event_id).await) == "pending" {
        stack.redrive().await;
    }
    assert_eq!(state(&stack.head(&event_id).await), "published", "{name}");
    event_id
}

/// The events in the queue, and the states. On a busy machine, an event and its state may be published once more.
async fn published(stack: &Stack) -> (Vec<Value>, Vec<Value>) {
    let (mut events, mut states) = crate::published_state::published(stack).await;
    let mut seen = HashSet::new();
    events.retain(|event| seen.insert(event["id"].to_string()));
    states.retain(|state| seen.insert(format!("{:?}", ids(state))));
    (events, states)
}

/// The causes in the log for which the state after an event is not published.
fn reported(stack: &Stack, event_id: &str) -> Vec<String> {
    let log = stack.log();
    let causes = log.iter().filter_map(|line| {
        let json: Value = serde_json::from_str(line.get(line.find('{')?..)?).ok()?;
        let is_report = json["code"] == "state_not_published" && json["event_id"] == event_id;
        is_report.then(|| json["cause"].as_str().expect("a cause").to_owned())
    });
    let causes: BTreeSet<String> = causes.collect();
    causes.into_iter().collect()
}

/// Stores copies of an event as other events of its order.
async fn store_copies(stack: &Stack, event_id: &str, count: usize) {
    let (head, event) = (stack.head(event_id).await, stack.stored_event(event_id).await);
    for number in 0..count {
        let id = format!("{number:064x}");
        let mut copy: Item = head.clone();
        let mut event = event.clone();
        event["id"] = id.as_str().into();
        let sort = copy["order_sort"].as_s().expect("a key").replace(event_id, &id);
        copy.extend([
            ("pk".to_owned(), text(&id)),
            ("event_id".to_owned(), text(&id)),
            ("order_sort".to_owned(), text(&sort)),
            (
                "event".to_owned(),
                AttributeValue::B(Blob::new(gzip(event.to_string().as_bytes()))),
            ),
        ]);
        stack.put(copy).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_with_too_many_events_has_no_published_state() {
    let stack = publishing().await;
    let first = delivered(&stack, "checkout-order", 0).await;
    store_copies(&stack, &first, EVENTS - 2).await;
    stack.messages().await;
    delivered(&stack, "payment-order", 0).await;
    let (events, states) = published(&stack).await;
    assert_eq!((events.len(), states.len()), (1, 1));
    assert_eq!(ids(&states[0]).len(), EVENTS);

    let beyond = delivered(&stack, "sent-order", 0).await;
    let (events, states) = published(&stack).await;
    assert_eq!((events.len(), states.len()), (1, 0), "the event is published alone");
    assert_eq!(events[0]["id"], *beyond);
    assert_eq!(reported(&stack, &beyond), ["the order has too many events"]);
    // The cure that the log's code names.
    let order = json!({"provider": "selldone", "shop": "main", "order": "1001"});
    let answer = stack.ask(json!({"state": order})).await;
    assert_eq!(answer["state"]["events"].as_array().map(Vec::len), Some(EVENTS + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_item_of_an_order_names_only_so_many_events() {
    let stack = publishing().await;
    let first = delivered(&stack, "checkout-order", 0).await;
    let (_, states) = published(&stack).await;
    let is_of_states = |item: &&Item| item["sk"].as_s().is_ok_and(|key| key == "published_state");
    let items = stack.all_items().await;
    let mut item = items.iter().find(is_of_states).expect("the item of the order").clone();
    // The others have expired since.
    let others = (1..EVENTS).map(|number| format!("{number:064x}"));
    let full: Vec<String> = others.chain([first.clone()]).collect();
    item.insert("event_ids".to_owned(), AttributeValue::Ss(full));
    stack.put(item.clone()).await;

    let beyond = delivered(&stack, "sent-order", 0).await;
    let (events, later) = published(&stack).await;
    assert_eq!((events.len(), later.len()), (1, 0));
    assert_eq!(reported(&stack, &beyond), ["the order has too many events"]);
    let items = stack.all_items().await;
    assert_eq!(items.iter().find(is_of_states), Some(&item), "the item does not grow");
    assert_eq!(version(&states[0]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_with_too_large_events_has_no_published_state() {
    let stack = publishing().await;
    let large = BYTES / 3 + 50_000;
    let first = delivered(&stack, "checkout-order", large).await;
    delivered(&stack, "payment-order", large).await;
    let (events, states) = published(&stack).await;
    assert_eq!((events.len(), states.len()), (2, 2));

    let last = version(&states[1]);
    for (name, extra) in [("sent-order", large), ("to-customer", 0)] {
        let beyond = delivered(&stack, name, extra).await;
        let (events, states) = published(&stack).await;
        assert_eq!((events.len(), states.len()), (1, 0), "{name} is published alone");
        assert_eq!(events[0]["id"], *beyond);
        assert_eq!(reported(&stack, &beyond), ["the events of the order are too large"]);
    }

    // Without one of the large events, there is a state again.
    let erase = json!({"erase": {"event_id": first, "dry_run": false}});
    assert_eq!(stack.ask(erase).await["erased"], 1);
    delivered(&stack, "return-order", 0).await;
    let (_, states) = published(&stack).await;
    assert_eq!(ids(&states[0]).len(), 4);
    assert!(version(&states[0]) > last);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_with_an_unreadable_event_has_no_published_state() {
    let stack = publishing().await;
    let event_id = delivered(&stack, "checkout-order", 0).await;
    let intact = stack.head(&event_id).await;
    let not_compressed = AttributeValue::B(Blob::new("{}"));
    // A word of a newer version, and a damaged value.
    for (name, value, next) in [
        ("state", text("archived"), "payment-order"),
        ("event", not_compressed, "sent-order"),
    ] {
        let mut damaged = intact.clone();
        damaged.insert(name.to_owned(), value);
        stack.put(damaged).await;
        stack.messages().await;
        let later = delivered(&stack, next, 0).await;
        let (events, states) = published(&stack).await;
        assert_eq!((events.len(), states.len()), (1, 0), "{name}");
        assert_eq!(
            reported(&stack, &later),
            ["an event of the order cannot be read"],
            "{name}"
        );
        let order = json!({"provider": "selldone", "shop": "main", "order": "1001"});
        assert_eq!(
            stack.ask(json!({"state": order})).await["unreadable"],
            json!([event_id]),
            "{name}"
        );
    }

    // Restored from a backup.
    stack.put(intact).await;
    delivered(&stack, "to-customer", 0).await;
    let (_, states) = published(&stack).await;
    assert_eq!(ids(&states[0]).len(), 4);
}
