//! Redrive is killed at each of its calls in turn. When the task is repeated, it completes, and nothing is lost or left
//! behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::{SignedDuration, Timestamp};
use local::aws::faults::Fault;
use local::project::settings::REDRIVE;
use serde_json::{Value, json};
use tests::outbox::ids;
use tests::{Stack, json_body, state};

/// More calls than any task in these tests makes.
const CALLS: usize = 40;

/// Invokes redrive and kills it at its call number `call`. Returns `false` if the task makes fewer calls.
async fn killed_at(stack: &Stack, call: usize, kill: Fault, task: &Value) -> bool {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    stack.tap().follow(move |made| {
        made.caller.as_ref().filter(|caller| caller.starts_with(REDRIVE))?;
        (seen.fetch_add(1, Ordering::SeqCst) == call).then_some(kill)
    });
    let answer = stack.invoke(REDRIVE, task).await;
    stack.tap().follow_nothing();
    let was_killed = calls.load(Ordering::SeqCst) > call;
    assert_eq!(answer.is_err(), was_killed, "{answer:?}");
    was_killed
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_killed_at_any_call_is_finished_by_the_next() {
    let stack = Stack::start().await;
    for kill in [Fault::KillBefore, Fault::KillAfter] {
        for call in 0..CALLS {
            let mut fixture = stack.large(400_000);
            fixture.renew().unwrap();
            stack.sign(&mut fixture);
            let event_id = stack.send(&fixture).await.event_id("accepted");
            let mut other = stack.unsigned("snipcart", "order-completed");
            let mut body = json_body(&fixture);
            body["content"]["internalNotes"] = "another".into();
            other.set_body(body.to_string());
            stack.sign(&mut other);
            assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);
            stack.messages().await;

            let order = body["content"]["token"].clone();
            let task = json!({"erase": {"provider": "snipcart", "shop": "main", "order": order, "dry_run": false}});
            let was_killed = killed_at(&stack, call, kill, &task).await;
            stack.ask(task).await;
            let its = |item: &tests::Item| item["pk"].as_s().is_ok_and(|key| *key == event_id);
            let left: Vec<_> = stack.items().await.into_iter().filter(its).collect();
            let [tombstone] = left.as_slice() else {
                panic!("{kill:?} at call {call}: {} items are left", left.len())
            };
            assert_eq!(state(tombstone), "erased");
            let known = [
                "order",
                "order_key",
                "order_sort",
                "payload",
                "payload_parts",
                "event",
                "event_parts",
                "event_sha256",
                "request",
            ];
            for name in known {
                assert!(!tombstone.contains_key(name), "{kill:?} at call {call}: {name} is left");
            }
            // A repeat is still a duplicate.
            stack.sign(&mut other);
            assert_eq!(stack.send(&other).await.event_id("duplicate"), event_id);
            assert!(stack.messages().await.is_empty());
            if !was_killed {
                assert!(call > 5, "an erasure makes more calls than {call}");
                break;
            }
            assert!(call + 1 < CALLS, "the task never completes");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reprocessing_killed_at_any_call_publishes_once() {
    let stack = Stack::start().await;
    let scratch = Stack::start().await;
    for (kill, is_same_id) in [
        (Fault::KillBefore, true),
        (Fault::KillAfter, true),
        (Fault::KillBefore, false),
        (Fault::KillAfter, false),
    ] {
        for call in 0..CALLS {
            let fixture = stack.renewed("selldone", "checkout-order");
            // The id of the event when it is understood.
            let event_id = scratch.send(&fixture).await.event_id("accepted");
            let body = fixture.body().unwrap();
            let kept_as = |sent_as: &str| {
                if is_same_id {
                    event_id.clone()
                } else {
                    sent_as.to_owned()
                }
            };
            let old = stack.quarantined(&body, kept_as).await;

            let task = json!({"reprocess": {"provider": "selldone"}});
            let was_killed = killed_at(&stack, call, kill, &task).await;
            stack.ask(task).await;
            stack.redrive().await;
            assert_eq!(
                state(&stack.head(&event_id).await),
                "published",
                "{kill:?} at call {call}"
            );
            if !is_same_id {
                assert_eq!(state(&stack.head(&old).await), "superseded", "{kill:?} at call {call}");
            }
            let messages = stack.messages().await;
            assert_eq!((messages.len(), ids(&messages)), (1, [event_id.clone()].into()));
            assert_eq!(stack.value(&event_id, "payload").await, body);
            assert_eq!(stack.send(&fixture).await.event_id("duplicate"), event_id);
            if !was_killed {
                assert!(call > 5, "a reprocessing makes more calls than {call}");
                break;
            }
            assert!(call + 1 < CALLS, "the task never completes");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_killed_at_any_call_is_complete_when_repeated() {
    let stack = Stack::start().await;
    let begun = Timestamp::now() - SignedDuration::from_millis(1);
    let delivered = stack.deliver_new(25).await;
    let to = Timestamp::now() + SignedDuration::from_secs(1);
    stack.messages().await;
    let task = json!({"replay": {"provider": "snipcart", "from": begun, "to": to}});
    for kill in [Fault::KillBefore, Fault::KillAfter] {
        for call in 0..CALLS {
            let was_killed = killed_at(&stack, call, kill, &task).await;
            let before = stack.messages().await;
            if !was_killed {
                assert_eq!(before.len(), 5, "each event is published once");
                assert!(call > 5, "a replay makes more calls than {call}");
                break;
            }
            assert_eq!(stack.ask(task.clone()).await["replayed"], 5, "{kill:?} at call {call}");
            let messages = stack.messages().await;
            assert_eq!((messages.len(), ids(&messages).len()), (5, 5));
            for message in before.iter().chain(&messages) {
                let event_id = message.event["id"].as_str().unwrap();
                assert!(delivered.iter().any(|id| id == event_id), "{event_id} was not sent");
                assert_eq!(message.text.as_bytes(), stack.value(event_id, "event").await);
            }
            assert!(call + 1 < CALLS, "the task never completes");
        }
    }
    assert_eq!(stack.states().await, [("published".to_owned(), 25)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_event_does_not_end_the_function() {
    let stack = Stack::start().await;
    let sound = stack.signed("cartum", "order-created");
    let mut no_base64 = sound.event.clone();
    no_base64["isBase64Encoded"] = true.into();
    no_base64["body"] = "no base64!".into();
    let mut no_uri = sound.event.clone();
    no_uri["rawPath"] = "/no uri/\u{1}".into();
    no_uri["requestContext"]["http"]["path"] = "/no uri/\u{1}".into();
    let mut no_method = sound.event.clone();
    no_method["requestContext"]["http"]["method"] = "NO METHOD".into();
    stack.send(&sound).await.event_id("accepted");
    let alive = stack.environments().pids("cartum");
    for (what, event, is_error) in [
        ("base64", no_base64, false),
        ("uri", no_uri, false),
        ("method", no_method, false),
        ("event", json!({"no": "event"}), true),
    ] {
        // API Gateway answers an error with 500.
        match stack.invoke("cartum", &event).await {
            Err(error) => assert!(!error.to_string().contains("exited"), "{what}: {error}"),
            Ok(answer) => assert!(!is_error && answer["statusCode"].is_number(), "{what}: {answer}"),
        }
        stack.send(&sound).await.event_id("duplicate");
        assert_eq!(
            stack.environments().pids("cartum"),
            alive,
            "{what}: the process was replaced"
        );
    }
    let log = stack.log().join("\n");
    assert!(
        !log.contains(local::project::settings::TOKEN),
        "a token is in the log:\n{log}"
    );
}
