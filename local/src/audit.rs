//! Runs the task `audit` of redrive to its end, validates the stored events against the JSON Schema, and sums up.

mod books;
mod report;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jsonschema::Validator;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::books::{Book, Place};
use crate::Error;
use crate::project::settings::REDRIVE;

/// The JSON Schema of the event.
const SCHEMA: &str = include_str!("../../shared/schema/order-event.v1.schema.json");

/// What is audited.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Only this provider.
    pub provider: Option<String>,
    /// Only this shop.
    pub shop: Option<String>,
    /// Events that were received at or after this time.
    pub from: Timestamp,
    /// Events that were received before this time.
    pub to: Timestamp,
    /// Whether the complete table is read, for parts and events that no index names.
    pub scan: bool,
    /// Whether orphaned parts are deleted.
    pub repair: bool,
}

/// A fault of a stored item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// The id of the event; `None` for a fault of a day.
    pub event_id: Option<String>,
    /// The SHA-256 of the body, if the item is a conflict of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<String>,
    /// The name of the part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// The provider's slug.
    pub provider: Option<String>,
    /// The operator's name for the shop.
    pub shop: Option<String>,
    /// The time of receipt.
    pub received_at: Option<String>,
    /// The word for the fault.
    pub fault: String,
    /// What is wrong.
    pub description: String,
    /// What to do.
    pub action: String,
}

/// The result of an audit.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Audit {
    /// The provider to which the audit was limited.
    pub provider: Option<String>,
    /// The shop to which the audit was limited.
    pub shop: Option<String>,
    /// The beginning of the period.
    pub from: Timestamp,
    /// The end of the period.
    pub to: Timestamp,
    /// The books by provider, shop and day.
    pub books: Vec<Book>,
    /// The faults.
    pub faults: Vec<Fault>,
    /// The parts of large deliveries that no event refers to. Runs of redrive delete them.
    pub orphans: Vec<Value>,
    /// The parts that were deleted.
    pub removed: Vec<Value>,
    /// The number of stored events that were validated against the JSON Schema.
    pub validated: u64,
    /// The events that are too large for an answer, and were not validated.
    pub not_validated: Vec<String>,
}

impl Audit {
    /// Whether all books balance and no item has a fault.
    pub fn is_balanced(&self) -> bool {
        self.faults.is_empty() && self.books.iter().all(Book::is_balanced)
    }

    /// Adds a fault for each day that has fewer events than in an earlier audit of the same scope, and returns the days
    /// whose digest is another one.
    ///
    /// An erasure deletes the conflicts of its event, so fewer conflicts are no fault if more events are erased.
    pub fn compare_with(&mut self, earlier: &Self) -> Vec<Place> {
        let mut changed = Vec::new();
        for book in &earlier.books {
            let place = book.place();
            let now = self.books.iter().find(|now| now.place() == place);
            let is_changed = now.is_none_or(|now| now.digest != book.digest);
            let gone = match now {
                Some(now) if now.erased > book.erased => {
                    let erased_conflicts = book.conflicts.saturating_sub(now.conflicts);
                    book.received().saturating_sub(now.received() + erased_conflicts)
                }
                Some(now) => book.received().saturating_sub(now.received()),
                None => book.received(),
            };
            if gone > 0 {
                self.faults.push(Fault::of_day(&place, gone));
            }
            if is_changed {
                changed.push(place);
            }
        }
        changed
    }
}

impl Fault {
    fn of_day(place: &Place, gone: u64) -> Self {
        Self {
            event_id: None,
            conflict: None,
            part: None,
            provider: Some(place.provider.clone()),
            shop: Some(place.shop.clone()),
            received_at: Some(place.day.clone()),
            fault: "events_gone".to_owned(),
            description: format!("{gone} fewer events than in the earlier audit"),
            action: "restore the table to a new one from point-in-time recovery, and compare the day's events; a \
                     tombstone whose DeduplicationDays are over is deleted by design"
                .to_owned(),
        }
    }
}

/// One answer of the task.
#[derive(Deserialize)]
struct Answer {
    orphans: Vec<Value>,
    #[serde(default)]
    removed: Vec<Value>,
    #[serde(default)]
    books: Vec<Book>,
    #[serde(default)]
    faults: Vec<Fault>,
    #[serde(default)]
    events: Vec<Value>,
    #[serde(default)]
    too_large: Vec<String>,
    done: bool,
    cursor: Value,
    #[serde(default)]
    outage: Option<String>,
}

/// Audits a table. `invoke` invokes redrive with a payload, and `progress` gets the number of items that have been read.
pub async fn audit(
    scope: &Scope,
    invoke: impl AsyncFn(Value) -> Result<Value, Error>,
    progress: impl Fn(u64),
) -> Result<Audit, Error> {
    let failed = |what: String| Error::Invoke {
        function: REDRIVE.to_owned(),
        what,
    };
    let schema = validator()?;
    let mut task = json!({
        "from": scope.from,
        "to": scope.to,
        "scan": scope.scan,
        "repair": scope.repair,
        "events": true,
    });
    for (name, value) in [("provider", &scope.provider), ("shop", &scope.shop)] {
        if let Some(value) = value {
            task[name] = value.as_str().into();
        }
    }
    let mut audit = Audit {
        provider: scope.provider.clone(),
        shop: scope.shop.clone(),
        from: scope.from,
        to: scope.to,
        ..Audit::default()
    };
    let mut books = BTreeMap::<Place, Book>::new();
    let mut faults = BTreeSet::new();
    loop {
        let answer = invoke(json!({"audit": task})).await?;
        let answer: Answer = serde_json::from_value(answer)
            .map_err(|error| failed(format!("the answer to audit is not readable: {error}")))?;
        for book in answer.books {
            match books.entry(book.place()) {
                Entry::Occupied(mut known) => known.get_mut().add(&book),
                Entry::Vacant(new) => {
                    new.insert(book);
                }
            }
        }
        audit.validated += u64::try_from(answer.events.len()).unwrap_or_default();
        faults.extend(answer.faults);
        faults.extend(answer.events.iter().filter_map(|event| invalid(&schema, event)));
        audit.orphans.extend(answer.orphans);
        audit.removed.extend(answer.removed);
        audit.not_validated.extend(answer.too_large);
        progress(books.values().map(Book::received).sum());
        if answer.done {
            audit.books = books.into_values().collect();
            audit.faults = faults.into_iter().collect();
            return Ok(audit);
        }
        if let Some(cause) = answer.outage {
            return Err(failed(format!(
                "audit was stopped by an outage ({cause}). Run it again later."
            )));
        }
        task["cursor"] = answer.cursor;
    }
}

fn validator() -> Result<Validator, Error> {
    let unusable = |error: String| Error::Start(format!("the JSON Schema of the event cannot be used: {error}"));
    let schema: Value = serde_json::from_str(SCHEMA).map_err(|error| unusable(error.to_string()))?;
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .map_err(|error| unusable(error.to_string()))
}

/// The fault of an event that does not validate. It names the place in the event, and never the value, which may be the
/// customer's.
fn invalid(schema: &Validator, event: &Value) -> Option<Fault> {
    let error = schema.iter_errors(event).next()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (place, rule) = (error.instance_path().to_string(), error.schema_path().to_string());
    Some(Fault {
        event_id: text(&event["id"]),
        conflict: None,
        part: None,
        provider: text(&event["data"]["provider"]),
        shop: text(&event["data"]["shop"]),
        received_at: text(&event["data"]["received_at"]),
        fault: "schema_invalid".to_owned(),
        description: format!("the stored event does not validate against the JSON Schema: \"{place}\" breaks {rule}"),
        action: "restore the table to a new one from point-in-time recovery, and copy the event's items from there"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn scope() -> Scope {
        Scope {
            provider: None,
            shop: Some("main".to_owned()),
            from: Timestamp::UNIX_EPOCH,
            to: Timestamp::MAX,
            scan: false,
            repair: false,
        }
    }

    fn book(published: u64, kept: u64, digest: &str) -> Value {
        json!({
            "provider": "cartum", "shop": "main", "day": "2026-01-31", "accepted": published, "published": published,
            "pending": 0, "failed": 0, "kept": kept, "quarantined": kept, "unsupported": 0, "superseded": 0,
            "erased": 0, "conflicts": 0, "unreadable": 0, "digest": digest.repeat(64),
        })
    }

    /// Audits with prepared answers.
    async fn audited(answers: Vec<Value>) -> (Result<Audit, Error>, Vec<Value>) {
        let answers = RefCell::new(answers.into_iter());
        let asked = RefCell::new(Vec::new());
        let invoke = async |payload: Value| {
            asked.borrow_mut().push(payload);
            Ok(answers.borrow_mut().next().expect("an answer is left"))
        };
        let audit = audit(&scope(), invoke, |_| {}).await;
        (audit, asked.into_inner())
    }

    #[tokio::test]
    async fn the_answers_of_all_invocations_are_added_up() {
        let fault = json!({
            "event_id": "a", "provider": "cartum", "shop": "main", "received_at": null, "fault": "part_missing",
            "description": "d", "action": "a",
        });
        let (audit, asked) = audited(vec![
            json!({"orphans": [], "books": [book(2, 1, "1")], "faults": [fault], "done": false, "cursor": {"work": 1}}),
            json!({"orphans": [{}], "books": [book(1, 0, "2")], "faults": [fault], "done": true, "cursor": null}),
        ])
        .await;
        let audit = audit.expect("an audit");
        let [book] = &audit.books[..] else {
            panic!("{:?}", audit.books)
        };
        assert_eq!((book.accepted, book.kept, book.received()), (3, 1, 4));
        assert_eq!(book.digest.to_string(), "3".repeat(64));
        assert!(book.is_balanced());
        assert_eq!((audit.faults.len(), audit.orphans.len()), (1, 1));
        assert!(!audit.is_balanced(), "a fault is a fault, even if the counts agree");
        assert_eq!(asked[0]["audit"]["shop"], "main");
        assert_eq!(asked[1]["audit"]["cursor"], json!({"work": 1}));
    }

    #[tokio::test]
    async fn an_outage_is_an_error() {
        let answer = json!({"orphans": [], "done": false, "cursor": {}, "outage": "DynamoDB: no answer"});
        let (audit, _) = audited(vec![answer]).await;
        assert!(audit.expect_err("an outage").to_string().contains("no answer"));
    }

    #[tokio::test]
    async fn events_that_are_gone_since_an_earlier_audit_are_a_fault() {
        let answer = |published, digest| json!({"orphans": [], "books": [book(published, 0, digest)], "done": true, "cursor": null});
        let earlier = audited(vec![answer(3, "1")]).await.0.expect("an audit");
        let mut same = audited(vec![answer(3, "1")]).await.0.expect("an audit");
        assert!(same.compare_with(&earlier).is_empty() && same.is_balanced());
        let mut fewer = audited(vec![answer(2, "2")]).await.0.expect("an audit");
        assert!(fewer.is_balanced());
        assert_eq!(fewer.compare_with(&earlier).len(), 1);
        assert_eq!(fewer.faults[0].fault, "events_gone");
        assert!(!fewer.is_balanced());
        let mut more = audited(vec![answer(4, "2")]).await.0.expect("an audit");
        assert_eq!(more.compare_with(&earlier).len(), 1);
        assert!(more.is_balanced(), "a late delivery is no fault");
    }

    #[tokio::test]
    async fn an_erasure_may_delete_conflicts() {
        let answer = |erased: u64, conflicts: u64| {
            let mut book = book(2 - erased, erased + conflicts, "1");
            for (name, count) in [("quarantined", 0), ("erased", erased), ("conflicts", conflicts)] {
                book[name] = count.into();
            }
            json!({"orphans": [], "books": [book], "done": true, "cursor": null})
        };
        let earlier = audited(vec![answer(0, 2)]).await.0.expect("an audit");
        for (erased, conflicts, is_balanced) in [(1, 0, true), (1, 1, true), (0, 1, false)] {
            let mut later = audited(vec![answer(erased, conflicts)]).await.0.expect("an audit");
            later.compare_with(&earlier);
            assert_eq!(later.is_balanced(), is_balanced, "{erased} erased: {later}");
        }
        let mut one_less = answer(1, 0);
        one_less["books"][0]["accepted"] = 0.into();
        one_less["books"][0]["published"] = 0.into();
        let mut one_less = audited(vec![one_less]).await.0.expect("an audit");
        one_less.compare_with(&earlier);
        assert_eq!(
            one_less.faults[0].description,
            "1 fewer events than in the earlier audit"
        );
    }

    #[tokio::test]
    async fn an_audit_says_what_was_audited() {
        let answer = json!({"orphans": [], "done": true, "cursor": null});
        let audit = audited(vec![answer]).await.0.expect("an audit");
        let text = serde_json::to_string(&audit).expect("JSON");
        let read: Audit = serde_json::from_str(&text).expect("an audit");
        assert_eq!((read.provider, read.shop.as_deref()), (None, Some("main")));
        assert_eq!((read.from, read.to), (scope().from, scope().to));
    }

    #[test]
    fn an_invalid_event_is_named_without_its_values() {
        let schema = validator().expect("the schema");
        let golden = include_str!("../../events/cartum/order-created.normalized.json");
        let mut event: Value = serde_json::from_str(golden).expect("an event");
        assert_eq!(invalid(&schema, &event), None);
        event["data"]["order"]["customer"]["name"] = json!({"secret": "John"});
        let fault = invalid(&schema, &event).expect("a fault");
        assert!(
            fault.description.contains("/data/order/customer"),
            "{}",
            fault.description
        );
        assert!(!fault.description.contains("John"));
        assert_eq!(fault.event_id.as_deref(), event["id"].as_str());
    }
}
