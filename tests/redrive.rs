//! What waits in the outbox is published, and nothing of it is lost.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use local::settings::REDRIVE;
use local::tap::{Fault, Rule, Service};
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
    // As often as all eight shards' first calls are tried: the SDK tries thrice what it knows to be throttling.
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
    // Not a fault: it counts the pages that are begun. One of each shard, and then the first again.
    let pages = stack
        .tap()
        .inject(Rule::new(Service::DynamoDb, "Query"), Fault::Slow(Duration::ZERO));
    let marks = stack.tap().inject(
        Rule::new(Service::DynamoDb, "UpdateItem").holding("published_at"),
        Fault::THROTTLED,
    );
    let marked_again = async {
        pages.hit(9).await;
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
    assert!((1..=8).contains(&calls), "{calls} calls: at most one of each shard");
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
        assert!(error.to_string().contains("it died"), "{error}");
        death.hit(1).await;
    }
    assert_eq!(stack.ask(json!({"redrive": {}})).await["done"], true);
    assert_eq!(stack.states().await, [("published".to_owned(), 30)].into());
    let messages = stack.messages().await;
    assert_eq!(ids(&messages), delivered);
    assert!(messages.len() > 30, "one batch was published and not marked");
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
