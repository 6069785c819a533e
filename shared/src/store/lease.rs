//! Marks that a run of redrive leaves in case the process is killed: one that the run has begun, and leases on single
//! events.
//!
//! A run that completes removes its mark. A run that finds the mark of another one assumes that one of the due events
//! may kill the process, and leases each event before it tries it; the next run skips leased events.

use std::ops::Range;

use aws_sdk_dynamodb::types::ReturnValue;
use jiff::Timestamp;

use super::{AttemptId, Change, Condition, Head, Item, State, Store, StoreError, item_key};
use crate::identity::EventId;

/// The partition of the marks. No event has this key, because an event id is 64 hex digits.
const RUNS: &str = "redrive";

/// The `last_error` of a leased event.
const LEASED: &str = "a run of redrive did not survive an attempt";

/// A run that has begun.
pub struct StartedRun {
    id: AttemptId,
    shards: Range<u8>,
    /// How many runs in a row before this one have begun and not ended. A run that is still in progress counts.
    pub unended: u32,
}

impl Store {
    /// Writes the mark of a run that begins to publish the due events of `shards`.
    pub async fn start_run(&self, shards: Range<u8>) -> Result<StartedRun, StoreError> {
        let id = AttemptId::random();
        let change = Change::default()
            .set("run_id", id.0.as_str())
            .set("begun_at", &Timestamp::now())
            .add("unended", &1_u32);
        let begun = self
            .update_item(run_key(&shards), &change, ReturnValue::UpdatedNew)
            .await?;
        let count = begun.as_ref().and_then(|item| item.get("unended")?.as_n().ok());
        let count: u32 = count.and_then(|count| count.parse().ok()).unwrap_or(1);
        Ok(StartedRun {
            id,
            shards,
            unended: count.saturating_sub(1),
        })
    }

    /// Removes the mark of a run, unless another run has replaced it.
    pub async fn end_run(&self, run: &StartedRun) -> Result<(), StoreError> {
        let change = Change::default()
            .set("unended", &0_u32)
            .set("ended_at", &Timestamp::now())
            .remove(&["run_id"])
            .only_if(Condition::equals("run_id", run.id.0.as_str()));
        self.update_item(run_key(&run.shards), &change, ReturnValue::None)
            .await?;
        Ok(())
    }

    /// Puts a pending event off until `next` before it is tried. Returns false if somebody else has changed the event.
    pub async fn lease(&self, id: &EventId, head: &Head, next: Timestamp) -> Result<bool, StoreError> {
        let unchanged = match head.item.get("next_attempt_at") {
            Some(seen) => Condition::equals("next_attempt_at", seen),
            None => Condition::Absent("next_attempt_at"),
        };
        let change = Change::default()
            .set("next_attempt_at", &next)
            .set("last_error", LEASED)
            .set("leases", &(head.leases + 1))
            .only_if(Condition::in_state(State::Pending).and(unchanged));
        self.update(id, &change).await
    }

    /// Takes back the lease of an event that did not kill the run and is not published yet. The event is due again.
    pub async fn take_back_lease(&self, id: &EventId) -> Result<bool, StoreError> {
        let change = Change::default()
            .set("next_attempt_at", &Timestamp::now())
            .remove(&["leases", "last_error"])
            .only_if(is_leased());
        self.update(id, &change).await
    }

    /// Takes back the lease of an event that was not tried. The event is due again, and its earlier leases, which
    /// `head` shows, still count.
    pub async fn take_back_untried_lease(&self, id: &EventId, head: &Head) -> Result<bool, StoreError> {
        if head.leases == 0 {
            return self.take_back_lease(id).await;
        }
        let change = Change::default()
            .set("next_attempt_at", &Timestamp::now())
            .set("leases", &head.leases)
            .only_if(is_leased());
        self.update(id, &change).await
    }
}

/// The key of a mark. Runs that drain other shards at the same time have marks of their own.
fn run_key(shards: &Range<u8>) -> Item {
    item_key(RUNS, &format!("run#{}#{}", shards.start, shards.end))
}

fn is_leased() -> Condition {
    Condition::in_state(State::Pending).and(Condition::Exists("leases"))
}
