//! The faults that are injected.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::model::Plan;
use crate::aws::faults::{Call, Fault, Service};
use crate::lock;
use crate::net::wire::Damage;
use crate::providers::random::draw;
use crate::providers::snipcart::Behaviour;

/// The faults in ten thousandths of the functions' calls to AWS.
const FAULTS: [(usize, &str); 8] = [
    (150, "throttled"),
    (150, "answered 500"),
    (150, "reset"),
    (150, "done, answer lost"),
    (150, "slow"),
    (30, "never answered"),
    (40, "function killed before"),
    (40, "function killed after"),
];

/// The messages that SNS rejects, in ten thousandths, and the number of calls that one such message makes fail.
const POISONED: u64 = 50;
const POISONED_CALLS: usize = 3;

/// Counts by name.
pub(super) type Counts = Arc<Mutex<BTreeMap<String, usize>>>;

pub(super) fn count(counts: &Counts, what: &str) {
    *lock(counts).entry(what.to_owned()).or_default() += 1;
}

/// Decides about the functions' calls to AWS.
pub(super) fn faults(plan: Plan, injected: Counts) -> impl Fn(&Call) -> Option<Fault> {
    let seen = Mutex::new(HashMap::<(String, String), usize>::new());
    let poisoned = Mutex::new(HashMap::<String, usize>::new());
    let published = AtomicUsize::new(0);
    // Now and then SNS is down for everyone.
    let period = (plan.events / 4).max(40);
    move |call| {
        // The calls that check the table and the queue stay undisturbed.
        call.caller.as_ref()?;
        if call.service == Service::Sns && published.fetch_add(1, Ordering::Relaxed) % period >= period * 85 / 100 {
            count(&injected, "SNS down");
            return Some(Fault::DOWN);
        }
        if call.service == Service::Sns && is_poisoned(call, plan.seed, &mut lock(&poisoned)) {
            count(&injected, "one message rejected");
            return Some(Fault::Answer {
                status: 403,
                code: "AuthorizationError",
            });
        }
        let event = event_of(&String::from_utf8_lossy(&call.body));
        let nth = {
            let mut seen = lock(&seen);
            let nth = seen.entry((call.operation.clone(), event.clone())).or_default();
            *nth += 1;
            nth.to_string()
        };
        let words = [call.operation.as_str(), &event, &nth];
        let mut drawn = usize::try_from(draw(plan.seed, &words) % 10_000).unwrap_or_default();
        let (_, kind) = FAULTS.iter().find(|(chance, _)| match drawn.checked_sub(*chance) {
            Some(rest) => {
                drawn = rest;
                false
            }
            None => true,
        })?;
        let server_error = match call.service {
            Service::Sns => "InternalError",
            _ => "InternalServerError",
        };
        count(&injected, kind);
        Some(match *kind {
            "throttled" => Fault::THROTTLED,
            "answered 500" => Fault::Answer {
                status: 500,
                code: server_error,
            },
            "reset" => Fault::Reset,
            "done, answer lost" => Fault::LoseAnswer,
            "slow" => Fault::Slow(Duration::from_millis(50 + 5 * drawn as u64)),
            "never answered" => Fault::Hang,
            "function killed before" => Fault::KillBefore,
            _ => Fault::KillAfter,
        })
    }
}

/// Whether one of the messages of a call makes SNS reject the complete call this time. `calls` counts the calls that
/// failed because of each message.
fn is_poisoned(call: &Call, seed: u64, calls: &mut HashMap<String, usize>) -> bool {
    let body = String::from_utf8_lossy(&call.body);
    let ids = body.split("%22id%22%3A%22").skip(1).filter_map(|rest| rest.get(..64));
    let mut poisoned = ids.filter(|id| draw(seed, &["poisoned", id]) % 10_000 < POISONED);
    poisoned.any(|id| {
        let calls = calls.entry(id.to_owned()).or_default();
        *calls += 1;
        *calls <= POISONED_CALLS
    })
}

/// Decides about requests on a connection that has been used before. Which connections are reused depends on the time
/// that calls take, and is not drawn.
pub(super) fn damages(seed: u64, server: &'static str, injected: Counts) -> impl Fn(&[u8]) -> Option<Damage> {
    let requests = Mutex::new(HashMap::<String, usize>::new());
    move |request| {
        let text = String::from_utf8_lossy(request);
        // The first line of a call to Snipcart identifies it, because it holds the token.
        let line = || text.lines().next().unwrap_or_default().to_owned();
        let what = Some(event_of(&text))
            .filter(|event| !event.is_empty())
            .unwrap_or_else(line);
        let nth = {
            let mut requests = lock(&requests);
            let nth = requests.entry(what.clone()).or_default();
            *nth += 1;
            nth.to_string()
        };
        let (kind, damage) = match draw(seed, &["wire", server, &what, &nth]) % 10_000 {
            0..100 => ("reset on a reused connection", Damage::ResetOnWrite),
            100..200 => ("closed on a reused connection", Damage::LoseAnswer),
            200..230 => ("swallowed on a reused connection", Damage::Swallow),
            _ => return None,
        };
        count(&injected, &format!("{server}: {kind}"));
        Some(damage)
    }
}

/// The first event that a call names; empty if it names none.
fn event_of(body: &str) -> String {
    let marks = [r#""pk":{"S":""#, "%22id%22%3A%22"];
    let found = marks.iter().find_map(|mark| body.split_once(mark));
    found
        .and_then(|(_, rest)| rest.get(..64))
        .unwrap_or_default()
        .to_owned()
}

/// Decides about the calls to Snipcart.
pub(super) fn validation_faults(seed: u64, injected: Counts) -> impl Fn(&str) -> Option<Behaviour> {
    move |path| {
        let (kind, behaviour) = match draw(seed, &["validation", path]) % 10_000 {
            0..100 => ("Snipcart answers 500", Behaviour::Status(500)),
            100..200 => ("Snipcart answers 503", Behaviour::Status(503)),
            200..210 => ("Snipcart never answers", Behaviour::Hang),
            _ => return None,
        };
        count(&injected, kind);
        Some(behaviour)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn call(operation: &str, body: &str) -> Call {
        Call {
            service: Service::DynamoDb,
            operation: operation.to_owned(),
            caller: Some("cartum-1".to_owned()),
            is_retry: false,
            body: Bytes::from(body.to_owned()),
        }
    }

    #[test]
    fn the_same_seed_injects_the_same_faults() {
        let plan = |seed| faults(Plan { events: 1000, seed }, Counts::default());
        let calls: Vec<Call> = (0..2000)
            .map(|index| call("PutItem", &format!(r#"{{"Item":{{"pk":{{"S":"{index:064}"}}}}}}"#)))
            .collect();
        let (one, same, other) = (plan(1), plan(1), plan(2));
        let drawn: Vec<_> = calls.iter().map(&one).collect();
        let backwards: Vec<_> = calls.iter().rev().map(&same).collect();
        assert!(drawn.iter().eq(backwards.iter().rev()), "whatever the order");
        assert_ne!(drawn, calls.iter().map(&other).collect::<Vec<_>>());
        let hit = drawn.iter().flatten().count();
        assert!(
            (120..240).contains(&hit),
            "{hit} of 2000 is far from what the table of faults says"
        );
    }

    #[test]
    fn a_poisoned_message_makes_its_calls_fail_for_a_while() {
        let id = |index: u32| format!("{index:064}");
        let draws = |index: &u32| draw(7, &["poisoned", &id(*index)]) % 10_000 < POISONED;
        let bad = (0..10_000).find(draws).expect("one is drawn");
        let good = (0..10_000).find(|index| !draws(index)).expect("one is not drawn");
        let holding = |ids: &[u32]| {
            let messages: Vec<_> = ids
                .iter()
                .map(|index| format!("%22id%22%3A%22{}%22", id(*index)))
                .collect();
            call("PublishBatch", &messages.concat())
        };
        let mut calls = HashMap::new();
        assert!(!is_poisoned(&holding(&[good]), 7, &mut calls));
        for _ in 0..POISONED_CALLS {
            assert!(is_poisoned(&holding(&[good, bad]), 7, &mut calls));
        }
        assert!(!is_poisoned(&holding(&[good, bad]), 7, &mut calls));
    }

    #[test]
    fn a_call_is_for_the_event_it_names() {
        let id = "a".repeat(64);
        for body in [
            format!(r#"{{"Key":{{"pk":{{"S":"{id}"}}}}}}"#),
            format!("Message=%7B%22id%22%3A%22{id}%22"),
        ] {
            assert_eq!(event_of(&body), id);
        }
        assert_eq!(event_of("{}"), "");
    }
}
