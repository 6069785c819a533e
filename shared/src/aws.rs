//! Creates the clients of the AWS services, with credentials from the environment and a limit on every wait.

use std::error::Error;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Region, StalledStreamProtectionConfig};

use crate::http::{self, MOST_IDLE};
use crate::settings::{SettingError, Settings};

/// Reads the role's temporary credentials, which Lambda sets as environment variables.
fn credentials(settings: &Settings) -> Result<Credentials, SettingError> {
    Ok(Credentials::new(
        settings.required("AWS_ACCESS_KEY_ID")?,
        settings.required("AWS_SECRET_ACCESS_KEY")?,
        settings.optional("AWS_SESSION_TOKEN"),
        None,
        "environment",
    ))
}

fn limits(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(attempt).build()
}

fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(3)
        .with_initial_backoff(Duration::from_millis(50))
}

/// Builds the client of one service. A macro, because the services' `Config` types have the same methods but no common
/// trait.
macro_rules! client {
    ($settings:ident, $service:ident, $endpoint:literal, $attempt:expr, $most_idle:expr) => {{
        let config = $service::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new($settings.required("AWS_REGION")?))
            .credentials_provider(credentials($settings)?)
            .http_client(http::sdk_client($most_idle))
            .timeout_config(limits($attempt))
            // The limits above end a stalled answer too, so each body need not be watched for it.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .retry_config(retries());
        let config = match $settings.optional($endpoint) {
            Some(url) => config.endpoint_url(url),
            None => config,
        };
        Ok($service::Client::from_conf(config.build()))
    }};
}

/// The client of DynamoDB, which keeps up to `most_idle` idle connections.
pub(crate) fn dynamodb(settings: &Settings, most_idle: usize) -> Result<aws_sdk_dynamodb::Client, SettingError> {
    client!(
        settings,
        aws_sdk_dynamodb,
        "AWS_ENDPOINT_URL_DYNAMODB",
        Duration::from_millis(1500),
        most_idle
    )
}

pub(crate) fn sns(settings: &Settings) -> Result<aws_sdk_sns::Client, SettingError> {
    client!(
        settings,
        aws_sdk_sns,
        "AWS_ENDPOINT_URL_SNS",
        Duration::from_secs(1),
        MOST_IDLE
    )
}

pub(crate) fn secrets_manager(settings: &Settings) -> Result<aws_sdk_secretsmanager::Client, SettingError> {
    client!(
        settings,
        aws_sdk_secretsmanager,
        "AWS_ENDPOINT_URL_SECRETS_MANAGER",
        Duration::from_millis(1500),
        MOST_IDLE
    )
}

/// The innermost cause of an error: the SDK's outer ones only say that a call failed.
pub(crate) fn cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Whether a service asks for fewer calls by this code.
pub(crate) fn is_throttling(code: &str) -> bool {
    const CODES: [&str; 9] = [
        "KMSThrottling",
        "KMSThrottlingException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "Throttled",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    ];
    CODES.contains(&code)
}
