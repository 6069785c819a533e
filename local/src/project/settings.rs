//! The development settings: one shop, `main`, and publicly known secrets.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::{ALARM_TOPIC_ARN, Error, NAME, REGION, TOPIC_ARN};

/// The function that publishes the events of the outbox.
pub const REDRIVE: &str = "redrive";
/// The only shop.
pub const SHOP: &str = "main";
/// The URL token of the providers that have one.
pub const TOKEN: &str = "local-development-token";
/// The project id at Deeple.
pub const DEEPLE_PID: &str = "local-pid";
/// The secret of Deeple.
pub const DEEPLE_SECRET: &str = "local-secret";
/// The secret API key of Snipcart.
pub const SNIPCART_KEY: &str = "local-key";
/// The secret API key of Snipcart's test mode.
pub const SNIPCART_TEST_KEY: &str = "local-test-key";
/// The variable that names Snipcart's API to the functions.
pub const SNIPCART_API_URL_NAME: &str = "SNIPCART_API_URL";
/// Snipcart's own API, which a real key needs.
pub const SNIPCART_API_URL: &str = "https://app.snipcart.com/api";
/// The access key and the secret key for the AWS endpoints, which check neither.
pub const AWS_KEY: &str = "local";

/// The variable that tunes glibc's allocator, as in the template.
pub const TUNABLES_NAME: &str = "GLIBC_TUNABLES";
/// Blocks of half a megabyte go back to the system at once.
pub const TUNABLES: &str = "glibc.malloc.mmap_threshold=524288";

/// The URLs of the parts of the stack.
#[derive(Debug, Clone)]
pub struct Urls {
    /// The URL of DynamoDB.
    pub dynamodb: String,
    /// The URL of SNS and SQS.
    pub messages: String,
    /// The URL of Snipcart's API.
    pub snipcart_api: String,
}

/// The secret of a function, as it would be in Secrets Manager; `None` for a function that does not receive deliveries.
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

/// Reads secrets from a file: a JSON object of each provider's secret, as it would be in Secrets Manager.
///
/// A provider that is missing from the file gets a secret without a shop, so that all its deliveries are refused and no
/// publicly known secret remains.
pub fn secrets_in(file: &Path, functions: &[&str]) -> Result<BTreeMap<String, Value>, Error> {
    let wrong = |what: &str| Error::Start(format!("--secrets {}: {what}", file.display()));
    let text = std::fs::read(file).map_err(|error| wrong(&error.to_string()))?;
    // The message of a parser may hold a part of a secret.
    let given: BTreeMap<String, Value> =
        serde_json::from_slice(&text).map_err(|error| wrong(&format!("not a JSON object (line {})", error.line())))?;
    let mut secrets = secrets(functions.iter().copied());
    let known: Vec<String> = secrets.keys().cloned().collect();
    for secret in secrets.values_mut() {
        *secret = json!({"shops": {}});
    }
    for (provider, secret) in given {
        let Some(place) = secrets.get_mut(&provider) else {
            return Err(wrong(&format!(
                "unknown provider {provider}; known are {}",
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

/// The environment variables of a function.
pub fn variables(function: &str, urls: &Urls) -> BTreeMap<String, String> {
    let secret = secret(function).map(|secret| ("SECRETS", secret.to_string()));
    let alarms = (function == REDRIVE).then(|| ("ALARM_TOPIC_ARN", ALARM_TOPIC_ARN.to_owned()));
    [
        ("TABLE_NAME", NAME.to_owned()),
        ("TOPIC_ARN", TOPIC_ARN.to_owned()),
        // As in the template. `redrive` needs them too, to read stored deliveries again.
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
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        secrets_in(file.path(), &["cartum", "selldone", REDRIVE]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_provider_missing_from_the_file_has_no_shop() {
        let secrets = read(r#"{"selldone": {"shops": {"a": {"tokens": ["a-long-random-token-1"]}}}}"#).unwrap();
        assert_eq!(secrets["selldone"]["shops"]["a"]["tokens"][0], "a-long-random-token-1");
        assert_eq!(secrets["cartum"], json!({"shops": {}}));
        assert_eq!(secrets.len(), 2);
    }

    #[test]
    fn an_error_of_the_file_reveals_no_secret() {
        for (text, expected) in [
            (r#"["hidden"]"#, "not a JSON object"),
            (r#"{"selldone": hidden}"#, "not a JSON object (line 1)"),
            (r#"{"shopify": {"shops": {}}}"#, "known are cartum, selldone"),
            (r#"{"selldone": {"tokens": ["hidden"]}}"#, "selldone needs {\"shops\""),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hidden"), "{error}");
        }
    }
}
