//! Tests of the recorder.

use super::records::{BODIES, DELIVERIES};
use super::*;
use serde_json::json;

fn deliver(recorder: &Recorder, body: &str) {
    let invocation = uuid::Uuid::new_v4().to_string();
    recorder.expect(&invocation);
    recorder.wrote(&format!(
        r#"{{"message":"delivery","request_id":"{invocation}","cause":"as it is"}}"#
    ));
    let request = Request::post("/webhooks/selldone/main?token=a-long-random-token&x=1")
        .header("authorization", "Basic eDp5")
        .body(Bytes::from(body.to_owned()))
        .unwrap();
    let received = Received {
        at: Timestamp::now(),
        invocation,
        provider: Some("selldone".to_owned()),
        shop: Some("main".to_owned()),
        request,
    };
    let answer = Response::new(Bytes::from_static(br#"{"status":"accepted","event_id":"e1"}"#));
    recorder.delivered(received, &answer, Duration::from_millis(3));
}

fn recorder() -> Recorder {
    Recorder::new(Redactor::new(&[json!({"tokens": ["a-long-random-token"]})]))
}

fn stored(state: &str) -> Stored {
    Stored {
        r#type: Some("order.created".to_owned()),
        order: Some("1".to_owned()),
        state: state.to_owned(),
        attempts: 0,
    }
}

#[test]
fn what_reconciliation_publishes_is_listed_once() {
    let recorder = recorder();
    let message = |id: &str, origin: &str| {
        let data = json!({"provider": "cartum", "shop": "main", "origin": origin});
        let event = json!({"id": id, "data": data}).to_string();
        recorder.published(&json!({ "Message": event }).to_string());
    };
    message("e1", "webhook");
    message("e2", "reconciliation");
    // A replay.
    message("e2", "reconciliation");
    let (rows, _) = recorder.rows(0, 10);
    let listed: Vec<_> = rows
        .iter()
        .map(|row| (&row["outcome"], &row["event_id"], &row["shop"]))
        .collect();
    assert_eq!(listed, [(&json!("reconciled"), &json!("e2"), &json!("main"))]);
    assert_eq!(recorder.open(Open::New).len(), 1, "its event is looked up");
}

#[test]
fn a_delivery_is_reported_once_and_stays_unsettled() {
    let recorder = recorder();
    deliver(&recorder, "{}");
    let unsettled = Unsettled {
        id: 1,
        event_id: Some("e1".to_owned()),
    };
    assert_eq!(recorder.open(Open::New), [unsettled]);
    assert!(recorder.settle(1, Some(stored("pending"))).is_some());
    assert!(recorder.open(Open::New).is_empty());
    assert_eq!(recorder.open(Open::All).len(), 1);
    let (rows, change) = recorder.rows(0, 10);
    assert_eq!(rows[0]["state"], "pending");
    assert!(recorder.settle(1, Some(stored("pending"))).is_none());
    assert!(recorder.rows(change, 10).0.is_empty(), "nothing has changed");
    assert!(recorder.settle(1, Some(stored("published"))).is_none());
    assert_eq!(recorder.rows(change, 10).0[0]["state"], "published");
    assert!(recorder.open(Open::All).is_empty());
}

#[test]
fn a_limited_number_is_recorded_without_secrets() {
    let recorder = recorder();
    for _ in 0..DELIVERIES + 3 {
        deliver(&recorder, "{}");
    }
    assert_eq!(recorder.rows(0, usize::MAX).0.len(), DELIVERIES);
    assert!(recorder.delivery(3).is_none());
    let kept = recorder.delivery(4).unwrap();
    let text = format!("{kept:?}");
    assert!(
        !text.contains("a-long-random-token") && !text.contains("eDp5"),
        "{text}"
    );
    assert_eq!(kept.cause().as_deref(), Some("as it is"));
}

#[test]
fn the_oldest_bodies_are_dropped() {
    let recorder = recorder();
    let large = "x".repeat(512 * 1024);
    let most = BODIES / large.len();
    for _ in 0..=most {
        deliver(&recorder, &large);
    }
    assert_eq!(recorder.delivery(1).unwrap().body, Body::Dropped { bytes: large.len() });
    assert!(matches!(recorder.delivery(2).unwrap().body, Body::Whole { .. }));
}

#[test]
fn a_file_keeps_the_records_but_not_a_broken_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deliveries.jsonl");
    let first = recorder();
    first.keep_in(&file).unwrap();
    deliver(&first, "{\"a\":1}");
    first.settle(1, Some(stored("published")));
    first.published(r#"{"Message":"{\"id\":\"e1\"}"}"#);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}{{\"delivery\":")).unwrap();

    let second = recorder();
    second.keep_in(&file).unwrap();
    assert_eq!(second.rows(0, 10).0.len(), 1);
    let kept = second.delivery(1).unwrap();
    assert_eq!(
        kept.body,
        Body::Whole {
            text: "{\"a\":1}".to_owned()
        }
    );
    assert_eq!(kept.stored, Some(stored("published")));
    assert_eq!(second.messages_of("e1").len(), 1);
    // The table was deleted in between.
    assert!(second.settle(1, None).is_none());
    assert_eq!(second.delivery(1).unwrap().stored, Some(stored("published")));
    deliver(&second, "{}");
    assert!(second.delivery(2).is_some());
}

#[test]
fn an_unknown_event_is_reported_once_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deliveries.jsonl");
    for run in 0..3_u64 {
        let recorder = recorder();
        recorder.keep_in(&file).unwrap();
        for Unsettled { id, .. } in recorder.open(Open::All) {
            assert!(
                recorder.settle(id, None).is_none(),
                "{id} is reported again in run {run}"
            );
        }
        deliver(&recorder, "{}");
        assert!(recorder.settle(run + 1, None).is_some(), "a new number in run {run}");
        let kept: Vec<u64> = lock(&recorder.0.kept).deliveries.iter().map(|kept| kept.id).collect();
        assert_eq!(kept, (1..=run + 1).collect::<Vec<_>>());
    }
}
