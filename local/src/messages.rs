//! SNS and SQS in this process, on one port, with a queue's delivery as AWS does it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
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

use crate::lock;
use crate::recorder::Recorder;
use crate::tap::{Service, error};

/// SNS's limit for a message and its attributes together.
const PUBLISH_LIMIT: usize = 256 * 1024;

/// How the parameters of a batch's entries begin.
const ENTRIES: &str = "PublishBatchRequestEntries.member.";

/// SQS's limit here. On AWS it is 1 MiB, so that the envelope of a large SNS message passes: see [`LargeBodies`].
const QUEUE_LIMIT: usize = 256 * 1024;

/// Topics and queues.
#[derive(Debug, Clone)]
pub(crate) struct Messages {
    sns: Arc<RustackSnsHandler>,
    sqs: Arc<RustackSqsHandler>,
    large: LargeBodies,
}

impl Messages {
    /// Empty; `address` is where they will be served, which is part of a queue's URL.
    ///
    /// What a topic delivers to a queue is kept in `recorder`, if there is one.
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

    /// Which service and operation a request is for: SQS says it in a header, SNS in the body.
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
        whole(outcome.unwrap_or_else(|error| error_to_response(&error, "local"))).await
    }

    /// Carries out a request to SQS.
    pub(crate) async fn sqs(&self, headers: &HeaderMap, body: Bytes) -> Response<Bytes> {
        use rustack_sqs_http::{dispatch::dispatch_operation, response::error_to_response, router::resolve_operation};
        let outcome = match resolve_operation(headers) {
            Ok(operation) => dispatch_operation(&*self.sqs, operation, body).await,
            Err(error) => Err(error),
        };
        let response = whole(outcome.unwrap_or_else(|error| error_to_response(&error, "local"))).await;
        response.map(|body| self.large.put_back(body))
    }
}

/// The bytes that SNS counts: each message, and each attribute's name, type and value.
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

/// The number of a batch's entry that a parameter belongs to, and its name in there.
fn entry(parameter: &str) -> Option<(usize, &str)> {
    let (number, name) = parameter.strip_prefix(ENTRIES)?.split_once('.')?;
    Some((number.parse().ok()?, name))
}

/// What becomes of a request of which some messages are refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The request for the other messages, if there are any.
    pub(crate) rest: Option<Bytes>,
    /// The refused entries' ids; none where it is one message and no batch.
    ids: Vec<String>,
    code: &'static str,
}

/// Takes the messages that hold `text` out of a request.
pub(crate) fn refuse(body: &Bytes, text: &str, code: &'static str) -> Refused {
    let params = parse_form_params(body);
    let mut entries = BTreeMap::<usize, Vec<(&str, &str)>>::new();
    let mut rest = form_urlencoded::Serializer::new(String::new());
    for (name, value) in &params {
        match entry(name) {
            Some((number, name)) => entries.entry(number).or_default().push((name, value)),
            None => {
                rest.append_pair(name, value);
            }
        }
    }
    let value = |entry: &[(&str, &str)], wanted: &str| {
        let found = entry.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| (*value).to_owned()).unwrap_or_default()
    };
    let (refused, passed): (Vec<_>, Vec<_>) = entries
        .into_values()
        .partition(|entry| value(entry, "Message").contains(text));
    for (index, entry) in passed.iter().enumerate() {
        for (name, value) in entry {
            rest.append_pair(&format!("{ENTRIES}{}.{name}", index + 1), value);
        }
    }
    Refused {
        rest: (!passed.is_empty()).then(|| rest.finish().into()),
        ids: refused.iter().map(|entry| value(entry, "Id")).collect(),
        code,
    }
}

impl Refused {
    /// The answer for the other messages, with these in it.
    pub(crate) fn add_to(&self, answer: &Bytes) -> Bytes {
        let end = "</PublishBatchResult>";
        let mut failed = String::from("<Failed>");
        for id in &self.ids {
            let _ = write!(
                failed,
                "<member><Id>{id}</Id><Code>{code}</Code><Message>{code}</Message><SenderFault>{ours}</SenderFault></member>",
                code = self.code,
                // SNS takes the blame for its own errors only.
                ours = !self.code.starts_with("Internal")
            );
        }
        let answer = String::from_utf8_lossy(answer);
        answer.replace(end, &format!("{failed}</Failed>{end}")).into()
    }

    /// The answer where nothing is left.
    pub(crate) fn into_answer(self) -> Response<Bytes> {
        if self.ids.is_empty() {
            return error(Service::Sns, 400, self.code);
        }
        let nothing = "<PublishBatchResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishBatchResult>\
                       <Successful></Successful></PublishBatchResult></PublishBatchResponse>";
        Response::new(self.add_to(&Bytes::from_static(nothing.as_bytes())))
    }
}

async fn whole<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> Response<Bytes> {
    let (parts, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => Response::from_parts(parts, body.to_bytes()),
        Err(_) => crate::server::message(StatusCode::INTERNAL_SERVER_ERROR, "the endpoint's answer broke off"),
    }
}

/// From a topic to its queues.
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

/// The emulated queue takes no more than 256 KiB, but an SNS message of that size comes in an envelope that is larger, and AWS
/// delivers it. So what is larger is kept here, a placeholder goes through the queue, and a receiver gets the body again.
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
