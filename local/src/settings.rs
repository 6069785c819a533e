//! The development settings: one shop, `main`, and secrets that are none.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::alerts::ALARM_TOPIC_ARN;
use crate::{Error, NAME, REGION, TOPIC_ARN};

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
/// Snipcart's secret API key of the test mode.
pub const SNIPCART_TEST_KEY: &str = "local-test-key";
/// Where the function finds Snipcart's API.
pub const SNIPCART_API_URL_NAME: &str = "SNIPCART_API_URL";
/// Snipcart's own API: a real key is no use to the stand-in.
pub const SNIPCART_API_URL: &str = "https://app.snipcart.com/api";
/// The access key and the secret key for the AWS endpoints, which check neither.
pub const AWS_KEY: &str = "local";

/// How glibc's allocator is set, as in the template.
pub const TUNABLES_NAME: &str = "GLIBC_TUNABLES";
/// A block of half a megabyte goes back to the system at once.
pub const TUNABLES: &str = "glibc.malloc.mmap_threshold=524288";

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

/// The development secrets of these functions.
pub fn secrets<'a>(functions: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, Value> {
    let secrets = functions
        .into_iter()
        .map(|function| (function.to_owned(), secret(function)));
    secrets
        .filter_map(|(function, secret)| Some((function, secret?)))
        .collect()
}

/// Secrets from a file: a JSON object of each provider's secret, as it is in Secrets Manager.
///
/// A provider that is not in it has no shop: nothing that comes for it is taken, and no development secret is left that anybody knows.
pub fn secrets_in(file: &Path, functions: &[&str]) -> Result<BTreeMap<String, Value>, Error> {
    let wrong = |what: &str| Error::Start(format!("--secrets {}: {what}", file.display()));
    let text = std::fs::read(file).map_err(|error| wrong(&error.to_string()))?;
    // What a parser says of a secret may hold it.
    let given: BTreeMap<String, Value> = serde_json::from_slice(&text)
        .map_err(|error| wrong(&format!("it is not a JSON object (line {})", error.line())))?;
    let mut secrets = secrets(functions.iter().copied());
    let known: Vec<String> = secrets.keys().cloned().collect();
    for secret in secrets.values_mut() {
        *secret = json!({"shops": {}});
    }
    for (provider, secret) in given {
        let Some(place) = secrets.get_mut(&provider) else {
            return Err(wrong(&format!(
                "there is no provider {provider}; there are {}",
                known.join(", ")
            )));
        };
        if !secret["shops"].is_object() {
            return Err(wrong(&format!(
                "{provider} needs {{\"shops\": {{\"main\": {{...}}}}}}; its README says what a shop holds"
            )));
        }
        *place = secret;
    }
    Ok(secrets)
}

/// A function's environment variables.
pub fn variables(function: &str, urls: &Urls) -> BTreeMap<String, String> {
    let secret = secret(function).map(|secret| ("SECRETS", secret.to_string()));
    let alarms = (function == REDRIVE).then(|| ("ALARM_TOPIC_ARN", ALARM_TOPIC_ARN.to_owned()));
    [
        ("TABLE_NAME", NAME.to_owned()),
        ("TOPIC_ARN", TOPIC_ARN.to_owned()),
        // As in the template. Whoever reads a kept delivery anew needs them as its provider's function does.
        ("CARTUM_TIME_ZONE", "Europe/Kyiv".to_owned()),
        ("DEEPLE_CURRENCY", "THB".to_owned()),
        (TUNABLES_NAME, TUNABLES.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_DEFAULT_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", AWS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", AWS_KEY.to_owned()),
        ("AWS_ENDPOINT_URL_DYNAMODB", urls.dynamodb.clone()),
        ("AWS_ENDPOINT_URL_SNS", urls.messages.clone()),
        (SNIPCART_API_URL_NAME, urls.snipcart_api.clone()),
    ]
    .into_iter()
    .chain(secret)
    .chain(alarms)
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BTreeMap<String, Value>, String> {
        let file = std::env::temp_dir().join(format!("order-webhooks-{}.json", uuid::Uuid::new_v4()));
        std::fs::write(&file, text).unwrap();
        let read = secrets_in(&file, &["cartum", "selldone", REDRIVE]);
        std::fs::remove_file(&file).unwrap();
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn a_provider_that_the_file_does_not_name_has_no_secret_left() {
        let secrets = read(r#"{"selldone": {"shops": {"a": {"tokens": ["a-long-random-token-1"]}}}}"#).unwrap();
        assert_eq!(secrets["selldone"]["shops"]["a"]["tokens"][0], "a-long-random-token-1");
        assert_eq!(secrets["cartum"], json!({"shops": {}}));
        assert_eq!(secrets.len(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_used_says_what_to_do_and_nothing_of_a_secret() {
        for (text, told) in [
            (r#"["hidden"]"#, "is not a JSON object"),
            (r#"{"selldone": hidden}"#, "is not a JSON object (line 1)"),
            (r#"{"shopify": {"shops": {}}}"#, "there are cartum, selldone"),
            (r#"{"selldone": {"tokens": ["hidden"]}}"#, "selldone needs {\"shops\""),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(told) && !error.contains("hidden"), "{error}");
        }
    }
}
