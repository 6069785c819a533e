//! Where every field of a provider's payload goes, found out by changing one after the other and looking at what becomes of the event.
//!
//! Nothing may be lost: whatever a field says, the event says something else when it says something else. And the tables in
//! `functions/*/README.md` say what was found. `UPDATE_GOLDEN=1 cargo test -p tests --test mapping` writes them anew; the last
//! column is written by hand and kept.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use lambda_http::http::Method;
use serde_json::{Number, Value, json};
use shared::Provider;
use shared::classify::{Classification, classify};
use shared::drift::{Drift, Known};
use shared::settings::Settings;
use tests::authentic;
use tests::payloads::{accepted, pointers};

/// The fields that name the event: everything else depends on them, so only what they say themselves counts.
const NAME_THE_EVENT: [(&str, &str); 4] = [
    ("selldone", "/event"),
    ("selldone", "/action"),
    ("aboutyou", "/event"),
    ("snipcart", "/eventName"),
];

/// Where the name of the event goes.
const NAME: [&str; 2] = ["type", "provider_event"];

/// Events with fields that no provider sends.
const INVENTED: [&str; 2] = ["new-fields", "odd"];

const BEGIN: &str =
    "<!-- Written by `UPDATE_GOLDEN=1 cargo test -p tests --test mapping`, but for the last column. -->\n";
const END: &str = "<!-- The end of what is written. -->\n";

macro_rules! for_each_provider {
    ($($name:ident: $provider:ty,)+) => {$(
        mod $name {
            #[test]
            fn no_field_of_any_event_is_lost() {
                super::no_field_is_lost::<$provider>();
            }

            #[test]
            fn the_table_in_its_readme_says_where_each_field_goes() {
                super::the_table_is_true::<$provider>();
            }

            #[test]
            fn every_field_left_unmapped_has_a_reason() {
                super::every_field_left_unmapped_has_a_reason::<$provider>(::$name::UNMAPPED);
            }

            #[test]
            fn known_events_report_no_drift() {
                super::known_events_report_no_drift::<$provider>();
            }

            #[test]
            fn each_renamed_or_retyped_field_is_drift() {
                super::each_renamed_or_retyped_field_is_drift::<$provider>(::$name::UNMAPPED);
            }

            #[test]
            fn every_field_that_is_read_stands_in_some_event() {
                super::every_field_that_is_read_is_tried(<$provider as shared::Provider>::NAME);
            }
        }
    )+};
}

for_each_provider! {
    selldone: selldone::Selldone,
    cartum: cartum::Cartum,
    deeple: deeple::Deeple,
    aboutyou: aboutyou::AboutYou,
    snipcart: snipcart::Snipcart,
}

fn no_field_is_lost<P: Provider>() {
    let reader = Reader::<P>::new();
    let events = events(P::NAME, &[]);
    let seen = seen(&events);
    let mut lost = Vec::new();
    let mut tried = 0_usize;
    for (name, body) in &events {
        let event = reader.event(body).expect("the event is published");
        let said = said(&event);
        for (pointer, value) in leaves(body) {
            tried += 1;
            let as_it_came = event["data"]["unmapped"].pointer(&pointer) == Some(value);
            if as_it_came || says_nothing(value) {
                continue;
            }
            let mut values = variations(value);
            values.extend(seen[&field_name(&pointer)].iter().cloned());
            // One value that makes a difference is enough.
            let mut found = values
                .chunks(1)
                .map(|value| reader.destinations(body, &said, &pointer, value));
            if found.all(|found| found.is_empty()) {
                lost.push(format!("{name}: {pointer} says {value}, and the event does not"));
            }
        }
    }
    assert!(tried > 150, "{tried} are too few to be all");
    assert!(lost.is_empty(), "{} of {tried}:\n{}", lost.len(), lost.join("\n"));
}

fn the_table_is_true<P: Provider>() {
    let path = folder(P::NAME).join("README.md");
    let readme = fs::read_to_string(&path).expect("the provider's README");
    let written = |text: &str| -> Option<(usize, usize)> {
        let begin = text.find(BEGIN)? + BEGIN.len();
        Some((begin, begin + text[begin..].find(END)?))
    };
    let (begin, end) = written(&readme).expect("the README has a place for the table");
    let table = table::<P>(&notes(&readme[begin..end]));
    if env::var_os("UPDATE_GOLDEN").is_some() {
        let readme = format!("{}{table}{}", &readme[..begin], &readme[end..]);
        fs::write(&path, readme).expect("the README can be written");
        return;
    }
    let differs = readme[begin..end]
        .lines()
        .zip(table.lines())
        .find(|(is, should)| is != should);
    assert!(
        readme[begin..end] == table,
        "the mapping has changed: run this test with UPDATE_GOLDEN=1, then read the difference: {differs:?}"
    );
}

/// Each field that stays in `unmapped` is there on purpose: the provider's list names it and says why. A field that is not as
/// documented is named in the event's warnings instead.
fn every_field_left_unmapped_has_a_reason<P: Provider>(list: &[(&str, &str)]) {
    let reader = Reader::<P>::new();
    let mut without_reason = BTreeSet::new();
    let mut unused: BTreeSet<_> = list.iter().map(|(pattern, _)| *pattern).collect();
    assert_eq!(unused.len(), list.len(), "a pointer is listed twice");
    for (name, body) in events(P::NAME, &INVENTED) {
        let event = reader.event(&body).expect("the event is published");
        for (pointer, value) in leaves(&event["data"]["unmapped"]) {
            // An element that was read leaves an empty object, so that the others keep their places.
            if warns_of(&event, &pointer) || *value == json!({}) {
                continue;
            }
            let patterns = list.iter().map(|(pattern, _)| *pattern);
            let matching: Vec<_> = patterns.filter(|pattern| is_matched(pattern, &pointer)).collect();
            if matching.is_empty() {
                without_reason.insert(format!("{name}: {pointer}"));
            }
            unused.retain(|pattern| !matching.contains(pattern));
        }
    }
    for (pattern, reason) in list {
        assert!(reason.split(' ').count() > 2, "{pattern}: {reason:?} is no reason");
    }
    let without_reason: Vec<_> = without_reason.into_iter().collect();
    assert!(
        without_reason.is_empty(),
        "map these fields, or say in functions/{}/src/unmapped.rs why not:\n{}",
        P::NAME,
        without_reason.join("\n")
    );
    assert!(unused.is_empty(), "no event leaves these in unmapped: {unused:?}");
}

fn known_events_report_no_drift<P: Provider>() {
    let reader = Reader::<P>::new();
    let mut drifts = Vec::new();
    for (name, body) in events(P::NAME, &INVENTED) {
        let event = reader.event(&body).expect("the event is published");
        let warnings = event["data"]["warnings"].as_array().expect("a list").iter();
        let warned: Vec<_> = warnings.filter_map(Value::as_str).map(as_reported).collect();
        // Some events have a word without a translation, or a field that is not as documented, on purpose.
        let found = reader.drift(&body).into_iter().filter(|drift| {
            let is_warned = warned.iter().any(|warned| {
                let below = drift.pointer.strip_prefix(warned.as_str());
                below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
            });
            drift.r#type != "word" && !is_warned
        });
        drifts.extend(found.map(|drift| format!("{name}: {} ({})", drift.pointer, drift.r#type)));
    }
    assert!(drifts.is_empty(), "{}", drifts.join("\n"));
}

/// Whether the event has nothing in `unmapped` at the pointer.
fn is_mapped_here(event: &Value, pointer: &str) -> bool {
    event["data"]["unmapped"].pointer(pointer).is_none()
}

/// Changes each leaf of each event in turn, as a provider might, and expects one report of it.
fn each_renamed_or_retyped_field_is_drift<P: Provider>(list: &[(&str, &str)]) {
    let reader = Reader::<P>::new();
    let mut changes = 0;
    let mut missed = BTreeSet::new();
    // Another event with the same field tells nothing new.
    let mut tried = HashSet::new();
    for (name, body) in events(P::NAME, &INVENTED) {
        let event = reader.event(&body).expect("the event is published");
        for (pointer, value) in leaves(&body) {
            // An empty list or object says nothing, wherever it is.
            if !tried.insert(as_reported(&pointer)) || *value == json!({}) || *value == json!([]) {
                continue;
            }
            let (parent, field) = pointer.rsplit_once('/').expect("a field");
            let mut renamed = body.clone();
            if let Some(Value::Object(fields)) = renamed.pointer_mut(parent) {
                let value = fields.remove(&unescaped(field)).expect("the field");
                fields.insert("brand_new".to_owned(), value);
            }
            let mut retyped = body.clone();
            *retyped.pointer_mut(&pointer).expect("the field") = json!({"brand_new": value});
            for (changed, pointer) in [
                (renamed, format!("{parent}/brand_new")),
                (retyped, format!("{pointer}/brand_new")),
            ] {
                let is_known = list.iter().any(|(pattern, _)| is_matched(pattern, &pointer));
                // An event that is not recognized any more is quarantined, which is reported in its own way.
                let Some(event) = reader.event(&changed).filter(|_| !is_known) else {
                    continue;
                };
                // An element of a list that was renamed has kept its place.
                if event["data"]["unmapped"].pointer(&pointer).is_none() {
                    continue;
                }
                changes += 1;
                let reported = as_reported(&pointer);
                let drifts = reader.drift(&changed);
                if drifts.iter().filter(|drift| drift.pointer == reported).count() != 1 {
                    missed.insert(format!("{name}: {pointer} is not reported as {reported}: {drifts:?}"));
                }
            }
            // A field that stays in `unmapped` for some of its values is in the list, and mapped all the same.
            let is_mapped = is_mapped_here(&event, &pointer) && (value.is_string() || value.is_number());
            let mut flagged = body.clone();
            *flagged.pointer_mut(&pointer).expect("the field") = json!(true);
            let Some(event) = reader.event(&flagged).filter(|_| is_mapped) else {
                continue;
            };
            if is_mapped_here(&event, &pointer) {
                continue;
            }
            changes += 1;
            let expected = Drift {
                pointer: as_reported(&pointer),
                r#type: "boolean",
            };
            let drifts = reader.drift(&flagged);
            if !drifts.contains(&expected) {
                missed.insert(format!("{name}: a true at {pointer} is not reported: {drifts:?}"));
            }
        }
    }
    assert!(changes > 60, "{changes} changes are too few to be all");
    let missed: Vec<_> = missed.into_iter().collect();
    assert!(
        missed.is_empty(),
        "{} of {changes}:\n{}",
        missed.len(),
        missed.join("\n")
    );
}

#[test]
fn each_word_without_a_translation_is_drift() {
    let cartum =
        |event: &str, pointer: &str, word: Value| words::<::cartum::Cartum>("order-created-gift", event, pointer, word);
    let selldone =
        |word: &str| words::<::selldone::Selldone>("checkout-order-service", "", "/basket/type", json!(word));
    let deeple = |word: &str| words::<::deeple::Deeple>("order-changed", "", "/vatOptions", json!(word));
    let none: [&str; 0] = [];
    assert_eq!(cartum("order_created", "/products/1/type", json!("product")), none);
    assert_eq!(
        cartum("order_created", "/products/1/type", json!("bonus")),
        ["/data/order/items/*/kind"]
    );
    for event in ["order_created", "order_paid"] {
        assert_eq!(cartum(event, "/payed", json!(0)), none);
        assert_eq!(cartum(event, "/payed", json!(2)), ["/data/order/payment_status"]);
    }
    assert_eq!(selldone("SERVICE"), none);
    assert_eq!(selldone("RENTAL"), ["/data/order/items/*/requires_shipping"]);
    assert_eq!(deeple("INCLUDE"), none);
    assert_eq!(deeple("SOMETIMES"), ["/data/order/tax_lines/*/included"]);
}

/// The words without a translation of an event of the provider in which `word` stands at the pointer.
fn words<P: Provider>(name: &str, event: &str, pointer: &str, word: Value) -> Vec<String> {
    let events = accepted(P::NAME);
    let (_, mut body) = events.into_iter().find(|(is, _)| is == name).expect("the event");
    *body.pointer_mut(pointer).expect("the field") = word;
    let query = [("event", event)];
    let query = if event.is_empty() { &[][..] } else { &query };
    let delivery = authentic::delivery(Method::POST, query, body.to_string().into_bytes());
    let drifts = classify(&Reader::<P>::new().provider, &delivery, Some(&Known::new(P::UNMAPPED))).drift;
    let words = drifts.into_iter().filter(|drift| drift.r#type == "word");
    words.map(|drift| drift.pointer).collect()
}

fn unescaped(name: &str) -> String {
    name.replace("~1", "/").replace("~0", "~")
}

/// A pointer as drift reports it: `*` for positions, and for names that may be data.
fn as_reported(pointer: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_$".contains(&byte);
    let step = |name: &str| {
        let is_key = name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit());
        let digits = name.bytes().filter(u8::is_ascii_digit).count();
        let is_name = !is_key && digits <= 3 && name.len() <= 64 && name.bytes().all(is_plain);
        if is_name { name.to_owned() } else { "*".to_owned() }
    };
    let steps: Vec<_> = pointer.split('/').skip(1).map(|name| step(&unescaped(name))).collect();
    format!("/{}", steps.join("/"))
}

/// Whether `pattern` covers `pointer`: `*` is any one part, `**` at the end is everything below.
fn is_matched(pattern: &str, pointer: &str) -> bool {
    let mut parts = pointer.split('/');
    for expected in pattern.split('/') {
        match (expected, parts.next()) {
            ("**", Some(_)) => return true,
            ("*", Some(_)) => {}
            (expected, Some(part)) if expected == part => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

#[test]
fn a_pattern_matches_one_part_by_a_star_and_the_rest_by_two() {
    for (pattern, pointer, matches) in [
        ("/a/*/b", "/a/0/b", true),
        ("/a/*/b", "/a/0/1/b", false),
        ("/a/*", "/a/0/b", false),
        ("/a/**", "/a/0/b", true),
        ("/a/**", "/a", false),
        ("/a", "/a/b", false),
    ] {
        assert_eq!(is_matched(pattern, pointer), matches, "{pattern} {pointer}");
    }
}

/// The table can only know of fields that stand in some event.
fn every_field_that_is_read_is_tried(provider: &str) {
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
        // A method, or the one closure that puts a prefix before the name.
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
    assert!(read > 15, "{read} reads are not all");
}

/// Where an event differs when a field says something else, `unmapped` among the places; and whether what stands there then is assumed.
type Found = BTreeMap<String, bool>;

/// A provider's function, but for what is around the reading.
struct Reader<P: Provider> {
    provider: P,
}

impl<P: Provider> Reader<P> {
    fn new() -> Self {
        let settings = Settings::from_table::<&str, &str>([]);
        Self {
            provider: P::from_settings(&settings).expect("the defaults"),
        }
    }

    fn event(&self, body: &Value) -> Option<Value> {
        let delivery = authentic::delivery(Method::POST, &[], body.to_string().into_bytes());
        let Classification::Order(mut event) = classify(&self.provider, &delivery, None).classification else {
            return None;
        };
        // What the clock says is nothing of the payload.
        if event.time == event.data.received_at {
            event.time = jiff::Timestamp::UNIX_EPOCH;
        }
        event.data.received_at = jiff::Timestamp::UNIX_EPOCH;
        Some(serde_json::to_value(&event).expect("JSON"))
    }

    /// The drifts of an event, in an execution environment that has reported none yet.
    fn drift(&self, body: &Value) -> Vec<Drift> {
        let delivery = authentic::delivery(Method::POST, &[], body.to_string().into_bytes());
        classify(&self.provider, &delivery, Some(&Known::new(P::UNMAPPED))).drift
    }

    /// What becomes of each value in a field's place that the provider might send there, where that is another event.
    fn destinations(&self, body: &Value, said: &Said<'_>, pointer: &str, values: &[Value]) -> Vec<Found> {
        let is = body.pointer(pointer).expect("a field");
        let mut found = Vec::new();
        for value in values.iter().filter(|value| *value != is && !says_nothing(value)) {
            let mut changed = body.clone();
            *changed.pointer_mut(pointer).expect("a field") = value.clone();
            let Some(event) = self.event(&changed).filter(|event| !warns_of(event, pointer)) else {
                continue;
            };
            let says = self::said(&event);
            let places = said.keys().chain(says.keys());
            let places = places.filter(|place| said.get(*place) != says.get(*place));
            let own = format!("/data/unmapped{pointer}");
            let mut differs = Found::new();
            for place in places {
                let assumed = event["data"]["assumed"].as_array().expect("a list");
                let is_assumed = says.contains_key(place) && assumed.iter().any(|assumed| assumed == place);
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
}

/// Whether a field, or what it is in, is not as documented.
fn warns_of(event: &Value, pointer: &str) -> bool {
    let warnings = event["data"]["warnings"].as_array().expect("a list");
    let mut warnings = warnings.iter().filter_map(Value::as_str);
    warnings.any(|odd| {
        pointer
            .strip_prefix(odd)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// What stands where in an event.
type Said<'e> = BTreeMap<String, &'e Value>;

/// All that an event says, by place. The id follows from the payload as a whole, and the subject is the order's id.
fn said(event: &Value) -> Said<'_> {
    let about = ["/id", "/subject", "/data/assumed", "/data/warnings"];
    let is_about = |place: &str| {
        about.iter().any(|about| {
            place
                .strip_prefix(about)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let mut said: BTreeMap<_, _> = leaves(event).into_iter().collect();
    said.retain(|place, value| !says_nothing(value) && !is_about(place));
    said
}

/// What a reader calls a place in the event; `None` for what another field left in `unmapped`.
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

/// `order.items[].id` for `/order/items/0/id`.
fn field_name(pointer: &str) -> String {
    let mut name = String::new();
    for part in pointer.split('/').skip(1) {
        if part.parse::<u32>().is_ok() {
            name.push_str("[]");
        } else {
            let dot = if name.is_empty() { "" } else { "." };
            let _ = write!(name, "{dot}{part}");
        }
    }
    name
}

fn assumed(event: &Value) -> BTreeSet<String> {
    let pointers = event["data"]["assumed"].as_array().expect("a list").iter();
    pointers
        .filter_map(|pointer| name_of(pointer.as_str()?, "/data/unmapped"))
        .collect()
}

fn says_nothing(value: &Value) -> bool {
    value.is_null() || *value == json!("") || *value == json!([]) || *value == json!({})
}

/// What holds nothing else, and JSON pointers to it.
fn leaves(value: &Value) -> Vec<(String, &Value)> {
    fn walk<'v>(at: &str, value: &'v Value, leaves: &mut Vec<(String, &'v Value)>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    walk(
                        &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
                        value,
                        leaves,
                    );
                }
            }
            Value::Array(elements) if !elements.is_empty() => {
                for (index, value) in elements.iter().enumerate() {
                    walk(&format!("{at}/{index}"), value, leaves);
                }
            }
            leaf => leaves.push((at.to_owned(), leaf)),
        }
    }
    let mut leaves = Vec::new();
    walk("", value, &mut leaves);
    leaves
}

/// The events, but for the one that is all size: its items are like each other.
fn events(provider: &str, but: &[&str]) -> Vec<(String, Value)> {
    let mut events = accepted(provider);
    events.retain(|(name, body)| !but.iter().any(|but| name.contains(but)) && body.to_string().len() < 100_000);
    events
}

/// What each field says in one event or another.
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

/// Other values of the same kind. Which of them a field may have, its reading tells.
fn variations(value: &Value) -> Vec<Value> {
    match value {
        Value::Bool(flag) => vec![json!(!flag)],
        Value::Number(number) => {
            let other = other_digit(number.as_str());
            vec![other.parse::<Number>().map_or(json!(7), Value::Number)]
        }
        Value::String(text) => {
            let mut others = vec![format!("{text}z"), "SE".to_owned(), "SEK".to_owned()];
            // A number, a time, a key.
            others.insert(0, other_digit(text));
            others.retain(|other| other != text);
            others.into_iter().map(Value::String).collect()
        }
        // What it is when it is something is not known here.
        _ => vec![json!("z"), json!(7), json!("2024-01-02T03:04:05Z"), json!(true)],
    }
}

/// The text with another last digit: of a time it stays one.
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

fn names_the_event(provider: &str, pointer: &str) -> bool {
    NAME_THE_EVENT.contains(&(provider, pointer))
}

fn folder(provider: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../functions")
        .join(provider)
}

/// The last column, by field.
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

fn table<P: Provider>(notes: &BTreeMap<String, String>) -> String {
    let reader = Reader::<P>::new();
    let events = events(P::NAME, &INVENTED);
    let seen = seen(&events);
    let mut mapping = Mapping::default();
    // The same in another event of the same shape tells nothing new.
    let mut known = HashSet::new();
    for (_, body) in &events {
        let event = reader.event(body).expect("the event is published");
        mapping.all_assumed.extend(assumed(&event));
        let said = said(&event);
        let leaves = leaves(body);
        let says = leaves.iter().filter(|(_, value)| !says_nothing(value));
        let shape: BTreeSet<_> = says.map(|(pointer, _)| field_name(pointer)).collect();
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
            let found = reader.destinations(body, &said, &pointer, &values);
            mapping.add(&field, &found, names_the_event(P::NAME, &pointer));
        }
    }
    mapping.table(notes)
}

/// Where fields go, in the order in which they were met.
#[derive(Default)]
struct Mapping {
    fields: Vec<String>,
    places: BTreeMap<String, BTreeSet<String>>,
    /// Places by the fields whose values were assumed to be theirs, and by those whose were not.
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
        // What changes whatever the field says is where it goes; the rest depends on what it says.
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
            // What is not understood is not assumed either.
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
            } else if let Some(whole) = self.unmapped_whole(field)
                && !unmapped.contains(&whole)
            {
                unmapped.push(whole);
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

    /// The outermost object or list that holds the field and nothing that is mapped; none for one that only some events have empty.
    fn unmapped_whole(&self, field: &str) -> Option<String> {
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
        let mut wholes = ends.map(|end| &field[..end]);
        let whole = wholes.find(|whole| {
            !self
                .fields
                .iter()
                .any(|inner| is_within(inner, whole) && self.is_mapped(inner))
        });
        whole.map(|whole| format!("`{whole}`"))
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
