//! How much a run of the task `alert` reads.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use jiff::{SignedDuration, Timestamp};
use local::NAME;
use local::aws::faults::Service;
use serde_json::json;

use super::{quarantine, stack, stack_with};

/// Writes items, 25 at a time.
async fn write(dynamodb: &Client, requests: &[WriteRequest]) {
    for some in requests.chunks(25) {
        let batch = dynamodb.batch_write_item().request_items(NAME, some.to_vec());
        batch.send().await.expect("the table takes them");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_that_wait_are_read_once() {
    const EVENTS: usize = 10_000;
    let stack = stack_with(&["main", "other"], |config| {
        config.timeout = Some(Duration::from_mins(5));
    })
    .await;
    let known = quarantine(&stack, "main").await;
    let template = stack.head(&known).await;
    stack.delete(&known, "head").await;
    let dynamodb = &stack.clients().dynamodb;
    let since = Timestamp::now() - SignedDuration::from_hours(1);
    let items = (0..EVENTS).map(|number| {
        let mut item = template.clone();
        let id = format!("{:x}{number:063x}", number % 16);
        let due = since + SignedDuration::from_millis(i64::try_from(number).expect("small"));
        for (name, value) in [
            ("pk", id.clone()),
            ("event_id", id),
            ("work", format!("quarantined#{}", number % 16)),
            ("next_attempt_at", format!("{due:.3}")),
            ("shop", ["main", "other"][number % 2].to_owned()),
        ] {
            item.insert(name.to_owned(), AttributeValue::S(value));
        }
        let put = PutRequest::builder().set_item(Some(item)).build().expect("an item");
        WriteRequest::builder().put_request(put).build()
    });
    let requests: Vec<_> = items.collect();
    write(dynamodb, &requests).await;
    let mut found = 0;
    loop {
        let answer = stack.ask(json!({"alert": {}})).await;
        found += answer["found"].as_u64().expect("a count");
        if answer["done"] == true {
            break;
        }
    }
    assert_eq!(found, EVENTS as u64);
    assert_eq!(stack.alerts().await.len(), 2);
    let calls = || {
        ["Query", "BatchGetItem", "TransactWriteItems"].map(|operation| stack.tap().count(Service::DynamoDb, operation))
    };
    let before = calls();
    stack.ask(json!({"alert": {}})).await;
    let made: Vec<_> = calls()
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    // One query for each shard of three states, three for the partitions, and one for each alert that is open.
    assert_eq!(made, [3 * 16 + 3 + 2, 0, 0]);

    // All of one shop are dismissed: the alert is over once the index has been searched.
    let dismissed = requests.iter().filter_map(|request| {
        let mut item = request.put_request()?.item().clone();
        let is_other = item["shop"] == AttributeValue::S("other".to_owned());
        item.insert("state".to_owned(), AttributeValue::S("unsupported".to_owned()));
        item.remove("work");
        let put = PutRequest::builder().set_item(Some(item)).build().expect("an item");
        is_other.then(|| WriteRequest::builder().put_request(put).build())
    });
    write(dynamodb, &dismissed.collect::<Vec<_>>()).await;
    let mut runs = 0;
    while stack.alerts().await.iter().all(|alert| alert.said("status") != "over") {
        let before = calls();
        stack.ask(json!({"alert": {}})).await;
        let read = calls()[1] - before[1];
        assert!(read <= 5, "{read} reads of 100 events in a run");
        runs += 1;
        assert!(runs < 20, "it is never over");
    }
    assert!(runs > 5, "5,000 events are searched 500 at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_run_makes_a_fixed_number_of_calls() {
    let stack = stack().await;
    stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    let count = |operation| stack.tap().count(Service::DynamoDb, operation);
    let before = count("Query");
    let answer = stack.ask(json!({"alert": {}})).await;
    let expected = json!({"found": 0, "sent": 0, "open": 0, "done": true, "outage": null});
    assert_eq!(answer, expected);
    assert_eq!(count("Query") - before, 51);
    assert_eq!(stack.partition("alerts").await, [], "nothing is written");
}
