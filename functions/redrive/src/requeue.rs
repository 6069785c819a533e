//! `{"requeue":{}}`: puts failed events back into the outbox, with all their attempts before them.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::store::{State, WorkCursor};

use crate::time_left::{Page, TimeLeft};
use crate::{Outbox, PAGE, TaskError};

/// All failed events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requeue {
    /// The state of the events. Optional; only `failed` is accepted.
    #[serde(default)]
    #[expect(dead_code, reason = "deserialized to reject any other state")]
    state: Failed,
    /// Only count the events.
    #[serde(default)]
    dry_run: bool,
    /// Where an earlier run stopped.
    cursor: Option<WorkCursor>,
}

/// The only state that is requeued.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Failed {
    #[default]
    Failed,
}

impl Outbox {
    pub(crate) async fn requeue(&self, task: Requeue, time: TimeLeft) -> Result<Value, TaskError> {
        let dry_run = task.dry_run;
        let mut requeued = 0_u64;
        let now = Timestamp::now();
        let first = task.cursor.unwrap_or_default();
        let walked = time
            .walk(Some(first), async |cursor: &mut WorkCursor| {
                let (ids, next) = self.store.due(State::Failed, cursor, now, PAGE).await?;
                if dry_run {
                    requeued += ids.len() as u64;
                } else {
                    for id in &ids {
                        if time.is_up() {
                            // The page is read again. The events that were requeued are no longer failed.
                            return Ok(Page::More);
                        }
                        requeued += u64::from(self.store.requeue(id).await?);
                    }
                }
                let Some(next) = next else {
                    return Ok(Page::Last);
                };
                *cursor = next;
                Ok(Page::More)
            })
            .await?;
        tracing::info!(requeued, outage = walked.outage, dry_run, "requeue");
        Ok(walked.answer(json!({"requeued": requeued, "dry_run": dry_run})))
    }
}
