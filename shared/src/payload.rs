//! Reading a provider's payload: leniently, and knowing at the end what was not read.
//!
//! A field is *taken* when the mapping reads it and it has the documented type. What was not taken is the event's
//! `unmapped`. A field that was asked for and has another type is not taken, reads as absent and is named in the
//! event's `warnings`: one odd field never costs an order. `null` and `""` count as absent.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use crate::money::{Amount, Currency, Quantity};

/// A parsed payload, and the record of what was read from it.
pub struct Payload {
    // Boxed, because marks go by address: the tree is never changed or moved while it is read.
    root: Box<Value>,
    marks: RefCell<Marks>,
    warnings: RefCell<BTreeSet<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// The whole value found its place in the event.
    Taken,
    /// The value is an object or a list whose parts are read one by one.
    Opened,
}

/// What was read, by its address.
type Marks = HashMap<usize, Mark, BuildHasherDefault<AddressHasher>>;

/// Nobody outside chooses addresses, so they need no more than to be spread.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("an address is one number")
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

/// The body is not JSON, or none that can be handled.
#[derive(Debug, thiserror::Error)]
pub enum NotJson {
    /// It is not JSON in UTF-8, or nested so deeply that it is not read to its end.
    #[error("the body is not JSON (line {line}, column {column})")]
    Malformed {
        /// Where, counted from 1.
        line: usize,
        /// Where in the line, counted from 1.
        column: usize,
    },
    /// It holds more than a function's memory does once it is read.
    #[error("the body holds more than {MOST_OBJECTS} objects or {MOST_VALUES} values")]
    TooDense,
    /// It is nested too deeply.
    #[error("the body is nested deeper than {DEPTH} levels")]
    TooDeep,
}

/// Ten times what the largest real order holds, and what 256 MiB of memory do: a small value takes many times its text.
const MOST_OBJECTS: usize = 120_000;
const MOST_VALUES: usize = 600_000;

/// What is left of a payload stands two levels deeper in the event, which must be read back: a JSON reader takes 127.
const DEPTH: usize = 120;

impl Payload {
    /// Parses a body.
    ///
    /// # Errors
    /// Where the body is not JSON in UTF-8, nested deeper than 120 levels, or made of more parts than memory holds. The error holds none of the body's text.
    pub fn parse(body: &[u8]) -> Result<Self, NotJson> {
        if is_too_dense(body) {
            return Err(NotJson::TooDense);
        }
        let root = serde_json::from_slice(body).or_else(|error| {
            // A text cut in the middle of an emoji is no reason to lose the order it belongs to.
            let mended = without_lone_surrogates(body);
            mended
                .and_then(|body| serde_json::from_slice(&body).ok())
                .ok_or(NotJson::Malformed {
                    line: error.line(),
                    column: error.column(),
                })
        })?;
        if is_deeper(&root, DEPTH) {
            return Err(NotJson::TooDeep);
        }
        Ok(Self {
            root: Box::new(root),
            marks: RefCell::default(),
            warnings: RefCell::default(),
        })
    }

    /// The outermost object. Where the body is JSON but no object, it has no fields.
    pub fn root(&self) -> Fields<'_> {
        Fields {
            payload: self,
            object: self.open(&self.root),
            pointer: String::new(),
        }
    }

    /// Forgets what was read so far: to find out what a payload is takes nothing from it.
    pub(crate) fn forget_reads(&self) {
        self.marks.borrow_mut().clear();
        self.warnings.borrow_mut().clear();
    }

    /// Everything that was not taken, at its own place; and JSON pointers to the fields that were not as documented.
    pub fn into_rest(mut self) -> (Map<String, Value>, Vec<String>) {
        let rest = match rest_of(&mut self.root, self.marks.get_mut()) {
            Some(Value::Object(rest)) => rest,
            _ => Map::new(),
        };
        (rest, self.warnings.into_inner().into_iter().collect())
    }

    fn open<'p>(&self, value: &'p Value) -> Option<&'p Map<String, Value>> {
        let object = value.as_object()?;
        self.mark(value, Mark::Opened);
        Some(object)
    }

    fn mark(&self, value: &Value, mark: Mark) {
        self.marks.borrow_mut().insert(address(value), mark);
    }
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value).addr()
}

/// What of a value was not taken. It is moved out: an unmapped text may be most of the payload.
fn rest_of(value: &mut Value, marks: &Marks) -> Option<Value> {
    match (marks.get(&address(value)), value) {
        (Some(Mark::Taken), _) => None,
        (Some(Mark::Opened), Value::Object(fields)) => {
            let rest: Map<_, _> = fields
                .iter_mut()
                .filter_map(|(name, value)| Some((name.clone(), rest_of(value, marks)?)))
                .collect();
            (!rest.is_empty()).then_some(Value::Object(rest))
        }
        (Some(Mark::Opened), Value::Array(elements)) => {
            let rests: Vec<_> = elements.iter_mut().map(|element| rest_of(element, marks)).collect();
            // An element that was read whole leaves `{}`, so that the others keep their places.
            rests.iter().any(Option::is_some).then(|| {
                rests
                    .into_iter()
                    .map(|rest| rest.unwrap_or_else(|| Map::new().into()))
                    .collect()
            })
        }
        (_, value) => Some(value.take()),
    }
}

/// The fields of one object of the payload. An object that is not there has no fields.
pub struct Fields<'p> {
    payload: &'p Payload,
    object: Option<&'p Map<String, Value>>,
    pointer: String,
}

impl<'p> Fields<'p> {
    /// Whether the object is there.
    pub fn exist(&self) -> bool {
        self.object.is_some()
    }

    /// Text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.read(name, |value| value.as_str().map(str::to_owned))
    }

    /// A key, a code or a number that people see: text, or an integer as text.
    pub fn id(&self, name: &str) -> Option<String> {
        self.read(name, id_of)
    }

    /// A value of any scalar type, as text.
    pub fn scalar(&self, name: &str) -> Option<String> {
        self.read(name, |value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            _ => None,
        })
    }

    /// A truth value.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.read(name, Value::as_bool)
    }

    /// An amount in the currency's main unit.
    pub fn amount(&self, name: &str) -> Option<Amount> {
        self.read(name, Amount::from_json)
    }

    /// An amount in the smallest unit of `currency`. Without a currency it cannot be told, and stays where it is.
    pub fn minor_units(&self, name: &str, currency: Option<Currency>) -> Option<Amount> {
        let currency = currency?;
        self.read(name, |value| Amount::from_minor_units(value, currency))
    }

    /// An amount in the currency's main unit. One that equals `nothing` says that there is none, and stays where it is.
    pub fn amount_unless(&self, name: &str, nothing: Amount) -> Option<Amount> {
        let amount = self.look(name, Amount::from_json).filter(|amount| *amount != nothing)?;
        self.take(name);
        Some(amount)
    }

    /// A rate as a fraction of one, read as percent.
    pub fn fraction(&self, name: &str) -> Option<Amount> {
        self.read(name, |value| Amount::from_json(value)?.fraction_as_percent())
    }

    /// A quantity.
    pub fn quantity(&self, name: &str) -> Option<Quantity> {
        self.read(name, Quantity::from_json)
    }

    /// A currency code, in any case.
    pub fn currency(&self, name: &str) -> Option<Currency> {
        self.read(name, |value| Currency::parse(value.as_str()?))
    }

    /// A country code of two letters, in any case.
    pub fn country(&self, name: &str) -> Option<String> {
        self.read(name, |value| {
            let code = value.as_str()?;
            (code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphabetic())).then(|| code.to_ascii_uppercase())
        })
    }

    /// A time with its offset from UTC.
    pub fn time(&self, name: &str) -> Option<Timestamp> {
        self.read(name, |value| value.as_str()?.parse().ok())
    }

    /// A time that says no zone, in `zone`. A time that names its offset is read by that.
    pub fn time_in(&self, name: &str, zone: &TimeZone) -> Option<Timestamp> {
        self.read(name, |value| {
            let text = value.as_str()?;
            text.parse().ok().or_else(|| {
                let civil: DateTime = text.parse().ok()?;
                zone.to_timestamp(civil).ok()
            })
        })
    }

    /// The object in a field. `[]` is an absent one: PHP writes an empty map so.
    pub fn object(&self, name: &str) -> Fields<'p> {
        let absent = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        let object = match self.get(name) {
            Some(value) if absent(value) => {
                self.payload.mark(value, Mark::Taken);
                None
            }
            Some(value) => self.payload.open(value).or_else(|| {
                self.warn(name);
                None
            }),
            None => None,
        };
        Fields {
            payload: self.payload,
            object,
            pointer: self.pointer_to(name),
        }
    }

    /// The objects of a list; `None` where there is no list. An element that is no object is left out and warned of.
    pub fn objects(&self, name: &str) -> Option<Vec<Fields<'p>>> {
        let value = self.get(name)?;
        let Some(elements) = value.as_array() else {
            self.warn(name);
            return None;
        };
        self.payload.mark(value, Mark::Opened);
        let list = Fields {
            payload: self.payload,
            object: None,
            pointer: self.pointer_to(name),
        };
        let open = |(index, element): (usize, &'p Value)| {
            let object = self.payload.open(element);
            if object.is_none() {
                list.warn(&index.to_string());
            }
            object.map(|_| Fields {
                payload: self.payload,
                object,
                pointer: list.pointer_to(&index.to_string()),
            })
        };
        Some(elements.iter().enumerate().filter_map(open).collect())
    }

    /// What `objects` or `text` would find, without taking it: to decide which of two fields to read.
    pub fn has(&self, name: &str) -> bool {
        self.object
            .and_then(|object| object.get(name))
            .is_some_and(|value| !is_absent(value))
    }

    /// Takes a field if `convert` understands it.
    pub fn read<T>(&self, name: &str, convert: impl FnOnce(&'p Value) -> Option<T>) -> Option<T> {
        let converted = self.look(name, convert)?;
        self.take(name);
        Some(converted)
    }

    /// Takes a field whose place in the event was found by other means.
    pub fn take(&self, name: &str) {
        if let Some(value) = self.object.and_then(|object| object.get(name)) {
            self.payload.mark(value, Mark::Taken);
        }
    }

    /// Reads a field as [`read`](Self::read) does, and leaves it where it is.
    pub fn look<T>(&self, name: &str, convert: impl FnOnce(&'p Value) -> Option<T>) -> Option<T> {
        let converted = convert(self.get(name)?);
        if converted.is_none() {
            self.warn(name);
        }
        converted
    }

    /// The field's value, if it is not absent; an absent one is taken, since null says all of it.
    fn get(&self, name: &str) -> Option<&'p Value> {
        let value = self.object?.get(name)?;
        if is_absent(value) {
            self.payload.mark(value, Mark::Taken);
            return None;
        }
        Some(value)
    }

    fn warn(&self, name: &str) {
        self.payload.warnings.borrow_mut().insert(self.pointer_to(name));
    }

    fn pointer_to(&self, name: &str) -> String {
        format!("{}/{}", self.pointer, name.replace('~', "~0").replace('/', "~1"))
    }
}

/// Counted without reading: a separator within a text counts too.
fn is_too_dense(body: &[u8]) -> bool {
    let (mut objects, mut values) = (0, 0);
    for byte in body {
        objects += usize::from(*byte == b'{');
        values += usize::from(matches!(byte, b'{' | b'[' | b','));
    }
    objects > MOST_OBJECTS || values > MOST_VALUES
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(elements) => levels == 0 || elements.iter().any(|element| is_deeper(element, levels - 1)),
        Value::Object(fields) => levels == 0 || fields.values().any(|field| is_deeper(field, levels - 1)),
        _ => false,
    }
}

/// The body with `\ufffd` for each escaped half of a surrogate pair; `None` where there is no such half.
fn without_lone_surrogates(body: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| -> Option<u16> {
        let digits = body.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut mended = Vec::with_capacity(body.len());
    let mut found = false;
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        let (taken, put): (usize, &[u8]) = match (byte, unit(at)) {
            (b'\\', Some(0xd800..=0xdbff)) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => (12, &body[at..at + 12]),
            (b'\\', Some(0xd800..=0xdfff)) => (6, b"\\ufffd"),
            // Whatever is escaped, an escaped backslash above all, begins no escape of its own.
            (b'\\', _) => (2, body.get(at..at + 2).unwrap_or(&body[at..])),
            _ => (1, &body[at..=at]),
        };
        found |= taken == 6;
        mended.extend_from_slice(put);
        at += taken;
    }
    found.then_some(mended)
}

fn is_absent(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

fn id_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if is_whole(number.as_str()) => Some(number.to_string()),
        _ => None,
    }
}

fn is_whole(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn payload(value: &Value) -> Payload {
        Payload::parse(value.to_string().as_bytes()).expect("JSON")
    }

    #[test]
    fn what_is_not_taken_stays_at_its_own_place() {
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
        assert_eq!(Value::Object(rest), expected);
        assert!(warnings.is_empty());
    }

    #[test]
    fn a_key_is_text_or_any_integer() {
        for (key, read) in [
            (json!("A-7"), Some("A-7")),
            (json!(7), Some("7")),
            (json!(-7), Some("-7")),
            (json!(7.5), None),
        ] {
            assert_eq!(payload(&json!({"id": key})).root().id("id").as_deref(), read);
        }
    }

    #[test]
    fn an_odd_field_is_absent_warned_of_and_kept() {
        let payload = payload(&json!({"a/b": [1], "address": "x", "items": ["y", {"sku": 1.5}], "ok": "z"}));
        let order = payload.root();
        assert_eq!(order.text("a/b"), None);
        assert_eq!(order.object("address").text("city"), None);
        let items = order.objects("items").expect("a list");
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].id("sku"), None);
        assert_eq!(order.text("ok").as_deref(), Some("z"));
        let (rest, warnings) = payload.into_rest();
        assert_eq!(
            Value::Object(rest),
            json!({"a/b": [1], "address": "x", "items": ["y", {"sku": 1.5}]})
        );
        assert_eq!(warnings, ["/address", "/a~1b", "/items/0", "/items/1/sku"]);
    }

    #[test]
    fn an_empty_php_array_is_an_absent_object() {
        let payload = payload(&json!({"tax": [], "message": [1]}));
        assert!(!payload.root().object("tax").exist());
        assert!(!payload.root().object("message").exist());
        let (rest, warnings) = payload.into_rest();
        assert_eq!(Value::Object(rest), json!({"message": [1]}));
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
            root.time_in("summer", &kyiv).expect("a time").to_string(),
            "2016-07-05T12:46:40Z"
        );
    }

    #[test]
    fn numbers_stay_exact_in_what_is_left() {
        let payload = Payload::parse(br#"{"big":12345678901234567890.10,"id":99999999999999999999}"#).expect("JSON");
        assert_eq!(payload.root().id("id").as_deref(), Some("99999999999999999999"));
        let (rest, _) = payload.into_rest();
        assert_eq!(Value::Object(rest).to_string(), r#"{"big":12345678901234567890.10}"#);
    }

    #[test]
    fn a_payload_is_nested_no_deeper_than_its_event_can_be_read_back() {
        let nested =
            |levels: usize| Payload::parse(format!("{}1{}", "[".repeat(levels), "]".repeat(levels)).as_bytes());
        assert!(nested(120).is_ok());
        assert!(matches!(nested(121), Err(NotJson::TooDeep)));
        assert!(matches!(nested(100_000), Err(NotJson::Malformed { .. })));
    }

    #[test]
    fn a_body_that_would_not_fit_into_memory_is_not_read() {
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
    fn the_error_for_a_broken_body_holds_none_of_it() {
        let error = Payload::parse(br#"{"secret": tru"#)
            .err()
            .expect("not JSON")
            .to_string();
        assert!(!error.contains("secret") && error.contains("line 1"), "{error}");
    }

    proptest! {
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
            let (rest, _) = payload.into_rest();
            for name in &names {
                prop_assert_ne!(rest.contains_key(name), taken.contains(&name));
            }
        }
    }
}
