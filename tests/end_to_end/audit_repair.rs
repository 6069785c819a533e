//! `audit` with `repair` deletes the parts of deliveries that never committed, and never those of a delivery that is
//! being stored at the time.

use jiff::{SignedDuration, Timestamp};
use local::audit::Scope;
use local::aws::faults::{Fault, Rule, Service};
use tests::Stack;
use tests::outbox::text;

use crate::audit::{IN_TWO_PARTS, of, run, scope};

/// The writes of the second part of each value.
fn second_parts() -> Rule {
    Rule::new(Service::DynamoDb, "PutItem").holding("#0001\"")
}

/// An audit of everything that deletes what belongs to no event.
fn repairing() -> Scope {
    Scope {
        repair: true,
        scan: true,
        ..scope()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orphaned_parts_are_removed_on_request() {
    let stack = Stack::start().await;
    let refusal = stack.tap().inject(second_parts(), Fault::DOWN);
    let fixture = stack.large(IN_TWO_PARTS);
    assert_eq!(stack.send(&fixture).await.status, 503);
    drop(refusal);
    let young = run(&stack, repairing()).await;
    assert!(young.is_balanced(), "{young}");
    assert_eq!(
        (young.orphans.len(), young.removed.len()),
        (1, 0),
        "a delivery may still be storing them"
    );
    let mut items = stack.items().await;
    items.retain(|item| item["sk"].as_s().is_ok_and(|key| key.starts_with("manifest#")));
    let mut manifest = items.remove(0);
    let last_attempt = Timestamp::now() + SignedDuration::from_hours(23);
    manifest.insert("next_attempt_at".to_owned(), text(&format!("{last_attempt:.3}")));
    stack.put(manifest).await;
    let listed = run(&stack, scope()).await;
    assert_eq!(listed.orphans.len(), 1);
    let removed = run(&stack, repairing()).await;
    assert_eq!((removed.orphans.len(), removed.removed.len()), (0, 1));
    assert_eq!(removed.removed[0]["event_id"], listed.orphans[0]["event_id"]);
    assert!(stack.items().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_delivery_being_stored_are_left_alone() {
    let stack = Stack::start().await;
    let commit = Rule::new(Service::DynamoDb, "TransactWriteItems");
    for (written, rule) in [("some parts", second_parts()), ("all parts", commit)] {
        let mut fixture = stack.large(IN_TWO_PARTS);
        fixture.renew().expect("an order");
        stack.sign(&mut fixture);
        let held = stack.tap().inject(rule, Fault::Hold);
        let repaired = async {
            held.hit(1).await;
            let repaired = run(&stack, repairing()).await;
            drop(held);
            repaired
        };
        let (answer, repaired) = tokio::join!(stack.send(&fixture), repaired);
        let event_id = answer.event_id("accepted");
        assert!(repaired.is_balanced(), "{written}: {repaired}");
        let orphans: Vec<_> = repaired.orphans.iter().map(|orphan| &orphan["event_id"]).collect();
        assert_eq!(orphans, [&*event_id], "{written}");
        assert!(repaired.removed.is_empty(), "{written}: {repaired}");

        assert_eq!(
            stack.value(&event_id, "payload").await,
            fixture.body().expect("a body"),
            "{written}"
        );
        let audited = run(&stack, repairing()).await;
        assert!(audited.is_balanced(), "{written}: {audited}");
        assert_eq!((audited.orphans.len(), audited.removed.len()), (0, 0), "{written}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_a_delivery_takes_up_again_is_put_back() {
    for loses_answer in [false, true] {
        let stack = Stack::start().await;
        let mut fixture = stack.large(IN_TWO_PARTS);
        fixture.renew().expect("an order");
        stack.sign(&mut fixture);
        let event_id = stack.send(&fixture).await.event_id("accepted");
        let parts = stack.head(&event_id).await["payload_parts"].clone();
        let part = parts.as_l().expect("a list")[0].as_s().expect("a name").clone();
        // Its parts are alone, until the delivery is repeated.
        stack.delete(&event_id, "head").await;
        // All attempts of the SDK are held until the delivery has taken up the part.
        let deletion = Rule::new(Service::DynamoDb, "DeleteItem").holding(&part);
        let held = stack.tap().inject(deletion, Fault::Hold);
        let repeated = async {
            held.hit(1).await;
            let answer = stack.send(&fixture).await;
            if loses_answer {
                // Nobody waits any more for the answer to the first attempt, and the second one finds nothing to delete.
                held.hit(2).await;
            }
            drop(held);
            answer
        };
        let (repaired, answer) = tokio::join!(run(&stack, repairing()), repeated);
        assert_eq!(answer.event_id("accepted"), event_id);
        // The parts of the first event are alone, because the second one has another time of receipt.
        let is_removed = repaired.removed.iter().any(|removed| removed["part"] == part);
        assert!(!is_removed, "{loses_answer}: {repaired}");
        assert_eq!(of(&run(&stack, repairing()).await), [], "{loses_answer}");
        assert_eq!(stack.value(&event_id, "payload").await, fixture.body().expect("a body"));
    }
}
