//! The functions process the densest order that they accept in the least memory that the template allows.

use std::fs;

use local::aws::faults::{Rule, Service};
use local::lambda::memory;
use local::project::build::workspace;
use local::project::settings::REDRIVE;
use local::project::template;
use local::providers::samples::Fixture;
use serde_json::{Value, json};
use tests::outbox::DENIED;
use tests::{Stack, json_body, noise};

/// The most items, and values in each, that a body may have: `MOST_OBJECTS` and `MOST_VALUES` of `shared::payload`,
/// without those of the fixture itself. A delivery with a hundred more items is quarantined.
const MOST_ITEMS: usize = 119_900;
const VALUES_AN_ITEM: usize = 4;
/// `MAX_BODY_BYTES`.
const MOST_BYTES: usize = 5_000_000;

/// The least `MemorySize` that the template accepts, in KiB.
fn least_memory() -> u64 {
    let template = fs::read_to_string(workspace().join("template.yaml")).expect("the template");
    let template = template::load(&template).expect("YAML");
    let least = template["Parameters"]["MemorySize"]["MinValue"].as_i64();
    u64::try_from(least.expect("a number") * 1024).expect("more than nothing")
}

/// The peak memory of the processes of a function, in KiB.
fn peak(stack: &Stack, function: &str) -> u64 {
    let pids = stack.environments().pids(function);
    let peaks = pids.into_iter().filter_map(|pid| Some(memory::of(pid)?.peak));
    peaks.max().expect("the function runs")
}

/// An order of Snipcart with this many items, filled up with text that does not compress.
fn dense(stack: &Stack, items: usize) -> Fixture {
    let mut fixture = stack.unsigned("snipcart", "order-completed");
    fixture.renew().expect("an order");
    let mut body = json_body(&fixture);
    let item = |number: usize| {
        let fields = (1..VALUES_AN_ITEM).map(|field| (field.to_string(), json!(0)));
        Value::Object(fields.chain([("id".to_owned(), number.into())]).collect())
    };
    body["content"]["items"] = (0..items).map(item).collect();
    body["filling"] = "".into();
    let filling = MOST_BYTES.checked_sub(body.to_string().len()).expect("there is room");
    body["filling"] = noise(filling / 4 * 4).into();
    fixture.set_body(body.to_string());
    stack.sign(&mut fixture);
    fixture
}

// One provider is enough: the items of every provider become the same event, and all bodies are read in the same way.
#[tokio::test(flavor = "multi_thread")]
async fn the_densest_order_fits_into_the_least_memory() {
    let _alone = crate::alone().await;
    let stack = Stack::start().await;
    let least = least_memory();
    let too_dense = dense(&stack, MOST_ITEMS + 100);
    stack.send(&too_dense).await.event_id("quarantined");
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let densest = dense(&stack, MOST_ITEMS);
    let event_id = stack.send(&densest).await.event_id("accepted");
    drop(down);
    let receiving = peak(&stack, "snipcart");
    assert_eq!(stack.redrive().await["published"], 1);
    let publishing = peak(&stack, REDRIVE);
    stack.ask(json!({"get": {"event_id": event_id}})).await;
    let showing = peak(&stack, REDRIVE);
    eprintln!("of {least} KiB, snipcart takes {receiving}, redrive {publishing} to publish, and {showing} to show");
    assert!(
        receiving.max(showing) <= least,
        "the template accepts {least} KiB; snipcart takes {receiving}, redrive {showing}"
    );
}
