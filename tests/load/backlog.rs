//! What an outage has left behind is published in the end, and in the same memory however much it is.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use local::project::build::workspace;
use local::project::template;
use local::providers::generator::{Choice, Orders};
use local::providers::samples::Catalogue;
use local::recorder::log::Log;
use local::stack::{Config, Stack};
use local::workloads::backlog::{Plan, Report, run};

/// What the allocator needs to come to rest: far less than the events of the backlog would take.
const ROOM_KIB: u64 = 8 * 1024;

/// What redrive may take for large orders, of the 192 MiB that a function has at least.
const LARGE_KIB: u64 = 48 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_drains_to_its_last_event_and_in_the_same_memory_however_long_it_is() {
    // The full check takes 100,000.
    let events = env::var("BACKLOG_EVENTS").map_or(400, |events| events.parse().expect("a number"));
    let report = drained(events, 0).await;
    assert!(
        report.growth() <= ROOM_KIB,
        "the memory grows with the backlog:\n{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_large_orders_drains_in_the_memory_there_is() {
    let report = drained(120, 240_000).await;
    assert!(
        report.peak <= LARGE_KIB,
        "it is more than the orders in hand need:\n{report}"
    );
}

async fn drained(events: usize, larger_by: usize) -> Report {
    let functions = template::read(&workspace().join("template.yaml")).expect("the template");
    let config = Config::new(functions, tests::binaries().clone(), Log::notices());
    let stack = Arc::new(Stack::start(config).await.expect("the stack starts"));
    let catalogue = Catalogue::read(workspace().join("events")).expect("events/");
    let orders = Orders::read(&catalogue, &[], Choice::Plainest, 1).expect("orders");
    let plan = Plan {
        events,
        larger_by,
        dynamodb: Duration::ZERO,
        sns: Duration::ZERO,
    };
    let report = run(&stack, &orders, plan, |_| {}).await.expect("it comes to its end");
    eprintln!("{report}");
    assert_eq!(
        (
            report.events,
            report.arrived,
            report.arrived_more_than_once,
            report.waiting
        ),
        (events, events, 0, 0),
        "{report}"
    );
    assert!(
        report.memory.iter().all(|memory| *memory > 0),
        "it was looked at:\n{report}"
    );
    report
}
