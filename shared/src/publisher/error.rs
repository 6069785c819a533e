//! What may go wrong with publishing, and whose fault it is.

use aws_sdk_sns::error::{ProvideErrorMetadata, SdkError};

use crate::aws;

/// An event was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SNS does not take the message: {cause}")]
pub struct PublishError {
    /// What kind of error it is.
    pub fault: Fault,
    /// The code of SNS, or what the connection says.
    pub cause: String,
    /// Whether it is about this message alone. An error of a call with several messages does not say which of them causes it.
    pub is_alone: bool,
}

/// Kinds of errors of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The event can never be a message: it is too large, or its item is damaged.
    Unpublishable,
    /// SNS refuses the call because of what is in it: the message, or the topic.
    Refused,
    /// SNS or the table asks for fewer calls.
    Throttled,
    /// SNS is not reached, or takes nothing from us.
    Outage,
    /// An error that does not say whose fault it is: a missing permission, an internal error, an unknown code.
    Unclear,
    /// The stored event cannot be read at the moment.
    Store,
}

impl PublishError {
    /// The event can never be a message.
    pub fn unpublishable(cause: impl Into<String>) -> Self {
        Self {
            fault: Fault::Unpublishable,
            cause: cause.into(),
            is_alone: true,
        }
    }
}

/// The codes by which SNS refuses a call because of what is in it. An outage, throttling or a missing permission is never one.
const REFUSED: [&str; 7] = [
    "BatchRequestTooLong",
    "BatchRequestTooLongException",
    "InvalidParameter",
    "InvalidParameterException",
    "InvalidParameterValue",
    "ParameterValueInvalid",
    "ValidationError",
];

/// The codes of an outage that no message causes: SNS itself, the topic, its key, or our credentials.
const OUTAGE: [&str; 12] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "NotFound",
    "NotFoundException",
    "RequestExpired",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
    "UnrecognizedClientException",
];

/// The error of a call with `messages` messages.
pub(super) fn call_error<E>(error: &SdkError<E>, messages: usize) -> PublishError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let (fault, cause) = match error.code() {
        Some(code) => (fault_of(code, true), code.to_owned()),
        None => (Fault::Outage, aws::cause(error)),
    };
    PublishError {
        fault,
        cause,
        is_alone: messages == 1,
    }
}

/// What kind of error a code of SNS is; `ours`: SNS says that the caller is at fault.
pub(super) fn fault_of(code: &str, ours: bool) -> Fault {
    if aws::is_throttling(code) {
        Fault::Throttled
    } else if ours && REFUSED.contains(&code) {
        Fault::Refused
    } else if OUTAGE.contains(&code) || code.starts_with("KMS") {
        Fault::Outage
    } else {
        Fault::Unclear
    }
}
