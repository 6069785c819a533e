//! How long, and after which errors, a write is tried.

use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use tokio::time::Instant;

use super::{StoreError, describe};

/// How long a write is tried.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    until: Instant,
    with_parts_until: Instant,
    retries_access_errors: bool,
}

impl RetryPolicy {
    /// Tries until `until`; an entry that needs parts, which take longer to write, until `with_parts_until`.
    pub fn new(until: Instant, with_parts_until: Instant) -> Self {
        Self {
            until,
            with_parts_until,
            retries_access_errors: false,
        }
    }

    /// Tries again after an error of access too: what is not stored now cannot be sent again, and a permission may be given back.
    #[must_use]
    pub fn retrying_access_errors(self) -> Self {
        Self {
            retries_access_errors: true,
            ..self
        }
    }

    pub(super) fn with_parts(self, has_parts: bool) -> Self {
        Self {
            until: if has_parts { self.with_parts_until } else { self.until },
            ..self
        }
    }

    /// Whether the same call may succeed a moment later.
    fn allows<E: ProvideErrorMetadata>(self, error: &SdkError<E>) -> bool {
        let is_one_of = |codes: &[&str]| error.code().is_some_and(|code| codes.contains(&code));
        let is_invalid = is_one_of(&["ValidationException", "ResourceNotFoundException"])
            // A transaction names the faults of its parts in its message.
            || error.message().is_some_and(|message| message.contains("ValidationError"));
        !is_invalid && (self.retries_access_errors || !is_one_of(&ACCESS_ERRORS))
    }
}

impl From<Instant> for RetryPolicy {
    fn from(until: Instant) -> Self {
        Self::new(until, until)
    }
}

/// What DynamoDB says where the function's role or its credentials are the fault.
const ACCESS_ERRORS: [&str; 7] = [
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "UnrecognizedClientException",
];

/// The first wait before another try; each next one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);

const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Tries until it works, fails for good, or there is no time left. The error is then that of the last try.
pub(super) async fn retry_until<T, E, F>(policy: RetryPolicy, mut operation: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, SdkError<E>>>,
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let mut tries = 0_u32;
    let mut last = None;
    let mut wait = FIRST_WAIT;
    let trying = async {
        loop {
            tries += 1;
            match operation().await {
                Ok(value) => return Ok(value),
                Err(error) if policy.allows(&error) => last = Some(describe(&error)),
                Err(error) => return Err(StoreError::DynamoDb(describe(&error))),
            }
            tokio::time::sleep(wait / 2 + (wait / 2).mul_f32(fastrand::f32())).await;
            wait = LONGEST_WAIT.min(wait * 2);
        }
    };
    let ended = tokio::time::timeout_at(policy.until, trying).await;
    ended.unwrap_or_else(|_| match last {
        Some(cause) if tries == 1 => Err(StoreError::DynamoDb(format!("{cause} after 1 try"))),
        Some(cause) => Err(StoreError::DynamoDb(format!("{cause} after {tries} tries"))),
        None => Err(StoreError::Timeout),
    })
}
