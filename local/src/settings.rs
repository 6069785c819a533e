//! The development settings: one shop, `main`, and secrets that are none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{NAME, REGION, TOPIC_ARN};

/// The function that publishes what waits in the outbox.
pub const REDRIVE: &str = "redrive";
/// The only shop.
pub const SHOP: &str = "main";
/// The URL token of the providers that have one.
pub const TOKEN: &str = "local-development-token";
/// Deeple's project id.
pub const DEEPLE_PID: &str = "local-pid";
/// Deeple's secret.
pub const DEEPLE_SECRET: &str = "local-secret";
/// Snipcart's secret API key.
pub const SNIPCART_KEY: &str = "local-key";
/// The access key and the secret key for the AWS endpoints, which check neither.
pub const AWS_KEY: &str = "local";

/// Where the parts of the stack are.
#[derive(Debug, Clone)]
pub struct Urls {
    /// DynamoDB.
    pub dynamodb: String,
    /// SNS and SQS.
    pub messages: String,
    /// Snipcart's API.
    pub snipcart_api: String,
}

/// A function's secret, as it would be in Secrets Manager; `None` for one that receives nothing.
pub fn secret(function: &str) -> Option<Value> {
    let shop = match function {
        REDRIVE => return None,
        "deeple" => json!({"pid": DEEPLE_PID, "secrets": [DEEPLE_SECRET]}),
        "snipcart" => json!({"api_keys": [SNIPCART_KEY]}),
        _ => json!({"tokens": [TOKEN]}),
    };
    Some(json!({"shops": {SHOP: shop}}))
}

/// A function's environment variables.
pub fn variables(function: &str, urls: &Urls) -> BTreeMap<String, String> {
    let secret = secret(function).map(|secret| ("SECRETS", secret.to_string()));
    [
        ("TABLE_NAME", NAME.to_owned()),
        ("TOPIC_ARN", TOPIC_ARN.to_owned()),
        // The template's defaults. Whoever reads a kept delivery anew needs them as its provider's function does.
        ("CARTUM_TIME_ZONE", "Europe/Kyiv".to_owned()),
        ("DEEPLE_CURRENCY", "THB".to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_DEFAULT_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", AWS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", AWS_KEY.to_owned()),
        ("AWS_ENDPOINT_URL_DYNAMODB", urls.dynamodb.clone()),
        ("AWS_ENDPOINT_URL_SNS", urls.messages.clone()),
        ("SNIPCART_API_URL", urls.snipcart_api.clone()),
    ]
    .into_iter()
    .chain(secret)
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
