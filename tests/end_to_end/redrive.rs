//! Redrive publishes the events in the outbox and loses none.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use local::aws::faults::{Fault, Rule, Service};
use local::project::settings::REDRIVE;
use serde_json::{Value, json};
use tests::outbox::{DENIED, ids};
use tests::{ORDERS, Stack, state};

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_of_sns_every_event_is_published() {
    let stack = Stack::start().await;
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let delivered = stack.deliver_new(10).await;
    assert_eq!(stack.states().await, [("pending".to_owned(), 10)].into());

    // More runs than SNS may refuse a message in.
    for _ in 0..8 {
        let answer = stack.redrive().await;
        assert_eq!(
            (&answer["published"], &answer["failed"], &answer["put_off"]),
            (&json!(0), &json!(0), &json!(0))
        );
        assert_eq!(
            (&answer["done"], &answer["outage"]),
            (&json!(false), &json!("AuthorizationError"))
        );
    }
    assert!(stack.messages().await.is_empty());
    drop(down);
    for fault in [Fault::DOWN, Fault::THROTTLED] {
        let down = stack.tap().inject(Rule::all(Service::Sns), fault);
        assert_eq!(stack.redrive().await["published"], 0);
        drop(down);
    }

    let answer = stack.redrive().await;
    assert_eq!(
        (&answer["published"], &answer["done"], &answer["outage"]),
        (&json!(10), &json!(true), &Value::Null)
    );
    assert_eq!(stack.states().await, [("published".to_owned(), 10)].into());
    let messages = stack.messages().await;
    assert_eq!(messages.len(), 10);
    assert_eq!(ids(&messages), delivered.into_iter().collect());
    for message in &messages {
        assert_eq!(
            message.event,
            stack.stored_event(message.event["id"].as_str().unwrap()).await
        );
        assert_eq!(message.attributes["replay"], Value::Null);
    }
    assert_eq!(stack.redrive().await["published"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_pauses_while_a_service_throttles_and_continues() {
    let refused = |code| Fault::Answer { status: 400, code };
    // As many as the attempts of eight concurrent pages. The SDK makes three attempts if it knows the error to be
    // throttling.
    for (service, operation, fault, times) in [
        (Service::Sns, "PublishBatch", Fault::THROTTLED, 24),
        (Service::Sns, "PublishBatch", refused("KMSThrottling"), 8),
        (
            Service::DynamoDb,
            "Query",
            refused("ProvisionedThroughputExceededException"),
            24,
        ),
    ] {
        let stack = Stack::start().await;
        let delivered = stack.left_by_an_outage(60).await;
        let throttled = stack.tap().inject(Rule::new(service, operation).times(times), fault);
        let answer = stack.ask(json!({"redrive": {}})).await;
        assert_eq!(throttled.hits(), times, "{fault:?}");
        assert_eq!(
            (&answer["published"], &answer["done"], &answer["outage"]),
            (&json!(60), &json!(true), &Value::Null),
            "{fault:?}"
        );
        let messages = stack.messages().await;
        assert_eq!(
            (messages.len(), ids(&messages)),
            (60, delivered),
            "each event is published once, with {fault:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_mark_events_publishes_them_once() {
    let stack = Stack::start().await;
    let delivered = stack.left_by_an_outage(10).await;
    // Counts the pages, without a fault: one of each of the 16 shards, and then the first shard again.
    let pages = stack
        .tap()
        .inject(Rule::new(Service::DynamoDb, "Query"), Fault::Slow(Duration::ZERO));
    let marks = stack.tap().inject(
        Rule::new(Service::DynamoDb, "UpdateItem").holding("published_at"),
        Fault::THROTTLED,
    );
    let marked_again = async {
        pages.hit(17).await;
        drop(marks);
    };
    let (answer, ()) = tokio::join!(stack.ask(json!({"redrive": {}})), marked_again);
    assert_eq!(
        (&answer["published"], &answer["done"], &answer["outage"]),
        (&json!(10), &json!(true), &Value::Null)
    );
    assert_eq!(stack.states().await, [("published".to_owned(), 10)].into());
    let messages = stack.messages().await;
    assert_eq!(
        (messages.len(), ids(&messages)),
        (10, delivered),
        "each event is published once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_calls_hang_answers_in_time_and_loses_nothing() {
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(6))).await;
    let delivered = stack.left_by_an_outage(10).await;
    let marks = stack.tap().inject(
        Rule::new(Service::DynamoDb, "UpdateItem").holding("published_at"),
        Fault::Hang,
    );
    let answer = stack.ask(json!({"redrive": {}})).await;
    assert_eq!(
        (&answer["done"], &answer["outage"]),
        (&json!(false), &json!("no answer in time"))
    );
    drop(marks);
    assert_eq!(stack.redrive().await["done"], true);
    assert_eq!(stack.states().await, [("published".to_owned(), 10)].into());
    assert_eq!(ids(&stack.messages().await), delivered);
}

/// Sends twenty new orders with this many more letters, and returns their ids.
async fn deliver_large(stack: &Stack, letters: usize) -> BTreeSet<String> {
    let deliveries = (0..20).map(|_| async {
        let mut fixture = stack.large(letters);
        fixture.renew().unwrap();
        stack.sign(&mut fixture);
        stack.send(&fixture).await.event_id("accepted")
    });
    join_all(deliveries).await.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_continues_where_a_run_is_out_of_time() {
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(10))).await;
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    // Stored in parts, which are read event by event.
    let delivered = deliver_large(&stack, 600_000).await;
    drop(down);
    stack.clients().make_due(Timestamp::MAX).await.unwrap();
    let _slow = stack.tap().inject(
        Rule::new(Service::DynamoDb, "GetItem").holding("part#"),
        Fault::Slow(Duration::from_millis(500)),
    );
    let mut runs = 0;
    loop {
        runs += 1;
        let answer = stack.ask(json!({"redrive": {}})).await;
        assert_eq!(answer["outage"], Value::Null, "running out of time is not an outage");
        assert_ne!(answer["published"], 0, "each run makes progress");
        if answer["done"] == true {
            break;
        }
    }
    assert!(runs > 1, "one run was enough");
    let messages = stack.messages().await;
    assert_eq!(
        (messages.len(), ids(&messages)),
        (20, delivered),
        "each event is published once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_detected_with_few_calls() {
    let stack = Stack::start().await;
    // Some answers are late: a retry by the SDK does not count as another call.
    let late = stack
        .tap()
        .inject(Rule::new(Service::Sns, "PublishBatch").times(2), Fault::Hang);
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    // Each event needs a call of its own.
    let mut delivered = deliver_large(&stack, 200_000).await;
    delivered.extend(deliver_large(&stack, 200_000).await);
    let answer = stack.redrive().await;
    let calls = stack.tap().count(Service::Sns, "PublishBatch");
    assert_eq!((&answer["published"], &answer["done"]), (&json!(0), &json!(false)));
    // One call for each shard, and a few single messages before the run assumes an outage.
    assert!((1..=24).contains(&calls), "{calls} calls");
    assert_eq!(late.hits(), 2);
    drop(down);
    assert_eq!(stack.redrive().await["published"], 40);
    assert_eq!(ids(&stack.messages().await), delivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_left_to_its_delivery_until_it_is_due() {
    let stack = Stack::start().await;
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    stack.deliver_new(1).await;
    drop(down);
    assert_eq!(stack.ask(json!({"redrive": {}})).await["published"], 0);
    assert_eq!(stack.redrive().await["published"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_all_providers_drains_ten_at_a_time() {
    let stack = Stack::start().await;
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let delivered = stack.deliver_new(300).await;
    drop(down);
    let mut published = 0;
    loop {
        let answer = stack.redrive().await;
        published += answer["published"].as_u64().unwrap();
        if answer["done"] == true {
            break;
        }
    }
    assert_eq!(published, 300);
    assert_eq!(stack.states().await, [("published".to_owned(), 300)].into());
    let messages = stack.messages().await;
    assert_eq!(messages.len(), 300, "each event is published once");
    assert_eq!(ids(&messages), delivered.into_iter().collect());
    let batches = stack.tap().count(Service::Sns, "PublishBatch");
    assert!(batches <= 60, "{batches} calls for 300 messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_events_writes_nothing() {
    let stack = Stack::start().await;
    stack.ask(json!({"redrive": {}})).await;
    stack.assert_untouched("nothing is due").await;
}

/// Changes the event as a future version of the code might.
fn newer(event: &mut Value, letters: usize) {
    event["type"] = "order.something_new".into();
    event["data"]["order"]["status"] = "brand_new".into();
    event["data"]["order"]["added"] = json!({"a field": [1.50]});
    event["data"]["order"]["currency"] = "XQZ".into();
    event["data"]["unmapped"]["large"] = tests::noise(letters).into();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_newer_version_is_published_as_it_is() {
    let stack = Stack::start().await;
    for letters in [10, 300_000] {
        let delivered = stack.left_by_an_outage(5).await;
        for id in &delivered {
            let mut event = stack.stored_event(id).await;
            newer(&mut event, letters);
            stack.put_stored_event(id, &event).await;
        }
        assert_eq!(stack.ask(json!({"redrive": {}})).await["published"], 5);
        let now = Timestamp::now();
        let hour = SignedDuration::from_hours(1);
        let messages = stack.messages().await;
        assert_eq!(ids(&messages), delivered);
        for message in &messages {
            let id = message.event["id"].as_str().unwrap();
            let mut expected = stack.stored_event(id).await;
            if letters > 10 {
                expected["data"]["unmapped"] = Value::Null;
                expected["data"]["omitted"] = json!(["/data/unmapped"]);
            } else {
                assert_eq!(message.text.as_bytes(), stack.value(id, "event").await);
            }
            assert_eq!(message.event, expected);
            assert_eq!(message.attributes["type"]["Value"], "order.something_new");
            assert_eq!(message.attributes["currency"]["Value"], "XQZ");
            let shown = stack.ask(json!({"get": {"event_id": id}})).await;
            assert_eq!(shown["events"][0]["event"], stack.stored_event(id).await);
        }
        let replay = json!({"replay": {"provider": "cartum", "from": now - hour, "to": now + hour}});
        assert!(stack.ask(replay).await["replayed"].as_u64() > Some(0));
        let replayed = stack.messages().await;
        assert!(
            replayed
                .iter()
                .all(|message| message.event["type"] == "order.something_new")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_redrives_at_once_do_no_harm() {
    let stack = Stack::start().await;
    let delivered = stack.left_by_an_outage(60).await;
    let task = json!({"redrive": {}});
    let answers = join_all((0..3).map(|_| stack.ask(task.clone()))).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer["done"] == true && answer["failed"] == 0),
        "{answers:?}"
    );
    assert_eq!(stack.states().await, [("published".to_owned(), 60)].into());
    assert_eq!(ids(&stack.messages().await), delivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_during_a_repeat_does_no_harm() {
    let stack = Stack::start().await;
    for (provider, order) in ORDERS {
        let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
        let event_id = stack.deliver(provider, order).await.event_id("accepted");
        drop(down);
        let (answer, redriven) = tokio::join!(stack.deliver(provider, order), stack.redrive());
        assert_eq!(answer.event_id("duplicate"), event_id);
        assert_eq!(redriven["failed"], 0);
        stack.redrive().await;
        assert_eq!(state(&stack.head(&event_id).await), "published");
        let messages = stack.messages().await;
        assert!((1..=2).contains(&messages.len()), "{} messages", messages.len());
        assert_eq!(ids(&messages), [event_id].into());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redrive_loses_no_event() {
    let stack = Stack::start().await;
    let delivered = stack.left_by_an_outage(30).await;
    for fault in [Fault::KillBefore, Fault::KillAfter] {
        let kill = stack
            .tap()
            .inject(Rule::new(Service::Sns, "PublishBatch").times(1), fault);
        let error = stack.invoke(REDRIVE, &json!({"redrive": {}})).await.unwrap_err();
        assert!(error.to_string().contains("redrive: exited"), "{error}");
        kill.hit(1).await;
    }
    let answer = stack.ask(json!({"redrive": {}})).await;
    assert_eq!((&answer["published"], &answer["done"]), (&json!(29), &json!(true)));
    // The second run was killed after it had published an event and before it marked it: the event is deferred and
    // published again.
    let states = stack.states().await;
    assert_eq!(states, [("pending".to_owned(), 1), ("published".to_owned(), 29)].into());
    assert_eq!(stack.redrive().await["published"], 1);
    // The same may have happened to events of other shards that were in progress.
    let messages = stack.messages().await;
    assert!((31..=45).contains(&messages.len()), "{} messages", messages.len());
    assert_eq!(ids(&messages), delivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_runs_each_drain_their_own_shards() {
    let stack = Stack::start().await;
    let delivered = stack.left_by_an_outage(60).await;
    let digit = |event_id: &String| event_id.chars().next().and_then(|digit| digit.to_digit(16)).unwrap();
    let queries = || stack.tap().count(Service::DynamoDb, "Query");
    for (from, to) in [(4, 8), (8, 12), (12, 16), (0, 4)] {
        let task = json!({"redrive": {"shards": [from, to]}});
        let answer = stack.ask(task.clone()).await;
        let share = delivered.iter().filter(|id| (from..to).contains(&digit(id))).count();
        assert_eq!((&answer["published"], &answer["done"]), (&json!(share), &json!(true)));
        let before = queries();
        assert_eq!(stack.ask(task).await["published"], 0);
        // The due events and the manifests of four shards and, once a minute, three numbers of all 16 shards.
        let measured = if from == 0 { 3 * 16 } else { 0 };
        assert_eq!(queries() - before, 2 * 4 + measured);
    }
    let messages = stack.messages().await;
    assert_eq!(
        (messages.len(), ids(&messages)),
        (60, delivered),
        "each event is published once"
    );
    for shards in [json!([4, 4]), json!([8, 4]), json!([0, 17]), json!([0]), json!(4)] {
        let refused = stack.invoke(REDRIVE, &json!({"redrive": {"shards": shards}})).await;
        assert!(refused.unwrap_err().to_string().contains("invalid task"), "{shards}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_parts_and_head_leaves_nothing_visible() {
    let stack = Stack::start().await;
    let mut fixture = stack.large(2_000_000);
    let kill = stack.tap().inject(
        Rule::new(Service::DynamoDb, "PutItem").holding("part#").times(1),
        Fault::KillAfter,
    );
    assert_eq!(stack.send(&fixture).await.status, 500);
    kill.hit(1).await;
    let items = stack.items().await;
    let key = |item: &tests::Item, name: &str| item[name].as_s().unwrap().clone();
    let (parts, manifests): (Vec<_>, Vec<_>) = items.iter().partition(|item| key(item, "sk") == "part");
    assert!(!parts.is_empty());
    let [manifest] = manifests.as_slice() else {
        panic!("expected one manifest of the parts: {manifests:?}")
    };
    assert!(key(manifest, "sk").starts_with("manifest#"));
    let event_id = key(manifest, "pk");
    assert_eq!(
        stack.ask(json!({"get": {"event_id": event_id}})).await["events"],
        json!([])
    );
    assert_eq!(stack.redrive().await["published"], 0);
    assert!(stack.messages().await.is_empty());

    stack.sign(&mut fixture);
    assert_eq!(stack.send(&fixture).await.event_id("accepted"), event_id);
    assert!(
        stack.value(&event_id, "payload").await == fixture.body().unwrap(),
        "the payload is stored as sent"
    );
    assert_eq!(stack.messages().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_the_maximum_size_is_stored_and_redriven() {
    let stack = Stack::start().await;
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let empty = stack.large(0).body().unwrap().len();
    let fixture = stack.large((5_000_000 - empty) / 4 * 4);
    let body = fixture.body().unwrap();
    assert!((4_999_990..=5_000_000).contains(&body.len()), "{}", body.len());
    let event_id = stack.send(&fixture).await.event_id("accepted");
    drop(down);
    assert!(
        stack.value(&event_id, "payload").await == body,
        "the payload is stored as sent"
    );
    assert_eq!(stack.redrive().await["published"], 1);
    let messages = stack.messages().await;
    assert_eq!(messages[0].event["data"]["omitted"], json!(["/data/unmapped"]));
    assert_eq!(ids(&messages), [event_id].into());
}
