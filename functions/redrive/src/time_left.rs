//! The time that a task has, and working through pages in it.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::TaskError;

/// The time kept free before the function's own deadline for the last page of events.
const LAST_PAGE_BUDGET: Duration = Duration::from_secs(15);

/// The time kept free before the function's own deadline for counting what is left, and for the answer.
const ANSWER_BUDGET: Duration = Duration::from_millis(3_500);

/// The cause of an outage if a step of a task did not end in time.
pub(crate) const NO_ANSWER: &str = "no answer in time";

/// The time that a task has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLeft {
    /// From this time on no page is begun.
    pub(crate) stop_at: Instant,
    /// At this time a page in hand is dropped. The next run does it again.
    pub(crate) give_up_at: Instant,
    /// The function's own deadline.
    pub(crate) deadline: Instant,
}

/// How much of a task is left after a page.
pub(crate) enum Page {
    /// There may be another page, from the cursor on.
    More,
    /// There may be another page, but the answer has no room for it.
    Full,
    /// This was the last page.
    Last,
}

/// How far a task came.
pub(crate) struct Walked<C> {
    /// Where the next run goes on; `None` if the task is done.
    pub(crate) cursor: Option<C>,
    /// Why the task stopped before its time was up.
    pub(crate) outage: Option<String>,
}

impl TimeLeft {
    pub(crate) fn until(deadline: Instant) -> Self {
        let left = deadline.saturating_duration_since(Instant::now());
        Self {
            stop_at: deadline - LAST_PAGE_BUDGET.min(left / 4),
            give_up_at: deadline - ANSWER_BUDGET.min(left / 16),
            deadline,
        }
    }

    /// Whether it is too late to begin another page.
    pub(crate) fn is_up(self) -> bool {
        Instant::now() >= self.stop_at
    }

    /// Runs a step of a task, until `give_up_at` at most. The inner error is the cause of an outage: the step may be
    /// repeated.
    pub(crate) async fn attempt<T>(
        self,
        step: impl Future<Output = Result<T, TaskError>>,
    ) -> Result<Result<T, String>, TaskError> {
        match timeout_at(self.give_up_at, step).await {
            Ok(Ok(done)) => Ok(Ok(done)),
            Ok(Err(error)) => error.into_outage().map(Err),
            Err(_) => Ok(Err(NO_ANSWER.to_owned())),
        }
    }

    /// Works through the pages from `first` on, until the last one, an outage, or the end of the time. Each page moves
    /// the cursor past what is done.
    pub(crate) async fn walk<C>(
        self,
        first: Option<C>,
        mut page: impl AsyncFnMut(&mut C) -> Result<Page, TaskError>,
    ) -> Result<Walked<C>, TaskError> {
        let mut cursor = first;
        while let Some(here) = &mut cursor
            && !self.is_up()
        {
            // Boxed: these futures are large.
            match self.attempt(Box::pin(page(here))).await? {
                Ok(Page::More) => {}
                Ok(Page::Full) => break,
                Ok(Page::Last) => cursor = None,
                Err(cause) => {
                    return Ok(Walked {
                        cursor,
                        outage: Some(cause),
                    });
                }
            }
        }
        Ok(Walked { cursor, outage: None })
    }
}

impl<C: serde::Serialize> Walked<C> {
    /// Whether nothing is left.
    pub(crate) fn is_done(&self) -> bool {
        self.cursor.is_none()
    }

    /// Adds how far the task came to its counts, which makes them its answer.
    pub(crate) fn answer(&self, mut counts: serde_json::Value) -> serde_json::Value {
        counts["done"] = self.is_done().into();
        counts["cursor"] = serde_json::json!(self.cursor);
        counts["outage"] = self.outage.as_deref().into();
        counts
    }
}
