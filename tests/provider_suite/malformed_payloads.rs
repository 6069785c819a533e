//! Authentic deliveries with anything in their fields: no order is lost, and every value is kept.

use std::cell::{Cell, LazyCell};
use std::collections::HashSet;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use shared::answer::Reason;
use shared::classify::Classification;
use shared::event::OrderEvent;
use tests::payloads::{is_empty, leaves, pointers, removed, replaced, small, unescaped};
use tests::providers::Tested;
use tests::reader::{Reader, without_receipt};

/// A text and a number that no event of `events/` has.
const MARK: &str = "hostile-7f3a";
const DIGITS: &str = "731654291";

/// The values that replace each field in turn.
fn replacements() -> Vec<Value> {
    let raw = format!(
        r#"[null, "", true, false, {DIGITS}, -0, -1, 1E+2, 1e400, 1e-400, 0.1e-99999999999999999999, "{MARK}",
            "\uffff\ufffe\u0000", [], {{}}, ["{MARK}"], {{"x":"{MARK}"}}, [{{"x":"{MARK}"}}], {{"x":[{{"y/~":["{MARK}"]}}]}}]"#
    );
    serde_json::from_str(&raw).expect("JSON")
}

/// Replaces each field by unusual values, and removes it.
pub(crate) fn a_malformed_field_costs_that_field_only<P: Tested>() {
    let reader = Reader::<P>::new();
    let replacements = replacements();
    let mut wrong = Vec::new();
    let mut tried = 0_usize;
    let mut known = HashSet::new();
    for (name, body) in small(P::NAME) {
        for pointer in pointers(&body) {
            let without = LazyCell::new(|| {
                let event = reader.event(&replaced(&body, &pointer, &Value::Null));
                event.map(mapped)
            });
            // Every value the first time that a field occurs, then one value for each event with the field.
            let field: String = pointer.split('/').filter(|part| part.parse::<u32>().is_err()).collect();
            let next = tried % replacements.len();
            let is_new = known.insert(field);
            let values = if is_new {
                &replacements[..]
            } else {
                &replacements[next..=next]
            };
            for value in values {
                tried += 1;
                let outcome = reader.read(replaced(&body, &pointer, value).to_string().as_bytes());
                let outcome = outcome.and_then(|classification| match classification {
                    Classification::Order(event) => is_kept(&event, &pointer, value, || without.clone()),
                    other => may_be_no_order::<P>(&name, &pointer, &other),
                });
                let fault = outcome.err();
                wrong.extend(fault.map(|fault| format!("{name} with {value} at {pointer}: {fault}")));
            }
            if is_new && let Some(without) = removed(&body, &pointer) {
                tried += 1;
                let outcome = reader.read(without.to_string().as_bytes());
                let outcome = outcome.and_then(|classification| match classification {
                    Classification::Order(_) => Ok(()),
                    other => may_be_no_order::<P>(&name, &pointer, &other),
                });
                let fault = outcome.err();
                wrong.extend(fault.map(|fault| format!("{name} without {pointer}: {fault}")));
            }
        }
    }
    assert!(tried > 500, "only {tried} changes were tried");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether a delivery without this field need not be an order.
fn may_be_no_order<P: Tested>(name: &str, pointer: &str, classification: &Classification) -> Result<(), String> {
    match classification {
        Classification::Unsupported if may_lack_its_order(name, pointer) => Ok(()),
        Classification::Quarantined(reason) => is_required::<P>(pointer, *reason),
        _ => Err("the delivery is unsupported".to_owned()),
    }
}

/// Whether the event is Snipcart's for a failed payment, which may be without an order.
fn may_lack_its_order(name: &str, pointer: &str) -> bool {
    let is_failed_payment = name.starts_with("subscription-invoice-payment-failed");
    is_failed_payment && ["/content/order", "/content/order/token"].contains(&pointer)
}

/// Checks that the value is in `unmapped` as it was sent, or in the event, or that the event differs without the value.
fn is_kept(
    event: &OrderEvent,
    pointer: &str,
    value: &Value,
    without: impl Fn() -> Option<String>,
) -> Result<(), String> {
    if value.is_null() || *value == json!("") {
        return Ok(());
    }
    let unmapped = unmapped(event);
    if unmapped.pointer(pointer) == Some(value) {
        return Ok(());
    }
    let leaves: Vec<_> = pointers(value)
        .into_iter()
        .filter(|leaf| value.pointer(leaf) == Some(&json!(MARK)))
        .collect();
    let kept = |leaf: &String| unmapped.pointer(&format!("{pointer}{leaf}")) == Some(&json!(MARK));
    if !leaves.is_empty() && leaves.iter().all(kept) {
        return Ok(());
    }
    let mapped = mapped(event.clone());
    let found = match value {
        Value::String(text) => mapped.contains(json!(text).to_string().trim_matches('"')),
        Value::Number(number) if number.as_str() == DIGITS => mapped.replace('.', "").contains(DIGITS),
        // An empty object or list carries no information; a text in another one may be an option that the customer
        // chose.
        Value::Array(_) | Value::Object(_) => leaves.is_empty() || mapped.contains(MARK),
        _ => without().is_none_or(|without| mapped != without),
    };
    if found {
        Ok(())
    } else {
        Err("the value is lost".to_owned())
    }
}

fn is_required<P: Tested>(pointer: &str, reason: Reason) -> Result<(), String> {
    let mut required = P::FACTS.required.iter();
    if required.any(|(required, reasons)| *required == pointer && reasons.contains(&reason)) {
        Ok(())
    } else {
        Err(format!("the delivery is quarantined: {}", reason.as_str()))
    }
}

/// The unmapped fields of a stored event.
fn unmapped(event: &OrderEvent) -> Value {
    let unmapped = event.data.unmapped.clone().unwrap_or_default();
    Value::from(unmapped.fields().expect("fields"))
}

/// The event without `unmapped` and without the pointers into the payload.
fn mapped(event: OrderEvent) -> String {
    let mut event = without_receipt(event);
    event.data.unmapped = None;
    event.data.warnings.clear();
    serde_json::to_string(&(&event.r#type, &event.data, &event.time)).expect("JSON")
}

/// A change to a payload.
#[derive(Clone, Debug)]
enum Edit {
    /// Replaces a value.
    Replace(Value),
    /// Adds an undocumented field.
    Add(Value),
    /// Repeats the first element of a list.
    Repeat,
    /// Removes a field.
    Remove,
}

/// Edits with values that occur once in the payload, so that they can be found in the event.
fn edits() -> impl Strategy<Value = Vec<(Index, Edit)>> {
    let text = (0..1_000_000_u32).prop_map(|number| json!(format!("{MARK}-{number}-")));
    let digits = (0..10_000_u32).prop_map(|number| json!(731_000_001 + u64::from(number) * 10));
    let scalar = prop_oneof![3 => text, 3 => digits, 1 => any::<bool>().prop_map(Value::from)];
    let value = prop_oneof![
        4 => scalar.clone(),
        1 => scalar.clone().prop_map(|value| json!([value])),
        1 => scalar.clone().prop_map(|value| json!({"x": value})),
    ];
    let edit = prop_oneof![
        5 => value.clone().prop_map(Edit::Replace),
        2 => value.prop_map(Edit::Add),
        1 => Just(Edit::Repeat),
        1 => Just(Edit::Remove),
    ];
    proptest::collection::vec((any::<Index>(), edit), 1..12)
}

fn edited(mut payload: Value, edits: Vec<(Index, Edit)>) -> Value {
    for (number, (at, edit)) in edits.into_iter().enumerate() {
        let pointers = pointers(&payload);
        if pointers.is_empty() {
            break;
        }
        let pointer = &pointers[at.index(pointers.len())];
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        match edit {
            Edit::Replace(value) => *payload.pointer_mut(pointer).expect("a field") = value,
            Edit::Add(value) => {
                if let Some(fields) = payload.pointer_mut(parent).and_then(Value::as_object_mut) {
                    fields.insert(format!("new_{number}"), value);
                }
            }
            Edit::Repeat => {
                if let Some(elements) = payload.pointer_mut(pointer).and_then(Value::as_array_mut)
                    && let Some(first) = elements.first().cloned()
                {
                    elements.push(first);
                }
            }
            Edit::Remove => {
                let name = unescaped(name);
                if let Some(fields) = payload.pointer_mut(parent).and_then(Value::as_object_mut) {
                    fields.remove(&name);
                }
            }
        }
    }
    payload
}

/// Whether the event is the same without this value.
fn is_the_default(provider: &str, pointer: &str, value: &Value) -> bool {
    // An order is not a test order unless the provider says so.
    (provider, pointer) == ("snipcart", "/mode") && *value == json!("Live")
}

/// Each value of a payload is in the event, or in `unmapped` at its own place. Nothing is omitted from a stored event.
pub(crate) fn every_leaf_of_any_payload_is_kept<P: Tested>() {
    let reader = Reader::<P>::new();
    let bodies: Vec<_> = small(P::NAME).into_iter().map(|(_, body)| body).collect();
    let config = Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let orders = Cell::new(0_u32);
    let outcome = runner.run(&(any::<Index>(), edits()), |(fixture, edits)| {
        let payload = edited(bodies[fixture.index(bodies.len())].clone(), edits);
        let classification = reader
            .read(payload.to_string().as_bytes())
            .map_err(TestCaseError::fail)?;
        let Classification::Order(event) = classification else {
            return Ok(());
        };
        orders.set(orders.get() + 1);
        prop_assert!(event.data.omitted.is_empty());
        let unmapped = unmapped(&event);
        let mapped_event = mapped(*event);
        let digits = mapped_event.replace('.', "");
        for pointer in pointers(&payload) {
            let value = payload.pointer(&pointer).expect("a field");
            let holds_others = value.as_object().is_some_and(|fields| !fields.is_empty())
                || value.as_array().is_some_and(|elements| !elements.is_empty());
            if holds_others || is_empty(value) || unmapped.pointer(&pointer) == Some(value) {
                continue;
            }
            let is_mapped = match value {
                Value::String(text) => mapped_event.contains(json!(text).to_string().trim_matches('"')),
                Value::Number(number) => digits.contains(&number.to_string().replace('.', "")),
                _ => false,
            };
            // A word, a time or a boolean is translated: then the event differs without it.
            let is_marked = value.to_string().contains(MARK) || value.to_string().starts_with("731");
            let changes_the_event = || {
                let without = reader.event(&replaced(&payload, &pointer, &Value::Null));
                without.is_none_or(|without| mapped(without) != mapped_event)
            };
            prop_assert!(
                is_mapped || is_the_default(P::NAME, &pointer, value) || (!is_marked && changes_the_event()),
                "{} at {} is not in the event",
                value,
                pointer
            );
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(orders.get() > 200, "only {} of 400 payloads were orders", orders.get());
}

/// Replaces each number by its text, as some clients of the providers serialize it.
pub(crate) fn numbers_as_text_are_the_same_event<P: Tested>() {
    let reader = Reader::<P>::new();
    let mut tried = 0_usize;
    let mut wrong = Vec::new();
    for (name, body) in small(P::NAME) {
        let event = reader.event(&body).map(mapped);
        for (pointer, value) in leaves(&body) {
            let Value::Number(number) = value else { continue };
            tried += 1;
            let as_text = reader.event(&replaced(&body, &pointer, &json!(number.to_string())));
            if as_text.map(mapped) != event {
                wrong.push(format!("{name}: {value} at {pointer}"));
            }
        }
    }
    assert!(tried > 20, "only {tried} numbers were tried");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}
