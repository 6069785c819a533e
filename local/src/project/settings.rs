//! The development settings: one shop, `main`, and publicly known secrets.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::{ALARM_TOPIC_ARN, Error, NAME, REGION, TOPIC_ARN};

/// The function that publishes the events of the outbox.
pub const REDRIVE: &str = "redrive";
/// The function that compares the orders of the order APIs with the stored events.
pub const RECONCILE: &str = "reconcile";
/// The providers that have an order API.
pub const ORDER_APIS: [&str; 4] = ["snipcart", "cartum", "selldone", "aboutyou"];
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
/// The credentials for an order API are these words and the name of the shop.
const API_KEY: &str = "local-order-api-of-";
/// The password for Cartum's order API.
const API_PASSWORD: &str = "local-order-api-password";
/// The time zone of Cartum's shops, as in the template.
pub const CARTUM_TIME_ZONE: &str = "Europe/Kyiv";
/// The variable that names Snipcart's API to the functions.
pub const SNIPCART_API_URL_NAME: &str = "SNIPCART_API_URL";
/// The variable that lets the function `reconcile` subscribe again after a subscription has ended.
pub const AUTO_RESUBSCRIBE_NAME: &str = "AUTO_RESUBSCRIBE";
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
    /// The URL of the stand-ins for the providers' APIs.
    pub providers: String,
}

/// The path of a provider's order API at the stand-ins.
pub fn order_api_path(provider: &str) -> String {
    // Snipcart has one API for the validation call and for orders.
    let name = if provider == "snipcart" { "api" } else { provider };
    format!("/{name}")
}

/// The variable that names a provider's order API to the function `reconcile`.
pub fn order_api_variable(provider: &str) -> String {
    format!("{}_API_URL", provider.to_uppercase())
}

/// The variable that names a provider's secret to the function `reconcile`.
pub fn secret_variable(provider: &str) -> String {
    format!("SECRETS_{}", provider.to_uppercase())
}

/// The credentials of a shop for the provider's order API.
pub fn api(provider: &str, shop: &str) -> Value {
    let key = format!("{API_KEY}{shop}");
    match provider {
        "cartum" => json!({"domain": format!("{shop}.example.com"), "login": key, "password": API_PASSWORD}),
        "selldone" => json!({"shop_id": "1", "token": key}),
        _ => json!({ "key": key }),
    }
}

/// The shop whose key, token or login for the provider's order API this is.
pub fn shop_of(provider: &str, credential: &str) -> Option<String> {
    let shop = credential.strip_prefix(API_KEY)?;
    (ORDER_APIS.contains(&provider) && !shop.is_empty()).then(|| shop.to_owned())
}

/// The secret of a function, as it would be in Secrets Manager; `None` for a function that does not receive deliveries.
pub fn secret(function: &str) -> Option<Value> {
    let mut shop = match function {
        REDRIVE | RECONCILE => return None,
        "deeple" => json!({"pid": DEEPLE_PID, "secrets": [DEEPLE_SECRET]}),
        "snipcart" => json!({"api_keys": [SNIPCART_KEY]}),
        _ => json!({"tokens": [TOKEN]}),
    };
    if ORDER_APIS.contains(&function) {
        shop["api"] = api(function, SHOP);
    }
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

impl Urls {
    /// The URL of a provider's order API.
    fn order_api(&self, provider: &str) -> String {
        format!("{}{}", self.providers, order_api_path(provider))
    }
}

/// The variables of the function `reconcile` alone: the order APIs, and the secrets of their providers.
fn reconciles(urls: &Urls) -> Vec<(String, String)> {
    let mut variables = vec![
        ("RECONCILE_LOOKBACK_HOURS".to_owned(), "48".to_owned()),
        ("RECONCILE_DAILY_LOOKBACK_DAYS".to_owned(), "30".to_owned()),
    ];
    for provider in ORDER_APIS {
        variables.push((order_api_variable(provider), urls.order_api(provider)));
        let secret = secret(provider).map(|secret| secret.to_string());
        variables.push((secret_variable(provider), secret.unwrap_or_default()));
    }
    variables
}

/// The environment variables of a function.
pub fn variables(function: &str, urls: &Urls) -> BTreeMap<String, String> {
    let secret = secret(function).map(|secret| ("SECRETS", secret.to_string()));
    let alarms = (function == REDRIVE).then(|| ("ALARM_TOPIC_ARN", ALARM_TOPIC_ARN.to_owned()));
    [
        ("TABLE_NAME", NAME.to_owned()),
        ("TOPIC_ARN", TOPIC_ARN.to_owned()),
        // As in the template. `redrive` needs them too, to read stored deliveries again.
        ("CARTUM_TIME_ZONE", CARTUM_TIME_ZONE.to_owned()),
        ("DEEPLE_CURRENCY", "THB".to_owned()),
        (TUNABLES_NAME, TUNABLES.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_DEFAULT_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", AWS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", AWS_KEY.to_owned()),
        ("AWS_ENDPOINT_URL_DYNAMODB", urls.dynamodb.clone()),
        ("AWS_ENDPOINT_URL_SNS", urls.messages.clone()),
        (SNIPCART_API_URL_NAME, urls.order_api("snipcart")),
    ]
    .into_iter()
    .chain(secret)
    .chain(alarms)
    .map(|(name, value)| (name.to_owned(), value))
    .chain((function == RECONCILE).then(|| reconciles(urls)).into_iter().flatten())
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
