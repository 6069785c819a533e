//! Reading a provider's payload: leniently, and knowing at the end what was not read.
//!
//! A field is *taken* when the mapping reads it and it has the documented type. What was not taken is the event's
//! `unmapped`. A field that was asked for and has another type is not taken, reads as absent and is named in the
//! event's `warnings`: one odd field never costs an order. `null` and `""` count as absent.
//!
//! Providers that write JSON by looking at a value (PHP's `JSON_NUMERIC_CHECK`) send a text of digits as a number: a phone
//! number, a name, a coupon code. So wherever text is expected, a number is read as its digits.

mod text;
mod tree;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::drift::{Agreeing, Drifts, Known};
use crate::event::Unmapped;
use crate::money::{Amount, Currency, Quantity};
use tree::Tree;
pub use tree::Value;

/// A parsed payload, and the record of what was read from it.
pub struct Payload<'b> {
    tree: Tree<'b>,
    warnings: RefCell<BTreeSet<String>>,
    /// Fields that are as documented and are not used.
    unused: RefCell<BTreeSet<String>>,
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
    /// There is nothing in it.
    #[error("the body is empty")]
    Empty,
    /// It begins as gzip does, and is not gzip to its end.
    #[error("the body is gzip that cannot be unpacked")]
    CorruptGzip,
    /// It is gzip of more than may be read.
    #[error("the body unpacks to more than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
}

impl NotJson {
    fn malformed_behind(read: &[u8]) -> Self {
        let last_line = read.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        Self::Malformed {
            line: read.split(|byte| *byte == b'\n').count(),
            column: last_line.len() + 1,
        }
    }
}

/// Ten times what the largest real order holds, and what 256 MiB of memory do: a small item becomes many times its text in the event.
const MOST_OBJECTS: usize = 120_000;
const MOST_VALUES: usize = 600_000;

/// What is left of a payload stands two levels deeper in the event, which must be read back: a JSON reader takes 127.
const DEPTH: usize = 120;

impl<'b> Payload<'b> {
    /// Reads a body as it was received: JSON in UTF-8, which may be compressed with gzip or begin with a byte order mark. UTF-16 is
    /// read if it begins with one.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and where gzip cannot be unpacked or unpacks to more than `limit` bytes.
    pub fn unwrap_and_parse(body: &'b [u8], limit: usize) -> Result<Self, NotJson> {
        Self::parse(text::unwrapped(body, limit)?)
    }

    /// Parses JSON in UTF-8.
    ///
    /// # Errors
    /// Where the text is empty, is not JSON in UTF-8, is nested deeper than 120 levels, or is made of more parts than memory holds.
    /// The error holds none of the text.
    pub fn parse(text: impl Into<Cow<'b, [u8]>>) -> Result<Self, NotJson> {
        let bytes = text.into();
        if bytes.trim_ascii().is_empty() {
            return Err(NotJson::Empty);
        }
        let values = values_at_most(&bytes).ok_or(NotJson::TooDense)?;
        let text: Cow<'b, str> = match bytes {
            Cow::Borrowed(bytes) => str::from_utf8(bytes)
                .map_err(|error| NotJson::malformed_behind(&bytes[..error.valid_up_to()]))?
                .into(),
            Cow::Owned(bytes) => String::from_utf8(bytes)
                .map_err(|error| NotJson::malformed_behind(&error.as_bytes()[..error.utf8_error().valid_up_to()]))?
                .into(),
        };
        let tree = Tree::parse(text.clone(), values).or_else(|error| {
            // A text cut in the middle of an emoji is no reason to lose the order it belongs to.
            let mended = without_lone_surrogates(text.as_bytes()).and_then(|mended| String::from_utf8(mended).ok());
            mended
                .and_then(|text| Tree::parse(text.into(), values).ok())
                .ok_or(NotJson::Malformed {
                    line: error.line(),
                    column: error.column(),
                })
        })?;
        if tree.depth() > DEPTH {
            return Err(NotJson::TooDeep);
        }
        Ok(Self {
            tree,
            warnings: RefCell::default(),
            unused: RefCell::default(),
        })
    }

    /// The outermost object. Where the body is JSON but no object, it has no fields.
    pub fn root(&self) -> Fields<'_> {
        Fields {
            payload: self,
            object: open(self.tree.root()),
            pointer: String::new(),
        }
    }

    /// Forgets what was read so far: to find out what a payload is takes nothing from it.
    pub(crate) fn forget_reads(&self) {
        self.tree.forget_reads();
        self.warnings.borrow_mut().clear();
        self.unused.borrow_mut().clear();
    }

    /// Adds to `found` the fields that were not as documented, and those that were not taken and are not known to stay in `unmapped`.
    ///
    /// The first are added even if they are known to stay there: a field that stays for one of its values may be mapped for others.
    pub(crate) fn drift(&self, known: &Known, found: &mut Drifts) {
        let root = self.tree.root();
        for pointer in &*self.warnings.borrow() {
            root.drift_at(pointer, found);
        }
        if root.settle() && root.is_object() {
            root.drift(&Agreeing::root(known), &mut String::new(), found);
        }
    }

    /// Everything that was not taken, at its own place; and JSON pointers to the fields that were not as documented.
    pub fn into_rest(self) -> (Unmapped, Vec<String>) {
        let root = self.tree.root();
        let rest = if root.settle() && root.is_object() {
            Unmapped::of(&root)
        } else {
            Unmapped::default()
        };
        let mut warnings = self.warnings.into_inner();
        warnings.extend(self.unused.into_inner());
        (rest, warnings.into_iter().collect())
    }
}

fn open(value: Value<'_>) -> Option<Value<'_>> {
    value.is_object().then(|| {
        value.open();
        value
    })
}

/// An element of a list.
pub enum Element<'p> {
    /// An object.
    Object(Fields<'p>),
    /// Anything else.
    Other(Value<'p>),
}

/// How the zone of a time is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// The time names its offset from UTC.
    Stated,
    /// The time names none, and was read in the zone that the caller gave.
    Assumed,
}

/// The fields of one object of the payload. An object that is not there has no fields.
pub struct Fields<'p> {
    payload: &'p Payload<'p>,
    object: Option<Value<'p>>,
    pointer: String,
}

impl<'p> Fields<'p> {
    /// Whether the object is there.
    pub fn exist(&self) -> bool {
        self.object.is_some()
    }

    /// Text, or a number as the digits that it came in.
    pub fn text(&self, name: &str) -> Option<String> {
        self.read(name, |value| value.as_text().map(str::to_owned))
    }

    /// A key, a code or a number that people see. Providers write these as text or as a number; both are read as [`text`](Self::text) reads them.
    pub fn id(&self, name: &str) -> Option<String> {
        self.text(name)
    }

    /// A value of any scalar type, as text.
    pub fn scalar(&self, name: &str) -> Option<String> {
        self.read(name, |value| value.as_scalar().map(Cow::into_owned))
    }

    /// A truth value, also as 1 or 0, in a number or a text.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.read(name, Value::as_flag)
    }

    /// An amount in the currency's main unit, of either sign.
    pub fn amount(&self, name: &str) -> Option<Amount> {
        self.read(name, Value::as_amount)
    }

    /// A price, a fee or a sum in the currency's main unit, which is never below zero.
    ///
    /// Providers write a negative number where they mean something else: "by the carrier's tariff", "paid on delivery". It is
    /// no amount, so it reads as absent and stays where it is.
    pub fn price(&self, name: &str) -> Option<Amount> {
        self.price_by(name, Value::as_amount)
    }

    /// A price, as [`price`](Self::price) reads it, in the smallest unit of `currency`. Without a currency it cannot be told, and
    /// stays where it is.
    pub fn minor_units(&self, name: &str, currency: Option<Currency>) -> Option<Amount> {
        let currency = currency?;
        self.price_by(name, |value| Amount::of_minor_units(value.as_amount()?, currency))
    }

    fn price_by(&self, name: &str, convert: impl FnOnce(Value<'p>) -> Option<Amount>) -> Option<Amount> {
        let value = self.get(name)?;
        let price = self.convert(name, value, convert)?;
        if price < Amount::ZERO {
            return None;
        }
        value.take();
        Some(price)
    }

    /// A rate as a fraction of one, read as percent.
    pub fn fraction(&self, name: &str) -> Option<Amount> {
        self.read(name, |value| value.as_amount()?.fraction_as_percent())
    }

    /// A quantity, which is never below zero. No provider documents a meaning for a negative one, so it reads as a field of
    /// another type does.
    pub fn quantity(&self, name: &str) -> Option<Quantity> {
        self.read(name, |value| {
            let amount = value.as_amount().filter(|amount| *amount >= Amount::ZERO);
            amount.map(Quantity::from)
        })
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
        self.zoned_time_in(name, zone).map(|(time, _)| time)
    }

    /// The same, and whether the time names its offset or is read in `zone`.
    pub fn zoned_time_in(&self, name: &str, zone: &TimeZone) -> Option<(Timestamp, Zone)> {
        self.read(name, |value| {
            let text = value.as_str()?;
            let stated = text.parse().ok().map(|time| (time, Zone::Stated));
            stated.or_else(|| {
                let civil: DateTime = text.parse().ok()?;
                Some((zone.to_timestamp(civil).ok()?, Zone::Assumed))
            })
        })
    }

    /// The object in a field. `[]` is an absent one: PHP writes an empty map so.
    pub fn object(&self, name: &str) -> Fields<'p> {
        let is_empty = |value: Value<'p>| value.elements().is_some_and(|mut elements| elements.next().is_none());
        let object = match self.get(name) {
            Some(value) if is_empty(value) => {
                value.take();
                None
            }
            Some(value) => open(value).or_else(|| {
                self.warn(name);
                None
            }),
            None => None,
        };
        Fields {
            payload: self.payload,
            object,
            // Nothing is warned of in an object that is not there.
            pointer: object.map(|_| self.pointer_to(name)).unwrap_or_default(),
        }
    }

    /// The objects of a list; `None` where there is no list, or one that holds no object although it holds something: an empty list would
    /// say that there is nothing. An element that is no object is left out and warned of.
    pub fn objects(&self, name: &str) -> Option<Vec<Fields<'p>>> {
        self.list(name, |element| match element {
            Element::Object(fields) => Some(fields),
            Element::Other(_) => None,
        })
    }

    /// The elements of a list that `convert` understands, as [`objects`](Self::objects) reads them. An element that is no object is taken
    /// if it is understood.
    pub fn list<T>(&self, name: &str, mut convert: impl FnMut(Element<'p>) -> Option<T>) -> Option<Vec<T>> {
        let value = self.get(name)?;
        let Some(elements) = value.elements() else {
            self.warn(name);
            return None;
        };
        value.open();
        let list = Fields {
            payload: self.payload,
            object: None,
            pointer: self.pointer_to(name),
        };
        let mut is_empty = true;
        let mut converted = Vec::new();
        for (index, element) in elements.enumerate() {
            is_empty = false;
            let read = match open(element) {
                None => convert(Element::Other(element)).inspect(|_| element.take()),
                object => convert(Element::Object(Fields {
                    payload: self.payload,
                    object,
                    pointer: list.pointer_to(&index.to_string()),
                })),
            };
            match read {
                Some(read) => converted.push(read),
                None => list.warn(&index.to_string()),
            }
        }
        (is_empty || !converted.is_empty()).then_some(converted)
    }

    /// What `objects` or `text` would find, without taking it: to decide which of two fields to read.
    pub fn has(&self, name: &str) -> bool {
        self.peek(name).is_some()
    }

    /// Warns of a field whose value is as documented and cannot be used here.
    pub fn warn_unused(&self, name: &str) {
        self.payload.unused.borrow_mut().insert(self.pointer_to(name));
    }

    /// Takes a field if `convert` understands it.
    pub fn read<T>(&self, name: &str, convert: impl FnOnce(Value<'p>) -> Option<T>) -> Option<T> {
        let value = self.get(name)?;
        let converted = self.convert(name, value, convert)?;
        value.take();
        Some(converted)
    }

    /// The fields that hold a text, a number or a truth value, each with its value as text; takes them. Lists and objects
    /// are not taken.
    pub fn scalars(&self) -> Vec<(String, String)> {
        let fields = self.object.map(Value::fields).unwrap_or_default();
        let scalar = |(name, value): (&str, Value<'p>)| {
            if value.is_absent() {
                value.take();
                return None;
            }
            let text = value.as_scalar()?;
            value.take();
            Some((name.to_owned(), text.into_owned()))
        };
        fields.into_iter().filter_map(scalar).collect()
    }

    /// Whether a field holds a list.
    pub(crate) fn has_list(&self, name: &str) -> bool {
        self.field(name).is_some_and(Value::is_list)
    }

    /// A field's value, without taking it and without a warning: to decide how to read it. An absent value is `None`.
    pub fn peek(&self, name: &str) -> Option<Value<'p>> {
        self.field(name).filter(|value| !value.is_absent())
    }

    /// Takes a field whose place in the event was found by other means.
    pub fn take(&self, name: &str) {
        if let Some(value) = self.field(name) {
            value.take();
        }
    }

    /// Reads a field as [`read`](Self::read) does, and leaves it where it is.
    pub fn look<T>(&self, name: &str, convert: impl FnOnce(Value<'p>) -> Option<T>) -> Option<T> {
        self.convert(name, self.get(name)?, convert)
    }

    fn convert<T>(&self, name: &str, value: Value<'p>, convert: impl FnOnce(Value<'p>) -> Option<T>) -> Option<T> {
        let converted = convert(value);
        if converted.is_none() {
            self.warn(name);
        }
        converted
    }

    /// The field's value, if it is not absent; an absent one is taken, since null says all of it.
    fn get(&self, name: &str) -> Option<Value<'p>> {
        let value = self.field(name)?;
        if value.is_absent() {
            value.take();
            return None;
        }
        Some(value)
    }

    fn field(&self, name: &str) -> Option<Value<'p>> {
        self.object?.field(name)
    }

    fn warn(&self, name: &str) {
        self.payload.warnings.borrow_mut().insert(self.pointer_to(name));
    }

    fn pointer_to(&self, name: &str) -> String {
        format!("{}/{}", self.pointer, name.replace('~', "~0").replace('/', "~1"))
    }
}

/// How many values a body holds at most, counted without reading: a separator within a text counts too. `None` where memory does
/// not hold them.
fn values_at_most(body: &[u8]) -> Option<usize> {
    let (mut objects, mut values) = (0, 1);
    for byte in body {
        objects += usize::from(*byte == b'{');
        values += usize::from(matches!(byte, b'{' | b'[' | b','));
    }
    (objects <= MOST_OBJECTS && values <= MOST_VALUES).then_some(values)
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

#[cfg(test)]
mod tests;
