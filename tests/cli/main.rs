//! The command `cargo local`, in processes of its own.

mod connect;
mod processes;
mod send;
mod stack;
mod tasks;
mod up;

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tests::local_command;
use tests::providers::PROVIDERS;

/// Runs a command until its end.
async fn run(arguments: &[&str]) -> Output {
    local_command()
        .args(arguments)
        .output()
        .await
        .expect("the command runs")
}

#[tokio::test]
async fn errors_about_ports_and_names_suggest_a_remedy() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("the address").port().to_string();
    let mut providers: Vec<_> = PROVIDERS.iter().map(|facts| facts.name).collect();
    providers.sort_unstable();
    for (arguments, message) in [
        (&["--port", &port][..], format!("port {port} cannot be used")),
        (
            &["up", "--port=0", "--dynamodb-port", &port],
            "--dynamodb-port PORT selects another port".to_owned(),
        ),
        (
            &["send", "shopify", "order"],
            format!("known are {}", providers.join(", ")),
        ),
        (&["send", "deeple", "order"], "only empty-object, ".to_owned()),
        (
            &["send", "deeple", "order-changed", "--url", "ftp://127.0.0.1"],
            "https:// or http://".to_owned(),
        ),
        (
            &["send", "deeple", "order-changed", "--port", "1"],
            "Is `cargo local` running?".to_owned(),
        ),
    ] {
        let output = run(arguments).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && error.contains(&message),
            "{arguments:?}: {error}"
        );
    }
}

#[tokio::test]
async fn list_names_every_event_and_event_prints_one() {
    let listed = String::from_utf8(run(&["list"]).await.stdout).expect("text");
    for line in ["snipcart\n", "  order-completed\n", "  checkout-order\n"] {
        assert!(listed.contains(line), "{listed}");
    }
    let event = run(&["event", "deeple", "order-changed", "--shop", "other"])
        .await
        .stdout;
    let event: serde_json::Value = serde_json::from_slice(&event).expect("an event");
    assert_eq!(event["rawPath"], "/webhooks/deeple/other");
    let signed: i64 = event["headers"]["timestamp"]
        .as_str()
        .expect("a time")
        .parse()
        .expect("a time");
    assert!(
        jiff::Timestamp::now().as_millisecond() - signed < 60_000,
        "the signature is new"
    );
}

#[tokio::test]
async fn the_bench_runs_a_function_over_tls_too() {
    let command = local_command();
    let binaries = Path::new(command.as_std().get_program()).parent().expect("the folder");
    let report = tempfile::NamedTempFile::new().expect("a file");
    let bench = run(&[
        "bench",
        "--only=snipcart",
        "--quick",
        "--runs=1",
        "--events=10",
        &format!("--binaries={}", binaries.display()),
        &format!("--json={}", report.path().display()),
    ])
    .await;
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
    let measured: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    for endpoints in ["plain", "tls"] {
        let calls = &measured[endpoints]["snipcart"]["calls_per_event"];
        assert_eq!(calls, 4.0, "{endpoints}: the validation, and three of the AWS SDK");
    }
}
