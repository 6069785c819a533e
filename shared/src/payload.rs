//! Reads a provider's payload leniently, and records which fields were not read.
//!
//! A field is *taken* when the mapping reads it and it has the documented type. The fields that are not taken become
//! the event's `unmapped`. A field that the mapping reads but that has another type is not taken, counts as absent and
//! is named in the event's `warnings`, so that a malformed field never costs an order. `null` and `""` count as absent.
//!
//! Providers whose JSON writer infers types (PHP's `JSON_NUMERIC_CHECK`) send a text of digits as a number: a phone
//! number, a name, a coupon code. So a number is read as its digits wherever text is expected.

mod text;
mod tree;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::drift::{Drifts, Known, Matching};
use crate::event::Unmapped;
use crate::money::{Amount, Currency, Quantity};
use tree::Tree;
pub use tree::Value;

/// A parsed payload, and a record of the fields that were read.
pub struct Payload<'b> {
    tree: Tree<'b>,
    warnings: RefCell<BTreeSet<String>>,
    /// Fields that are as documented and cannot be used.
    unused: RefCell<BTreeSet<String>>,
}

/// The body is not JSON that can be handled.
#[derive(Debug, thiserror::Error)]
pub enum NotJson {
    /// The body is not JSON in UTF-8, or is nested so deeply that it is not read to its end.
    #[error("the body is not JSON (line {line}, column {column})")]
    Malformed {
        /// The line of the error, counted from 1.
        line: usize,
        /// The column of the error, counted from 1.
        column: usize,
    },
    /// The body has more values than fit into a function's memory.
    #[error("the body has more than {MOST_OBJECTS} objects or {MOST_VALUES} values")]
    TooDense,
    /// The body is nested too deeply.
    #[error("the body is nested deeper than {DEPTH} levels")]
    TooDeep,
    /// The body is empty.
    #[error("the body is empty")]
    Empty,
    /// The body begins like gzip and cannot be unpacked.
    #[error("the body is gzip that cannot be unpacked")]
    CorruptGzip,
    /// The body is gzip and unpacks to more than the limit.
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

/// Limits of ten times the largest real order, which fit into 256 MiB of memory: in the event, a small item becomes
/// many times its text.
const MOST_OBJECTS: usize = 120_000;
const MOST_VALUES: usize = 600_000;

/// The deepest nesting. In the event, the rest of a payload is nested two levels deeper, and JSON readers accept 127
/// levels.
const DEPTH: usize = 120;

impl<'b> Payload<'b> {
    /// Parses a body as it was received: JSON in UTF-8, which may be compressed with gzip or begin with a byte order
    /// mark. UTF-16 is accepted if it begins with one.
    ///
    /// # Errors
    /// The errors of [`parse`](Self::parse), and gzip that cannot be unpacked or unpacks to more than `limit` bytes.
    pub fn unwrap_and_parse(body: &'b [u8], limit: usize) -> Result<Self, NotJson> {
        Self::parse(text::unwrapped(body, limit)?)
    }

    /// Parses JSON in UTF-8.
    ///
    /// # Errors
    /// If the text is empty, is not JSON in UTF-8, is nested deeper than 120 levels, or has too many values for the
    /// memory. The error contains nothing of the text.
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
            // A text that was cut in the middle of an emoji must not cost the order.
            let repaired = without_lone_surrogates(text.as_bytes());
            repaired
                .and_then(|repaired| String::from_utf8(repaired).ok())
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

    /// The outermost object. If the body is JSON but not an object, it has no fields.
    pub fn root(&self) -> Fields<'_> {
        Fields {
            payload: self,
            object: open(self.tree.root()),
            pointer: String::new(),
        }
    }

    /// Discards the record of the fields that were read so far, because identifying an event must not take any field.
    pub(crate) fn forget_reads(&self) {
        self.tree.forget_reads();
        self.warnings.borrow_mut().clear();
        self.unused.borrow_mut().clear();
    }

    /// Adds to `found` the fields that were not as documented, and those that were not taken and are not known to stay
    /// in `unmapped`.
    ///
    /// Fields that were not as documented are added even if they are known to stay there, because a field may stay for
    /// some values and be mapped for others.
    pub(crate) fn drift(&self, known: &Known, found: &mut Drifts) {
        let root = self.tree.root();
        for pointer in &*self.warnings.borrow() {
            root.drift_at(pointer, found);
        }
        if root.settle() && root.is_object() {
            root.drift(&Matching::root(known), &mut String::new(), found);
        }
    }

    /// Returns everything that was not taken, at its own place, and JSON pointers to the fields that were not as
    /// documented.
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
    /// Any other value.
    Other(Value<'p>),
}

/// The origin of a time's zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// The time states its offset from UTC.
    Stated,
    /// The time states no offset, and was read in the zone that the caller gave.
    Assumed,
}

/// The fields of one object of the payload. A missing object has no fields.
pub struct Fields<'p> {
    payload: &'p Payload<'p>,
    object: Option<Value<'p>>,
    pointer: String,
}

impl<'p> Fields<'p> {
    /// Whether the object exists.
    pub fn exist(&self) -> bool {
        self.object.is_some()
    }

    /// Reads text, or the digits of a number.
    pub fn text(&self, name: &str) -> Option<String> {
        self.read(name, |value| value.as_text().map(str::to_owned))
    }

    /// Reads a key, a code or a number that people see. Providers write these as text or as a number, and both are read
    /// as by [`text`](Self::text).
    pub fn id(&self, name: &str) -> Option<String> {
        self.text(name)
    }

    /// Reads a value of any scalar type as text.
    pub fn scalar(&self, name: &str) -> Option<String> {
        self.read(name, |value| value.as_scalar().map(Cow::into_owned))
    }

    /// Reads a truth value, which may also be 1 or 0, as a number or a text.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.read(name, Value::as_flag)
    }

    /// Reads an amount in the currency's main unit, of either sign.
    pub fn amount(&self, name: &str) -> Option<Amount> {
        self.read(name, Value::as_amount)
    }

    /// Reads a price, a fee or a total in the currency's main unit, which is never negative.
    ///
    /// Providers write a negative number with another meaning: "by the carrier's tariff", "paid on delivery". Such a
    /// number is not an amount, so it counts as absent and is not taken.
    pub fn price(&self, name: &str) -> Option<Amount> {
        self.price_by(name, Value::as_amount)
    }

    /// Reads a price in the smallest unit of `currency`, with the rules of [`price`](Self::price). Without a currency
    /// the value is unknown and is not taken.
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

    /// Reads a fraction of one as percent.
    pub fn fraction(&self, name: &str) -> Option<Amount> {
        self.read(name, |value| value.as_amount()?.fraction_as_percent())
    }

    /// Reads a quantity, which is never below zero. No provider documents a meaning for a negative quantity, so it is
    /// treated like a value of another type: it stays in the payload, with a warning.
    pub fn quantity(&self, name: &str) -> Option<Quantity> {
        self.read(name, |value| {
            let amount = value.as_amount().filter(|amount| *amount >= Amount::ZERO);
            amount.map(Quantity::from)
        })
    }

    /// Reads a currency code in any case.
    pub fn currency(&self, name: &str) -> Option<Currency> {
        self.read(name, |value| Currency::parse(value.as_str()?))
    }

    /// Reads a country code of two letters in any case.
    pub fn country(&self, name: &str) -> Option<String> {
        self.read(name, |value| {
            let code = value.as_str()?;
            (code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphabetic())).then(|| code.to_ascii_uppercase())
        })
    }

    /// Reads a time that states its offset from UTC.
    pub fn time(&self, name: &str) -> Option<Timestamp> {
        self.read(name, |value| value.as_str()?.parse().ok())
    }

    /// Reads a time in `zone`, unless the time states its own offset.
    pub fn time_in(&self, name: &str, zone: &TimeZone) -> Option<Timestamp> {
        self.zoned_time_in(name, zone).map(|(time, _)| time)
    }

    /// The same as [`time_in`](Self::time_in), with the origin of the zone.
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

    /// Returns the object in a field. `[]` counts as absent, because PHP writes an empty map so.
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
            // There are no warnings about a missing object.
            pointer: object.map(|_| self.pointer_to(name)).unwrap_or_default(),
        }
    }

    /// Returns the objects of a list. Returns `None` if there is no list, or if the list has elements but no objects,
    /// because an empty result would mean that it has no elements. An element that is not an object is skipped with a
    /// warning.
    pub fn objects(&self, name: &str) -> Option<Vec<Fields<'p>>> {
        self.list(name, |element| match element {
            Element::Object(fields) => Some(fields),
            Element::Other(_) => None,
        })
    }

    /// Returns the elements of a list that `convert` accepts, with the rules of [`objects`](Self::objects). An element
    /// that is not an object is taken if `convert` accepts it.
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

    /// Whether a field has a value. Does not take the field; use this to decide which of two fields to read.
    pub fn has(&self, name: &str) -> bool {
        self.peek(name).is_some()
    }

    /// Adds a warning about a field whose value is as documented and cannot be used here.
    pub fn warn_unused(&self, name: &str) {
        self.payload.unused.borrow_mut().insert(self.pointer_to(name));
    }

    /// Reads a field, and takes it if `convert` accepts its value.
    pub fn read<T>(&self, name: &str, convert: impl FnOnce(Value<'p>) -> Option<T>) -> Option<T> {
        let value = self.get(name)?;
        let converted = self.convert(name, value, convert)?;
        value.take();
        Some(converted)
    }

    /// Takes the fields that hold a text, a number or a truth value, and returns each with its value as text. Lists and
    /// objects are not taken.
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

    /// Returns the value of a field without taking it and without a warning; use this to decide how to read it. An
    /// absent value is `None`.
    pub fn peek(&self, name: &str) -> Option<Value<'p>> {
        self.field(name).filter(|value| !value.is_absent())
    }

    /// Takes a field whose value is in the event by other means.
    pub fn take(&self, name: &str) {
        if let Some(value) = self.field(name) {
            value.take();
        }
    }

    /// Reads a field as [`read`](Self::read) does, without taking it.
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

    /// Returns the value of a field unless it is absent. An absent value is taken, because null in the event says the
    /// same.
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

/// An upper bound of the number of values in a body, counted without parsing: separators within texts count too. `None`
/// if the values do not fit into the memory.
fn values_at_most(body: &[u8]) -> Option<usize> {
    let (mut objects, mut values) = (0, 1);
    for byte in body {
        objects += usize::from(*byte == b'{');
        values += usize::from(matches!(byte, b'{' | b'[' | b','));
    }
    (objects <= MOST_OBJECTS && values <= MOST_VALUES).then_some(values)
}

/// Replaces each escaped half of a surrogate pair by `\ufffd`. Returns `None` if there is none.
fn without_lone_surrogates(body: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| -> Option<u16> {
        let digits = body.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut repaired = Vec::with_capacity(body.len());
    let mut found = false;
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        let (taken, put): (usize, &[u8]) = match (byte, unit(at)) {
            (b'\\', Some(0xd800..=0xdbff)) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => (12, &body[at..at + 12]),
            (b'\\', Some(0xd800..=0xdfff)) => (6, b"\\ufffd"),
            // An escaped character, such as a backslash, does not begin another escape.
            (b'\\', _) => (2, body.get(at..at + 2).unwrap_or(&body[at..])),
            _ => (1, &body[at..=at]),
        };
        found |= taken == 6;
        repaired.extend_from_slice(put);
        at += taken;
    }
    found.then_some(repaired)
}

#[cfg(test)]
mod tests;
