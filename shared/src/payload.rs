//! Reading a provider's payload: leniently, and knowing at the end what was not read.
//!
//! A field is *taken* when the mapping reads it and it has the documented type. What was not taken is the event's
//! `unmapped`. A field that was asked for and has another type is not taken, reads as absent and is named in the
//! event's `warnings`: one odd field never costs an order. `null` and `""` count as absent.

mod text;
mod tree;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::event::Unmapped;
use crate::money::{Amount, Currency, Quantity};
use tree::Tree;
pub use tree::Value;

/// A parsed payload, and the record of what was read from it.
pub struct Payload<'b> {
    tree: Tree<'b>,
    warnings: RefCell<BTreeSet<String>>,
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
    }

    /// Everything that was not taken, at its own place; and JSON pointers to the fields that were not as documented.
    pub fn into_rest(self) -> (Unmapped, Vec<String>) {
        let root = self.tree.root();
        let rest = if root.settle() && root.is_object() {
            Unmapped::of(&root)
        } else {
            Unmapped::default()
        };
        (rest, self.warnings.into_inner().into_iter().collect())
    }
}

fn open(value: Value<'_>) -> Option<Value<'_>> {
    value.is_object().then(|| {
        value.open();
        value
    })
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
        self.read(name, |value| match value.as_bool() {
            Some(is_true) => Some(is_true.to_string()),
            None => value.as_str().or_else(|| value.as_number()).map(str::to_owned),
        })
    }

    /// A truth value.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.read(name, Value::as_bool)
    }

    /// An amount in the currency's main unit.
    pub fn amount(&self, name: &str) -> Option<Amount> {
        self.read(name, Value::as_amount)
    }

    /// An amount in the smallest unit of `currency`. Without a currency it cannot be told, and stays where it is.
    pub fn minor_units(&self, name: &str, currency: Option<Currency>) -> Option<Amount> {
        let currency = currency?;
        self.read(name, |value| Amount::of_minor_units(value.as_amount()?, currency))
    }

    /// An amount in the currency's main unit. One that equals `nothing` says that there is none, and stays where it is.
    pub fn amount_unless(&self, name: &str, nothing: Amount) -> Option<Amount> {
        let amount = self.look(name, Value::as_amount).filter(|amount| *amount != nothing)?;
        self.take(name);
        Some(amount)
    }

    /// A rate as a fraction of one, read as percent.
    pub fn fraction(&self, name: &str) -> Option<Amount> {
        self.read(name, |value| value.as_amount()?.fraction_as_percent())
    }

    /// A quantity.
    pub fn quantity(&self, name: &str) -> Option<Quantity> {
        self.read(name, |value| value.as_amount().map(Quantity::from))
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
            pointer: self.pointer_to(name),
        }
    }

    /// The objects of a list; `None` where there is no list. An element that is no object is left out and warned of.
    pub fn objects(&self, name: &str) -> Option<Vec<Fields<'p>>> {
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
        let open = |(index, element): (usize, Value<'p>)| {
            let object = open(element);
            if object.is_none() {
                list.warn(&index.to_string());
            }
            object.map(|_| Fields {
                payload: self.payload,
                object,
                pointer: list.pointer_to(&index.to_string()),
            })
        };
        Some(elements.enumerate().filter_map(open).collect())
    }

    /// What `objects` or `text` would find, without taking it: to decide which of two fields to read.
    pub fn has(&self, name: &str) -> bool {
        self.field(name).is_some_and(|value| !value.is_absent())
    }

    /// Takes a field if `convert` understands it.
    pub fn read<T>(&self, name: &str, convert: impl FnOnce(Value<'p>) -> Option<T>) -> Option<T> {
        let value = self.get(name)?;
        let converted = self.convert(name, value, convert)?;
        value.take();
        Some(converted)
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

fn id_of(value: Value<'_>) -> Option<String> {
    let whole = || value.as_number().filter(|number| is_whole(number));
    value.as_str().or_else(whole).map(str::to_owned)
}

fn is_whole(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
