//! What an operator asks of redrive: to see events, to have them again, to read again what was not understood, to close it, to
//! publish a conflict, to erase.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use local::masking::Masking;
use local::recorder::Recorder;
use local::settings::{self, REDRIVE};
use local::tap::{Fault, Rule, Service};
use local::{json_text, lambda, view};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tests::outbox::{DENIED, ids, text};
use tests::{Stack, noise, state};

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_an_event_whole_that_its_message_was_not() {
    let stack = Stack::start().await;
    let fixture = stack.large(400_000);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let messages = stack.messages().await;
    assert_eq!(messages[0].event["data"]["omitted"], json!(["/data/unmapped"]));

    let by_id = stack.ask(json!({"get": {"event_id": event_id}})).await;
    let [shown] = by_id["events"].as_array().unwrap().as_slice() else {
        panic!("{by_id}")
    };
    assert_eq!(
        (&shown["state"], &shown["event_id"]),
        (&json!("published"), &json!(event_id))
    );
    assert_eq!(shown["event"], stack.stored_event(&event_id).await);
    assert!(
        shown["event"]["data"]["unmapped"]["content"]["internalNotes"]
            .as_str()
            .is_some_and(|notes| notes.len() >= 400_000)
    );

    let order = shown["event"]["data"]["order"]["id"].as_str().unwrap();
    let key = |order: &str| json!({"get": {"provider": "snipcart", "shop": "main", "order": order}});
    assert_eq!(stack.ask(key(order)).await, by_id);
    assert_eq!(stack.ask(key("another")).await["events"], json!([]));
    for nonsense in [
        json!({"get": {"event_id": "x"}}),
        json!({"get": {}}),
        json!({"nothing": {}}),
    ] {
        let error = stack.invoke(REDRIVE, &nonsense).await.unwrap_err().to_string();
        assert!(error.contains("not a task"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_names_that_mean_more_to_a_reader_as_they_came() {
    let stack = Stack::start().await;
    let odd = r#""odd":[{"$serde_json::private::Number":"seven"},{"$serde_json::private::RawValue":"{"}]"#;
    let mut fixture = stack.unsigned("snipcart", "order-completed");
    let body = String::from_utf8(fixture.body().expect("a body")).expect("text");
    fixture.set_body(format!("{{{odd},{}", body.trim_start_matches('{')));
    stack.sign(&mut fixture);
    let event_id = stack.send(&fixture).await.event_id("accepted");

    let get = json!({"get": {"event_id": event_id}});
    let url = stack.endpoints().messages_url();
    let answer: Box<RawValue> = lambda::invoke(&url, REDRIVE, &get).await.expect("an answer");
    assert!(answer.get().contains(odd), "{answer}");
    assert!(json_text::indented(answer.get()).is_some(), "it can be shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_events_of_an_order_than_an_answer_holds_are_shown_by_and_by() {
    let stack = Stack::start().await;
    let mut delivered = Vec::new();
    for name in [
        "order-completed",
        "order-status-changed",
        "order-refund-created",
        "order-notification-created",
    ] {
        let mut fixture = stack.unsigned("snipcart", name);
        let mut order: Value = serde_json::from_slice(&fixture.body().unwrap()).unwrap();
        for field in ["token", "orderToken"] {
            if order["content"][field].is_string() {
                order["content"][field] = "one-order".into();
            }
        }
        order["content"]["added"] = noise(2_000_000).into();
        fixture.set_body(order.to_string());
        stack.sign(&mut fixture);
        delivered.push(stack.send(&fixture).await.event_id("accepted"));
    }
    let mut task = json!({"get": {"provider": "snipcart", "shop": "main", "order": "one-order"}});
    let (mut shown, mut answers) = (Vec::new(), 0);
    loop {
        let answer = stack.ask(task.clone()).await;
        answers += 1;
        assert!(answer.to_string().len() < 6_000_000, "Lambda returns no more");
        let events = answer["events"].as_array().unwrap();
        assert!(
            events
                .iter()
                .all(|event| event["event"]["data"]["unmapped"].is_object()),
            "they are whole"
        );
        shown.extend(
            events
                .iter()
                .map(|event| event["event_id"].as_str().unwrap().to_owned()),
        );
        if answer["done"] == true {
            break;
        }
        task["get"]["cursor"] = answer["cursor"].clone();
    }
    assert_eq!((answers, shown), (2, delivered), "two of them each");
    task["get"]["cursor"] = json!({"after": "0".repeat(64)});
    let error = stack.invoke(REDRIVE, &task).await.unwrap_err().to_string();
    assert!(error.contains("the cursor is of another get"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_publishes_exactly_the_stored_events_again_and_says_so() {
    let stack = Stack::start().await;
    let begun = Timestamp::now() - SignedDuration::from_millis(1);
    stack.deliver_new(30).await;
    stack
        .deliver("snipcart", "taxes-calculate")
        .await
        .event_id("unsupported");
    let first = stack.messages().await;
    let end = Timestamp::now() + SignedDuration::from_secs(1);

    let task = |more: Value| {
        let mut task = json!({"replay": {"provider": "snipcart", "from": begun, "to": end}});
        task["replay"]
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        task
    };
    for (more, count) in [
        (json!({}), 6),
        (json!({"shop": "main", "types": ["order.created"]}), 6),
        (json!({"shop": "other"}), 0),
        (json!({"types": ["order.paid"]}), 0),
        (json!({"to": begun}), 0),
        (json!({"provider": "nobody"}), 0),
    ] {
        let mut more = more;
        more["dry_run"] = true.into();
        assert_eq!(stack.ask(task(more.clone())).await["replayed"], count, "{more}");
    }
    assert!(stack.messages().await.is_empty(), "a dry run publishes nothing");

    let answer = stack.ask(task(json!({}))).await;
    assert_eq!(
        (&answer["replayed"], &answer["done"], &answer["cursor"]),
        (&json!(6), &json!(true), &Value::Null)
    );
    let again = stack.messages().await;
    assert_eq!(again.len(), 6);
    for message in &again {
        let before = first
            .iter()
            .find(|first| first.event["id"] == message.event["id"])
            .expect("it is known");
        assert_eq!(message.text, before.text);
        assert_eq!(message.attributes["replay"]["Value"], "true");
        assert_eq!(before.attributes["replay"], Value::Null);
        let event_id = message.event["id"].as_str().unwrap();
        assert_eq!(message.text.as_bytes(), stack.value(event_id, "event").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_runs_out_of_time_goes_on_where_its_cursor_says() {
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(6))).await;
    let begun = Timestamp::now() - SignedDuration::from_millis(1);
    let deliveries = (0..150).map(|_| async {
        let mut fixture = stack.unsigned("cartum", "order-created");
        fixture.renew().unwrap();
        stack.sign(&mut fixture);
        stack.send(&fixture).await.event_id("accepted")
    });
    let delivered: BTreeSet<String> = join_all(deliveries).await.into_iter().collect();
    stack.messages().await;
    let _slow = stack.tap().inject(
        Rule::new(Service::Sns, "PublishBatch"),
        Fault::Slow(Duration::from_millis(400)),
    );
    let end = Timestamp::now() + SignedDuration::from_secs(1);
    let mut task = json!({"replay": {"provider": "cartum", "from": begun, "to": end}});
    let (mut replayed, mut runs) = (0, 0);
    loop {
        runs += 1;
        let answer = stack.ask(task.clone()).await;
        replayed += answer["replayed"].as_u64().unwrap();
        if answer["done"] == true {
            break;
        }
        assert!(answer["cursor"].is_object(), "{answer}");
        task["replay"]["cursor"] = answer["cursor"].clone();
    }
    assert!(runs > 1, "it had to go on");
    assert_eq!(replayed, 150);
    let messages = stack.messages().await;
    assert_eq!((messages.len(), ids(&messages)), (150, delivered), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_understood_now_is_published_under_its_own_id() {
    let stack = Stack::start().await;
    let mut fixture = stack.signed("selldone", "checkout-order");
    fixture.renew().unwrap();
    let body = fixture.body().unwrap();
    // What a body is known by is its hash, as long as it is Selldone's.
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
async fn what_is_another_event_now_supersedes_the_quarantined_one() {
    let stack = Stack::start().await;
    let fixture = stack.signed("selldone", "checkout-order");
    let body = fixture.body().unwrap();
    let old = stack.quarantined(&body, str::to_owned).await;
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["accepted"], 1);
    assert_eq!(
        stack.tap().count(Service::DynamoDb, "TransactWriteItems"),
        1,
        "both or neither"
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

/// Makes of an event a tombstone that is over, and that DynamoDB has not deleted yet.
async fn let_tombstone_end(stack: &Stack, event_id: &str) {
    assert_eq!(
        stack
            .ask(json!({"erase": {"event_id": event_id, "dry_run": false}}))
            .await["erased"],
        1
    );
    let mut head = stack.head(event_id).await;
    head.insert("expires_at".to_owned(), AttributeValue::N("1".to_owned()));
    stack.put(head).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_event_supersedes_over_an_ended_tombstone() {
    let stack = Stack::start().await;
    let mut fixture = stack.unsigned("selldone", "checkout-order");
    let mut body: Value = serde_json::from_slice(&fixture.body().unwrap()).unwrap();
    // It fits into a head beside nothing else: the event needs parts.
    body["attachment"] = noise(300_000).into();
    fixture.set_body(body.to_string());
    stack.sign(&mut fixture);
    let new = stack.send(&fixture).await.event_id("accepted");
    assert!(stack.head(&new).await.contains_key("event_parts"));
    let_tombstone_end(&stack, &new).await;

    let old = stack.quarantined(&fixture.body().unwrap(), str::to_owned).await;
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["accepted"], 1);
    let head = stack.head(&old).await;
    assert_eq!((state(&head), &head["superseded_by"]), ("superseded", &text(&new)));
    assert_eq!(state(&stack.head(&new).await), "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn get_lists_conflicts_beyond_one_page_of_the_table() {
    let stack = Stack::start().await;
    let fixture = stack.signed("cartum", "order-created");
    let event_id = stack.send(&fixture).await.event_id("accepted");
    for count in 0..5 {
        // Each is in one item, and a page of a query is 1 MB.
        let other = stack.with_another_body(&fixture, "something_new", noise(330_000 + 4 * count).into());
        assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);
    }
    let shown = stack.ask(json!({"get": {"event_id": event_id}})).await;
    assert_eq!(shown["conflicts"].as_array().unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_published_over_an_ended_tombstone() {
    let stack = Stack::start().await;
    let fixture = stack.signed("cartum", "order-created");
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let other = stack.with_another_body(&fixture, "something_new", "another".into());
    assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);
    let conflict = stack.ask(json!({"get": {"event_id": event_id}})).await["conflicts"][0].clone();
    let task = json!({"publish_conflict": {"event_id": event_id, "payload_sha256": conflict["payload_sha256"]}});
    let new = stack.ask(task.clone()).await["event_id"].as_str().unwrap().to_owned();
    assert_eq!(stack.redrive().await["published"], 1);
    let_tombstone_end(&stack, &new).await;
    // As it is when the same body has come again as a conflict of a new event.
    let mut items = stack.items().await;
    items.retain(|item| item["sk"].as_s().is_ok_and(|key| key.starts_with("conflict#")));
    let mut conflict = items.remove(0);
    conflict.remove("published_as");
    stack.put(conflict).await;

    let again = stack.ask(task).await;
    assert_eq!(
        (&again["status"], &again["event_id"]),
        (&json!("accepted"), &json!(new))
    );
    assert_eq!(state(&stack.head(&new).await), "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_an_event_now_that_has_come_in_the_meantime_is_superseded_by_it() {
    let stack = Stack::start().await;
    let fixture = stack.signed("selldone", "checkout-order");
    let known = stack.send(&fixture).await.event_id("accepted");
    let old = stack.quarantined(&fixture.body().unwrap(), str::to_owned).await;
    stack.ask(json!({"reprocess": {}})).await;
    let head = stack.head(&old).await;
    assert_eq!((state(&head), &head["superseded_by"]), ("superseded", &text(&known)));
    assert_eq!(state(&stack.head(&known).await), "published");
    assert_eq!(stack.redrive().await["published"], 0);
    assert_eq!(stack.messages().await.len(), 1, "it was published when it came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_delivery_that_is_dismissed_stays_and_waits_no_longer() {
    let stack = Stack::start().await;
    let mut fixture = stack.unsigned("snipcart", "unknown-event");
    stack.sign(&mut fixture);
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
        "it is kept, and waits for nobody"
    );
    stack.sign(&mut fixture);
    assert_eq!(stack.send(&fixture).await.event_id("unsupported"), event_id);

    let published = stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    for other in [&event_id, &published, &"0".repeat(64)] {
        assert_eq!(stack.ask(dismiss(other, false)).await["dismissed"], 0);
    }
    assert_eq!(state(&stack.head(&published).await), "published");
}

/// Another id.
fn reversed(event_id: &str) -> String {
    event_id.chars().rev().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_bodies_of_one_event_the_older_is_the_event() {
    let stack = Stack::start().await;
    let mut fixture = stack.unsigned("cartum", "order-created");
    fixture.renew().unwrap();
    stack.sign(&mut fixture);
    let other = stack.with_another_body(&fixture, "something_new", "another".into());
    let now = Timestamp::now();
    // The newer one is in the first shard, and the older one in the last.
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
    // Whatever of the table is slow.
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
        assert!(runs < 40, "it gets on");
    }
    assert!(runs > 1, "it had to go on");
    drop(slow);
    assert_eq!(accepted, 20);
    assert_eq!(stack.redrive().await["published"], 20);
    let again = stack.messages().await;
    assert_eq!((first, again.len()), (20, 20));
    assert_eq!(ids(&again), delivered.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_the_table_stops_answers_what_it_has_done() {
    let stack = Stack::start().await;
    let now = Timestamp::now();
    let delivered = stack.deliver_new(4).await;
    for (index, event_id) in delivered.iter().enumerate() {
        let since = now - SignedDuration::from_mins(60 - i64::try_from(index).unwrap());
        stack.not_understood(event_id, &reversed(event_id), since, index).await;
    }
    // The second of them cannot be written.
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
async fn an_unsupported_delivery_is_released_once_it_is_understood() {
    let stack = Stack::start().await;
    let fixtures = [("cartum", "order-created"), ("snipcart", "order-completed")].map(|(provider, name)| {
        let mut fixture = stack.unsigned(provider, name);
        fixture.renew().unwrap();
        stack.sign(&mut fixture);
        fixture
    });
    let mut event_ids = Vec::new();
    for fixture in &fixtures {
        event_ids.push(stack.send(fixture).await.event_id("accepted"));
    }
    stack.messages().await;
    for event_id in &event_ids {
        stack.set_state(event_id, "unsupported").await;
    }
    // It comes again.
    assert_eq!(stack.send(&fixtures[0]).await.event_id("accepted"), event_ids[0]);
    assert_eq!(ids(&stack.messages().await), [event_ids[0].clone()].into());
    assert_eq!(state(&stack.head(&event_ids[0]).await), "published");

    // It is read again.
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

    // By its id, too.
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
        assert!(error.contains("not a task"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dismissal_can_be_taken_back() {
    let stack = Stack::start().await;
    let mut fixture = stack.unsigned("snipcart", "unknown-event");
    stack.sign(&mut fixture);
    let event_id = stack.send(&fixture).await.event_id("quarantined");
    let before = stack.head(&event_id).await;
    let task = |name: &str, dry_run: bool| json!({name: {"event_id": event_id, "dry_run": dry_run}});
    assert_eq!(
        stack.ask(task("undismiss", false)).await["undismissed"],
        0,
        "it is not dismissed"
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
    assert_eq!(after, expected, "it is as it was");
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["quarantined"], 1);
    // What was never dismissed is not quarantined by it.
    let unsupported = stack
        .deliver("snipcart", "taxes-calculate")
        .await
        .event_id("unsupported");
    let task = json!({"undismiss": {"event_id": unsupported}});
    assert_eq!(stack.ask(task).await["undismissed"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_listed_and_published_once_as_an_event_of_its_own() {
    let stack = Stack::start().await;
    let mut fixture = stack.unsigned("cartum", "order-created");
    stack.sign(&mut fixture);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let other = stack.with_another_body(&fixture, "something_new", noise(600_000).into());
    let body = other.body().unwrap();
    assert_eq!(stack.send(&other).await.event_id("quarantined"), event_id);
    stack.messages().await;

    let by_id = stack.ask(json!({"get": {"event_id": event_id}})).await;
    let conflict = by_id["conflicts"][0].clone();
    assert_eq!(
        (&conflict["event_id"], &conflict["bytes"]),
        (&json!(event_id), &json!(body.len()))
    );
    assert!(
        conflict["received_at"].is_string() && conflict["published_as"].is_null(),
        "{conflict}"
    );
    let of_order = json!({"get": {"provider": "cartum", "shop": "main", "order": "115"}});
    assert_eq!(stack.ask(of_order.clone()).await, by_id);

    let task = |dry_run| {
        let hash = &conflict["payload_sha256"];
        json!({"publish_conflict": {"event_id": event_id, "payload_sha256": hash, "dry_run": dry_run}})
    };
    let dry = stack.ask(task(true)).await;
    assert_eq!((&dry["accepted"], &dry["status"]), (&json!(1), &json!("accepted")));
    assert!(stack.ask(of_order.clone()).await["conflicts"][0]["published_as"].is_null());
    let accepted = stack.ask(task(false)).await;
    assert_eq!(
        (&accepted["accepted"], &accepted["event_id"]),
        (&json!(1), &dry["event_id"])
    );
    let new = accepted["event_id"].as_str().unwrap();
    assert_ne!(new, event_id);
    assert_eq!(stack.redrive().await["published"], 1);
    let messages = stack.messages().await;
    assert_eq!(ids(&messages), [new.to_owned()].into());
    assert_eq!(messages[0].event["data"]["order"]["id"], "115");
    assert_eq!(stack.value(new, "payload").await, body);

    let again = stack.ask(task(false)).await;
    assert_eq!(
        (&again["accepted"], &again["status"], &again["event_id"]),
        (&json!(0), &json!("already_published"), &json!(new))
    );
    let now = Timestamp::now();
    let minute = SignedDuration::from_mins(1);
    let compared = stack
        .ask(json!({"compare": {"provider": "cartum", "from": now - minute, "to": now + minute}}))
        .await;
    assert_eq!(
        (&compared["compared"], &compared["changed"]),
        (&json!(2), &json!(0)),
        "{compared}"
    );
    let events = stack.ask(of_order).await;
    assert_eq!(events["events"].as_array().unwrap().len(), 2, "both are the order's");
    assert_eq!(events["conflicts"][0]["published_as"], new);
    let absent = json!({"publish_conflict": {"event_id": event_id, "payload_sha256": "0".repeat(64)}});
    assert_eq!(stack.ask(absent).await["status"], "not_found");
    // It comes again, and is still the conflict that it was.
    let mut repeat = other;
    stack.sign(&mut repeat);
    assert_eq!(stack.send(&repeat).await.event_id("quarantined"), event_id);
    assert_eq!(stack.ask(task(false)).await["accepted"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_view_lists_conflicts() {
    let providers = tests::ORDERS.map(|(provider, _)| provider);
    let recorder = Recorder::new(Masking::new(settings::secrets(providers).values()));
    let stack = Stack::with(|config| {
        config.view = Some(view::Config {
            recorder,
            catalogue: tests::catalogue(),
            secrets: view::Secrets::Development,
        });
    })
    .await;
    let fixture = stack.signed("cartum", "order-created");
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let other = stack.with_another_body(&fixture, "something_new", "another".into());
    stack.send(&other).await.event_id("quarantined");
    let shown = stack.ask(json!({"get": {"event_id": event_id}})).await;
    let hash = shown["conflicts"][0]["payload_sha256"].as_str().unwrap();
    for page in [
        "/order?provider=cartum&shop=main&id=115",
        "/deliveries/1",
        "/deliveries/2",
    ] {
        let request = http::Request::get(format!("{}{page}", stack.url())).body(bytes::Bytes::new());
        let answer = stack.send_request(request.unwrap()).await;
        assert_eq!(answer.status, 200, "{page}: {answer:?}");
        assert!(
            answer.text.contains(hash) && answer.text.contains("Conflicts (1)"),
            "{page}: {answer:?}"
        );
    }

    let unknown = stack.signed("cartum", "unknown-event");
    let body: Value = serde_json::from_slice(&unknown.body().unwrap()).unwrap();
    let event_id = stack.send(&unknown).await.event_id("quarantined");
    let page = format!(
        "{}/order?provider=cartum&shop=main&id={}",
        stack.url(),
        body["order_id"]
    );
    let request = http::Request::get(page).body(bytes::Bytes::new());
    let answer = stack.send_request(request.unwrap()).await;
    assert!(
        answer.text.contains(&event_id) && answer.text.contains("Not understood (1)"),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_order_leaves_a_tombstone_that_still_knows_its_event() {
    let stack = Stack::start().await;
    let fixture = stack.large(1_000_000);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let mut conflict = fixture.clone();
    let mut other: Value = serde_json::from_slice(&fixture.body().unwrap()).unwrap();
    other["content"]["internalNotes"] = "another".into();
    conflict.set_body(other.to_string());
    stack.sign(&mut conflict);
    assert_eq!(stack.send(&conflict).await.event_id("quarantined"), event_id);
    assert!(stack.items().await.len() > 4, "head, parts and a conflict");

    let order = stack.stored_event(&event_id).await["data"]["order"]["id"].clone();
    let task = |dry_run| json!({"erase": {"provider": "snipcart", "shop": "main", "order": order, "dry_run": dry_run}});
    let unsaid = json!({"erase": {"provider": "snipcart", "shop": "main", "order": order}});
    assert_eq!(
        stack.ask(unsaid).await,
        json!({"erased": 1, "waiting": 0, "dry_run": true})
    );
    assert_eq!(state(&stack.head(&event_id).await), "published");

    assert_eq!(stack.ask(task(false)).await["erased"], 1);
    let items = stack.items().await;
    let [tombstone] = items.as_slice() else {
        panic!("{} items are left", items.len())
    };
    assert_eq!(state(tombstone), "erased");
    for personal in [
        "payload",
        "payload_parts",
        "event",
        "event_parts",
        "order",
        "order_key",
        "request",
    ] {
        assert!(!tombstone.contains_key(personal), "{personal} is left");
    }

    stack.messages().await;
    let mut small = fixture.clone();
    small.set_body(other.to_string());
    stack.sign(&mut small);
    assert_eq!(stack.send(&small).await.event_id("duplicate"), event_id);
    assert_eq!(stack.items().await.len(), 1);
    assert!(stack.messages().await.is_empty());
    assert_eq!(stack.ask(task(false)).await["erased"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_shows_what_todays_mapping_would_change() {
    let stack = Stack::start().await;
    let begun = Timestamp::now() - SignedDuration::from_millis(1);
    let changed = stack.deliver("cartum", "order-created").await.event_id("accepted");
    stack
        .deliver("cartum", "order-created-coupon")
        .await
        .event_id("accepted");
    stack.deliver("cartum", "unknown-event").await.event_id("quarantined");
    stack.deliver("cartum", "user-signup").await.event_id("unsupported");
    let compare = |values: bool| {
        let to = Timestamp::now() + SignedDuration::from_secs(1);
        json!({"compare": {"provider": "cartum", "from": begun, "to": to, "values": values}})
    };
    let same = stack.ask(compare(false)).await;
    assert_eq!((&same["compared"], &same["changed"]), (&4.into(), &0.into()), "{same}");
    assert_eq!((&same["done"], &same["events"]), (&true.into(), &json!([])));

    // As if an older mapping had written the event.
    let mut event = stack.stored_event(&changed).await;
    event["data"]["order"]["note"] = "a note that only the customer may read".into();
    event["data"]["order"]["items"][0]
        .as_object_mut()
        .unwrap()
        .remove("sku");
    stack.put_stored_event(&changed, &event).await;
    stack.messages().await;
    let masked = stack.ask(compare(false)).await;
    assert_eq!(
        (&masked["compared"], &masked["changed"]),
        (&4.into(), &1.into()),
        "{masked}"
    );
    let [found] = masked["events"].as_array().unwrap().as_slice() else {
        panic!("{masked}")
    };
    assert_eq!(
        (&found["event_id"], &found["today"]),
        (&json!(changed), &json!("order.created"))
    );
    let pointers: Vec<_> = found["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(pointers, ["/data/order/items/0/sku", "/data/order/note"]);
    assert_eq!(masked["pointers"]["/data/order/items/*/sku"], 1);
    assert!(!masked.to_string().contains("only the customer"), "{masked}");

    let shown = stack.ask(compare(true)).await;
    assert!(shown.to_string().contains("only the customer"), "{shown}");
    assert!(stack.messages().await.is_empty(), "nothing is published");
    assert_eq!(stack.stored_event(&changed).await, event, "nothing is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_order_is_found_and_erased_by_its_order() {
    let stack = Stack::start().await;
    for (provider, name, order) in [
        ("selldone", "unknown-action", "/basket/id"),
        ("cartum", "unknown-event", "/order_id"),
        ("aboutyou", "unknown-event", "/message/order_number"),
        ("snipcart", "unknown-event", "/content/token"),
    ] {
        let fixture = stack.signed(provider, name);
        let body: Value = serde_json::from_slice(&fixture.body().expect("a body")).expect("JSON");
        let order = match body.pointer(order).expect("an order id") {
            Value::String(order) => order.clone(),
            number => number.to_string(),
        };
        let event_id = stack.send(&fixture).await.event_id("quarantined");
        let place = json!({"provider": provider, "shop": "main", "order": order});
        let shown = stack.ask(json!({"get": place})).await;
        let [event] = shown["events"].as_array().expect("a list").as_slice() else {
            panic!("{provider}: {shown}")
        };
        assert_eq!(
            (&event["event_id"], &event["state"]),
            (&json!(event_id), &json!("quarantined"))
        );
        assert_eq!(
            (&event["reason"], &event["event"]),
            (&json!("unknown_event"), &Value::Null)
        );

        let mut erase = place.clone();
        erase["dry_run"] = false.into();
        assert_eq!(stack.ask(json!({"erase": erase})).await["erased"], 1, "{provider}");
        assert_eq!(
            stack.ask(json!({"get": place})).await["events"],
            json!([]),
            "{provider}"
        );
        // A late repeat is not kept again.
        stack.send(&stack.signed(provider, name)).await.event_id("duplicate");
    }
}
