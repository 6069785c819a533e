//! What a Lambda function of a provider does: set itself up, then answer, and tell of each delivery in one line.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use lambda_http::lambda_runtime::{self, LambdaEvent};
use lambda_http::request::LambdaRequest;
use lambda_http::tower::ServiceExt as _;
use lambda_http::{Adapter, Body, Context, Error, IntoResponse, Request, RequestExt as _, Response, service_fn};
use metrics::Unit;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::Level;

use crate::answer::{Outcome, Reason, Refusal};
use crate::identity::{EventId, Shop};
use crate::provider::Provider;
use crate::receiver::{Publication, Receipt, Receiver};
use crate::settings::{SettingError, Settings};
use crate::telemetry::Telemetry;

/// Kept free before the function's own deadline, for the answer.
const ANSWER_BUDGET: Duration = Duration::from_millis(500);

/// What is counted of each delivery.
const UNITS: [(&str, Unit); 12] = [
    ("Accepted", Unit::Count),
    ("Conflicts", Unit::Count),
    ("Deliveries", Unit::Count),
    ("Duplicates", Unit::Count),
    ("Invalid", Unit::Count),
    ("MappingFailed", Unit::Count),
    ("Misconfigured", Unit::Count),
    ("Quarantined", Unit::Count),
    ("Refused", Unit::Count),
    ("Unavailable", Unit::Count),
    ("Unpublished", Unit::Count),
    ("Unsupported", Unit::Count),
];

/// Runs the function of one provider.
///
/// Init never fails: a fault found there is answered as 500 to every delivery, and the provider sends again.
///
/// # Errors
/// Where the Lambda Runtime API is gone.
pub async fn run<P: Provider>() -> Result<(), Error> {
    log_to_standard_output();
    let settings = Settings::from_environment();
    let telemetry = Telemetry::from_settings(&settings, Some(("provider", P::NAME)), &UNITS);
    let function = Function::<P>::new(&settings, telemetry);
    // Boxed, so that what init holds is gone when it is over.
    Box::pin(function.prepare()).await;
    let function = &function;
    let answer = Adapter::from(service_fn(async |request: Request| {
        function.answer(request).await.map(Ready)
    }));
    let answer = answer.map_request(|event: LambdaEvent<HttpEvent>| {
        let HttpEvent(request) = event.payload;
        LambdaEvent::new(LambdaRequest::ApiGatewayV2(request), event.context)
    });
    lambda_runtime::run(answer).await
}

/// An event of API Gateway's HTTP API. `lambda_http` finds out itself which kind an event is, for which it copies it whole.
struct HttpEvent(ApiGatewayV2httpRequest);

impl<'de> Deserialize<'de> for HttpEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // What serde says may quote the event.
        const NOT_OURS: &str = "the event is none of API Gateway's HTTP API, payload format 2.0";
        // Taken as it is first: the runtime would note the path to each field as it is read, for its error alone.
        let event = <&RawValue>::deserialize(deserializer).map_err(|_| D::Error::custom(NOT_OURS))?;
        let event = serde_json::from_str(event.get()).map_err(|_| D::Error::custom(NOT_OURS))?;
        Ok(Self(event))
    }
}

/// An answer that is ready. Of a bare response `lambda_http` would find out the character set, and brings the tables of all there are.
struct Ready(Response<Body>);

impl IntoResponse for Ready {
    fn into_response(self) -> BoxFuture<'static, Response<Body>> {
        Box::pin(ready(self.0))
    }
}

/// One line of JSON on standard output for each thing that happened: what CloudWatch reads.
///
/// Of a panic it is told where: its message may quote what was being handled.
pub fn log_to_standard_output() {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_current_span(false)
        .with_span_list(false)
        .init();
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(location, "panicked");
    }));
}

/// The function of one provider: its receiver, or why there is none.
struct Function<P: Provider> {
    receiver: Result<Receiver<P>, SettingError>,
    telemetry: Telemetry,
    has_answered: AtomicBool,
}

/// The line of a delivery.
#[derive(Clone, Copy, Default, Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    shop: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Stored, and waiting in the outbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    unpublished: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    /// The secret that is at fault, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    duration_ms: u64,
    cold_start: bool,
    request_id: &'a str,
}

/// The line of a read of the secret that found it unusable, or one of its shops.
#[derive(Serialize)]
struct SecretLine<'a> {
    secret: &'a str,
    cause: &'a str,
}

impl<P: Provider> Function<P> {
    fn new(settings: &Settings, telemetry: Telemetry) -> Self {
        Self {
            receiver: Receiver::from_settings(settings),
            telemetry,
            has_answered: AtomicBool::new(false),
        }
    }

    async fn prepare(&self) {
        match &self.receiver {
            Ok(receiver) => {
                receiver.prepare().await;
                self.tell_secret_reports(receiver);
            }
            Err(error) => tracing::error!(provider = P::NAME, cause = %error, "the function is not set up correctly"),
        }
    }

    /// The answer to a request. Its line is written before: Lambda stops the process after the answer.
    ///
    /// # Errors
    /// Where the code has panicked. The provider is answered 500 by API Gateway, and Lambda counts an error.
    async fn answer(&self, request: Request) -> Result<Response<Body>, Error> {
        let started = Instant::now();
        let context = request.lambda_context();
        let shop = request.path_parameters().first("shop").and_then(Shop::parse);
        let received = async {
            match &self.receiver {
                Ok(receiver) => receiver.receive(request, deadline(&context)).await,
                Err(error) => Err(Refusal::Misconfigured(error.to_string())),
            }
        };
        let received = AssertUnwindSafe(received).catch_unwind().await;
        if let Ok(receiver) = &self.receiver {
            self.tell_secret_reports(receiver);
        }
        let line = Line {
            shop: shop.as_ref().map(Shop::as_str),
            duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            cold_start: !self.has_answered.swap(true, Ordering::Relaxed),
            request_id: &context.request_id,
            ..Line::default()
        };
        match received {
            Ok(Ok(receipt)) => {
                self.tell_receipt(&receipt, line);
                Ok(receipt.outcome.into_response(&receipt.id))
            }
            Ok(Err(refusal)) => {
                self.tell_refusal(&refusal, line);
                Ok(refusal.into_response(&context.request_id))
            }
            Err(_) => {
                let outcome = "panicked";
                self.telemetry
                    .write(Level::ERROR, "delivery", &Line { outcome, ..line });
                Err("the delivery met a fault of the code".into())
            }
        }
    }

    /// Counts what is wrong with the secret as soon as it is read, even if deliveries still pass with the last good value.
    fn tell_secret_reports(&self, receiver: &Receiver<P>) {
        for cause in receiver.secret_reports() {
            metrics::counter!("Misconfigured").increment(1);
            let line = SecretLine {
                secret: receiver.secret(),
                cause: &cause,
            };
            self.telemetry
                .write(Level::ERROR, "the secret is malformed or refused", &line);
        }
    }

    fn tell_receipt(&self, receipt: &Receipt, line: Line<'_>) {
        let outcome = &receipt.outcome;
        metrics::counter!("Deliveries").increment(1);
        metrics::counter!(outcome.metric()).increment(1);
        let waits = receipt.publication == Publication::Waits;
        if waits {
            metrics::counter!("Unpublished").increment(1);
        }
        let line = Line {
            event_id: Some(&receipt.id),
            r#type: receipt.event_type,
            outcome: outcome.as_str(),
            reason: match outcome {
                Outcome::Quarantined(reason) => Some(Reason::as_str(*reason)),
                _ => None,
            },
            unpublished: waits.then_some(true),
            ..line
        };
        self.telemetry.write(Level::INFO, "delivery", &line);
    }

    fn tell_refusal(&self, refusal: &Refusal, line: Line<'_>) {
        metrics::counter!(refusal.metric()).increment(1);
        let (level, secret) = match (refusal, &self.receiver) {
            (Refusal::Misconfigured(_), Ok(receiver)) => (Level::ERROR, Some(receiver.secret())),
            (Refusal::Misconfigured(_) | Refusal::Unavailable(_), _) => (Level::ERROR, None),
            _ => (Level::WARN, None),
        };
        let cause = refusal.to_string();
        let line = Line {
            outcome: refusal.as_str(),
            cause: Some(&cause),
            secret,
            ..line
        };
        self.telemetry.write(level, "delivery", &line);
    }
}

/// When the answer must be on its way.
fn deadline(context: &Context) -> Instant {
    let left = context.deadline().duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now() + left.saturating_sub(ANSWER_BUDGET)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use lambda_http::http::Method;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;
    use crate::delivery::Delivery;
    use crate::payload::Payload;
    use crate::provider::{Identified, NoOrderEvent, Normalized};
    use crate::verification::{Proof, Verified};

    const BODY: &str = "a body that nobody may see";

    /// A provider whose code is at fault.
    struct Faulty;

    #[derive(Deserialize)]
    struct NoSecrets {}

    impl Provider for Faulty {
        const NAME: &'static str = "faulty";
        type Secrets = NoSecrets;
        type Event = ();

        fn from_settings(_: &Settings) -> Result<Self, SettingError> {
            Ok(Self)
        }

        async fn verify(&self, delivery: &Delivery, _: &NoSecrets, _: Instant) -> Result<Proof, Refusal> {
            panic!("{}", String::from_utf8_lossy(delivery.body()))
        }

        fn identify(&self, _: &Verified<Delivery>, _: &Payload) -> Result<Identified<()>, NoOrderEvent> {
            Err(NoOrderEvent::Unsupported)
        }

        fn normalize(&self, (): (), _: &Payload) -> Normalized {
            unreachable!("nothing is identified")
        }
    }

    /// What a function with these settings answers to a delivery, and the lines that it writes meanwhile.
    async fn answer(more: &[(&str, &str)]) -> (Result<Response<Body>, Error>, Vec<Value>) {
        let settings = [
            ("TABLE_NAME", "order-events"),
            ("TOPIC_ARN", "arn:aws:sns:us-east-1:000000000000:order-events"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "none"),
            ("AWS_SECRET_ACCESS_KEY", "none"),
            ("SECRETS", r#"{"shops":{"main":{}}}"#),
        ];
        let settings = Settings::from_table(settings.iter().chain(more).copied());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let telemetry = Telemetry::into(move |line| {
            let line = serde_json::from_slice(line).expect("JSON");
            sink.lock().expect("no panic here").push(line);
        });
        let function = Function::<Faulty>::new(&settings, telemetry);
        let shop = std::collections::HashMap::from([("shop".to_owned(), vec!["main".to_owned()])]);
        let request = lambda_http::http::Request::builder().method(Method::POST);
        let request = request.body(Body::from(BODY)).expect("a request");
        let request = request
            .with_path_parameters(shop)
            .with_lambda_context(Context::default());
        let answer = function.answer(request).await;
        let lines = lines.lock().expect("no panic here").clone();
        (answer, lines)
    }

    #[tokio::test]
    async fn a_panic_is_an_error_with_a_line_and_without_what_it_was_about() {
        let (answer, lines) = answer(&[]).await;
        let error = answer.expect_err("the code is at fault");
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((&line["outcome"], &line["shop"]), (&"panicked".into(), &"main".into()));
        assert_eq!((&line["level"], &line["cold_start"]), (&"ERROR".into(), &true.into()));
        assert!(!format!("{error} {error:?} {line}").contains(BODY), "{error:?} {line}");
    }

    #[tokio::test]
    async fn a_function_that_is_not_set_up_answers_500_with_a_line_that_names_the_setting() {
        let (answer, lines) = answer(&[("MAX_BODY_BYTES", "many")]).await;
        assert_eq!(answer.expect("an answer").status(), 500);
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(line["outcome"], "misconfigured");
        let cause = line["cause"].as_str().expect("a cause");
        assert!(cause.contains("MAX_BODY_BYTES") && !cause.contains("many"), "{cause}");
    }

    #[tokio::test]
    async fn a_malformed_secret_is_500_with_a_line_that_names_the_secret() {
        let (answer, lines) = answer(&[("SECRETS", r#"{"shop":"a-value-nobody-may-see"}"#)]).await;
        assert_eq!(answer.expect("an answer").status(), 500);
        let [read, delivery] = lines.as_slice() else {
            panic!("{lines:?}")
        };
        assert_eq!(delivery["outcome"], "misconfigured");
        for line in [read, delivery] {
            assert_eq!((&line["level"], &line["secret"]), (&"ERROR".into(), &"SECRETS".into()));
            assert_eq!(line["cause"], read["cause"]);
            assert!(!line.to_string().contains("nobody-may-see"), "{line}");
        }
    }
}
