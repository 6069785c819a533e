//! Concurrent deliveries, killed functions, and services that are down. An acknowledged order is never lost, and only
//! stored orders are published.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use local::aws::faults::{Fault, Rule, Service};
use tests::{Answer, ORDERS, Stack, freeze, order_of, state};

const MARK: &str = "published_at";

/// Asserts an answer of 503 that says when to send again.
#[track_caller]
fn assert_sent_again(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer
            .header("retry-after")
            .is_some_and(|seconds| seconds.parse::<u32>().is_ok())
    );
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_50_concurrent_sends_of_one_event_one_is_accepted() {
    let stack = Stack::with(|config| config.environments = 50).await;
    let fixture = stack.signed("selldone", "checkout-order");
    let answers = join_all((0..50).map(|_| stack.send(&fixture))).await;
    let count = |status: &str| {
        answers
            .iter()
            .filter(|answer| answer.status == 200 && answer.said("status") == status)
            .count()
    };
    assert_eq!((count("accepted"), count("duplicate")), (1, 49), "{answers:?}");
    assert_eq!(stack.items().await.len(), 1);
    assert_eq!(stack.messages().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_waits_for_the_first_attempt_before_it_publishes() {
    let stack = Stack::start().await;
    let slow = stack
        .tap()
        .inject(Rule::new(Service::Sns, "Publish").times(1), Fault::Hold);
    let first = stack.deliver("selldone", "checkout-order");
    let repeat = async {
        slow.hit(1).await;
        let repeat = stack.deliver("selldone", "checkout-order").await;
        drop(slow);
        repeat
    };
    let (first, repeat) = tokio::join!(first, repeat);
    assert_eq!(first.event_id("accepted"), repeat.event_id("duplicate"));
    // The first delivery has made the only call.
    assert_eq!(stack.tap().count(Service::Sns, "Publish"), 1);
    assert_eq!(stack.messages().await.len(), 1, "the event is published once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_publishes_after_a_kill_before_the_publication() {
    let stack = Stack::start().await;
    for (provider, order) in ORDERS {
        let kill = stack
            .tap()
            .inject(Rule::new(Service::Sns, "Publish").times(1), Fault::KillBefore);
        let answer = stack.deliver(provider, order).await;
        assert_eq!(answer.status, 500, "{answer:?}");
        kill.hit(1).await;
        let items = stack.items().await;
        let [head] = items.iter().filter(|item| state(item) == "pending").collect::<Vec<_>>()[..] else {
            panic!("{items:?}")
        };
        let event_id = head["pk"].as_s().unwrap().clone();
        assert!(stack.messages().await.is_empty());

        assert_eq!(stack.deliver(provider, order).await.event_id("duplicate"), event_id);
        assert_eq!(state(&stack.head(&event_id).await), "published");
        let messages = stack.messages().await;
        let [message] = messages.as_slice() else {
            panic!("{messages:?}")
        };
        assert_eq!(message.event["id"], event_id);
        assert_eq!(
            message.event,
            stack.stored_event(&event_id).await,
            "the stored event is published, not a new one"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_marks_the_event_after_a_kill_before_the_mark() {
    let stack = Stack::start().await;
    let kill = stack
        .tap()
        .inject(Rule::new(Service::Sns, "Publish").times(1), Fault::KillAfter);
    assert_eq!(stack.deliver("deeple", "order-changed").await.status, 500);
    kill.hit(1).await;
    let event_id = stack.deliver("deeple", "order-changed").await.event_id("duplicate");
    assert_eq!(state(&stack.head(&event_id).await), "published");
    let messages = stack.messages().await;
    // At least once: the repeat does not know of the first message, which has the same id and content.
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0].event, messages[1].event);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_new_after_a_kill_before_the_write() {
    let stack = Stack::start().await;
    let kill = stack
        .tap()
        .inject(Rule::new(Service::DynamoDb, "PutItem").times(1), Fault::KillBefore);
    assert_eq!(stack.deliver("aboutyou", "order-created").await.status, 500);
    kill.hit(1).await;
    stack.assert_untouched("the function was killed before the write").await;
    stack.deliver("aboutyou", "order-created").await.event_id("accepted");
    assert_eq!(stack.messages().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_the_sdk_repeats_is_accepted() {
    let stack = Stack::start().await;
    for (provider, order) in ORDERS {
        let lost = stack
            .tap()
            .inject(Rule::new(Service::DynamoDb, "PutItem").times(1), Fault::LoseAnswer);
        let event_id = stack.deliver(provider, order).await.event_id("accepted");
        lost.hit(1).await;
        assert_eq!(state(&stack.head(&event_id).await), "published");
    }
    assert_eq!(stack.messages().await.len(), ORDERS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_sns_is_down_events_wait_in_the_outbox() {
    let denied = Fault::Answer {
        status: 403,
        code: "AuthorizationError",
    };
    let outages = [Fault::DOWN, Fault::THROTTLED, Fault::Hang, denied].map(|fault| async move {
        let stack = Stack::start().await;
        let down = stack.tap().inject(Rule::all(Service::Sns), fault);
        let event_id = stack.deliver("selldone", "checkout-order").await.event_id("accepted");
        let head = stack.head(&event_id).await;
        assert_eq!(state(&head), "pending", "{fault:?}");
        let work = head["work"].as_s().expect("the index's key");
        assert!(
            work.starts_with("pending#"),
            "the event is not in the index of the outbox: {work}"
        );
        assert!(stack.messages().await.is_empty(), "{fault:?}");

        drop(down);
        let repeat = stack.deliver("selldone", "checkout-order").await;
        assert_eq!(repeat.event_id("duplicate"), event_id);
        let head = stack.head(&event_id).await;
        assert_eq!(state(&head), "published", "{fault:?}");
        assert!(!head.contains_key("work"), "{fault:?}");
        assert_eq!(stack.messages().await.len(), 1, "{fault:?}");
    });
    join_all(outages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_marked_is_accepted_and_published() {
    let stack = Stack::start().await;
    let down = stack
        .tap()
        .inject(Rule::new(Service::DynamoDb, "UpdateItem").holding(MARK), Fault::DOWN);
    let event_id = stack.deliver("cartum", "order-created").await.event_id("accepted");
    down.hit(1).await;
    assert_eq!(state(&stack.head(&event_id).await), "pending");
    assert_eq!(stack.messages().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_dynamodb_is_down_the_answer_is_503() {
    let missing = Fault::Answer {
        status: 400,
        code: "ResourceNotFoundException",
    };
    let outages = [Fault::DOWN, Fault::THROTTLED, Fault::Hang, missing].map(|fault| async move {
        let stack = Stack::start().await;
        let down = stack.tap().inject(Rule::new(Service::DynamoDb, "PutItem"), fault);
        let begun = Instant::now();
        let answers =
            join_all(["selldone", "deeple"].map(|provider| stack.deliver(provider, order_of(provider)))).await;
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{fault:?} took {:?}",
            begun.elapsed()
        );
        answers.iter().for_each(assert_sent_again);
        drop(down);
        stack.assert_untouched("nothing could be stored").await;
        stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    });
    join_all(outages).await;
}

/// The calls of a write that is throttled for all of its four seconds: three to twelve attempts, since each wait is
/// between half of its maximum (25, 50, 100, 200, 400, then 500 ms) and the maximum, with three calls by the SDK in
/// each attempt.
const CALLS_WHILE_THROTTLED: std::ops::RangeInclusive<usize> = 9..=36;

#[tokio::test(flavor = "multi_thread")]
async fn attempts_to_store_back_off_and_log_the_last_cause() {
    let fault = |code| Fault::Answer { status: 400, code };
    let cases = [
        ("ThrottlingException", CALLS_WHILE_THROTTLED),
        ("ProvisionedThroughputExceededException", CALLS_WHILE_THROTTLED),
        ("AccessDeniedException", 1..=1),
        ("UnrecognizedClientException", 1..=1),
        ("ExpiredTokenException", 1..=1),
        ("ResourceNotFoundException", 1..=1),
        ("ValidationException", 1..=1),
    ];
    for (code, calls) in cases {
        let stack = Stack::start().await;
        let refused = stack.tap().inject(Rule::new(Service::DynamoDb, "PutItem"), fault(code));
        assert_sent_again(&stack.deliver("selldone", "checkout-order").await);
        assert!(calls.contains(&refused.hits()), "{code}: {} calls", refused.hits());
        let log = stack.log().join("\n");
        let cause = log
            .split_once(r#""cause":""#)
            .and_then(|(_, rest)| rest.split_once('"'));
        let cause = cause.expect("the line says why").0;
        match cause.strip_prefix(&format!("DynamoDB: {code}")) {
            Some("") => assert_eq!(*calls.end(), 1, "{cause}"),
            Some(tries) => assert!(tries.starts_with(" after ") && tries.ends_with(" tries"), "{cause}"),
            None => panic!("{code}: {cause}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_verifies_once_is_stored_with_retries() {
    for code in [
        "AccessDeniedException",
        "UnrecognizedClientException",
        "ExpiredTokenException",
    ] {
        let stack = Stack::start().await;
        let fault = Fault::Answer { status: 400, code };
        let denied = stack
            .tap()
            .inject(Rule::new(Service::DynamoDb, "PutItem").times(4), fault);
        stack.deliver("snipcart", "order-completed").await.event_id("accepted");
        assert_eq!(denied.hits(), 4, "{code}");
        assert_eq!(stack.snipcart().asked().len(), 1, "Snipcart is called once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_refused_write_costs_no_delivery() {
    let stack = Stack::start().await;
    for (index, (provider, order)) in ORDERS.into_iter().enumerate() {
        let fault = if index % 2 == 0 { Fault::THROTTLED } else { Fault::DOWN };
        let refusal = stack
            .tap()
            .inject(Rule::new(Service::DynamoDb, "PutItem").times(1), fault);
        stack.deliver(provider, order).await.event_id("accepted");
        refusal.hit(1).await;
    }
    assert_eq!(stack.messages().await.len(), ORDERS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validated_delivery_is_written_until_the_deadline() {
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(8))).await;
    let _down = stack.tap().inject(Rule::new(Service::DynamoDb, "PutItem"), Fault::DOWN);
    let begun = Instant::now();
    assert_sent_again(&stack.deliver("snipcart", "order-completed").await);
    // For other providers, the function stops after four seconds.
    assert!(
        (6..8).contains(&begun.elapsed().as_secs()),
        "it took {:?}",
        begun.elapsed()
    );
    assert_eq!(stack.snipcart().asked().len(), 1, "Snipcart is called once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_over_its_timeout_is_killed_and_started_again() {
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(1))).await;
    stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    // A function stops in time by itself, unless it is frozen.
    freeze(&stack, "selldone").await;
    let answer = stack.deliver("selldone", "checkout-order").await;
    assert_eq!(
        (answer.status, answer.text.as_str()),
        (503, r#"{"message":"Service Unavailable"}"#)
    );
    assert_eq!(stack.environments().count(), 0);
    stack.deliver("selldone", "checkout-order").await.event_id("duplicate");
    assert_eq!(stack.environments().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misconfigured_function_answers_500_without_details() {
    let stack = Stack::with(|config| {
        config.secrets.insert("selldone".to_owned(), "not a secret".into());
        config.secrets.insert(
            "cartum".to_owned(),
            serde_json::json!({"shops": {"main": {"tokens": ["short"]}}}),
        );
    })
    .await;
    for provider in ["selldone", "cartum"] {
        let answer = stack.deliver(provider, order_of(provider)).await;
        assert_eq!(answer.status, 500, "{provider}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(
            !answer.text.contains("secret") && !answer.text.contains("SECRETS"),
            "{answer:?}"
        );
    }
    stack.assert_untouched("the function is misconfigured").await;
}
