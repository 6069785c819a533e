//! `{"compare":{...}}`: shows what today's mapping would change in stored events.
//!
//! The task normalizes the stored bodies again and compares the result with the stored events. It writes and publishes
//! nothing.

mod difference;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::classify::Classification;
use shared::codes::Code;
use shared::identity::EventId;
use shared::store::{Head, Projection, State, StoreError};

use self::difference::{Difference, differences};
use crate::by_hour::{HourCursor, Period};
use crate::providers::Providers;
use crate::time_left::{Page, TimeLeft};
use crate::{Outbox, TaskError};

/// Bytes of JSON that one answer may take before the task stops. Lambda returns 6 MB at most, and the last page is
/// still added.
const ANSWER: usize = 4_000_000;

/// The number of distinct pointers that are counted, and the bytes of JSON that one of them may take. The rest is
/// counted under [`OTHERS`], which is not a pointer.
const POINTERS: usize = 1_000;
const POINTER_BYTES: usize = 500;
const OTHERS: &str = "others";

/// The events of a provider that were received in a period, or those of one of its shops.
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

/// The result of comparing a page, or all pages so far.
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

impl Compare {
    fn wants(&self, head: &Head) -> bool {
        self.shop.as_deref().is_none_or(|shop| head.shop() == Some(shop))
            // The content of an erased event is gone, and that of a superseded one is compared under its new id.
            && !matches!(head.state, State::Erased | State::Superseded)
    }
}

impl Outbox {
    pub(crate) async fn compare(&self, mut task: Compare, time: TimeLeft) -> Result<Value, TaskError> {
        if !Providers::NAMES.contains(&task.provider.as_str()) {
            let known = Providers::NAMES.join(", ");
            return Err(TaskError::NoTask(format!(
                "unknown provider; the providers are {known}"
            )));
        }
        // A wrong setting is an error of the task, not an outage of one page.
        self.providers.as_ref().map_err(Clone::clone)?;
        let cursor = task.cursor.take();
        let period = Period {
            provider: &task.provider,
            from: task.from,
            to: task.to,
        };
        let mut total = Comparison::default();
        let mut size = 0;
        let walked = self
            .walk_period(period, cursor, Projection::Delivery, time, async |events| {
                let page = self.compare_page(&task, events).await?;
                size += page.add_to(&mut total);
                Ok(if size < ANSWER { Page::More } else { Page::Full })
            })
            .await?;
        tracing::info!(
            compared = total.compared,
            changed = total.changed,
            unreadable = total.unreadable,
            provider = task.provider,
            "compare"
        );
        Ok(walked.answer(json!(total)))
    }

    async fn compare_page(&self, task: &Compare, events: Vec<(EventId, Head)>) -> Result<Comparison, TaskError> {
        let mut page = Comparison::default();
        for (id, head) in events.into_iter().filter(|(_, head)| task.wants(head)) {
            match self.compare_event(task, &id, &head, &mut page.pointers).await {
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
        Ok(page)
    }

    async fn compare_event(
        &self,
        task: &Compare,
        id: &EventId,
        head: &Head,
        pointers: &mut BTreeMap<String, u64>,
    ) -> Result<Option<Changed>, TaskError> {
        // One event is read at a time, as for publishing: a body may be many times as large as a message.
        let _reading = self.reading.lock().await;
        let (today, event) = self.classify_today(id, head).await?;
        let stored = stored_as(head);
        let differences = match (head.has_event(), event) {
            (true, Some(event)) => {
                let was = self.store.event(id, head).await?;
                differences(&parse(&was.json)?, &parse(&event)?, task.values, pointers)
            }
            // That no mapping understands a dismissed delivery is not a change: a person has seen it.
            (false, None) if is_dismissed(head) => return Ok(None),
            _ => Vec::new(),
        };
        let has_changed = stored != today || !differences.is_empty();
        Ok(has_changed.then(|| Changed {
            event_id: id.clone(),
            stored,
            today,
            differences,
        }))
    }

    /// The type that the event of a stored delivery would have today, and its JSON; or the state of a delivery without
    /// an event.
    async fn classify_today(&self, id: &EventId, head: &Head) -> Result<(String, Option<String>), TaskError> {
        let delivery = self.store.delivery(id, head).await?;
        let providers = self.providers.as_ref().map_err(Clone::clone)?;
        let classified = head
            .provider()
            .and_then(|provider| providers.classify(provider, &delivery));
        let Some((provider, classified)) = classified else {
            return Ok(("quarantined: unknown_provider".to_owned(), None));
        };
        Ok(match classified.classification {
            Classification::Order(mut event) => {
                // A published conflict has an id of its own.
                let of_conflict =
                    EventId::of_conflict(provider, delivery.shop(), &classified.key, head.payload_sha256());
                if of_conflict == *id {
                    event.id = of_conflict;
                }
                (event.r#type.as_str().to_owned(), Some(event.to_json()))
            }
            Classification::Unsupported => (State::Unsupported.as_str().to_owned(), None),
            Classification::Quarantined(reason) => (format!("quarantined: {}", reason.as_str()), None),
        })
    }
}

impl Comparison {
    /// Adds this page to the total. Returns the bytes that it adds to the answer.
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

fn parse(json: &str) -> Result<Value, StoreError> {
    serde_json::from_str(json).map_err(|_| StoreError::Corrupt("event"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
