//! SNS and SQS in this process, on one port. Messages of a topic reach its queues as on AWS.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use rustack_sns_core::config::SnsConfig;
use rustack_sns_core::handler::RustackSnsHandler;
use rustack_sns_core::provider::RustackSns;
use rustack_sns_core::publisher::{DeliveryError, SqsPublisher};
use rustack_sns_http::request::{get_optional_param, parse_form_params};
use rustack_sqs_core::config::SqsConfig;
use rustack_sqs_core::handler::RustackSqsHandler;
use rustack_sqs_core::message::md5_of_body;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_model::input::SendMessageInput;
use rustack_sqs_model::output::ReceiveMessageOutput;

use crate::aws::protocol::{Service, entry, error};
use crate::lock;
use crate::recorder::Recorder;

/// SNS's limit for a message and its attributes together.
const PUBLISH_LIMIT: usize = 256 * 1024;

/// The emulator's limit for a message. On AWS it is 1 MiB, so that the envelope of a large SNS message fits: see
/// [`LargeBodies`].
const QUEUE_LIMIT: usize = 256 * 1024;

/// The topics and queues.
#[derive(Debug, Clone)]
pub(crate) struct SnsSqs {
    sns: Arc<RustackSnsHandler>,
    sqs: Arc<RustackSqsHandler>,
    large: LargeBodies,
}

impl SnsSqs {
    /// Creates them without a topic or queue, to be served at `address`, which is part of a queue's URL.
    ///
    /// `recorder` records the messages that a topic delivers to a queue.
    pub(crate) fn new(address: SocketAddr, recorder: Option<Recorder>) -> Self {
        let (host, port) = (address.ip().to_string(), address.port());
        let large = LargeBodies::default();
        let sqs = Arc::new(RustackSqs::new(SqsConfig {
            host: host.clone(),
            port,
            ..SqsConfig::default()
        }));
        let publisher = Publisher {
            sqs: Arc::clone(&sqs),
            large: large.clone(),
            recorder,
        };
        let sns = RustackSns::new(
            SnsConfig {
                host,
                port,
                ..SnsConfig::default()
            },
            Arc::new(publisher),
        );
        Self {
            sns: Arc::new(RustackSnsHandler::new(Arc::new(sns))),
            sqs: Arc::new(RustackSqsHandler::new(sqs)),
            large,
        }
    }

    /// The service and the operation of a request. SQS names the operation in a header, SNS in the body.
    pub(crate) fn operation(headers: &HeaderMap, body: &[u8]) -> (Service, String) {
        if let Some(target) = headers.get("x-amz-target").and_then(|target| target.to_str().ok()) {
            (Service::Sqs, target.rsplit('.').next().unwrap_or_default().to_owned())
        } else {
            let params = parse_form_params(body);
            (
                Service::Sns,
                get_optional_param(&params, "Action").unwrap_or_default().to_owned(),
            )
        }
    }

    /// Carries out a request to SNS.
    pub(crate) async fn sns(&self, body: Bytes) -> Response<Bytes> {
        use rustack_sns_http::{dispatch::dispatch_operation, response::error_to_response, router::resolve_operation};
        let params = parse_form_params(&body);
        if published(&params) > PUBLISH_LIMIT {
            let code = match get_optional_param(&params, "Action") {
                Some("PublishBatch") => "BatchRequestTooLong",
                _ => "InvalidParameter",
            };
            return error(Service::Sns, 400, code);
        }
        let outcome = match resolve_operation(&params) {
            Ok(operation) => dispatch_operation(&*self.sns, operation, body).await,
            Err(error) => Err(error),
        };
        complete(outcome.unwrap_or_else(|error| error_to_response(&error, "local"))).await
    }

    /// Carries out a request to SQS.
    pub(crate) async fn sqs(&self, headers: &HeaderMap, body: Bytes) -> Response<Bytes> {
        use rustack_sqs_http::{dispatch::dispatch_operation, response::error_to_response, router::resolve_operation};
        let outcome = match resolve_operation(headers) {
            Ok(operation) => dispatch_operation(&*self.sqs, operation, body).await,
            Err(error) => Err(error),
        };
        let response = complete(outcome.unwrap_or_else(|error| error_to_response(&error, "local"))).await;
        response.map(|body| self.large.put_back(body))
    }
}

/// The bytes that count for SNS's limit: each message, and the name, type and value of each attribute.
fn published(params: &[(String, String)]) -> usize {
    params
        .iter()
        .filter(|(name, _)| {
            let name = entry(name).map_or(name.as_str(), |(_, name)| name);
            let attribute = name.starts_with("MessageAttributes.");
            name == "Message"
                || (attribute && (name.ends_with(".Name") || name.ends_with("Type") || name.ends_with("Value")))
        })
        .map(|(_, value)| value.len())
        .sum()
}

async fn complete<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> Response<Bytes> {
    let (parts, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => Response::from_parts(parts, body.to_bytes()),
        Err(_) => crate::net::server::message(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the answer of the emulator is incomplete",
        ),
    }
}

/// Delivers the messages of a topic to its queues.
struct Publisher {
    sqs: Arc<RustackSqs>,
    large: LargeBodies,
    recorder: Option<Recorder>,
}

#[async_trait]
impl SqsPublisher for Publisher {
    fn validate(&self, queue_arn: &str) -> Result<(), DeliveryError> {
        self.sqs
            .queue_url_for_arn(queue_arn)
            .map(|_| ())
            .map_err(|error| DeliveryError::Unavailable(error.to_string()))
    }

    async fn send_message(
        &self,
        queue_arn: &str,
        message_body: &str,
        message_group_id: Option<&str>,
        message_deduplication_id: Option<&str>,
    ) -> Result<(), DeliveryError> {
        let failed = |reason: String| DeliveryError::SqsDeliveryFailed {
            queue_arn: queue_arn.to_owned(),
            reason,
        };
        let queue_url = self
            .sqs
            .queue_url_for_arn(queue_arn)
            .map_err(|error| failed(error.to_string()))?;
        let input = SendMessageInput {
            queue_url,
            message_body: self.large.put_aside(message_body),
            message_group_id: message_group_id.map(str::to_owned),
            message_deduplication_id: message_deduplication_id.map(str::to_owned),
            ..SendMessageInput::default()
        };
        self.sqs
            .send_message(input)
            .await
            .map_err(|error| failed(error.to_string()))?;
        if let Some(recorder) = &self.recorder {
            recorder.published(message_body);
            recorder.alerts().receive(message_body);
        }
        Ok(())
    }
}

/// Bodies that exceed the limit of the emulated queue. AWS delivers an SNS message of 256 KiB in an envelope that is
/// larger. The emulated queue takes 256 KiB at most, so it gets a placeholder, and the receiver gets the body in its
/// place.
#[derive(Debug, Clone, Default)]
struct LargeBodies(Arc<Mutex<HashMap<String, String>>>);

impl LargeBodies {
    fn put_aside(&self, body: &str) -> String {
        if body.len() <= QUEUE_LIMIT {
            return body.to_owned();
        }
        let placeholder = format!("large-body-{}", uuid::Uuid::new_v4());
        lock(&self.0).insert(placeholder.clone(), body.to_owned());
        placeholder
    }

    fn put_back(&self, answer: Bytes) -> Bytes {
        let bodies = lock(&self.0);
        if bodies.is_empty() {
            return answer;
        }
        let Ok(mut received) = serde_json::from_slice::<ReceiveMessageOutput>(&answer) else {
            return answer;
        };
        let mut changed = false;
        for message in &mut received.messages {
            if let Some(body) = message.body.as_ref().and_then(|body| bodies.get(body)) {
                message.md5_of_body = Some(md5_of_body(body));
                message.body = Some(body.clone());
                changed = true;
            }
        }
        if changed {
            serde_json::to_vec(&received).map_or(answer, Bytes::from)
        } else {
            answer
        }
    }
}
