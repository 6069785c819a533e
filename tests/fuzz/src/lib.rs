//! Fuzz targets: a provider's verification, and what follows it, over any bytes.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use lambda_http::aws_lambda_events::query_map::QueryMap;
use lambda_http::http::Method;
use lambda_http::{Body, Request, RequestExt as _};
use serde_json::Value;
use shared::Provider;
use shared::delivery::{BodyLimit, Delivery};
use shared::settings::Settings;
use shared::understanding::understand;
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
        let Some(request) = serde_json::from_slice(bytes).ok().and_then(|event| request(&event)) else {
            return;
        };
        let body = request.body().to_vec();
        let Ok(delivery) = Delivery::read(request, P::METHODS, BodyLimit::new(BodyLimit::DEFAULT)) else {
            return;
        };
        let until = Instant::now() + Duration::from_secs(5);
        let verify = self.provider.verify(&delivery, &self.secrets, until);
        if let Ok(proof) = self.runtime.block_on(verify) {
            self.hold(&body, &Verified::new(delivery, proof));
        }
    }

    fn hold(&self, body: &[u8], delivery: &Verified<Delivery>) {
        if let Err(broken) = authentic::check(body, &understand(&self.provider, delivery)) {
            panic!("{broken}");
        }
    }
}

/// Read here and not by `lambda_http`, which takes it for granted that API Gateway's events are sound, and panics.
fn request(event: &Value) -> Option<Request> {
    let mut builder = lambda_http::http::Request::builder().method(event["requestContext"]["http"]["method"].as_str()?);
    for (name, value) in event["headers"].as_object()? {
        builder = builder.header(name, value.as_str()?);
    }
    let request = builder
        .body(Body::from(event["body"].as_str().unwrap_or_default()))
        .ok()?;
    let query: QueryMap = event["rawQueryString"].as_str().unwrap_or_default().parse().ok()?;
    let shop = event["pathParameters"]["shop"].as_str()?.to_owned();
    let path = HashMap::from([("shop".to_owned(), vec![shop])]);
    Some(request.with_path_parameters(path).with_query_string_parameters(query))
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
