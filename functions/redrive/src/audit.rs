//! `{"audit":{...}}`: compares what the table holds with itself, and counts it by provider, shop and day.
//!
//! Without a period the task lists the parts that no event refers to: the parts of a large delivery are written before
//! its event, and if the event was never stored, its parts stay until a later run of `redrive` deletes them. With a
//! period it reads every item that the index `by_hour` names, and every item that still has to be processed, and names
//! the faults of each.
//!
//! The books of a day balance if every order event is published, pending or failed, and everything else that was
//! received is kept in one of the other states.

mod advice;
mod books;
mod inspection;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::identity::EventId;
use shared::store::{
    Entry, Fault, Head, Hour, ManifestCursor, Orphan, Received, ScanPosition, Scanned, StoreError, WorkPosition,
};

use self::advice::{action, description};
use self::books::{Book, Place};
use crate::providers::Providers;
use crate::time_left::{Page, TimeLeft};
use crate::{Outbox, TaskError};

/// The number of orphans that are read at once.
const ORPHANS: i32 = 100;
/// The number of entries that are read from an index at once.
const ENTRIES: i32 = 100;
/// The number of items that are read at once. An item takes up to 400 KB.
const ITEMS: usize = 10;
/// The largest number of findings that one answer lists, and the bytes of JSON that its events may take before it ends.
/// Lambda returns 6 MB at most, and the last event is still added.
const LISTED: usize = 1_000;
const ANSWER: usize = 2_500_000;

/// All orphans, and the items that were received in a period.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    provider: Option<String>,
    shop: Option<String>,
    /// Received at this time or later.
    from: Option<Timestamp>,
    /// Received before this time.
    to: Option<Timestamp>,
    /// Also reads the complete table for parts that nothing names, and for events that are missing in the index.
    #[serde(default)]
    scan: bool,
    /// Also returns the stored events, so that the caller can validate them against the JSON Schema.
    #[serde(default)]
    events: bool,
    /// Deletes orphaned parts.
    #[serde(default)]
    repair: bool,
    /// Where an earlier run stopped.
    cursor: Option<Cursor>,
}

/// How far an audit came. The steps follow each other in this order.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Cursor {
    Orphans(ManifestCursor),
    Work(WorkPosition),
    Books(BooksCursor),
    Scan(ScanPosition),
}

/// A position in the index `by_hour`: a provider, an hour, a partition of it, and the entry after which to continue.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct BooksCursor {
    provider: String,
    hour: Timestamp,
    partition: u8,
    after: Option<Received>,
}

/// A fault, and what to do about it.
#[derive(Debug, Serialize)]
struct Finding {
    event_id: EventId,
    /// The SHA-256 of the body, if the item is a conflict of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<String>,
    provider: Option<String>,
    shop: Option<String>,
    received_at: Option<Timestamp>,
    fault: &'static str,
    description: &'static str,
    action: &'static str,
}

/// A run of the task.
struct Run<'t> {
    outbox: &'t Outbox,
    task: &'t Audit,
    period: Option<(Timestamp, Timestamp)>,
    time: TimeLeft,
    orphans: Vec<Orphan>,
    /// The orphans and parts that were deleted.
    removed: Vec<Value>,
    books: BTreeMap<Place, Book>,
    findings: Vec<Finding>,
    /// The stored events, if the caller asked for them, and their bytes of JSON.
    events: Vec<Value>,
    bytes: usize,
    /// The events that are larger than an answer.
    too_large: Vec<EventId>,
}

impl Audit {
    fn period(&self) -> Result<Option<(Timestamp, Timestamp)>, TaskError> {
        let wrong = |what: &str| Err(TaskError::NoTask(what.to_owned()));
        if let Some(provider) = &self.provider
            && !Providers::NAMES.contains(&provider.as_str())
        {
            let known = Providers::NAMES.join(", ");
            return wrong(&format!("unknown provider; the providers are {known}"));
        }
        if (self.scan || self.repair) && (self.provider.is_some() || self.shop.is_some()) {
            return wrong("scan and repair are about the complete table, and cannot be combined with provider or shop");
        }
        match (self.from, self.to) {
            (Some(from), Some(to)) => Ok(Some((from, to))),
            (None, None) if self.provider.is_none() && self.shop.is_none() && !self.events => Ok(None),
            (None, None) => wrong("audit takes provider, shop and events only with from and to"),
            _ => wrong("audit takes from and to together"),
        }
    }

    /// The provider after `provider`, or the first one.
    fn provider_after(&self, provider: Option<&str>) -> Option<&str> {
        match (&self.provider, provider) {
            (Some(only), None) => Some(only),
            (Some(_), Some(_)) => None,
            (None, None) => Providers::NAMES.first().copied(),
            (None, Some(last)) => {
                let at = Providers::NAMES.iter().position(|name| *name == last)?;
                Providers::NAMES.get(at + 1).copied()
            }
        }
    }

    fn wants(&self, provider: Option<&str>, shop: Option<&str>) -> bool {
        let is =
            |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|wanted| found == Some(wanted));
        is(&self.provider, provider) && is(&self.shop, shop)
    }
}

impl Outbox {
    pub(crate) async fn audit(&self, mut task: Audit, time: TimeLeft) -> Result<Value, TaskError> {
        let first = task.cursor.take();
        let mut run = Run {
            outbox: self,
            period: task.period()?,
            task: &task,
            time,
            orphans: Vec::new(),
            removed: Vec::new(),
            books: BTreeMap::new(),
            findings: Vec::new(),
            events: Vec::new(),
            bytes: 0,
            too_large: Vec::new(),
        };
        if run.period.is_some() {
            // A wrong setting is an error of the task, not an outage of one page.
            self.providers.as_ref().map_err(Clone::clone)?;
        }
        let first = first.unwrap_or_else(|| Cursor::Orphans(ManifestCursor::default()));
        let walked = time
            .walk(Some(first), async |cursor: &mut Cursor| run.next_page(cursor).await)
            .await?;
        tracing::info!(
            orphans = run.orphans.len(),
            removed = run.removed.len(),
            faults = run.findings.len(),
            events = run.books.values().map(Book::received).sum::<u64>(),
            outage = walked.outage,
            "audit"
        );
        let books: Vec<Value> = run.books.iter().map(|(place, book)| book.to_json(place)).collect();
        let mut answer = json!({"orphans": run.orphans, "removed": run.removed});
        if run.period.is_some() || task.scan {
            answer["books"] = books.into();
            answer["faults"] = json!(run.findings);
        }
        if task.events {
            answer["events"] = run.events.into();
            answer["too_large"] = json!(run.too_large);
        }
        Ok(walked.answer(answer))
    }
}

impl Run<'_> {
    /// Does the next page of a step, and moves the cursor past it. After the last page of a step the next step begins.
    async fn next_page(&mut self, cursor: &mut Cursor) -> Result<Page, TaskError> {
        let next = match cursor {
            Cursor::Orphans(at) => match self.list_orphans(at).await? {
                Some(next) => Some(Cursor::Orphans(next)),
                None => self.after_orphans(),
            },
            Cursor::Work(at) => match self.check_work(at).await? {
                Some(next) => Some(Cursor::Work(next)),
                None => self.first_books().or_else(|| self.first_scan()),
            },
            Cursor::Books(at) => {
                if self.check_hour(at).await? {
                    Some(cursor.clone())
                } else {
                    self.first_scan()
                }
            }
            Cursor::Scan(at) => self.scan(at).await?.map(Cursor::Scan),
        };
        let Some(next) = next else { return Ok(Page::Last) };
        *cursor = next;
        let listed = self.orphans.len() + self.removed.len() + self.findings.len() + self.books.len();
        let is_full = listed >= LISTED || self.bytes >= ANSWER;
        Ok(if is_full { Page::Full } else { Page::More })
    }

    fn after_orphans(&self) -> Option<Cursor> {
        match self.period {
            Some(_) => Some(Cursor::Work(WorkPosition::default())),
            None => self.first_scan(),
        }
    }

    fn first_books(&self) -> Option<Cursor> {
        let (from, to) = self.period.filter(|(from, to)| from < to)?;
        Some(Cursor::Books(BooksCursor {
            provider: self.task.provider_after(None)?.to_owned(),
            hour: Hour::containing(from).start(),
            partition: 0,
            after: None,
        }))
        .filter(|_| Hour::containing(from).start() < to)
    }

    fn first_scan(&self) -> Option<Cursor> {
        self.task.scan.then(|| Cursor::Scan(ScanPosition::default()))
    }

    async fn list_orphans(&mut self, at: &ManifestCursor) -> Result<Option<ManifestCursor>, TaskError> {
        let store = &self.outbox.store;
        let (orphans, next) = store.orphans(at, ORPHANS).await?;
        for orphan in orphans {
            if self.task.repair && store.sweep_orphan(&orphan).await? {
                self.removed.push(json!(orphan));
            } else {
                self.orphans.push(orphan);
            }
        }
        Ok(next)
    }

    /// Checks that the items which the index `work` names exist, and that the books count them.
    async fn check_work(&mut self, at: &WorkPosition) -> Result<Option<WorkPosition>, TaskError> {
        let store = &self.outbox.store;
        let (keys, next) = store.work_entries(at, ENTRIES).await?;
        for keys in keys.chunks(ITEMS) {
            for (key, entry) in store.items_of_entries(keys.to_vec()).await? {
                match entry {
                    Entry::Missing => {
                        if !store.is_conflict_of_erased(&key).await? {
                            self.find(&key, None, None, Fault::ItemMissing);
                        }
                    }
                    Entry::Read(head) if head.faults(&key).contains(&Fault::HourKey) => {
                        self.find(&key, None, Some(&head), Fault::HourKey);
                    }
                    // The other faults are found when the hour of the event is read.
                    Entry::Read(_) | Entry::Unreadable { .. } | Entry::Gone => {}
                }
            }
        }
        Ok(next)
    }

    /// Reads the entries of an hour, and moves the position past each. Returns false after the last hour.
    async fn check_hour(&mut self, at: &mut BooksCursor) -> Result<bool, TaskError> {
        let hour = Hour::containing(at.hour);
        // An earlier run or page has stopped within this partition.
        if at.after.is_some() {
            if self.check_partition(at, hour).await? {
                (at.partition, at.after) = (at.partition + 1, None);
            }
            return Ok(true);
        }
        // Most hours of a small shop are empty, and one round of queries says so.
        for partition in self.outbox.store.partitions_in_use(&at.provider, hour).await? {
            if partition < at.partition {
                continue;
            }
            at.partition = partition;
            if !self.check_partition(at, hour).await? {
                return Ok(true);
            }
            (at.partition, at.after) = (partition + 1, None);
        }
        Ok(self.next_hour(at, hour))
    }

    /// Reads the entries of a partition from the position on, and moves the position past each. Returns false if it
    /// stopped before the last of them.
    async fn check_partition(&mut self, at: &mut BooksCursor, hour: Hour) -> Result<bool, TaskError> {
        let store = &self.outbox.store;
        loop {
            let page = store.partition_of_hour(&at.provider, hour, at.partition, ENTRIES, at.after.as_ref());
            let (keys, last) = page.await?;
            for keys in keys.chunks(ITEMS) {
                for (key, entry) in store.items_of_entries(keys.to_vec()).await? {
                    self.check_entry(&at.provider, &key, entry).await?;
                    at.after = Some(key);
                    if self.time.is_up() || self.bytes >= ANSWER || self.findings.len() >= LISTED {
                        return Ok(false);
                    }
                }
            }
            if last.is_none() {
                return Ok(true);
            }
        }
    }

    /// Moves the position to the next hour of the period, or to the first one of the next provider. Returns false after
    /// the last one.
    fn next_hour(&self, at: &mut BooksCursor, hour: Hour) -> bool {
        let Some((from, to)) = self.period else { return false };
        (at.partition, at.after) = (0, None);
        at.hour = hour.next().start();
        if at.hour < to {
            return true;
        }
        at.hour = Hour::containing(from).start();
        match self.task.provider_after(Some(&at.provider)) {
            Some(next) => {
                next.clone_into(&mut at.provider);
                true
            }
            None => false,
        }
    }

    /// Reads a page of the table, and checks the parts and the events that no index names.
    async fn scan(&mut self, at: &ScanPosition) -> Result<Option<ScanPosition>, TaskError> {
        let store = &self.outbox.store;
        let (found, next) = store.scan_for_audit(at).await?;
        for found in found {
            match found {
                Scanned::Head(id, provider, shop) => self.findings.push(Finding {
                    provider,
                    shop,
                    ..Finding::of(id, Fault::HourKey)
                }),
                Scanned::Part(id, part) => self.check_part(id, part).await?,
            }
        }
        Ok(next)
    }

    async fn check_part(&mut self, id: EventId, part: String) -> Result<(), StoreError> {
        let store = &self.outbox.store;
        if store.is_named(&id, &part).await? {
            return Ok(());
        }
        if self.task.repair && store.delete_part_alone(&id, &part).await? {
            self.removed.push(json!({"event_id": id, "part": part}));
        } else {
            self.findings.push(Finding {
                part: Some(part),
                ..Finding::of(id, Fault::PartAlone)
            });
        }
        Ok(())
    }

    /// Lists a fault. `provider` is the one whose partition of the index names the item.
    fn find(&mut self, key: &Received, provider: Option<&str>, head: Option<&Head>, fault: Fault) {
        if !head.is_none_or(|head| self.task.wants(head.provider(), head.shop())) {
            return;
        }
        self.findings.push(Finding {
            conflict: key.conflict.clone(),
            provider: head.and_then(Head::provider).or(provider).map(str::to_owned),
            shop: head.and_then(Head::shop).map(str::to_owned),
            received_at: head.and_then(Head::received_at),
            ..Finding::of(key.id.clone(), fault)
        });
    }
}

impl Finding {
    fn of(event_id: EventId, fault: Fault) -> Self {
        Self {
            event_id,
            conflict: None,
            part: None,
            provider: None,
            shop: None,
            received_at: None,
            fault: fault.as_str(),
            description: description(fault),
            action: action(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complete_table_has_no_single_shop() {
        let period = json!({"from": "2026-01-31T00:00:00Z", "to": "2026-02-01T00:00:00Z"});
        let audit = |name: &str, shop: Option<&str>| {
            let mut task = period.clone();
            task[name] = true.into();
            if let Some(shop) = shop {
                task["shop"] = shop.into();
            }
            serde_json::from_value::<Audit>(task).expect("a task").period()
        };
        for name in ["scan", "repair"] {
            assert!(audit(name, None).is_ok(), "{name}");
            let refused = audit(name, Some("main")).expect_err("a refusal");
            assert!(refused.to_string().contains("cannot be combined"), "{refused}");
        }
    }
}
