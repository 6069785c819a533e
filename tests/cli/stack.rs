//! The stack that `cargo local` starts: what it prints, keeps and exposes.

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use tests::local_command;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::run;
use crate::up::{Up, get, get_text};

#[tokio::test]
async fn up_prints_the_addresses_and_send_counts_the_answers() {
    let up = Up::start().await;
    for line in [
        "ANY http://127.0.0.1:",
        "export AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:",
        "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local",
        "topic arn:aws:sns:us-east-1:000000000000:order-events",
        "curl -i -X PUT 'http://127.0.0.1:",
        "-H 'x-snipcart-requesttoken: local-",
        "-H 'signature: ",
    ] {
        assert!(up.printed.contains(line), "{line} is not in:\n{}", up.printed);
    }

    let same = up.send(&["cartum", "order-created", "--count", "20"]).await;
    assert!(
        same.contains(" 1  200 accepted") && same.contains("19  200 duplicate"),
        "{same}"
    );
    let fresh = up
        .send(&["cartum", "order-created", "--count", "20", "--rate", "200", "--fresh"])
        .await;
    assert!(
        fresh.contains("20 sent in ") && fresh.contains("20  200 accepted"),
        "{fresh}"
    );
    let report = up.send(&["cartum", "order-created", "--count", "2", "--json"]).await;
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(
        (&report["sent"], &report["answers"]["200 duplicate"]),
        (&2.into(), &2.into())
    );
}

#[tokio::test]
async fn each_delivery_is_one_line_and_a_data_folder_persists() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = format!("--data={}", folder.path().display());
    let mut up = Up::with(&[&data]).await;
    up.send(&["selldone", "checkout-order"]).await;
    let line = up.says().await;
    for part in ["200 accepted", "selldone/main", "order.created", "1001"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!line.contains('\u{1b}'), "colours without a terminal: {line:?}");
    up.send(&["selldone", "checkout-order", "--token", "wrong"]).await;
    let line = up.says().await;
    assert!(
        line.contains("401 refused") && line.contains("the token is wrong"),
        "{line}"
    );

    let other = run(&[
        "--port=0",
        "--dynamodb-port=0",
        "--sns-port=0",
        "--snipcart-port=0",
        &data,
    ])
    .await;
    let error = String::from_utf8_lossy(&other.stderr);
    assert!(
        !other.status.success() && error.contains("another `cargo local` has it open"),
        "{error}"
    );
    up.end().await;

    // The table and the deliveries are kept: the same event is a duplicate.
    let up = Up::with(&[&data]).await;
    let again = up.send(&["selldone", "checkout-order"]).await;
    assert!(again.contains("200 duplicate"), "{again}");
    let rows = get(&format!("http://127.0.0.1:{}/deliveries.json", up.port("gateway"))).await;
    let outcomes: Vec<&str> = rows["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["outcome"].as_str())
        .collect();
    assert_eq!(outcomes, ["duplicate", "refused", "accepted"]);
    up.end().await;
}

#[tokio::test]
async fn real_secrets_and_a_port_for_a_tunnel_can_be_set() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(
        &file,
        r#"{"selldone": {"shops": {"mine": {"tokens": ["a-real-token-of-20-characters"]}}}}"#,
    )
    .expect("the file is written");
    let secrets = format!("--secrets={}", file.path().display());
    let mut up = Up::with(&[&secrets, "--tunnel-port=0"]).await;
    assert!(!up.printed.contains("a-real-token"), "{}", up.printed);
    let gateway = up.port("gateway").to_owned();
    up.send(&["selldone", "checkout-order"]).await;
    assert!(up.says().await.contains("the shop is not configured"));
    up.send(&["cartum", "order-created"]).await;
    assert!(up.says().await.contains("the secret names no shop"));
    let real = ["--shop=mine", "--token=a-real-token-of-20-characters"];
    up.send(&[&["selldone", "checkout-order"][..], &real].concat()).await;
    assert!(up.says().await.contains("200 accepted      selldone/mine"));
    let delivery = get_text(&format!("http://127.0.0.1:{gateway}/deliveries/3")).await;
    assert!(
        delivery.1.contains("••••••") && !delivery.1.contains("a-real-token"),
        "{}",
        delivery.1
    );

    let tunnel = up.port("tunnel").to_owned();
    assert_ne!(tunnel, gateway);
    let (status, text) = get_text(&format!("http://127.0.0.1:{tunnel}/")).await;
    assert_eq!((status, text.as_str()), (404, r#"{"message":"Not Found"}"#));
    let (status, _) = get_text(&format!("http://127.0.0.1:{tunnel}/webhooks/selldone/mine")).await;
    assert_eq!(status, 405, "a route");
    up.end().await;
}

#[tokio::test]
async fn json_output_has_one_line_for_each_delivery() {
    let mut process = local_command()
        .args([
            "--json",
            "--port=0",
            "--dynamodb-port=0",
            "--sns-port=0",
            "--snipcart-port=0",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the command starts");
    let mut errors = BufReader::new(process.stderr.take().expect("the output")).lines();
    let mut url = String::new();
    while let Some(line) = errors.next_line().await.expect("a line") {
        if let Some((_, page)) = line.split_once("Dashboard: ") {
            page.clone_into(&mut url);
        }
        if line.starts_with("Ctrl-C") {
            break;
        }
    }
    tokio::spawn(async move { while let Ok(Some(_)) = errors.next_line().await {} });
    get_text(&format!("{url}webhooks/snipcart/main")).await;
    let mut lines = BufReader::new(process.stdout.take().expect("the output")).lines();
    let line = lines.next_line().await.expect("a line").expect("a delivery");
    let said: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(
        (&said["outcome"], &said["provider"], &said["status"]),
        (&"invalid".into(), &"snipcart".into(), &405.into())
    );
}
