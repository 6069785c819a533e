//! `{"requeue":{}}`: failed events go back into the outbox, with all their attempts before them.

use serde::Deserialize;
use serde_json::{Value, json};
use shared::store::{SHARDS, State};
use tokio::time::Instant;

use crate::{Outbox, PAGE, TaskError};

/// All failed events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requeue {
    /// Count them only.
    #[serde(default)]
    dry_run: bool,
}

impl Outbox {
    pub(crate) async fn requeue(&self, requeue: &Requeue, stop_at: Instant) -> Result<Value, TaskError> {
        let mut requeued = 0_u64;
        let now = jiff::Timestamp::now();
        for shard in 0..SHARDS {
            let mut cursor = None;
            loop {
                if Instant::now() >= stop_at {
                    return Ok(json!({"requeued": requeued, "dry_run": requeue.dry_run, "done": false}));
                }
                let (ids, next) = self.store.due(State::Failed, shard, now, PAGE, cursor).await?;
                for id in &ids {
                    requeued += u64::from(requeue.dry_run || self.store.requeue(id).await?);
                }
                match next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
        }
        tracing::info!(requeued, dry_run = requeue.dry_run, "requeue");
        Ok(json!({"requeued": requeued, "dry_run": requeue.dry_run, "done": true}))
    }
}
