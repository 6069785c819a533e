//! Drift: what a provider sends now and did not send before is reported.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Value, json};
use shared::drift::Drift;
use tests::payloads::{leaves, replaced, unescaped};
use tests::providers::Tested;
use tests::reader::Reader;

use crate::field_coverage::documented;
use crate::unmapped::is_matched;

pub(crate) fn known_events_report_no_drift<P: Tested>() {
    let reader = Reader::<P>::new();
    let mut drifts = Vec::new();
    for (name, body) in documented(P::NAME) {
        let event = reader.event_json(&body).expect("the event is published");
        let warnings = event["data"]["warnings"].as_array().expect("a list").iter();
        let warned: Vec<_> = warnings.filter_map(Value::as_str).map(as_reported).collect();
        // Some events have a word without a translation, or a malformed field, on purpose.
        let found = reader.drift(&body).into_iter().filter(|drift| {
            let is_warned = warned.iter().any(|warned| {
                let below = drift.pointer.strip_prefix(warned.as_str());
                below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
            });
            drift.r#type != "word" && !is_warned
        });
        drifts.extend(found.map(|drift| format!("{name}: {} ({})", drift.pointer, drift.r#type)));
    }
    assert!(drifts.is_empty(), "{}", drifts.join("\n"));
}

/// Whether the event has no unmapped value at the pointer.
fn is_mapped_here(event: &Value, pointer: &str) -> bool {
    event["data"]["unmapped"].pointer(pointer).is_none()
}

/// Renames each field of each event and changes its type, as a provider might. Each change is reported once.
pub(crate) fn each_renamed_or_retyped_field_is_drift<P: Tested>() {
    let reader = Reader::<P>::new();
    let mut changes = 0;
    let mut missed = BTreeSet::new();
    // The same field in another event adds nothing.
    let mut tried = HashSet::new();
    for (name, body) in documented(P::NAME) {
        let event = reader.event_json(&body).expect("the event is published");
        for (pointer, value) in leaves(&body) {
            // An empty list or object carries no information.
            if !tried.insert(as_reported(&pointer)) || *value == json!({}) || *value == json!([]) {
                continue;
            }
            let (parent, field) = pointer.rsplit_once('/').expect("a field");
            let mut renamed = body.clone();
            if let Some(Value::Object(fields)) = renamed.pointer_mut(parent) {
                let value = fields.remove(&unescaped(field)).expect("the field");
                fields.insert("brand_new".to_owned(), value);
            }
            let retyped = replaced(&body, &pointer, &json!({"brand_new": value}));
            for (changed, pointer) in [
                (renamed, format!("{parent}/brand_new")),
                (retyped, format!("{pointer}/brand_new")),
            ] {
                let is_known = P::FACTS
                    .unmapped
                    .iter()
                    .any(|(pattern, _)| is_matched(pattern, &pointer));
                // A delivery without a recognized event is quarantined, which is reported separately.
                let Some(event) = reader.event_json(&changed).filter(|_| !is_known) else {
                    continue;
                };
                // An element of a list cannot be renamed.
                if event["data"]["unmapped"].pointer(&pointer).is_none() {
                    continue;
                }
                changes += 1;
                let reported = as_reported(&pointer);
                let drifts = reader.drift(&changed);
                if drifts.iter().filter(|drift| drift.pointer == reported).count() != 1 {
                    missed.insert(format!("{name}: {pointer} is not reported as {reported}: {drifts:?}"));
                }
            }
            // A field that is unmapped for some of its values is both listed and mapped.
            let is_mapped = is_mapped_here(&event, &pointer) && (value.is_string() || value.is_number());
            let flagged = replaced(&body, &pointer, &json!(true));
            let Some(event) = reader.event_json(&flagged).filter(|_| is_mapped) else {
                continue;
            };
            if is_mapped_here(&event, &pointer) {
                continue;
            }
            changes += 1;
            let expected = Drift {
                pointer: as_reported(&pointer),
                r#type: "boolean",
            };
            let drifts = reader.drift(&flagged);
            if !drifts.contains(&expected) {
                missed.insert(format!("{name}: `true` at {pointer} is not reported: {drifts:?}"));
            }
        }
    }
    assert!(changes > 60, "only {changes} changes were made");
    let missed: Vec<_> = missed.into_iter().collect();
    assert!(
        missed.is_empty(),
        "{} of {changes}:\n{}",
        missed.len(),
        missed.join("\n")
    );
}

/// A pointer as drift reports it: with `*` for indices and for names that may be data.
fn as_reported(pointer: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_$".contains(&byte);
    let step = |name: &str| {
        let is_key = name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit());
        let digits = name.bytes().filter(u8::is_ascii_digit).count();
        let is_name = !is_key && digits <= 3 && name.len() <= 64 && name.bytes().all(is_plain);
        if is_name { name.to_owned() } else { "*".to_owned() }
    };
    let steps: Vec<_> = pointer.split('/').skip(1).map(|name| step(&unescaped(name))).collect();
    format!("/{}", steps.join("/"))
}
