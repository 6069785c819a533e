//! The event's JSON Schema is the one of the Rust types.
//!
//! `UPDATE_GOLDEN=1 cargo test -p tests --test schema` writes it anew. Within v1 fields are only added.

use std::path::Path;
use std::{env, fs};

use schemars::generate::SchemaSettings;
use shared::event::OrderEvent;

#[test]
fn the_committed_schema_is_the_one_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/schema/order-event.v1.schema.json");
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<OrderEvent>();
    schema.insert("$id".to_owned(), "urn:order-webhooks:order-event:v1".into());
    let generated = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &generated).expect("the schema can be written");
    }
    let committed = fs::read_to_string(&path).expect("shared/schema/order-event.v1.schema.json");
    assert!(
        committed == generated,
        "the types have changed: run this test with UPDATE_GOLDEN=1, then read the difference"
    );
}
