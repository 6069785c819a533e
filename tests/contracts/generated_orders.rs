//! Orders generated from the schema of a provider: thousands of valid orders, and as many with one fault.
//!
//! ABOUT YOU publishes an `OpenAPI` document of its webhook; the schema is in
//! `data/aboutyou-order-created.schema.json`. The table in the README of the provider says where each value is in the
//! event.

use std::collections::BTreeMap;
use std::fs;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use local::project::build::workspace;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};
use shared::answer::Reason;
use shared::classify::Classification;
use tests::Stack;
use tests::payloads::{field_name, pointers, unescaped};
use tests::reader::Reader;

const CASES: u32 = 3000;

/// The most frequent currencies in the generated orders, and their decimal places.
const CURRENCIES: [(&str, i32); 7] = [
    ("EUR", 2),
    ("CHF", 2),
    ("CZK", 2),
    ("SEK", 2),
    ("JPY", 0),
    ("KWD", 3),
    ("eur", 2),
];

fn schema() -> Value {
    let text = fs::read(workspace().join("tests/data/aboutyou-order-created.schema.json")).expect("the schema");
    serde_json::from_slice(&text).expect("JSON")
}

/// The same payloads in every run.
fn runner() -> TestRunner {
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

#[test]
fn every_valid_order_is_accepted_and_every_value_is_found() {
    let schema = schema();
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("a schema");
    let table = table();
    let outcome = runner().run(&payload(&schema), |payload| {
        let errors: Vec<_> = validator.iter_errors(&payload).map(|error| error.to_string()).collect();
        prop_assert!(errors.is_empty(), "the payload is not valid: {}", errors.join("\n"));
        match classification(&payload)? {
            // The schema allows an empty order number.
            Classification::Quarantined(Reason::NoOrderId) => prop_assert_eq!(&payload["message"]["order_number"], ""),
            Classification::Order(event) => {
                let event = serde_json::to_value(&event).expect("JSON");
                for warning in event["data"]["warnings"].as_array().expect("a list") {
                    let warning = warning.as_str().expect("a pointer");
                    prop_assert!(may_be_odd(&payload, warning), "unexpected warning: {}", warning);
                }
                prop_assert_eq!(&event["type"], "order.created");
                check_every_value(&payload, &event, &table)?;
            }
            Classification::Quarantined(reason) => prop_assert!(false, "the order is quarantined: {}", reason.as_str()),
            Classification::Unsupported => prop_assert!(false, "the order is unsupported"),
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn one_fault_costs_only_its_field_unless_it_is_the_order_id() {
    let schema = schema();
    let table = table();
    let strategy = (payload(&schema), any::<Index>(), damage());
    let outcome = runner().run(&strategy, |(payload, at, damage)| {
        let (payload, pointer) = damage.inflict(&payload, at);
        let (event, number) = (payload.get("event"), payload.pointer("/message/order_number"));
        let text = |value: Option<&Value>| match value? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let expected = match text(event).as_deref() {
            None => Some(Reason::NoDiscriminator),
            Some("order.created") if text(number).is_some() => None,
            Some("order.created") => Some(Reason::NoOrderId),
            Some(_) => Some(Reason::UnknownEvent),
        };
        match classification(&payload)? {
            Classification::Order(event) => {
                prop_assert_eq!(expected, None, "{} is damaged, and the order is accepted", pointer);
                let event = serde_json::to_value(&event).expect("JSON");
                // A field with a warning is null in the event and unchanged in `unmapped`.
                let odd = event["data"]["warnings"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .filter_map(Value::as_str);
                for odd in odd {
                    prop_assert!(
                        pointer.starts_with(odd) || odd.starts_with(&pointer) || may_be_odd(&payload, odd),
                        "the warning is {}, and {} was damaged",
                        odd,
                        pointer
                    );
                    prop_assert_eq!(event["data"]["unmapped"].pointer(odd), payload.pointer(odd));
                    let places = table.get(&field_name(odd)).into_iter().flatten();
                    // An event always has a type and a time.
                    for place in places.filter(|place| !["/type", "/time"].contains(&place.as_str())) {
                        let place = place.replacen("[]", &format!("/{}", index_in(&payload, odd)), 1);
                        let place = event.pointer(&place).unwrap_or(&Value::Null);
                        prop_assert!(
                            place.is_null() || place == "unknown" || place.is_array(),
                            "{} is {}",
                            odd,
                            place
                        );
                    }
                }
                check_every_value(&payload, &event, &table)?;
            }
            Classification::Quarantined(reason) => prop_assert_eq!(Some(reason), expected, "{} is damaged", pointer),
            Classification::Unsupported => prop_assert!(false, "the order is unsupported"),
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn the_function_answers_generated_orders_as_classified() {
    let schema = schema();
    let mut runner = runner();
    let strategy = (payload(&schema), any::<Index>(), prop::option::weighted(0.5, damage()));
    let stack = Stack::start().await;
    let mut published = Vec::new();
    for _ in 0..60 {
        let (payload, at, damage) = strategy.new_tree(&mut runner).expect("a payload").current();
        let payload = damage.map_or(payload.clone(), |damage| damage.inflict(&payload, at).0);
        let mut fixture = stack.unsigned("aboutyou", "order-created");
        fixture.set_body(payload.to_string());
        stack.sign(&mut fixture);
        let answer = stack.send(&fixture).await;
        match classification(&payload).expect("a classification") {
            Classification::Order(_) => published.push(answer.event_id("accepted")),
            Classification::Quarantined(reason) => {
                answer.event_id("quarantined");
                assert_eq!(answer.said("reason"), reason.as_str());
            }
            Classification::Unsupported => panic!("{payload} is unsupported"),
        }
    }
    let mut messages: Vec<_> = stack
        .messages()
        .await
        .iter()
        .map(|message| message.event["id"].as_str().map(str::to_owned))
        .collect();
    messages.sort();
    published.sort();
    assert!(published.len() > 30, "{} of 60 are too few", published.len());
    assert_eq!(messages, published.into_iter().map(Some).collect::<Vec<_>>());
}

/// The classification of a payload.
fn classification(payload: &Value) -> Result<Classification, TestCaseError> {
    let reader = Reader::<aboutyou::AboutYou>::new();
    reader.read(payload.to_string().as_bytes()).map_err(TestCaseError::fail)
}

/// Whether the field may be malformed in a valid order. The schema allows any text as a currency or a country, and
/// without a known currency, no amount can be read.
fn may_be_odd(payload: &Value, pointer: &str) -> bool {
    let currency = payload["message"]["currency_code"].as_str().unwrap_or_default();
    let is_common = CURRENCIES.iter().any(|(code, _)| *code == currency);
    let name = pointer.rsplit('/').next().unwrap_or_default();
    name.ends_with("_country_code")
        || (!is_common && (name == "currency_code" || name.starts_with("cost_") || name.starts_with("price_")))
}

/// The table in the README: JSON pointers into the event, by field.
fn table() -> BTreeMap<String, Vec<String>> {
    let readme = fs::read_to_string(workspace().join("functions/aboutyou/README.md")).expect("the README");
    let rows = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let table: BTreeMap<_, _> = rows
        .map(|(field, rest)| {
            let places = rest.split(" | ").next().unwrap_or_default().split(", ");
            // A fulfillment repeats the values of several items.
            let places = places.filter(|place| *place != "unmapped" && !place.contains("fulfillments"));
            let pointers = places.map(|place| {
                let place = place.split(" (").next().unwrap_or_default().replace('.', "/");
                let at_the_top = ["type", "time"].contains(&place.as_str());
                format!("{}/{place}", if at_the_top { "" } else { "/data" })
            });
            (field.to_owned(), pointers.collect())
        })
        .collect();
    assert!(table.len() > 40, "only {} rows were found", table.len());
    table
}

/// The index in the event of an item in the payload, of which only objects are items.
fn index_in(payload: &Value, pointer: &str) -> usize {
    let index = pointer
        .split('/')
        .find_map(|part| part.parse::<usize>().ok())
        .unwrap_or_default();
    let items = payload["message"]["order_items"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    items.iter().take(index).filter(|item| item.is_object()).count()
}

fn check_every_value(
    payload: &Value,
    event: &Value,
    table: &BTreeMap<String, Vec<String>>,
) -> Result<(), TestCaseError> {
    for pointer in pointers(payload) {
        let value = payload.pointer(&pointer).expect("a field");
        let has_no_content = value.is_null() || *value == json!("");
        if has_no_content
            || value.is_object()
            || value.is_array()
            || event["data"]["unmapped"].pointer(&pointer) == Some(value)
        {
            continue;
        }
        if let Some((owner, name)) = pointer.split_once("/custom_data/") {
            let list = match owner.strip_prefix("/message/order_items/") {
                Some(_) => format!("/data/order/items/{}/options", index_in(payload, owner)),
                None => "/data/order/custom_fields".to_owned(),
            };
            let name = unescaped(name);
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let fields = event.pointer(&list).and_then(Value::as_array);
            let found = fields.is_some_and(|fields| fields.contains(&json!({"name": name, "value": text})));
            prop_assert!(found, "{} of {} is not in the event", value, pointer);
            continue;
        }
        let places = table.get(&field_name(&pointer)).into_iter().flatten();
        let currency = event["data"]["order"]["currency"].as_str();
        let found = places
            .map(|place| place.replacen("[]", &format!("/{}", index_in(payload, &pointer)), 1))
            .any(|place| {
                event
                    .pointer(&place)
                    .is_some_and(|converted| is_same_value(value, converted, currency))
            });
        prop_assert!(found, "{} of {} is not in the event", value, pointer);
    }
    Ok(())
}

/// Whether the converted value equals the value in the payload. The comparison does not use the code of the mapping.
fn is_same_value(value: &Value, converted: &Value, currency: Option<&str>) -> bool {
    let Some(converted) = converted.as_str() else {
        return false;
    };
    if let Some(number) = value.as_number() {
        let places = CURRENCIES
            .iter()
            .find(|(code, _)| Some(*code) == currency)
            .map(|(_, places)| *places);
        let is_in_units = |places: i32| in_minor_units(converted, places) == Some(number.to_string());
        return plain(number.as_str()) == converted || places.map_or_else(|| (0..5).any(is_in_units), is_in_units);
    }
    let Some(text) = value.as_str() else { return false };
    let time = |text: &str| text.parse::<Timestamp>().ok();
    text.eq_ignore_ascii_case(converted)
        || (text, converted) == ("open", "pending")
        || time(text).is_some_and(|instant| Some(instant) == time(converted))
}

/// A decimal without trailing zeros.
fn plain(number: &str) -> String {
    match number.split_once('.') {
        Some((whole, fraction)) => format!("{whole}.{}", fraction.trim_end_matches('0'))
            .trim_end_matches('.')
            .to_owned(),
        None => number.to_owned(),
    }
}

/// `119.8` as `11980`, by moving the point.
fn in_minor_units(amount: &str, places: i32) -> Option<String> {
    let places = usize::try_from(places).ok()?;
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let zeros = places.checked_sub(fraction.len())?;
    let digits = format!("{whole}{fraction}{}", "0".repeat(zeros));
    let digits = match digits.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    Some(format!("{sign}{digits}"))
}

/// Any payload that the schema allows.
fn payload(schema: &Value) -> BoxedStrategy<Value> {
    instance("", schema, schema)
}

/// Any value that `schema` allows in the field `name`. Only the keywords that the schema uses are supported.
fn instance(name: &str, schema: &Value, root: &Value) -> BoxedStrategy<Value> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).expect("a definition");
        return instance(name, target, root);
    }
    if let Some(constant) = schema.get("const") {
        return Just(constant.clone()).boxed();
    }
    if let Some(words) = schema["enum"].as_array() {
        return prop::sample::select(words.clone()).boxed();
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let choices: Vec<_> = choices.iter().map(|choice| instance(name, choice, root)).collect();
        return prop::strategy::Union::new(choices).boxed();
    }
    match schema["type"].as_str() {
        Some("object") if schema.get("properties").is_some() => object(schema, root),
        Some("object") => free_object(),
        Some("array") => prop::collection::vec(instance(name, &schema["items"], root), 0..4)
            .prop_map(Value::from)
            .boxed(),
        Some("string") if schema["format"] == "date-time" => time(),
        Some("string") => text(name, schema["maxLength"].as_u64()),
        Some("integer") => {
            let least = schema["minimum"].as_i64().unwrap_or(-1_000_000_000_000_000);
            prop_oneof![4 => least.max(0)..100_000_i64, 1 => least..=1_000_000_000_000_000_i64]
                .prop_map(Value::from)
                .boxed()
        }
        Some("number") => "(0|[1-9][0-9]{0,2})(\\.[0-9]{1,4})?"
            .prop_map(|text| serde_json::from_str(&text).expect("a number"))
            .boxed(),
        Some("null") => Just(Value::Null).boxed(),
        other => panic!("{name} has the unsupported type {other:?}"),
    }
}

fn object(schema: &Value, root: &Value) -> BoxedStrategy<Value> {
    let properties = schema["properties"].as_object().expect("properties");
    let required = schema["required"].as_array().expect("a list").clone();
    let names: Vec<_> = properties.keys().cloned().collect();
    let values: Vec<_> = properties
        .iter()
        .map(|(name, schema)| {
            let value = instance(name, schema, root);
            if required.iter().any(|required| required == name) {
                value.prop_map(Some).boxed()
            } else {
                prop::option::weighted(0.7, value).boxed()
            }
        })
        .collect();
    let object = values.prop_map(move |values| {
        let fields = names.iter().cloned().zip(values);
        let fields: Map<_, _> = fields.filter_map(|(name, value)| Some((name, value?))).collect();
        Value::from(fields)
    });
    object.boxed()
}

/// An object of any shape.
fn free_object() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        ".{0,9}".prop_map(Value::from)
    ];
    let inner = leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            fields(inner)
        ]
    });
    fields(inner)
}

fn fields(inner: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    prop::collection::vec((".{0,5}", inner), 0..3)
        .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into())
        .boxed()
}

/// Any text of at most this many characters; for a currency or a country mostly a valid code.
fn text(name: &str, most: Option<u64>) -> BoxedStrategy<Value> {
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(300);
    let any = prop_oneof![4 => "[A-Za-z0-9 äß.,/#-]{0,30}", 1 => ".{0,30}", 1 => ".{0,300}"];
    let any = any.prop_map(move |text| text.chars().take(most).collect::<String>());
    let codes: Vec<String> = if name.ends_with("currency_code") {
        CURRENCIES.iter().map(|(code, _)| (*code).to_owned()).collect()
    } else if name.ends_with("country_code") {
        ["DE", "AT", "ch"].map(str::to_owned).into()
    } else {
        return any.prop_map(Value::from).boxed();
    };
    prop_oneof![5 => prop::sample::select(codes), 1 => any]
        .prop_map(Value::from)
        .boxed()
}

/// A time of RFC 3339 with any offset and any number of digits.
fn time() -> BoxedStrategy<Value> {
    let instant = (0..4_000_000_000_i64, 0..1_000_000_000_i32, 0..10_usize);
    let offset = prop_oneof![
        Just(None),
        (-12..14_i32, 0..4_i32).prop_map(|(hours, quarters)| Some(hours * 60 + quarters * 15))
    ];
    (instant, offset)
        .prop_map(|((seconds, nanoseconds, digits), minutes)| {
            let instant = Timestamp::new(seconds, nanoseconds).expect("a time");
            let offset = Offset::from_seconds(minutes.unwrap_or_default() * 60).expect("an offset");
            let civil = instant.to_zoned(TimeZone::fixed(offset)).datetime();
            let fraction = if digits == 0 {
                String::new()
            } else {
                format!(".{}", &format!("{nanoseconds:09}")[..digits])
            };
            let zone = minutes.map_or("Z".to_owned(), |minutes| {
                let sign = if minutes < 0 { '-' } else { '+' };
                format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
            });
            Value::from(format!("{}{fraction}{zone}", civil.strftime("%Y-%m-%dT%H:%M:%S")))
        })
        .boxed()
}

/// A fault in a payload.
#[derive(Clone, Debug)]
enum Damage {
    /// Replaces a field.
    Replace(Value),
    /// Removes a field.
    Remove,
    /// Adds an undocumented field.
    Add(String, Value),
}

fn damage() -> BoxedStrategy<Damage> {
    let others = [
        json!(null),
        json!(""),
        json!("many"),
        json!(7),
        json!(-1.5),
        json!(true),
        json!([]),
        json!({}),
        json!([7]),
        json!({"deep": [null]}),
    ];
    prop_oneof![
        4 => prop::sample::select(others.to_vec()).prop_map(Damage::Replace),
        1 => Just(Damage::Remove),
        1 => ("[a-z/~]{1,8}", free_object()).prop_map(|(name, value)| Damage::Add(format!("new_{name}"), value)),
    ]
    .boxed()
}

impl Damage {
    /// Returns the damaged payload and the JSON pointer to the fault.
    fn inflict(self, payload: &Value, at: Index) -> (Value, String) {
        let mut payload = payload.clone();
        // The few fields that name the event and the order matter most.
        let mut all = pointers(&payload);
        for _ in 0..4 {
            all.extend(["/event", "/message", "/message/order_number", "/message/order_items"].map(str::to_owned));
        }
        let pointer = all[at.index(all.len())].clone();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let name = unescaped(name);
        match self {
            Self::Replace(value) => *payload.pointer_mut(&pointer).expect("a field") = value,
            Self::Remove => match payload.pointer_mut(parent).expect("what it is in") {
                Value::Object(fields) => drop(fields.remove(&name)),
                Value::Array(elements) => drop(elements.remove(name.parse().expect("an index"))),
                _ => unreachable!("only objects and lists contain fields"),
            },
            Self::Add(name, value) => {
                if let Some(fields) = payload.pointer_mut(parent).and_then(Value::as_object_mut) {
                    fields.insert(name, value);
                }
            }
        }
        (payload, pointer)
    }
}
