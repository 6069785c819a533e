//! Errors of publishing, and whose fault they are.

use aws_sdk_sns::error::{ProvideErrorMetadata, SdkError};

use crate::aws;

/// An event was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SNS did not accept the message: {cause}")]
pub struct PublishError {
    /// The kind of error.
    pub fault: Fault,
    /// The code of SNS, or the error of the connection.
    pub cause: String,
    /// Whether the error concerns only this message. An error of a call with several messages does not say which of
    /// them causes it.
    pub is_alone: bool,
}

/// The kinds of publishing errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The event can never be a message, because it is too large or its item is corrupt.
    Unpublishable,
    /// SNS refuses the call because of its content: the message or the topic.
    Refused,
    /// SNS or the table asks for fewer calls.
    Throttled,
    /// SNS is not reached, or accepts no message from this function.
    Outage,
    /// The error does not say whose fault it is: a missing permission, an internal error, or an unknown code.
    Unclear,
    /// The stored event cannot be read at the moment.
    Store,
}

impl PublishError {
    /// The error of an event that can never be a message.
    pub fn unpublishable(cause: impl Into<String>) -> Self {
        Self {
            fault: Fault::Unpublishable,
            cause: cause.into(),
            is_alone: true,
        }
    }
}

/// The codes by which SNS refuses a call because of its content, never because of an outage, throttling or a missing
/// permission.
const REFUSED: [&str; 7] = [
    "BatchRequestTooLong",
    "BatchRequestTooLongException",
    "InvalidParameter",
    "InvalidParameterException",
    "InvalidParameterValue",
    "ParameterValueInvalid",
    "ValidationError",
];

/// The codes of an outage that no message causes: of SNS itself, the topic, its key, or the function's credentials.
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

/// Describes the error of a call with `messages` messages.
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

/// The kind of error that a code of SNS stands for. `is_sender_fault` means that SNS blames the caller.
pub(super) fn fault_of(code: &str, is_sender_fault: bool) -> Fault {
    if aws::is_throttling(code) {
        Fault::Throttled
    } else if is_sender_fault && REFUSED.contains(&code) {
        Fault::Refused
    } else if OUTAGE.contains(&code) || code.starts_with("KMS") {
        Fault::Outage
    } else {
        Fault::Unclear
    }
}
