//! `{"retain":{...}}`: applies today's retention to events that left the outbox before it was switched on or changed.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::store::{Projection, Retained};

use crate::by_hour::{HourCursor, Period};
use crate::time_left::{Page, TimeLeft};
use crate::{Outbox, TaskError};

/// The events of a provider that were received in a period.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retain {
    provider: String,
    /// Received at this time or later.
    from: Timestamp,
    /// Received before this time.
    to: Timestamp,
    /// Only count the events.
    #[serde(default)]
    dry_run: bool,
    /// Where an earlier run stopped.
    cursor: Option<HourCursor>,
}

impl Outbox {
    pub(crate) async fn retain(&self, task: Retain, time: TimeLeft) -> Result<Value, TaskError> {
        let (mut marked, mut unmarked) = (0_u64, 0_u64);
        let period = Period {
            provider: &task.provider,
            from: task.from,
            to: task.to,
        };
        let walked = self
            .walk_period(period, task.cursor, Projection::Nothing, time, async |events| {
                for (id, head) in events {
                    let retained = if task.dry_run {
                        self.store.retained(&head)
                    } else {
                        self.store.retain(&id, &head).await?
                    };
                    match retained {
                        Retained::Marked => marked += 1,
                        Retained::Unmarked => unmarked += 1,
                        Retained::Unchanged => {}
                    }
                }
                Ok(Page::More)
            })
            .await?;
        tracing::info!(
            marked,
            unmarked,
            outage = walked.outage,
            dry_run = task.dry_run,
            provider = task.provider,
            "retain"
        );
        Ok(walked.answer(json!({"marked": marked, "unmarked": unmarked, "dry_run": task.dry_run})))
    }
}
