//! Erased events are removed with everything that names them. Events that are not published yet stay.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use local::aws::faults::{Fault, Rule, Service};
use local::project::settings::REDRIVE;
use serde_json::{Value, json};
use tests::outbox::DENIED;
use tests::{Stack, json_body, noise, state};
use tokio::sync::Notify;

/// The task that erases an event, or with `dry_run` counts what it would erase.
fn erase_event(event_id: &str, dry_run: bool) -> Value {
    json!({"erase": {"event_id": event_id, "dry_run": dry_run}})
}

/// Attributes that a tombstone does not have.
const CONTENT: [&str; 9] = [
    "payload",
    "payload_parts",
    "event",
    "event_parts",
    "order",
    "order_key",
    "request",
    "reason",
    "erasing",
];

async fn assert_tombstone(stack: &Stack, event_id: &str, what: &str) {
    let head = stack.head(event_id).await;
    assert_eq!(state(&head), "erased", "{what}");
    for name in CONTENT {
        assert!(!head.contains_key(name), "{what}: {name} is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_that_races_an_erasure_leaves_nothing() {
    let stack = Stack::start().await;
    for letters in [10, 600_000] {
        let mut fixture = stack.large(10);
        fixture.renew().unwrap();
        stack.sign(&mut fixture);
        let event_id = stack.send(&fixture).await.event_id("accepted");
        let other = stack.with_another_body(&fixture, "another", tests::noise(letters).into());
        // The write of the conflict waits until the event is erased.
        let held = stack.tap().inject(
            Rule::new(Service::DynamoDb, "TransactWriteItems").holding("conflict#"),
            Fault::Hold,
        );
        let erased = async {
            held.hit(1).await;
            let answer = stack.ask(erase_event(&event_id, false)).await;
            drop(held);
            answer
        };
        let (sent, erased) = tokio::join!(stack.send(&other), erased);
        assert_eq!(erased["erased"], 1);
        assert_eq!(sent.event_id("duplicate"), event_id, "the conflict is not stored");
        assert_tombstone(&stack, &event_id, "the event").await;
        for item in stack.items().await {
            let key = |name: &str| item[name].as_s().unwrap().clone();
            assert!(
                !key("sk").starts_with("conflict#") && key("sk") != "part",
                "{} is left",
                key("sk")
            );
        }
        assert_eq!(stack.ask(erase_event(&event_id, false)).await["erased"], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_but_pending_is_erased_by_its_id() {
    let stack = Stack::start().await;
    let unknown = stack.signed("snipcart", "unknown-event");
    let quarantined = stack.send(&unknown).await.event_id("quarantined");
    let unsupported = stack
        .deliver("snipcart", "taxes-calculate")
        .await
        .event_id("unsupported");
    let unread = stack.deliver("aboutyou", "not-json").await.event_id("quarantined");
    assert_eq!(
        stack.ask(json!({"dismiss": {"event_id": unread}})).await["dismissed"],
        1
    );
    let items = stack
        .deliver("aboutyou", "order-items-shipped")
        .await
        .event_id("accepted");
    let mut states = vec![
        ("quarantined", quarantined),
        ("unsupported", unsupported),
        ("dismissed", unread),
        ("without an order", items),
    ];
    for (word, event_id) in ["failed", "superseded", "published"]
        .iter()
        .zip(stack.deliver_new(3).await)
    {
        stack.set_state(&event_id, word).await;
        states.push((word, event_id));
    }
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let pending = stack.deliver_new(1).await.remove(0);
    drop(down);
    for (what, event_id) in &states {
        let dry = stack.ask(erase_event(event_id, true)).await;
        assert_eq!(dry, json!({"erased": 1, "waiting": 0, "dry_run": true}), "{what}");
        assert!(stack.head(event_id).await.contains_key("payload"), "{what}");
        let erased = stack.ask(erase_event(event_id, false)).await;
        assert_eq!(erased, json!({"erased": 1, "waiting": 0, "dry_run": false}), "{what}");
        assert_tombstone(&stack, event_id, what).await;
        assert_eq!(stack.ask(erase_event(event_id, false)).await["erased"], 0, "{what}");
        assert_eq!(stack.ask(erase_event(event_id, true)).await["erased"], 0, "{what}");
    }
    let waits = stack.ask(erase_event(&pending, false)).await;
    assert_eq!((&waits["erased"], &waits["waiting"]), (&json!(0), &json!(1)));
    assert_eq!(state(&stack.head(&pending).await), "pending");
    assert_eq!(stack.ask(erase_event(&"0".repeat(64), false)).await["erased"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn uncommitted_parts_are_erased() {
    let stack = Stack::start().await;
    let kill = stack.tap().inject(
        Rule::new(Service::DynamoDb, "PutItem").holding("part#").times(1),
        Fault::KillAfter,
    );
    assert_eq!(stack.send(&stack.large(2_000_000)).await.status, 500);
    kill.hit(1).await;
    let items = stack.items().await;
    let manifest = items
        .iter()
        .find(|item| item["sk"].as_s().is_ok_and(|key| key.starts_with("manifest#")))
        .expect("a manifest");
    let event_id = manifest["pk"].as_s().unwrap();
    assert_eq!(stack.ask(erase_event(event_id, true)).await["erased"], 1);
    assert_eq!(stack.ask(erase_event(event_id, false)).await["erased"], 1);
    let left = stack.items().await;
    assert!(
        left.iter()
            .all(|item| item["sk"] != AttributeValue::S("part".to_owned())),
        "{left:?}"
    );
    assert_eq!(stack.ask(erase_event(event_id, false)).await["erased"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_keeps_the_parts_of_a_head_that_commits() {
    let stack = Stack::start().await;
    let fixture = stack.large(2_000_000);
    let commit = stack
        .tap()
        .inject(Rule::new(Service::DynamoDb, "TransactWriteItems"), Fault::Hold);
    let close = stack.tap().inject(
        Rule::new(Service::DynamoDb, "UpdateItem").holding("sweeping"),
        Fault::Hold,
    );
    let answered = Notify::new();
    let erase = async {
        commit.hit(1).await;
        let items = stack.items().await;
        let manifest = items
            .iter()
            .find(|item| item["sk"].as_s().is_ok_and(|key| key.starts_with("manifest#")))
            .expect("a manifest");
        let task = erase_event(manifest["pk"].as_s().unwrap(), false);
        let committed = async {
            close.hit(1).await;
            drop(commit);
            answered.notified().await;
            drop(close);
        };
        let (answer, ()) = tokio::join!(stack.ask(task), committed);
        answer
    };
    let send = async {
        let answer = stack.send(&fixture).await;
        // The erasure continues when the delivery has committed and deleted its manifest.
        answered.notify_one();
        answer
    };
    let (answer, erased) = tokio::join!(send, erase);
    let event_id = answer.event_id("accepted");
    assert_eq!(erased["erased"], 0, "{erased}");
    assert!(stack.value(&event_id, "payload").await == fixture.body().unwrap());
    assert_eq!(stack.ask(erase_event(&event_id, false)).await["erased"], 1);
    assert_tombstone(&stack, &event_id, "the committed event").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_head_is_reported_and_keeps_its_parts() {
    let stack = Stack::start().await;
    let fixture = stack.large(2_000_000);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let order = stack.stored_event(&event_id).await["data"]["order"]["id"].clone();
    stack.set_state(&event_id, "of-a-newer-version").await;
    let by_order = json!({"erase": {"provider": "snipcart", "shop": "main", "order": order, "dry_run": false}});
    for task in [erase_event(&event_id, true), erase_event(&event_id, false), by_order] {
        let answer = stack.ask(task).await;
        assert_eq!(
            (&answer["erased"], &answer["done"]),
            (&json!(0), &json!(false)),
            "{answer}"
        );
        let outage = answer["outage"].as_str().unwrap();
        assert!(outage.contains("corrupt item"), "{answer}");
    }
    assert!(stack.value(&event_id, "payload").await == fixture.body().unwrap());
    stack.set_state(&event_id, "published").await;
    assert_eq!(stack.ask(erase_event(&event_id, false)).await["erased"], 1);
    assert_tombstone(&stack, &event_id, "the event").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_erasure_by_address_is_finished() {
    let stack = Stack::start().await;
    let fixture = stack.large(2_000_000);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let email = stack.stored_event(&event_id).await["data"]["order"]["customer"]["email"].clone();
    let now = Timestamp::now();
    let hour = SignedDuration::from_hours(1);
    let task = |dry_run| {
        json!({"erase": {
            "provider": "snipcart", "shop": "main", "email": email, "from": now - hour, "to": now + hour, "dry_run": dry_run,
        }})
    };
    let denied = stack.tap().inject(Rule::new(Service::DynamoDb, "DeleteItem"), DENIED);
    let interrupted = stack.ask(task(false)).await;
    assert_eq!(
        (&interrupted["erased"], &interrupted["done"]),
        (&json!(0), &json!(false)),
        "{interrupted}"
    );
    assert_eq!(state(&stack.head(&event_id).await), "erased");
    drop(denied);
    assert_eq!(stack.ask(task(true)).await["erased"], 1);
    assert_eq!(stack.ask(task(false)).await["erased"], 1);
    assert_tombstone(&stack, &event_id, "the event").await;
    assert!(
        stack.head(&event_id).await.contains_key("hour"),
        "an audit still counts it"
    );
    let mut left = stack.items().await;
    left.retain(|item| item["sk"].as_s().is_ok_and(|key| key != "erased_order"));
    let keys: Vec<_> = left.iter().map(|item| (&item["pk"], &item["sk"])).collect();
    assert_eq!(keys.len(), 1, "the parts are deleted: {keys:?}");
    assert_eq!(stack.ask(task(false)).await["erased"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_erasure_of_a_conflict_is_finished() {
    let stack = Stack::start().await;
    let fixture = stack.large(10);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let mut content = json_body(&fixture);
    content["content"]["email"] = "other@example.com".into();
    content["content"]["internalNotes"] = noise(2_000_000).into();
    let other = stack.with_another_body(&fixture, "content", content["content"].clone());
    assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);
    let now = Timestamp::now();
    let hour = SignedDuration::from_hours(1);
    let task = json!({"erase": {
        "provider": "snipcart", "shop": "main", "email": "other@example.com", "from": now - hour, "to": now + hour,
        "dry_run": false,
    }});
    // The other parts can be deleted.
    let second_parts = Rule::new(Service::DynamoDb, "DeleteItem").holding("#0001");
    let denied = stack.tap().inject(second_parts, DENIED);
    assert_eq!(stack.ask(task.clone()).await["done"], false);
    drop(denied);
    assert_eq!(stack.ask(task.clone()).await["erased"], 1);
    assert_eq!(stack.items().await.len(), 1, "only the event is left");
    assert_eq!(stack.ask(task).await["erased"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_erased_with_the_conflicts_that_name_it() {
    let stack = Stack::start().await;
    let fixture = stack.signed("aboutyou", "order-created");
    let event_id = stack.send(&fixture).await.event_id("accepted");
    // The same id with another order.
    let mut message = json_body(&fixture);
    message["message"]["order_number"] = "another-order".into();
    let other = stack.with_another_body(&fixture, "message", message["message"].clone());
    assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);

    let task = |order: &str, dry_run| json!({"erase": {"provider": "aboutyou", "shop": "main", "order": order, "dry_run": dry_run}});
    assert_eq!(stack.ask(task("another-order", true)).await["erased"], 1);
    assert_eq!(stack.ask(task("another-order", false)).await["erased"], 1);
    assert_eq!(state(&stack.head(&event_id).await), "published");
    assert_eq!(
        stack
            .items()
            .await
            .iter()
            .filter(|item| item["pk"] == AttributeValue::S(event_id.clone()))
            .count(),
        1
    );
    assert_eq!(stack.ask(task("another-order", false)).await["erased"], 0);
    assert_eq!(stack.ask(task("ayou-139-48201", false)).await["erased"], 1);
    assert_tombstone(&stack, &event_id, "the order's event").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_erased_by_address_wherever_it_occurs() {
    const EMAIL: &str = "Jane.Doe+shop@example.com";
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(20))).await;
    let with_email = |email: &str| {
        let mut fixture = stack.unsigned("snipcart", "order-completed");
        fixture.renew().unwrap();
        let mut body = json_body(&fixture);
        body["content"]["email"] = email.into();
        fixture.set_body(body.to_string());
        stack.sign(&mut fixture);
        fixture
    };
    let published = stack.send(&with_email(EMAIL)).await.event_id("accepted");
    let upper = stack
        .send(&with_email(&EMAIL.to_uppercase()))
        .await
        .event_id("accepted");
    let another = stack
        .send(&with_email("john.Jane.Doe+shop@example.com"))
        .await
        .event_id("accepted");
    let first = with_email("first@example.com");
    let with_conflict = stack.send(&first).await.event_id("accepted");
    let conflict = stack.with_another_body(&first, "more", json!({"contact": EMAIL}));
    assert_eq!(stack.send(&conflict).await.event_id("quarantined"), with_conflict);
    let mut unknown = stack.unsigned("snipcart", "unknown-event");
    let body = String::from_utf8(unknown.body().unwrap()).unwrap();
    unknown.set_body(body.replacen('{', r#"{"contact":"jane.doe\u002bshop\u0040example.com","#, 1));
    stack.sign(&mut unknown);
    let quarantined = stack.send(&unknown).await.event_id("quarantined");
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let pending = stack.send(&with_email(EMAIL)).await.event_id("accepted");
    drop(down);

    let now = Timestamp::now();
    let hour = SignedDuration::from_hours(1);
    let task = |shop: &str, from: Timestamp, dry_run: Option<bool>| {
        let mut task = json!({"erase": {
            "provider": "snipcart", "shop": shop, "email": EMAIL.to_lowercase(), "from": from, "to": now + hour,
        }});
        if let Some(dry_run) = dry_run {
            task["erase"]["dry_run"] = dry_run.into();
        }
        task
    };
    let dry = stack.ask(task("main", now - hour, None)).await;
    assert_eq!(
        (&dry["erased"], &dry["waiting"], &dry["done"]),
        (&json!(4), &json!(1), &json!(true)),
        "{dry}"
    );
    assert_eq!(
        state(&stack.head(&published).await),
        "published",
        "nothing is erased by default"
    );
    assert_eq!(stack.ask(task("other", now - hour, Some(false))).await["erased"], 0);
    assert_eq!(
        stack
            .ask(task("main", now + SignedDuration::from_mins(30), Some(false)))
            .await["erased"],
        0
    );

    let erased = stack.ask(task("main", now - hour, Some(false))).await;
    assert_eq!(
        (&erased["erased"], &erased["waiting"]),
        (&json!(4), &json!(1)),
        "{erased}"
    );
    for (what, event_id) in [
        ("published", &published),
        ("upper case", &upper),
        ("quarantined", &quarantined),
    ] {
        assert_tombstone(&stack, event_id, what).await;
    }
    for event_id in [&another, &with_conflict] {
        assert_eq!(state(&stack.head(event_id).await), "published");
    }
    assert_eq!(state(&stack.head(&pending).await), "pending");
    let keys: Vec<_> = stack
        .items()
        .await
        .iter()
        .map(|item| item["sk"].as_s().unwrap().clone())
        .collect();
    assert!(keys.iter().all(|key| !key.starts_with("conflict#")), "{keys:?}");
    let again = stack.ask(task("main", now - hour, Some(false))).await;
    assert_eq!((&again["erased"], &again["waiting"]), (&json!(0), &json!(1)));
    let log = stack.log().join("\n").to_lowercase();
    assert!(!log.contains("example.com"), "an address is in the log");
    for nonsense in ["", "nobody", "a b@example.com"] {
        let mut task = task("main", now - hour, None);
        task["erase"]["email"] = nonsense.into();
        let error = stack.invoke(REDRIVE, &task).await.unwrap_err().to_string();
        assert!(error.contains("not an e-mail address"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_by_address_continues_at_its_cursor() {
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(8))).await;
    for _ in 0..30 {
        let fixture = stack.renewed("cartum", "order-created");
        stack.send(&fixture).await.event_id("accepted");
    }
    let now = Timestamp::now();
    let hour = SignedDuration::from_hours(1);
    let mut task = json!({"erase": {
        "provider": "cartum", "shop": "main", "email": "dasgdsga@zz.cc", "from": now - hour, "to": now + hour, "dry_run": false,
    }});
    let _slow = stack.tap().inject(
        Rule::new(Service::DynamoDb, "UpdateItem"),
        Fault::Slow(Duration::from_millis(400)),
    );
    let (mut erased, mut runs) = (0, 0);
    loop {
        runs += 1;
        let answer = stack.ask(task.clone()).await;
        erased += answer["erased"].as_u64().unwrap();
        if answer["done"] == true {
            break;
        }
        assert!(answer["cursor"].is_object(), "{answer}");
        task["erase"]["cursor"] = answer["cursor"].clone();
        assert!(runs < 40, "the task does not complete");
    }
    assert!(runs > 1, "one run was enough");
    assert_eq!(erased, 30);
    assert_eq!(stack.states().await, [("erased".to_owned(), 30)].into());
}
