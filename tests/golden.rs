//! Every event of `events/` through verification, identification and normalization, against the golden event beside it.
//!
//! `UPDATE_GOLDEN=1 cargo test -p tests --test golden` writes the golden events anew: read the difference before you keep it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use lambda_http::http::Method;
use local::net::server::Port;
use local::providers::snipcart::Snipcart as SnipcartStandIn;
use serde_json::Value;
use shared::Provider;
use shared::classify::{Classification, Classified, classify};
use shared::delivery::{BodyLimit, Delivery};
use shared::event::OrderEvent;
use shared::http_event::HttpEvent;
use shared::settings::Settings;
use shared::verification::Verified;
use tokio::time::Instant;

/// What becomes of the events that are not published.
const NOT_PUBLISHED: &[(&str, &[&str])] = &[
    (
        "unsupported",
        &[
            "selldone/pos-order",
            "selldone/inventory",
            "selldone/ping",
            "cartum/user-signup",
            "cartum/user-update",
            "cartum/comments-created",
            "cartum/request-call-me",
            "cartum/delete-unsubscribed",
            "cartum/ping",
            "deeple/ping",
            "aboutyou/stock-updated",
            "aboutyou/product-master",
            "aboutyou/ping",
            "snipcart/subscription-created",
            "snipcart/subscription-state-cancelled",
            "snipcart/subscription-invoice-payment-failed-without-order",
            "snipcart/shippingrates-fetch",
            "snipcart/taxes-calculate",
            "snipcart/ping",
        ],
    ),
    (
        "unknown_event",
        &[
            "selldone/unknown-action",
            "selldone/unknown-event",
            "cartum/unknown-event",
            "aboutyou/unknown-event",
            "snipcart/unknown-event",
        ],
    ),
    (
        "no_discriminator",
        &[
            "selldone/event-missing",
            "selldone/action-missing",
            "aboutyou/event-missing",
            "snipcart/event-name-missing",
        ],
    ),
    (
        "no_order_id",
        &[
            "selldone/order-id-missing",
            "selldone/basket-not-an-object",
            // The dashboard's "Send test data" has no order in it.
            "selldone/dashboard-test",
            "cartum/order-id-missing",
            "cartum/order-id-null",
            "cartum/not-an-object",
            // An order in a list is not one that Cartum is known to send: it is kept.
            "cartum/array-of-one-order",
            "deeple/order-number-missing",
            "deeple/empty-object",
            "aboutyou/order-number-missing",
            "aboutyou/message-not-an-object",
            "snipcart/order-token-missing",
            "snipcart/refund-order-token-missing",
            "snipcart/content-null",
            "snipcart/subscription-invoice-without-order",
        ],
    ),
    (
        "not_json",
        &[
            "selldone/not-json",
            "cartum/not-json",
            "cartum/form-encoded",
            "deeple/not-json",
            "aboutyou/not-json",
            "snipcart/not-json",
        ],
    ),
];

#[tokio::test]
async fn selldones_events_normalize_to_the_golden_ones() {
    check::<selldone::Selldone>(&[]).await;
}

#[tokio::test]
async fn cartums_events_normalize_to_the_golden_ones() {
    check::<cartum::Cartum>(&[]).await;
}

#[tokio::test]
async fn deeples_events_normalize_to_the_golden_ones() {
    check::<deeple::Deeple>(&[]).await;
}

#[tokio::test]
async fn about_yous_events_normalize_to_the_golden_ones() {
    check::<aboutyou::AboutYou>(&[]).await;
}

#[tokio::test]
async fn snipcarts_events_normalize_to_the_golden_ones() {
    let snipcart = SnipcartStandIn::start(Port::take(0, "").await.expect("a free port"));
    check::<snipcart::Snipcart>(&[("SNIPCART_API_URL", &snipcart.api_url())]).await;
}

#[test]
fn all_invoices_of_one_paid_renewal_are_one_event() {
    let understanding = |name: &str, created_on: &str, status: &str, token: &str| {
        let order = serde_json::json!({"token": token, "paymentStatus": status});
        let body = serde_json::json!({"eventName": name, "createdOn": created_on, "content": {"order": order}});
        let delivery = tests::authentic::delivery(Method::POST, &[], body.to_string().into_bytes());
        let settings = Settings::from_table::<&str, &str>([]);
        classify(
            &snipcart::Snipcart::from_settings(&settings).expect("the defaults"),
            &delivery,
            None,
        )
    };
    let paid = |name, created_on| understanding(name, created_on, "Paid", "t-1");
    let succeeded = paid("v3/subscription.invoice.payment.succeeded", "2026-01-01T00:00:01Z");
    for other in [
        paid("v3/subscription.invoice.created", "2026-01-01T00:00:00Z"),
        paid("subscription.invoice.payment.succeeded", "2026-01-01T00:00:02Z"),
    ] {
        assert!(matches!(other.classification, Classification::Order(_)));
        assert_eq!(other.id, succeeded.id);
    }
    let failed = |created_on| understanding("v3/subscription.invoice.payment.failed", created_on, "Failed", "t-1");
    let first_failure = failed("2026-01-01T00:00:00Z");
    for other in [
        &failed("2026-01-02T00:00:00Z"),
        &succeeded,
        &understanding("v3/subscription.invoice.created", "2026-01-01T00:00:00Z", "Paid", "t-2"),
    ] {
        assert!(matches!(other.classification, Classification::Order(_)));
        assert_ne!(other.id, first_failure.id);
    }
}

async fn check<P: Provider>(overrides: &[(&str, &str)]) {
    let environment = environment(P::NAME, overrides);
    let provider = P::from_settings(&Settings::from_table(environment.clone())).expect("settings");
    let secrets: Value = serde_json::from_str(&environment["SECRETS"]).expect("secrets are JSON");
    let secrets = serde_json::from_value(secrets["shops"]["main"].clone()).expect("the shop's secrets");
    let mut wrong = Vec::new();
    let mut ids = HashMap::new();
    for (name, path) in events(P::NAME) {
        let event = HttpEvent::read(&fs::read(&path).expect("an event")).expect("an event");
        let limit = BodyLimit::new(BodyLimit::DEFAULT);
        let delivery = Delivery::read(event, P::METHODS, P::EVENT_PARAMETERS, limit).expect("a delivery");
        let proof = provider
            .verify(&delivery, &secrets, Instant::now() + Duration::from_secs(5))
            .await
            .unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        let Classified { id, classification, .. } = classify(&provider, &Verified::new(delivery, proof), None);
        // All bodies without content are the same ping.
        if let Some(other) = ids.insert(id, name.clone())
            && ![&name, &other]
                .iter()
                .all(|name| ["ping", "delete-unsubscribed"].contains(&name.as_str()))
        {
            wrong.push(format!("{name} has the event id of {other}"));
        }
        let outcome = match &classification {
            Classification::Order(event) => compare(event, &path.with_extension("normalized.json")),
            Classification::Unsupported => expect_not_published(P::NAME, &name, "unsupported"),
            Classification::Quarantined(reason) => expect_not_published(P::NAME, &name, reason.as_str()),
        };
        wrong.extend(outcome.err().map(|difference| format!("{name}: {difference}")));
    }
    assert!(!ids.is_empty(), "there are no events");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn compare(event: &OrderEvent, golden: &Path) -> Result<(), String> {
    let event = pretty(&without_the_clock(event.clone()));
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(golden, event).expect("the golden event can be written");
        return Ok(());
    }
    let expected = fs::read_to_string(golden).map_err(|error| format!("{}: {error}", golden.display()))?;
    let difference = expected
        .lines()
        .zip(event.lines())
        .find(|(expected, is)| expected != is);
    match difference {
        Some((expected, is)) => Err(format!("expected {}, is {}", expected.trim(), is.trim())),
        None if expected == event => Ok(()),
        None => Err("one is longer than the other".to_owned()),
    }
}

fn expect_not_published(provider: &str, name: &str, outcome: &str) -> Result<(), String> {
    let name = format!("{provider}/{name}");
    let listed = NOT_PUBLISHED.iter().find(|(_, names)| names.contains(&name.as_str()));
    match listed {
        Some((expected, _)) if *expected == outcome => Ok(()),
        Some((expected, _)) => Err(format!("expected {expected}, is {outcome}")),
        None => Err(format!("expected to be published, is {outcome}")),
    }
}

/// What depends on the time of the run stands still.
fn without_the_clock(mut event: OrderEvent) -> OrderEvent {
    let fixed = "2026-01-01T00:00:00Z".parse().expect("a time");
    if event.time == event.data.received_at {
        assert!(
            event.data.assumed.iter().any(|pointer| pointer == "/time"),
            "an assumed time is named"
        );
        event.time = fixed;
    }
    event.data.received_at = fixed;
    event
}

fn pretty(event: &OrderEvent) -> String {
    local::pretty_json::indented(&event.to_json()).expect("JSON") + "\n"
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../events")
}

/// The function's variables in events/env.json.
fn environment(provider: &str, overrides: &[(&str, &str)]) -> BTreeMap<String, String> {
    let file = fs::read(root().join("env.json")).expect("events/env.json");
    let functions: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&file).expect("names and values");
    let function = functions
        .into_iter()
        .find(|(name, _)| name.to_lowercase() == format!("{provider}function"));
    let mut variables = function.expect("the function is in events/env.json").1;
    variables.extend(
        overrides
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    variables
}

fn events(provider: &str) -> BTreeMap<String, PathBuf> {
    let files = fs::read_dir(root().join(provider)).expect("the provider's events");
    let paths = files.map(|file| file.expect("a file").path());
    paths
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".json")?.to_owned();
            (!name.ends_with(".normalized")).then_some((name, path))
        })
        .collect()
}
