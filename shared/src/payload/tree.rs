//! A JSON document, parsed once into one list of nodes that refer to the document's text.
//!
//! An order consists mostly of names and texts that are never used, so none is copied until it is read. A number is
//! kept as text, so that it stays exact.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use serde_json::value::RawValue;

use crate::drift::{self, Drifts, Matching};
use crate::money::Amount;

/// A parsed document.
pub(super) struct Tree<'b> {
    body: Cow<'b, str>,
    /// Texts that are not in the body literally: texts with escapes, and numbers, whose position serde does not report.
    decoded: String,
    /// The nodes of all values. A list or an object precedes its parts, so the first node is the outermost value.
    nodes: Vec<Node>,
    depth: usize,
}

struct Node {
    name: Span,
    /// The text of a text or a number; the nodes of the parts of a list or an object.
    holds: Span,
    kind: Kind,
    read: Cell<ReadState>,
}

impl Node {
    /// The nodes of the parts of a list or an object.
    fn parts(&self) -> Option<Range<usize>> {
        matches!(self.kind, Kind::List | Kind::Object).then(|| self.holds.range())
    }
}

/// A range of the body or, beyond the body's end, of the decoded texts; or a range of the nodes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    length: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.length as usize
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    False,
    True,
    Number,
    Text,
    List,
    Object,
}

/// Which part of a value was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadState {
    /// None of it.
    Unread,
    /// Some of its parts, one by one.
    Visited,
    /// All of it.
    Consumed,
}

impl<'b> Tree<'b> {
    /// Parses a document. Allocates nodes for `values` values at once.
    pub(super) fn parse(body: Cow<'b, str>, values: usize) -> serde_json::Result<Self> {
        let mut builder = Builder {
            body: &body,
            decoded: String::new(),
            nodes: Vec::with_capacity(values),
            depth: 0,
        };
        let mut json = serde_json::Deserializer::from_str(&body);
        let root = ReadValue {
            builder: &mut builder,
            name: Span::default(),
            depth: 0,
        };
        root.deserialize(&mut json)?;
        json.end()?;
        let Builder {
            decoded, nodes, depth, ..
        } = builder;
        Ok(Self {
            body,
            decoded,
            nodes,
            depth,
        })
    }

    /// The greatest depth of nested lists and objects.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn root(&self) -> Value<'_> {
        Value {
            tree: self,
            node: &self.nodes[0],
        }
    }

    pub(super) fn forget_reads(&self) {
        self.nodes.iter().for_each(|node| node.read.set(ReadState::Unread));
    }

    fn text(&self, span: Span) -> &str {
        let Range { start, end } = span.range();
        match start.checked_sub(self.body.len()) {
            None => &self.body[start..end],
            Some(start) => &self.decoded[start..end - self.body.len()],
        }
    }
}

/// A value of a document.
#[derive(Clone, Copy)]
pub struct Value<'t> {
    tree: &'t Tree<'t>,
    node: &'t Node,
}

impl<'t> Value<'t> {
    /// The content of a text.
    pub fn as_str(self) -> Option<&'t str> {
        (self.node.kind == Kind::Text).then(|| self.tree.text(self.node.holds))
    }

    /// The content of a text, or the digits of a number as the payload has them.
    pub fn as_text(self) -> Option<&'t str> {
        self.as_str().or_else(|| self.as_number())
    }

    /// The digits of a number.
    pub(super) fn as_number(self) -> Option<&'t str> {
        (self.node.kind == Kind::Number).then(|| self.tree.text(self.node.holds))
    }

    /// The content of a text, the digits of a number, or `true` or `false`.
    pub(super) fn as_scalar(self) -> Option<Cow<'t, str>> {
        match self.as_bool() {
            Some(is_true) => Some(is_true.to_string().into()),
            None => self.as_text().map(Cow::Borrowed),
        }
    }

    /// A truth value.
    pub fn as_bool(self) -> Option<bool> {
        match self.node.kind {
            Kind::False => Some(false),
            Kind::True => Some(true),
            _ => None,
        }
    }

    /// A truth value, which may also be 1 or 0, as a number or a text: databases without truth values return these.
    pub fn as_flag(self) -> Option<bool> {
        self.as_bool().or_else(|| match self.as_text()? {
            "1" => Some(true),
            "0" => Some(false),
            _ => None,
        })
    }

    /// An amount: a number, or a text that contains one. Providers send both.
    pub fn as_amount(self) -> Option<Amount> {
        Amount::parse(self.as_text()?)
    }

    /// Whether the value is `null` or `""`, which count as absent.
    pub(super) fn is_absent(self) -> bool {
        self.node.kind == Kind::Null || self.as_str() == Some("")
    }

    /// Whether the value is an object.
    pub fn is_object(self) -> bool {
        self.node.kind == Kind::Object
    }

    /// Whether the value is a list.
    pub(super) fn is_list(self) -> bool {
        self.node.kind == Kind::List
    }

    /// Whether a list or an object is empty; `None` for any other value.
    pub fn is_empty(self) -> Option<bool> {
        self.node.parts().map(|parts| parts.is_empty())
    }

    /// The elements of a list.
    pub(super) fn elements(self) -> Option<impl Iterator<Item = Self>> {
        (self.node.kind == Kind::List).then(|| self.parts())
    }

    /// A field of an object. If a name is repeated, the last field counts, as with most readers, and the others are
    /// taken.
    pub(super) fn field(self, name: &str) -> Option<Self> {
        let fields = self.parts().filter(|field| field.name() == name);
        fields.reduce(|shadowed, field| {
            shadowed.take();
            field
        })
    }

    /// The fields of an object, in their order. Repeated names are handled as by [`field`](Self::field).
    pub(super) fn fields(self) -> Vec<(&'t str, Self)> {
        let mut places = HashMap::new();
        let mut fields = Vec::new();
        for field in self.is_object().then(|| self.parts()).into_iter().flatten() {
            let place = *places.entry(field.name()).or_insert(fields.len());
            match fields.get_mut(place) {
                Some((_, shadowed)) => std::mem::replace(shadowed, field).take(),
                None => fields.push((field.name(), field)),
            }
        }
        fields
    }

    /// Records that the complete value was read.
    pub(super) fn take(self) {
        self.node.read.set(ReadState::Consumed);
    }

    /// Records that the parts of the value are read one by one.
    pub(super) fn open(self) {
        self.node.read.set(ReadState::Visited);
    }

    /// Takes the value if all of its parts were taken. Returns whether anything is left.
    pub(super) fn settle(self) -> bool {
        if self.node.read.get() == ReadState::Visited {
            let mut is_left = false;
            for part in self.parts() {
                is_left |= part.settle();
            }
            if !is_left {
                self.take();
            }
        }
        self.node.read.get() != ReadState::Consumed
    }

    /// Adds the parts of a settled value that were not taken and are not known to `found`. `pointer` leads to the
    /// value.
    pub(super) fn drift(self, known: &Matching<'_>, pointer: &mut String, found: &mut Drifts) {
        if known.cover_all_below() && self.node.parts().is_some() || found.is_full() {
            return;
        }
        if !self.has_parts() {
            // An empty list or object is not drift.
            if !known.cover_value() && self.node.parts().is_none() {
                found.add(pointer.clone(), self.type_name());
            }
            return;
        }
        let is_list = self.node.kind == Kind::List;
        for part in self.parts().filter(|part| part.node.read.get() != ReadState::Consumed) {
            // Only `*` matches positions in a list.
            let name = if is_list { "*" } else { part.name() };
            let length = pointer.len();
            pointer.push('/');
            pointer.push_str(drift::step(name));
            part.drift(&known.below(name), pointer, found);
            pointer.truncate(length);
        }
    }

    /// Adds the value to which a JSON pointer from this one leads to `found`.
    pub(super) fn drift_at(self, pointer: &str, found: &mut Drifts) {
        let mut at = self;
        let mut reported = String::new();
        for part in pointer.split('/').skip(1) {
            let name = part.replace("~1", "/").replace("~0", "~");
            let is_list = at.is_list();
            let next = match (is_list, name.parse()) {
                (true, Ok(position)) => at.parts().nth(position),
                (true, Err(_)) => None,
                (false, _) => at.field(&name),
            };
            let Some(next) = next else { return };
            at = next;
            reported.push('/');
            reported.push_str(drift::step(if is_list { "*" } else { &name }));
        }
        found.add(reported, at.type_name());
    }

    fn has_parts(self) -> bool {
        self.is_empty() == Some(false)
    }

    fn type_name(self) -> &'static str {
        match self.node.kind {
            Kind::Null => "null",
            Kind::False | Kind::True => "boolean",
            Kind::Number => "number",
            Kind::Text => "string",
            Kind::List => "array",
            Kind::Object => "object",
        }
    }

    fn name(self) -> &'t str {
        self.tree.text(self.node.name)
    }

    fn parts(self) -> impl Iterator<Item = Self> {
        let mut parts = self.node.parts().unwrap_or_default();
        std::iter::from_fn(move || {
            let at = parts.next()?;
            let node = &self.tree.nodes[at];
            parts = node.parts().map_or(at + 1, |parts| parts.end)..parts.end;
            Some(Self { node, ..self })
        })
    }
}

/// Writes the parts of a settled value that were not taken. An element that was taken leaves `{}`, so that the others
/// keep their positions.
impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.node.read.get() == ReadState::Consumed {
            return serializer.serialize_map(Some(0))?.end();
        }
        match self.node.kind {
            Kind::Null => serializer.serialize_unit(),
            Kind::False => serializer.serialize_bool(false),
            Kind::True => serializer.serialize_bool(true),
            Kind::Text => serializer.serialize_str(self.tree.text(self.node.holds)),
            Kind::Number => {
                let number: &RawValue =
                    serde_json::from_str(self.tree.text(self.node.holds)).map_err(S::Error::custom)?;
                number.serialize(serializer)
            }
            Kind::List => {
                let mut list = serializer.serialize_seq(None)?;
                self.parts().try_for_each(|element| list.serialize_element(&element))?;
                list.end()
            }
            Kind::Object => {
                let mut fields: Vec<_> = self.parts().map(|field| (field.name(), field)).collect();
                fields.sort_by_key(|(name, _)| *name);
                let mut object = serializer.serialize_map(None)?;
                for (index, (name, field)) in fields.iter().enumerate() {
                    let is_last = fields.get(index + 1).is_none_or(|(next, _)| next != name);
                    if is_last && field.node.read.get() != ReadState::Consumed {
                        object.serialize_entry(name, field)?;
                    }
                }
                object.end()
            }
        }
    }
}

/// A tree that is being parsed.
struct Builder<'b> {
    body: &'b str,
    decoded: String,
    nodes: Vec<Node>,
    depth: usize,
}

impl Builder<'_> {
    /// The position of a text that serde has borrowed; `None` if it is not in the body.
    fn place<E: de::Error>(&self, text: &str) -> Result<Option<Span>, E> {
        let start = text.as_ptr().addr().checked_sub(self.body.as_ptr().addr());
        match start.filter(|start| start + text.len() <= self.body.len()) {
            Some(start) => span(start, text.len()).map(Some),
            None => Ok(None),
        }
    }

    /// Stores a text that is not in the body.
    fn keep<E: de::Error>(&mut self, text: &str) -> Result<Span, E> {
        let start = self.body.len() + self.decoded.len();
        self.decoded.push_str(text);
        span(start, text.len())
    }

    /// Appends a node, and returns the index of the next one.
    fn put(&mut self, name: Span, kind: Kind, holds: Span) -> usize {
        self.nodes.push(Node {
            name,
            holds,
            kind,
            read: Cell::new(ReadState::Unread),
        });
        self.nodes.len()
    }

    /// Ends a list or an object: its parts are all nodes from `first` on.
    fn close<E: de::Error>(&mut self, first: usize, depth: usize) -> Result<(), E> {
        self.nodes[first - 1].holds = span(first, self.nodes.len() - first)?;
        self.depth = self.depth.max(depth);
        Ok(())
    }
}

fn span<E: de::Error>(start: usize, length: usize) -> Result<Span, E> {
    Ok(Span {
        start: narrow(start)?,
        length: narrow(length)?,
    })
}

fn narrow<E: de::Error>(number: usize) -> Result<u32, E> {
    u32::try_from(number).map_err(|_| E::custom("the document is too large"))
}

/// Parses a value and its parts.
struct ReadValue<'g, 'b> {
    builder: &'g mut Builder<'b>,
    name: Span,
    depth: usize,
}

impl ReadValue<'_, '_> {
    fn put(self, kind: Kind, text: Span) {
        self.builder.put(self.name, kind, text);
    }
}

impl<'de> DeserializeSeed<'de> for ReadValue<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ReadValue<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.put(Kind::Null, Span::default());
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, is_true: bool) -> Result<(), E> {
        self.put(if is_true { Kind::True } else { Kind::False }, Span::default());
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        let number = self.builder.keep(&number.to_string())?;
        self.put(Kind::Number, number);
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        let number = self.builder.keep(&number.to_string())?;
        self.put(Kind::Number, number);
        Ok(())
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<(), E> {
        let Some(place) = self.builder.place(text)? else {
            return self.visit_str(text);
        };
        self.put(Kind::Text, place);
        Ok(())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        let text = self.builder.keep(text)?;
        self.put(Kind::Text, text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { builder, name, depth } = self;
        let depth = depth + 1;
        let first = builder.put(name, Kind::List, Span::default());
        let name = Span::default();
        while list.next_element_seed(ReadValue { builder, name, depth })?.is_some() {}
        builder.close(first, depth)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let Self { builder, name, depth } = self;
        let depth = depth + 1;
        let mut next = object.next_key_seed(ReadText { builder })?;
        if next == Some(Found::Elsewhere)
            && let Found::Here(number) = object.next_value_seed(ReadText { builder })?
        {
            builder.put(name, Kind::Number, number);
            return Ok(());
        }
        let first = builder.put(name, Kind::Object, Span::default());
        while let Some(Found::Here(name)) = next {
            object.next_value_seed(ReadValue { builder, name, depth })?;
            next = object.next_key_seed(ReadText { builder })?;
        }
        builder.close(first, depth)
    }
}

/// Parses a name, or the text of a number.
struct ReadText<'g, 'b> {
    builder: &'g mut Builder<'b>,
}

#[derive(PartialEq, Eq)]
enum Found {
    Here(Span),
    /// Not in the body: the name under which `serde_json` passes on the text of a number, as if it were an object.
    Elsewhere,
}

impl<'de> DeserializeSeed<'de> for ReadText<'_, '_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for ReadText<'_, '_> {
    type Value = Found;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Found, E> {
        let place = self.builder.place(text)?;
        Ok(place.map_or(Found::Elsewhere, Found::Here))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Found, E> {
        self.builder.keep(text).map(Found::Here)
    }
}
