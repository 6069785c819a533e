//! The command `cargo local`, in processes of its own.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::local_command;
use tests::providers::PROVIDERS;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// One for each provider, redrive and reconcile.
const FUNCTIONS: usize = PROVIDERS.len() + 2;

/// A running `cargo local up`.
struct Up {
    process: Child,
    /// The output until the stack was ready.
    printed: String,
    /// The lines after that, one for each delivery.
    said: mpsc::UnboundedReceiver<String>,
    /// The addresses that it wrote to `--endpoints-file`.
    endpoints: Value,
}

impl Up {
    /// Starts a stack on free ports.
    async fn start() -> Self {
        Self::with(&["--quiet"]).await
    }

    async fn with(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("endpoints.json");
        let mut process = local_command()
            .args([
                "up",
                "--port=0",
                "--dynamodb-port=0",
                "--sns-port=0",
                "--snipcart-port=0",
            ])
            .arg("--endpoints-file")
            .arg(&file)
            .args(flags)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the command starts");
        let mut lines = BufReader::new(process.stdout.take().expect("the output")).lines();
        let mut printed = String::new();
        while let Some(line) = lines.next_line().await.expect("a line") {
            printed.push_str(&line);
            printed.push('\n');
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        let (sender, said) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = sender.send(line);
            }
        });
        let endpoints = fs::read(&file).expect("it is written before the text ends");
        Self {
            process,
            printed,
            said,
            endpoints: serde_json::from_slice(&endpoints).expect("JSON"),
        }
    }

    fn id(&self) -> u32 {
        self.process.id().expect("the command runs")
    }

    /// The port of one of the addresses.
    fn port(&self, name: &str) -> &str {
        let url = self.endpoints[name].as_str().expect("an address");
        url.rsplit(':').next().expect("a port")
    }

    /// Runs `cargo local send` against the stack.
    async fn send(&self, arguments: &[&str]) -> String {
        let output = local_command()
            .arg("send")
            .args(arguments)
            .args(["--port", self.port("gateway")])
            .args(["--dynamodb-port", self.port("dynamodb")])
            .args(["--sns-port", self.port("sns")])
            .output()
            .await
            .expect("the command runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a task of an operator against the stack, and returns the printed answer.
    async fn ask(&self, arguments: &[&str]) -> Value {
        let output = local_command()
            .args(arguments)
            .args(["--sns-port", self.port("sns")])
            .output()
            .await
            .expect("the command runs");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The line of the next delivery.
    async fn says(&mut self) -> String {
        let said = tokio::time::timeout(Duration::from_secs(20), self.said.recv()).await;
        said.expect("a line in time").expect("the stack runs")
    }

    async fn end(mut self) {
        self.signal("-TERM").await;
        assert!(self.process.wait().await.expect("the process ends").success());
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
    // A zombie has ended.
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
async fn send_sums_up_an_event() {
    let up = Up::start().await;
    for (arguments, expected) in [
        (
            &["snipcart", "order-completed"][..],
            &[
                "POST http://127.0.0.1:",
                "200 accepted in ",
                "The event is new.",
                "  type       order.created\n",
                "  state      published\n",
                " bytes, taken from the queue\n",
                "/deliveries/1\n",
            ][..],
        ),
        (
            &["snipcart", "order-completed"],
            &[
                "200 duplicate in ",
                "published; the message is no longer in the queue",
                "/deliveries/2\n",
            ],
        ),
        (
            &["snipcart", "unknown-event"],
            &[
                "200 quarantined (unknown_event) in ",
                "not published",
                "state      quarantined",
            ],
        ),
        (
            &["snipcart", "taxes-calculate"],
            &["200 unsupported in ", "not an order event", "state      unsupported"],
        ),
        (
            &["selldone", "checkout-order", "--token", "wrong"],
            &["401 refused in ", "Nothing was stored", "/deliveries/5\n"],
        ),
    ] {
        let sent = up.send(arguments).await;
        for part in expected {
            assert!(sent.contains(part), "{part} is not in:\n{sent}");
        }
        assert!(!sent.contains('\u{1b}'), "colours without a terminal: {sent:?}");
        assert!(!sent.contains("Stored item") && !sent.contains("token="), "{sent}");
    }
}

#[tokio::test]
async fn send_shows_the_items_in_full_if_asked() {
    let up = Up::start().await;
    let sent = up.send(&["selldone", "checkout-order", "--verbose"]).await;
    for part in [
        "200 accepted in ",
        "\nAnswer\n{\n  \"event_id\": ",
        "\nStored item\n",
        "  state            published\n",
        "\nPublished event (taken from the queue)\n{\n",
        "\n  \"type\": \"order.created\",\n",
    ] {
        assert!(sent.contains(part), "{part} is not in:\n{sent}");
    }
}

#[tokio::test]
async fn send_prints_one_json_document_for_programs() {
    let up = Up::start().await;
    let sent = up.send(&["selldone", "checkout-order", "--json"]).await;
    let sent: Value = serde_json::from_str(&sent).expect("JSON");
    assert_eq!((&sent["status"], &sent["outcome"]), (&200.into(), &"accepted".into()));
    assert_eq!(sent["answer"]["event_id"], sent["event"]["id"]);
    assert_eq!(sent["message"]["event"]["id"], sent["event"]["id"]);
    assert_eq!(sent["item"]["state"], "published");
    assert!(sent["item"]["payload"].as_str().expect("text").starts_with('{'));
    assert!(sent["page"].as_str().expect("a link").ends_with("/deliveries/1"));

    let refused = up
        .send(&["selldone", "checkout-order", "--token=wrong", "--json"])
        .await;
    let refused: Value = serde_json::from_str(&refused).expect("JSON");
    assert_eq!(
        (
            &refused["status"],
            &refused["outcome"],
            &refused["item"],
            &refused["message"]
        ),
        (&401.into(), &"refused".into(), &Value::Null, &Value::Null)
    );
}

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

#[tokio::test]
async fn connect_subscribes_to_the_events_of_a_shop() {
    let up = Up::start().await;
    let connect = async |arguments: &[&str]| {
        let output = local_command()
            .arg("connect")
            .args(arguments)
            .args(["--sns-port", up.port("sns")])
            .output()
            .await
            .expect("the command runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let gateway = ["--port", up.port("gateway")];
    let cartum = [&["cartum", "main"][..], &gateway].concat();
    let (code, printed, _) = connect(&cartum).await;
    let expected = "order_created  subscribed  id 1\n\
                    order_paid     subscribed  id 2\n\
                    order_update   subscribed  id 3\n";
    assert_eq!((code, printed.as_str()), (Some(0), expected));
    let known = connect(&[&cartum[..], &["--json"]].concat()).await;
    let known: Value = serde_json::from_str(&known.1).expect("JSON");
    assert_eq!(
        (&known["done"], &known["subscriptions"][2]["status"]),
        (&true.into(), &"known".into()),
        "{known}"
    );
    let again = connect(&[&cartum[..], &["--again", "order_paid"]].concat()).await;
    assert_eq!(again.0, Some(0), "{again:?}");
    assert!(
        again.1.contains("order_paid     subscribed  id 4\n") && again.1.contains("order_update   known"),
        "{again:?}"
    );

    let (code, printed, error) = connect(&["cartum", "main", "--url=https://other.example.com"]).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(printed.contains("order_created  elsewhere  id 1; "), "{printed}");
    let expected = "not all order events of the shop main of cartum are subscribed to https://other.example.com";
    assert!(error.contains(expected), "{error}");
    for (arguments, expected) in [
        (&["selldone", "main"][..], "functions/selldone/README.md"),
        (&["cartum", "second"], "has no `api`"),
        (
            &["cartum", "main", "--again=order_lost"],
            "order_created, order_paid, order_update",
        ),
        (&["cartum", "main", "--url=api.example.com"], "url is not like https://"),
    ] {
        let (code, printed, error) = connect(arguments).await;
        assert_eq!((code, printed.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }

    let url = up.endpoints["gateway"].as_str().expect("an address");
    let (status, page) = get_text(&format!("{url}/reconciliation")).await;
    assert!(
        status == 200 && page.contains("cartum / main") && page.contains("order_paid"),
        "{page}"
    );
    assert!(!page.contains(local::project::settings::TOKEN), "{page}");
    up.end().await;
}

#[tokio::test]
async fn an_ended_subscription_is_renewed_if_that_is_on() {
    let expected = [
        ("renewed", &["--quiet", "--auto-resubscribe"][..]),
        ("ended", &["--quiet"]),
    ];
    for (status, flags) in expected {
        let up = Up::with(flags).await;
        let connected = up
            .ask(&["connect", "cartum", "main", "--json", "--port", up.port("gateway")])
            .await;
        assert_eq!(connected["done"], true, "{connected}");
        let ended = up.send(&["cartum", "delete-unsubscribed"]).await;
        assert!(ended.contains("200 unsupported"), "{ended}");
        let url = up.endpoints["lambda"].as_str().expect("an address");
        let task = serde_json::json!({"reconcile": {"provider": "cartum"}});
        let run: Value = local::lambda::invoke_api::invoke(url, "reconcile", &task)
            .await
            .expect("an answer");
        let subscription = &run["shops"][0]["subscriptions"][0];
        assert_eq!(
            (&subscription["event"], &subscription["status"]),
            (&"order_created".into(), &status.into()),
            "{run}"
        );
        up.end().await;
    }
}

#[tokio::test]
async fn connect_shows_the_client_secret_of_aboutyou_once() {
    let up = Up::start().await;
    let connect = async || {
        let output = local_command()
            .args(["connect", "aboutyou", "main", "--port", up.port("gateway")])
            .args(["--sns-port", up.port("sns")])
            .output();
        let output = output.await.expect("the command runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let printed = connect().await;
    assert!(
        printed.starts_with("orders  subscribed  id 1\nclient secret: "),
        "{printed}"
    );
    assert_eq!(connect().await, "orders  known  id 1\n");
    up.end().await;
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

async fn get_text(url: &str) -> (u16, String) {
    let request = http::Request::get(url).body(bytes::Bytes::new()).expect("a request");
    let client = local::net::client::Client::new(url).expect("a client");
    let answer = client.send(request).await.expect("an answer");
    (
        answer.status().as_u16(),
        String::from_utf8_lossy(answer.body()).into_owned(),
    )
}

async fn get(url: &str) -> Value {
    serde_json::from_str(&get_text(url).await.1).expect("JSON")
}

#[tokio::test]
async fn ctrl_c_and_kill_end_all_children() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let mut up = Up::start().await;
        let children = children(up.id());
        assert_eq!(children.len(), FUNCTIONS, "one process for each function");
        up.signal(signal).await;
        assert!(up.process.wait().await.expect("the process ends").success(), "{signal}");
        until_gone(&children).await;
    }
}

#[tokio::test]
async fn children_end_when_the_stack_is_killed() {
    let mut up = Up::start().await;
    let children = children(up.id());
    assert_eq!(children.len(), FUNCTIONS);
    up.process.kill().await.expect("the process is killed");
    until_gone(&children).await;
}

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
