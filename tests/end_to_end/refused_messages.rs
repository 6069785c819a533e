//! Messages that SNS refuses and events that kill redrive are deferred, then failed, and hold up no other event.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use local::aws::faults::{Fault, Rule, Service};
use local::project::settings::REDRIVE;
use serde_json::{Value, json};
use tests::outbox::{DENIED, ids, text};
use tests::{Stack, state};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_sns_refuses_is_deferred_and_then_failed() {
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
    assert_eq!(
        stack.ask(json!({"redrive": {}})).await["put_off"],
        0,
        "the event is not due"
    );

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
    assert_eq!(stack.redrive().await["failed"], 0, "a failed event is not tried again");
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

/// The faults by which SNS refuses one message of a batch.
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
async fn one_refused_message_blocks_no_other() {
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
        assert!(next > Timestamp::now(), "the event is deferred");
        let calls = stack.tap().count(Service::Sns, "PublishBatch");
        assert!(calls < 60, "{calls} calls for 100 messages");
        let messages = stack.messages().await;
        let mut others = delivered.clone();
        others.remove(bad);
        assert_eq!(
            (messages.len(), ids(&messages)),
            (99, others),
            "each event is published once, with {poison:?}"
        );

        // The event is deferred more often than SNS may refuse a message, and is not failed.
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
async fn ten_refused_messages_at_the_start_of_a_shard_are_no_outage() {
    let stack = Stack::start().await;
    stack.left_by_an_outage(200).await;
    // Only the largest shard is left, and every message of its first page is refused.
    let mut shards = BTreeMap::<String, Vec<String>>::new();
    for id in stack.pending().await {
        let work = stack.head(&id).await["work"].as_s().unwrap().clone();
        shards.entry(work).or_default().push(id);
    }
    let largest = shards.values().map(Vec::len).max().unwrap();
    let delivered = shards.values().find(|ids| ids.len() == largest).unwrap().clone();
    assert!(largest > 10, "{largest} events");
    for id in shards.into_values().flatten().filter(|id| !delivered.contains(id)) {
        stack.delete(&id, "head").await;
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
        "the events are not due"
    );
    drop(refusals);
    assert_eq!(stack.redrive().await["published"], 10);
    assert_eq!(ids(&stack.messages().await), delivered.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_refuses_every_message_fails_no_event() {
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
async fn a_single_refused_message_fails_only_if_its_topic_works() {
    let stack = Stack::start().await;
    let delivered = stack.left_by_an_outage(1).await;
    let refusal = Fault::Answer {
        status: 400,
        code: "InvalidParameter",
    };
    // For example, the name of the topic is wrong: every call is refused.
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
    let kill = stack
        .tap()
        .inject(Rule::new(Service::Sns, "PublishBatch").holding(bad), Fault::KillBefore);
    let task = json!({"redrive": {}});
    for run in 1..=2 {
        let error = stack.invoke(REDRIVE, &task).await.unwrap_err();
        assert!(error.to_string().contains("redrive: exited"), "run {run}: {error}");
        kill.hit(run).await;
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
    assert!(next > Timestamp::now(), "the event is deferred");

    // The event kills a few more runs and is failed.
    for run in 3..=7 {
        stack.clients().make_due(Timestamp::MAX).await.unwrap();
        stack.invoke(REDRIVE, &task).await.unwrap_err();
        kill.hit(run).await;
    }
    assert_eq!(stack.redrive().await["failed"], 1);
    assert_eq!(state(&stack.head(bad).await), "failed");
    drop(kill);
    assert_eq!(stack.ask(json!({"requeue": {}})).await["requeued"], 1);
    assert_eq!(stack.ask(task).await["published"], 1);
    assert_eq!(ids(&stack.messages().await), [bad.clone()].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_an_unreadable_event_is_released() {
    let stack = Stack::start().await;
    let delivered = stack.left_by_an_outage(10).await;
    let kill = stack
        .tap()
        .inject(Rule::new(Service::Sns, "PublishBatch").times(1), Fault::KillBefore);
    stack.invoke(REDRIVE, &json!({"redrive": {}})).await.unwrap_err();
    kill.hit(1).await;
    drop(kill);
    // The run leases the events before it reads them.
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
    let kill = stack
        .tap()
        .inject(Rule::new(Service::Sns, "PublishBatch").times(1), Fault::KillBefore);
    stack.invoke(REDRIVE, &json!({"redrive": {}})).await.unwrap_err();
    kill.hit(1).await;
    drop(kill);
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
        "all events are due"
    );
    assert_eq!(ids(&stack.messages().await), delivered);
}
