//! `cargo local consumer-check` names the rule that a consumer breaks, and finds nothing wrong with one that breaks
//! none.

use std::ffi::OsStr;
use std::time::Duration;

use local::consumer_check::{Check, Limits, Queue, Report};
use tests::aws_cli::AwsCli;
use tests::consumer::{Consumer, Fault};
use tests::{Stack, local_command};

async fn check(fault: Fault) -> Report {
    let stack = Stack::start().await;
    let consumer = Consumer::start(&stack, fault).await;
    let limits = Limits {
        handled: Duration::from_secs(5),
        settled: Duration::from_millis(50),
    };
    let asked = local::consumer_check::Consumer::Url(consumer.url());
    let check = Check::new(Queue::new(stack.queue().url()), asked, limits);
    check.run(1, |_| {}).await.expect("the check ends")
}

/// Checks a consumer with a fault, and that the smallest history has this number of messages.
async fn breaks(fault: Fault, rule: &str, messages: usize) {
    let report = check(fault).await;
    assert_eq!(report.rules(), [rule], "{report}");
    let shown = report.to_string();
    assert_eq!(shown.matches("\n  - ").count(), messages, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_follows_every_rule_passes() {
    let report = check(Fault::None).await;
    assert!(report.is_passed() && report.unchecked.is_empty(), "{report}");
    assert!(report.passed > 40, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_without_deduplication_is_found() {
    // The refund twice.
    breaks(Fault::NoDeduplication, "deduplication", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_stuck_while_a_history_is_shortened_ends_the_check() {
    let report = check(Fault::NoDeduplicationAndRefusesUnknownOrders).await;
    assert_eq!(report.rules(), ["deduplication"], "{report}");
    let shown = report.to_string();
    assert_eq!(
        shown.matches("\n  - ").count(),
        3,
        "the history cannot be shortened: {report}"
    );
    assert_eq!(shown.matches("not checked: ").count(), 8, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_last_arrival_wins_is_found() {
    breaks(Fault::LastArrivalWins, "ordering", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_ignores_partial_is_found() {
    breaks(Fault::IgnoresPartial, "partial", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_mixes_shops_is_found() {
    breaks(Fault::MixesShops, "shops", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_fails_on_an_unknown_field_is_found() {
    breaks(Fault::FailsOnAnUnknownField, "unknown fields", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_takes_a_replay_as_new_is_found() {
    // The refund and its replay.
    breaks(Fault::TakesAReplayAsNew, "replay", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_drops_what_is_omitted_is_found() {
    breaks(Fault::DropsWhatIsOmitted, "omitted", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_forgets_an_erased_event_is_found() {
    // The shipment, and the replay of the order's first event.
    breaks(Fault::StartsAgainAtAReplay, "erased", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_breaks_ties_by_arrival_is_found() {
    breaks(Fault::BreaksTiesByArrival, "combined", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_takes_a_test_order_as_real_is_found() {
    breaks(Fault::TakesATestOrderAsReal, "test orders", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_nobody_reads_is_an_error() {
    let stack = Stack::start().await;
    let limits = Limits {
        handled: Duration::from_millis(200),
        settled: Duration::from_millis(50),
    };
    let asked = local::consumer_check::Consumer::Command("true".to_owned());
    let check = Check::new(Queue::new(stack.queue().url()), asked, limits);
    let error = check.run(1, |_| {}).await.expect_err("nobody reads the queue");
    assert!(error.to_string().contains("Is the consumer running"), "{error}");
}

/// The URL of a queue of AWS.
const QUEUE_OF_AWS: &str = "https://sqs.eu-central-1.amazonaws.com/111122223333/orders";

/// Runs `cargo local consumer-check` for a queue of AWS with this `PATH`, and returns its exit code and its output.
async fn check_of_aws(path: &OsStr, queue: &str, state_url: &str) -> (Option<i32>, String) {
    let output = local_command()
        .args(["consumer-check", "--queue", queue, "--state-url", state_url])
        .args(["--handled-within=5", "--settled-within=5"])
        .env("PATH", path)
        .output();
    let output = output.await.expect("the command runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_aws_is_used_through_the_aws_cli() {
    let stack = Stack::start().await;
    let cli = AwsCli::for_queue(&stack, QUEUE_OF_AWS, "eu-central-1").await;
    let consumer = Consumer::start(&stack, Fault::FailsOnAnUnknownField).await;
    let (code, said) = check_of_aws(&cli.path(), QUEUE_OF_AWS, &consumer.url()).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("! unknown fields: "), "{said}");
    assert!(said.contains("The last message was still in the queue"), "{said}");
    let calls = cli.calls();
    assert!(
        calls["send-message"] > 1 && calls["get-queue-attributes"] > calls["send-message"],
        "{calls:?}"
    );
    // The message that was not handled.
    assert_eq!(calls["purge-queue"], 1, "{calls:?}");
    assert!(stack.messages().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_the_aws_cli_is_shown() {
    let stack = Stack::start().await;
    let cli = AwsCli::for_queue(&stack, QUEUE_OF_AWS, "eu-central-1").await;
    let other = QUEUE_OF_AWS.replace("orders", "other");
    let (code, said) = check_of_aws(&cli.path(), &other, "http://127.0.0.1:1/state").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("the queue {other} cannot be used")), "{said}");
    assert!(said.contains("The specified queue does not exist"), "{said}");

    let (code, said) = check_of_aws(OsStr::new(""), QUEUE_OF_AWS, "http://127.0.0.1:1/state").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("needs the AWS CLI"), "{said}");
}
