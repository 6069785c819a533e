//! Where each field of a payload goes: the tests change one field after the other and compare the events.
//!
//! No field may be lost: if a field has another value, the event differs. The tables in `functions/*/README.md` show
//! the result. `UPDATE_GOLDEN=1 cargo test --workspace --test provider_suite field_coverage::` writes the tables; the last
//! column is written by hand and stays.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use local::project::build::workspace;
use serde_json::{Number, Value, json};
use tests::payloads::{accepted, field_name, is_empty, leaves, pointers, replaced, small};
use tests::providers::Tested;
use tests::reader::Reader;

/// Where the name of the event goes. All other fields depend on the name, so only these places are listed for it.
const NAME: [&str; 2] = ["type", "provider_event"];

/// Parts of the names of the events with fields that no provider sends.
const INVENTED: [&str; 2] = ["new-fields", "odd"];

const BEGIN: &str = "<!-- Written by `UPDATE_GOLDEN=1 cargo test --workspace --test provider_suite field_coverage::`, except the last column. -->\n";
const END: &str = "<!-- The end of the written table. -->\n";

pub(crate) fn no_field_of_any_event_is_lost<P: Tested>() {
    let reader = Reader::<P>::new();
    let events = small(P::NAME);
    let seen = seen(&events);
    let mut lost = Vec::new();
    let mut tried = 0_usize;
    for (name, body) in &events {
        let event = reader.event_json(body).expect("the event is published");
        let stated = stated(&event);
        for (pointer, value) in leaves(body) {
            tried += 1;
            let is_unmapped = event["data"]["unmapped"].pointer(&pointer) == Some(value);
            if is_unmapped || is_empty(value) {
                continue;
            }
            let mut values = variations(value);
            values.extend(seen[&field_name(&pointer)].iter().cloned());
            // One value that makes a difference is enough.
            let mut found = values
                .chunks(1)
                .map(|value| destinations(&reader, body, &stated, &pointer, value));
            if found.all(|found| found.is_empty()) {
                lost.push(format!("{name}: {value} at {pointer} is not in the event"));
            }
        }
    }
    assert!(tried > 150, "only {tried} fields were tried");
    assert!(lost.is_empty(), "{} of {tried}:\n{}", lost.len(), lost.join("\n"));
}

pub(crate) fn the_table_in_the_readme_is_current<P: Tested>() {
    let path = folder(P::NAME).join("README.md");
    let readme = fs::read_to_string(&path).expect("the README of the provider");
    let place = |text: &str| -> Option<(usize, usize)> {
        let begin = text.find(BEGIN)? + BEGIN.len();
        Some((begin, begin + text[begin..].find(END)?))
    };
    let (begin, end) = place(&readme).expect("the README has the markers of the table");
    let table = table::<P>(&notes(&readme[begin..end]));
    if env::var_os("UPDATE_GOLDEN").is_some() {
        let readme = format!("{}{table}{}", &readme[..begin], &readme[end..]);
        fs::write(&path, readme).expect("the README can be written");
        return;
    }
    let differs = readme[begin..end]
        .lines()
        .zip(table.lines())
        .find(|(actual, expected)| actual != expected);
    assert!(
        readme[begin..end] == table,
        "the mapping has changed: run this test with UPDATE_GOLDEN=1 and review the difference: {differs:?}"
    );
}

/// The table lists only fields that occur in some event.
pub(crate) fn every_field_that_is_read_occurs_in_an_event<P: Tested>() {
    let provider = P::NAME;
    let source = fs::read_to_string(folder(provider).join("src/normalize.rs")).expect("the mapping");
    let mut names: BTreeSet<String> = BTreeSet::new();
    for (_, body) in accepted(provider) {
        let fields = pointers(&body)
            .into_iter()
            .filter_map(|pointer| Some(pointer.rsplit_once('/')?.1.to_owned()));
        names.extend(fields);
    }
    let readers = [
        "text",
        "id",
        "scalar",
        "flag",
        "amount",
        "minor_units",
        "price",
        "zoned_time_in",
        "peek",
        "fraction",
        "quantity",
        "currency",
        "country",
        "time",
        "time_in",
        "object",
        "objects",
        "has",
        "read",
        "look",
        "take",
        "field",
    ];
    let mut read = 0;
    for reader in readers {
        // A method, or the closure that puts a prefix before the name.
        for call in [format!(".{reader}(\""), format!("&{reader}(\"")] {
            for (at, _) in source.match_indices(&call) {
                let name = source[at + call.len()..]
                    .split('"')
                    .next()
                    .expect("the end of the name");
                read += 1;
                let known = names
                    .iter()
                    .any(|field| field == name || field.ends_with(&format!("_{name}")));
                assert!(
                    known,
                    "{provider} reads {name}, which no event of events/{provider} has"
                );
            }
        }
    }
    assert!(read > 15, "only {read} reads were found");
}

/// The places at which an event differs if a field has another value, and whether the value at each place is assumed.
type Found = BTreeMap<String, bool>;

/// For each value that changes the event if it is at the pointer: the places at which the event differs. Values that
/// the provider would not send there are left out.
fn destinations<P: Tested>(
    reader: &Reader<P>,
    body: &Value,
    stated: &Stated<'_>,
    pointer: &str,
    values: &[Value],
) -> Vec<Found> {
    let current = body.pointer(pointer).expect("a field");
    let mut found = Vec::new();
    for value in values.iter().filter(|value| *value != current && !is_empty(value)) {
        let event = reader.event_json(&replaced(body, pointer, value));
        let Some(event) = event.filter(|event| !warns_of(event, pointer)) else {
            continue;
        };
        let changed = self::stated(&event);
        let places = stated.keys().chain(changed.keys());
        let places = places.filter(|place| stated.get(*place) != changed.get(*place));
        let own = format!("/data/unmapped{pointer}");
        let mut differs = Found::new();
        for place in places {
            let assumed = event["data"]["assumed"].as_array().expect("a list");
            let is_assumed = changed.contains_key(place) && assumed.iter().any(|assumed| assumed == place);
            if let Some(name) = name_of(place, &own) {
                *differs.entry(name).or_default() |= is_assumed;
            }
        }
        if !differs.is_empty() {
            found.push(differs);
        }
    }
    found
}

/// Whether the event warns of a field, or of the object or list that contains it.
pub(crate) fn warns_of(event: &Value, pointer: &str) -> bool {
    let warnings = event["data"]["warnings"].as_array().expect("a list");
    let mut warnings = warnings.iter().filter_map(Value::as_str);
    warnings.any(|odd| {
        pointer
            .strip_prefix(odd)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The values of an event by place.
type Stated<'e> = BTreeMap<String, &'e Value>;

/// Everything that an event states. The id depends on the complete payload, and the subject is the id of the order.
fn stated(event: &Value) -> Stated<'_> {
    let about = ["/id", "/subject", "/data/assumed", "/data/warnings"];
    let is_about = |place: &str| {
        about.iter().any(|about| {
            place
                .strip_prefix(about)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let mut stated: BTreeMap<_, _> = leaves(event).into_iter().collect();
    stated.retain(|place, value| !is_empty(value) && !is_about(place));
    stated
}

/// The name of a place in the table; `None` for an unmapped value of another field.
fn name_of(place: &str, own: &str) -> Option<String> {
    if place == own || place.starts_with(&format!("{own}/")) {
        return Some("unmapped".to_owned());
    }
    if place.starts_with("/data/unmapped") {
        return None;
    }
    let place = place.strip_prefix("/data").unwrap_or(place);
    Some(field_name(place))
}

fn assumed(event: &Value) -> BTreeSet<String> {
    let pointers = event["data"]["assumed"].as_array().expect("a list").iter();
    pointers
        .filter_map(|pointer| name_of(pointer.as_str()?, "/data/unmapped"))
        .collect()
}

/// The published events without fields that no provider sends.
pub(crate) fn documented(provider: &str) -> Vec<(String, Value)> {
    let mut events = small(provider);
    events.retain(|(name, _)| !INVENTED.iter().any(|invented| name.contains(invented)));
    events
}

/// The values of each field in all events.
fn seen(events: &[(String, Value)]) -> BTreeMap<String, Vec<Value>> {
    let mut seen: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (pointer, value) in events.iter().flat_map(|(_, body)| leaves(body)) {
        let values = seen.entry(field_name(&pointer)).or_default();
        if !values.contains(value) {
            values.push(value.clone());
        }
    }
    seen
}

/// Other values of the same kind, of which the field may accept only some.
fn variations(value: &Value) -> Vec<Value> {
    match value {
        Value::Bool(flag) => vec![json!(!flag)],
        Value::Number(number) => {
            let other = other_digit(number.as_str());
            vec![other.parse::<Number>().map_or(json!(7), Value::Number)]
        }
        Value::String(text) => {
            let mut others = vec![format!("{text}z"), "SE".to_owned(), "SEK".to_owned()];
            // For a number, a time or a key.
            others.insert(0, other_digit(text));
            others.retain(|other| other != text);
            others.into_iter().map(Value::String).collect()
        }
        // The type of the field is not known from an empty value.
        _ => vec![json!("z"), json!(7), json!("2024-01-02T03:04:05Z"), json!(true)],
    }
}

/// The text with another last digit, so that a time is still a time.
fn other_digit(text: &str) -> String {
    let Some(at) = text.rfind(|character: char| character.is_ascii_digit()) else {
        return text.to_owned();
    };
    let other = match &text[at..=at] {
        "0" => "1".to_owned(),
        digit => (digit.parse::<u8>().expect("a digit") - 1).to_string(),
    };
    format!("{}{other}{}", &text[..at], &text[at + 1..])
}

fn folder(provider: &str) -> PathBuf {
    workspace().join("functions").join(provider)
}

/// The last column of a table, by field.
fn notes(table: &str) -> BTreeMap<String, String> {
    let rows = table.lines().skip(2).map(|row| row.split(" | ").collect::<Vec<_>>());
    rows.filter_map(|row| match row[..] {
        [field, _, note] => {
            let note = note.trim_end_matches('|').trim();
            Some((field.trim_start_matches("| ").to_owned(), note.to_owned()))
        }
        _ => None,
    })
    .collect()
}

fn table<P: Tested>(notes: &BTreeMap<String, String>) -> String {
    let reader = Reader::<P>::new();
    let events = documented(P::NAME);
    let seen = seen(&events);
    let mut mapping = Mapping::default();
    // The same value in another event of the same shape adds nothing.
    let mut known = HashSet::new();
    for (_, body) in &events {
        let event = reader.event_json(body).expect("the event is published");
        mapping.all_assumed.extend(assumed(&event));
        let stated = stated(&event);
        let leaves = leaves(body);
        let filled = leaves.iter().filter(|(_, value)| !is_empty(value));
        let shape: BTreeSet<_> = filled.map(|(pointer, _)| field_name(pointer)).collect();
        for (pointer, value) in leaves {
            let field = field_name(&pointer);
            let is_new = known.insert((
                field.clone(),
                value.to_string(),
                event["type"].to_string(),
                shape.clone(),
            ));
            if !is_new || warns_of(&event, &pointer) {
                continue;
            }
            let mut values = variations(value);
            values.extend(seen[&field].iter().cloned());
            let found = destinations(&reader, body, &stated, &pointer, &values);
            mapping.add(&field, &found, P::FACTS.event_name.contains(&pointer.as_str()));
        }
    }
    mapping.table(notes)
}

/// The places of the fields, in the order of their first occurrence.
#[derive(Default)]
struct Mapping {
    fields: Vec<String>,
    places: BTreeMap<String, BTreeSet<String>>,
    /// The fields and places with an assumed value, and those with a stated one.
    assumed: BTreeSet<(String, String)>,
    stated: BTreeSet<(String, String)>,
    all_assumed: BTreeSet<String>,
}

impl Mapping {
    fn add(&mut self, field: &str, found: &[Found], names_the_event: bool) {
        if !self.places.contains_key(field) {
            self.fields.push(field.to_owned());
        }
        let places = self.places.entry(field.to_owned()).or_default();
        // A field goes to the places that change with every value of it.
        let places_of = |found: &Found| found.keys().cloned().collect::<BTreeSet<_>>();
        let always = found.iter().map(places_of).reduce(|all, places| &all & &places);
        let mut always = always.unwrap_or_default();
        if names_the_event {
            always.retain(|place| NAME.contains(&place.as_str()));
        }
        for place in &always {
            if found.iter().any(|found| found[place]) {
                self.assumed.insert((field.to_owned(), place.clone()));
            }
            // An unmapped value is not assumed either.
            if found
                .iter()
                .any(|found| !found[place] && !found.contains_key("unmapped"))
            {
                self.stated.insert((field.to_owned(), place.clone()));
            }
        }
        places.extend(always);
    }

    fn table(&self, notes: &BTreeMap<String, String>) -> String {
        let mut table = "| field | goes to | note |\n|---|---|---|\n".to_owned();
        let mut unmapped: Vec<String> = Vec::new();
        for field in &self.fields {
            let mut places: Vec<_> = self.places[field]
                .iter()
                .map(|place| self.place(field, place))
                .collect();
            if self.is_mapped(field) {
                places.sort_by_key(|place| place == "unmapped");
                row(&mut table, &format!("`{field}`"), &places.join(", "), notes);
            } else if let Some(outermost) = self.outermost_unmapped(field)
                && !unmapped.contains(&outermost)
            {
                unmapped.push(outermost);
            }
        }
        let of_a_field: BTreeSet<_> = self.assumed.iter().map(|(_, place)| place.clone()).collect();
        let of_no_field = self.all_assumed.difference(&of_a_field);
        let of_no_field: Vec<_> = of_no_field.map(|place| format!("{place} (assumed)")).collect();
        if !of_no_field.is_empty() {
            row(&mut table, "no field", &of_no_field.join(", "), notes);
        }
        if !unmapped.is_empty() {
            row(&mut table, &unmapped.join(", "), "unmapped", notes);
        }
        table
    }

    fn is_mapped(&self, field: &str) -> bool {
        self.places[field].iter().any(|place| place != "unmapped")
    }

    fn place(&self, field: &str, place: &str) -> String {
        let is_in = |set: &BTreeSet<(String, String)>| set.contains(&(field.to_owned(), place.to_owned()));
        match (is_in(&self.assumed), is_in(&self.stated)) {
            (true, false) => format!("{place} (assumed)"),
            (true, true) => format!("{place} (at times assumed)"),
            (false, _) => place.to_owned(),
        }
    }

    /// The outermost object or list with the field and without a mapped one; `None` if the field itself has a mapped
    /// one.
    fn outermost_unmapped(&self, field: &str) -> Option<String> {
        let is_within = |inner: &str, outer: &str| {
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        if self
            .fields
            .iter()
            .any(|inner| is_within(inner, field) && self.is_mapped(inner))
        {
            return None;
        }
        let ends = field.match_indices(['.', '[']).map(|(at, _)| at).chain([field.len()]);
        let mut outer = ends.map(|end| &field[..end]);
        let outermost = outer.find(|outer| {
            !self
                .fields
                .iter()
                .any(|inner| is_within(inner, outer) && self.is_mapped(inner))
        });
        outermost.map(|outermost| format!("`{outermost}`"))
    }
}

fn row(table: &mut String, field: &str, places: &str, notes: &BTreeMap<String, String>) {
    let note = notes.get(field).map_or("", String::as_str);
    let _ = writeln!(
        table,
        "| {field} | {places} | {note}{}|",
        if note.is_empty() { "" } else { " " }
    );
}
