//! The YAML documents of the repository as JSON.

use std::fs;
use std::path::Path;

use local::project::build::workspace;
use local::project::template;
use serde_json::{Value, json};
use yaml_rust2::Yaml;

/// Reads a YAML document. Tags such as `!Ref` are left out, and merge keys are resolved.
///
/// # Panics
/// If the file is not a YAML document.
pub fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    json_of(&template::load(&text).expect("YAML"))
}

/// The deployment template.
pub fn template() -> Value {
    read(&workspace().join("template.yaml"))
}

fn json_of(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(flag) => json!(flag),
        Yaml::Integer(number) => json!(number),
        Yaml::Real(number) => serde_json::from_str(number).expect("a number"),
        Yaml::String(text) => json!(text),
        Yaml::Array(elements) => elements.iter().map(json_of).collect(),
        Yaml::Hash(fields) => {
            let name = |name: &Yaml| name.as_str().expect("a name").to_owned();
            Value::Object(fields.iter().map(|(key, value)| (name(key), json_of(value))).collect())
        }
        other => panic!("unexpected YAML: {other:?}"),
    }
}
