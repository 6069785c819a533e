//! Every event of `events/` through verification, identification and normalization, against the golden event next to
//! it.
//!
//! `UPDATE_GOLDEN=1 cargo test --workspace --test provider_suite golden::` writes the golden events. Review the difference.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use local::net::server::Port;
use local::project::build::workspace;
use local::providers::snipcart::Snipcart;
use serde_json::Value;
use shared::classify::{Classification, Classified, classify};
use shared::delivery::{BodyLimit, Delivery};
use shared::event::OrderEvent;
use shared::http_event::HttpEvent;
use shared::settings::Settings;
use shared::verification::Verified;
use tests::providers::Tested;
use tokio::time::Instant;

pub(crate) async fn every_event_normalizes_to_its_golden_event<P: Tested>() {
    let validation = Snipcart::start(Port::take(0, "").await.expect("a free port"));
    let mut environment = environment(P::NAME);
    environment.insert("SNIPCART_API_URL".to_owned(), validation.api_url());
    let provider = P::from_settings(&Settings::from_table(environment.clone())).expect("settings");
    let secrets: Value = serde_json::from_str(&environment["SECRETS"]).expect("secrets are JSON");
    let secrets = serde_json::from_value(secrets["shops"]["main"].clone()).expect("the secrets of the shop");
    let mut wrong = Vec::new();
    let mut ids = HashMap::new();
    for (name, path) in events(P::NAME) {
        let event = HttpEvent::read(&fs::read(&path).expect("an event")).expect("an event");
        let limit = BodyLimit::new(BodyLimit::DEFAULT);
        let delivery = Delivery::read(event, P::METHODS, P::event_parameters, limit).expect("a delivery");
        let proof = provider
            .verify(&delivery, &secrets, Instant::now() + Duration::from_secs(5))
            .await
            .unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        let Classified { id, classification, .. } = classify(&provider, &Verified::new(delivery, proof), None);
        let is_ping = |name: &String| P::FACTS.pings.contains(&name.as_str());
        if let Some(other) = ids.insert(id, name.clone())
            && !(is_ping(&name) && is_ping(&other))
        {
            wrong.push(format!("{name} has the event id of {other}"));
        }
        let outcome = match &classification {
            Classification::Order(event) => compare(event, &path.with_extension("normalized.json")),
            Classification::Unsupported => expect_not_published::<P>(&name, "unsupported"),
            Classification::Quarantined(reason) => expect_not_published::<P>(&name, reason.as_str()),
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
        .find(|(expected, actual)| expected != actual);
    match difference {
        Some((expected, actual)) => Err(format!("expected {}, got {}", expected.trim(), actual.trim())),
        None if expected == event => Ok(()),
        None => Err("one of the events is longer than the other".to_owned()),
    }
}

fn expect_not_published<P: Tested>(name: &str, outcome: &str) -> Result<(), String> {
    let mut outcomes = P::FACTS.not_published.iter();
    match outcomes.find(|(_, names)| names.contains(&name)) {
        Some((expected, _)) if *expected == outcome => Ok(()),
        Some((expected, _)) => Err(format!("expected {expected}, got {outcome}")),
        None => Err(format!("expected to be published, got {outcome}")),
    }
}

/// Replaces what depends on the time of the run.
fn without_the_clock(mut event: OrderEvent) -> OrderEvent {
    let fixed = "2026-01-01T00:00:00Z".parse().expect("a time");
    if event.time == event.data.received_at {
        assert!(
            event.data.assumed.iter().any(|pointer| pointer == "/time"),
            "the assumed time is not named"
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
    workspace().join("events")
}

/// The variables of the function in events/env.json.
fn environment(provider: &str) -> BTreeMap<String, String> {
    let file = fs::read(root().join("env.json")).expect("events/env.json");
    let functions: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&file).expect("names and values");
    let function = functions
        .into_iter()
        .find(|(name, _)| name.to_lowercase() == format!("{provider}function"));
    function.expect("the function is in events/env.json").1
}

fn events(provider: &str) -> BTreeMap<String, PathBuf> {
    let files = fs::read_dir(root().join(provider)).expect("the events of the provider");
    let paths = files.map(|file| file.expect("a file").path());
    paths
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".json")?.to_owned();
            (!name.ends_with(".normalized")).then_some((name, path))
        })
        .collect()
}
