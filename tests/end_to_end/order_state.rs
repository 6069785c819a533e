//! The state of an order, folded from what the table holds.

use local::aws::faults::{Fault, Rule, Service};
use local::project::settings::REDRIVE;
use local::providers::lifecycle::State::{Placed, Shipped};
use serde_json::{Value, json};
use shared::order_state::History;
use tests::Stack;

/// The deliveries of one order, in an order that differs from that of the events.
const DELIVERIES: [&str; 4] = ["to-customer", "checkout-order", "sent-order", "payment-order"];

async fn ask_state(stack: &Stack) -> Value {
    let order = json!({"provider": "selldone", "shop": "main", "order": "1001"});
    let answer = stack.ask(json!({"state": order})).await;
    assert_eq!(
        (&answer["done"], &answer["outage"], &answer["unreadable"]),
        (&json!(true), &Value::Null, &json!([])),
        "{answer}"
    );
    answer["state"].clone()
}

/// The state that a consumer folds from messages.
fn folded<'e>(events: impl IntoIterator<Item = &'e Value>) -> Value {
    let mut history = History::default();
    for event in events {
        history.add_value(event.clone()).expect("an event");
    }
    json!(history.states()["/selldone/main/1001"])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_what_a_consumer_folds_from_the_messages() {
    let stack = Stack::start().await;
    assert_eq!(ask_state(&stack).await, Value::Null);
    let mut ids = Vec::new();
    for name in DELIVERIES {
        ids.push(stack.deliver("selldone", name).await.event_id("accepted"));
    }
    let messages = stack.messages().await;
    let state = ask_state(&stack).await;
    assert_eq!(state, folded(messages.iter().map(|message| &message.event)));
    assert_eq!(
        (&state["order"]["status"], &state["order"]["payment_status"]),
        (&json!("delivered"), &json!("paid"))
    );
    // Stated by the latest event, which arrived first.
    assert_eq!(state["stated_by"]["/order/status"], ids[0]);
    assert_eq!(state["events"].as_array().map(Vec::len), Some(4));

    // An erased event states nothing any more, and a late repeat of it does not bring it back.
    let erase = json!({"erase": {"event_id": ids[0], "dry_run": false}});
    assert_eq!(stack.ask(erase).await["erased"], 1);
    stack.deliver("selldone", DELIVERIES[0]).await.event_id("duplicate");
    let rest = messages.iter().filter(|message| message.event["id"] != *ids[0]);
    let state = ask_state(&stack).await;
    assert_eq!(state, folded(rest.map(|message| &message.event)));
    assert_eq!(state["order"]["status"], "shipped");

    for nonsense in [json!({"state": {}}), json!({"state": {"event_id": ids[1]}})] {
        let error = stack.invoke(REDRIVE, &nonsense).await.unwrap_err().to_string();
        assert!(error.contains("invalid task"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_in_the_outbox_is_part_of_the_state() {
    let stack = Stack::start().await;
    stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    let _down = stack.tap().inject(Rule::all(Service::Sns), Fault::DOWN);
    let waiting = stack.deliver("selldone", "sent-order").await.event_id("accepted");
    let state = ask_state(&stack).await;
    assert_eq!(state["stated_by"]["/order/status"], waiting);
    assert_eq!(stack.pending().await, [waiting]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reprocessed_delivery_is_part_of_the_state() {
    let stack = Stack::start().await;
    let latest = stack.deliver("selldone", "sent-order").await.event_id("accepted");
    let body = stack.signed("selldone", "checkout-order").body().expect("a body");
    stack.quarantined(&body, str::to_owned).await;
    let ids = |state: &Value| state["events"].as_array().map_or(0, Vec::len);
    assert_eq!(ids(&ask_state(&stack).await), 1);
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["accepted"], 1);
    let state = ask_state(&stack).await;
    assert_eq!(ids(&state), 2);
    assert_eq!(
        state["stated_by"]["/order/status"], latest,
        "the reprocessed event is the earlier one"
    );

    // The same as from the messages, and as if the delivery had been understood at once.
    assert_eq!(stack.redrive().await["published"], 1);
    let messages = stack.messages().await;
    assert_eq!(state, folded(messages.iter().map(|message| &message.event)));
    stack.deliver("selldone", "checkout-order").await.event_id("duplicate");
    assert_eq!(ask_state(&stack).await, state);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconciled_order_is_part_of_the_state() {
    let stack = Stack::start().await;
    let life = stack.life("selldone", 1, 120);
    stack.announce(&life, Placed, 120).await.event_id("accepted");
    stack.knows(&life, Shipped, 60);
    assert_eq!(stack.reconcile("selldone").await["accepted"], 1);
    let messages: Vec<_> = stack
        .messages()
        .await
        .into_iter()
        .map(|message| message.event)
        .collect();
    let origins: Vec<_> = messages.iter().map(|event| &event["data"]["origin"]).collect();
    assert_eq!(origins, ["webhook", "reconciliation"]);
    let ask = async || {
        let order = json!({"provider": "selldone", "shop": "main", "order": life.id()});
        stack.ask(json!({"state": order})).await["state"].clone()
    };
    let fold = |events: &[Value]| {
        let mut history = History::default();
        for event in events {
            history.add_value(event.clone()).expect("an event");
        }
        json!(history.states()[&format!("/selldone/main/{}", life.id())])
    };
    let state = ask().await;
    assert_eq!(state["stated_by"]["/order/status"], messages[1]["id"]);
    assert_eq!(state, fold(&messages));

    // The webhook that was missing arrives after all: an event of its own, which states the same.
    stack.announce(&life, Shipped, 60).await.event_id("accepted");
    let late: Vec<_> = stack
        .messages()
        .await
        .into_iter()
        .map(|message| message.event)
        .collect();
    let late_state = ask().await;
    assert_eq!(late_state, fold(&[late, messages].concat()));
    assert_eq!(late_state["order"]["status"], state["order"]["status"]);
}
