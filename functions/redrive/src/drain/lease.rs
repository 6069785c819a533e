//! Skipping an event that a run does not survive.
//!
//! A run leaves a mark in the table and removes it at its end. A run that finds the mark of another one, which has died
//! or still runs, does not know over which event it died. It leases each event before it tries it: the event is put off
//! first. If the event kills this run too, the next one skips it.

use std::time::Duration;

use shared::codes::Code;
use shared::identity::EventId;
use shared::publisher::Occasion;
use shared::store::{Head, Projection, StartedRun, StoreError, WorkCursor};
use tokio::time::{Instant, timeout_at};

use super::Run;
use super::failures::{ATTEMPTS, next_attempt};
use super::page::PageOutcome;

/// How long removing the mark of a run may take, and the time kept free for the answer.
const END_BUDGET: Duration = Duration::from_secs(1);
const ANSWER_BUDGET: Duration = Duration::from_millis(250);

impl Run<'_> {
    /// Whether every event of a page is leased. Leaves the mark of this run if there is none yet.
    pub(super) async fn leases_all_of(&self, page: &WorkCursor) -> bool {
        let mark = self.mark.get_or_init(|| self.begin()).await;
        match mark.as_ref().map_or(0, |mark| mark.unended) {
            0 => false,
            // The events that a killed run was trying are on the first page of their shard. After two killed runs they
            // can be on any page.
            1 => page.is_beginning(),
            _ => true,
        }
    }

    async fn begin(&self) -> Option<StartedRun> {
        match self.outbox.store.start_run(self.shards.clone()).await {
            Ok(mark) => {
                if mark.unended > 0 {
                    tracing::warn!(
                        code = Code::UnendedRun.as_str(),
                        unended = mark.unended,
                        "an earlier run did not reach its end"
                    );
                }
                Some(mark)
            }
            Err(cause) => {
                tracing::warn!(
                    code = Code::RunNotRecorded.as_str(),
                    %cause,
                    "the beginning of the run cannot be recorded"
                );
                None
            }
        }
    }

    /// Removes the mark of this run.
    pub(super) async fn end(&self) {
        let Some(Some(mark)) = self.mark.get() else { return };
        let deadline = self.time.deadline;
        let last = deadline.checked_sub(ANSWER_BUDGET).unwrap_or(deadline);
        let until = last.min(Instant::now() + END_BUDGET);
        let ended = timeout_at(until, self.outbox.store.end_run(mark)).await;
        if let Err(cause) = ended.unwrap_or(Err(StoreError::Timeout)) {
            tracing::warn!(
                code = Code::RunNotRecorded.as_str(),
                %cause,
                "the end of the run cannot be recorded; the next run leases its events"
            );
        }
    }

    /// Leases an event and tries it.
    pub(super) async fn try_leased(
        &self,
        id: &EventId,
        head: &Head,
        outcome: &mut PageOutcome,
    ) -> Result<(), StoreError> {
        let store = &self.outbox.store;
        let _alone = self.leasing.lock().await;
        if head.leases >= ATTEMPTS {
            let cause = "redrive does not survive publishing it";
            tracing::error!(
                code = Code::Failed.as_str(),
                event_id = %id,
                cause,
                "the event is marked as failed"
            );
            outcome.counts.failed += u64::from(store.mark_failed(id, head.attempts, cause).await?);
            return Ok(());
        }
        let next = next_attempt(head.leases + head.deferrals);
        if !store.lease(id, head, next).await? {
            return Ok(());
        }
        let events = match store.heads(std::slice::from_ref(id), Projection::Event).await {
            Ok(events) => events,
            Err(error) => {
                // The table has failed, not the event: the lease must not count against the event.
                if let Err(cause) = store.take_back_untried_lease(id, head).await {
                    tracing::warn!(
                        code = Code::LeaseNotReleased.as_str(),
                        event_id = %id,
                        %cause,
                        "the lease cannot be taken back"
                    );
                }
                return Err(error);
            }
        };
        let results = self
            .outbox
            .publish(&events, Occasion::First, self.time.stop_at, &self.evidence)
            .await;
        match results.into_iter().next() {
            Some(Ok(())) => {
                self.unmarked.borrow_mut().insert(id.clone());
                self.mark_published(&[id], outcome).await;
            }
            Some(Err(error)) => {
                self.add_error(id, head, error, outcome);
                store.take_back_lease(id).await?;
            }
            // There was no time for the event.
            None => {
                outcome.is_cut_short = true;
                store.take_back_untried_lease(id, head).await?;
            }
        }
        Ok(())
    }
}
