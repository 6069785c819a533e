//! Fuzz targets: a provider's verification, and what follows it, and the reading of an event, over any bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use lambda_http::http::Method;
use serde_json::{Value, json};
use shared::Provider;
use shared::delivery::{BodyLimit, Delivery};
use shared::http_event::HttpEvent;
use shared::settings::Settings;
use shared::classify::understand;
use shared::verification::Verified;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

// The tests' own, without all that their harness is built with.
#[path = "../../src/authentic.rs"]
pub mod authentic;

/// A provider with the development settings and secrets, and no way to any other machine.
pub struct Target<P: Provider> {
    provider: P,
    secrets: P::Secrets,
    runtime: Runtime,
}

impl<P: Provider> Target<P> {
    /// Sets the provider up as events/env.json says, and puts the events' bodies into the corpus: the first folder on the command line.
    pub fn prepare() -> Self {
        let mut environment = environment(P::NAME);
        // The port of nothing: a request is refused at once.
        environment.insert("SNIPCART_API_URL".to_owned(), "http://127.0.0.1:1".to_owned());
        let secrets: Value = serde_json::from_str(&environment["SECRETS"]).expect("secrets are JSON");
        if let Some(corpus) = env::args_os().skip(1).map(PathBuf::from).find(|path| path.is_dir()) {
            seed(P::NAME, &corpus);
        }
        Self {
            provider: P::from_settings(&Settings::from_table(environment)).expect("settings"),
            secrets: serde_json::from_value(secrets["shops"]["main"].clone()).expect("the shop's secrets"),
            runtime: Builder::new_current_thread().enable_all().build().expect("a runtime"),
        }
    }

    /// Takes the bytes for a body that is authentic, and for a whole request that may be.
    pub fn run(&self, bytes: &[u8]) {
        self.hold(bytes, &authentic::delivery(Method::POST, &[], bytes.to_vec()));
        let Ok(event) = HttpEvent::read(bytes) else {
            return;
        };
        let body = event.body.as_ref().map_or_else(|_| Vec::new(), |body| body.to_vec());
        let limit = BodyLimit::new(BodyLimit::DEFAULT);
        let Ok(delivery) = Delivery::read(event, P::METHODS, P::EVENT_PARAMETERS, limit) else {
            return;
        };
        let until = Instant::now() + Duration::from_secs(5);
        let verify = self.provider.verify(&delivery, &self.secrets, until);
        if let Ok(proof) = self.runtime.block_on(verify) {
            self.hold(&body, &Verified::new(delivery, proof));
        }
    }

    fn hold(&self, body: &[u8], delivery: &Verified<Delivery>) {
        if let Err(broken) = authentic::check(body, &classify(&self.provider, delivery, None)) {
            panic!("{broken}");
        }
    }
}

/// Reads the bytes as an event, and an event that holds them wherever it holds what came over HTTP: the second one is always an event.
pub fn read_event(bytes: &[u8]) {
    if let Ok(event) = HttpEvent::read(bytes) {
        read_delivery(event);
    }
    let text = String::from_utf8_lossy(bytes);
    let (name, value) = text.split_once('\n').unwrap_or(("x", &text));
    for is_base64_encoded in [true, false] {
        let event = json!({
            "rawQueryString": text,
            "headers": {name: value},
            "requestContext": {"http": {"method": "POST"}},
            "pathParameters": {"shop": value},
            "body": text,
            "isBase64Encoded": is_base64_encoded,
        });
        let event = HttpEvent::read(event.to_string().as_bytes()).expect("an event with a method is one");
        assert!(is_base64_encoded || event.body.is_ok(), "text is a body");
        read_delivery(event);
    }
}

fn read_delivery(event: HttpEvent) {
    let limit = BodyLimit::new(BodyLimit::DEFAULT);
    if let Err(refusal) = Delivery::read(event, &[Method::POST], &["event"], limit) {
        assert!(refusal.status().is_client_error(), "{refusal}");
    }
}

fn events() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events")
}

fn environment(provider: &str) -> BTreeMap<String, String> {
    let file = fs::read(events().join("env.json")).expect("events/env.json");
    let functions: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&file).expect("names and values");
    let function = functions
        .into_iter()
        .find(|(name, _)| name.to_lowercase() == format!("{provider}function"));
    function.expect("the function is in events/env.json").1
}

fn seed(provider: &str, corpus: &Path) {
    for event in fs::read_dir(events().join(provider)).expect("the provider's events") {
        let path = event.expect("a file").path();
        let file = fs::File::open(&path).expect("an event");
        let event: Value = serde_json::from_reader(file).expect("JSON");
        if let Some(body) = event["body"].as_str() {
            let name = path.file_name().expect("a name");
            fs::write(corpus.join(name), body).expect("a seed can be written");
        }
    }
}

/// The `main` of a target.
#[macro_export]
macro_rules! target {
    ($provider:ty) => {
        static TARGET: std::sync::LazyLock<$crate::Target<$provider>> =
            std::sync::LazyLock::new($crate::Target::prepare);

        libfuzzer_sys::fuzz_target!(
            init: {
                std::sync::LazyLock::force(&TARGET);
            },
            |bytes: &[u8]| TARGET.run(bytes)
        );
    };
}
