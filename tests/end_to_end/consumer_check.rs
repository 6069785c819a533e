//! `cargo local consumer-check` names the rule that a consumer breaks, and finds nothing wrong with one that breaks
//! none.

use std::time::Duration;

use local::consumer_check::{Check, Limits, Queue, Report};
use tests::Stack;
use tests::consumer::{Consumer, Fault};

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
