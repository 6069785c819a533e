//! The progress of reconciliation: one item for each shop, with a lease, so that one run works at a time, and the time
//! up to which the shop is complete.
//!
//! A run takes the lease, writes how far it came, and gives the lease back at its end. A run that is killed keeps the
//! lease until it expires. The next run goes on where the last one has written that it was.

use aws_sdk_dynamodb::types::ReturnValue;
use jiff::Timestamp;

use super::{AttemptId, Change, Condition, Item, Store, StoreError, item_key, text};
use crate::identity::Shop;

/// The partition of the items. No event has this key, because an event id is 64 hex digits.
const RECONCILE: &str = "reconcile";

/// The lease of a shop, which one run holds.
pub struct ReconcileLease {
    key: Item,
    id: AttemptId,
}

/// How far reconciliation of a shop has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReconcileProgress {
    /// The time up to which all orders are compared.
    pub complete_until: Option<Timestamp>,
    /// Where a run that was not complete stopped, as it has written it.
    pub resume: Option<String>,
    /// The end of the last complete run.
    pub last_complete_at: Option<Timestamp>,
    /// The end of the last run that looked further back than the others.
    pub last_daily_at: Option<Timestamp>,
    /// The beginning of the period of the first complete run.
    pub first_from: Option<Timestamp>,
    /// The beginning of the first run.
    pub first_run_at: Option<Timestamp>,
    /// The time since which no run could use the provider's API.
    pub failing_since: Option<Timestamp>,
}

/// How a run ends.
#[derive(Clone, Copy, Debug)]
pub enum ReconcileEnd<'a> {
    /// All orders of a period are compared.
    Complete {
        /// The beginning of the period.
        from: Timestamp,
        /// The end of the period.
        until: Timestamp,
        /// Whether the run looked further back than the others, as one run a day does.
        is_daily: bool,
    },
    /// The next run goes on from here.
    Partial(&'a str),
    /// The provider's API cannot be used, for this cause. The next run goes on from here, if the run came further than
    /// its beginning.
    Unavailable {
        /// The cause, without anything of an order or a secret.
        cause: &'a str,
        /// Where the run stopped.
        resume: Option<&'a str>,
        /// Whether the run looked further back than the others. The next one does not, so that a page that the API cannot
        /// answer does not hold up the orders of today.
        is_daily: bool,
    },
    /// The run covered a period that an operator named, which says nothing about the rest.
    OfPeriod,
}

impl Store {
    /// Begins a run at a shop, whose lease ends at `until` unless the run gives it back. Returns `None` if another run
    /// holds the lease.
    pub async fn begin_reconciliation(
        &self,
        provider: &str,
        shop: &Shop,
        until: Timestamp,
    ) -> Result<Option<(ReconcileLease, ReconcileProgress)>, StoreError> {
        let now = Timestamp::now();
        let lease = ReconcileLease {
            key: item_key(RECONCILE, &format!("{provider}#{shop}")),
            id: AttemptId::random(),
        };
        let is_free = Condition::Absent("lease_id").or(Condition::at_most("lease_until", &now));
        // The SDK may repeat a write whose answer was lost.
        let is_mine = Condition::equals("lease_id", lease.id.0.as_str());
        let change = Change::default()
            .set("lease_id", lease.id.0.as_str())
            .set("lease_until", &until)
            .set_if_absent("first_run_at", &now)
            .only_if(is_free.or(is_mine));
        let item = self
            .update_item(lease.key.clone(), &change, ReturnValue::AllNew)
            .await?;
        Ok(item.map(|item| (lease, progress(&item))))
    }

    /// Reads how far reconciliation of a shop has come.
    pub async fn reconciliation(&self, provider: &str, shop: &Shop) -> Result<ReconcileProgress, StoreError> {
        let key = item_key(RECONCILE, &format!("{provider}#{shop}"));
        Ok(self
            .get_by_key(key)
            .await?
            .map(|item| progress(&item))
            .unwrap_or_default())
    }

    /// Writes how far a run has come, in case it is killed. Returns false if the run has lost its lease.
    pub async fn save_reconciliation(&self, lease: &ReconcileLease, resume: &str) -> Result<bool, StoreError> {
        let change = Change::default().set("resume", resume).only_if(lease.is_held());
        Ok(self
            .update_item(lease.key.clone(), &change, ReturnValue::None)
            .await?
            .is_some())
    }

    /// Writes how a run ends, with its counts as JSON text, and gives the lease back. Returns false if the run has lost
    /// its lease.
    pub async fn end_reconciliation(
        &self,
        lease: &ReconcileLease,
        end: ReconcileEnd<'_>,
        counts: &str,
    ) -> Result<bool, StoreError> {
        let now = Timestamp::now();
        let id = lease.id.0.as_str();
        let change = Change::default().set("last_counts", counts).set("last_run", id);
        let mut removed = vec!["lease_id", "lease_until"];
        let change = match end {
            ReconcileEnd::Complete { from, until, is_daily } => {
                removed.extend(["resume", "failing_since", "last_cause"]);
                let change = change
                    .set("complete_until", &until)
                    .set("last_complete_at", &now)
                    .set_if_absent("first_from", &from);
                if is_daily {
                    change.set("last_daily_at", &now)
                } else {
                    change
                }
            }
            ReconcileEnd::Partial(resume) => {
                removed.extend(["failing_since", "last_cause"]);
                change.set("resume", resume)
            }
            ReconcileEnd::Unavailable {
                cause,
                resume,
                is_daily,
            } => {
                let change = change.set("last_cause", cause).set_if_absent("failing_since", &now);
                match resume {
                    _ if is_daily => {
                        removed.push("resume");
                        change.set("last_daily_at", &now)
                    }
                    Some(resume) => change.set("resume", resume),
                    None => change,
                }
            }
            ReconcileEnd::OfPeriod => change,
        };
        // The SDK may repeat a write whose answer was lost.
        let has_ended = Condition::equals("last_run", id).and(Condition::Absent("lease_id"));
        let change = change.remove(&removed).only_if(lease.is_held().or(has_ended));
        Ok(self
            .update_item(lease.key.clone(), &change, ReturnValue::None)
            .await?
            .is_some())
    }
}

impl ReconcileLease {
    fn is_held(&self) -> Condition {
        Condition::equals("lease_id", self.id.0.as_str())
    }
}

fn progress(item: &Item) -> ReconcileProgress {
    let time = |name| text(item, name)?.parse().ok();
    ReconcileProgress {
        complete_until: time("complete_until"),
        resume: text(item, "resume").map(str::to_owned),
        last_complete_at: time("last_complete_at"),
        last_daily_at: time("last_daily_at"),
        first_from: time("first_from"),
        first_run_at: time("first_run_at"),
        failing_since: time("failing_since"),
    }
}
