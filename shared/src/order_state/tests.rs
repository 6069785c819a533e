use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use proptest::prelude::*;
use proptest::sample::subsequence;
use serde_json::json;

use super::*;
use crate::event::{Order, OrderEvent};

fn events_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../events")
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// The files of a folder whose names end with `end`, by name.
fn files(folder: &Path, end: &str) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = paths
        .filter_map(|path| Some((path.file_name()?.to_str()?.strip_suffix(end)?.to_owned(), path.clone())))
        .collect();
    files.sort();
    files
}

/// Every golden event.
fn goldens() -> Vec<Value> {
    let folders = fs::read_dir(events_folder()).expect("events/");
    let folders = folders.map(|folder| folder.expect("an entry").path());
    let folders = folders.filter(|folder| folder.is_dir());
    let goldens: Vec<_> = folders
        .flat_map(|folder| files(&folder, ".normalized.json"))
        .map(|(_, path)| read(&path))
        .collect();
    assert!(goldens.len() > 150, "only {} golden events were found", goldens.len());
    goldens
}

fn histories() -> Vec<(String, PathBuf)> {
    let histories = files(&events_folder().join("histories"), ".json");
    assert!(histories.len() > 30, "only {} histories were found", histories.len());
    histories
}

/// A history of events and tombstones in the form of `events/histories`.
fn history<'v>(events: impl IntoIterator<Item = &'v Value>) -> History {
    let mut history = History::default();
    for event in events {
        if event["erased"] == true {
            history.erase(EventId::deserialize(&event["id"]).expect("an id"));
        } else {
            history.add_value(event.clone()).expect("an event");
        }
    }
    history
}

fn states(events: &[Value]) -> Value {
    serde_json::to_value(history(events).states()).expect("JSON")
}

#[test]
fn every_history_results_in_its_states() {
    for (name, path) in histories() {
        let mut file = read(&path);
        let states = states(file["events"].as_array().expect("events"));
        if env::var_os("UPDATE_GOLDEN").is_some() {
            file["state"] = states.clone();
            let text = serde_json::to_string_pretty(&file).expect("JSON") + "\n";
            fs::write(&path, text).expect("the history can be written");
        }
        assert_eq!(file["state"], states, "{name}: {}", file["description"]);
        let fields: Vec<_> = file.as_object().expect("an object").keys().collect();
        assert_eq!(fields, ["description", "events", "rule", "state"], "{name}");
    }
}

#[test]
fn every_permutation_of_a_history_results_in_the_same_states() {
    for (name, path) in histories() {
        let file = read(&path);
        let events = file["events"].as_array().expect("events");
        for permutation in permutations(events.len()) {
            let permuted: Vec<_> = permutation.iter().map(|index| events[*index].clone()).collect();
            assert_eq!(states(&permuted), file["state"], "{name}, in the order {permutation:?}");
            let replayed = [permuted.as_slice(), events].concat();
            assert_eq!(
                states(&replayed),
                file["state"],
                "{name}, {permutation:?} and all again"
            );
        }
    }
}

/// All orders of the numbers below `count`.
fn permutations(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let shorter = permutations(last).into_iter();
    shorter
        .flat_map(|rest| {
            (0..=rest.len()).map(move |place| {
                let mut permutation = rest.clone();
                permutation.insert(place, last);
                permutation
            })
        })
        .collect()
}

#[test]
fn the_state_after_one_event_is_what_the_event_states() {
    for golden in goldens() {
        let event = OrderEvent::deserialize(&golden).expect("an event");
        let mut history = History::default();
        history.add(&event);
        let states = history.states();
        let Some(id) = &event.data.order.id else {
            assert!(states.is_empty(), "{}", event.id);
            continue;
        };
        let state = &states[&format!("{}/{id}", event.source)];
        let mut order = event.data.order.clone();
        // No order is without items.
        order.items = order.items.filter(|items| !items.is_empty());
        let folded = Order::deserialize(Value::Object(state.order.clone())).expect("an order");
        assert_eq!(folded, order, "{}", event.id);
        assert_eq!(state.test, event.data.test);
        assert_eq!(state.refunds.len(), usize::from(event.data.refund.is_some()));
        let json: Value = serde_json::to_value(state).expect("JSON");
        let read = OrderState::deserialize(&json).expect("a state");
        assert_eq!(&read, state, "{}", event.id);
    }
}

#[test]
fn all_golden_events_together_fold_to_the_same_states_in_any_order() {
    let goldens = goldens();
    let together = states(&goldens);
    let reversed: Vec<_> = goldens.iter().rev().cloned().collect();
    assert_eq!(states(&reversed), together);
    let (even, odd): (Vec<_>, Vec<_>) = goldens.iter().enumerate().partition(|(index, _)| index % 2 == 0);
    let mut merged = history(odd.into_iter().map(|(_, event)| event));
    merged.merge(history(even.into_iter().map(|(_, event)| event)));
    assert_eq!(serde_json::to_value(merged.states()).expect("JSON"), together);
}

#[test]
fn what_is_not_an_event_is_not_added() {
    let mut history = History::default();
    for text in [
        "",
        "[]",
        "{}",
        r#"{"id":"1","source":"/a/b","type":"order.paid","time":"yesterday"}"#,
    ] {
        assert!(history.add_json(text).is_err(), "{text}");
    }
    assert!(history.states().is_empty());
}

/// A word, or null.
fn word(words: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::option::of(prop::sample::select(words)).prop_map(Value::from)
}

fn some_items() -> impl Strategy<Value = Value> {
    let line = (
        word(&["1", "2", "3"]),
        word(&["pending", "shipped"]),
        word(&["T1", "T2"]),
        1..3,
    );
    let line = line.prop_map(|(id, status, tracking_number, quantity)| {
        json!({"id": id, "options": [], "quantity": quantity, "status": status, "tracking_number": tracking_number})
    });
    prop::option::of(prop::collection::vec(line, 0..4)).prop_map(Value::from)
}

fn some_adjustments() -> impl Strategy<Value = Value> {
    let adjustment = (word(&["r1", "r2"]), word(&["5", "7"]), word(&["Broken"]));
    let adjustment = adjustment.prop_map(|(id, amount, reason)| json!({"id": id, "amount": amount, "reason": reason}));
    prop::option::of(prop::collection::vec(adjustment, 0..3)).prop_map(Value::from)
}

/// An event of one of a few orders, with few values, so that ties and repeats are common; or a tombstone.
fn some_event() -> impl Strategy<Value = Value> {
    let identity = (
        0..12_u8,
        word(&["o1", "o2"]),
        0..3_u8,
        prop::option::of(0..3_u8),
        0..2_u8,
    );
    let words = (
        word(&["pending", "shipped", "brand_new"]),
        word(&["Neu", "Versandt"]),
        word(&["o1", "N-1", "N-2"]),
        word(&["A", "B"]),
        word(&["C", "D"]),
        word(&["1", "2"]),
    );
    let flags = (prop::bool::ANY, prop::bool::ANY, 0..20_u8, 0..4_u8);
    let origin = prop::sample::select(&["webhook", "reconciliation"][..]);
    let lists = (some_items(), some_adjustments());
    (identity, words, flags, lists, origin).prop_map(|(identity, words, flags, (items, adjustments), origin)| {
        let (id, order, time, updated_at, received_at) = identity;
        let (status, provider_status, number, line1, line2, total) = words;
        let (partial, test, erased, omitted) = flags;
        let id = format!("{id:064}");
        if erased == 0 {
            return json!({"id": id, "erased": true});
        }
        let at = |second| format!("2026-01-01T00:00:0{second}Z");
        let omitted: &[&str] = match omitted {
            0 => &["/data/unmapped", "/data/order/items"],
            _ => &[],
        };
        json!({
            "id": id, "source": "/selldone/main", "type": "order.updated", "time": at(time),
            "data": {
                "provider": "selldone", "shop": "main", "test": test, "received_at": at(received_at),
                "origin": origin, "partial": partial, "omitted": omitted, "refund": total.as_str().map(|total| json!({"amount": total})),
                "order": {
                    "id": order, "number": number, "updated_at": updated_at.map(at),
                    "status": status, "provider_status": provider_status, "added": {"by": line2},
                    "shipping_address": line1.as_str().map(|_| json!({"line1": line1, "line2": line2})),
                    "totals": {"total": total}, "shipping": {"tracking_number": line1, "tracking_url": line2},
                    "payment": {}, "items": if omitted.is_empty() { items } else { Value::Null },
                    "adjustments": adjustments,
                }
            }
        })
    })
}

fn some_events() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(some_event(), 1..10)
}

/// Events, and the same events in another order with some of them repeated.
fn events_and_arrivals() -> impl Strategy<Value = (Vec<Value>, Vec<Value>)> {
    some_events().prop_flat_map(|events| {
        let repeated = subsequence(events.clone(), 0..=events.len());
        let arrivals = repeated.prop_flat_map({
            let events = events.clone();
            move |repeated| Just([events.as_slice(), &repeated].concat()).prop_shuffle()
        });
        (Just(events), arrivals)
    })
}

/// The facts of a state whose pointers do not depend on lists.
fn facts(state: &OrderState) -> impl Iterator<Item = (&str, &EventId)> {
    let facts = state.stated_by.iter().map(|(pointer, id)| (pointer.as_str(), id));
    facts.filter(|(pointer, _)| !pointer.starts_with("/order/items") && !pointer.starts_with("/order/adjustments"))
}

proptest! {
    #[test]
    fn arrival_and_repeats_do_not_matter((events, arrivals) in events_and_arrivals()) {
        prop_assert_eq!(states(&events), states(&arrivals));
    }

    #[test]
    fn merged_histories_are_the_history_of_all((events, arrivals) in events_and_arrivals(), split in 0..9_usize) {
        let (one, other) = arrivals.split_at(split.min(arrivals.len()));
        let (one, other, all) = (history(one), history(other), history(&events));
        for (mut first, second) in [(one.clone(), other.clone()), (other, one), (all.clone(), all.clone())] {
            first.merge(second);
            prop_assert_eq!(first.states(), all.states());
        }
    }

    #[test]
    fn merging_is_associative(one in some_events(), two in some_events(), three in some_events()) {
        let (mut left, mut right) = (history(&one), history(&two));
        left.merge(history(&two));
        left.merge(history(&three));
        right.merge(history(&three));
        let mut nested = history(&one);
        nested.merge(right);
        prop_assert_eq!(left.states(), nested.states());
    }

    #[test]
    fn an_erased_event_leaves_nothing(events in some_events(), which in any::<prop::sample::Index>()) {
        let erased = &which.get(&events)["id"];
        let rest: Vec<_> = events.iter().filter(|event| event["id"] != *erased).cloned().collect();
        let mut history = history(&events);
        history.erase(EventId::deserialize(erased).expect("an id"));
        prop_assert_eq!(serde_json::to_value(history.states()).expect("JSON"), states(&rest));
    }

    #[test]
    fn a_further_event_removes_no_fact(events in some_events(), further in some_event()) {
        prop_assume!(further["erased"] != true && events.iter().all(|event| event["id"] != further["id"]));
        let before = history(&events).states();
        let after = history(events.iter().chain([&further])).states();
        for (key, before) in before {
            let known: BTreeSet<_> = facts(&after[&key]).map(|(pointer, _)| pointer).collect();
            for (pointer, _) in facts(&before) {
                // A word of the provider belongs to the status that it is stated with, a URL to its tracking number.
                let leader = match pointer {
                    "/order/provider_status" => Some("/status"),
                    "/order/shipping/tracking_url" => Some("/shipping/tracking_number"),
                    _ => None,
                };
                let states_another = leader.is_some_and(|leader| {
                    let stated = further["data"]["order"].pointer(leader).expect("a fact or null");
                    !stated.is_null() && json!(before.order).pointer(leader) != Some(stated)
                });
                prop_assert!(known.contains(pointer) || states_another, "{} of {} is gone", pointer, key);
            }
            let count = |state: &OrderState, list: &str| state.order.get(list).and_then(Value::as_array).map_or(0, Vec::len);
            prop_assert!(count(&after[&key], "items") > 0 || count(&before, "items") == 0);
        }
    }

    #[test]
    fn each_fact_is_stated_by_its_event(events in some_events()) {
        let history = history(&events);
        for state in history.states().values() {
            let json = json!({"order": state.order});
            for (pointer, id) in facts(state) {
                let by = events.iter().filter(|event| event["id"] == id.as_str());
                let stated: Vec<_> = by.map(|event| event.pointer(&format!("/data{pointer}"))).collect();
                prop_assert!(stated.contains(&json.pointer(pointer)), "{}: {:?} is not in {:?}", pointer, json, stated);
            }
            let ids: BTreeSet<_> = state.events.iter().map(|event| &event.id).collect();
            prop_assert!(state.stated_by.values().all(|id| ids.contains(id)));
        }
    }
}
