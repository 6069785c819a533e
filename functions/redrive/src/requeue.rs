//! `{"requeue":{}}`: failed events go back into the outbox, with all their attempts before them.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::store::{Place, State};
use tokio::time::Instant;

use crate::{Outbox, PAGE, TaskError};

/// All failed events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requeue {
    /// What they are in. It may be said, and can be nothing else.
    #[serde(default)]
    #[expect(dead_code, reason = "read for its fault alone")]
    state: Failed,
    /// Count them only.
    #[serde(default)]
    dry_run: bool,
    /// Where an earlier run stopped.
    cursor: Option<Place>,
}

/// The only state that is requeued.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Failed {
    #[default]
    Failed,
}

impl Outbox {
    pub(crate) async fn requeue(&self, requeue: &Requeue, stop_at: Instant) -> Result<Value, TaskError> {
        let mut requeued = 0_u64;
        let mut place = Some(requeue.cursor.clone().unwrap_or_default());
        let now = Timestamp::now();
        while let Some(here) = place.as_ref().filter(|_| Instant::now() < stop_at) {
            let (ids, next) = self.store.due(State::Failed, here, now, PAGE).await?;
            for id in &ids {
                requeued += u64::from(requeue.dry_run || self.store.requeue(id).await?);
            }
            place = next;
        }
        tracing::info!(requeued, dry_run = requeue.dry_run, "requeue");
        Ok(json!({"requeued": requeued, "dry_run": requeue.dry_run, "done": place.is_none(), "cursor": place}))
    }
}
