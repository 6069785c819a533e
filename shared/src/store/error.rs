//! Errors of the table.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::aws;

/// The table cannot be used. Nothing may be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// DynamoDB refused the call or was not reached. The text holds nothing of an item.
    #[error("DynamoDB: {0}")]
    DynamoDb(String),
    /// DynamoDB asks for fewer calls.
    #[error("DynamoDB: {0}")]
    Throttled(String),
    /// DynamoDB did not answer within the time allowed.
    #[error("DynamoDB did not answer in time")]
    Timeout,
    /// The parts that an earlier attempt left behind are being deleted. The write may succeed in a minute.
    #[error("the parts of an earlier attempt are being deleted")]
    Swept,
    /// An attribute of an item is missing, or is not as this project writes it.
    #[error("corrupt item: {0}")]
    Corrupt(&'static str),
}

impl StoreError {
    /// Whether DynamoDB asks for fewer calls.
    pub fn is_throttling(&self) -> bool {
        matches!(self, Self::Throttled(_))
    }

    /// The same error after `attempts` attempts.
    pub(super) fn after(self, attempts: u32) -> Self {
        let noun = if attempts == 1 { "try" } else { "tries" };
        let cause = |cause: String| format!("{cause} after {attempts} {noun}");
        match self {
            Self::DynamoDb(text) => Self::DynamoDb(cause(text)),
            Self::Throttled(text) => Self::Throttled(cause(text)),
            other => other,
        }
    }
}

impl<E: ProvideErrorMetadata + std::error::Error + 'static> From<SdkError<E>> for StoreError {
    /// Keeps the error's code, or the connection's error if there was no answer, but never the request, which holds the
    /// order. For a cancelled transaction it keeps the codes of its parts too.
    fn from(error: SdkError<E>) -> Self {
        let Some(code) = error.code() else {
            return Self::DynamoDb(aws::cause(&error));
        };
        if aws::is_throttling(code) {
            return Self::Throttled(code.to_owned());
        }
        let reasons = error
            .message()
            .and_then(|message| message.find('[').map(|at| &message[at..]));
        Self::DynamoDb(match reasons {
            Some(reasons) if code == "TransactionCanceledException" => format!("{code} {reasons}"),
            _ => code.to_owned(),
        })
    }
}

/// Whether a write was not made because its condition does not hold.
pub(super) fn is_condition_failed<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    error.code() == Some("ConditionalCheckFailedException")
}
