//! `{"redrive":{}}`: publishes every event that is due.
//!
//! A run works through the outbox page by page, several pages at once. Events that SNS does not accept during an
//! outage stay due, and the next run tries them again; the module [`failures`] distinguishes an outage from the fault
//! of one message. The
//! module [`lease`] skips an event that a run does not survive.

mod cleanup;
mod failures;
mod lease;
mod page;
mod plan;
mod report;
mod throttle;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::identity::EventId;
use shared::publisher::{Evidence, MessageLimit};
use shared::store::{SHARDS, StartedRun, StoreError};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout_at;

use self::failures::Failure;
use self::page::{FinishedPage, PageOutcome};
use self::plan::{Extent, Plan};
use self::report::Report;
use self::throttle::Throttle;
use crate::time_left::{NO_ANSWER, TimeLeft};
use crate::{Outbox, TaskError};

/// The number of pages in hand at once, each of another shard, until a service throttles.
const PAGES_AT_ONCE: usize = 8;

/// All due events, or those of some shards.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redrive {
    /// The shards `[from, to]` of the outbox, without `to`, so that several runs can drain it side by side. The default
    /// is all.
    shards: Option<(u8, u8)>,
}

impl Redrive {
    pub(crate) fn shards(&self) -> Result<Range<u8>, TaskError> {
        let (from, to) = self.shards.unwrap_or((0, SHARDS));
        if from < to && to <= SHARDS {
            return Ok(from..to);
        }
        Err(TaskError::NoTask(format!(
            "shards must be [from, to] with from < to <= {SHARDS}"
        )))
    }
}

impl Outbox {
    pub(crate) async fn drain(&self, shards: Range<u8>, time: TimeLeft) -> Result<Value, TaskError> {
        let run = Run::new(self, shards.clone(), time);
        let mut plan = Plan::new(shards.clone());
        let mut progress = Progress::default();
        run.publish_due(&mut plan, &mut progress).await;
        run.resolve_failures(&plan, &mut progress).await;
        if progress.is_table_usable() {
            Box::pin(self.sweep(shards.clone(), time.give_up_at)).await;
        }
        run.end().await;
        let expired = if progress.is_table_usable() {
            // Boxed: the compiler has a limit for how deep futures are nested.
            Box::pin(self.trim(shards.clone(), time)).await
        } else {
            0
        };
        let report = progress.report(plan.is_done(), expired);
        Box::pin(self.report(&report, shards.contains(&0), time.deadline)).await;
        match progress.unreadable {
            Some(error) => Err(error.into()),
            None => Ok(json!(report)),
        }
    }
}

/// What all pages of a run share.
struct Run<'o> {
    outbox: &'o Outbox,
    shards: Range<u8>,
    /// The time at which the run's events are due.
    now: Timestamp,
    time: TimeLeft,
    evidence: Evidence,
    /// Events that this run has published and not marked yet. If one turns up again, it is only marked.
    unmarked: RefCell<HashSet<EventId>>,
    /// Events whose failure this run has recorded. A message may fail more than once before another one is published.
    recorded: RefCell<HashSet<EventId>>,
    /// The mark of this run in the table, made before the first event is tried; `None` if it could not be made.
    mark: OnceCell<Option<StartedRun>>,
    /// Locked while a leased event is tried, so that a run that does not survive has tried one of them.
    leasing: Mutex<()>,
}

impl<'o> Run<'o> {
    fn new(outbox: &'o Outbox, shards: Range<u8>, time: TimeLeft) -> Self {
        Self {
            outbox,
            shards,
            now: Timestamp::now(),
            time,
            evidence: Evidence::default(),
            unmarked: RefCell::default(),
            recorded: RefCell::default(),
            mark: OnceCell::new(),
            leasing: Mutex::default(),
        }
    }

    /// Works through the plan until it is done, the time is up, or nothing can be published.
    ///
    /// If a service throttles, half as many pages are in hand from then on, after a pause. If a single page is still
    /// too much, the run ends.
    async fn publish_due(&self, plan: &mut Plan, progress: &mut Progress) {
        let mut throttle = Throttle::new(self.pages_at_once());
        let mut in_hand = FuturesUnordered::new();
        loop {
            while self.may_go_on(progress)
                && throttle.admits(in_hand.len())
                && let Some(step) = plan.next()
            {
                in_hand.push(self.work_on(step));
            }
            let Ok(page) = timeout_at(self.time.give_up_at, in_hand.next()).await else {
                // The pages in hand are dropped and not counted: their events may be marked or not.
                progress.outage.get_or_insert_with(|| NO_ANSWER.to_owned());
                return;
            };
            if let Some(page) = page {
                progress.add(page, plan, &mut throttle);
                continue;
            }
            let goes_on = self.may_go_on(progress)
                && if plan.has_next() {
                    throttle.wait(self.time.stop_at).await
                } else {
                    plan.resume(self.evidence.has_published())
                };
            if !goes_on {
                return;
            }
        }
    }

    fn may_go_on(&self, progress: &Progress) -> bool {
        progress.may_go_on() && !self.time.is_up()
    }

    /// Larger messages need more memory for a page.
    fn pages_at_once(&self) -> usize {
        let limit = self.outbox.publisher.limit().bytes();
        let times_larger = limit.div_ceil(MessageLimit::default().bytes());
        (PAGES_AT_ONCE / times_larger).max(1)
    }
}

/// The number of events by result.
#[derive(Clone, Copy, Default)]
struct Counts {
    published: u64,
    put_off: u64,
    failed: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.published += other.published;
        self.put_off += other.put_off;
        self.failed += other.failed;
    }
}

/// How far a run has come.
#[derive(Default)]
struct Progress {
    counts: Counts,
    /// Why nothing more can be published.
    outage: Option<String>,
    /// Why the outbox cannot be read.
    unreadable: Option<StoreError>,
    /// Whether the table has failed or throttled.
    is_table_failing: bool,
    /// The failures of single messages that are not recorded yet.
    failures: HashMap<EventId, Failure>,
    /// Why the first call with several messages failed that was not split.
    unsplit: Option<String>,
}

impl Progress {
    fn may_go_on(&self) -> bool {
        self.outage.is_none() && self.unreadable.is_none()
    }

    /// Whether the table can be used for more than publishing. An outage of SNS alone does not stop the removal of
    /// expired events.
    fn is_table_usable(&self) -> bool {
        self.unreadable.is_none() && (self.outage.is_none() || !self.is_table_failing)
    }

    /// Adds a page, and plans what comes after it.
    fn add(&mut self, page: FinishedPage, plan: &mut Plan, throttle: &mut Throttle) {
        let FinishedPage { step, begun, result } = page;
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) if error.is_throttling() => PageOutcome::stopped_by(&error),
            Err(error) => {
                self.unreadable = Some(error);
                return;
            }
        };
        let has_only_failed = outcome.counts.published == 0 && outcome.failures.iter().any(Failure::may_be_an_outage);
        self.counts.add(outcome.counts);
        self.is_table_failing |= outcome.is_table_failing;
        let failures = outcome.failures.into_iter();
        self.failures
            .extend(failures.map(|failure| (failure.id.clone(), failure)));
        self.outage = self.outage.take().or(outcome.outage);
        if let Some(cause) = outcome.throttled {
            if !throttle.slow_down(begun) {
                self.outage = Some(cause);
            }
            plan.add_again(step);
            return;
        }
        // Only one message of the page was tried, which is held back.
        if step.extent == Extent::Probe {
            return;
        }
        let next = outcome.next.filter(|next| next.shard() == step.cursor.shard());
        if outcome.is_cut_short {
            plan.add_again(step);
        } else if let Some(cause) = outcome.unsplit {
            self.unsplit.get_or_insert(cause);
            plan.hold_back([step.cursor]);
            plan.hold_back(next);
        } else if has_only_failed {
            plan.hold_back(next);
        } else if let Some(next) = next {
            plan.add(next);
        }
    }

    fn report(&self, is_plan_done: bool, expired: u64) -> Report {
        let unreadable = self.unreadable.as_ref().map(StoreError::to_string);
        Report {
            published: self.counts.published,
            put_off: self.counts.put_off,
            failed: self.counts.failed,
            expired,
            done: is_plan_done && self.may_go_on(),
            outage: self.outage.clone().or(unreadable),
        }
    }
}
