//! Masks secrets in requests before they are recorded.

use serde_json::Value;

/// The text that replaces a secret.
pub const MASK: &str = "••••••";

/// A header or parameter whose name contains one of these words may prove authenticity.
const WORDS: [&str; 13] = [
    "auth",
    "cookie",
    "credential",
    "digest",
    "hmac",
    "jwt",
    "key",
    "passw",
    "secret",
    "session",
    "sign",
    "token",
    "x-amz-security",
];

/// The members of a shop's secret that are not secret.
const PUBLIC: [&str; 4] = ["domain", "host", "pid", "shop_id"];

/// The length of the shortest secret that is masked in texts. Shorter ones could be ordinary words; real secrets are
/// much longer.
const SHORTEST: usize = 8;

/// Masks the secrets of this stack, and values whose names say that they are secret.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    secrets: Vec<String>,
    names: Vec<String>,
}

impl Redactor {
    /// Creates a redactor for the secrets of all functions, each as it would be in Secrets Manager.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut redactor = Self::default();
        for secret in secrets {
            redactor.learn("", secret);
        }
        // The longest first, because one may be a part of another.
        redactor.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        redactor
    }

    fn learn(&mut self, name: &str, value: &Value) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| self.learn(name, value)),
            Value::Array(values) => values.iter().for_each(|value| self.learn(name, value)),
            Value::String(header) if name == "signature_header" => self.names.push(header.to_ascii_lowercase()),
            Value::String(secret) if !PUBLIC.contains(&name) && secret.len() >= SHORTEST => {
                self.secrets.push(secret.clone());
            }
            _ => {}
        }
    }

    /// Masks a named value, such as a header: completely if its name says that it is secret.
    pub fn named(&self, name: &str, value: &str) -> String {
        let name = name.to_ascii_lowercase();
        if WORDS.iter().any(|word| name.contains(word)) || self.names.contains(&name) {
            let scheme = value
                .split_once(' ')
                .map(|(scheme, _)| scheme)
                .filter(|scheme| ["basic", "bearer"].contains(&scheme.to_ascii_lowercase().as_str()));
            scheme.map_or_else(|| MASK.to_owned(), |scheme| format!("{scheme} {MASK}"))
        } else {
            self.text(value)
        }
    }

    /// Masks the secrets of this stack in a text.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            if text.contains(secret) {
                text = text.replace(secret, MASK);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_masked_everywhere() {
        let secrets = [
            json!({"shops": {"main": {"tokens": ["a-long-random-token"], "client_secrets": ["a-client-secret"], "signature_header": "X-Proof"}}}),
            json!({"shops": {"main": {"pid": "project-1", "secrets": ["a-shared-secret"]}}}),
        ];
        let redactor = Redactor::new(&secrets);
        for (name, value, expected) in [
            ("Authorization", "Basic dXNlcjpwYXNz", "Basic ••••••"),
            ("authorization", "a b c", MASK),
            ("SIGNATURE", "aa", MASK),
            ("x-deeple-signature", "aa", MASK),
            ("X-Snipcart-RequestToken", "aa", MASK),
            ("x-proof", "aa", MASK),
            ("cookie", "a=1", MASK),
            ("token", "whatever", MASK),
            ("pid", "project-1", "project-1"),
            ("user-agent", "shop/1 a-client-secret!", "shop/1 ••••••!"),
            ("event", "order_created", "order_created"),
        ] {
            assert_eq!(redactor.named(name, value), expected, "{name}");
        }
        assert_eq!(
            redactor.text("/webhooks/a-long-random-token?x=a-shared-secret"),
            "/webhooks/••••••?x=••••••"
        );
    }
}
