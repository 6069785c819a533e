//! The JSON Schema of an order's state is generated from the Rust types, describes every field, and accepts the state of
//! every history.
//!
//! `UPDATE_GOLDEN=1 cargo test --workspace --test contracts state_schema` writes the schema.

use std::path::Path;
use std::{env, fs};

use local::project::build::workspace;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use shared::order_state::{OrderState, SCHEMA};

fn generated() -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<OrderState>();
    schema.insert("$id".to_owned(), SCHEMA.into());
    schema.into()
}

fn read(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// The state of each order in `events/histories`.
fn states() -> Vec<Value> {
    let folder = workspace().join("events/histories");
    let files = fs::read_dir(folder).expect("events/histories");
    let files: Vec<Value> = files.map(|file| read(&file.expect("a file").path())).collect();
    let states = files
        .iter()
        .flat_map(|file| file["state"].as_object().expect("states").values().cloned());
    states.collect()
}

#[test]
fn the_committed_schema_is_generated_from_the_types() {
    let path = workspace().join("shared/schema/order-state.v1.schema.json");
    let generated = serde_json::to_string_pretty(&generated()).expect("JSON") + "\n";
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &generated).expect("the schema can be written");
    }
    let committed = fs::read_to_string(&path).expect("shared/schema/order-state.v1.schema.json");
    assert!(
        committed == generated,
        "the types have changed: run this test with UPDATE_GOLDEN=1 and review the difference"
    );
}

#[test]
fn the_schema_shares_the_definitions_of_the_event() {
    let event = read(&workspace().join("shared/schema/order-event.v1.schema.json"));
    let state = generated();
    let definitions = state["$defs"].as_object().expect("definitions");
    for name in ["Order", "Item", "Adjustment", "Refund", "EventType", "Status"] {
        assert_eq!(definitions[name], event["$defs"][name], "{name}");
    }
    let own = [&state, &definitions["FoldedEvent"], &definitions["StatedRefund"]];
    for schema in own {
        assert!(schema["description"].is_string(), "{schema}");
        for (field, schema) in schema["properties"].as_object().expect("fields") {
            assert!(schema["description"].is_string(), "{field} is not described");
        }
    }
}

#[test]
fn the_state_of_every_history_is_valid() {
    let options = jsonschema::options().should_validate_formats(true);
    let schema = options.build(&generated()).expect("a schema of draft 2020-12");
    let mut states = states();
    assert!(states.len() > 30, "only {} states were found", states.len());
    for state in &states {
        let errors: Vec<_> = schema.iter_errors(state).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{state}: {}", errors.join("\n"));
    }
    let state = &mut states[0];
    for (pointer, odd) in [
        ("/test", json!("false")),
        ("/order/id", json!(1001)),
        ("/stated_by", json!([])),
        ("/events/0/time", json!("yesterday")),
        ("/events/0/id", json!(null)),
    ] {
        let field = state.pointer_mut(pointer).expect("a field");
        let good = std::mem::replace(field, odd);
        assert!(!schema.is_valid(state), "{pointer}: {state} is valid");
        *state.pointer_mut(pointer).expect("a field") = good;
    }
}
