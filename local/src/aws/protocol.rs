//! The AWS services of the local stack, the errors of their protocols, and the entries of an SNS batch.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use rustack_sns_http::request::parse_form_params;
use serde_json::json;

/// The beginning of the parameter names of a batch's entries.
const ENTRIES: &str = "PublishBatchRequestEntries.member.";

/// An AWS service of the local stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// The service of the table.
    DynamoDb,
    /// The service of the topic.
    Sns,
    /// The service of the queue.
    Sqs,
}

/// An error in the protocol of the service: JSON, or XML for SNS.
pub(crate) fn error(service: Service, status: u16, code: &str) -> Response<Bytes> {
    let fault = if status < 500 { "Sender" } else { "Receiver" };
    let (content_type, body) = match service {
        Service::Sns => (
            "text/xml",
            format!(
                "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>{fault}</Type><Code>{code}</Code>\
                 <Message>{code}</Message></Error><RequestId>00000000-0000-0000-0000-000000000000</RequestId></ErrorResponse>"
            ),
        ),
        Service::DynamoDb => (
            "application/x-amz-json-1.0",
            json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": code}).to_string(),
        ),
        Service::Sqs => (
            "application/x-amz-json-1.0",
            json!({"__type": format!("com.amazonaws.sqs#{code}"), "message": code}).to_string(),
        ),
    };
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The number of the batch entry that a parameter belongs to, and the name of the parameter within the entry.
pub(crate) fn entry(parameter: &str) -> Option<(usize, &str)> {
    let (number, name) = parameter.strip_prefix(ENTRIES)?.split_once('.')?;
    Some((number.parse().ok()?, name))
}

/// A request of which SNS rejects some messages.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The request for the other messages, if there are any.
    pub(crate) rest: Option<Bytes>,
    /// The ids of the rejected entries; empty for a single message.
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
    /// Adds the rejected entries to the answer for the other messages.
    pub(crate) fn add_to(&self, answer: &Bytes) -> Bytes {
        let end = "</PublishBatchResult>";
        let mut failed = String::from("<Failed>");
        for id in &self.ids {
            let _ = write!(
                failed,
                "<member><Id>{id}</Id><Code>{code}</Code><Message>{code}</Message><SenderFault>{ours}</SenderFault></member>",
                code = self.code,
                // SNS reports only its internal errors as its own fault.
                ours = !self.code.starts_with("Internal")
            );
        }
        let answer = String::from_utf8_lossy(answer);
        answer.replace(end, &format!("{failed}</Failed>{end}")).into()
    }

    /// The answer if no other messages are left.
    pub(crate) fn into_answer(self) -> Response<Bytes> {
        if self.ids.is_empty() {
            return error(Service::Sns, 400, self.code);
        }
        let nothing = "<PublishBatchResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishBatchResult>\
                       <Successful></Successful></PublishBatchResult></PublishBatchResponse>";
        Response::new(self.add_to(&Bytes::from_static(nothing.as_bytes())))
    }
}
