//! The Lambda function of a provider: sets itself up, answers deliveries, and logs each of them in one line.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use jiff::Timestamp;
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpResponse;
use lambda_http::lambda_runtime::{self, LambdaEvent};
use lambda_http::{Body, Context, Error, Response, service_fn};
use serde::Serialize;
use tokio::time::Instant;
use tracing::Level;

use crate::answer::{Outcome, Refusal};
use crate::codes::Code;
use crate::drift::Drift;
use crate::http_event::{HttpEvent, Incoming, NotAnHttpEvent};
use crate::identity::{EventId, Shop};
use crate::intake::{Publication, Receipt};
use crate::provider::Provider;
use crate::receiver::Receiver;
use crate::settings::{SettingError, Settings};
use crate::telemetry::{self, Dimensions, Telemetry};

/// The time that is kept free for the answer before the function's own deadline.
const ANSWER_BUDGET: Duration = Duration::from_millis(500);

/// The dimensions for a request for a shop that is not configured. Each set of values is billed as a metric of its own,
/// so invented shop names must not create any. The alarms on all providers watch the metrics without a dimension.
const BY_PROVIDER: &Dimensions = &[&[], &["provider"]];
/// The dimensions for a delivery for a configured shop.
const BY_PROVIDER_AND_SHOP: &Dimensions = &[&[], &["provider"], &["provider", "shop"]];

/// The least time for a delivery, whatever the clocks say: enough to verify, store and publish it. Lambda invokes a
/// function with its full timeout left, which is longer; a closer deadline is the result of a wrong clock.
const LEAST_BUDGET: Duration = Duration::from_secs(8);

/// Runs the function of one provider.
///
/// Init never fails. If the settings are wrong, every delivery is answered 500, and the provider repeats it.
///
/// # Errors
/// If the Lambda Runtime API cannot be reached.
pub async fn run<P: Provider>() -> Result<(), Error> {
    log_to_standard_output();
    let settings = Settings::from_environment();
    let telemetry = Telemetry::from_settings(&settings);
    let function = Function::<P>::new(&settings, telemetry);
    // Boxed, so that the memory of init is released when it ends.
    Box::pin(function.prepare()).await;
    let function = &function;
    // Boxed, so that the runtime's own futures do not grow with the state of a delivery.
    let answer = service_fn(|event: LambdaEvent<Incoming>| {
        let (Incoming(event), context) = event.into_parts();
        Box::pin(async move { function.answer(event, &context).await.map(for_gateway) })
    });
    lambda_runtime::run(answer).await
}

/// The answer as API Gateway reads it.
fn for_gateway(response: Response<Body>) -> ApiGatewayV2httpResponse {
    let (head, body) = response.into_parts();
    let mut answer = ApiGatewayV2httpResponse::default();
    answer.status_code = head.status.as_u16().into();
    answer.headers = head.headers;
    answer.is_base64_encoded = matches!(body, Body::Binary(_));
    answer.body = Some(body);
    answer
}

/// Writes log lines as JSON to standard output, where CloudWatch reads them.
///
/// Panics are logged with their location only, because the message may contain payload data.
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
        tracing::error!(code = Code::Panicked.as_str(), location, "panicked");
    }));
}

/// The function of one provider: its receiver, or the error that prevents one.
struct Function<P: Provider> {
    receiver: Result<Receiver<P>, SettingError>,
    telemetry: Telemetry,
    has_answered: AtomicBool,
}

/// The log line of a delivery.
#[derive(Clone, Copy, Default, Serialize)]
struct LogRecord<'a> {
    provider: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shop: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    outcome: &'static str,
    /// The code of a refusal, of a quarantine or of a fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Whether the event waits in the outbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    unpublished: Option<bool>,
    /// The differences between the payload and the mapping: by pointer and type, never by value.
    #[serde(skip_serializing_if = "<[Drift]>::is_empty")]
    drift: &'a [Drift],
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    /// The name of the secret that is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    duration_ms: u64,
    cold_start: bool,
    request_id: &'a str,
}

/// The log line of a read that found the secret, or one of its shops, unusable.
#[derive(Serialize)]
struct SecretRecord<'a> {
    code: &'static str,
    provider: &'static str,
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
                self.log_secret_reports(receiver);
            }
            Err(error) => {
                tracing::error!(
                    code = Code::Misconfigured.as_str(),
                    provider = P::NAME,
                    cause = %error,
                    "the function is not set up correctly"
                );
            }
        }
    }

    /// Answers an event. The log line is written before the answer, because Lambda freezes the process after it.
    ///
    /// # Errors
    /// If the event does not come from an HTTP API, or the code has panicked. API Gateway then answers 500, and Lambda
    /// counts an error.
    async fn answer(
        &self,
        event: Result<HttpEvent, NotAnHttpEvent>,
        context: &Context,
    ) -> Result<Response<Body>, Error> {
        let started = Instant::now();
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                telemetry::count("Invalid");
                let cause = error.to_string();
                let line = LogRecord {
                    outcome: Code::NotAnHttpEvent.as_str(),
                    code: Some(Code::NotAnHttpEvent.as_str()),
                    cause: Some(&cause),
                    ..self.line(None, started, context)
                };
                self.telemetry.write(Level::ERROR, "delivery", &line, BY_PROVIDER);
                return Err(error.into());
            }
        };
        let shop = event.shop.as_deref().and_then(Shop::parse);
        let deadline = deadline(context, event.received_at);
        let received = async {
            match &self.receiver {
                Ok(receiver) => receiver.receive(event, deadline).await,
                Err(error) => Err(Refusal::Misconfigured(error.to_string())),
            }
        };
        let received = AssertUnwindSafe(received).catch_unwind().await;
        let known = shop.as_ref().zip(self.receiver.as_ref().ok());
        let dimensions = if known.is_some_and(|(shop, receiver)| receiver.knows(shop)) {
            BY_PROVIDER_AND_SHOP
        } else {
            BY_PROVIDER
        };
        if let Ok(receiver) = &self.receiver {
            self.log_secret_reports(receiver);
        }
        if let (Ok(receiver), Some(shop), Ok(received)) = (&self.receiver, &shop, &received) {
            receiver.note(shop, received);
        }
        let line = self.line(shop.as_ref(), started, context);
        let answer = match received {
            Ok(Ok(receipt)) => {
                self.log_receipt(&receipt, line, dimensions);
                Ok(receipt.outcome.into_response(&receipt.id))
            }
            Ok(Err(refusal)) => {
                self.log_refusal(&refusal, line, dimensions);
                Ok(refusal.into_response(&context.request_id))
            }
            Err(_) => {
                let line = LogRecord {
                    outcome: Code::Panicked.as_str(),
                    code: Some(Code::Panicked.as_str()),
                    ..line
                };
                self.telemetry.write(Level::ERROR, "delivery", &line, dimensions);
                Err("the code panicked on the delivery".into())
            }
        };
        // The answer is decided. Neither an error nor a panic may change it.
        if let Ok(receiver) = &self.receiver {
            let _ = AssertUnwindSafe(receiver.write_notes(deadline)).catch_unwind().await;
        }
        answer
    }

    /// The members that every line has.
    fn line<'a>(&self, shop: Option<&'a Shop>, started: Instant, context: &'a Context) -> LogRecord<'a> {
        LogRecord {
            provider: P::NAME,
            shop: shop.map(Shop::as_str),
            duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            cold_start: !self.has_answered.swap(true, Ordering::Relaxed),
            request_id: &context.request_id,
            ..LogRecord::default()
        }
    }

    /// Logs and counts faults of the secret as soon as they are read, even if deliveries still pass with the last good
    /// value.
    fn log_secret_reports(&self, receiver: &Receiver<P>) {
        for cause in receiver.secret_reports() {
            telemetry::count("Misconfigured");
            let line = SecretRecord {
                code: Code::SecretUnusable.as_str(),
                provider: P::NAME,
                secret: receiver.secret(),
                cause: &cause,
            };
            self.telemetry
                .write(Level::ERROR, "the secret is malformed or refused", &line, BY_PROVIDER);
        }
    }

    fn log_receipt(&self, receipt: &Receipt, line: LogRecord<'_>, dimensions: &Dimensions) {
        let outcome = &receipt.outcome;
        telemetry::count("Deliveries");
        telemetry::count(outcome.metric());
        let waits = receipt.publication == Publication::Waits;
        if waits {
            telemetry::count("Unpublished");
        }
        if !receipt.drift.is_empty() {
            telemetry::count("Drift");
        }
        let reason = match outcome {
            Outcome::Quarantined(reason) => Some(reason.as_str()),
            _ => None,
        };
        let line = LogRecord {
            event_id: Some(&receipt.id),
            r#type: receipt.event_type,
            outcome: outcome.as_str(),
            code: reason,
            reason,
            unpublished: waits.then_some(true),
            drift: &receipt.drift,
            ..line
        };
        self.telemetry.write(Level::INFO, "delivery", &line, dimensions);
    }

    fn log_refusal(&self, refusal: &Refusal, line: LogRecord<'_>, dimensions: &Dimensions) {
        refusal.metrics().iter().copied().for_each(telemetry::count);
        let (level, secret) = match (refusal, &self.receiver) {
            (Refusal::Misconfigured(_), Ok(receiver)) => (Level::ERROR, Some(receiver.secret())),
            (Refusal::Misconfigured(_) | Refusal::Unavailable(_), _) => (Level::ERROR, None),
            _ => (Level::WARN, None),
        };
        let cause = refusal.to_string();
        let line = LogRecord {
            outcome: refusal.as_str(),
            code: Some(refusal.code().as_str()),
            cause: Some(&cause),
            secret,
            ..line
        };
        self.telemetry.write(level, "delivery", &line, dimensions);
    }
}

/// The time at which the answer must be sent.
///
/// Lambda's deadline is a time of Lambda's clock, and this machine's clock may be wrong. So the time left is computed
/// from API Gateway's time of receipt too, which is a time of AWS as well. The shorter of the two counts, but never
/// less than [`LEAST_BUDGET`]. From then on only the monotonic clock is used.
fn deadline(context: &Context, received_at: Option<Timestamp>) -> Instant {
    let until = |now: SystemTime| context.deadline().duration_since(now).unwrap_or_default();
    let left = until(SystemTime::now());
    let left = received_at.map_or(left, |received_at| left.min(until(received_at.into())));
    Instant::now() + left.max(LEAST_BUDGET) - ANSWER_BUDGET
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::delivery::Delivery;
    use crate::payload::Payload;
    use crate::provider::{Identified, NoOrderEvent, Normalized, OrderPlace};
    use crate::verification::{Proof, Verified};

    const BODY: &str = "a body that nobody may see";

    /// A provider whose code panics.
    struct Faulty;

    #[derive(Deserialize)]
    struct NoSecrets {}

    impl Provider for Faulty {
        const NAME: &'static str = "faulty";
        const ORDER: OrderPlace = OrderPlace {
            object: None,
            id: "id",
            items: "items",
        };
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

    /// The answer of a function with these settings to a delivery, and the lines that it writes.
    async fn answer(more: &[(&str, &str)]) -> (Result<Response<Body>, Error>, Vec<Value>) {
        let event = json!({
            "requestContext": {"http": {"method": "POST"}}, "pathParameters": {"shop": "main"}, "body": BODY,
        });
        answer_to(HttpEvent::read(event.to_string().as_bytes()), more).await
    }

    async fn answer_to(
        event: Result<HttpEvent, NotAnHttpEvent>,
        more: &[(&str, &str)],
    ) -> (Result<Response<Body>, Error>, Vec<Value>) {
        let settings = [
            ("TABLE_NAME", "order-events"),
            ("TOPIC_ARN", "arn:aws:sns:us-east-1:000000000000:order-events"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "none"),
            ("AWS_SECRET_ACCESS_KEY", "none"),
            // Nothing listens on this port, so no test calls AWS.
            ("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9"),
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
        let answer = function.answer(event, &Context::default()).await;
        let lines = lines.lock().expect("no panic here").clone();
        (answer, lines)
    }

    #[tokio::test]
    async fn a_panic_is_logged_without_payload_data() {
        let (answer, lines) = answer(&[]).await;
        let error = answer.expect_err("the code panics");
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((&line["outcome"], &line["shop"]), (&"panicked".into(), &"main".into()));
        assert_eq!(line["code"], "panicked");
        assert_eq!((&line["level"], &line["cold_start"]), (&"ERROR".into(), &true.into()));
        assert!(!format!("{error} {error:?} {line}").contains(BODY), "{error:?} {line}");
    }

    #[tokio::test]
    async fn a_wrong_setting_is_500_with_a_line_that_names_it() {
        let (answer, lines) = answer(&[("MAX_BODY_BYTES", "many")]).await;
        assert_eq!(answer.expect("an answer").status(), 500);
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(line["outcome"], "misconfigured");
        let cause = line["cause"].as_str().expect("a cause");
        assert!(cause.contains("MAX_BODY_BYTES") && !cause.contains("many"), "{cause}");
    }

    #[tokio::test]
    async fn a_malformed_secret_is_500_with_a_line_that_names_it() {
        let (answer, lines) = answer(&[("SECRETS", r#"{"shop":"a-value-nobody-may-see"}"#)]).await;
        assert_eq!(answer.expect("an answer").status(), 500);
        let [read, delivery] = lines.as_slice() else {
            panic!("{lines:?}")
        };
        assert_eq!(delivery["outcome"], "misconfigured");
        assert_eq!(
            (&read["code"], &delivery["code"]),
            (&"secret_unusable".into(), &"misconfigured".into())
        );
        for line in [read, delivery] {
            assert_eq!((&line["level"], &line["secret"]), (&"ERROR".into(), &"SECRETS".into()));
            assert_eq!(line["cause"], read["cause"]);
            assert!(!line.to_string().contains("nobody-may-see"), "{line}");
        }
    }

    #[tokio::test]
    async fn an_event_that_is_not_http_is_an_error_with_a_line() {
        let (answer, lines) = answer_to(HttpEvent::read(b"{\"redrive\":{}}"), &[]).await;
        answer.expect_err("there is nobody to answer");
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(
            (&line["outcome"], &line["level"]),
            (&"not_an_http_event".into(), &"ERROR".into())
        );
        assert!(line["cause"].is_string() && line.get("shop").is_none(), "{line}");
    }

    #[test]
    fn the_deadline_is_within_bounds_whatever_the_clocks_say() {
        // Seconds by which the clock of AWS is ahead of this one, and the bounds of the time left of 15 s.
        for (ahead, least, most) in [(0, 14, 15), (400, 14, 15), (-20, 7, 8), (-400, 7, 8)] {
            let received_at = Timestamp::now() + jiff::SignedDuration::from_secs(ahead);
            let deadline_ms = received_at.as_millisecond() + 15_000;
            let mut context = Context::default();
            context.deadline = u64::try_from(deadline_ms).expect("a time");
            let left = deadline(&context, Some(received_at)).duration_since(Instant::now());
            assert!(
                Duration::from_secs(least) < left && left < Duration::from_secs(most),
                "{ahead}: {left:?}"
            );
        }
        // An event that was saved, and one without a time.
        for received_at in [Some(Timestamp::UNIX_EPOCH), None] {
            let mut context = Context::default();
            context.deadline = u64::try_from(Timestamp::now().as_millisecond() + 15_000).expect("a time");
            let left = deadline(&context, received_at).duration_since(Instant::now());
            assert!(
                left > Duration::from_secs(14) && left < Duration::from_secs(15),
                "{left:?}"
            );
        }
    }
}
