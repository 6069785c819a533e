//! The JSON Schema of the event is generated from the Rust types, describes every field, accepts every golden event,
//! and only adds to the released schema.
//!
//! `UPDATE_GOLDEN=1 cargo test --workspace --test contracts event_schema` writes the schema. For a release, copy it: `cp
//! shared/schema/order-event.v1.schema.json shared/schema/released/`.

use std::path::{Path, PathBuf};
use std::{env, fs};

use cloudevents::AttributesReader as _;
use local::project::build::workspace;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use shared::event::OrderEvent;

const NAME: &str = "order-event.v1.schema.json";

fn folder() -> PathBuf {
    workspace().join("shared/schema")
}

fn read(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

fn generated() -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<OrderEvent>();
    schema.insert("$id".to_owned(), "urn:order-webhooks:order-event:v1".into());
    schema.into()
}

/// Every golden event, by provider and name.
fn goldens() -> Vec<(String, Value)> {
    let catalogue = tests::catalogue();
    let names = catalogue.names().iter();
    let names = names.flat_map(|(provider, names)| names.iter().map(move |name| (provider, name)));
    let goldens: Vec<_> = names
        .filter_map(|(provider, name)| {
            let golden = catalogue.normalized(provider, name).expect("a golden event")?;
            Some((format!("{provider}/{name}"), golden))
        })
        .collect();
    assert!(goldens.len() > 100, "only {} golden events were found", goldens.len());
    goldens
}

#[test]
fn the_committed_schema_is_generated_from_the_types() {
    let path = folder().join(NAME);
    let generated = serde_json::to_string_pretty(&generated()).expect("JSON") + "\n";
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &generated).expect("the schema can be written");
    }
    let committed = fs::read_to_string(&path).expect("shared/schema/order-event.v1.schema.json");
    assert!(
        committed == generated,
        "the types have changed: run this test with UPDATE_GOLDEN=1 and review the difference"
    );
}

#[test]
fn every_field_is_described_and_every_amount_has_a_unit() {
    let schema = generated();
    let described = |schema: &Value| schema["description"].as_str().is_some_and(|text| !text.is_empty());
    let mut fields = 0;
    let mut wrong = Vec::new();
    let definitions = schema["$defs"].as_object().expect("definitions");
    let root = ("OrderEvent".to_owned(), schema.clone());
    for (name, definition) in definitions.clone().into_iter().chain([root]) {
        if !described(&definition) {
            wrong.push(format!("{name} is not described"));
        }
        for (field, schema) in definition["properties"].as_object().into_iter().flatten() {
            fields += 1;
            if !described(schema) {
                wrong.push(format!("{name}.{field} is not described"));
            }
            let text = schema["description"].as_str().unwrap_or_default();
            let is = |what: &str| schema.to_string().contains(what);
            if is("#/$defs/Amount") && !text.contains("currency") && !text.contains("percent") {
                wrong.push(format!("{name}.{field} has no unit: {text}"));
            }
            if is("date-time") && !(text.contains("RFC 3339 in UTC") && text.contains("clock")) {
                wrong.push(format!(
                    "{name}.{field} does not document its format and its clock: {text}"
                ));
            }
        }
    }
    assert!(fields > 90, "only {fields} fields were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_golden_event_is_valid() {
    let options = jsonschema::options().should_validate_formats(true);
    let schema = options.build(&generated()).expect("a schema of draft 2020-12");
    for (name, golden) in goldens() {
        let errors: Vec<_> = schema.iter_errors(&golden).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {}", errors.join("\n"));
    }
    let (_, mut golden) = goldens().swap_remove(0);
    for (pointer, odd) in [
        ("/data/order/totals/total", json!(451.16)),
        ("/data/order/totals/total", json!("451.160")),
        ("/data/order/currency", json!("usd")),
        ("/data/received_at", json!("yesterday")),
        ("/data/test", json!("false")),
        ("/id", json!(null)),
    ] {
        let field = golden.pointer_mut(pointer).expect("a field");
        let good = std::mem::replace(field, odd);
        assert!(!schema.is_valid(&golden), "{golden} is valid");
        *golden.pointer_mut(pointer).expect("a field") = good;
    }
}

#[test]
fn the_cloudevents_sdk_reads_every_golden_event() {
    for (name, golden) in goldens() {
        let event: cloudevents::Event =
            serde_json::from_str(&golden.to_string()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(event.id(), golden["id"], "{name}");
        assert_eq!(event.ty(), golden["type"], "{name}");
        assert_eq!(event.source().as_str(), golden["source"], "{name}");
        assert_eq!(event.subject(), golden["subject"].as_str(), "{name}");
        let time = event.time().expect("a time").timestamp_millis();
        let expected: jiff::Timestamp = golden["time"].as_str().expect("a time").parse().expect("a time");
        assert_eq!(time, expected.as_millisecond(), "{name}");
        let data = event.data().expect("data");
        assert_eq!(*data, cloudevents::Data::Json(golden["data"].clone()), "{name}");
    }
}

#[test]
fn only_additions_were_made_since_the_release() {
    let released = read(&folder().join("released").join(NAME));
    let changes = beyond_additions(&released, &generated());
    assert!(
        changes.is_empty(),
        "consumers rely on what was released; make the change as a new field, or as v2:\n{}",
        changes.join("\n")
    );
}

#[test]
fn a_previously_stored_event_is_still_read() {
    let released = read(&folder().join("released").join(NAME));
    for (name, mut golden) in goldens() {
        let before = golden.clone();
        keep_only_released(&released, &released, &mut golden);
        assert_ne!(before, golden, "{name} has no new field");
        let event: OrderEvent = serde_json::from_value(golden).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            serde_json::to_value(&event).expect("JSON")["id"],
            before["id"],
            "{name}"
        );
    }
}

/// Removes the fields that `schema`, a part of `root`, does not have.
fn keep_only_released(root: &Value, schema: &Value, value: &mut Value) {
    if let Some(reference) = schema["$ref"].as_str() {
        let definition = root.pointer(reference.trim_start_matches('#')).expect("a definition");
        return keep_only_released(root, definition, value);
    }
    for choice in schema["anyOf"].as_array().into_iter().flatten() {
        keep_only_released(root, choice, value);
    }
    match (value, schema["properties"].as_object()) {
        (Value::Object(fields), Some(properties)) => {
            fields.retain(|name, _| properties.contains_key(name));
            for (name, value) in fields {
                keep_only_released(root, &properties[name], value);
            }
        }
        (Value::Array(elements), _) => {
            for element in elements {
                keep_only_released(root, &schema["items"], element);
            }
        }
        _ => {}
    }
}

/// The changes that are not additions. Old consumers read new events, and new consumers read old events, which are
/// stored and may be replayed.
///
/// An addition is a new property (a consumer ignores unknown properties) that is not required (a stored event does not
/// have it), a new value in `examples` (the open vocabularies are listed there), a new definition, or another title or
/// description.
fn beyond_additions(released: &Value, current: &Value) -> Vec<String> {
    let mut changes = Vec::new();
    compare_schemas("", released, current, &mut changes);
    changes
}

fn compare_schemas(at: &str, released: &Value, current: &Value, changes: &mut Vec<String>) {
    let (Value::Object(before), Value::Object(after)) = (released, current) else {
        if released != current {
            changes.push(format!("{at}: {released} became {current}"));
        }
        return;
    };
    let keywords = before
        .keys()
        .chain(after.keys().filter(|keyword| !before.contains_key(*keyword)));
    for keyword in keywords {
        let at = format!("{at}/{keyword}");
        let (was, is) = (before.get(keyword), after.get(keyword));
        match (keyword.as_str(), was, is) {
            ("title" | "description" | "$comment", ..) | ("examples", None, Some(_)) => {}
            ("properties" | "$defs", Some(Value::Object(was)), Some(Value::Object(is))) => {
                compare_members(&at, was, is, changes);
            }
            ("required" | "examples", Some(Value::Array(was)), Some(Value::Array(is))) => {
                let lost = was.iter().filter(|entry| !is.contains(entry));
                changes.extend(lost.map(|entry| format!("{at}: {entry} is gone")));
                let new = is.iter().filter(|entry| !was.contains(entry) && keyword == "required");
                changes.extend(new.map(|entry| format!("{at}: events stored before may have no {entry}")));
            }
            ("items", Some(was), Some(is)) => compare_schemas(&at, was, is, changes),
            ("anyOf", Some(Value::Array(was)), Some(Value::Array(is))) if was.len() == is.len() => {
                for (index, (was, is)) in was.iter().zip(is).enumerate() {
                    compare_schemas(&format!("{at}/{index}"), was, is, changes);
                }
            }
            (_, Some(was), Some(is)) if was == is => {}
            (_, was, is) => {
                let show = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
                changes.push(format!("{at}: {} became {}", show(was), show(is)));
            }
        }
    }
}

fn compare_members(at: &str, was: &Map<String, Value>, is: &Map<String, Value>, changes: &mut Vec<String>) {
    for (name, was) in was {
        let at = format!("{at}/{name}");
        match is.get(name) {
            Some(is) => compare_schemas(&at, was, is, changes),
            None => changes.push(format!("{at} is gone")),
        }
    }
}

/// The name of a change, whether it is an addition, and the change to the schema.
type Mutation = (&'static str, bool, fn(&mut Value));

const MUTATIONS: [Mutation; 30] = [
    ("nothing", true, |_| {}),
    ("a field", true, |schema| {
        schema["properties"]["new"] = json!({"type": "string"});
    }),
    ("a field called description", true, |schema| {
        schema["$defs"]["Item"]["properties"]["description"] = json!({"type": ["string", "null"]});
    }),
    ("a definition", true, |schema| {
        schema["$defs"]["New"] = json!({"type": "object"});
    }),
    ("a word", true, |schema| {
        push(&mut schema["$defs"]["Status"]["examples"], "lost");
    }),
    ("another description", true, |schema| {
        schema["$defs"]["Item"]["description"] = "It.".into();
    }),
    ("a required field", false, |schema| {
        schema["$defs"]["Order"]["properties"]["new"] = json!({"type": "string"});
        push(&mut schema["$defs"]["Order"]["required"], "new");
    }),
    ("a field required where none was", false, |schema| {
        schema["$defs"]["Refund"]["required"] = json!(["amount"]);
    }),
    ("a field required that was not", false, |schema| {
        push(&mut schema["required"], "subject");
    }),
    ("an object gone", false, |schema| remove(&mut schema["$defs"], "Refund")),
    ("a field gone", false, |schema| {
        remove(&mut schema["$defs"]["Order"]["properties"], "note");
    }),
    ("a field called type gone", false, |schema| {
        remove(&mut schema["properties"], "type");
    }),
    ("a field renamed", false, |schema| {
        let field = schema["$defs"]["Item"]["properties"]["sku"].take();
        remove(&mut schema["$defs"]["Item"]["properties"], "sku");
        schema["$defs"]["Item"]["properties"]["SKU"] = field;
    }),
    ("a field that may be absent now", false, |schema| {
        schema["required"]
            .as_array_mut()
            .expect("a list")
            .retain(|name| name != "time");
    }),
    ("all fields may be absent now", false, |schema| {
        remove(schema, "required");
    }),
    ("a word gone", false, |schema| {
        schema["$defs"]["EventType"]["examples"]
            .as_array_mut()
            .expect("a list")
            .remove(0);
    }),
    ("another type", false, |schema| {
        schema["$defs"]["Amount"]["type"] = "number".into();
    }),
    ("null is new", false, |schema| {
        schema["$defs"]["Data"]["properties"]["test"]["type"] = json!(["boolean", "null"]);
    }),
    ("null is gone", false, |schema| {
        schema["$defs"]["Order"]["properties"]["id"]["type"] = "string".into();
    }),
    ("null is gone from a choice", false, |schema| {
        schema["$defs"]["Order"]["properties"]["currency"]["anyOf"]
            .as_array_mut()
            .expect("a list")
            .pop();
    }),
    ("another choice", false, |schema| {
        push(&mut schema["$defs"]["Order"]["properties"]["currency"]["anyOf"], "true");
    }),
    ("another pattern", false, |schema| {
        schema["$defs"]["Currency"]["pattern"] = "^[A-Za-z]{3}$".into();
    }),
    ("no pattern", false, |schema| {
        remove(&mut schema["$defs"]["Currency"], "pattern");
    }),
    ("no format", false, |schema| {
        remove(&mut schema["properties"]["time"], "format");
    }),
    ("a new format", false, |schema| {
        schema["properties"]["source"]["format"] = "uri".into();
    }),
    ("a closed vocabulary", false, |schema| {
        schema["$defs"]["Status"]["enum"] = json!(["pending"]);
    }),
    ("a closed object", false, |schema| {
        schema["additionalProperties"] = false.into();
    }),
    ("another object behind a field", false, |schema| {
        schema["$defs"]["Data"]["properties"]["order"]["$ref"] = "#/$defs/Item".into();
    }),
    ("other elements of a list", false, |schema| {
        schema["$defs"]["Data"]["properties"]["assumed"]["items"]["type"] = "object".into();
    }),
    ("another id of the schema", false, |schema| {
        schema["$id"] = "urn:order-webhooks:order-event:v2".into();
    }),
];

#[test]
fn only_additions_are_allowed() {
    let released = generated();
    for (what, is_addition, mutate) in MUTATIONS {
        let mut changed = released.clone();
        mutate(&mut changed);
        assert_eq!(changed == released, what == "nothing", "{what} changes nothing");
        let found = beyond_additions(&released, &changed);
        assert_eq!(found.is_empty(), is_addition, "{what}: {found:?}");
    }
}

fn push(list: &mut Value, entry: &str) {
    list.as_array_mut().expect("a list").push(entry.into());
}

fn remove(object: &mut Value, name: &str) {
    let removed = object.as_object_mut().expect("an object").remove(name);
    assert!(removed.is_some(), "there is no {name}");
}
