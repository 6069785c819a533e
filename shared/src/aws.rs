//! Clients of the AWS services: one HTTP stack for all, credentials from the environment, limits on every wait.

use std::error::Error;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;
use std::{env, fs};

use aws_credential_types::Credentials;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Region, SharedHttpClient, StalledStreamProtectionConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use crate::settings::{SettingError, Settings};

/// TLS for everything that leaves a function. `ring` keeps the binary small.
pub(crate) const TLS: Provider = Provider::Rustls(CryptoMode::Ring);

static HTTP: LazyLock<SharedHttpClient> =
    LazyLock::new(|| Builder::new().tls_provider(TLS).tls_context(trust()).build_https());

/// Where Linux distributions keep the authorities that they trust, in one file.
const AUTHORITIES: [&str; 3] = [
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/certs/ca-certificates.crt",
];

/// Whom TLS trusts: the authorities of `SSL_CERT_FILE`, else of the system. The template names a file, for a system's folder of them
/// takes a third of init to read; where that file is not, another is better than none.
pub(crate) fn trust() -> TlsContext {
    let named = env::var_os("SSL_CERT_FILE");
    let context = TlsContext::builder().with_trust_store(store(named.as_deref().map(Path::new)));
    context.build().expect("any trust store is taken")
}

fn store(named: Option<&Path>) -> TrustStore {
    if named.is_none_or(Path::exists) {
        return TrustStore::default();
    }
    let authorities = AUTHORITIES.iter().find_map(|file| fs::read(file).ok());
    authorities.map_or_else(TrustStore::default, |authorities| {
        TrustStore::empty().with_pem_certificate(authorities)
    })
}

/// Lambda puts the role's temporary credentials into the environment of each execution environment.
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
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(attempt)
        .build()
}

fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(3)
        .with_initial_backoff(Duration::from_millis(50))
}

/// Builds the client of one service; the services' `Config` types have the same methods and no common trait.
macro_rules! client {
    ($settings:ident, $service:ident, $endpoint:literal, $attempt:expr) => {{
        let config = $service::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new($settings.required("AWS_REGION")?))
            .credentials_provider(credentials($settings)?)
            .http_client(HTTP.clone())
            .timeout_config(limits($attempt))
            // The limits above end a stalled answer too; watching each body for it is work for nothing.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .retry_config(retries());
        let config = match $settings.optional($endpoint) {
            Some(url) => config.endpoint_url(url),
            None => config,
        };
        Ok($service::Client::from_conf(config.build()))
    }};
}

pub(crate) fn dynamodb(settings: &Settings) -> Result<aws_sdk_dynamodb::Client, SettingError> {
    client!(
        settings,
        aws_sdk_dynamodb,
        "AWS_ENDPOINT_URL_DYNAMODB",
        Duration::from_millis(1500)
    )
}

pub(crate) fn sns(settings: &Settings) -> Result<aws_sdk_sns::Client, SettingError> {
    client!(settings, aws_sdk_sns, "AWS_ENDPOINT_URL_SNS", Duration::from_secs(1))
}

pub(crate) fn secrets_manager(settings: &Settings) -> Result<aws_sdk_secretsmanager::Client, SettingError> {
    client!(
        settings,
        aws_sdk_secretsmanager,
        "AWS_ENDPOINT_URL_SECRETS_MANAGER",
        Duration::from_millis(1500)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_named_authorities_are_not_the_systems_are_trusted() {
        let reads_the_named = |named| format!("{:?}", store(named)).contains("enable_native_roots: true");
        assert!(reads_the_named(None));
        assert!(reads_the_named(Some(Path::new("Cargo.toml"))));
        let has_some = AUTHORITIES.iter().any(|file| Path::new(file).exists());
        assert_eq!(reads_the_named(Some(Path::new("/nowhere"))), !has_some);
    }
}
