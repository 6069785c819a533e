//! `{"redrive":{}}`: publishing what is due.
//!
//! An outage counts against no event: what SNS does not take stays due, and the next run tries it again. It is an outage only if
//! nothing passes. Where other messages pass, the event whose message fails is put off, longer each time, and only what SNS blames
//! on the message is counted: after [`ATTEMPTS`] of these the event is `failed`, and stays in the table.
//!
//! A run that did not come to its end has perhaps been killed by one of the events that were due. The run after it leases each
//! event before it tries it, so that the run after that skips the one that kills.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::codes::Code;
use shared::identity::EventId;
use shared::publisher::{Evidence, Fault, MessageLimit, Occasion, PublishError};
use shared::store::{Head, Projection, SHARDS, StartedRun, State, StoreError, WorkCursor};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::plan::{Extent, Plan, Step};
use crate::report::Run as Report;
use crate::throttle::Throttle;
use crate::{Outbox, PAGE, TaskError, TimeLeft};

/// How often SNS may blame an event's message before it is given up: about a quarter of an hour in all. And how often in a row an
/// event may kill a run.
const ATTEMPTS: u32 = 6;

/// The first delay of an event that is put off, in seconds; each next one is twice as long, up to half an hour.
const FIRST_DELAY: i64 = 30;
const DOUBLINGS: u32 = 6;

/// Pages in hand at once, each of another shard, until a service asks for less.
const PAGES_AT_ONCE: usize = 8;

/// How long the sweep of abandoned parts may take.
const SWEEP_BUDGET: Duration = Duration::from_secs(3);

/// How long the end of a run may take to be noted, and what is kept free for the answer.
const END_BUDGET: Duration = Duration::from_secs(1);
const ANSWER_BUDGET: Duration = Duration::from_millis(250);

/// How long a mark is tried: what is published and not marked is published again.
const MARK_BUDGET: Duration = Duration::from_secs(5);
const MARK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What is due, or a share of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redrive {
    /// The shards `[from, to]` of the outbox, `to` not included, so that several runs drain it side by side; all where it is absent.
    shards: Option<(u8, u8)>,
}

impl Redrive {
    pub(crate) fn shards(&self) -> Result<Range<u8>, TaskError> {
        let (from, to) = self.shards.unwrap_or((0, SHARDS));
        if from < to && to <= SHARDS {
            return Ok(from..to);
        }
        Err(TaskError::NoTask(format!(
            "shards is [from, to] with from < to <= {SHARDS}"
        )))
    }
}

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

/// A message that was tried alone and not published, and how often its event was put off before.
struct Refused {
    id: EventId,
    attempts: u32,
    deferrals: u32,
    error: PublishError,
}

impl Refused {
    /// Whether it may be an outage. An event that can never be a message says nothing about the topic.
    fn is_open(&self) -> bool {
        self.error.fault != Fault::Unpublishable
    }
}

/// What has come of a page.
#[derive(Default)]
struct Worked {
    counts: Counts,
    /// Messages that nothing else has passed beside yet.
    refused: Vec<Refused>,
    /// Why a call with several messages failed that was not split, since nothing has passed yet.
    unsplit: Option<String>,
    /// Why it was not done to its end, where a service asks for fewer calls.
    throttled: Option<String>,
    /// Why the run cannot go on.
    outage: Option<String>,
    /// Whether a write to the table failed or was throttled.
    is_table_failing: bool,
    /// Whether there was no time for a part of it.
    is_cut_short: bool,
    /// Where its shard goes on.
    next: Option<WorkCursor>,
}

impl Worked {
    /// Notes an error of the table, and keeps what the page has come to until then.
    fn stop_at(&mut self, error: &StoreError) {
        if error.is_throttling() {
            self.is_table_failing = true;
            self.throttled = Some(error.to_string());
        } else {
            self.fail_at_table(error.to_string());
        }
    }

    fn fail_at_table(&mut self, cause: String) {
        self.is_table_failing = true;
        self.outage = Some(cause);
    }
}

/// A page that has been worked on.
struct Page {
    step: Step,
    begun: Instant,
    result: Result<Worked, StoreError>,
}

/// What all pages of a run share.
struct Run<'o> {
    outbox: &'o Outbox,
    /// The shards that it drains.
    shards: Range<u8>,
    /// What is due is due at this time.
    now: Timestamp,
    time: TimeLeft,
    evidence: Evidence,
    /// What this run has published and could not mark yet: met again, it is marked alone.
    unmarked: Mutex<HashSet<EventId>>,
    /// The run's own mark, made where the first event is due; nothing where it could not be made.
    mark: OnceCell<Option<StartedRun>>,
    /// What this run has put off or given up: a message may be refused more than once before one passes.
    settled: Mutex<HashSet<EventId>>,
    /// One leased event at a time: what dies then dies of that one.
    leasing: tokio::sync::Mutex<()>,
}

/// What a run has come to so far.
#[derive(Default)]
struct Progress {
    counts: Counts,
    outage: Option<String>,
    unreadable: Option<StoreError>,
    /// Whether the table failed or throttled at any time.
    is_table_failing: bool,
    refused: HashMap<EventId, Refused>,
    /// Why the first call with several messages failed.
    unsplit: Option<String>,
}

impl Progress {
    fn may_go_on(&self) -> bool {
        self.outage.is_none() && self.unreadable.is_none()
    }

    /// Whether the table takes work beside publishing. An outage of SNS alone must not keep what has expired.
    fn has_usable_table(&self) -> bool {
        self.unreadable.is_none() && (self.outage.is_none() || !self.is_table_failing)
    }

    /// Adds a page, and plans what is to come after it.
    fn take(&mut self, page: Page, plan: &mut Plan, throttle: &mut Throttle) {
        let Page { step, begun, result } = page;
        let worked = match result {
            Ok(worked) => worked,
            Err(error) if error.is_throttling() => Worked {
                throttled: Some(error.to_string()),
                is_table_failing: true,
                ..Worked::default()
            },
            Err(error) => {
                self.unreadable = Some(error);
                return;
            }
        };
        self.counts.add(worked.counts);
        self.is_table_failing |= worked.is_table_failing;
        let nothing_passed = worked.counts.published == 0 && worked.refused.iter().any(Refused::is_open);
        self.refused
            .extend(worked.refused.into_iter().map(|refused| (refused.id.clone(), refused)));
        self.outage = self.outage.take().or(worked.outage);
        if let Some(cause) = worked.throttled {
            if !throttle.slow_down(begun) {
                self.outage = Some(cause);
            }
            plan.again(step);
            return;
        }
        // A single message was tried of it: the page itself is still to be done.
        if step.extent == Extent::OneMessage {
            return;
        }
        let next = worked.next.filter(|next| next.shard() == step.cursor.shard());
        if worked.is_cut_short {
            plan.again(step);
        } else if let Some(cause) = worked.unsplit {
            self.unsplit.get_or_insert(cause);
            plan.hold_back([step.cursor]);
            plan.hold_back(next);
        } else if nothing_passed {
            plan.hold_back(next);
        } else if let Some(next) = next {
            plan.go_on_at(next);
        }
    }
}

impl Outbox {
    /// The shards are worked on side by side. Where a service throttles, half as many pages are in hand from then on, after a
    /// pause; one that throttles even a single page ends the run.
    pub(crate) async fn drain(&self, shards: Range<u8>, time: TimeLeft) -> Result<Value, TaskError> {
        let run = Run {
            outbox: self,
            shards: shards.clone(),
            now: Timestamp::now(),
            time,
            evidence: Evidence::default(),
            unmarked: Mutex::default(),
            mark: OnceCell::new(),
            settled: Mutex::default(),
            leasing: tokio::sync::Mutex::default(),
        };
        let mut plan = Plan::new(shards.clone());
        let mut progress = Progress::default();
        run.work(&mut plan, &mut progress).await;
        let judged = timeout_at(time.give_up_at, run.judge(&plan, &mut progress)).await;
        if judged.is_err() {
            progress.outage.get_or_insert_with(|| "no answer in time".to_owned());
        }
        if progress.has_usable_table() {
            Box::pin(self.sweep(shards.clone(), time.give_up_at)).await;
        }
        if let Some(Some(mark)) = run.mark.get() {
            let last = time.deadline.checked_sub(ANSWER_BUDGET).unwrap_or(time.deadline);
            let until = last.min(Instant::now() + END_BUDGET);
            let ended = timeout_at(until, self.store.end_run(mark)).await;
            if let Err(cause) = ended.unwrap_or(Err(StoreError::Timeout)) {
                tracing::warn!(
                    code = Code::RunNotRecorded.as_str(),
                    %cause,
                    "the end of the run is not noted; the next run leases what it tries"
                );
            }
        }
        let is_sound = progress.may_go_on();
        let expired = if progress.has_usable_table() {
            // Boxed: the compiler has a limit for how deep futures are nested.
            Box::pin(self.trim(shards.clone(), time)).await
        } else {
            0
        };
        let report = Report {
            expired,
            published: progress.counts.published,
            put_off: progress.counts.put_off,
            failed: progress.counts.failed,
            done: plan.is_done() && is_sound,
            outage: progress
                .outage
                .or_else(|| progress.unreadable.as_ref().map(StoreError::to_string)),
        };
        // Boxed: the compiler has a limit for how deep futures are nested.
        Box::pin(self.report(&report, shards.contains(&0), time.deadline)).await;
        match progress.unreadable {
            Some(error) => Err(error.into()),
            None => Ok(json!(report)),
        }
    }

    /// Deletes parts that were written for events that were never stored. A run never fails by it.
    async fn sweep(&self, shards: Range<u8>, give_up_at: Instant) {
        let until = give_up_at.min(Instant::now() + SWEEP_BUDGET);
        let now = Timestamp::now();
        let sweeps = join_all(shards.map(|shard| self.store.sweep(shard, now, PAGE)));
        let Ok(sweeps) = timeout_at(until, sweeps).await else {
            tracing::warn!(
                code = Code::PartsNotSwept.as_str(),
                cause = "no answer in time",
                "abandoned parts are left to a later run"
            );
            return;
        };
        let mut swept = 0;
        for sweep in sweeps {
            match sweep {
                Ok(count) => swept += count,
                Err(error) => {
                    tracing::warn!(
                        code = Code::PartsNotSwept.as_str(),
                        cause = %error,
                        "abandoned parts are left to a later run"
                    );
                }
            }
        }
        if swept > 0 {
            tracing::info!(swept, "abandoned parts were deleted");
        }
    }
}

impl Run<'_> {
    /// Works through the plan until it is done, its time is over, or nothing passes.
    async fn work(&self, plan: &mut Plan, progress: &mut Progress) {
        // Larger messages need more memory for a page.
        let larger = self
            .outbox
            .publisher
            .limit()
            .bytes()
            .div_ceil(MessageLimit::default().bytes());
        let mut throttle = Throttle::new((PAGES_AT_ONCE / larger).max(1));
        let mut in_hand = FuturesUnordered::new();
        loop {
            while throttle.admits_beside(in_hand.len())
                && progress.may_go_on()
                && Instant::now() < self.time.stop_at
                && let Some(step) = plan.next()
            {
                in_hand.push(self.work_on(step));
            }
            let Ok(page) = timeout_at(self.time.give_up_at, in_hand.next()).await else {
                // What is in hand is let go, and not counted: its marks may have come or not.
                progress.outage.get_or_insert_with(|| "no answer in time".to_owned());
                return;
            };
            if let Some(page) = page {
                progress.take(page, plan, &mut throttle);
                continue;
            }
            if !progress.may_go_on() || Instant::now() >= self.time.stop_at {
                return;
            }
            if plan.has_next() {
                match throttle.pauses_until() {
                    Some(until) if until >= self.time.stop_at => return,
                    Some(until) => sleep_until(until).await,
                    None => {}
                }
            } else if !plan.go_on(self.evidence.has_published()) {
                return;
            }
        }
    }

    async fn work_on(&self, step: Step) -> Page {
        let begun = Instant::now();
        let result = self.try_page(&step).await;
        Page { step, begun, result }
    }

    async fn try_page(&self, step: &Step) -> Result<Worked, StoreError> {
        let store = &self.outbox.store;
        let (ids, next) = store.due(State::Pending, &step.cursor, self.now, PAGE).await?;
        let mut worked = Worked {
            next,
            ..Worked::default()
        };
        if ids.is_empty() {
            return Ok(worked);
        }
        let leases_all = match self
            .mark
            .get_or_init(|| self.begin())
            .await
            .as_ref()
            .map_or(0, |mark| mark.unended)
        {
            0 => false,
            // What was in hand when a run died is at the beginning of its shard. What died in spite of that may be anywhere.
            1 => step.cursor.is_beginning(),
            _ => true,
        };
        let with = if leases_all {
            Projection::Nothing
        } else {
            Projection::Event
        };
        // The index lags: the heads say what is still to be done.
        let heads = store.heads(&ids, with).await?;
        let mut due: Vec<_> = heads
            .into_iter()
            .filter(|(_, head)| head.state == State::Pending && head.is_due(self.now))
            .collect();
        if step.extent == Extent::OneMessage && !due.is_empty() {
            due = vec![due.swap_remove(fastrand::usize(..due.len()))];
        }
        let (published, due): (Vec<_>, Vec<_>) = due.into_iter().partition(|(id, _)| lock(&self.unmarked).contains(id));
        let (leased, due): (Vec<_>, Vec<_>) = due.into_iter().partition(|(_, head)| leases_all || head.leases > 0);
        let results = self
            .outbox
            .publish(&due, Occasion::First, self.time.stop_at, &self.evidence)
            .await;
        worked.is_cut_short = results.len() < due.len();
        let taken = due.iter().zip(&results).filter(|(_, result)| result.is_ok());
        lock(&self.unmarked).extend(taken.map(|((id, _), _)| id.clone()));
        let mut to_mark: Vec<&EventId> = published.iter().map(|(id, _)| id).collect();
        for ((id, head), result) in due.iter().zip(results) {
            match result {
                Ok(()) => to_mark.push(id),
                Err(error) => self.sort(id, head, error, &mut worked),
            }
        }
        self.mark_published(&to_mark, &mut worked).await;
        for (id, head) in &leased {
            if Instant::now() >= self.time.stop_at {
                worked.is_cut_short = true;
            } else if !self.evidence.has_published() && worked.refused.iter().any(Refused::is_open) {
                // An outage, perhaps: it is not tried with all of the page.
                worked.unsplit = worked.refused.first().map(|refused| refused.error.cause.clone());
            } else if worked.throttled.is_none() && worked.outage.is_none() {
                let tried = self.try_leased(id, head, &mut worked).await;
                tried.unwrap_or_else(|error| worked.stop_at(&error));
            }
        }
        if self.evidence.has_published() {
            let refused = std::mem::take(&mut worked.refused);
            match self.settle(&refused).await {
                Ok(settled) => worked.counts.add(settled),
                Err(error) => worked.stop_at(&error),
            }
        }
        Ok(worked)
    }

    /// Leaves the run's mark.
    async fn begin(&self) -> Option<StartedRun> {
        let begun = self.outbox.store.start_run(self.shards.clone()).await;
        let begun = begun.inspect_err(|cause| {
            tracing::warn!(code = Code::RunNotRecorded.as_str(), %cause, "the beginning of the run is not noted");
        });
        begun.ok().inspect(|begun| {
            if begun.unended > 0 {
                tracing::warn!(
                    code = Code::UnendedRun.as_str(),
                    unended = begun.unended,
                    "an earlier run did not come to its end"
                );
            }
        })
    }

    /// Tries an event that may kill this process: whoever comes after finds it put off.
    async fn try_leased(&self, id: &EventId, head: &Head, worked: &mut Worked) -> Result<(), StoreError> {
        let store = &self.outbox.store;
        let _alone = self.leasing.lock().await;
        if head.leases >= ATTEMPTS {
            let cause = "redrive does not survive publishing it";
            tracing::error!(code = Code::Failed.as_str(), event_id = %id, cause, "the event is given up");
            worked.counts.failed += u64::from(store.mark_failed(id, head.attempts, cause).await?);
            return Ok(());
        }
        if !store.lease(id, head, delay(head.leases + head.deferrals)).await? {
            return Ok(());
        }
        let heads = match store.heads(std::slice::from_ref(id), Projection::Event).await {
            Ok(heads) => heads,
            Err(error) => {
                // The table has failed, not the event: its lease must not count against it.
                if let Err(cause) = store.take_back_untried_lease(id, head).await {
                    tracing::warn!(
                        code = Code::LeaseNotReleased.as_str(),
                        event_id = %id,
                        %cause,
                        "the lease is not taken back"
                    );
                }
                return Err(error);
            }
        };
        let results = self
            .outbox
            .publish(&heads, Occasion::First, self.time.stop_at, &self.evidence)
            .await;
        match results.into_iter().next() {
            Some(Ok(())) => {
                lock(&self.unmarked).insert(id.clone());
                self.mark_published(&[id], worked).await;
            }
            Some(Err(error)) => {
                self.sort(id, head, error, worked);
                store.take_back_lease(id).await?;
            }
            // There was no time for it.
            None => {
                worked.is_cut_short = true;
                store.take_back_untried_lease(id, head).await?;
            }
        }
        Ok(())
    }

    /// Says what an error of publishing means for the page and the run.
    fn sort(&self, id: &EventId, head: &Head, error: PublishError, worked: &mut Worked) {
        let (passed, is_worth_a_call) = (self.evidence.has_published(), self.evidence.is_worth_a_call());
        match error.fault {
            Fault::Throttled => worked.throttled = Some(error.cause),
            Fault::Store => worked.fail_at_table(error.cause),
            Fault::Outage if !passed => worked.outage = Some(error.cause),
            Fault::Outage | Fault::Unclear | Fault::Refused if passed && !is_worth_a_call => {
                worked.outage = Some(error.cause);
            }
            Fault::Outage | Fault::Unclear | Fault::Refused if !error.is_alone => worked.unsplit = Some(error.cause),
            Fault::Outage | Fault::Unclear | Fault::Refused | Fault::Unpublishable => worked.refused.push(Refused {
                id: id.clone(),
                attempts: head.attempts,
                deferrals: head.deferrals,
                error,
            }),
        }
    }

    /// Every mark is waited for, whatever becomes of another: one that is left out is an event published twice.
    async fn mark_published(&self, ids: &[&EventId], worked: &mut Worked) {
        let marks = ids.iter().map(|id| async move {
            let until = Instant::now() + MARK_BUDGET;
            let mut wait = MARK_AGAIN_AFTER;
            while let Err(error) = self.outbox.store.mark_published(id).await {
                if Instant::now() >= until {
                    return Err(error);
                }
                sleep(wait).await;
                wait *= 2;
            }
            lock(&self.unmarked).remove(*id);
            Ok(())
        });
        for marked in join_all(marks).await {
            match marked {
                Ok(()) => worked.counts.published += 1,
                Err(error) => worked.stop_at(&error),
            }
        }
    }

    /// Judges at the end of the run what was refused before anything had passed, and what could not be tried at all.
    async fn judge(&self, plan: &Plan, progress: &mut Progress) {
        let refused: Vec<Refused> = progress.refused.drain().map(|(_, refused)| refused).collect();
        let (certain, open): (Vec<_>, Vec<_>) = refused
            .into_iter()
            .partition(|refused| !refused.is_open() || self.evidence.has_published());
        // A lone event has no other beside it that could pass. Then the topic itself is asked.
        let is_lone = plan.is_done() && progress.unsplit.is_none() && progress.may_go_on();
        let is_to_blame = match open.as_slice() {
            [lone] if is_lone && lone.error.fault == Fault::Refused => self.outbox.publisher.has_sound_topic().await,
            _ => false,
        };
        let outage = open.first().map(|refused| refused.error.cause.clone());
        let outage = outage
            .or_else(|| progress.unsplit.take())
            .filter(|_| !self.evidence.has_published());
        for (refused, is_judged) in [(&certain, true), (&open, is_to_blame)] {
            if !is_judged {
                progress.outage = progress.outage.take().or_else(|| outage.clone());
                continue;
            }
            match self.settle(refused).await {
                Ok(counts) => progress.counts.add(counts),
                Err(error) => {
                    progress.is_table_failing = true;
                    progress.outage = Some(error.to_string());
                }
            }
        }
    }

    /// Puts off what was refused while other messages passed, or gives it up.
    async fn settle(&self, refused: &[Refused]) -> Result<Counts, StoreError> {
        let store = &self.outbox.store;
        let mut counts = Counts::default();
        for Refused {
            id,
            attempts,
            deferrals,
            error,
        } in refused
        {
            if !lock(&self.settled).insert(id.clone()) {
                continue;
            }
            let cause = error.cause.as_str();
            let is_blamed = matches!(error.fault, Fault::Refused | Fault::Unpublishable);
            if is_blamed && attempts + 1 >= ATTEMPTS {
                tracing::error!(code = Code::Failed.as_str(), event_id = %id, cause, "SNS refuses the event for good");
                counts.failed += u64::from(store.mark_failed(id, *attempts, cause).await?);
            } else if is_blamed {
                tracing::warn!(
                    code = Code::MessageRefused.as_str(),
                    event_id = %id,
                    cause,
                    attempts = attempts + 1,
                    "SNS refuses the event"
                );
                counts.put_off += u64::from(store.put_off(id, *attempts, cause, delay(*attempts)).await?);
            } else {
                tracing::warn!(
                    code = Code::EventDeferred.as_str(),
                    event_id = %id,
                    cause,
                    deferrals = deferrals + 1,
                    "the event is put off, others pass"
                );
                counts.put_off += u64::from(store.defer(id, cause, delay(*deferrals)).await?);
            }
        }
        Ok(counts)
    }
}

fn lock(ids: &Mutex<HashSet<EventId>>) -> MutexGuard<'_, HashSet<EventId>> {
    ids.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When an event is tried next that was put off so often before.
fn delay(times: u32) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(FIRST_DELAY << times.min(DOUBLINGS))
}
