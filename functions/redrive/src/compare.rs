//! `{"compare":{...}}`: what today's mapping would change in stored events.
//!
//! The task normalizes the stored bodies again and compares the result with the stored events. It writes and publishes nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::classify::Classification;
use shared::codes::Code;
use shared::identity::EventId;
use shared::store::{Head, Projection, State, StoreError};
use tokio::time::{Instant, timeout_at};

use crate::by_hour::HourCursor;
use crate::providers::Providers;
use crate::{Outbox, TaskError, TimeLeft};

/// Bytes of JSON that one answer may take before the task stops. Lambda returns 6 MB at most, and the last page is still added.
const ANSWER: usize = 4_000_000;

/// Differences that are listed for one event. All of them are counted in `pointers`.
const LISTED: usize = 200;

/// Bytes of JSON that the differences of one event may take. Beyond them only JSON types are shown, and then nothing.
const LISTED_BYTES: usize = 40_000;

/// Distinct pointers that are counted, and the bytes of JSON that one of them may take. The rest is counted under [`OTHERS`], which
/// is no pointer.
const POINTERS: usize = 1_000;
const POINTER_BYTES: usize = 500;
const OTHERS: &str = "others";

/// The events to compare: those of a provider that were received in a period, or of one of its shops.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    provider: String,
    shop: Option<String>,
    /// Received at this time or later.
    from: Timestamp,
    /// Received before this time.
    to: Timestamp,
    /// Shows the values themselves. They are the customers' data; without this only their JSON types are shown.
    #[serde(default)]
    values: bool,
    /// Where an earlier run stopped.
    cursor: Option<HourCursor>,
}

/// What the task has found so far.
#[derive(Default, Serialize)]
struct Comparison {
    /// Events that were compared.
    compared: u64,
    /// Events that today's mapping would change.
    changed: u64,
    /// Events whose delivery cannot be read.
    unreadable: u64,
    /// How often each JSON pointer differs, with `*` for positions in lists.
    pointers: BTreeMap<String, u64>,
    events: Vec<Changed>,
}

/// An event that today's mapping would change.
#[derive(Serialize)]
struct Changed {
    event_id: EventId,
    /// The stored event's type, or the state of a delivery without an event.
    stored: String,
    /// The type that the event would have today; or `unsupported`, or `quarantined` and the reason.
    today: String,
    differences: Vec<Difference>,
}

/// A value that differs.
#[derive(Debug, PartialEq, Serialize)]
struct Difference {
    pointer: String,
    stored: Value,
    today: Value,
}

impl Outbox {
    pub(crate) async fn compare(&self, task: Compare, time: TimeLeft) -> Result<Value, TaskError> {
        if !Providers::NAMES.contains(&task.provider.as_str()) {
            let known = Providers::NAMES.join(", ");
            return Err(TaskError::NoTask(format!("compare knows the providers {known}")));
        }
        let mut place = task.cursor.clone().unwrap_or_else(|| HourCursor::at(task.from));
        let mut compared = Comparison::default();
        let mut size = 0;
        let mut outage = None;
        while place.is_before(task.to) && size < ANSWER && Instant::now() < time.stop_at {
            match timeout_at(time.give_up_at, self.compare_page(&task, &place)).await {
                Ok(Ok((page, next))) => {
                    size += page.add_to(&mut compared);
                    place = next;
                }
                Ok(Err(error)) => {
                    outage = Some(error.to_string());
                    break;
                }
                Err(_) => {
                    outage = Some("no answer in time".to_owned());
                    break;
                }
            }
        }
        tracing::info!(
            compared = compared.compared,
            changed = compared.changed,
            unreadable = compared.unreadable,
            provider = task.provider,
            "compare"
        );
        let cursor = place.is_before(task.to).then_some(place);
        let mut answer = json!(compared);
        answer["done"] = cursor.is_none().into();
        answer["cursor"] = json!(cursor);
        answer["outage"] = json!(outage);
        Ok(answer)
    }

    async fn compare_page(&self, task: &Compare, place: &HourCursor) -> Result<(Comparison, HourCursor), TaskError> {
        let (ids, last) = self.received(&task.provider, place).await?;
        let mut page = Comparison::default();
        for (id, head) in self.store.heads(&ids, Projection::Delivery).await? {
            let received = head
                .received_at()
                .is_some_and(|time| (task.from..task.to).contains(&time));
            let wanted = received
                && task.shop.as_deref().is_none_or(|shop| head.shop() == Some(shop))
                // What these hold was erased, or is compared under the id that replaced theirs.
                && !matches!(head.state, State::Erased | State::Superseded);
            if !wanted {
                continue;
            }
            match self.compare_one(task, &id, &head, &mut page.pointers).await {
                Ok(changed) => {
                    page.compared += 1;
                    page.changed += u64::from(changed.is_some());
                    page.events.extend(changed);
                }
                Err(TaskError::Store(error @ StoreError::Corrupt(_))) => {
                    tracing::error!(
                        code = Code::CorruptItem.as_str(),
                        event_id = %id,
                        cause = %error,
                        "a stored delivery cannot be read"
                    );
                    page.unreadable += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok((page, place.next(last)))
    }

    async fn compare_one(
        &self,
        task: &Compare,
        id: &EventId,
        head: &Head,
        pointers: &mut BTreeMap<String, u64>,
    ) -> Result<Option<Changed>, TaskError> {
        // Read one at a time, as for publishing: a body may be many times as large as a message.
        let _reading = self.reading.lock().await;
        let delivery = self.store.delivery(id, head).await?;
        let providers = self.providers.as_ref().map_err(Clone::clone)?;
        let understood = head
            .provider()
            .and_then(|provider| providers.classify(provider, &delivery));
        let of_conflict = understood.as_ref().map(|(provider, classified)| {
            EventId::of_conflict(provider, delivery.shop(), &classified.key, head.payload_sha256())
        });
        let (today, event) = match understood.map(|(_, classified)| classified.classification) {
            Some(Classification::Order(mut event)) => {
                // A conflict that was published has an id of its own.
                if of_conflict.as_ref() == Some(id) {
                    event.id = id.clone();
                }
                (event.r#type.as_str().to_owned(), Some(event.to_json()))
            }
            Some(Classification::Unsupported) => (State::Unsupported.as_str().to_owned(), None),
            Some(Classification::Quarantined(reason)) => (format!("quarantined: {}", reason.as_str()), None),
            None => ("quarantined: unknown_provider".to_owned(), None),
        };
        let was = stored_as(head);
        let differences = match (head.has_event(), event) {
            (true, Some(event)) => differences(
                &read(&self.store.event(id, head).await?.json)?,
                &read(&event)?,
                task.values,
                pointers,
            ),
            // A person has looked at a dismissed delivery: that no mapping understands it is no news.
            (false, None) if is_dismissed(head) => return Ok(None),
            _ => Vec::new(),
        };
        Ok((was != today || !differences.is_empty()).then(|| Changed {
            event_id: id.clone(),
            stored: was,
            today,
            differences,
        }))
    }
}

impl Comparison {
    /// Adds this page to the total, and returns the bytes that it adds to the answer.
    fn add_to(self, total: &mut Self) -> usize {
        total.compared += self.compared;
        total.changed += self.changed;
        total.unreadable += self.unreadable;
        let mut size = json!(self.events).to_string().len();
        for (pointer, count) in self.pointers {
            if let Some(known) = total.pointers.get_mut(&pointer) {
                *known += count;
                continue;
            }
            let bytes = json!(pointer).to_string().len();
            if total.pointers.len() < POINTERS && bytes <= POINTER_BYTES {
                size += bytes;
                total.pointers.insert(pointer, count);
            } else {
                *total.pointers.entry(OTHERS.to_owned()).or_default() += count;
            }
        }
        total.events.extend(self.events);
        size
    }
}

/// The stored event's type; or the state of a delivery without an event, with its reason.
fn stored_as(head: &Head) -> String {
    match (head.event_type(), head.reason) {
        (Some(event_type), _) => event_type.to_owned(),
        (None, Some(reason)) if head.state == State::Quarantined => format!("quarantined: {}", reason.as_str()),
        (None, _) => head.state.as_str().to_owned(),
    }
}

fn is_dismissed(head: &Head) -> bool {
    head.state == State::Unsupported && head.reason.is_some()
}

fn read(json: &str) -> Result<Value, TaskError> {
    Ok(serde_json::from_str(json).map_err(|_| StoreError::Corrupt("event"))?)
}

/// The values that differ, and in `pointers` a count of each pointer.
fn differences(
    stored: &Value,
    today: &Value,
    show_values: bool,
    pointers: &mut BTreeMap<String, u64>,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut size = 0;
    let mut walk = vec![(String::new(), String::new(), Some(stored), Some(today))];
    while let Some((pointer, pattern, stored, today)) = walk.pop() {
        match (stored, today) {
            (Some(Value::Object(stored)), Some(Value::Object(today))) => {
                for name in names(stored, today).into_iter().rev() {
                    let step = name.replace('~', "~0").replace('/', "~1");
                    walk.push((
                        format!("{pointer}/{step}"),
                        format!("{pattern}/{step}"),
                        stored.get(name),
                        today.get(name),
                    ));
                }
            }
            (Some(Value::Array(stored)), Some(Value::Array(today))) => {
                for index in (0..stored.len().max(today.len())).rev() {
                    walk.push((
                        format!("{pointer}/{index}"),
                        format!("{pattern}/*"),
                        stored.get(index),
                        today.get(index),
                    ));
                }
            }
            (stored, today) if stored == today => {}
            (stored, today) => {
                *pointers.entry(pattern).or_default() += 1;
                if found.len() >= LISTED {
                    continue;
                }
                let listed = |show_values| {
                    let difference = Difference {
                        pointer: pointer.clone(),
                        stored: shown(stored, show_values),
                        today: shown(today, show_values),
                    };
                    let bytes = json!(difference).to_string().len();
                    (size + bytes <= LISTED_BYTES).then_some((difference, bytes))
                };
                if let Some((difference, bytes)) = listed(show_values).or_else(|| listed(false)) {
                    size += bytes;
                    found.push(difference);
                }
            }
        }
    }
    found
}

/// The names of both objects, each once, in the order of the first and then of the second.
fn names<'a>(stored: &'a Map<String, Value>, today: &'a Map<String, Value>) -> Vec<&'a str> {
    let added = today.keys().filter(|name| !stored.contains_key(*name));
    stored.keys().chain(added).map(String::as_str).collect()
}

/// The value as the answer shows it: the value itself or the name of its JSON type, or `absent` if the pointer leads nowhere.
fn shown(value: Option<&Value>, show_values: bool) -> Value {
    match value {
        None => json!("absent"),
        Some(value) if show_values => json!({"value": value}),
        Some(Value::Null) => json!("null"),
        Some(Value::Bool(_)) => json!("boolean"),
        Some(Value::Number(_)) => json!("number"),
        Some(Value::String(_)) => json!("string"),
        Some(Value::Array(_)) => json!("array"),
        Some(Value::Object(_)) => json!("object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_listed_by_pointer_without_values() {
        let stored = json!({"a": {"b/c": "secret", "same": 1}, "list": [1, 2], "gone": true});
        let today = json!({"a": {"b/c": null, "same": 1}, "list": [1, 3, 4], "new": {}});
        let mut pointers = BTreeMap::new();
        let found = differences(&stored, &today, false, &mut pointers);
        let listed: Vec<_> = found
            .iter()
            .map(|found| {
                (
                    found.pointer.as_str(),
                    found.stored.as_str().unwrap(),
                    found.today.as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            listed,
            [
                ("/a/b~1c", "string", "null"),
                ("/gone", "boolean", "absent"),
                ("/list/1", "number", "number"),
                ("/list/2", "absent", "number"),
                ("/new", "absent", "object"),
            ]
        );
        assert_eq!(pointers["/list/*"], 2);
    }

    #[test]
    fn values_are_shown_on_request() {
        let (stored, today) = (json!({"a": "1.50"}), json!({"a": "1.5"}));
        let found = differences(&stored, &today, true, &mut BTreeMap::new());
        assert_eq!(
            found,
            [Difference {
                pointer: "/a".to_owned(),
                stored: json!({"value": "1.50"}),
                today: json!({"value": "1.5"}),
            }]
        );
    }

    #[test]
    fn large_values_are_shown_as_types() {
        let stored = json!({"a": "x".repeat(LISTED_BYTES), "b": "small"});
        let today = json!({"a": 1, "b": 2});
        let found = differences(&stored, &today, true, &mut BTreeMap::new());
        assert_eq!(found[0].stored, json!("string"));
        assert_eq!(found[1].stored, json!({"value": "small"}));
        let long = json!({"y".repeat(LISTED_BYTES): 1});
        let mut pointers = BTreeMap::new();
        assert_eq!(differences(&long, &json!({}), false, &mut pointers), []);
        assert_eq!(pointers.len(), 1, "it is counted");
    }

    #[test]
    fn an_answer_counts_a_limited_number_of_pointers() {
        let mut total = Comparison::default();
        let names = (0..POINTERS + 50).map(|index| format!("/{index:05}"));
        let mut page = Comparison {
            pointers: names.map(|name| (name, 1)).collect(),
            ..Comparison::default()
        };
        page.pointers.insert("/z".repeat(POINTER_BYTES), 1);
        let size = page.add_to(&mut total);
        assert_eq!(total.pointers.len(), POINTERS + 1);
        assert_eq!(total.pointers[OTHERS], 51);
        assert!(size >= POINTERS * 8, "{size}");
    }

    #[test]
    fn differences_beyond_the_limit_are_counted() {
        let stored = json!((0..500).collect::<Vec<_>>());
        let mut pointers = BTreeMap::new();
        let found = differences(&stored, &json!([]), false, &mut pointers);
        assert_eq!((found.len(), pointers["/*"]), (LISTED, 500));
    }
}
