//! Retention: the content of expired events is removed, a late repeat is a duplicate for a while, and nothing else is
//! lost.
//!
//! Time passes by moving the times in the table into the past.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use local::aws::faults::{Fault, Rule, Service};
use local::project::settings::REDRIVE;
use local::providers::samples::Fixture;
use serde_json::{Value, json};
use tests::outbox::{DENIED, ids, text};
use tests::{Item, ORDERS, Stack, json_body, noise, state};

/// The attributes that an expired event does not have.
const REMOVED: [&str; 11] = [
    "payload",
    "payload_parts",
    "event",
    "event_parts",
    "event_sha256",
    "request",
    "order",
    "order_key",
    "order_sort",
    "work",
    "next_attempt_at",
];

fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

/// A stack with a retention, in days, of published and of other events. Tombstones are kept for ten days.
async fn keeping(orders: u16, unpublished: u16) -> Stack {
    keeping_in(None, orders, unpublished).await
}

async fn keeping_in(table: Option<&Table>, orders: u16, unpublished: u16) -> Stack {
    Stack::with(|config| {
        for (name, days) in [
            ("ORDER_RETENTION_DAYS", orders),
            ("UNPUBLISHED_RETENTION_DAYS", unpublished),
            ("DEDUPLICATION_DAYS", 10),
        ] {
            config.variables.insert(name.to_owned(), days.to_string());
        }
        config.table = table.map(|table| table.0.clone());
    })
    .await
}

/// A table that outlives a stack, for another stack with other settings.
struct Table(PathBuf);

impl Table {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("order-webhooks-retention-{}-{count}.db", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", self.0.display()));
        }
    }
}

/// The items of events, without those of redrive itself and the notes of erased orders.
async fn items(stack: &Stack) -> Vec<Item> {
    let items = stack.items().await.into_iter();
    items
        .filter(|item| item["pk"] != text("redrive") && item["sk"] != text("erased_order"))
        .collect()
}

/// The only item of an event, which must be a tombstone without content.
async fn tombstone(stack: &Stack) -> Item {
    let items = items(stack).await;
    let [tombstone] = items.as_slice() else {
        let keys = |item: &Item| format!("{:?} {:?}", item["pk"], item["sk"]);
        panic!("{:?} are left", items.iter().map(keys).collect::<Vec<_>>())
    };
    assert_eq!(state(tombstone), "erased");
    for name in REMOVED {
        assert!(!tombstone.contains_key(name), "{name} is left");
    }
    tombstone.clone()
}

fn ends_in(tombstone: &Item) -> SignedDuration {
    let end: i64 = tombstone["expires_at"].as_n().unwrap().parse().unwrap();
    Timestamp::from_second(end).unwrap().duration_since(Timestamp::now())
}

async fn shown(stack: &Stack, event_id: &str) -> Vec<Value> {
    let shown = stack.ask(json!({"get": {"event_id": event_id}})).await;
    shown["events"].as_array().unwrap().clone()
}

async fn expired_by_a_run(stack: &Stack) -> Value {
    let run = stack.ask(json!({"redrive": {}})).await;
    assert_eq!((&run["done"], &run["outage"]), (&json!(true), &Value::Null), "{run}");
    run["expired"].clone()
}

/// The hours around a time that many days ago. A task over all hours since would take long.
fn received_about(days_ago: i64, provider: &str) -> Value {
    let time = Timestamp::now() - days(days_ago);
    let hour = SignedDuration::from_hours(2);
    json!({"provider": provider, "from": time - hour, "to": time + hour})
}

fn unknown(stack: &Stack) -> Fixture {
    stack.signed("snipcart", "unknown-event")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_event_expires_with_its_parts_and_conflicts() {
    let stack = keeping(30, 90).await;
    let fixture = stack.large(1_000_000);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let mut other = fixture.clone();
    let mut body = json_body(&fixture);
    body["content"]["internalNotes"] = noise(500_000).into();
    other.set_body(body.to_string());
    stack.sign(&mut other);
    assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);
    stack.messages().await;

    stack.let_time_pass(days(29)).await;
    assert_eq!(expired_by_a_run(&stack).await, 0);
    assert_eq!(shown(&stack, &event_id).await.len(), 1);
    let replayed = stack.ask(json!({"replay": received_about(29, "snipcart")})).await;
    assert_eq!((&replayed["replayed"], &replayed["expired"]), (&json!(1), &json!(0)));
    stack.messages().await;

    // The event has expired, and redrive has not run yet.
    stack.let_time_pass(days(1)).await;
    let before = items(&stack).await.len();
    assert!(before > 4, "head, parts and a conflict");
    assert_eq!(shown(&stack, &event_id).await, [] as [Value; 0]);
    let replayed = stack.ask(json!({"replay": received_about(30, "snipcart")})).await;
    assert_eq!((&replayed["replayed"], &replayed["expired"]), (&json!(0), &json!(1)));
    for mut repeat in [fixture.clone(), other] {
        stack.sign(&mut repeat);
        assert_eq!(stack.send(&repeat).await.event_id("duplicate"), event_id);
    }
    assert_eq!(items(&stack).await.len(), before);

    assert_eq!(expired_by_a_run(&stack).await, 1);
    let left = tombstone(&stack).await;
    assert_eq!(left["erased_by"], text("retention"));
    assert!(
        ends_in(&left) > days(9) && ends_in(&left) <= days(10),
        "{:?}",
        ends_in(&left)
    );
    let mut repeat = fixture.clone();
    stack.sign(&mut repeat);
    assert_eq!(stack.send(&repeat).await.event_id("duplicate"), event_id);
    assert_eq!(expired_by_a_run(&stack).await, 0);
    assert!(stack.messages().await.is_empty());

    // DynamoDB may take days to delete the tombstone.
    stack.let_time_pass(days(10) + SignedDuration::from_secs(1)).await;
    assert_eq!(shown(&stack, &event_id).await, [] as [Value; 0]);
    stack.sign(&mut repeat);
    assert_eq!(stack.send(&repeat).await.event_id("accepted"), event_id);
    assert_eq!(ids(&stack.messages().await), [event_id.clone()].into());
    assert_eq!(state(&stack.head(&event_id).await), "published");
    assert_eq!(stack.value(&event_id, "payload").await, fixture.body().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpublished_event_never_expires() {
    let stack = keeping(30, 90).await;
    let pending = stack.left_by_an_outage(ORDERS.len()).await;
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let failed = stack.deliver_new(1).await;
    drop(down);
    let mut head = stack.head(&failed[0]).await;
    head.insert("state".to_owned(), text("failed"));
    let work = head["work"].as_s().unwrap().replace("pending", "failed");
    head.insert("work".to_owned(), text(&work));
    stack.put(head).await;

    stack.let_time_pass(days(400)).await;
    let run = stack.ask(json!({"redrive": {}})).await;
    assert_eq!((&run["published"], &run["expired"]), (&json!(ORDERS.len()), &json!(0)));
    assert_eq!(ids(&stack.messages().await), pending);
    assert_eq!(stack.ask(json!({"requeue": {}})).await["requeued"], 1);
    let run = stack.redrive().await;
    assert_eq!((&run["published"], &run["expired"]), (&json!(1), &json!(0)));

    // The retention starts at the publication.
    stack.let_time_pass(days(29)).await;
    assert_eq!(expired_by_a_run(&stack).await, 0);
    stack.let_time_pass(days(1)).await;
    assert_eq!(expired_by_a_run(&stack).await, ORDERS.len() + 1);
    assert_eq!(stack.states().await, [("erased".to_owned(), ORDERS.len() + 1)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantined_and_unsupported_deliveries_expire() {
    let stack = keeping(0, 90).await;
    let published = stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    let quarantined = stack.send(&unknown(&stack)).await.event_id("quarantined");
    let unsupported = stack
        .deliver("snipcart", "taxes-calculate")
        .await
        .event_id("unsupported");
    let dismissed = stack.quarantined(b"nothing that can be read", str::to_owned).await;
    assert_eq!(expired_by_a_run(&stack).await, 0);

    stack.let_time_pass(days(60)).await;
    let dismiss = json!({"dismiss": {"event_id": dismissed}});
    assert_eq!(stack.ask(dismiss).await["dismissed"], 1);
    stack.let_time_pass(days(29)).await;
    assert_eq!(expired_by_a_run(&stack).await, 0);
    let reprocessed = stack.ask(json!({"reprocess": {}})).await;
    assert_eq!(
        (&reprocessed["quarantined"], &reprocessed["expired"]),
        (&json!(1), &json!(0))
    );

    stack.let_time_pass(days(1) + SignedDuration::from_mins(1)).await;
    let reprocessed = stack.ask(json!({"reprocess": {}})).await;
    assert_eq!(
        (&reprocessed["quarantined"], &reprocessed["expired"]),
        (&json!(0), &json!(1))
    );
    for event_id in [&quarantined, &unsupported] {
        assert_eq!(shown(&stack, event_id).await, [] as [Value; 0]);
    }
    assert_eq!(expired_by_a_run(&stack).await, 2);
    for event_id in [&quarantined, &unsupported] {
        let head = stack.head(event_id).await;
        assert_eq!((state(&head), &head["erased_by"]), ("erased", &text("retention")));
        assert!(!head.contains_key("payload"));
    }
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["expired"], 0);
    assert_eq!(stack.send(&unknown(&stack)).await.event_id("duplicate"), quarantined);
    stack.deliver("snipcart", "taxes-calculate").await.event_id("duplicate");

    // The dismissed delivery has its own retention, which began 30 days ago.
    assert_eq!(state(&stack.head(&dismissed).await), "unsupported");
    stack.let_time_pass(days(60)).await;
    assert_eq!(expired_by_a_run(&stack).await, 1);
    assert_eq!(state(&stack.head(&dismissed).await), "erased");
    assert_eq!(state(&stack.head(&published).await), "published");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_delivery_expires_with_published_events() {
    let stack = keeping(30, 0).await;
    let fixture = stack.signed("selldone", "checkout-order");
    let old = stack.quarantined(&fixture.body().unwrap(), str::to_owned).await;
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["accepted"], 1);
    assert_eq!(stack.redrive().await["published"], 1);
    assert_eq!(state(&stack.head(&old).await), "superseded");
    stack.let_time_pass(days(30)).await;
    assert_eq!(expired_by_a_run(&stack).await, 2);
    assert_eq!(stack.states().await, [("erased".to_owned(), 2)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_quarantined_expires_without_a_weeks_notice() {
    let table = Table::new();
    let before = keeping_in(Some(&table), 0, 0).await;
    let event_id = before.send(&unknown(&before)).await.event_id("quarantined");
    assert_eq!(expired_by_a_run(&before).await, 0);
    before.let_time_pass(days(400)).await;
    drop(before);

    let stack = keeping_in(Some(&table), 0, 90).await;
    assert_eq!(expired_by_a_run(&stack).await, 0);
    stack.let_time_pass(days(6)).await;
    assert_eq!(expired_by_a_run(&stack).await, 0);
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["quarantined"], 1);
    assert_eq!(shown(&stack, &event_id).await.len(), 1);
    drop(stack);

    // Another retention starts another week of notice.
    let stack = keeping_in(Some(&table), 0, 30).await;
    assert_eq!(expired_by_a_run(&stack).await, 0);
    stack.let_time_pass(days(6)).await;
    assert_eq!(expired_by_a_run(&stack).await, 0);
    stack.let_time_pass(days(1)).await;
    assert_eq!(expired_by_a_run(&stack).await, 1);
    assert_eq!(state(&stack.head(&event_id).await), "erased");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_that_was_off_gives_notice_again() {
    let table = Table::new();
    let stack = keeping_in(Some(&table), 0, 90).await;
    let event_id = stack.send(&unknown(&stack)).await.event_id("quarantined");
    assert_eq!(expired_by_a_run(&stack).await, 0);
    drop(stack);

    // The retention is off for 100 days, in which no run records it.
    let stack = keeping_in(Some(&table), 0, 0).await;
    stack.let_time_pass(days(100)).await;
    let mut notes = stack.items().await;
    notes.retain(|item| item["sk"] == text("unpublished_retention"));
    let mut note = notes.remove(0);
    note.insert("seen".to_owned(), text(&format!("{:.3}", Timestamp::now() - days(100))));
    stack.put(note).await;
    assert_eq!(expired_by_a_run(&stack).await, 0);
    drop(stack);

    let stack = keeping_in(Some(&table), 0, 90).await;
    assert_eq!(expired_by_a_run(&stack).await, 0, "another week of notice starts");
    stack.let_time_pass(days(6)).await;
    assert_eq!(expired_by_a_run(&stack).await, 0);
    stack.let_time_pass(days(1)).await;
    assert_eq!(expired_by_a_run(&stack).await, 1);
    assert_eq!(state(&stack.head(&event_id).await), "erased");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsupported_delivery_expires_from_its_receipt() {
    let stack = keeping(0, 90).await;
    let fixture = stack.signed("selldone", "inventory");
    let event_id = stack.quarantined(&fixture.body().unwrap(), str::to_owned).await;
    stack.let_time_pass(days(60)).await;
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["unsupported"], 1);
    let head = stack.head(&event_id).await;
    assert_eq!(state(&head), "unsupported");
    let time = |name: &str| head[name].as_s().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!(time("next_attempt_at"), time("received_at") + days(90));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_unsupported_delivery_has_a_week_of_notice() {
    let stack = keeping(0, 90).await;
    let fixture = stack.signed("selldone", "inventory");
    let event_id = stack.quarantined(&fixture.body().unwrap(), str::to_owned).await;
    stack.let_time_pass(days(100)).await;
    let begun = Timestamp::now();
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["unsupported"], 1);
    let head = stack.head(&event_id).await;
    let expiry: Timestamp = head["next_attempt_at"].as_s().unwrap().parse().unwrap();
    assert!(expiry >= begun + days(7) - SignedDuration::from_secs(1), "{expiry}");
    stack.ask(json!({"redrive": {}})).await;
    assert_eq!(state(&stack.head(&event_id).await), "unsupported");
    stack.let_time_pass(days(7)).await;
    stack.ask(json!({"redrive": {}})).await;
    assert_eq!(state(&stack.head(&event_id).await), "erased");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_removes_expired_events_of_its_own_shards() {
    let stack = keeping(30, 0).await;
    let delivered = stack.deliver_new(20).await;
    stack.let_time_pass(days(30)).await;
    let share = delivered.iter().filter(|id| id.as_str() < "8").count();
    for (shards, expired) in [(json!([0, 8]), share), (json!([8, 16]), 20 - share)] {
        let run = stack.ask(json!({"redrive": {"shards": shards}})).await;
        assert_eq!(run["expired"], expired, "{run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_sns_stops_no_expiry() {
    let stack = keeping(30, 0).await;
    let expired = stack.deliver("cartum", "order-created").await.event_id("accepted");
    stack.let_time_pass(days(30)).await;
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let waiting = stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    let run = stack.redrive().await;
    assert_eq!((&run["expired"], &run["published"]), (&json!(1), &json!(0)), "{run}");
    assert_eq!(
        (&run["outage"], &run["done"]),
        (&json!("AuthorizationError"), &json!(false)),
        "{run}"
    );
    drop(down);
    assert_eq!(state(&stack.head(&expired).await), "erased");
    assert_eq!(state(&stack.head(&waiting).await), "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_expiry_is_finished() {
    let stack = keeping(30, 90).await;
    let fixture = stack.large(1_000_000);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    stack.let_time_pass(days(30)).await;
    let parts = items(&stack).await.len() - 1;
    assert!(parts >= 2, "{parts} parts");

    let denied = stack.tap().inject(Rule::new(Service::DynamoDb, "DeleteItem"), DENIED);
    // The run still succeeds and publishes due events.
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    drop(down);
    let run = stack.redrive().await;
    assert_eq!(
        (&run["published"], &run["expired"], &run["done"]),
        (&json!(1), &json!(0), &json!(true))
    );
    let head = stack.head(&event_id).await;
    assert_eq!(state(&head), "erased");
    assert!(!head.contains_key("expires_at"), "the parts are not deleted yet");
    assert_eq!(stack.send(&fixture).await.event_id("duplicate"), event_id);
    drop(denied);

    assert_eq!(expired_by_a_run(&stack).await, 1);
    let head = stack.head(&event_id).await;
    assert!(head.contains_key("expires_at"));
    for name in REMOVED {
        assert!(!head.contains_key(name), "{name} is left");
    }
    assert_eq!(items(&stack).await.len(), 2, "the tombstone, and the other event");
}

#[tokio::test(flavor = "multi_thread")]
async fn retain_applies_the_current_settings_to_stored_events() {
    let table = Table::new();
    let before = keeping_in(Some(&table), 0, 0).await;
    let event_id = before.deliver("snipcart", "order-completed").await.event_id("accepted");
    let unsupported = before
        .deliver("snipcart", "taxes-calculate")
        .await
        .event_id("unsupported");
    before.deliver("selldone", "checkout-order").await.event_id("accepted");
    before.let_time_pass(days(40)).await;
    assert_eq!(
        before.ask(json!({"retain": received_about(40, "snipcart")})).await["marked"],
        0
    );
    drop(before);

    let stack = keeping_in(Some(&table), 30, 90).await;
    assert_eq!(expired_by_a_run(&stack).await, 0, "the event is not marked yet");
    assert_eq!(shown(&stack, &event_id).await.len(), 1);
    let mut task = received_about(40, "snipcart");
    task["dry_run"] = true.into();
    let counted = stack.ask(json!({"retain": task})).await;
    assert_eq!((&counted["marked"], &counted["done"]), (&json!(2), &json!(true)));
    assert!(
        !stack.head(&event_id).await.contains_key("work"),
        "a dry run only counts"
    );
    let mut elsewhere = received_about(39, "snipcart");
    elsewhere["dry_run"] = true.into();
    assert_eq!(stack.ask(json!({"retain": elsewhere})).await["marked"], 0);
    let retain = json!({"retain": received_about(40, "snipcart")});
    assert_eq!(stack.ask(retain.clone()).await["marked"], 2);
    assert_eq!(stack.ask(retain.clone()).await["marked"], 0);
    drop(stack);

    // A longer retention takes effect at once, and a run corrects the mark.
    let stack = keeping_in(Some(&table), 365, 90).await;
    assert_eq!(shown(&stack, &event_id).await.len(), 1);
    assert_eq!(expired_by_a_run(&stack).await, 0);
    assert_eq!(
        stack.ask(retain.clone()).await["marked"],
        0,
        "redrive has corrected the mark"
    );
    stack.let_time_pass(days(60)).await;
    assert_eq!(expired_by_a_run(&stack).await, 1);
    assert_eq!(state(&stack.head(&unsupported).await), "erased");
    drop(stack);

    let stack = keeping_in(Some(&table), 0, 90).await;
    let retain = json!({"retain": received_about(100, "snipcart")});
    let unmarked = stack.ask(retain).await;
    assert_eq!((&unmarked["marked"], &unmarked["unmarked"]), (&json!(0), &json!(1)));
    stack.let_time_pass(days(1_000)).await;
    assert_eq!(expired_by_a_run(&stack).await, 0);
    assert_eq!(shown(&stack, &event_id).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retain_task_needs_a_provider_and_a_period() {
    let stack = keeping(30, 0).await;
    for wrong in [json!({}), json!({"provider": "snipcart"}), json!({"event_id": "x"})] {
        let error = stack
            .invoke(REDRIVE, &json!({"retain": wrong}))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("invalid task"), "{error}");
    }
    let nobody = stack.ask(json!({"retain": received_about(0, "nobody")})).await;
    assert_eq!(
        nobody,
        json!({"marked": 0, "unmarked": 0, "dry_run": false, "done": true, "cursor": null, "outage": null})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn retain_stops_in_time_and_continues_at_its_cursor() {
    let stack = Stack::with(|config| {
        config
            .variables
            .insert("ORDER_RETENTION_DAYS".to_owned(), "30".to_owned());
        config.timeout = Some(Duration::from_secs(4));
    })
    .await;
    stack.deliver("snipcart", "order-completed").await.event_id("accepted");
    let _slow = stack.tap().inject(
        Rule::new(Service::DynamoDb, "Query"),
        Fault::Slow(Duration::from_millis(100)),
    );
    let now = Timestamp::now();
    let hours = SignedDuration::from_hours(6);
    let mut task = json!({"retain": {"provider": "snipcart", "from": now - hours, "to": now + hours}});
    let mut runs = 0;
    loop {
        let answer = stack.ask(task.clone()).await;
        runs += 1;
        if answer["done"] == true {
            break;
        }
        assert!(answer["cursor"].is_object(), "{answer}");
        task["retain"]["cursor"] = answer["cursor"].clone();
    }
    assert!(runs > 1, "one run was enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_tombstone_expires_if_a_retention_is_set() {
    for (orders, unpublished) in [(0, 0), (30, 0), (0, 90)] {
        let stack = keeping(orders, unpublished).await;
        let event_id = stack.deliver("snipcart", "order-completed").await.event_id("accepted");
        let order = stack.stored_event(&event_id).await["data"]["order"]["id"].clone();
        let erase = json!({"provider": "snipcart", "shop": "main", "order": order, "dry_run": false});
        assert_eq!(stack.ask(json!({"erase": erase})).await["erased"], 1);
        let left = tombstone(&stack).await;
        assert_eq!(left["erased_by"], text("operator"));
        let ends = orders > 0 || unpublished > 0;
        assert_eq!(left.contains_key("expires_at"), ends, "{orders} {unpublished}");
        if ends {
            assert!(ends_in(&left) > days(9) && ends_in(&left) <= days(10));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_retention_nothing_ever_expires() {
    let stack = Stack::start().await;
    stack.deliver_new(ORDERS.len()).await;
    stack
        .deliver("snipcart", "taxes-calculate")
        .await
        .event_id("unsupported");
    stack.send(&unknown(&stack)).await.event_id("quarantined");
    let before = stack.items().await;
    let marks = ["expires_at", "work", "next_attempt_at"];
    let quarantined = before.iter().filter(|item| state(item) == "quarantined").count();
    let marked = before
        .iter()
        .filter(|item| marks.iter().any(|name| item.contains_key(*name)));
    assert_eq!(
        (quarantined, marked.count()),
        (1, 1),
        "only the quarantined delivery is in the index"
    );

    stack.let_time_pass(days(4_000)).await;
    let asked = stack.tap().count(Service::DynamoDb, "GetItem");
    assert_eq!(expired_by_a_run(&stack).await, 0);
    assert_eq!(
        stack.tap().count(Service::DynamoDb, "GetItem"),
        asked,
        "redrive looked for expired events"
    );
    assert_eq!(stack.items().await.len(), before.len());
    let replayed = stack.ask(json!({"replay": received_about(4_000, "snipcart")})).await;
    assert_eq!((&replayed["replayed"], &replayed["expired"]), (&json!(1), &json!(0)));
}
