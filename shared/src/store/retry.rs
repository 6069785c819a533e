//! How long a write is tried, and after which errors.

use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use tokio::time::Instant;

use super::StoreError;

/// How long a write is tried.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    until: Instant,
    with_parts_until: Instant,
    retries_access_errors: bool,
}

impl RetryPolicy {
    /// Tries until `until`; an event that needs parts, which take longer to write, until `with_parts_until`.
    pub fn new(until: Instant, with_parts_until: Instant) -> Self {
        Self {
            until,
            with_parts_until,
            retries_access_errors: false,
        }
    }

    /// Retries after access errors too: for a delivery that cannot be sent again, since a permission may be restored in
    /// time.
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
            // A transaction names the errors of its parts in its message.
            || error.message().is_some_and(|message| message.contains("ValidationError"));
        !is_invalid && (self.retries_access_errors || !is_one_of(&ACCESS_ERRORS))
    }
}

impl From<Instant> for RetryPolicy {
    fn from(until: Instant) -> Self {
        Self::new(until, until)
    }
}

/// The codes of DynamoDB for a fault of the function's role or credentials.
const ACCESS_ERRORS: [&str; 7] = [
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "UnrecognizedClientException",
];

/// The wait before the second attempt. Each further wait is twice as long, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Repeats `operation` until it succeeds, fails in a way that `policy` does not retry, or its time is over. The error
/// is then that of the last attempt.
pub(super) async fn retry_until<T, E, F>(policy: RetryPolicy, mut operation: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, SdkError<E>>>,
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let mut attempts = 0_u32;
    let mut last = None;
    let mut wait = FIRST_WAIT;
    let repeated = async {
        loop {
            attempts += 1;
            match operation().await {
                Ok(value) => return Ok(value),
                Err(error) if policy.allows(&error) => last = Some(StoreError::from(error)),
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(wait / 2 + (wait / 2).mul_f32(fastrand::f32())).await;
            wait = LONGEST_WAIT.min(wait * 2);
        }
    };
    let ended = tokio::time::timeout_at(policy.until, repeated).await;
    ended.unwrap_or_else(|_| Err(last.map_or(StoreError::Timeout, |error| error.after(attempts))))
}
