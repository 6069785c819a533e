//! Redrive publishes the backlog of an outage in constant memory.

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

/// The growth that the allocator may cause, which is far less than the size of the backlog.
const ROOM_KIB: u64 = 8 * 1024;

/// The memory that redrive may use for large orders, of at least 192 MiB.
const LARGE_KIB: u64 = 48 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_drains_in_constant_memory() {
    let _alone = crate::alone().await;
    // The full check runs with 100,000 events.
    let events = env::var("BACKLOG_EVENTS").map_or(400, |events| events.parse().expect("a number"));
    let report = drained(events, 0).await;
    assert!(
        report.growth() <= ROOM_KIB,
        "the memory grows with the backlog:\n{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_large_orders_drains_in_little_memory() {
    let _alone = crate::alone().await;
    let report = drained(120, 240_000).await;
    assert!(
        report.peak <= LARGE_KIB,
        "redrive uses more memory than the orders in progress need:\n{report}"
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
    let report = run(&stack, &orders, plan, |_| {}).await.expect("the run completes");
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
        "the memory was not measured:\n{report}"
    );
    report
}
