//! `{"requeue":{}}`: failed events go back into the outbox, with all their attempts before them.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::store::{State, WorkCursor};
use tokio::time::Instant;

use crate::{Outbox, PAGE, TaskError, TimeLeft};

/// All failed events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requeue {
    /// The state they are in. Optional; only `failed` is accepted.
    #[serde(default)]
    #[expect(dead_code, reason = "read for its fault alone")]
    state: Failed,
    /// Count them only.
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
    pub(crate) async fn requeue(&self, requeue: &Requeue, time: TimeLeft) -> Result<Value, TaskError> {
        let mut requeued = 0_u64;
        let mut place = Some(requeue.cursor.clone().unwrap_or_default());
        let mut outage = None;
        let now = Timestamp::now();
        while let Some(here) = place.as_ref().filter(|_| Instant::now() < time.stop_at) {
            match time
                .cut(self.requeue_page(requeue, here, now, time, &mut requeued))
                .await?
            {
                Ok(Some(next)) => place = next,
                // There was no time for the rest of the page: what was requeued of it is no longer failed.
                Ok(None) => break,
                Err(cause) => {
                    outage = Some(cause);
                    break;
                }
            }
        }
        tracing::info!(requeued, outage, dry_run = requeue.dry_run, "requeue");
        Ok(json!({
            "requeued": requeued,
            "dry_run": requeue.dry_run,
            "done": place.is_none(),
            "cursor": place,
            "outage": outage,
        }))
    }

    /// The place after the page; `None` where there was no time for all of it.
    async fn requeue_page(
        &self,
        requeue: &Requeue,
        here: &WorkCursor,
        now: Timestamp,
        time: TimeLeft,
        requeued: &mut u64,
    ) -> Result<Option<Option<WorkCursor>>, TaskError> {
        let (ids, next) = self.store.due(State::Failed, here, now, PAGE).await?;
        if requeue.dry_run {
            *requeued += ids.len() as u64;
            return Ok(Some(next));
        }
        for id in &ids {
            if Instant::now() >= time.stop_at {
                return Ok(None);
            }
            *requeued += u64::from(self.store.requeue(id).await?);
        }
        Ok(Some(next))
    }
}
