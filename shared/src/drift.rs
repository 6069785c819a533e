//! Detects that a provider has changed its payload, by fields and words that the mapping does not know.
//!
//! Drift never changes an event. It is counted and logged by JSON pointer and JSON type, never by value.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::event::{ItemKind, OrderEvent, PaymentStatus, Status};

/// The most drifts that are collected from one payload.
const FOUND: usize = 100;
/// The most drifts that one delivery reports. The next delivery reports more.
const REPORTED: usize = 10;
/// The most drifts that an execution environment remembers. After that it reports nothing more.
const REMEMBERED: usize = 1_000;
/// The longest field name. A longer one may be data.
const NAME_LENGTH: usize = 64;
/// The most digits of a field name. A name with more may be a date, a phone number or a key.
const NAME_DIGITS: usize = 3;

/// A difference between a payload and its mapping.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Drift {
    /// A JSON pointer from the payload's root, with `*` for positions in lists and for names that may be data; for an
    /// unknown word, a JSON pointer from the event's root.
    pub pointer: String,
    /// The JSON type of the value; `word` for a word that is not mapped.
    pub r#type: &'static str,
}

/// Extracts the pointers from a list of fields that stay in `unmapped`, because a function does not need the reasons.
///
/// # Panics
/// At compile time, if `N` is not the length of the list.
pub const fn pointers<const N: usize>(list: &[(&'static str, &'static str)]) -> [&'static str; N] {
    assert!(N == list.len(), "one pointer for each entry");
    let mut pointers = [""; N];
    let mut at = 0;
    while at < N {
        pointers[at] = list[at].0;
        at += 1;
    }
    pointers
}

/// The fields that are known to stay in `unmapped`, as a tree of names.
///
/// In a pointer, `*` stands for any one name or position, and `**` at the end for everything below.
#[derive(Debug, Default)]
pub struct Known {
    names: HashMap<&'static str, Self>,
    any_name: Option<Box<Self>>,
    is_field: bool,
    is_all_below: bool,
}

impl Known {
    /// Builds the tree of these pointers.
    pub fn new(pointers: &[&'static str]) -> Self {
        let mut root = Self::default();
        for pointer in pointers {
            let mut node = &mut root;
            for name in pointer.split('/').skip(1) {
                node = match name {
                    "**" => {
                        node.is_all_below = true;
                        break;
                    }
                    "*" => node.any_name.get_or_insert_default(),
                    name => node.names.entry(name).or_default(),
                };
            }
            node.is_field |= !node.is_all_below;
        }
        root
    }
}

/// The nodes of [`Known`] that match the path to a value. Both a name and `*` may match.
#[derive(Clone, Default)]
pub(crate) struct Matching<'k>(Vec<&'k Known>);

impl<'k> Matching<'k> {
    pub(crate) fn root(known: &'k Known) -> Self {
        Self(vec![known])
    }

    /// The nodes that match `name` below these. Names are as in a payload, without the escapes of a JSON pointer.
    pub(crate) fn below(&self, name: &str) -> Self {
        let below = |known: &&'k Known| [known.names.get(name), known.any_name.as_deref()];
        Self(self.0.iter().flat_map(below).flatten().collect())
    }

    /// Whether the value is known.
    pub(crate) fn cover_value(&self) -> bool {
        self.0.iter().any(|known| known.is_field)
    }

    /// Whether everything below the value is known.
    pub(crate) fn cover_all_below(&self) -> bool {
        self.0.iter().any(|known| known.is_all_below)
    }
}

/// Drifts found in one payload, each once, up to a limit.
#[derive(Default)]
pub(crate) struct Drifts(BTreeSet<Drift>);

impl Drifts {
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= FOUND
    }

    pub(crate) fn add(&mut self, pointer: String, r#type: &'static str) {
        if !self.is_full() {
            self.0.insert(Drift { pointer, r#type });
        }
    }

    /// Adds the words of an event that are not mapped: those that are `unknown` in the event, and those that the
    /// mapping names.
    pub(crate) fn add_words(&mut self, event: &OrderEvent, named: &[&str]) {
        let order = &event.data.order;
        for pointer in named {
            self.add((*pointer).to_owned(), "word");
        }
        if order.status == Some(Status::Unknown) {
            self.add("/data/order/status".to_owned(), "word");
        }
        if order.payment_status == Some(PaymentStatus::Unknown) {
            self.add("/data/order/payment_status".to_owned(), "word");
        }
        let items = || order.items.iter().flatten();
        if items().any(|item| item.status == Some(Status::Unknown)) {
            self.add("/data/order/items/*/status".to_owned(), "word");
        }
        if items().any(|item| item.kind == Some(ItemKind::Unknown)) {
            self.add("/data/order/items/*/kind".to_owned(), "word");
        }
    }

    pub(crate) fn into_drifts(self) -> Vec<Drift> {
        self.0.into_iter().collect()
    }
}

/// A step of a pointer as it is reported: `*` for a name that may be data, such as an address, a product's key or a
/// person's name. Field names of providers consist of ASCII letters, digits, `_` and `$`, and do not begin with a
/// digit.
pub(crate) fn step(name: &str) -> &str {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
    let begins_plainly = name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    let digits = name.bytes().filter(u8::is_ascii_digit).count();
    let is_name = begins_plainly && digits <= NAME_DIGITS && name.len() <= NAME_LENGTH && name.bytes().all(is_plain);
    if is_name { name } else { "*" }
}

/// The drifts that an execution environment has reported.
#[derive(Debug, Default)]
pub struct Reported(Mutex<BTreeSet<Drift>>);

impl Reported {
    /// Returns those of `drifts` that this execution environment has not reported yet, up to a limit, and records them
    /// as reported.
    pub fn unreported(&self, drifts: Vec<Drift>) -> Vec<Drift> {
        if drifts.is_empty() {
            return drifts;
        }
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = |drift: &Drift| reported.len() < REMEMBERED && reported.insert(drift.clone());
        drifts
            .into_iter()
            .filter(|drift| is_new(drift))
            .take(REPORTED)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;

    const LIST: &[(&str, &str)] = &[
        ("/known", "a reason"),
        ("/list/*/known", "a reason"),
        ("/list/*/other", "a reason"),
        ("/free/**", "a reason"),
        ("/*/id", "a reason"),
    ];

    fn drifts(body: &str) -> Vec<(String, &'static str)> {
        let pointers: [_; LIST.len()] = pointers(LIST);
        let payload = Payload::parse(body.as_bytes()).expect("JSON");
        payload.root().text("mapped");
        let mut found = Drifts::default();
        payload.drift(&Known::new(&pointers), &mut found);
        let drifts = found.into_drifts().into_iter();
        drifts.map(|drift| (drift.pointer, drift.r#type)).collect()
    }

    #[test]
    fn known_and_mapped_fields_are_not_drift() {
        let body = r#"{"mapped":"a","known":1,"list":[{"known":1},{"other":{},"known":null}],"free":{"a":[{"b":1}]},"x":{"id":1},"new":[],"other":{}}"#;
        assert_eq!(drifts(body), []);
    }

    #[test]
    fn an_unknown_field_is_found_by_pointer_and_type() {
        for (body, pointer, r#type) in [
            (r#"{"new":"a"}"#, "/new", "string"),
            (r#"{"new":null}"#, "/new", "null"),
            (r#"{"mapped":true}"#, "/mapped", "boolean"),
            (r#"{"known":{"deeper":1}}"#, "/known/deeper", "number"),
            (r#"{"list":[{"known":1},{"new":{"a":""}}]}"#, "/list/*/new/a", "string"),
            (r#"{"list":[7]}"#, "/list/*", "number"),
            (r#"{"new":{"jane doe":1}}"#, "/new/*", "number"),
            (r#"{"new":{"4711":1}}"#, "/new/*", "number"),
            (r#"{"new":{"4711A":1}}"#, "/new/*", "number"),
            (r#"{"new":{"A4711":1}}"#, "/new/*", "number"),
            (r#"{"new":{"line2":1}}"#, "/new/line2", "number"),
            (r#"{"new":{"$ref":1}}"#, "/new/$ref", "number"),
            (r#"{"new":{"":1}}"#, "/new/*", "number"),
            (r#"{"new":{"jane@example.com":1}}"#, "/new/*", "number"),
            (r#"{"new":{"jane.roe":1}}"#, "/new/*", "number"),
            (r#"{"new":{"jane-roe":1}}"#, "/new/*", "number"),
            (r#"{"free":1}"#, "/free", "number"),
        ] {
            assert_eq!(drifts(body), [(pointer.to_owned(), r#type)], "{body}");
        }
    }

    #[test]
    fn a_mapped_field_of_another_type_is_drift_even_if_known() {
        for (body, pointer, r#type) in [
            (r#"{"known":true}"#, "/known", "boolean"),
            (r#"{"list":[{"known":""},{"known":[]}]}"#, "/list/*/known", "array"),
            (r#"{"list":[{"known":{}}]}"#, "/list/*/known", "object"),
            (r#"{"free":{"a/b":false}}"#, "/free/*", "boolean"),
        ] {
            let pointers: [_; LIST.len()] = pointers(LIST);
            let payload = Payload::parse(body.as_bytes()).expect("JSON");
            let root = payload.root();
            root.text("known");
            root.object("free").text("a/b");
            for element in root.objects("list").unwrap_or_default() {
                element.text("known");
            }
            let mut found = Drifts::default();
            payload.drift(&Known::new(&pointers), &mut found);
            let expected = Drift {
                pointer: pointer.to_owned(),
                r#type,
            };
            assert_eq!(found.into_drifts(), [expected], "{body}");
        }
    }

    #[test]
    fn the_drift_of_one_payload_has_a_limit() {
        let fields: Vec<_> = (0..1_000).map(|at| format!("\"field_{at}\":{at}")).collect();
        assert_eq!(drifts(&format!("{{{}}}", fields.join(","))).len(), FOUND);
    }

    #[test]
    fn an_environment_reports_each_drift_once() {
        let drift = |pointer: &str| Drift {
            pointer: pointer.to_owned(),
            r#type: "string",
        };
        let reported = Reported::default();
        assert_eq!(reported.unreported(vec![drift("/a"), drift("/b")]).len(), 2);
        assert_eq!(reported.unreported(vec![drift("/a"), drift("/c")]), [drift("/c")]);
        let many: Vec<_> = (0..30).map(|at| drift(&format!("/many/{at}"))).collect();
        for _ in 0..3 {
            assert_eq!(reported.unreported(many.clone()).len(), REPORTED);
        }
        assert_eq!(reported.unreported(many), []);
        for at in 0..REMEMBERED {
            reported.unreported(vec![drift(&format!("/{at}"))]);
        }
        assert_eq!(reported.unreported(vec![drift("/one_too_many")]), []);
    }
}
