use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Element, NotJson, Payload, TimeZone, Zone, without_lone_surrogates};
use crate::money::Currency;

/// The payload of a value, which lives until the end of the tests.
fn payload(value: &Value) -> Payload<'static> {
    Payload::parse(value.to_string().leak().as_bytes()).expect("JSON")
}

#[test]
fn a_field_that_is_not_taken_stays_at_its_place() {
    let payload = payload(&json!({
        "id": 7, "note": "", "extra": {"deep": [1.10]},
        "items": [{"sku": "A", "colour": "red"}, {"sku": "B"}, {"sku": "C", "weight": 2}],
    }));
    let order = payload.root();
    assert_eq!(order.id("id").as_deref(), Some("7"));
    assert_eq!(order.text("note"), None);
    let skus: Vec<_> = order
        .objects("items")
        .expect("items")
        .iter()
        .map(|item| item.text("sku"))
        .collect();
    assert_eq!(skus.len(), 3);
    let (rest, warnings) = payload.into_rest();
    let expected = json!({"extra": {"deep": [1.10]}, "items": [{"colour": "red"}, {}, {"weight": 2}]});
    assert_eq!(Value::Object(rest.fields().expect("fields")), expected);
    assert!(warnings.is_empty());
}

#[test]
fn a_number_is_read_where_text_is_expected() {
    for (value, read) in [
        (r#""A-7""#, Some("A-7")),
        ("7", Some("7")),
        ("-7", Some("-7")),
        ("7.50", Some("7.50")),
        ("99999999999999999999", Some("99999999999999999999")),
        ("true", None),
        ("{}", None),
        (r#"["7"]"#, None),
    ] {
        let body = format!(r#"{{"field":{value}}}"#);
        let payload = Payload::parse(body.as_bytes()).expect("JSON");
        assert_eq!(payload.root().text("field").as_deref(), read, "{value}");
        assert_eq!(payload.root().id("field").as_deref(), read, "{value}");
        let (rest, warnings) = payload.into_rest();
        assert_eq!(rest.fields().expect("fields").is_empty(), read.is_some(), "{value}");
        assert_eq!(warnings.is_empty(), read.is_some(), "{value}");
    }
}

#[test]
fn a_flag_is_a_truth_value_or_one_or_zero() {
    for (value, read) in [
        ("true", Some(true)),
        ("false", Some(false)),
        ("1", Some(true)),
        ("0", Some(false)),
        (r#""1""#, Some(true)),
        (r#""0""#, Some(false)),
        ("2", None),
        ("-1", None),
        (r#""yes""#, None),
        (r#""true""#, None),
        ("[1]", None),
    ] {
        let body = format!(r#"{{"field":{value}}}"#);
        let payload = Payload::parse(body.as_bytes()).expect("JSON");
        assert_eq!(payload.root().flag("field"), read, "{value}");
        let (rest, warnings) = payload.into_rest();
        assert_eq!(rest.fields().expect("fields").is_empty(), read.is_some(), "{value}");
        assert_eq!(warnings.is_empty(), read.is_some(), "{value}");
    }
}

#[test]
fn a_list_without_objects_is_not_empty() {
    let body = json!({"none": [], "skus": ["A"], "mixed": ["A", {"sku": "B"}]});
    let payload = payload(&body);
    let order = payload.root();
    let count = |name: &str| order.objects(name).map(|objects| objects.len());
    assert_eq!(
        ["none", "skus", "mixed", "missing"].map(count),
        [Some(0), None, Some(1), None]
    );
    let (rest, warnings) = payload.into_rest();
    assert_eq!(
        Value::Object(rest.fields().expect("fields")),
        json!({"skus": ["A"], "mixed": ["A", {"sku": "B"}]})
    );
    assert_eq!(warnings, ["/mixed/0", "/skus/0"]);
}

#[test]
fn a_list_may_hold_objects_and_bare_keys() {
    let payload = payload(&json!({"items": [5119, {"id": "5120"}, true, "5121"]}));
    let ids = payload.root().list("items", |element| match element {
        Element::Object(fields) => fields.id("id"),
        Element::Other(value) => value.as_text().map(str::to_owned),
    });
    assert_eq!(ids.expect("a list"), ["5119", "5120", "5121"]);
    let (rest, warnings) = payload.into_rest();
    assert_eq!(
        Value::Object(rest.fields().expect("fields")),
        json!({"items": [{}, {}, true, {}]})
    );
    assert_eq!(warnings, ["/items/2"]);
}

#[test]
fn a_malformed_field_is_absent_with_a_warning_and_kept() {
    let payload = payload(&json!({"a/b": [1], "address": "x", "items": ["y", {"sku": true}], "ok": "z"}));
    let order = payload.root();
    assert_eq!(order.text("a/b"), None);
    assert_eq!(order.object("address").text("city"), None);
    let items = order.objects("items").expect("a list");
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].id("sku"), None);
    assert_eq!(order.text("ok").as_deref(), Some("z"));
    let (rest, warnings) = payload.into_rest();
    assert_eq!(
        Value::Object(rest.fields().expect("fields")),
        json!({"a/b": [1], "address": "x", "items": ["y", {"sku": true}]})
    );
    assert_eq!(warnings, ["/address", "/a~1b", "/items/0", "/items/1/sku"]);
}

#[test]
fn a_negative_price_is_not_taken() {
    let payload = payload(&json!({"price": -1, "fee": "-0.5", "cents": -100, "zero": 0, "discount": -1, "odd": true}));
    let root = payload.root();
    assert_eq!(root.price("price"), None);
    assert_eq!(root.price("fee"), None);
    assert_eq!(root.minor_units("cents", Currency::parse("EUR")), None);
    assert_eq!(root.price("zero").expect("a price").to_string(), "0");
    assert_eq!(root.price("odd"), None);
    assert_eq!(root.amount("discount").expect("an amount").to_string(), "-1");
    let (rest, warnings) = payload.into_rest();
    assert_eq!(
        Value::Object(rest.fields().expect("fields")),
        json!({"price": -1, "fee": "-0.5", "cents": -100, "odd": true})
    );
    assert_eq!(warnings, ["/odd"]);
}

#[test]
fn scalars_are_taken_and_nested_values_stay() {
    let body = br#"{"o":{"b":"x","a":1.50,"b":"y","c":true,"d":[1],"e":null,"f":{"g":1},"d":[2]}}"#;
    let payload = Payload::parse(body).expect("JSON");
    let scalars = payload.root().object("o").scalars();
    let scalars: Vec<_> = scalars
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(scalars, [("b", "y"), ("a", "1.50"), ("c", "true")]);
    let (rest, warnings) = payload.into_rest();
    assert_eq!(rest.as_json(), r#"{"o":{"d":[2],"f":{"g":1}}}"#);
    assert!(warnings.is_empty());
}

#[test]
fn a_peek_takes_nothing_and_does_not_warn() {
    let payload = payload(&json!({"a": 1, "b": null}));
    let root = payload.root();
    assert!(root.peek("a").is_some() && root.peek("b").is_none() && root.peek("c").is_none());
    let (rest, warnings) = payload.into_rest();
    assert_eq!(rest.as_json(), r#"{"a":1,"b":null}"#);
    assert!(warnings.is_empty());
}

#[test]
fn an_empty_php_array_is_an_absent_object() {
    let payload = payload(&json!({"tax": [], "message": [1]}));
    assert!(!payload.root().object("tax").exist());
    assert!(!payload.root().object("message").exist());
    let (rest, warnings) = payload.into_rest();
    assert_eq!(Value::Object(rest.fields().expect("fields")), json!({"message": [1]}));
    assert_eq!(warnings, ["/message"]);
}

#[test]
fn times_are_read_with_their_offset_or_in_the_given_zone() {
    let payload = payload(&json!({
        "offset": "2024-09-30T12:41:59.5000000+02:00", "civil": "2016-12-05 15:46:40", "summer": "2016-07-05 15:46:40",
    }));
    let kyiv = TimeZone::get("Europe/Kyiv").expect("a zone");
    let root = payload.root();
    assert_eq!(
        root.time("offset").expect("a time").to_string(),
        "2024-09-30T10:41:59.5Z"
    );
    assert_eq!(root.time("civil"), None);
    assert_eq!(
        root.time_in("civil", &kyiv).expect("a time").to_string(),
        "2016-12-05T13:46:40Z"
    );
    assert_eq!(
        root.zoned_time_in("offset", &kyiv).map(|(_, zone)| zone),
        Some(Zone::Stated)
    );
    assert_eq!(
        root.zoned_time_in("civil", &kyiv).map(|(_, zone)| zone),
        Some(Zone::Assumed)
    );
    assert_eq!(
        root.time_in("summer", &kyiv).expect("a time").to_string(),
        "2016-07-05T12:46:40Z"
    );
}

#[test]
fn numbers_stay_exact_in_the_rest() {
    let payload = Payload::parse(br#"{"big":12345678901234567890.10,"id":99999999999999999999}"#).expect("JSON");
    assert_eq!(payload.root().id("id").as_deref(), Some("99999999999999999999"));
    let (rest, _) = payload.into_rest();
    assert_eq!(
        serde_json::to_string(&rest).expect("JSON"),
        r#"{"big":12345678901234567890.10}"#
    );
}

#[test]
fn the_nesting_of_a_payload_is_limited() {
    let nested = |levels: usize| {
        let body = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        Payload::parse(body.as_bytes()).err()
    };
    assert!(nested(120).is_none());
    assert!(matches!(nested(121), Some(NotJson::TooDeep)));
    assert!(matches!(nested(100_000), Some(NotJson::Malformed { .. })));
}

#[test]
fn a_body_that_does_not_fit_into_memory_is_rejected() {
    let list = |element: &str, count: usize| format!("[{}]", vec![element; count].join(","));
    assert!(Payload::parse(list("{}", 100_000).as_bytes()).is_ok());
    assert!(matches!(
        Payload::parse(list("{}", 120_001).as_bytes()),
        Err(NotJson::TooDense)
    ));
    assert!(matches!(
        Payload::parse(list("1", 600_001).as_bytes()),
        Err(NotJson::TooDense)
    ));
    assert!(Payload::parse(format!("[\"{}\"]", "x".repeat(4_900_000)).as_bytes()).is_ok());
}

#[test]
fn half_a_surrogate_pair_costs_one_character() {
    let text = |body: &str| {
        Payload::parse(body.as_bytes())
            .ok()
            .and_then(|payload| payload.root().text("a"))
    };
    assert_eq!(text(r#"{"a":"x\ud83dy"}"#).as_deref(), Some("x\u{fffd}y"));
    assert_eq!(
        text(r#"{"a":"\udc00\ud83d\ude00\ud83d"}"#).as_deref(),
        Some("\u{fffd}\u{1f600}\u{fffd}")
    );
    assert_eq!(text(r#"{"a":"\\ud83d \ud83d"}"#).as_deref(), Some("\\ud83d \u{fffd}"));
    assert_eq!(text(r#"{"a":"\ud83d""#), None);
}

#[test]
fn the_error_for_malformed_json_contains_none_of_it() {
    let error = Payload::parse(br#"{"secret": tru"#)
        .err()
        .expect("not JSON")
        .to_string();
    assert!(!error.contains("secret") && error.contains("line 1"), "{error}");
}

#[test]
fn the_last_value_of_a_repeated_name_counts() {
    let payload = Payload::parse(br#"{"id":"1","?":1,"id":"2","?":{"b":[],"a":1,"b":null}}"#).expect("JSON");
    assert_eq!(payload.root().text("id").as_deref(), Some("2"));
    let (rest, _) = payload.into_rest();
    assert_eq!(rest.as_json(), r#"{"?":{"a":1,"b":null}}"#);
    let payload = Payload::parse(br#"{"order":{"id":"1","id":"2"},"items":[{"id":1,"id":2}]}"#).expect("JSON");
    assert_eq!(payload.root().object("order").text("id").as_deref(), Some("2"));
    let items = payload.root().objects("items").expect("a list");
    assert_eq!(items[0].id("id").as_deref(), Some("2"));
    drop(items);
    assert_eq!(payload.into_rest().0.as_json(), "{}");
}

#[test]
fn the_parsers_name_for_a_number_is_an_ordinary_name() {
    for name in ["$serde_json::private::Number", r"\u0024serde_json::private::Number"] {
        let body = format!(r#"{{"amount":{{"{name}":"7"}},"id":7}}"#);
        let payload = Payload::parse(body.as_bytes()).expect("JSON");
        assert_eq!(payload.root().amount("amount"), None);
        assert_eq!(payload.root().id("id").as_deref(), Some("7"));
        let (rest, _) = payload.into_rest();
        assert_eq!(rest.as_json(), r#"{"amount":{"$serde_json::private::Number":"7"}}"#);
        let read: crate::event::Unmapped = serde_json::from_str(rest.as_json()).expect("an object");
        assert_eq!(read.as_json(), rest.as_json());
    }
}

proptest! {
    #[test]
    fn an_unread_payload_is_left_unchanged(value in json(), spaced in any::<bool>()) {
        let object = Value::Object(Map::from_iter([("\n\u{1f600}".to_owned(), value)]));
        let text = if spaced { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
        let text = text.expect("JSON");
        let (rest, _) = Payload::parse(text.as_bytes()).expect("JSON").into_rest();
        prop_assert_eq!(Value::Object(rest.fields().expect("fields")), object);
    }

    #[test]
    fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = without_lone_surrogates(&body);
        if let Ok(payload) = Payload::parse(&body) {
            let root = payload.root();
            let _ = (root.text("a"), root.id("b"), root.amount("c"), root.time("d"), root.objects("e").map(|list| list.len()));
            let _ = payload.into_rest();
        }
    }

    #[test]
    fn every_field_is_taken_or_left(names in proptest::collection::btree_set("[a-z~/]{1,4}", 1..8), take in any::<u8>()) {
        let object: Map<String, Value> = names.iter().map(|name| (name.clone(), json!(name))).collect();
        let payload = payload(&Value::Object(object));
        let taken: Vec<_> = names.iter().enumerate().filter(|(index, _)| take >> index & 1 == 1).map(|(_, name)| name).collect();
        for name in &taken {
            let text = payload.root().text(name);
            prop_assert_eq!(text.as_ref(), Some(*name));
        }
        let rest = payload.into_rest().0.fields().expect("fields");
        for name in &names {
            prop_assert_ne!(rest.contains_key(name), taken.contains(&name));
        }
    }
}

/// Any JSON, including numbers of any length.
fn json() -> impl Strategy<Value = Value> {
    let number = "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        number.prop_map(|number| Value::Number(number.parse().expect("a number"))),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}
