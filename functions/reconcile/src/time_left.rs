//! The time that a run has.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// The time kept free before the function's own deadline for the last page of orders.
const LAST_PAGE_BUDGET: Duration = Duration::from_secs(20);
/// The time kept free before the function's own deadline for the end of the run and its answer.
const ANSWER_BUDGET: Duration = Duration::from_secs(4);

/// The time that a run has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLeft {
    /// From this time on no page is begun.
    stop_at: Instant,
    /// From this time on no order is begun, and no call of the API is made.
    pub(crate) give_up_at: Instant,
    deadline: Instant,
}

impl TimeLeft {
    pub(crate) fn until(deadline: Instant) -> Self {
        let left = deadline.saturating_duration_since(Instant::now());
        Self {
            stop_at: deadline - LAST_PAGE_BUDGET.min(left / 3),
            give_up_at: deadline - ANSWER_BUDGET.min(left / 8),
            deadline,
        }
    }

    /// Whether it is too late to begin another page.
    pub(crate) fn is_up(self) -> bool {
        Instant::now() >= self.stop_at
    }

    /// Whether it is too late to begin another order of a page.
    pub(crate) fn is_over(self) -> bool {
        Instant::now() >= self.give_up_at
    }

    /// Whether there is still time for something that takes this long.
    pub(crate) fn leaves(self, time: Duration) -> bool {
        Instant::now() + time < self.give_up_at
    }

    /// The end of the lease of a run that is killed: when the function can no longer be running.
    pub(crate) fn end_of_lease(self) -> Timestamp {
        let left = self.deadline.saturating_duration_since(Instant::now());
        Timestamp::now()
            .checked_add(left + Duration::from_secs(5))
            .unwrap_or(Timestamp::MAX)
    }
}
