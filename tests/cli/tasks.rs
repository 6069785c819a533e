//! The tasks of redrive and reconcile as commands.

use serde_json::Value;
use tests::local_command;

use crate::up::{Up, get_text};

#[tokio::test]
async fn the_tasks_of_an_operator_print_their_answers() {
    let up = Up::start().await;
    assert_eq!(up.ask(&["redrive"]).await["done"], true);
    up.send(&["aboutyou", "order-created"]).await;
    let all = [
        "replay",
        "aboutyou",
        "--from=2026-01-01T00:00:00Z",
        "--to=2026-01-01T01:00:00Z",
    ];
    assert_eq!(up.ask(&all).await["replayed"], 0, "the event is newer");

    let order = ["aboutyou", "main", "ayou-139-48201"];
    let shown = up.ask(&[&["get"][..], &order].concat()).await;
    let event_id = shown["events"][0]["event_id"].as_str().expect("the event");
    assert_eq!(up.ask(&["show", event_id]).await, shown);
    let state = up.ask(&[&["state"][..], &order].concat()).await;
    assert_eq!(
        (&state["order"]["status"], &state["stated_by"]["/order/status"]),
        (&"pending".into(), &event_id.into())
    );
    assert_eq!(up.ask(&["state", "aboutyou", "main", "unknown"]).await, Value::Null);
    let received_at = shown["events"][0]["event"]["data"]["received_at"]
        .as_str()
        .expect("a time");
    let to = (received_at.parse::<jiff::Timestamp>().expect("a time") + jiff::SignedDuration::from_secs(1)).to_string();
    let replay = [
        "replay",
        "aboutyou",
        "--from",
        received_at,
        "--to",
        &to,
        "--shop=main",
        "--type=order.created",
    ];
    assert_eq!(up.ask(&[&replay[..], &["--dry-run"]].concat()).await["replayed"], 1);
    assert_eq!(up.ask(&replay).await["replayed"], 1);

    let audited = up.ask(&["audit", "--json"]).await;
    assert_eq!(audited["orphans"], serde_json::json!([]));
    assert_eq!(
        (&audited["books"][0]["provider"], &audited["books"][0]["accepted"]),
        (&"aboutyou".into(), &1.into())
    );
    let retain = ["retain", "aboutyou", "--from", received_at, "--to", &to];
    let retained = up.ask(&[&retain[..], &["--dry-run"]].concat()).await;
    assert_eq!((&retained["marked"], &retained["done"]), (&0.into(), &true.into()));

    assert_eq!(up.ask(&["requeue"]).await["requeued"], 0);
    assert_eq!(up.ask(&["reprocess", "--provider=deeple"]).await["accepted"], 0);
    let unsupported = [
        "reprocess",
        "--unsupported",
        "--provider=aboutyou",
        "--from",
        received_at,
        "--to",
        &to,
    ];
    assert_eq!(up.ask(&unsupported).await["accepted"], 0);
    assert_eq!(up.ask(&["reprocess", "--event-id", event_id]).await["accepted"], 0);
    assert_eq!(up.ask(&["dismiss", event_id]).await["dismissed"], 0);
    assert_eq!(up.ask(&["undismiss", event_id]).await["undismissed"], 0);
    let conflict = ["publish-conflict", event_id, &"0".repeat(64)];
    assert_eq!(up.ask(&conflict).await["status"], "not_found");
    let by_email = [
        "erase",
        "aboutyou",
        "main",
        "--email=nobody@example.com",
        "--from",
        received_at,
        "--to",
        &to,
    ];
    let counted = up.ask(&by_email).await;
    assert_eq!((&counted["erased"], &counted["done"]), (&0.into(), &true.into()));
    assert_eq!(up.ask(&["erase", event_id]).await["erased"], 1);
    let counted = up.ask(&[&["erase"][..], &order].concat()).await;
    assert_eq!((&counted["erased"], &counted["dry_run"]), (&1.into(), &true.into()));
    let erased = up.ask(&[&["erase"][..], &order, &["--yes"]].concat()).await;
    assert_eq!((&erased["erased"], &erased["dry_run"]), (&1.into(), &false.into()));
    assert_eq!(up.ask(&["get", event_id]).await["events"][0]["event"], Value::Null);

    let output = local_command()
        .args(["get", "no-id", "--sns-port", up.port("sns")])
        .output()
        .await
        .expect("the command runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("event_id is not 64 hex digits"),
        "{error}"
    );
}

#[tokio::test]
async fn reconcile_counts_by_day_and_then_publishes() {
    let mut up = Up::with(&[]).await;
    let url = up.endpoints["snipcart_api"].as_str().expect("an address");
    let port = url
        .trim_end_matches("/api")
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    // What is sent is known to the API too; what is lost, to the API alone.
    let lost = ["selldone", "checkout-order", "--lost", "--snipcart-port", &port];
    assert!(up.send(&lost).await.contains("its webhook never arrives"));
    up.send(&["selldone", "sent-order", "--fresh"]).await;
    assert!(up.says().await.contains("accepted"));
    let reconcile = [
        "reconcile",
        "selldone",
        "main",
        "--from=2024-09-30T00:00:00Z",
        "--to=2024-10-02T00:00:00Z",
    ];
    let output = local_command()
        .args(reconcile)
        .args(["--dry-run", "--sns-port", up.port("sns")])
        .output();
    let output = output.await.expect("the command runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "placed on   compared  missing  newer\n\
         2024-09-30         2        1      0\n\
         all                2        1      0\n",
        "{output:?}"
    );
    let done = up.ask(&[&reconcile[..], &["--json"]].concat()).await;
    assert_eq!((&done["missing"], &done["accepted"]), (&1.into(), &1.into()), "{done}");
    let line = up.says().await;
    assert!(line.contains("reconciled") && line.contains("1001"), "{line}");
    let done = up.ask(&[&reconcile[..], &["--json"]].concat()).await;
    assert_eq!((&done["missing"], &done["known"]), (&0.into(), &2.into()), "{done}");

    let output = local_command()
        .args(["reconcile", "selldone", "second", "--from=2024-09-30T00:00:00Z"])
        .args(["--sns-port", up.port("sns")])
        .output();
    let output = output.await.expect("the command runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("has no `api` for this shop"),
        "{error}"
    );
    let gateway = up.endpoints["gateway"].as_str().expect("an address");
    let (status, page) = get_text(&format!("{gateway}/reconciliation")).await;
    assert!(status == 200 && page.contains("selldone / main"), "{page}");
    up.end().await;
}
