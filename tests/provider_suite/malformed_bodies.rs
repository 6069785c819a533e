//! Authentic deliveries with any bytes in their body: each is classified, and none makes the code panic.
//!
//! A find of coverage-guided fuzzing (tests/fuzz) becomes a test here.

use std::collections::HashSet;

use lambda_http::http::Method;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use shared::answer::Reason;
use shared::classify::Classification;
use shared::delivery::BodyLimit;
use shared::identity::EventId;
use tests::gzip;
use tests::payloads::accepted;
use tests::providers::Tested;
use tests::reader::{Reader, without_receipt};

pub(crate) fn unusual_json_is_an_order<P: Tested>() {
    let reader = Reader::<P>::new();
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let unusual = [
        ("a field twice", r#""a":1,"a":[2]"#.to_owned()),
        ("an empty name", r#""":1,"/":2,"~":3,"~1":4"#.to_owned()),
        ("digits", format!(r#""a":{}"#, "7".repeat(100_000))),
        ("a fraction", format!(r#""a":0.{}"#, "7".repeat(100_000))),
        (
            "exponents",
            r#""a":[1e400,-1E-400,1E+2,-0,-0.0e0,1e99999999999999999999]"#.to_owned(),
        ),
        (
            "unpaired surrogates",
            r#""a":"\ud83d","b":"\ude00\ud83d","\udfff":"\ud83d\ud83d\ude00""#.to_owned(),
        ),
        (
            "noncharacters",
            r#""a":"\uffff\ufffe\u0000","\uffff":"\ufdd0""#.to_owned(),
        ),
        ("raw noncharacters", "\"a\u{ffff}\":\"\u{fffe}\u{7f}\"".to_owned()),
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
            "a name that serde_json uses for numbers",
            r#""a":{"$serde_json::private::Number":"7"}"#.to_owned(),
        ),
    ];
    let (name, body) = accepted(P::NAME).swap_remove(0);
    let text = body.to_string();
    for (what, fields) in unusual {
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
    // The invariants hold on both sides of the limit of nesting.
    for levels in 110..130 {
        let body = format!(r#"{{"a":{},{}"#, nested(levels), &text[1..]);
        if let Err(fault) = reader.read(body.as_bytes()) {
            panic!("{name} with {levels} levels: {fault}");
        }
    }
}

pub(crate) fn invalid_json_is_quarantined<P: Tested>() {
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
    let invalid: [(&str, Vec<u8>); 13] = [
        ("10,000 lists", deep("[", "]")),
        ("10,000 objects", deep(r#"{"a":"#, "}")),
        ("10,000 lists that do not end", "[".repeat(10_000).into_bytes()),
        ("a byte that is not UTF-8", with(b"\xff")),
        ("an overlong encoding", with(b"\xc0\xaf")),
        ("a surrogate in UTF-8", with(b"\xed\xa0\x80")),
        ("a truncated character", with(b"\xe2\x82")),
        ("a raw line break", with(b"\n")),
        ("a truncated escape", with(b"\\ud8")),
        ("a truncated object", text.as_bytes()[..text.len() - 1].to_vec()),
        ("more after the end", format!("{text}{{}}").into_bytes()),
        ("NaN", format!(r#"{{"a":NaN,{}"#, &text[1..]).into_bytes()),
        ("UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
    ];
    for (what, body) in invalid {
        match reader.read(&body) {
            Ok(Classification::Quarantined(Reason::NotJson)) => {}
            Ok(Classification::Quarantined(reason)) => panic!("{what}: {}", reason.as_str()),
            Ok(_) => panic!("{what} is accepted"),
            Err(fault) => panic!("{what}: {fault}"),
        }
    }
    for body in ["null", "0", "\"\"", "[]", "{}", "[[]]", "true", "[{}]", "{\"\":{}}"] {
        let classification = reader
            .read(body.as_bytes())
            .unwrap_or_else(|fault| panic!("{body}: {fault}"));
        assert!(
            matches!(classification, Classification::Quarantined(reason) if reason != Reason::NotJson),
            "{body} is accepted"
        );
    }
}

pub(crate) fn a_wrapped_body_is_the_same_event<P: Tested>() {
    let reader = Reader::<P>::new();
    let classification = |body: &[u8]| reader.read(body).unwrap_or_else(|fault| panic!("{fault}"));
    let event_of = |name: &str, body: &[u8]| {
        let Classification::Order(mut event) = classification(body) else {
            panic!("{name} is not an order")
        };
        // If the payload names no event, the bytes are the identity.
        event.id = EventId::parse(&"0".repeat(64)).expect("an id");
        without_receipt(*event)
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
            "an empty body in {how}"
        );
    }
    for (how, wrapped) in wrappings(b"order=1") {
        assert!(
            matches!(classification(&wrapped), Classification::Quarantined(Reason::NotJson)),
            "a form in {how}"
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

/// The encodings in which a sender may wrap a body.
fn wrappings(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let marked = [b"\xef\xbb\xbf", body].concat();
    let text = format!("\u{feff}{}", str::from_utf8(body).expect("text"));
    let utf_16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect();
    vec![
        ("gzip", gzip(body)),
        ("gzip with a byte order mark", gzip(&marked)),
        ("UTF-8 with a byte order mark", marked),
        ("UTF-16, little endian", utf_16(u16::to_le_bytes)),
        ("UTF-16, big endian", utf_16(u16::to_be_bytes)),
    ]
}

pub(crate) fn the_query_names_no_second_event<P: Tested>() {
    let reader = Reader::<P>::new();
    let id = |query: &[(&str, &str)]| reader.classify(query, b"not JSON", None).id;
    let ids: HashSet<_> = (0..1000)
        .map(|number| id(&[("utm", &number.to_string()), (&format!("x{number}"), "")]))
        .collect();
    assert_eq!(ids, HashSet::from([id(&[])]));
    // If a query parameter names the event, another value is another event.
    let events: HashSet<_> = ["one", "two"].map(|event| id(&[("event", event)])).into();
    assert_eq!(events.len(), P::event_parameters(&Method::POST).len() + 1);
}

pub(crate) fn an_order_may_have_a_hundred_thousand_items<P: Tested>() {
    let reader = Reader::<P>::new();
    let object = P::ORDER.object.map(|object| format!("/{object}")).unwrap_or_default();
    let pointer = format!("{object}/{}", P::ORDER.items);
    let mut bodies = accepted(P::NAME).into_iter().map(|(_, body)| body);
    let mut body = bodies
        .find(|body| body.pointer(&pointer).is_some_and(Value::is_array))
        .expect("an order with items");
    let items = (0..100_000).map(|number| json!({"id": number, "?": [number]}));
    *body.pointer_mut(&pointer).expect("items") = items.collect();
    let event = reader.event(&body).expect("an order");
    let unmapped = Value::from(event.data.unmapped.unwrap_or_default().fields().expect("fields"));
    assert_eq!(unmapped.pointer(&format!("{pointer}/99999/?/0")), Some(&json!(99_999)));
    assert_eq!(event.data.order.items.map(|items| items.len()), Some(100_000));
}

/// A damage to the bytes of a body.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Delete(Index, usize),
    /// Replaces bytes by a piece of another event.
    Splice(Index, Index, Index, usize),
}

pub(crate) fn no_damage_to_the_bytes_is_a_panic<P: Tested>() {
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
