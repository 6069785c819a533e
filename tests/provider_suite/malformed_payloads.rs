//! Authentic deliveries with anything in them: each is understood or kept for a person, and nothing of it is lost.
//!
//! What coverage-guided fuzzing finds (tests/fuzz) becomes a test here.

use std::cell::{Cell, LazyCell};
use std::collections::HashSet;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use lambda_http::http::Method;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use shared::Provider;
use shared::answer::Reason;
use shared::classify::{Classification, classify};
use shared::delivery::BodyLimit;
use shared::event::OrderEvent;
use shared::identity::EventId;
use shared::settings::Settings;
use tests::authentic;
use tests::payloads::{accepted, pointers};

/// Text and digits that no fixture has.
const MARK: &str = "hostile-7f3a";
const DIGITS: &str = "731654291";

/// What stands in each field's place in turn.
fn replacements() -> Vec<Value> {
    let raw = format!(
        r#"[null, "", true, false, {DIGITS}, -0, 1E+2, 1e400, 1e-400, 0.1e-99999999999999999999, "{MARK}", "\uffff\ufffe\u0000", [], {{}},
            ["{MARK}"], {{"x":"{MARK}"}}, [{{"x":"{MARK}"}}], {{"x":[{{"y/~":["{MARK}"]}}]}}]"#
    );
    serde_json::from_str(&raw).expect("JSON")
}

/// The fields without which there is no event, and why it is quarantined then. All others cost nothing but themselves.
const NEEDED: [(&str, &str, &[Reason]); 15] = [
    ("selldone", "/event", &[Reason::NoDiscriminator, Reason::UnknownEvent]),
    ("selldone", "/action", &[Reason::NoDiscriminator, Reason::UnknownEvent]),
    ("selldone", "/basket", &[Reason::NoOrderId]),
    ("selldone", "/basket/id", &[Reason::NoOrderId]),
    ("cartum", "/order_id", &[Reason::NoOrderId]),
    ("deeple", "/orderNumber", &[Reason::NoOrderId]),
    ("aboutyou", "/event", &[Reason::NoDiscriminator, Reason::UnknownEvent]),
    ("aboutyou", "/message", &[Reason::NoOrderId]),
    ("aboutyou", "/message/order_number", &[Reason::NoOrderId]),
    (
        "snipcart",
        "/eventName",
        &[Reason::NoDiscriminator, Reason::UnknownEvent],
    ),
    ("snipcart", "/content", &[Reason::NoOrderId]),
    ("snipcart", "/content/token", &[Reason::NoOrderId]),
    ("snipcart", "/content/orderToken", &[Reason::NoOrderId]),
    ("snipcart", "/content/order", &[Reason::NoOrderId]),
    ("snipcart", "/content/order/token", &[Reason::NoOrderId]),
];

/// Where a provider's order has its items.
const ITEMS: [(&str, &str); 5] = [
    ("selldone", "/basket/items"),
    ("cartum", "/products"),
    ("deeple", "/items"),
    ("aboutyou", "/message/order_items"),
    ("snipcart", "/content/items"),
];

macro_rules! for_each_provider {
    ($($name:ident: $provider:ty,)+) => {$(
        mod $name {
            #[test]
            fn no_field_costs_an_order_whatever_stands_in_it() {
                super::no_field_costs_an_order::<$provider>();
            }

            #[test]
            fn every_leaf_of_any_payload_is_said_or_kept() {
                super::every_leaf_is_said_or_kept::<$provider>();
            }

            #[test]
            fn nothing_that_json_can_say_is_too_odd() {
                super::nothing_is_too_odd::<$provider>();
            }

            #[test]
            fn what_is_no_json_is_quarantined() {
                super::what_is_no_json_is_quarantined::<$provider>();
            }

            #[test]
            fn a_wrapped_body_means_what_it_wraps() {
                super::a_wrapped_body_means_what_it_wraps::<$provider>();
            }

            #[test]
            fn a_query_that_names_no_event_makes_no_second_event() {
                super::a_query_makes_no_second_event::<$provider>();
            }

            #[test]
            fn an_order_may_have_a_hundred_thousand_items() {
                super::an_order_may_have_many_items::<$provider>();
            }

            #[test]
            fn any_damage_to_the_bytes_is_survived() {
                super::any_damage_is_survived::<$provider>();
            }
        }
    )+};
}

for_each_provider! {
    selldone: selldone::Selldone,
    cartum: cartum::Cartum,
    deeple: deeple::Deeple,
    aboutyou: aboutyou::AboutYou,
    snipcart: snipcart::Snipcart,
}

fn no_field_costs_an_order<P: Provider>() {
    let reader = Reader::<P>::new();
    let replacements = replacements();
    let mut wrong = Vec::new();
    let mut tried = 0_usize;
    let mut known = HashSet::new();
    for (name, body) in accepted(P::NAME) {
        // One event is all size, and has no field of its own.
        if body.to_string().len() > 100_000 {
            continue;
        }
        for pointer in pointers(&body) {
            let without = LazyCell::new(|| {
                let event = reader.event(&replaced(&body, &pointer, &Value::Null));
                event.map(|event| mapped(&event))
            });
            // Everything where a field is first met, then one thing for each event that has it: events are much alike.
            let field: String = pointer.split('/').filter(|part| part.parse::<u32>().is_err()).collect();
            let next = tried % replacements.len();
            let values = if known.insert(field) {
                &replacements[..]
            } else {
                &replacements[next..=next]
            };
            for value in values {
                tried += 1;
                let outcome = reader.read(replaced(&body, &pointer, value).to_string().as_bytes());
                let fault = outcome.and_then(|classification| match classification {
                    Classification::Order(event) => is_kept(&event, &pointer, value, || without.clone()),
                    Classification::Unsupported if may_lack_its_order(&name, &pointer) => Ok(()),
                    Classification::Unsupported => Err("it is unsupported".to_owned()),
                    Classification::Quarantined(reason) => is_needed(P::NAME, &pointer, reason),
                });
                wrong.extend(
                    fault
                        .err()
                        .map(|fault| format!("{name} with {value} at {pointer}: {fault}")),
                );
            }
        }
    }
    assert!(tried > 500, "{tried} are too few to be all");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether the event is that of a failed payment, which reports no order if it names none.
fn may_lack_its_order(name: &str, pointer: &str) -> bool {
    let is_failed_payment = name.starts_with("subscription-invoice-payment-failed");
    is_failed_payment && ["/content/order", "/content/order/token"].contains(&pointer)
}

/// The value stands in `unmapped` as it came, or its content in the event, or the event says otherwise what it says.
fn is_kept(
    event: &OrderEvent,
    pointer: &str,
    value: &Value,
    without: impl Fn() -> Option<String>,
) -> Result<(), String> {
    if value.is_null() || *value == json!("") {
        return Ok(());
    }
    let unmapped = Value::from(
        event
            .data
            .unmapped
            .clone()
            .unwrap_or_default()
            .fields()
            .expect("fields"),
    );
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
    let mapped = mapped(event);
    let found = match value {
        Value::String(text) => mapped.contains(json!(text).to_string().trim_matches('"')),
        Value::Number(number) if number.as_str() == DIGITS => mapped.replace('.', "").contains(DIGITS),
        // An empty object or list says nothing; what is in another may be a choice that the customer made.
        Value::Array(_) | Value::Object(_) => leaves.is_empty() || mapped.contains(MARK),
        _ => without().is_none_or(|without| mapped != without),
    };
    if found { Ok(()) } else { Err("it is lost".to_owned()) }
}

fn is_needed(provider: &str, pointer: &str, reason: Reason) -> Result<(), String> {
    let needed = NEEDED
        .iter()
        .any(|(of, needed, reasons)| (*of, *needed) == (provider, pointer) && reasons.contains(&reason));
    if needed {
        Ok(())
    } else {
        Err(format!("it is quarantined: {}", reason.as_str()))
    }
}

/// The event but for `unmapped` and what speaks of the payload.
fn mapped(event: &OrderEvent) -> String {
    let mut event = event.clone();
    event.data.unmapped = None;
    event.data.warnings.clear();
    if event.time == event.data.received_at {
        event.time = jiff::Timestamp::UNIX_EPOCH;
    }
    event.data.received_at = jiff::Timestamp::UNIX_EPOCH;
    serde_json::to_string(&(&event.r#type, &event.data, &event.time)).expect("JSON")
}

/// A change to a payload.
#[derive(Clone, Debug)]
enum Edit {
    /// Something else in a value's place, or in the place of all that it holds.
    Replace(Value),
    /// A field that nobody documents.
    Add(Value),
    /// One more element of a list, like its first one.
    Repeat,
    /// The field is not there.
    Remove,
}

/// Values that no other place of the payload has: wherever they go, they can be found again.
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
                let name = name.replace("~1", "/").replace("~0", "~");
                if let Some(fields) = payload.pointer_mut(parent).and_then(Value::as_object_mut) {
                    fields.remove(&name);
                }
            }
        }
    }
    payload
}

/// Whether the event says the same without this value.
fn is_the_default(provider: &str, pointer: &str, value: &Value) -> bool {
    // An order is no test unless the provider says so.
    (provider, pointer) == ("snipcart", "/mode") && *value == json!("Live")
}

/// Each value of a payload is said by the event in its own words, or kept in `unmapped` at its own place; nothing is left out of
/// an event that is stored.
fn every_leaf_is_said_or_kept<P: Provider>() {
    let reader = Reader::<P>::new();
    let mut bodies: Vec<_> = accepted(P::NAME).into_iter().map(|(_, body)| body).collect();
    bodies.retain(|body| body.to_string().len() < 100_000);
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
        let unmapped = event
            .data
            .unmapped
            .clone()
            .unwrap_or_default()
            .fields()
            .expect("fields");
        let unmapped = Value::from(unmapped);
        let said = mapped(&event);
        let digits = said.replace('.', "");
        for pointer in pointers(&payload) {
            let value = payload.pointer(&pointer).expect("a field");
            let holds_others = value.as_object().is_some_and(|fields| !fields.is_empty())
                || value.as_array().is_some_and(|elements| !elements.is_empty());
            let says_nothing = [json!(null), json!(""), json!([]), json!({})].contains(value);
            if holds_others || says_nothing || unmapped.pointer(&pointer) == Some(value) {
                continue;
            }
            let is_said = match value {
                Value::String(text) => said.contains(json!(text).to_string().trim_matches('"')),
                Value::Number(number) => digits.contains(&number.to_string().replace('.', "")),
                _ => false,
            };
            // A word, a time or a truth value is said in another way: then the event differs without it.
            let is_marked = value.to_string().contains(MARK) || value.to_string().starts_with("731");
            let changes_the_event = || {
                let without = reader.event(&replaced(&payload, &pointer, &Value::Null));
                without.is_none_or(|without| mapped(&without) != said)
            };
            prop_assert!(
                is_said || is_the_default(P::NAME, &pointer, value) || (!is_marked && changes_the_event()),
                "{} says {}, and the event does not",
                pointer,
                value
            );
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(orders.get() > 200, "{} of 400 orders are too few", orders.get());
}

fn nothing_is_too_odd<P: Provider>() {
    let reader = Reader::<P>::new();
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let odd = [
        ("a field twice", r#""a":1,"a":[2]"#.to_owned()),
        ("no name", r#""":1,"/":2,"~":3,"~1":4"#.to_owned()),
        ("digits", format!(r#""a":{}"#, "7".repeat(100_000))),
        ("a fraction", format!(r#""a":0.{}"#, "7".repeat(100_000))),
        (
            "exponents",
            r#""a":[1e400,-1E-400,1E+2,-0,-0.0e0,1e99999999999999999999]"#.to_owned(),
        ),
        (
            "half pairs",
            r#""a":"\ud83d","b":"\ude00\ud83d","\udfff":"\ud83d\ud83d\ude00""#.to_owned(),
        ),
        (
            "no characters",
            r#""a":"\uffff\ufffe\u0000","\uffff":"\ufdd0""#.to_owned(),
        ),
        ("raw no characters", "\"a\u{ffff}\":\"\u{fffe}\u{7f}\"".to_owned()),
        ("a long text", format!(r#""a":"{}""#, "ä".repeat(100_000))),
        ("a long name", format!(r#""{}":1"#, "ä".repeat(100_000))),
        (
            "many fields",
            (0..20_000)
                .map(|n| format!(r#""{n}":{n}"#))
                .collect::<Vec<_>>()
                .join(","),
        ),
        ("many empty lists", format!(r#""a":[{}[]]"#, "[],".repeat(50_000))),
        ("nested", format!(r#""a":{}"#, nested(100))),
        (
            "what serde_json calls a number",
            r#""a":{"$serde_json::private::Number":"7"}"#.to_owned(),
        ),
    ];
    let (name, body) = accepted(P::NAME).swap_remove(0);
    let text = body.to_string();
    for (what, fields) in odd {
        let body = format!("{{{fields},{}", &text[1..]);
        match reader.read(body.as_bytes()) {
            Ok(Classification::Order(event)) => assert!(
                event
                    .data
                    .unmapped
                    .is_some_and(|unmapped| unmapped.fields().is_ok_and(|fields| !fields.is_empty()))
            ),
            Ok(Classification::Quarantined(reason)) => panic!("{name} with {what}: {}", reason.as_str()),
            Ok(Classification::Unsupported) => panic!("{name} with {what} is unsupported"),
            Err(fault) => panic!("{name} with {what}: {fault}"),
        }
    }
    // Wherever the line is drawn, on both sides of it all must hold.
    for levels in 110..130 {
        let body = format!(r#"{{"a":{},{}"#, nested(levels), &text[1..]);
        if let Err(fault) = reader.read(body.as_bytes()) {
            panic!("{name} with {levels} levels: {fault}");
        }
    }
}

fn what_is_no_json_is_quarantined<P: Provider>() {
    let reader = Reader::<P>::new();
    let (_, body) = accepted(P::NAME).swap_remove(0);
    let text = body.to_string();
    let with = |bytes: &[u8]| [b"{\"a\":\"", bytes, b"\",", &text.as_bytes()[1..]].concat();
    let deep = |open: &str, close: &str| {
        format!(
            "{{\"a\":{}1{},{}",
            open.repeat(10_000),
            close.repeat(10_000),
            &text[1..]
        )
        .into_bytes()
    };
    let no_json: [(&str, Vec<u8>); 13] = [
        ("10,000 lists", deep("[", "]")),
        ("10,000 objects", deep(r#"{"a":"#, "}")),
        ("10,000 lists that do not end", "[".repeat(10_000).into_bytes()),
        ("a byte that is no UTF-8", with(b"\xff")),
        ("an overlong encoding", with(b"\xc0\xaf")),
        ("half a pair in bytes", with(b"\xed\xa0\x80")),
        ("a cut character", with(b"\xe2\x82")),
        ("a raw line break", with(b"\n")),
        ("an escape cut short", with(b"\\ud8")),
        ("no end", text.as_bytes()[..text.len() - 1].to_vec()),
        ("more after the end", format!("{text}{{}}").into_bytes()),
        (
            "a number that is none",
            format!(r#"{{"a":NaN,{}"#, &text[1..]).into_bytes(),
        ),
        ("UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
    ];
    for (what, body) in no_json {
        match reader.read(&body) {
            Ok(Classification::Quarantined(Reason::NotJson)) => {}
            Ok(Classification::Quarantined(reason)) => panic!("{what}: {}", reason.as_str()),
            Ok(_) => panic!("{what} is understood"),
            Err(fault) => panic!("{what}: {fault}"),
        }
    }
    for body in ["null", "0", "\"\"", "[]", "{}", "[[]]", "true", "[{}]", "{\"\":{}}"] {
        let classification = reader
            .read(body.as_bytes())
            .unwrap_or_else(|fault| panic!("{body}: {fault}"));
        assert!(
            matches!(classification, Classification::Quarantined(reason) if reason != Reason::NotJson),
            "{body} is understood"
        );
    }
}

fn a_wrapped_body_means_what_it_wraps<P: Provider>() {
    let reader = Reader::<P>::new();
    let classification = |body: &[u8]| reader.read(body).unwrap_or_else(|fault| panic!("{fault}"));
    let event_of = |name: &str, body: &[u8]| {
        let Classification::Order(mut event) = classification(body) else {
            panic!("{name} is no order")
        };
        // Without an id of the provider's own, the bytes are the identity.
        event.id = EventId::parse(&"0".repeat(64)).expect("an id");
        if event.time == event.data.received_at {
            event.time = Timestamp::UNIX_EPOCH;
        }
        event.data.received_at = Timestamp::UNIX_EPOCH;
        *event
    };
    for (name, body) in accepted(P::NAME) {
        let plain = body.to_string().into_bytes();
        let event = event_of(&name, &plain);
        for (how, wrapped) in wrappings(&plain) {
            assert_eq!(event_of(&name, &wrapped), event, "{name} in {how}");
        }
    }
    for (how, wrapped) in wrappings(b" ") {
        assert!(
            matches!(classification(&wrapped), Classification::Unsupported),
            "nothing in {how}"
        );
    }
    for (how, wrapped) in wrappings(b"order=1") {
        assert!(
            matches!(classification(&wrapped), Classification::Quarantined(Reason::NotJson)),
            "no JSON in {how}"
        );
    }
    let too_large = gzip(&vec![b' '; BodyLimit::DEFAULT + 1]);
    assert!(matches!(
        classification(&too_large),
        Classification::Quarantined(Reason::TooLarge)
    ));
    let twice = gzip(&gzip(b"{}"));
    assert!(matches!(
        classification(&twice),
        Classification::Quarantined(Reason::NotJson)
    ));
}

/// How a sender may wrap a body.
fn wrappings(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let marked = [b"\xef\xbb\xbf", body].concat();
    let text = format!("\u{feff}{}", str::from_utf8(body).expect("text"));
    let utf_16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect();
    vec![
        ("gzip", gzip(body)),
        ("gzip with a byte order mark", gzip(&marked)),
        ("UTF-8 with a byte order mark", marked),
        ("UTF-16, little end first", utf_16(u16::to_le_bytes)),
        ("UTF-16, big end first", utf_16(u16::to_be_bytes)),
    ]
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

fn a_query_makes_no_second_event<P: Provider>() {
    let reader = Reader::<P>::new();
    let id = |query: &[(&str, &str)]| {
        let body = b"not JSON".to_vec();
        let delivery = authentic::delivery_with(Method::POST, query, P::EVENT_PARAMETERS, body);
        classify(&reader.provider, &delivery, None).id
    };
    let ids: HashSet<_> = (0..1000)
        .map(|number| id(&[("utm", &number.to_string()), (&format!("x{number}"), "")]))
        .collect();
    assert_eq!(ids, HashSet::from([id(&[])]));
    // Where the query names the event, another event is another delivery.
    let events: HashSet<_> = ["one", "two"].map(|event| id(&[("event", event)])).into();
    assert_eq!(events.len(), P::EVENT_PARAMETERS.len() + 1);
}

fn an_order_may_have_many_items<P: Provider>() {
    let reader = Reader::<P>::new();
    let (_, pointer) = ITEMS.into_iter().find(|(of, _)| *of == P::NAME).expect("a provider");
    let mut bodies = accepted(P::NAME).into_iter().map(|(_, body)| body);
    let mut body = bodies
        .find(|body| body.pointer(pointer).is_some_and(Value::is_array))
        .expect("an order with items");
    let items = (0..100_000).map(|number| json!({"id": number, "?": [number]}));
    *body.pointer_mut(pointer).expect("items") = items.collect();
    let delivery = authentic::delivery(Method::POST, &[], body.to_string().into_bytes());
    let Classification::Order(event) = classify(&reader.provider, &delivery, None).classification else {
        panic!("it is no order")
    };
    let unmapped = Value::from(event.data.unmapped.unwrap_or_default().fields().expect("fields"));
    assert_eq!(unmapped.pointer(&format!("{pointer}/99999/?/0")), Some(&json!(99_999)));
    assert_eq!(event.data.order.items.map(|items| items.len()), Some(100_000));
}

/// One damage to a body.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Delete(Index, usize),
    /// Puts a piece of another event in.
    Splice(Index, Index, Index, usize),
}

fn any_damage_is_survived<P: Provider>() {
    let bodies: Vec<_> = accepted(P::NAME)
        .iter()
        .map(|(_, body)| body.to_string().into_bytes())
        .collect();
    let reader = Reader::<P>::new();
    let words = [
        "null", "\"", "{", "}", "[", "]", ",", ":", "\\u", "\\ud83d", "1e9", "-", "\u{ffff}", "0", "\0",
    ];
    let word = proptest::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    let damage = prop_oneof![
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (
            any::<Index>(),
            prop_oneof![word, proptest::collection::vec(any::<u8>(), 1..4)]
        )
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Damage::Delete(at, length)),
        (any::<Index>(), any::<Index>(), any::<Index>(), 1..200_usize)
            .prop_map(|(at, other, from, length)| Damage::Splice(at, other, from, length)),
    ];
    let strategy = (any::<Index>(), proptest::collection::vec(damage, 1..4));
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&strategy, |(of, damages)| {
        let mut body = bodies[of.index(bodies.len())].clone();
        for damage in &damages {
            damage.inflict(&mut body, &bodies);
        }
        reader.read(&body).map(|_| ()).map_err(TestCaseError::fail)
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

impl Damage {
    fn inflict(&self, body: &mut Vec<u8>, others: &[Vec<u8>]) {
        if body.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, bit) => {
                let at = at.index(body.len());
                body[at] ^= 1 << bit;
            }
            Self::Insert(at, bytes) => {
                let at = at.index(body.len());
                body.splice(at..at, bytes.iter().copied());
            }
            Self::Delete(at, length) => {
                let at = at.index(body.len());
                let end = body.len().min(at + length);
                body.drain(at..end);
            }
            Self::Splice(at, other, from, length) => {
                let other = &others[other.index(others.len())];
                let from = from.index(other.len());
                let piece = &other[from..other.len().min(from + length)];
                let at = at.index(body.len());
                let end = body.len().min(at + length);
                body.splice(at..end, piece.iter().copied());
            }
        }
    }
}

/// A provider's function, but for what is around the reading.
struct Reader<P: Provider> {
    provider: P,
}

impl<P: Provider> Reader<P> {
    fn new() -> Self {
        let settings = Settings::from_table::<&str, &str>([]);
        Self {
            provider: P::from_settings(&settings).expect("the defaults"),
        }
    }

    /// What an authentic delivery with this body means, and whether all holds that must; a panic is a fault too.
    fn read(&self, body: &[u8]) -> Result<Classification, String> {
        let classified = catch_unwind(AssertUnwindSafe(|| {
            classify(
                &self.provider,
                &authentic::delivery(Method::POST, &[], body.to_vec()),
                None,
            )
        }));
        let classified = classified.map_err(|_| "it panics".to_owned())?;
        authentic::check(body, &classified)?;
        Ok(classified.classification)
    }

    fn event(&self, body: &Value) -> Option<OrderEvent> {
        match self.read(body.to_string().as_bytes()) {
            Ok(Classification::Order(event)) => Some(*event),
            _ => None,
        }
    }
}

fn replaced(body: &Value, pointer: &str, value: &Value) -> Value {
    let mut body = body.clone();
    *body.pointer_mut(pointer).expect("a field") = value.clone();
    body
}
