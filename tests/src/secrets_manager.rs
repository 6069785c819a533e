//! A Secrets Manager that records the calls of the functions and can be down or refuse calls. Its backend is moto if
//! `MOTO_SERVER` is set, otherwise an implementation of the one operation that the functions use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use local::net::client::Client;
use local::net::server::{Port, Server};
use local::stack::Config;
use local::{ACCOUNT, NAME, REGION};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::moto::Moto;

/// A Secrets Manager with at most one secret.
pub struct SecretsManager {
    server: Server,
    state: Arc<State>,
}

struct State {
    backend: Backend,
    refusal: Mutex<Option<(StatusCode, &'static str)>>,
    calls: Mutex<Vec<(String, Instant)>>,
}

enum Backend {
    // Boxed, since the other variant is small.
    Moto {
        client: Box<Client>,
        url: String,
        _moto: Box<Moto>,
    },
    Memory(Mutex<Option<(u32, String)>>),
}

impl SecretsManager {
    /// Starts a Secrets Manager without a secret.
    pub async fn start() -> Self {
        let backend = match Moto::start().await {
            Some(moto) => {
                let url = format!("http://{}", moto.address());
                let client = Client::new(&url).expect("a client");
                Backend::Moto {
                    client: Box::new(client),
                    url,
                    _moto: Box::new(moto),
                }
            }
            None => Backend::Memory(Mutex::default()),
        };
        let state = Arc::new(State {
            backend,
            refusal: Mutex::default(),
            calls: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        let port = Port::take(0, "").await.expect("a port");
        let server = port.serve(64 * 1024, move |request, _| {
            let state = Arc::clone(&shared);
            async move { Some(state.answer(request).await) }
        });
        Self { server, state }
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Makes all functions of a stack read their secret from this server.
    pub fn configure(&self, config: &mut Config, arn: &str) {
        config.variables.insert("SECRETS".to_owned(), arn.to_owned());
        let url = self.server.url();
        config
            .variables
            .insert("AWS_ENDPOINT_URL_SECRETS_MANAGER".to_owned(), url);
    }

    /// Creates the secret, and returns its ARN.
    pub async fn create(&self, value: &str) -> String {
        match &self.state.backend {
            Backend::Moto { .. } => {
                let created = self.operate("CreateSecret", json!({"Name": NAME, "SecretString": value}));
                let created = created.await;
                created["ARN"].as_str().expect("an ARN").to_owned()
            }
            Backend::Memory(secret) => {
                *lock(secret) = Some((1, value.to_owned()));
                arn()
            }
        }
    }

    /// Replaces the value of the secret.
    pub async fn put(&self, value: &str) {
        match &self.state.backend {
            Backend::Moto { .. } => {
                self.operate("PutSecretValue", json!({"SecretId": NAME, "SecretString": value}))
                    .await;
            }
            Backend::Memory(secret) => {
                let mut secret = lock(secret);
                let version = secret.as_ref().map_or(0, |(version, _)| *version);
                *secret = Some((version + 1, value.to_owned()));
            }
        }
    }

    /// Makes the service unavailable, or available again.
    pub fn set_down(&self, is_down: bool) {
        self.refuse(is_down.then_some((StatusCode::SERVICE_UNAVAILABLE, "InternalServiceError")));
    }

    /// Answers every call with this status and error, or normally.
    pub fn refuse(&self, with: Option<(StatusCode, &'static str)>) {
        *lock(&self.state.refusal) = with;
    }

    /// The times of the calls of each execution environment, in order.
    pub fn calls(&self) -> BTreeMap<String, Vec<Instant>> {
        let mut calls = BTreeMap::<_, Vec<_>>::new();
        for (caller, time) in lock(&self.state.calls).iter() {
            calls.entry(caller.clone()).or_default().push(*time);
        }
        calls
    }

    /// Makes a call as the operator, which is not recorded.
    async fn operate(&self, operation: &str, of: Value) -> Value {
        let request = Request::post("/").header("x-amz-target", format!("secretsmanager.{operation}"));
        let request = request.body(Bytes::from(of.to_string())).expect("a request");
        let answer = self.state.backend.answer(request).await;
        assert!(answer.status().is_success(), "{operation}: {answer:?}");
        serde_json::from_slice(answer.body()).expect("JSON")
    }
}

impl State {
    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        let caller = request.headers().get("x-amz-security-token");
        let caller = caller
            .and_then(|token| token.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        lock(&self.calls).push((caller, Instant::now()));
        let refusal = *lock(&self.refusal);
        if let Some((status, code)) = refusal {
            return fault(status, code);
        }
        self.backend.answer(request).await
    }
}

impl Backend {
    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        let target = request.headers()["x-amz-target"].clone();
        match self {
            Self::Moto { client, url, .. } => {
                // moto finds the service by the scope in the signature.
                let scope = format!("Credential=local/20260101/{REGION}/secretsmanager/aws4_request");
                let request = Request::post(format!("{url}/"))
                    .header("x-amz-target", target)
                    .header("content-type", "application/x-amz-json-1.1")
                    .header(
                        "authorization",
                        format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"),
                    )
                    .body(request.into_body())
                    .expect("a request");
                client.send(request).await.expect("moto answers")
            }
            Self::Memory(secret) => {
                assert_eq!(target, "secretsmanager.GetSecretValue");
                let asked: Value = serde_json::from_slice(request.body()).expect("JSON");
                match &*lock(secret) {
                    Some((version, value)) if asked["SecretId"] == arn() => {
                        let version = format!("00000000-0000-4000-8000-{version:012}");
                        let answer = json!({"ARN": arn(), "Name": NAME, "VersionId": version, "SecretString": value,
                            "VersionStages": ["AWSCURRENT"], "CreatedDate": 1.7e9});
                        respond(StatusCode::OK, &answer)
                    }
                    _ => fault(StatusCode::BAD_REQUEST, "ResourceNotFoundException"),
                }
            }
        }
    }
}

fn arn() -> String {
    format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{NAME}-AbCdEf")
}

fn fault(status: StatusCode, code: &str) -> Response<Bytes> {
    respond(status, &json!({"__type": code, "Message": code}))
}

fn respond(status: StatusCode, body: &Value) -> Response<Bytes> {
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.1");
    response.body(body.to_string().into()).expect("an answer")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
