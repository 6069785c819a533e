//! The fields that stay in `unmapped`: each provider lists them with the reasons.

use std::collections::BTreeSet;

use serde_json::json;
use tests::payloads::leaves;
use tests::providers::Tested;
use tests::reader::Reader;

use crate::field_coverage::{documented, warns_of};

/// A field that differs from the documentation is not listed: the warnings of the event name it.
pub(crate) fn every_unmapped_field_has_a_reason<P: Tested>() {
    let list = P::FACTS.unmapped;
    let reader = Reader::<P>::new();
    let mut without_reason = BTreeSet::new();
    let mut unused: BTreeSet<_> = list.iter().map(|(pattern, _)| *pattern).collect();
    assert_eq!(unused.len(), list.len(), "a pointer is listed twice");
    for (name, body) in documented(P::NAME) {
        let event = reader.event_json(&body).expect("the event is published");
        for (pointer, value) in leaves(&event["data"]["unmapped"]) {
            // An element that was read leaves an empty object, so that the other elements keep their indices.
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
        assert!(
            reason.split(' ').count() > 2,
            "{pattern}: {reason:?} is too short for a reason"
        );
    }
    let without_reason: Vec<_> = without_reason.into_iter().collect();
    assert!(
        without_reason.is_empty(),
        "map these fields, or give a reason in functions/{}/src/unmapped.rs:\n{}",
        P::NAME,
        without_reason.join("\n")
    );
    assert!(unused.is_empty(), "no event has these fields in unmapped: {unused:?}");
}

/// Whether `pattern` matches `pointer`: `*` is any one part, `**` at the end is everything below.
pub(crate) fn is_matched(pattern: &str, pointer: &str) -> bool {
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
fn a_star_matches_one_part_and_two_stars_match_the_rest() {
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
