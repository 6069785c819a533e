//! The functions hold the densest order that they accept in the least memory that the template lets them have.

use std::fs;

use local::backlog::resident;
use local::binaries::workspace;
use local::fixture::Fixture;
use local::settings::REDRIVE;
use local::tap::{Rule, Service};
use serde_json::{Value, json};
use tests::outbox::DENIED;
use tests::{ORDERS, Stack, noise};
use yaml_rust2::YamlLoader;

/// Where a provider's order has its items.
const ITEMS: [(&str, &str); 5] = [
    ("selldone", "/basket/items"),
    ("cartum", "/products"),
    ("deeple", "/items"),
    ("aboutyou", "/message/order_items"),
    ("snipcart", "/content/items"),
];

/// As many items, and values in them, as a body may hold: `MOST_OBJECTS` and `MOST_VALUES` of `shared::payload`, but for what the
/// fixture has beside its items. One more of a hundred items would be too many.
const MOST_ITEMS: usize = 119_900;
const VALUES_AN_ITEM: usize = 4;
/// `MAX_BODY_BYTES`.
const MOST_BYTES: usize = 5_000_000;

/// The least `MemorySize` that the template accepts, in KiB.
fn least_memory() -> u64 {
    let template = fs::read_to_string(workspace().join("template.yaml")).expect("the template");
    let template = YamlLoader::load_from_str(&template).expect("YAML").remove(0);
    let least = template["Parameters"]["MemorySize"]["MinValue"].as_i64();
    u64::try_from(least.expect("a number") * 1024).expect("more than nothing")
}

/// The most memory that any process of a function ever had, in KiB.
fn peak(stack: &Stack, function: &str) -> u64 {
    let pids = stack.environments().pids(function);
    let peaks = pids.into_iter().filter_map(|pid| Some(resident(pid)?.1));
    peaks.max().expect("the function runs")
}

/// An order with as many items as a body holds, and text that does not compress for the rest of its bytes.
fn densest(stack: &Stack, provider: &str, order: &str, items: usize) -> Fixture {
    let mut fixture = stack.unsigned(provider, order);
    fixture.renew().expect("an order");
    let mut body: Value = serde_json::from_slice(&fixture.body().expect("a body")).expect("JSON");
    let (_, pointer) = ITEMS
        .into_iter()
        .find(|(name, _)| *name == provider)
        .expect("a provider");
    let item = |number: usize| {
        let fields = (1..VALUES_AN_ITEM).map(|field| (field.to_string(), json!(0)));
        Value::Object(fields.chain([("id".to_owned(), number.into())]).collect())
    };
    *body.pointer_mut(pointer).expect("items") = (0..items).map(item).collect();
    body["filling"] = "".into();
    let filling = MOST_BYTES.checked_sub(body.to_string().len()).expect("there is room");
    body["filling"] = noise(filling / 4 * 4).into();
    fixture.set_body(body.to_string());
    stack.sign(&mut fixture);
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn the_densest_order_fits_into_the_least_memory() {
    let stack = Stack::with(|config| {
        // What one process takes for one order after another.
        config.environments = 1;
    })
    .await;
    let least = least_memory();
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let mut peaks = Vec::new();
    for (provider, order) in ORDERS {
        let too_dense = densest(&stack, provider, order, MOST_ITEMS + 100);
        stack.send(&too_dense).await.event_id("quarantined");
        stack
            .send(&densest(&stack, provider, order, MOST_ITEMS))
            .await
            .event_id("accepted");
        peaks.push((provider, peak(&stack, provider)));
    }
    drop(down);
    assert_eq!(stack.redrive().await["published"], ORDERS.len());
    peaks.push((REDRIVE, peak(&stack, REDRIVE)));
    eprintln!("peaks in KiB, of {least}: {peaks:?}");
    assert!(
        peaks.iter().all(|(_, peak)| *peak <= least),
        "the template accepts {least} KiB: {peaks:?}"
    );
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["quarantined"], ORDERS.len());
    let peak = peak(&stack, REDRIVE);
    assert!(peak <= least, "reprocess took {peak} KiB");
}
