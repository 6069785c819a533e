//! Publishing one page of the outbox.

use std::time::Duration;

use futures_util::future::join_all;
use shared::identity::EventId;
use shared::publisher::Occasion;
use shared::store::{Head, Projection, State, StoreError, WorkCursor};
use tokio::time::{Instant, sleep};

use super::failures::Failure;
use super::plan::{Extent, Step};
use super::{Counts, Run};
use crate::PAGE;

/// How long marking an event as published is tried. An event that is published and not marked is published again.
const MARK_BUDGET: Duration = Duration::from_secs(5);

/// The first wait before marking is tried again. Each next one is twice as long.
const MARK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The result of a page.
#[derive(Default)]
pub(super) struct PageOutcome {
    pub(super) counts: Counts,
    /// Messages that failed before any other message was published.
    pub(super) failures: Vec<Failure>,
    /// Why a call with several messages failed that was not split, since nothing was published yet.
    pub(super) unsplit: Option<String>,
    /// Why the page was not finished, if a service throttles.
    pub(super) throttled: Option<String>,
    /// Why the run cannot go on.
    pub(super) outage: Option<String>,
    /// Whether the table has failed or throttled.
    pub(super) is_table_failing: bool,
    /// Whether there was no time for a part of the page.
    pub(super) is_cut_short: bool,
    /// The next page of the outbox.
    pub(super) next: Option<WorkCursor>,
}

impl PageOutcome {
    /// The outcome of a page that could not be read.
    pub(super) fn stopped_by(error: &StoreError) -> Self {
        let mut outcome = Self::default();
        outcome.stop_at(error);
        outcome
    }

    /// Adds an error of the table, after which the page is not worked on.
    pub(super) fn stop_at(&mut self, error: &StoreError) {
        self.is_table_failing = true;
        let cause = Some(error.to_string());
        if error.is_throttling() {
            self.throttled = cause;
        } else {
            self.outage = cause;
        }
    }

    fn is_stopped(&self) -> bool {
        self.throttled.is_some() || self.outage.is_some()
    }
}

/// A page that was worked on.
pub(super) struct FinishedPage {
    pub(super) step: Step,
    pub(super) begun: Instant,
    pub(super) result: Result<PageOutcome, StoreError>,
}

impl Run<'_> {
    pub(super) async fn work_on(&self, step: Step) -> FinishedPage {
        let begun = Instant::now();
        let result = self.publish_page(&step).await;
        FinishedPage { step, begun, result }
    }

    /// Publishes the events of a page together, and those that need a lease one by one after them.
    async fn publish_page(&self, step: &Step) -> Result<PageOutcome, StoreError> {
        let store = &self.outbox.store;
        let (ids, next) = store.due(State::Pending, &step.cursor, self.now, PAGE).await?;
        let mut outcome = PageOutcome {
            next,
            ..PageOutcome::default()
        };
        if ids.is_empty() {
            return Ok(outcome);
        }
        let leases_all = self.leases_all_of(&step.cursor).await;
        let due = self.read_due(&ids, step.extent, leases_all).await?;
        let (published, due): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|(id, _)| self.unmarked.borrow().contains(id));
        let (leased, due): (Vec<_>, Vec<_>) = due.into_iter().partition(|(_, head)| leases_all || head.leases > 0);

        let mut to_mark: Vec<&EventId> = published.iter().map(|(id, _)| id).collect();
        to_mark.extend(self.publish_together(&due, &mut outcome).await);
        self.mark_published(&to_mark, &mut outcome).await;
        self.publish_leased(&leased, &mut outcome).await;
        if self.evidence.has_published() {
            let failures = std::mem::take(&mut outcome.failures);
            if let Err(error) = self.record_failures(&failures, &mut outcome.counts).await {
                outcome.stop_at(&error);
            }
        }
        Ok(outcome)
    }

    /// Reads the events of a page that are still due: the index lags behind the table. An event that will be leased is
    /// read later.
    async fn read_due(
        &self,
        ids: &[EventId],
        extent: Extent,
        leases_all: bool,
    ) -> Result<Vec<(EventId, Head)>, StoreError> {
        let projection = if leases_all {
            Projection::Nothing
        } else {
            Projection::Event
        };
        let mut due = self.outbox.store.heads(ids, projection).await?;
        due.retain(|(_, head)| head.state == State::Pending && head.is_due(self.now));
        if extent == Extent::Probe && !due.is_empty() {
            due = vec![due.swap_remove(fastrand::usize(..due.len()))];
        }
        Ok(due)
    }

    /// Publishes events in as few calls as possible. Returns the ids of those that were published.
    async fn publish_together<'e>(&self, due: &'e [(EventId, Head)], outcome: &mut PageOutcome) -> Vec<&'e EventId> {
        let results = self
            .outbox
            .publish(due, Occasion::First, self.time.stop_at, &self.evidence)
            .await;
        outcome.is_cut_short = results.len() < due.len();
        let mut published = Vec::new();
        for ((id, head), result) in due.iter().zip(results) {
            match result {
                Ok(()) => {
                    self.unmarked.borrow_mut().insert(id.clone());
                    published.push(id);
                }
                Err(error) => self.add_error(id, head, error, outcome),
            }
        }
        published
    }

    async fn publish_leased(&self, leased: &[(EventId, Head)], outcome: &mut PageOutcome) {
        for (id, head) in leased {
            if self.time.is_up() {
                outcome.is_cut_short = true;
                return;
            }
            if outcome.is_stopped() {
                return;
            }
            // This may be an outage. The rest of the page is not tried then.
            if !self.evidence.has_published()
                && let Some(failure) = outcome.failures.iter().find(|failure| failure.may_be_an_outage())
            {
                outcome.unsplit = Some(failure.error.cause.clone());
                return;
            }
            if let Err(error) = self.try_leased(id, head, outcome).await {
                outcome.stop_at(&error);
            }
        }
    }

    /// Marks events as published. Every mark is waited for, even after another one failed: an event that is left out is
    /// published twice.
    pub(super) async fn mark_published(&self, ids: &[&EventId], outcome: &mut PageOutcome) {
        for marked in join_all(ids.iter().map(|id| self.mark(id))).await {
            match marked {
                Ok(()) => outcome.counts.published += 1,
                Err(error) => outcome.stop_at(&error),
            }
        }
    }

    async fn mark(&self, id: &EventId) -> Result<(), StoreError> {
        let until = Instant::now() + MARK_BUDGET;
        let mut wait = MARK_AGAIN_AFTER;
        while let Err(error) = self.outbox.store.mark_published(id).await {
            if Instant::now() >= until {
                return Err(error);
            }
            sleep(wait).await;
            wait *= 2;
        }
        self.unmarked.borrow_mut().remove(id);
        Ok(())
    }
}
