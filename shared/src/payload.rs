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
mod tests;
