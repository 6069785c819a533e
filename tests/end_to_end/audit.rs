//! An audit counts what is stored, and names each item that was deleted, changed, copied or half erased by hand.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use local::audit::{Audit, Scope, audit};
use local::aws::faults::{Rule, Service};
use serde_json::{Value, json};
use shared::identity::sha256_hex;
use tests::outbox::{DENIED, text};
use tests::{Item, Stack, gzip};

/// The letters that need two parts in the payload, and two in the event.
pub(crate) const IN_TWO_PARTS: usize = 500_000;

pub(crate) fn scope() -> Scope {
    let (now, minute) = (Timestamp::now(), SignedDuration::from_mins(1));
    Scope {
        provider: None,
        shop: None,
        from: now - minute * 5,
        to: now + minute,
        scan: false,
        repair: false,
    }
}

pub(crate) async fn run(stack: &Stack, scope: Scope) -> Audit {
    let asked = audit(&scope, async |payload| Ok(stack.ask(payload).await), |_| {});
    asked.await.expect("an audit")
}

/// The faults of the table, each with the id of its event.
async fn faults(stack: &Stack) -> Vec<(String, String)> {
    of(&run(stack, scope()).await)
}

pub(crate) fn of(audit: &Audit) -> Vec<(String, String)> {
    assert_eq!(audit.is_balanced(), audit.faults.is_empty(), "{audit}");
    let faults = audit.faults.iter();
    let mut faults: Vec<_> = faults
        .map(|fault| (fault.fault.clone(), fault.event_id.clone().expect("an event")))
        .collect();
    // By the fault, because the ids of the events are different in each run.
    faults.sort();
    faults
}

fn fault(name: &str, event_id: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), event_id.to_owned())]
}

/// Sends an order, and returns its event's id.
async fn sent(stack: &Stack) -> String {
    let fixture = stack.renewed("cartum", "order-created");
    stack.send(&fixture).await.event_id("accepted")
}

/// Sends an order that is stored in parts, and returns its event's id.
async fn sent_in_parts(stack: &Stack) -> String {
    let mut fixture = stack.large(IN_TWO_PARTS);
    fixture.renew().expect("an order");
    stack.sign(&mut fixture);
    stack.send(&fixture).await.event_id("accepted")
}

/// Changes the head of an event.
async fn change(stack: &Stack, event_id: &str, change: impl FnOnce(&mut Item)) {
    let mut head = stack.head(event_id).await;
    change(&mut head);
    stack.put(head).await;
}

fn compressed(value: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(gzip(value)))
}

/// The key of a part of an event.
async fn a_part(stack: &Stack, event_id: &str) -> String {
    let items = stack.items().await;
    let mut parts = items.iter().filter_map(|item| item["pk"].as_s().ok());
    let prefix = format!("part#{event_id}#");
    parts.find(|key| key.starts_with(&prefix)).expect("a part").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_of_a_clean_table_balance() {
    let stack = Stack::start().await;
    stack.deliver_new(10).await;
    sent_in_parts(&stack).await;
    let erased = sent_in_parts(&stack).await;
    let erase = json!({"erase": {"event_id": erased, "dry_run": false}});
    assert_eq!(stack.ask(erase).await["erased"], 1);
    stack.deliver("selldone", "inventory").await.event_id("unsupported");
    stack
        .deliver("selldone", "unknown-action")
        .await
        .event_id("quarantined");
    let fixture = stack.renewed("cartum", "order-created");
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let other = stack.with_another_body(&fixture, "something_new", "another".into());
    assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);
    let conflicts = stack.ask(json!({"get": {"event_id": event_id}})).await;
    let payload_sha256 = &conflicts["conflicts"][0]["payload_sha256"];
    let publish = json!({"publish_conflict": {"event_id": event_id, "payload_sha256": payload_sha256}});
    assert_eq!(stack.ask(publish).await["accepted"], 1);
    let fixture = stack.renewed("deeple", "order-changed");
    let understood = stack.send(&fixture).await.event_id("accepted");
    let old = format!(
        "{}{}",
        &understood[..63],
        if understood.ends_with('0') { '1' } else { '0' }
    );
    stack.not_understood(&understood, &old, Timestamp::now(), 0).await;
    assert_eq!(stack.ask(json!({"reprocess": {"event_id": old}})).await["accepted"], 1);
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    sent(&stack).await;
    drop(down);

    let scanning = Scope { scan: true, ..scope() };
    let first = run(&stack, scanning.clone()).await;
    assert!(first.is_balanced(), "{first}");
    let sum = |count: fn(&local::audit::Book) -> u64| first.books.iter().map(count).sum::<u64>();
    // Ten, one in parts, two of Cartum, the conflict, the one that was understood later, and the one that waits.
    assert_eq!(sum(|book| book.accepted), 15, "{first}");
    assert_eq!(sum(|book| book.pending), 3, "{first}");
    assert_eq!(
        (
            sum(|book| book.erased),
            sum(|book| book.unsupported),
            sum(|book| book.quarantined),
            sum(|book| book.conflicts),
            sum(|book| book.superseded)
        ),
        (1, 1, 1, 1, 1),
        "{first}"
    );
    assert_eq!(first.validated, 16, "the conflict has an event too");
    let digests = |audit: &Audit| -> BTreeMap<_, _> {
        let books = audit.books.iter();
        books.map(|book| (book.place(), book.digest)).collect()
    };
    let second = run(&stack, scanning).await;
    assert_eq!(digests(&first), digests(&second));
    assert_eq!(stack.redrive().await["published"], 3);
    let third = run(&stack, scope()).await;
    assert_eq!(digests(&first), digests(&third), "publishing changes no content");
    let cartum = Scope {
        provider: Some("cartum".to_owned()),
        ..scope()
    };
    let cartum = run(&stack, cartum).await;
    assert!(cartum.books.iter().all(|book| book.provider == "cartum") && !cartum.books.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_part_is_named() {
    let stack = Stack::start().await;
    let event_id = sent_in_parts(&stack).await;
    assert_eq!(faults(&stack).await, []);
    let part = a_part(&stack, &event_id).await;
    stack.delete(&part, "part").await;
    assert_eq!(faults(&stack).await, fault("part_missing", &event_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_event_is_missed() {
    let stack = Stack::start().await;
    let (small, large) = (sent(&stack).await, sent_in_parts(&stack).await);
    let before = run(&stack, scope()).await;
    stack.delete(&small, "head").await;
    let mut after = run(&stack, scope()).await;
    assert_eq!(after.compare_with(&before).len(), 1);
    let [gone] = &after.faults[..] else { panic!("{after}") };
    assert_eq!(
        (gone.fault.as_str(), gone.provider.as_deref()),
        ("events_gone", Some("cartum"))
    );

    // The parts of a deleted event are left, and only a scan finds them.
    stack.delete(&large, "head").await;
    let scanning = |repair| Scope {
        scan: true,
        repair,
        ..scope()
    };
    let found = run(&stack, scanning(false)).await;
    assert!(!found.faults.is_empty());
    for (name, event_id) in of(&found) {
        assert_eq!((name.as_str(), &event_id), ("part_alone", &large));
    }
    let repaired = run(&stack, scanning(true)).await;
    assert_eq!((repaired.removed.len(), repaired.faults.len()), (found.faults.len(), 0));
    assert_eq!(repaired.removed[0]["event_id"], large);
    assert!(stack.items().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_of_a_deleted_event_is_named() {
    let stack = Stack::start().await;
    let fixture = stack.renewed("cartum", "order-created");
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let other = stack.with_another_body(&fixture, "something_new", "another".into());
    stack.send(&other).await.event_id("quarantined");
    stack.delete(&event_id, "head").await;
    assert_eq!(faults(&stack).await, fault("conflict_alone", &event_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_body_is_named() {
    let stack = Stack::start().await;
    let event_id = sent(&stack).await;
    let mut body: Value = serde_json::from_slice(&stack.value(&event_id, "payload").await).expect("JSON");
    body["comment"] = "changed by hand".into();
    let changed = compressed(body.to_string().as_bytes());
    change(&stack, &event_id, |head| {
        head.insert("payload".to_owned(), changed);
    })
    .await;
    assert_eq!(faults(&stack).await, fault("payload_differs", &event_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_event_is_named() {
    let stack = Stack::start().await;
    let event_id = sent(&stack).await;
    let before = run(&stack, scope()).await;
    let event = stack.stored_event(&event_id).await;
    for (pointer, value, name) in [
        ("/id", json!("0".repeat(64)), "event_differs"),
        ("/data/shop", json!("other"), "event_differs"),
        ("/data/order/id", json!("other"), "order_key"),
        ("/source", json!("/cartum/other"), "event_differs"),
        ("/data/order/id", json!(7), "event_invalid"),
        ("/type", json!("order.invented"), "event_differs"),
        ("/data/order/items", json!({}), "schema_invalid"),
        ("/data/order/totals/subtotal", json!("12,50"), "schema_invalid"),
        ("/data/order/status", json!("cancelled"), "event_differs"),
    ] {
        let mut changed = event.clone();
        *changed.pointer_mut(pointer).expect("a value") = value;
        stack.put_stored_event(&event_id, &changed).await;
        let found = faults(&stack).await;
        assert!(
            found.contains(&(name.to_owned(), event_id.clone())),
            "{pointer}: {found:?}"
        );
    }
    // Earlier versions did not store the hash of the event. There, the digest shows a change that leaves a valid event.
    change(&stack, &event_id, |head| {
        head.remove("event_sha256");
    })
    .await;
    let mut after = run(&stack, scope()).await;
    assert!(after.is_balanced(), "{after}");
    assert_eq!(after.compare_with(&before).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_event_is_named() {
    let stack = Stack::start().await;
    let event_id = sent(&stack).await;
    let copy = "0".repeat(64);
    let mut head = stack.head(&event_id).await;
    head.insert("pk".to_owned(), text(&copy));
    stack.put(head.clone()).await;
    assert!(faults(&stack).await.contains(&("other_id".to_owned(), copy.clone())));
    // Today's code gives the body the id of the original, even if every attribute was changed.
    let mut event = stack.stored_event(&event_id).await;
    event["id"] = copy.as_str().into();
    let event = event.to_string();
    let sort = head["order_sort"].as_s().expect("a key").replace(&event_id, &copy);
    head.extend([
        ("event_id".to_owned(), text(&copy)),
        ("order_sort".to_owned(), text(&sort)),
        ("event".to_owned(), compressed(event.as_bytes())),
        ("event_sha256".to_owned(), text(&sha256_hex(event.as_bytes()))),
    ]);
    stack.put(head).await;
    assert_eq!(faults(&stack).await, fault("other_id", &copy));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_erased_event_is_named() {
    let stack = Stack::start().await;
    let event_id = sent_in_parts(&stack).await;
    let denied = stack.tap().inject(Rule::new(Service::DynamoDb, "DeleteItem"), DENIED);
    let erase = json!({"erase": {"event_id": event_id, "dry_run": false}});
    stack.ask(erase.clone()).await;
    drop(denied);
    assert_eq!(faults(&stack).await, fault("half_erased", &event_id));
    assert_eq!(stack.ask(erase).await["erased"], 1);
    assert_eq!(faults(&stack).await, []);
    // The content was removed, and the state was not changed.
    let other = sent(&stack).await;
    change(&stack, &other, |head| {
        head.remove("payload");
    })
    .await;
    assert_eq!(faults(&stack).await, fault("value_missing", &other));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_no_index_names_is_named() {
    let stack = Stack::start().await;
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let (pending, lost) = (sent(&stack).await, sent(&stack).await);
    drop(down);
    // Redrive would never publish it.
    change(&stack, &pending, |head| {
        head.remove("work");
    })
    .await;
    assert_eq!(faults(&stack).await, fault("work_key", &pending));
    // Its entry in the index `work` leads to an event that is missing in the books.
    change(&stack, &lost, |head| {
        head.remove("hour");
    })
    .await;
    let found = faults(&stack).await;
    assert_eq!(found, [fault("hour_key", &lost), fault("work_key", &pending)].concat());
    stack.delete(&pending, "head").await;
    assert_eq!(stack.redrive().await["published"], 1);
    assert_eq!(faults(&stack).await, []);
    let scanned = run(&stack, Scope { scan: true, ..scope() }).await;
    assert_eq!(of(&scanned), fault("hour_key", &lost));
}

/// Audits, and counts the invocations that it takes.
async fn run_counted(stack: &Stack, scope: Scope) -> (Audit, u32) {
    let asked = Cell::new(0);
    let ask = async |payload| {
        asked.set(asked.get() + 1);
        Ok(stack.ask(payload).await)
    };
    let audited = audit(&scope, ask, |_| {}).await.expect("an audit");
    (audited, asked.get())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_goes_on_where_an_answer_was_full() {
    let stack = Stack::start().await;
    for _ in 0..4 {
        let mut fixture = stack.large(1_500_000);
        fixture.renew().expect("an order");
        stack.sign(&mut fixture);
        stack.send(&fixture).await.event_id("accepted");
    }
    let (audited, asked) = run_counted(&stack, scope()).await;
    assert!(asked > 1, "one answer held all events");
    assert!(audited.is_balanced(), "{audited}");
    assert_eq!(audited.books.iter().map(|book| book.accepted).sum::<u64>(), 4);
    assert_eq!(audited.validated, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_goes_on_after_its_time_is_up() {
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(6))).await;
    stack.deliver_new(10).await;
    let a_day = Scope {
        from: Timestamp::now() - SignedDuration::from_hours(20),
        ..scope()
    };
    let (audited, asked) = run_counted(&stack, a_day).await;
    assert!(asked > 1, "one run read twenty hours of five providers");
    assert!(audited.is_balanced(), "{audited}");
    let short = run(&stack, scope()).await;
    assert_eq!(audited.books, short.books, "nothing is counted twice or left out");
    assert_eq!(audited.books.iter().map(|book| book.accepted).sum::<u64>(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_item_of_a_published_state_is_no_fault() {
    let stack = Stack::with(|config| {
        config.variables.insert("PUBLISH_STATE".to_owned(), "true".to_owned());
    })
    .await;
    sent(&stack).await;
    assert_eq!(stack.messages().await.len(), 2);
    let scanned = Scope { scan: true, ..scope() };
    assert_eq!(of(&run(&stack, scanned).await), []);
}
