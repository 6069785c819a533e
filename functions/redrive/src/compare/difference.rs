//! The values in which two events differ.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

/// The number of differences that are listed for one event. All of them are counted.
const LISTED: usize = 200;

/// Bytes of JSON that the differences of one event may take. Beyond them only JSON types are shown, and then nothing.
const LISTED_BYTES: usize = 40_000;

/// A value that differs.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Difference {
    pointer: String,
    stored: Value,
    today: Value,
}

/// Lists the values that differ, and counts each pointer in `pointers`.
pub(super) fn differences(
    stored: &Value,
    today: &Value,
    show_values: bool,
    pointers: &mut BTreeMap<String, u64>,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut size = 0;
    let mut walk = vec![(String::new(), String::new(), Some(stored), Some(today))];
    while let Some((pointer, pattern, stored, today)) = walk.pop() {
        match (stored, today) {
            (Some(Value::Object(stored)), Some(Value::Object(today))) => {
                for name in names(stored, today).into_iter().rev() {
                    let step = name.replace('~', "~0").replace('/', "~1");
                    walk.push((
                        format!("{pointer}/{step}"),
                        format!("{pattern}/{step}"),
                        stored.get(name),
                        today.get(name),
                    ));
                }
            }
            (Some(Value::Array(stored)), Some(Value::Array(today))) => {
                for index in (0..stored.len().max(today.len())).rev() {
                    walk.push((
                        format!("{pointer}/{index}"),
                        format!("{pattern}/*"),
                        stored.get(index),
                        today.get(index),
                    ));
                }
            }
            (stored, today) if stored == today => {}
            (stored, today) => {
                *pointers.entry(pattern).or_default() += 1;
                if found.len() >= LISTED {
                    continue;
                }
                let listed = |show_values| {
                    let difference = Difference {
                        pointer: pointer.clone(),
                        stored: shown(stored, show_values),
                        today: shown(today, show_values),
                    };
                    let bytes = json!(difference).to_string().len();
                    (size + bytes <= LISTED_BYTES).then_some((difference, bytes))
                };
                if let Some((difference, bytes)) = listed(show_values).or_else(|| listed(false)) {
                    size += bytes;
                    found.push(difference);
                }
            }
        }
    }
    found
}

/// The names of both objects, each once, in the order of the first and then of the second.
fn names<'a>(stored: &'a Map<String, Value>, today: &'a Map<String, Value>) -> Vec<&'a str> {
    let added = today.keys().filter(|name| !stored.contains_key(*name));
    stored.keys().chain(added).map(String::as_str).collect()
}

/// The value as the answer shows it: the value itself or the name of its JSON type, or `absent` if the pointer leads
/// nowhere.
fn shown(value: Option<&Value>, show_values: bool) -> Value {
    match value {
        None => json!("absent"),
        Some(value) if show_values => json!({"value": value}),
        Some(Value::Null) => json!("null"),
        Some(Value::Bool(_)) => json!("boolean"),
        Some(Value::Number(_)) => json!("number"),
        Some(Value::String(_)) => json!("string"),
        Some(Value::Array(_)) => json!("array"),
        Some(Value::Object(_)) => json!("object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_listed_by_pointer_without_values() {
        let stored = json!({"a": {"b/c": "secret", "same": 1}, "list": [1, 2], "gone": true});
        let today = json!({"a": {"b/c": null, "same": 1}, "list": [1, 3, 4], "new": {}});
        let mut pointers = BTreeMap::new();
        let found = differences(&stored, &today, false, &mut pointers);
        let listed: Vec<_> = found
            .iter()
            .map(|found| {
                (
                    found.pointer.as_str(),
                    found.stored.as_str().unwrap(),
                    found.today.as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            listed,
            [
                ("/a/b~1c", "string", "null"),
                ("/gone", "boolean", "absent"),
                ("/list/1", "number", "number"),
                ("/list/2", "absent", "number"),
                ("/new", "absent", "object"),
            ]
        );
        assert_eq!(pointers["/list/*"], 2);
    }

    #[test]
    fn values_are_shown_on_request() {
        let (stored, today) = (json!({"a": "1.50"}), json!({"a": "1.5"}));
        let found = differences(&stored, &today, true, &mut BTreeMap::new());
        assert_eq!(
            found,
            [Difference {
                pointer: "/a".to_owned(),
                stored: json!({"value": "1.50"}),
                today: json!({"value": "1.5"}),
            }]
        );
    }

    #[test]
    fn large_values_are_shown_as_types() {
        let stored = json!({"a": "x".repeat(LISTED_BYTES), "b": "small"});
        let today = json!({"a": 1, "b": 2});
        let found = differences(&stored, &today, true, &mut BTreeMap::new());
        assert_eq!(found[0].stored, json!("string"));
        assert_eq!(found[1].stored, json!({"value": "small"}));
        let long = json!({"y".repeat(LISTED_BYTES): 1});
        let mut pointers = BTreeMap::new();
        assert_eq!(differences(&long, &json!({}), false, &mut pointers), []);
        assert_eq!(pointers.len(), 1, "it is counted");
    }

    #[test]
    fn differences_beyond_the_limit_are_counted() {
        let stored = json!((0..500).collect::<Vec<_>>());
        let mut pointers = BTreeMap::new();
        let found = differences(&stored, &json!([]), false, &mut pointers);
        assert_eq!((found.len(), pointers["/*"]), (LISTED, 500));
    }
}
