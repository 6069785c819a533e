//! `kill -9` of redrive at each of its calls, one after the other: the same task again comes to its end, and nothing is lost,
//! left behind or forgotten. And what does not kill a function.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::{SignedDuration, Timestamp};
use local::aws::faults::Fault;
use local::project::settings::REDRIVE;
use serde_json::{Value, json};
use tests::outbox::ids;
use tests::{Stack, state};

/// More calls than any task here makes.
const CALLS: usize = 40;

/// Invokes redrive, which is killed at its call number `call`. False where it does not come so far.
async fn dies_at(stack: &Stack, call: usize, death: Fault, task: &Value) -> bool {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    stack.tap().follow(move |made| {
        made.caller.as_ref().filter(|caller| caller.starts_with(REDRIVE))?;
        (seen.fetch_add(1, Ordering::SeqCst) == call).then_some(death)
    });
    let answer = stack.invoke(REDRIVE, task).await;
    stack.tap().follow_nothing();
    let came_so_far = calls.load(Ordering::SeqCst) > call;
    assert_eq!(answer.is_err(), came_so_far, "{answer:?}");
    came_so_far
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_dies_at_any_call_is_finished_by_the_next() {
    let stack = Stack::start().await;
    for death in [Fault::KillBefore, Fault::KillAfter] {
        for call in 0..CALLS {
            let mut fixture = stack.large(400_000);
            fixture.renew().unwrap();
            stack.sign(&mut fixture);
            let event_id = stack.send(&fixture).await.event_id("accepted");
            let mut other = stack.unsigned("snipcart", "order-completed");
            let mut body: Value = serde_json::from_slice(&fixture.body().unwrap()).unwrap();
            body["content"]["internalNotes"] = "another".into();
            other.set_body(body.to_string());
            stack.sign(&mut other);
            assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);
            stack.messages().await;

            let order = body["content"]["token"].clone();
            let task = json!({"erase": {"provider": "snipcart", "shop": "main", "order": order, "dry_run": false}});
            let has_died = dies_at(&stack, call, death, &task).await;
            stack.ask(task).await;
            let its = |item: &tests::Item| item["pk"].as_s().is_ok_and(|key| *key == event_id);
            let left: Vec<_> = stack.items().await.into_iter().filter(its).collect();
            let [tombstone] = left.as_slice() else {
                panic!("{death:?} at call {call}: {} items are left", left.len())
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
                "request",
            ];
            for name in known {
                assert!(
                    !tombstone.contains_key(name),
                    "{death:?} at call {call}: {name} is left"
                );
            }
            // It still knows its event.
            stack.sign(&mut other);
            assert_eq!(stack.send(&other).await.event_id("duplicate"), event_id);
            assert!(stack.messages().await.is_empty());
            if !has_died {
                assert!(call > 5, "an erasure makes more calls than {call}");
                break;
            }
            assert!(call + 1 < CALLS, "it never came to its end");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reprocessing_that_dies_at_any_call_publishes_once_it_is_repeated() {
    let stack = Stack::start().await;
    let scratch = Stack::start().await;
    for (death, is_same_id) in [
        (Fault::KillBefore, true),
        (Fault::KillAfter, true),
        (Fault::KillBefore, false),
        (Fault::KillAfter, false),
    ] {
        for call in 0..CALLS {
            let mut fixture = stack.unsigned("selldone", "checkout-order");
            fixture.renew().unwrap();
            stack.sign(&mut fixture);
            // Which id it has once it is understood.
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
            let has_died = dies_at(&stack, call, death, &task).await;
            stack.ask(task).await;
            stack.redrive().await;
            assert_eq!(
                state(&stack.head(&event_id).await),
                "published",
                "{death:?} at call {call}"
            );
            if !is_same_id {
                assert_eq!(state(&stack.head(&old).await), "superseded", "{death:?} at call {call}");
            }
            let messages = stack.messages().await;
            assert_eq!((messages.len(), ids(&messages)), (1, [event_id.clone()].into()));
            assert_eq!(stack.value(&event_id, "payload").await, body);
            assert_eq!(stack.send(&fixture).await.event_id("duplicate"), event_id);
            if !has_died {
                assert!(call > 5, "a reprocessing makes more calls than {call}");
                break;
            }
            assert!(call + 1 < CALLS, "it never came to its end");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_dies_at_any_call_is_whole_once_it_is_repeated() {
    let stack = Stack::start().await;
    let begun = Timestamp::now() - SignedDuration::from_millis(1);
    let delivered = stack.deliver_new(25).await;
    let to = Timestamp::now() + SignedDuration::from_secs(1);
    stack.messages().await;
    let task = json!({"replay": {"provider": "snipcart", "from": begun, "to": to}});
    for death in [Fault::KillBefore, Fault::KillAfter] {
        for call in 0..CALLS {
            let has_died = dies_at(&stack, call, death, &task).await;
            let before = stack.messages().await;
            if !has_died {
                assert_eq!(before.len(), 5, "each once");
                assert!(call > 5, "a replay makes more calls than {call}");
                break;
            }
            assert_eq!(stack.ask(task.clone()).await["replayed"], 5, "{death:?} at call {call}");
            let messages = stack.messages().await;
            assert_eq!((messages.len(), ids(&messages).len()), (5, 5));
            for message in before.iter().chain(&messages) {
                let event_id = message.event["id"].as_str().unwrap();
                assert!(delivered.iter().any(|id| id == event_id), "nobody sent {event_id}");
                assert_eq!(message.text.as_bytes(), stack.value(event_id, "event").await);
            }
            assert!(call + 1 < CALLS, "it never came to its end");
        }
    }
    assert_eq!(stack.states().await, [("published".to_owned(), 25)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_no_gateway_would_send_is_an_error_and_no_death() {
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
        // An error is what API Gateway answers 500 for.
        match stack.invoke("cartum", &event).await {
            Err(error) => assert!(!error.to_string().contains("exited"), "{what}: {error}"),
            Ok(answer) => assert!(!is_error && answer["statusCode"].is_number(), "{what}: {answer}"),
        }
        stack.send(&sound).await.event_id("duplicate");
        assert_eq!(
            stack.environments().pids("cartum"),
            alive,
            "{what}: the same process goes on"
        );
    }
    let log = stack.log().join("\n");
    assert!(
        !log.contains(local::project::settings::TOKEN),
        "a token is in the log:\n{log}"
    );
}
