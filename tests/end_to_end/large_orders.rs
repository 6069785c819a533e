//! Large deliveries: what does not fit into one item is stored in parts, within the throughput of a DynamoDB partition.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use local::NAME;
use local::aws::faults::{Fault, Rule, Service};
use local::project::settings::REDRIVE;
use local::providers::samples::Fixture;
use serde_json::{Value, json};
use tests::outbox::text;
use tests::{Item, Stack, json_body, noise, state};

/// The write units that DynamoDB allows for one partition key in a second.
const UNITS_OF_A_PARTITION: u32 = 1_000;
/// The number of letters that need two parts in the payload, and two in the event.
const IN_TWO_PARTS: usize = 500_000;

/// An order of Selldone with `size` more bytes that do not compress.
fn order(stack: &Stack, size: usize) -> Fixture {
    let mut fixture = stack.unsigned("selldone", "checkout-order");
    fixture.renew().expect("an order");
    let mut body = json_body(&fixture);
    body["attachment"] = noise(size).into();
    fixture.set_body(body.to_string());
    stack.sign(&mut fixture);
    fixture
}

fn sort_key(item: &Item) -> &str {
    item["sk"].as_s().expect("a text")
}

fn key(item: &Item) -> &str {
    item["pk"].as_s().expect("a text")
}

/// The keys of the table's items of one kind: `part`, `head`, `manifest` or `conflict`.
async fn keys(stack: &Stack, kind: &str) -> BTreeSet<String> {
    let items = stack.items().await;
    let of_kind = items
        .iter()
        .filter(|item| sort_key(item).split('#').next() == Some(kind));
    of_kind.map(|item| key(item).to_owned()).collect()
}

/// The table's only manifest.
async fn manifest(stack: &Stack) -> Item {
    let mut items = stack.items().await;
    items.retain(|item| sort_key(item).starts_with("manifest#"));
    assert_eq!(items.len(), 1, "there is one manifest");
    items.remove(0)
}

/// Sets attributes of an item.
async fn set(stack: &Stack, mut item: Item, values: &[(&str, AttributeValue)]) {
    item.extend(values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    stack.put(item).await;
}

/// Makes the only manifest due, as if a day had passed without another attempt.
async fn let_a_day_pass(stack: &Stack) {
    let past = Timestamp::now() - SignedDuration::from_secs(1);
    let past = AttributeValue::S(format!("{past:.3}"));
    set(stack, manifest(stack).await, &[("next_attempt_at", past)]).await;
}

/// The writes of the second part of each value.
fn second_parts() -> Rule {
    Rule::new(Service::DynamoDb, "PutItem").holding("#0001\"")
}

/// A stack with an order whose function was killed after it had written some of the parts.
async fn interrupted() -> (Stack, Fixture) {
    let stack = Stack::start().await;
    let fixture = order(&stack, IN_TWO_PARTS);
    let kill = stack.tap().inject(second_parts().times(1), Fault::KillAfter);
    assert_eq!(stack.send(&fixture).await.status, 500);
    kill.hit(1).await;
    (stack, fixture)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_compress_fits_through_a_partition() {
    // More time than in the template, since the binaries are not optimized.
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(29))).await;
    let limit = stack.tap().limit_writes(UNITS_OF_A_PARTITION);
    for provider in ["selldone", "snipcart"] {
        let fixture = match provider {
            "selldone" => order(&stack, 4_900_000),
            _ => stack.large(4_900_000),
        };
        let mut answer = stack.send(&fixture).await;
        if answer.status == 503 {
            answer = stack.send(&fixture).await;
        }
        let event_id = answer.event_id("accepted");
        assert!(
            stack.value(&event_id, "payload").await == fixture.body().unwrap(),
            "{provider}: the payload is stored as sent"
        );
    }
    assert_eq!(limit.throttled(), 0, "each part has a partition key of its own");
    assert!(keys(&stack, "manifest").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_writes_only_the_parts_that_are_missing() {
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(10))).await;
    let fixture = order(&stack, IN_TWO_PARTS);
    let refusal = stack.tap().inject(second_parts(), Fault::DOWN);
    assert_eq!(stack.send(&fixture).await.status, 503);
    drop(refusal);
    let first = manifest(&stack).await;
    let named: BTreeSet<String> = first["parts"].as_ss().unwrap().iter().cloned().collect();
    let written = keys(&stack, "part").await;
    assert!(written.is_subset(&named) && !written.is_empty());
    assert!(keys(&stack, "head").await.is_empty(), "nothing is stored yet");

    let before = stack.tap().count(Service::DynamoDb, "PutItem");
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let writes = stack.tap().count(Service::DynamoDb, "PutItem") - before;
    assert_eq!(
        writes,
        named.len() - written.len(),
        "the head is written by a transaction"
    );
    assert_eq!(keys(&stack, "part").await, named);
    assert!(keys(&stack, "manifest").await.is_empty());
    let head = stack.head(&event_id).await;
    assert_eq!(
        head["received_at"], first["received_at"],
        "the time of receipt is that of the first attempt"
    );
    assert_eq!(state(&head), "published");
    let event = stack.stored_event(&event_id).await;
    let received_at = |text: Option<&str>| text.and_then(|text| text.parse::<Timestamp>().ok());
    assert_eq!(
        received_at(event["data"]["received_at"].as_str()),
        received_at(head["received_at"].as_s().ok().map(String::as_str))
    );
    assert_eq!(stack.messages().await.len(), 1);
    assert_eq!(stack.send(&fixture).await.event_id("duplicate"), event_id);
    assert!(
        keys(&stack, "manifest").await.is_empty(),
        "a duplicate writes no manifest"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn abandoned_parts_are_listed_and_swept() {
    let (stack, fixture) = interrupted().await;
    let found = stack.ask(json!({"audit": {}})).await;
    assert_eq!((&found["done"], &found["cursor"]), (&json!(true), &Value::Null));
    let [orphan] = found["orphans"].as_array().unwrap().as_slice() else {
        panic!("{found}")
    };
    let first = manifest(&stack).await;
    assert_eq!(orphan["event_id"], key(&first));
    assert_eq!(
        (&orphan["provider"], &orphan["shop"]),
        (&json!("selldone"), &json!("main"))
    );
    assert_eq!(
        orphan["parts"].as_u64(),
        Some(first["parts"].as_ss().unwrap().len() as u64)
    );
    assert!(orphan["bytes"].as_u64() > Some(700_000), "{orphan}");

    let parts = keys(&stack, "part").await;
    assert_eq!(stack.ask(json!({"redrive": {}})).await["done"], true);
    assert_eq!(keys(&stack, "part").await, parts, "the parts are kept for a day");
    let_a_day_pass(&stack).await;
    assert_eq!(stack.ask(json!({"redrive": {}})).await["done"], true);
    assert!(stack.items().await.is_empty());
    assert_eq!(stack.ask(json!({"audit": {}})).await["orphans"], json!([]));

    let event_id = stack.send(&fixture).await.event_id("accepted");
    assert!(stack.value(&event_id, "payload").await == fixture.body().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_keeps_the_parts_that_an_event_refers_to() {
    let stack = Stack::start().await;
    let fixture = order(&stack, IN_TWO_PARTS);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let head = stack.head(&event_id).await;
    let kept = keys(&stack, "part").await;
    // A part with another name, as another version of the code might have left it.
    let stale = format!("part#{event_id}#{}#{}#0000", "0".repeat(64), "1".repeat(64));
    let data = AttributeValue::B(Blob::new(*b"stale"));
    let part = [("pk", text(&stale)), ("sk", text("part")), ("data", data)];
    stack
        .put(part.map(|(name, value)| (name.to_owned(), value)).into())
        .await;
    let names = kept.iter().cloned().chain([stale]).collect();
    let payload_sha256 = head["payload_sha256"].as_s().unwrap();
    let manifest = [
        ("pk", text(&event_id)),
        ("sk", text(&format!("manifest#{payload_sha256}"))),
        ("state", text("open")),
        ("received_at", head["received_at"].clone()),
        ("parts", AttributeValue::Ss(names)),
        ("work", text(&format!("manifest#{}", shard_of(&event_id)))),
        ("next_attempt_at", text("2026-01-01T00:00:00.000Z")),
    ];
    stack
        .put(manifest.map(|(name, value)| (name.to_owned(), value)).into())
        .await;

    assert_eq!(stack.ask(json!({"redrive": {}})).await["done"], true);
    assert_eq!(keys(&stack, "part").await, kept);
    assert!(keys(&stack, "manifest").await.is_empty());
    assert!(stack.value(&event_id, "payload").await == fixture.body().unwrap());
}

fn shard_of(event_id: &str) -> u32 {
    event_id
        .chars()
        .next()
        .and_then(|digit| digit.to_digit(16))
        .expect("a hex digit")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_during_a_sweep_is_answered_503() {
    let (stack, fixture) = interrupted().await;
    set(&stack, manifest(&stack).await, &[("state", text("sweeping"))]).await;
    let before = stack.tap().count(Service::DynamoDb, "PutItem");
    assert_eq!(stack.send(&fixture).await.status, 503);
    assert_eq!(
        stack.tap().count(Service::DynamoDb, "PutItem"),
        before,
        "the attempt writes no part"
    );
    assert!(
        stack
            .log()
            .join("\n")
            .contains("the parts of an earlier attempt are being deleted")
    );
    let_a_day_pass(&stack).await;
    assert_eq!(stack.ask(json!({"redrive": {}})).await["done"], true);
    assert!(stack.items().await.is_empty());
    stack.send(&fixture).await.event_id("accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_during_an_attempt_leaves_no_partial_event() {
    let stack = Stack::start().await;
    let fixture = order(&stack, IN_TWO_PARTS);
    let held = stack
        .tap()
        .inject(Rule::new(Service::DynamoDb, "TransactWriteItems"), Fault::Hold);
    let swept = async {
        held.hit(1).await;
        let_a_day_pass(&stack).await;
        assert_eq!(stack.ask(json!({"redrive": {}})).await["done"], true);
        assert!(keys(&stack, "part").await.is_empty());
        drop(held);
    };
    let (answer, ()) = tokio::join!(stack.send(&fixture), swept);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(stack.items().await.is_empty());
    let event_id = stack.send(&fixture).await.event_id("accepted");
    assert!(stack.value(&event_id, "payload").await == fixture.body().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_killed_at_any_call_is_repeated() {
    let (stack, fixture) = interrupted().await;
    let as_left = stack.items().await;
    let calls = [
        ("UpdateItem", "sweeping"),
        ("Query", "payload_parts"),
        ("DeleteItem", "part#"),
        ("DeleteItem", "manifest#"),
    ];
    for (operation, holding) in calls {
        for kill in [Fault::KillBefore, Fault::KillAfter] {
            for item in &as_left {
                stack.put(item.clone()).await;
            }
            let_a_day_pass(&stack).await;
            let at = Rule::new(Service::DynamoDb, operation).holding(holding).times(1);
            let killed = stack.tap().inject(at, kill);
            let answer = stack.invoke(REDRIVE, &json!({"redrive": {}})).await;
            assert!(answer.is_err(), "{operation}: {answer:?}");
            killed.hit(1).await;
            drop(killed);
            if stack.items().await.is_empty() {
                continue;
            }
            let_a_day_pass(&stack).await;
            assert_eq!(stack.ask(json!({"redrive": {}})).await["done"], true);
            assert!(stack.items().await.is_empty(), "{kill:?} at {operation} of {holding}");
        }
    }
    stack.send(&fixture).await.event_id("accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_conflict_is_stored_and_erased_with_its_event() {
    let stack = Stack::start().await;
    let fixture = stack.large(IN_TWO_PARTS);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let mut other = stack.unsigned("snipcart", "order-completed");
    let mut body = json_body(&fixture);
    body["content"]["internalNotes"] = noise(IN_TWO_PARTS).chars().rev().collect::<String>().into();
    other.set_body(body.to_string());
    stack.sign(&mut other);
    for _ in 0..2 {
        assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);
    }
    assert_eq!(keys(&stack, "conflict").await.len(), 1);
    assert!(keys(&stack, "manifest").await.is_empty());
    assert!(stack.value(&event_id, "payload").await == fixture.body().unwrap());
    assert!(keys(&stack, "part").await.len() == 8, "both bodies are in parts");

    // The write of a third body is interrupted.
    body["content"]["internalNotes"] = noise(IN_TWO_PARTS + 3).into();
    other.set_body(body.to_string());
    stack.sign(&mut other);
    let kill = stack.tap().inject(
        Rule::new(Service::DynamoDb, "TransactWriteItems").times(1),
        Fault::KillBefore,
    );
    assert_eq!(stack.send(&other).await.status, 500);
    kill.hit(1).await;
    assert_eq!(keys(&stack, "manifest").await.len(), 1);

    let order = body["content"]["token"].clone();
    let erase = json!({"erase": {"provider": "snipcart", "shop": "main", "order": order, "dry_run": false}});
    assert_eq!(stack.ask(erase).await["erased"], 1);
    assert!(keys(&stack, "part").await.is_empty());
    assert!(keys(&stack, "conflict").await.is_empty());
    let tombstone = stack.head(&event_id).await;
    assert_eq!(state(&tombstone), "erased");
    assert!(!tombstone.contains_key("payload_parts") && !tombstone.contains_key("event_parts"));
    // The parts that a concurrent delivery may still write are swept a minute later.
    assert_eq!(manifest(&stack).await["state"], text("sweeping"));
    let_a_day_pass(&stack).await;
    stack.ask(json!({"redrive": {}})).await;
    assert_eq!(stack.items().await.len(), 1, "the tombstone");
}

/// Moves the parts of an event to the partition key of the event, where the previous version stored them.
async fn move_parts_into_the_event(stack: &Stack, event_id: &str) {
    let mut head = stack.head(event_id).await;
    for name in ["payload_parts", "event_parts"] {
        let Some(AttributeValue::L(names)) = head.get(name).cloned() else {
            continue;
        };
        let mut moved = Vec::new();
        for part in names {
            let part = part.as_s().unwrap().clone();
            let mut item = stack.items().await.into_iter().find(|item| *key(item) == part).unwrap();
            let words: Vec<_> = part.rsplitn(3, '#').collect();
            let old = format!("part#{}#{}", words[1], words[0]);
            let delete = stack.clients().dynamodb.delete_item().table_name(NAME);
            let delete = delete.key("pk", text(&part)).key("sk", text("part"));
            delete.send().await.expect("the item is deleted");
            item.insert("pk".to_owned(), text(event_id));
            item.insert("sk".to_owned(), text(&old));
            stack.put(item).await;
            moved.push(text(&old));
        }
        head.insert(name.to_owned(), AttributeValue::L(moved));
    }
    stack.put(head).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_in_the_partition_of_the_event_are_still_read() {
    let stack = Stack::start().await;
    let down = stack.tap().inject(Rule::all(Service::Sns), tests::outbox::DENIED);
    let fixture = stack.large(IN_TWO_PARTS);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    drop(down);
    move_parts_into_the_event(&stack, &event_id).await;
    assert_eq!(stack.redrive().await["published"], 1);
    assert_eq!(stack.messages().await.len(), 1);
    let got = stack.ask(json!({"get": {"event_id": event_id}})).await;
    assert_eq!(got["events"][0]["event"], stack.stored_event(&event_id).await);
    assert_eq!(stack.send(&fixture).await.event_id("duplicate"), event_id);

    let body = json_body(&fixture);
    let order = body["content"]["token"].clone();
    let erase = json!({"erase": {"provider": "snipcart", "shop": "main", "order": order, "dry_run": false}});
    assert_eq!(stack.ask(erase).await["erased"], 1);
    // The table also has the items of redrive itself.
    let items = stack.items().await;
    let of_the_event: Vec<_> = items.iter().filter(|item| key(item) != "redrive").collect();
    assert_eq!(of_the_event.len(), 1, "the tombstone: {of_the_event:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_quarantined_event_is_released_with_its_parts() {
    let stack = Stack::start().await;
    for (by_repeat, in_old_layout) in [(true, false), (false, false), (true, true), (false, true)] {
        let fixture = order(&stack, IN_TWO_PARTS);
        let event_id = stack.send(&fixture).await.event_id("accepted");
        stack.messages().await;
        // As if a version of the code that did not understand the event had stored it.
        let mut head = stack.head(&event_id).await;
        for name in [
            "event_parts",
            "event_sha256",
            "type",
            "time",
            "order",
            "order_key",
            "order_sort",
            "published_at",
        ] {
            head.remove(name);
        }
        let work = text(&format!("quarantined#{}", shard_of(&event_id)));
        let now = text(&format!("{:.3}", Timestamp::now()));
        let words = [("state", text("quarantined")), ("work", work), ("next_attempt_at", now)];
        set(&stack, head, &words).await;
        if in_old_layout {
            move_parts_into_the_event(&stack, &event_id).await;
        }
        if by_repeat {
            assert_eq!(stack.send(&fixture).await.event_id("accepted"), event_id);
        } else {
            let answer = stack.ask(json!({"reprocess": {"provider": "selldone"}})).await;
            assert_eq!(answer["accepted"], 1);
            assert_eq!(stack.redrive().await["published"], 1);
        }
        // The parts in the partition of the event are swept.
        stack.ask(json!({"redrive": {}})).await;
        assert_eq!(state(&stack.head(&event_id).await), "published");
        assert!(keys(&stack, "manifest").await.is_empty());
        let in_event = stack.items().await.into_iter().filter(|item| key(item) == event_id);
        assert_eq!(in_event.count(), 1, "the head");
        let messages = stack.messages().await;
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].event["id"], event_id);
        assert!(stack.value(&event_id, "payload").await == fixture.body().unwrap());
        let event = stack.stored_event(&event_id).await;
        assert_eq!(event["data"]["unmapped"]["attachment"], noise(IN_TWO_PARTS));
    }
}

#[test]
fn the_local_stack_reads_all_shards() {
    assert_eq!(local::aws::table::SHARDS, shared::store::SHARDS);
}
