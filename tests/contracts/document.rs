//! Reading the `OpenAPI` and `AsyncAPI` documents.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jsonschema::Validator;
use local::project::build::workspace;
use serde_json::{Value, json};
use tests::yaml;

/// The folder of the documents.
pub(crate) fn folder() -> PathBuf {
    workspace().join("shared/schema")
}

pub(crate) fn document(name: &str) -> Value {
    yaml::read(&folder().join(name))
}

/// The target of the value's `$ref`, or the value itself.
pub(crate) fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect(reference),
        None => value,
    }
}

pub(crate) fn validator(document: &Value, schema: &Value) -> Validator {
    let mut root = json!({"components": document["components"]});
    for (keyword, value) in schema.as_object().expect("a schema") {
        root[keyword] = value.clone();
    }
    jsonschema::options()
        .should_validate_formats(true)
        .build(&root)
        .expect("a schema")
}

pub(crate) fn words(list: &Value) -> BTreeSet<&str> {
    list.as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

pub(crate) fn names(object: &Value) -> BTreeSet<&str> {
    object
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect()
}
