//! What waits in the outbox is published, and nothing of it is lost.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use local::aws::faults::{Fault, Rule, Service};
use local::project::settings::REDRIVE;
use serde_json::{Value, json};
use std::time::Duration;
use tests::outbox::{DENIED, ids, text};
use tests::{ORDERS, Stack, state};

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_sns_fails_no_event_and_after_it_all_are_published() {
    let stack = Stack::start().await;
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let delivered = stack.deliver_new(10).await;
    assert_eq!(stack.states().await, [("pending".to_owned(), 10)].into());

    // More runs than SNS may blame a message.
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
async fn a_service_that_asks_for_fewer_calls_is_given_a_pause_and_the_run_goes_on() {
    let refused = |code| Fault::Answer { status: 400, code };
    // As often as the calls of the eight pages that are in hand at once are tried: the SDK tries thrice what it knows to be throttling.
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
            "each once, with {fault:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_mark_what_it_has_published_does_not_publish_it_again() {
    let stack = Stack::start().await;
    let delivered = stack.left_by_an_outage(10).await;
    // Not a fault: it counts the pages that are begun. One of each of the 16 shards, and then the first again.
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
    assert_eq!((messages.len(), ids(&messages)), (10, delivered), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_calls_are_not_answered_says_so_in_time_and_loses_nothing() {
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

/// Sends twenty new orders with so many letters more, and gives their ids.
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
async fn what_a_run_has_no_time_for_is_left_to_the_next_and_what_it_has_sent_is_marked() {
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(10))).await;
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    // Kept in parts, which are read one event after the other.
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
        assert_eq!(answer["outage"], Value::Null, "to run out of time is none");
        assert_ne!(answer["published"], 0, "each run gets on");
        if answer["done"] == true {
            break;
        }
    }
    assert!(runs > 1, "it had to go on");
    let messages = stack.messages().await;
    assert_eq!((messages.len(), ids(&messages)), (20, delivered), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_not_tried_with_all_that_waits() {
    let stack = Stack::start().await;
    // Answers may be late too: what the SDK tries again is no further call.
    let late = stack
        .tap()
        .inject(Rule::new(Service::Sns, "PublishBatch").times(2), Fault::Hang);
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    // None fits into one call with another.
    let mut delivered = deliver_large(&stack, 200_000).await;
    delivered.extend(deliver_large(&stack, 200_000).await);
    let answer = stack.redrive().await;
    let calls = stack.tap().count(Service::Sns, "PublishBatch");
    assert_eq!((&answer["published"], &answer["done"]), (&json!(0), &json!(false)));
    // One of each shard, and a few single messages before it is taken for an outage.
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
    assert_eq!(messages.len(), 300, "each once");
    assert_eq!(ids(&messages), delivered.into_iter().collect());
    let batches = stack.tap().count(Service::Sns, "PublishBatch");
    assert!(batches <= 60, "{batches} calls for 300 messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_sns_refuses_is_put_off_then_failed_and_holds_up_no_other() {
    let stack = Stack::start().await;
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let delivered = stack.deliver_new(10).await;
    drop(down);
    let bad = &delivered[0];
    let refusal = stack.tap().inject(
        Rule::new(Service::Sns, "PublishBatch").holding(bad),
        Fault::Refuse {
            code: "InvalidParameter",
        },
    );
    let answer = stack.redrive().await;
    assert_eq!(
        (&answer["published"], &answer["put_off"], &answer["failed"]),
        (&json!(9), &json!(1), &json!(0))
    );
    let head = stack.head(bad).await;
    assert_eq!(state(&head), "pending");
    assert_eq!(head["attempts"], AttributeValue::N("1".to_owned()));
    assert_eq!(head["last_error"], text("InvalidParameter"));
    let next: Timestamp = head["next_attempt_at"].as_s().unwrap().parse().unwrap();
    let wait = next.duration_since(Timestamp::now());
    assert!(
        wait > SignedDuration::from_secs(20) && wait <= SignedDuration::from_secs(30),
        "{wait}"
    );
    assert_eq!(stack.ask(json!({"redrive": {}})).await["put_off"], 0, "it is not due");

    for attempt in 2..=6 {
        let answer = stack.redrive().await;
        let expected = if attempt < 6 { (1, 0) } else { (0, 1) };
        assert_eq!(
            (&answer["put_off"], &answer["failed"]),
            (&json!(expected.0), &json!(expected.1)),
            "{attempt}"
        );
    }
    assert_eq!(state(&stack.head(bad).await), "failed");
    assert_eq!(stack.redrive().await["failed"], 0, "it rests");
    assert_eq!(ids(&stack.messages().await), delivered[1..].iter().cloned().collect());

    drop(refusal);
    assert_eq!(stack.ask(json!({"requeue": {"dry_run": true}})).await["requeued"], 1);
    assert_eq!(state(&stack.head(bad).await), "failed");
    assert_eq!(stack.ask(json!({"requeue": {}})).await["requeued"], 1);
    assert_eq!(stack.ask(json!({"redrive": {}})).await["published"], 1);
    assert_eq!(ids(&stack.messages().await), [bad.clone()].into());
    assert_eq!(state(&stack.head(bad).await), "published");
    assert_eq!(stack.ask(json!({"requeue": {}})).await["requeued"], 0);
}

/// How SNS does not take one message of many.
const POISONS: [Fault; 4] = [
    Fault::Answer {
        status: 403,
        code: "AuthorizationError",
    },
    Fault::Answer {
        status: 500,
        code: "InternalFailure",
    },
    Fault::Answer {
        status: 400,
        code: "SomethingNew",
    },
    Fault::Refuse { code: "InternalError" },
];

fn number(value: u32) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_that_sns_does_not_take_blocks_no_other() {
    for poison in POISONS {
        let stack = Stack::start().await;
        let delivered = stack.left_by_an_outage(100).await;
        let bad = delivered.first().unwrap();
        let refusal = stack
            .tap()
            .inject(Rule::new(Service::Sns, "PublishBatch").holding(bad), poison);
        let answer = stack.ask(json!({"redrive": {}})).await;
        assert_eq!(
            (
                &answer["published"],
                &answer["put_off"],
                &answer["failed"],
                &answer["done"]
            ),
            (&json!(99), &json!(1), &json!(0), &json!(true)),
            "{poison:?}"
        );
        assert_eq!(answer["outage"], Value::Null, "{poison:?}");
        let head = stack.head(bad).await;
        assert_eq!((state(&head), &head["attempts"]), ("pending", &number(0)), "{poison:?}");
        assert_eq!(head["deferrals"], number(1));
        assert!(head["last_error"].as_s().is_ok_and(|cause| !cause.is_empty()));
        let next: Timestamp = head["next_attempt_at"].as_s().unwrap().parse().unwrap();
        assert!(next > Timestamp::now(), "it is put off");
        let calls = stack.tap().count(Service::Sns, "PublishBatch");
        assert!(calls < 60, "{calls} calls for 100 messages");
        let messages = stack.messages().await;
        let mut others = delivered.clone();
        others.remove(bad);
        assert_eq!(
            (messages.len(), ids(&messages)),
            (99, others),
            "each once, with {poison:?}"
        );

        // Put off more often than SNS may blame a message, and not failed for it.
        for _ in 0..7 {
            stack.deliver_new(1).await;
            assert_eq!(stack.redrive().await["failed"], 0);
        }
        assert_eq!(state(&stack.head(bad).await), "pending");
        drop(refusal);
        assert_eq!(stack.redrive().await["done"], true);
        assert_eq!(state(&stack.head(bad).await), "published");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_refused_messages_at_a_shards_head_are_no_outage() {
    let stack = Stack::start().await;
    stack.left_by_an_outage(200).await;
    // The largest shard alone: its first page holds nothing but messages that SNS does not take.
    let mut shards = BTreeMap::<String, Vec<String>>::new();
    for id in stack.pending().await {
        let work = stack.head(&id).await["work"].as_s().unwrap().clone();
        shards.entry(work).or_default().push(id);
    }
    let largest = shards.values().map(Vec::len).max().unwrap();
    let delivered = shards.values().find(|ids| ids.len() == largest).unwrap().clone();
    assert!(largest > 10, "{largest} events");
    for id in shards.into_values().flatten().filter(|id| !delivered.contains(id)) {
        stack.erase_by_hand(&id).await;
    }
    let bad = stack.first_due(&delivered[0], 10).await;
    let refusals: Vec<_> = bad
        .iter()
        .map(|id| {
            stack
                .tap()
                .inject(Rule::new(Service::Sns, "PublishBatch").holding(id), DENIED)
        })
        .collect();
    let answer = stack.ask(json!({"redrive": {}})).await;
    assert_eq!(
        (&answer["published"], &answer["put_off"], &answer["outage"]),
        (&json!(delivered.len() - 10), &json!(10), &Value::Null)
    );
    assert_eq!(
        stack.ask(json!({"redrive": {}})).await["put_off"],
        0,
        "they are not due"
    );
    drop(refusals);
    assert_eq!(stack.redrive().await["published"], 10);
    assert_eq!(ids(&stack.messages().await), delivered.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_topic_refuses_fails_no_event() {
    let stack = Stack::start().await;
    let delivered = stack.left_by_an_outage(10).await;
    let refused = |operation| {
        let fault = Fault::Answer {
            status: 400,
            code: "InvalidParameter",
        };
        stack.tap().inject(Rule::new(Service::Sns, operation), fault)
    };
    let entries = stack.tap().inject(
        Rule::new(Service::Sns, "PublishBatch"),
        Fault::Refuse {
            code: "InvalidParameter",
        },
    );
    for _ in 0..8 {
        let answer = stack.redrive().await;
        assert_eq!(
            (&answer["published"], &answer["put_off"], &answer["failed"]),
            (&json!(0), &json!(0), &json!(0))
        );
        assert_eq!(answer["outage"], "InvalidParameter");
    }
    drop(entries);
    let calls = refused("PublishBatch");
    for _ in 0..8 {
        let answer = stack.redrive().await;
        assert_eq!((&answer["failed"], &answer["put_off"]), (&json!(0), &json!(0)));
        assert_eq!(answer["outage"], "InvalidParameter");
    }
    drop(calls);
    assert_eq!(stack.redrive().await["published"], 10);
    assert_eq!(ids(&stack.messages().await), delivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_refused_message_fails_only_while_its_topic_is_sound() {
    let stack = Stack::start().await;
    let delivered = stack.left_by_an_outage(1).await;
    let refusal = Fault::Answer {
        status: 400,
        code: "InvalidParameter",
    };
    // The topic's name is wrong, say: everything is refused.
    let topic = stack.tap().inject(Rule::all(Service::Sns), refusal);
    for _ in 0..8 {
        assert_eq!(stack.redrive().await["outage"], "InvalidParameter");
    }
    drop(topic);
    let bad = delivered.first().unwrap();
    assert_eq!(stack.head(bad).await["attempts"], number(0));
    let _message = stack.tap().inject(Rule::new(Service::Sns, "PublishBatch"), refusal);
    for attempt in 1..=6 {
        let answer = stack.redrive().await;
        assert_eq!(answer["outage"], Value::Null, "{attempt}");
        assert_eq!(answer["failed"], u32::from(attempt == 6), "{attempt}");
    }
    assert_eq!(state(&stack.head(bad).await), "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_kills_redrive_is_skipped_by_the_next_run() {
    let stack = Stack::start().await;
    let delivered = stack.left_by_an_outage(30).await;
    let bad = delivered.first().unwrap();
    let death = stack
        .tap()
        .inject(Rule::new(Service::Sns, "PublishBatch").holding(bad), Fault::KillBefore);
    let task = json!({"redrive": {}});
    for run in 1..=2 {
        let error = stack.invoke(REDRIVE, &task).await.unwrap_err();
        assert!(error.to_string().contains("redrive: exited"), "run {run}: {error}");
        death.hit(run).await;
    }
    let answer = stack.ask(task.clone()).await;
    assert_eq!((&answer["done"], &answer["outage"]), (&json!(true), &Value::Null));
    let mut others = delivered.clone();
    others.remove(bad);
    let messages = stack.messages().await;
    assert_eq!(ids(&messages), others);
    let head = stack.head(bad).await;
    assert_eq!((state(&head), &head["leases"]), ("pending", &number(1)));
    let next: Timestamp = head["next_attempt_at"].as_s().unwrap().parse().unwrap();
    assert!(next > Timestamp::now(), "it is put off");

    // It kills a few more runs, and is given up.
    for run in 3..=7 {
        stack.clients().make_due(Timestamp::MAX).await.unwrap();
        stack.invoke(REDRIVE, &task).await.unwrap_err();
        death.hit(run).await;
    }
    assert_eq!(stack.redrive().await["failed"], 1);
    assert_eq!(state(&stack.head(bad).await), "failed");
    drop(death);
    assert_eq!(stack.ask(json!({"requeue": {}})).await["requeued"], 1);
    assert_eq!(stack.ask(task).await["published"], 1);
    assert_eq!(ids(&stack.messages().await), [bad.clone()].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_event_cannot_be_read_is_taken_back() {
    let stack = Stack::start().await;
    let delivered = stack.left_by_an_outage(10).await;
    let death = stack
        .tap()
        .inject(Rule::new(Service::Sns, "PublishBatch").times(1), Fault::KillBefore);
    stack.invoke(REDRIVE, &json!({"redrive": {}})).await.unwrap_err();
    death.hit(1).await;
    drop(death);
    // The run leases what it tries, and reads the events after that alone.
    let unread = stack.tap().inject(
        Rule::new(Service::DynamoDb, "BatchGetItem").holding("event_parts"),
        DENIED,
    );
    let answer = stack.ask(json!({"redrive": {}})).await;
    assert_eq!((&answer["published"], &answer["done"]), (&json!(0), &json!(false)));
    assert_eq!(answer["outage"], "DynamoDB: AuthorizationError");
    unread.hit(1).await;
    drop(unread);
    for id in &delivered {
        assert!(!stack.head(id).await.contains_key("leases"), "{id} is still leased");
    }
    assert_eq!(stack.ask(json!({"redrive": {}})).await["published"], 10);
    assert_eq!(ids(&stack.messages().await), delivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_in_an_outage_fails_no_event() {
    let stack = Stack::start().await;
    let delivered = stack.left_by_an_outage(10).await;
    let death = stack
        .tap()
        .inject(Rule::new(Service::Sns, "PublishBatch").times(1), Fault::KillBefore);
    stack.invoke(REDRIVE, &json!({"redrive": {}})).await.unwrap_err();
    death.hit(1).await;
    drop(death);
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    for _ in 0..8 {
        let answer = stack.ask(json!({"redrive": {}})).await;
        assert_eq!(
            (&answer["failed"], &answer["outage"]),
            (&json!(0), &json!("AuthorizationError"))
        );
    }
    drop(down);
    let answer = stack.ask(json!({"redrive": {}})).await;
    assert_eq!(
        (&answer["published"], &answer["done"]),
        (&json!(10), &json!(true)),
        "all are due"
    );
    assert_eq!(ids(&stack.messages().await), delivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_events_writes_nothing() {
    let stack = Stack::start().await;
    stack.ask(json!({"redrive": {}})).await;
    stack.assert_untouched("nothing is due").await;
}

/// The event as a version of this code may write it that does not exist yet.
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
            stack.rewrite_event(id, &event).await;
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
async fn a_redrive_beside_a_providers_repeat_does_no_harm() {
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
async fn a_redrive_that_dies_has_published_nothing_that_the_next_would_lose() {
    let stack = Stack::start().await;
    let delivered = stack.left_by_an_outage(30).await;
    for fault in [Fault::KillBefore, Fault::KillAfter] {
        let death = stack
            .tap()
            .inject(Rule::new(Service::Sns, "PublishBatch").times(1), fault);
        let error = stack.invoke(REDRIVE, &json!({"redrive": {}})).await.unwrap_err();
        assert!(error.to_string().contains("redrive: exited"), "{error}");
        death.hit(1).await;
    }
    let answer = stack.ask(json!({"redrive": {}})).await;
    assert_eq!((&answer["published"], &answer["done"]), (&json!(29), &json!(true)));
    // The event that the second run died over was published and not marked: it is put off, and published again later.
    let states = stack.states().await;
    assert_eq!(states, [("pending".to_owned(), 1), ("published".to_owned(), 29)].into());
    assert_eq!(stack.redrive().await["published"], 1);
    // So may be what was in hand beside it, of another shard each.
    let messages = stack.messages().await;
    assert!((31..=45).contains(&messages.len()), "{} messages", messages.len());
    assert_eq!(ids(&messages), delivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_side_by_side_each_drain_their_share_of_the_shards() {
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
        // What is due and what is to be swept in four shards; and, once in a minute, three numbers of all 16.
        let measured = if from == 0 { 3 * 16 } else { 0 };
        assert_eq!(queries() - before, 2 * 4 + measured);
    }
    let messages = stack.messages().await;
    assert_eq!((messages.len(), ids(&messages)), (60, delivered), "each once");
    for shards in [json!([4, 4]), json!([8, 4]), json!([0, 17]), json!([0]), json!(4)] {
        let refused = stack.invoke(REDRIVE, &json!({"redrive": {"shards": shards}})).await;
        assert!(refused.unwrap_err().to_string().contains("not a task"), "{shards}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_between_parts_and_head_leaves_nothing_half_visible() {
    let stack = Stack::start().await;
    let mut fixture = stack.large(2_000_000);
    let death = stack.tap().inject(
        Rule::new(Service::DynamoDb, "PutItem").holding("part#").times(1),
        Fault::KillAfter,
    );
    assert_eq!(stack.send(&fixture).await.status, 500);
    death.hit(1).await;
    let items = stack.items().await;
    let key = |item: &tests::Item, name: &str| item[name].as_s().unwrap().clone();
    let (parts, manifests): (Vec<_>, Vec<_>) = items.iter().partition(|item| key(item, "sk") == "part");
    assert!(!parts.is_empty());
    let [manifest] = manifests.as_slice() else {
        panic!("beside the parts there is the manifest that names them: {manifests:?}")
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
        "it is kept as it came"
    );
    assert_eq!(stack.messages().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_as_large_as_one_may_be_is_kept_whole_and_redriven() {
    let stack = Stack::start().await;
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let empty = stack.large(0).body().unwrap().len();
    let fixture = stack.large((5_000_000 - empty) / 4 * 4);
    let body = fixture.body().unwrap();
    assert!((4_999_990..=5_000_000).contains(&body.len()), "{}", body.len());
    let event_id = stack.send(&fixture).await.event_id("accepted");
    drop(down);
    assert!(stack.value(&event_id, "payload").await == body, "it is kept as it came");
    assert_eq!(stack.redrive().await["published"], 1);
    let messages = stack.messages().await;
    assert_eq!(messages[0].event["data"]["omitted"], json!(["/data/unmapped"]));
    assert_eq!(ids(&messages), [event_id].into());
}
