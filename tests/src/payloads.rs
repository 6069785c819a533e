//! The payloads of `events/` that are published, and what is in them.

use std::iter;

use serde_json::Value;

use crate::catalogue;

/// The provider's events that are published, by name.
pub fn accepted(provider: &str) -> Vec<(String, Value)> {
    let catalogue = catalogue();
    let names = catalogue.names()[provider].iter();
    let published = names.filter(|name| catalogue.normalized(provider, name).expect("a golden event").is_some());
    published
        .map(|name| {
            let body = catalogue
                .event(provider, name)
                .and_then(|event| event.body())
                .expect("an event with a body");
            let body = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name.clone(), body)
        })
        .collect()
}

/// JSON pointers to all that is in a value.
pub fn pointers(value: &Value) -> Vec<String> {
    let escape = |name: &str| name.replace('~', "~0").replace('/', "~1");
    let parts: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (escape(name), value)).collect(),
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .map(|(index, value)| (index.to_string(), value))
            .collect(),
        _ => Vec::new(),
    };
    parts
        .into_iter()
        .flat_map(|(name, value)| {
            let here = format!("/{name}");
            let below = pointers(value)
                .into_iter()
                .map(|below| format!("{here}{below}"))
                .collect::<Vec<_>>();
            iter::once(here.clone()).chain(below)
        })
        .collect()
}
