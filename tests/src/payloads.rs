//! The payloads of the published events in `events/`, and JSON pointers into them.

use std::iter;

use serde_json::{Value, json};

use crate::catalogue;

/// The payloads of the provider's published events, by name.
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

/// The payloads of the provider's published events without the one large event, whose items are alike.
pub fn small(provider: &str) -> Vec<(String, Value)> {
    let mut payloads = accepted(provider);
    payloads.retain(|(_, body)| body.to_string().len() < 100_000);
    payloads
}

/// The payload with another value at the pointer.
///
/// # Panics
/// If there is nothing at the pointer.
pub fn replaced(payload: &Value, pointer: &str, value: &Value) -> Value {
    let mut payload = payload.clone();
    *payload.pointer_mut(pointer).expect("a field") = value.clone();
    payload
}

/// The payload without the field at the pointer; `None` if it is an element of a list.
///
/// # Panics
/// If there is nothing at the pointer.
pub fn removed(payload: &Value, pointer: &str) -> Option<Value> {
    let mut payload = payload.clone();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let fields = payload.pointer_mut(parent).expect("a parent").as_object_mut()?;
    fields.remove(&unescaped(name)).expect("a field");
    Some(payload)
}

/// Whether the value carries no information.
pub fn is_empty(value: &Value) -> bool {
    value.is_null() || *value == json!("") || *value == json!([]) || *value == json!({})
}

/// A name as a part of a JSON pointer.
pub fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The name that a part of a JSON pointer stands for.
pub fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// The field at a pointer as the READMEs write it: `items[].id` for `/items/0/id`.
pub fn field_name(pointer: &str) -> String {
    let parts = pointer.split('/').skip(1).map(|part| match part.parse::<u32>() {
        Ok(_) => "[]".to_owned(),
        Err(_) => format!(".{part}"),
    });
    let name: String = parts.collect();
    name.strip_prefix('.').map(str::to_owned).unwrap_or(name)
}

/// The values that contain no other value, each with the JSON pointer to it.
pub fn leaves(value: &Value) -> Vec<(String, &Value)> {
    fn walk<'v>(at: &str, value: &'v Value, leaves: &mut Vec<(String, &'v Value)>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    walk(&format!("{at}/{}", escaped(name)), value, leaves);
                }
            }
            Value::Array(elements) if !elements.is_empty() => {
                for (index, value) in elements.iter().enumerate() {
                    walk(&format!("{at}/{index}"), value, leaves);
                }
            }
            leaf => leaves.push((at.to_owned(), leaf)),
        }
    }
    let mut leaves = Vec::new();
    walk("", value, &mut leaves);
    leaves
}

/// JSON pointers to all fields and elements in a value.
pub fn pointers(value: &Value) -> Vec<String> {
    let parts: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (escaped(name), value)).collect(),
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
