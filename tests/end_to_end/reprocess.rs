//! Reprocessing quarantined and unsupported deliveries, dismissing them, and reversing a dismissal.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use local::aws::faults::{Fault, Rule, Service};
use local::project::settings::REDRIVE;
use serde_json::json;
use tests::outbox::{DENIED, ids, text};
use tests::{Stack, json_body, noise, state};

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_understood_now_is_published() {
    let stack = Stack::start().await;
    let mut fixture = stack.signed("selldone", "checkout-order");
    fixture.renew().unwrap();
    let body = fixture.body().unwrap();
    // The id of a Selldone event depends only on its body.
    let scratch = Stack::start().await;
    let expected = scratch.send(&fixture).await.event_id("accepted");
    let event_id = stack.quarantined(&body, |_| expected.clone()).await;

    assert_eq!(stack.ask(json!({"redrive": {}})).await["published"], 0);
    assert_eq!(stack.ask(json!({"reprocess": {"dry_run": true}})).await["accepted"], 1);
    assert_eq!(state(&stack.head(&event_id).await), "quarantined");
    assert_eq!(
        stack.ask(json!({"reprocess": {"provider": "cartum"}})).await["accepted"],
        0
    );
    assert_eq!(
        stack.ask(json!({"reprocess": {"provider": "selldone"}})).await["accepted"],
        1
    );
    assert_eq!(state(&stack.head(&event_id).await), "pending");
    assert_eq!(stack.redrive().await["published"], 1);
    assert_eq!(state(&stack.head(&event_id).await), "published");
    assert_eq!(ids(&stack.messages().await), [event_id.clone()].into());
    assert_eq!(stack.send(&fixture).await.event_id("duplicate"), event_id);
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["accepted"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_with_another_id_supersedes_the_quarantined_one() {
    let stack = Stack::start().await;
    let fixture = stack.signed("selldone", "checkout-order");
    let body = fixture.body().unwrap();
    let old = stack.quarantined(&body, str::to_owned).await;
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["accepted"], 1);
    assert_eq!(
        stack.tap().count(Service::DynamoDb, "TransactWriteItems"),
        1,
        "both items are written or neither"
    );
    let head = stack.head(&old).await;
    assert_eq!(state(&head), "superseded");
    let new = head["superseded_by"].as_s().unwrap().clone();
    assert_ne!(new, old);
    assert_eq!(state(&stack.head(&new).await), "pending");
    assert_eq!(stack.value(&new, "payload").await, body);
    assert_eq!(stack.redrive().await["published"], 1);
    assert_eq!(ids(&stack.messages().await), [new.clone()].into());
    assert_eq!(stack.send(&fixture).await.event_id("duplicate"), new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_event_supersedes_over_an_expired_tombstone() {
    let stack = Stack::start().await;
    let mut fixture = stack.unsigned("selldone", "checkout-order");
    let mut body = json_body(&fixture);
    // The payload fills the head item, so the event needs parts.
    body["attachment"] = noise(300_000).into();
    fixture.set_body(body.to_string());
    stack.sign(&mut fixture);
    let new = stack.send(&fixture).await.event_id("accepted");
    assert!(stack.head(&new).await.contains_key("event_parts"));
    stack.let_tombstone_end(&new).await;

    let old = stack.quarantined(&fixture.body().unwrap(), str::to_owned).await;
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["accepted"], 1);
    let head = stack.head(&old).await;
    assert_eq!((state(&head), &head["superseded_by"]), ("superseded", &text(&new)));
    assert_eq!(state(&stack.head(&new).await), "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_sent_meanwhile_supersedes_the_quarantined_one() {
    let stack = Stack::start().await;
    let fixture = stack.signed("selldone", "checkout-order");
    let known = stack.send(&fixture).await.event_id("accepted");
    let old = stack.quarantined(&fixture.body().unwrap(), str::to_owned).await;
    stack.ask(json!({"reprocess": {}})).await;
    let head = stack.head(&old).await;
    assert_eq!((state(&head), &head["superseded_by"]), ("superseded", &text(&known)));
    assert_eq!(state(&stack.head(&known).await), "published");
    assert_eq!(stack.redrive().await["published"], 0);
    assert_eq!(
        stack.messages().await.len(),
        1,
        "the event was published on its delivery"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dismissed_delivery_is_kept_and_no_longer_quarantined() {
    let stack = Stack::start().await;
    let mut fixture = stack.signed("snipcart", "unknown-event");
    let event_id = stack.send(&fixture).await.event_id("quarantined");
    let dismiss = |event_id: &str, dry_run: bool| json!({"dismiss": {"event_id": event_id, "dry_run": dry_run}});
    assert_eq!(
        stack.ask(dismiss(&event_id, true)).await,
        json!({"dismissed": 1, "dry_run": true})
    );
    assert_eq!(state(&stack.head(&event_id).await), "quarantined");

    assert_eq!(stack.ask(dismiss(&event_id, false)).await["dismissed"], 1);
    let head = stack.head(&event_id).await;
    assert_eq!(state(&head), "unsupported");
    assert!(
        !head.contains_key("work") && head.contains_key("payload") && head.contains_key("reason"),
        "the delivery is kept and is not in the index of work"
    );
    stack.sign(&mut fixture);
    assert_eq!(stack.send(&fixture).await.event_id("unsupported"), event_id);

    let published = stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    for other in [&event_id, &published, &"0".repeat(64)] {
        assert_eq!(stack.ask(dismiss(other, false)).await["dismissed"], 0);
    }
    assert_eq!(state(&stack.head(&published).await), "published");
}

/// The id with its digits reversed, which is another id.
fn reversed(event_id: &str) -> String {
    event_id.chars().rev().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_bodies_of_one_event_the_older_is_the_event() {
    let stack = Stack::start().await;
    let fixture = stack.renewed("cartum", "order-created");
    let other = stack.with_another_body(&fixture, "something_new", "another".into());
    let now = Timestamp::now();
    // The newer body is in the first shard, and the older one in the last.
    let [newer, older] = ["1", "2"].map(|digit| digit.repeat(64));
    let event_id = stack.send(&other).await.event_id("accepted");
    stack.not_understood(&event_id, &newer, now, 0).await;
    assert_eq!(stack.send(&fixture).await.event_id("accepted"), event_id);
    let before = now - SignedDuration::from_mins(1);
    stack.not_understood(&event_id, &older, before, 7).await;
    let body = fixture.body().unwrap();

    for dry_run in [true, false] {
        let answer = stack.ask(json!({"reprocess": {"dry_run": dry_run}})).await;
        assert_eq!(
            (
                &answer["accepted"],
                &answer["conflicts"],
                &answer["duplicates"],
                &answer["done"]
            ),
            (&json!(1), &json!(1), &json!(0), &json!(true)),
            "{answer}"
        );
    }
    assert_eq!(stack.value(&event_id, "payload").await, body, "the older is the event");
    let shown = stack.ask(json!({"get": {"event_id": event_id}})).await;
    assert_eq!(shown["conflicts"][0]["bytes"], other.body().unwrap().len(), "{shown}");
    for old in [&older, &newer] {
        assert_eq!(stack.head(old).await["superseded_by"], text(&event_id));
    }
    assert_eq!(stack.redrive().await["published"], 1);
    let answer = stack.ask(json!({"reprocess": {}})).await;
    assert_eq!((&answer["accepted"], &answer["conflicts"]), (&json!(0), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_with_too_little_time_answers_with_its_cursor() {
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(6))).await;
    let now = Timestamp::now();
    let delivered = stack.deliver_new(20).await;
    let first = stack.messages().await.len();
    for (index, event_id) in delivered.iter().enumerate() {
        let since = now - SignedDuration::from_mins(60 - i64::try_from(index).unwrap());
        stack
            .not_understood(event_id, &reversed(event_id), since, index % 8)
            .await;
    }
    // Every call to the table is slow.
    let slow = stack
        .tap()
        .inject(Rule::all(Service::DynamoDb), Fault::Slow(Duration::from_millis(150)));
    let mut task = json!({"reprocess": {}});
    let (mut accepted, mut runs) = (0, 0);
    loop {
        runs += 1;
        let answer = stack.ask(task.clone()).await;
        accepted += answer["accepted"].as_u64().unwrap();
        if answer["done"] == true {
            break;
        }
        assert!(answer["cursor"].is_object(), "{answer}");
        task["reprocess"]["cursor"] = answer["cursor"].clone();
        assert!(runs < 40, "the task does not complete");
    }
    assert!(runs > 1, "one run was enough");
    drop(slow);
    assert_eq!(accepted, 20);
    assert_eq!(stack.redrive().await["published"], 20);
    let again = stack.messages().await;
    assert_eq!((first, again.len()), (20, 20));
    assert_eq!(ids(&again), delivered.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_stopped_by_an_outage_answers_its_progress() {
    let stack = Stack::start().await;
    let now = Timestamp::now();
    let delivered = stack.deliver_new(4).await;
    for (index, event_id) in delivered.iter().enumerate() {
        let since = now - SignedDuration::from_mins(60 - i64::try_from(index).unwrap());
        stack.not_understood(event_id, &reversed(event_id), since, index).await;
    }
    // The second event cannot be written.
    let refused = stack.tap().inject(
        Rule::new(Service::DynamoDb, "TransactWriteItems").holding(reversed(&delivered[1])),
        Fault::Answer {
            status: 400,
            code: "AccessDeniedException",
        },
    );
    let answer = stack.ask(json!({"reprocess": {}})).await;
    assert_eq!(
        (&answer["accepted"], &answer["done"]),
        (&json!(1), &json!(false)),
        "{answer}"
    );
    assert_eq!(answer["outage"], "DynamoDB: AccessDeniedException");
    drop(refused);
    let mut task = json!({"reprocess": {}});
    task["reprocess"]["cursor"] = answer["cursor"].clone();
    assert_eq!(stack.ask(task).await["accepted"], 3);

    let event_id = stack.deliver_new(1).await.remove(0);
    let refused = stack.tap().inject(Rule::new(Service::DynamoDb, "Query"), DENIED);
    let window = json!({"provider": "selldone", "from": now, "to": now + SignedDuration::from_mins(1)});
    let mut by_email = window.clone();
    by_email["shop"] = "main".into();
    by_email["email"] = "j.doe@example.com".into();
    for task in [
        json!({"requeue": {}}),
        json!({"replay": window}),
        json!({"erase": by_email}),
        json!({"get": {"event_id": event_id}}),
    ] {
        let answer = stack.ask(task.clone()).await;
        assert_eq!(
            (&answer["done"], &answer["outage"]),
            (&json!(false), &json!("DynamoDB: AuthorizationError")),
            "{task}"
        );
    }
    drop(refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsupported_delivery_is_published_once_understood() {
    let stack = Stack::start().await;
    let events = [("cartum", "order-created"), ("snipcart", "order-completed")];
    let fixtures = events.map(|(provider, name)| stack.renewed(provider, name));
    let mut event_ids = Vec::new();
    for fixture in &fixtures {
        event_ids.push(stack.send(fixture).await.event_id("accepted"));
    }
    stack.messages().await;
    for event_id in &event_ids {
        stack.set_state(event_id, "unsupported").await;
    }
    // The first delivery is sent again.
    assert_eq!(stack.send(&fixtures[0]).await.event_id("accepted"), event_ids[0]);
    assert_eq!(ids(&stack.messages().await), [event_ids[0].clone()].into());
    assert_eq!(state(&stack.head(&event_ids[0]).await), "published");

    // The second delivery is reprocessed.
    let now = Timestamp::now();
    let hour = SignedDuration::from_hours(1);
    let task = |provider: &str, dry_run: bool| {
        json!({"reprocess": {
            "state": "unsupported", "provider": provider, "from": now - hour, "to": now + hour, "dry_run": dry_run,
        }})
    };
    assert_eq!(stack.ask(task("cartum", false)).await["accepted"], 0);
    assert_eq!(stack.ask(task("snipcart", true)).await["accepted"], 1);
    let answer = stack.ask(task("snipcart", false)).await;
    assert_eq!(
        (&answer["accepted"], &answer["done"]),
        (&json!(1), &json!(true)),
        "{answer}"
    );
    assert_eq!(stack.redrive().await["published"], 1);
    assert_eq!(ids(&stack.messages().await), [event_ids[1].clone()].into());

    // A delivery can also be reprocessed by its id.
    stack.set_state(&event_ids[1], "unsupported").await;
    let by_id = json!({"reprocess": {"event_id": event_ids[1]}});
    assert_eq!(stack.ask(by_id.clone()).await["accepted"], 1);
    assert_eq!(stack.ask(by_id).await["accepted"], 0);
    for nonsense in [
        json!({"reprocess": {"state": "unsupported"}}),
        json!({"reprocess": {"from": now, "to": now}}),
        json!({"reprocess": {"state": "failed"}}),
    ] {
        let error = stack.invoke(REDRIVE, &nonsense).await.unwrap_err().to_string();
        assert!(error.contains("invalid task"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dismissal_can_be_reversed() {
    let stack = Stack::start().await;
    let fixture = stack.signed("snipcart", "unknown-event");
    let event_id = stack.send(&fixture).await.event_id("quarantined");
    let before = stack.head(&event_id).await;
    let task = |name: &str, dry_run: bool| json!({name: {"event_id": event_id, "dry_run": dry_run}});
    assert_eq!(
        stack.ask(task("undismiss", false)).await["undismissed"],
        0,
        "the delivery is not dismissed"
    );
    assert_eq!(stack.ask(task("dismiss", false)).await["dismissed"], 1);
    assert_eq!(
        stack.ask(task("undismiss", true)).await,
        json!({"undismissed": 1, "dry_run": true})
    );
    assert_eq!(state(&stack.head(&event_id).await), "unsupported");
    assert_eq!(stack.ask(task("undismiss", false)).await["undismissed"], 1);
    let mut after = stack.head(&event_id).await;
    let mut expected = before;
    for head in [&mut after, &mut expected] {
        head.remove("next_attempt_at");
    }
    assert_eq!(after, expected, "the head item is as before");
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["quarantined"], 1);
    // Only a dismissed delivery can be quarantined again.
    let unsupported = stack
        .deliver("snipcart", "taxes-calculate")
        .await
        .event_id("unsupported");
    let task = json!({"undismiss": {"event_id": unsupported}});
    assert_eq!(stack.ask(task).await["undismissed"], 0);
}
