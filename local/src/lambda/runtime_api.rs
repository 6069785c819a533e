//! The Lambda Runtime API of one execution environment, from which the binary takes events and to which it returns
//! answers.
//!
//! Each process has its own, so that a kill hits the one that made a call. The emulators of AWS and of cargo-lambda are
//! programs that start the functions themselves.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::net::server::{self, Port, Server};
use crate::{Error, lock};

/// How a function answered.
#[derive(Debug)]
pub enum Outcome {
    /// The function returned this JSON.
    Returned(Bytes),
    /// The function reported an error: this JSON, with `errorType` and `errorMessage`.
    Failed(Bytes),
}

/// An event for a function.
#[derive(Debug)]
pub struct Invocation {
    /// The id of the request.
    pub request_id: String,
    /// The event.
    pub event: Bytes,
    /// The X-Ray trace id.
    pub trace_id: String,
    /// Sent when the function takes the event.
    pub taken: oneshot::Sender<()>,
    /// Receives the outcome.
    pub outcome: oneshot::Sender<Outcome>,
}

/// The served API.
#[derive(Debug)]
pub struct RuntimeApi {
    server: Server,
    invocations: mpsc::UnboundedSender<Invocation>,
}

#[derive(Debug)]
struct State {
    function_arn: String,
    timeout: Duration,
    clock_ahead: SignedDuration,
    waiting: tokio::sync::Mutex<mpsc::UnboundedReceiver<Invocation>>,
    current: Mutex<Option<(String, oneshot::Sender<Outcome>)>>,
    ready: Mutex<Option<oneshot::Sender<()>>>,
}

impl RuntimeApi {
    /// Serves the API on a free port. `ready` is sent when the function asks for its first event, which ends its start.
    /// Deadlines are times of a clock that is `clock_ahead` of this machine's clock.
    pub async fn start(
        function: &str,
        timeout: Duration,
        clock_ahead: SignedDuration,
        ready: oneshot::Sender<()>,
    ) -> Result<Self, Error> {
        let (invocations, waiting) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            function_arn: format!(
                "arn:aws:lambda:{}:{}:function:{function}",
                crate::REGION,
                crate::ACCOUNT
            ),
            timeout,
            clock_ahead,
            waiting: tokio::sync::Mutex::new(waiting),
            current: Mutex::new(None),
            ready: Mutex::new(Some(ready)),
        });
        let server = Port::take(0, "").await?.serve(super::PAYLOAD_LIMIT, move |request, _| {
            let state = Arc::clone(&state);
            async move { state.answer(request).await }
        });
        Ok(Self { server, invocations })
    }

    /// The address of the API, which is the function's `AWS_LAMBDA_RUNTIME_API`.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Hands over an event for the function's next request.
    pub fn invoke(&self, invocation: Invocation) {
        // Sending fails only after the server has ended. The dropped senders tell whoever waits.
        let _ = self.invocations.send(invocation);
    }
}

impl State {
    async fn answer(&self, request: Request<Bytes>) -> server::Answer {
        let path = request.uri().path().to_owned();
        let Some(path) = path.strip_prefix("/2018-06-01/runtime/") else {
            return Some(server::message(StatusCode::NOT_FOUND, "Not Found"));
        };
        let parts: Vec<&str> = path.split('/').collect();
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["invocation", "next"]) => self.next().await,
            (&Method::POST, ["invocation", id, "response"]) => {
                Some(self.finish(id, Outcome::Returned(request.into_body())))
            }
            (&Method::POST, ["invocation", id, "error"]) => Some(self.finish(id, Outcome::Failed(request.into_body()))),
            // The process ends by itself after this, and its own log says why.
            (&Method::POST, ["init", "error"]) => Some(accepted()),
            _ => Some(server::message(StatusCode::NOT_FOUND, "Not Found")),
        }
    }

    async fn next(&self) -> server::Answer {
        if let Some(ready) = lock(&self.ready).take() {
            let _ = ready.send(());
        }
        let invocation = self.waiting.lock().await.recv().await?;
        let deadline = Timestamp::now() + self.clock_ahead + self.timeout;
        let mut response = Response::new(invocation.event);
        for (name, value) in [
            ("content-type", "application/json"),
            ("lambda-runtime-aws-request-id", &invocation.request_id),
            ("lambda-runtime-deadline-ms", &deadline.as_millisecond().to_string()),
            ("lambda-runtime-invoked-function-arn", &self.function_arn),
            ("lambda-runtime-trace-id", &invocation.trace_id),
        ] {
            response.headers_mut().insert(name, value.parse().ok()?);
        }
        *lock(&self.current) = Some((invocation.request_id, invocation.outcome));
        let _ = invocation.taken.send(());
        Some(response)
    }

    fn finish(&self, id: &str, outcome: Outcome) -> Response<Bytes> {
        match lock(&self.current).take_if(|(current, _)| current == id) {
            Some((_, sender)) => {
                let _ = sender.send(outcome);
                accepted()
            }
            None => server::json(
                StatusCode::BAD_REQUEST,
                &json!({"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"}),
            ),
        }
    }
}

fn accepted() -> Response<Bytes> {
    server::json(StatusCode::ACCEPTED, &json!({"status": "OK"}))
}
