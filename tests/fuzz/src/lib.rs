//! Fuzz targets over any bytes: the verification and classification of each provider, and the reading of a Lambda
//! event.

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
use shared::classify::classify;
use shared::verification::Verified;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

// A module of the tests, without the dependencies of their harness.
#[path = "../../src/authentic.rs"]
pub mod authentic;

/// A provider with the development settings and secrets, which reaches no other machine.
pub struct Target<P: Provider> {
    provider: P,
    secrets: P::Secrets,
    runtime: Runtime,
}

impl<P: Provider> Target<P> {
    /// Reads the settings from events/env.json, and copies the bodies of the events into the corpus, which is the first
    /// folder on the command line.
    pub fn prepare() -> Self {
        let mut environment = environment(P::NAME);
        // Nothing listens on this port, so a request fails at once.
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

    /// Classifies the bytes as the body of an authentic delivery, and as a Lambda event that may verify.
    pub fn run(&self, bytes: &[u8]) {
        self.check(bytes, &authentic::delivery(Method::POST, &[], bytes.to_vec()));
        let Ok(event) = HttpEvent::read(bytes) else {
            return;
        };
        let body = event.body.as_ref().map_or_else(|_| Vec::new(), |body| body.to_vec());
        let limit = BodyLimit::new(BodyLimit::DEFAULT);
        let Ok(delivery) = Delivery::read(event, P::METHODS, P::event_parameters, limit) else {
            return;
        };
        let until = Instant::now() + Duration::from_secs(5);
        let verify = self.provider.verify(&delivery, &self.secrets, until);
        if let Ok(proof) = self.runtime.block_on(verify) {
            self.check(&body, &Verified::new(delivery, proof));
        }
    }

    fn check(&self, body: &[u8], delivery: &Verified<Delivery>) {
        if let Err(broken) = authentic::check(body, &classify(&self.provider, delivery, None)) {
            panic!("{broken}");
        }
    }
}

/// Reads the bytes as an event, and an event with the bytes in every place that HTTP fills. The second one is always an
/// event.
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
        let event = HttpEvent::read(event.to_string().as_bytes()).expect("an event with a method is valid");
        assert!(is_base64_encoded || event.body.is_ok(), "text is a valid body");
        read_delivery(event);
    }
}

fn read_delivery(event: HttpEvent) {
    let limit = BodyLimit::new(BodyLimit::DEFAULT);
    if let Err(refusal) = Delivery::read(event, &[Method::POST], |_| &["event"], limit) {
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
