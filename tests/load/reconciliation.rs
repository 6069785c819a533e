//! Reconcile compares orders that have not changed in constant memory, and reads neither a body nor an event for that.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use local::aws::faults::{Call, Service};
use local::lambda::{memory, processor_time};
use local::project::settings::RECONCILE;
use local::providers::lifecycle::State;
use serde_json::{Value, json};
use tests::Stack;

/// The growth of the memory that the allocator may cause.
const ROOM_KIB: u64 = 8 * 1024;
/// How often the memory is read.
const TICK: Duration = Duration::from_millis(20);

/// Whether a call reads the body of a delivery, or an event.
fn reads_content(call: &Call) -> bool {
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    let names = |request: &Value| {
        let projection = request["ProjectionExpression"].as_str().map(str::to_owned);
        let names = request["ExpressionAttributeNames"].as_object().into_iter().flatten();
        let names = names.filter_map(|(_, name)| name.as_str().map(str::to_owned));
        // Without a projection, all is read.
        projection.map_or_else(
            || vec!["event".to_owned()],
            |projection| projection.split([',', ' ']).map(str::to_owned).chain(names).collect(),
        )
    };
    let requests = body["RequestItems"].as_object().into_iter().flatten();
    requests
        .flat_map(|(_, request)| names(request))
        .any(|name| ["event", "event_parts", "payload", "payload_parts"].contains(&name.as_str()))
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_orders_are_compared_in_constant_memory() {
    let _alone = crate::alone().await;
    // The full check runs with 10,000 orders.
    let orders = env::var("RECONCILE_ORDERS").map_or(1_000, |orders| orders.parse().expect("a number"));
    let stack = Arc::new(Stack::start().await);
    for index in 1..=orders {
        stack.knows(&stack.life("snipcart", index, 60), State::Placed, 60);
    }
    while stack.reconcile("snipcart").await["status"] != "complete" {}
    assert_eq!(stack.heads().await.len(), orders);
    stack.environments().kill_all().await;

    let content = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&content);
    stack.tap().follow(move |call| {
        let is_read = call.service == Service::DynamoDb && call.operation == "BatchGetItem" && reads_content(call);
        count.fetch_add(usize::from(is_read), Ordering::SeqCst);
        None
    });
    let reads = ["Query", "BatchGetItem", "GetItem", "PutItem", "UpdateItem"];
    let counts = || reads.map(|operation| stack.tap().count(Service::DynamoDb, operation));
    let pages = || stack.order_apis().asked().len();
    let (before, first_page) = (counts(), pages());
    let run = tokio::spawn({
        let stack = Arc::clone(&stack);
        async move {
            let begun = Instant::now();
            (stack.reconcile("snipcart").await, begun.elapsed())
        }
    });
    let (mut memories, mut cpu) = (Vec::new(), Duration::ZERO);
    while !run.is_finished() {
        tokio::time::sleep(TICK).await;
        let Some(pid) = stack.environments().pids(RECONCILE).pop() else {
            continue;
        };
        memories.extend(memory::of(pid).map(|memory| (pages() - first_page, memory)));
        cpu = processor_time::of(pid).unwrap_or(cpu);
    }
    let (run, took) = run.await.expect("the run ends");
    let calls: Vec<usize> = counts()
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    let pages = pages() - first_page;
    let at = |part: usize| {
        memories
            .iter()
            .find(|(page, _)| page * 100 >= pages * part)
            .map(|(_, memory)| memory.now)
    };
    let peak = memories.iter().map(|(_, memory)| memory.peak).max();
    eprintln!(
        "{orders} unchanged orders, {pages} pages: {took:.1?}, {cpu:.1?} of processor time; {reads:?} {calls:?}; KiB at 10 %, 50 %, 100 %: {:?}, peak {peak:?}",
        [10, 50, 100].map(at)
    );
    assert_eq!(
        (&run["status"], &run["known"]),
        (&json!("complete"), &json!(orders)),
        "{run}"
    );
    assert_eq!(content.load(Ordering::SeqCst), 0, "bodies or events were read");
    let [.., gets, puts, _] = calls[..] else {
        panic!("{calls:?}")
    };
    assert!(gets < 10 && puts == 0, "{reads:?} {calls:?}");
    let (begin, end) = (at(10).expect("the memory"), at(100).expect("the memory"));
    assert!(end <= begin + ROOM_KIB, "the memory grows from {begin} to {end} KiB");
}
