//! `cargo local` as a developer uses it: the command itself, in processes of its own.

use std::fs;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::local_command;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A running `cargo local up`.
struct Up {
    process: Child,
    /// What it printed before it was ready.
    printed: String,
}

impl Up {
    /// On free ports.
    async fn start() -> Self {
        let mut process = local_command()
            .args([
                "up",
                "--quiet",
                "--port=0",
                "--dynamodb-port=0",
                "--sns-port=0",
                "--snipcart-port=0",
            ])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let mut printed = String::new();
        while let Some(line) = lines.next_line().await.expect("a line") {
            printed.push_str(&line);
            printed.push('\n');
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        // Deliveries are printed as long as it runs.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { process, printed }
    }

    fn id(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    /// The port in the line that holds `text`.
    fn port(&self, text: &str) -> &str {
        let line = self.printed.lines().find(|line| line.contains(text)).expect("the line");
        let (_, rest) = line.split_once("127.0.0.1:").expect("an address");
        rest.split(|character: char| !character.is_ascii_digit())
            .next()
            .expect("a port")
    }

    /// `cargo local send` to it.
    async fn send(&self, arguments: &[&str]) -> String {
        let output = local_command()
            .arg("send")
            .args(arguments)
            .args(["--port", self.port("/webhooks/selldone/{shop}")])
            .args(["--dynamodb-port", self.port("AWS_ENDPOINT_URL_DYNAMODB")])
            .args(["--sns-port", self.port("AWS_ENDPOINT_URL_SNS")])
            .output()
            .await
            .expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What `cargo local` prints for a task of an operator.
    async fn ask(&self, arguments: &[&str]) -> Value {
        let output = local_command()
            .args(arguments)
            .args(["--sns-port", self.port("AWS_ENDPOINT_URL_SNS")])
            .output()
            .await
            .expect("it runs");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    async fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.id().to_string()])
            .status()
            .await;
        assert!(sent.expect("kill").success());
    }
}

/// The processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter(|process| parent_of(*process) == Some(parent))
        .collect()
}

/// After the name, which may hold anything, come the state and the parent.
fn parent_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // One that has ended and that nobody has asked about yet counts as gone.
    (state != "Z").then_some(parent)
}

async fn until_gone(processes: &[u32]) {
    let begun = Instant::now();
    while processes.iter().any(|process| parent_of(*process).is_some()) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{processes:?} are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn up_says_where_everything_is_and_send_shows_what_becomes_of_an_event() {
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

    let sent = up.send(&["snipcart", "order-completed"]).await;
    for line in [
        "200 OK in ",
        r#""status":"accepted""#,
        "state            published",
        "\n  \"type\": \"order.created\",\n",
    ] {
        assert!(sent.contains(line), "{line} is not in:\n{sent}");
    }
    let again = up.send(&["snipcart", "order-completed"]).await;
    assert!(again.contains("Nothing was published now"), "{again}");
    let unsupported = up.send(&["snipcart", "taxes-calculate"]).await;
    assert!(unsupported.contains("no order event"), "{unsupported}");

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
    let refused = up.send(&["selldone", "checkout-order", "--token", "wrong"]).await;
    assert!(
        refused.contains("401") && refused.contains("Nothing was stored"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_an_operator_asks_is_done_and_its_answer_printed() {
    let up = Up::start().await;
    assert_eq!(up.ask(&["redrive"]).await["done"], true);
    up.send(&["aboutyou", "order-created"]).await;
    let all = [
        "replay",
        "aboutyou",
        "--from=2026-01-01T00:00:00Z",
        "--to=2026-01-01T01:00:00Z",
    ];
    assert_eq!(up.ask(&all).await["replayed"], 0, "it is not from then");

    let order = ["aboutyou", "main", "ayou-139-48201"];
    let shown = up.ask(&[&["get"][..], &order].concat()).await;
    let event_id = shown["events"][0]["event_id"].as_str().expect("the event");
    assert_eq!(up.ask(&["show", event_id]).await, shown);
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

    assert_eq!(up.ask(&["requeue"]).await["requeued"], 0);
    assert_eq!(up.ask(&["reprocess", "--provider=deeple"]).await["accepted"], 0);
    let counted = up.ask(&[&["erase"][..], &order].concat()).await;
    assert_eq!((&counted["erased"], &counted["dry_run"]), (&1.into(), &true.into()));
    let erased = up.ask(&[&["erase"][..], &order, &["--yes"]].concat()).await;
    assert_eq!((&erased["erased"], &erased["dry_run"]), (&1.into(), &false.into()));
    assert_eq!(up.ask(&["get", event_id]).await["events"][0]["event"], Value::Null);

    let output = local_command()
        .args(["get", "no-id", "--sns-port", up.port("AWS_ENDPOINT_URL_SNS")])
        .output()
        .await
        .expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("event_id is not 64 hex digits"),
        "{error}"
    );
}

#[tokio::test]
async fn ctrl_c_and_kill_leave_no_child_behind() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let mut up = Up::start().await;
        let children = children(up.id());
        assert_eq!(children.len(), 6, "one of each function");
        up.signal(signal).await;
        assert!(up.process.wait().await.expect("it ends").success(), "{signal}");
        until_gone(&children).await;
    }
}

#[tokio::test]
async fn children_end_by_themselves_when_the_stack_is_gone() {
    let mut up = Up::start().await;
    let children = children(up.id());
    assert_eq!(children.len(), 6);
    up.process.kill().await.expect("it is killed");
    until_gone(&children).await;
}

async fn run(arguments: &[&str]) -> Output {
    local_command().args(arguments).output().await.expect("it runs")
}

#[tokio::test]
async fn a_port_in_use_and_unknown_names_say_what_to_do() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    for (arguments, told) in [
        (&["--port", &port][..], format!("port {port} cannot be used")),
        (
            &["up", "--port=0", "--dynamodb-port", &port],
            "--dynamodb-port PORT takes another one".to_owned(),
        ),
        (
            &["send", "shopify", "order"],
            "there are aboutyou, cartum, deeple, selldone, snipcart".to_owned(),
        ),
        (&["send", "deeple", "order"], "it has empty-object, ".to_owned()),
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
            !output.status.success() && error.contains(&told),
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
        "it is signed now"
    );
}
