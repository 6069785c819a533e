//! What may go wrong with the table.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::aws;

/// The table cannot be used. Nothing may be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// DynamoDB refused or was not reached; the text holds no item.
    #[error("DynamoDB: {0}")]
    DynamoDb(String),
    /// There was no answer in the time there is.
    #[error("DynamoDB did not answer in time")]
    Timeout,
    /// The parts that an earlier try has left are being deleted. It may be tried again in a minute.
    #[error("the parts of an earlier try are being deleted")]
    Swept,
    /// An item is not as this project writes it.
    #[error("the stored item is damaged: {0}")]
    Corrupt(&'static str),
}

impl StoreError {
    /// Whether DynamoDB asks for fewer calls.
    pub fn is_throttling(&self) -> bool {
        matches!(self, Self::DynamoDb(code) if aws::is_throttling(code))
    }
}

/// The error's code, or what the connection says: never the request, which holds the order. Of a transaction also the codes of its
/// parts.
pub(super) fn describe<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E>) -> String {
    let Some(code) = error.code() else {
        return aws::cause(error);
    };
    let reasons = error
        .message()
        .and_then(|message| message.find('[').map(|at| &message[at..]));
    match reasons {
        Some(reasons) if code == "TransactionCanceledException" => format!("{code} {reasons}"),
        _ => code.to_owned(),
    }
}
