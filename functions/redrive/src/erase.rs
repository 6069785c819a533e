//! `{"erase":{...}}`: removing what is known of an order. Of each of its events a tombstone stays, so that a late repeat
//! is still a duplicate.

use serde::Deserialize;
use serde_json::{Value, json};
use shared::store::{ErasedBy, State, With};

use crate::{Outbox, TaskError};

/// Which order. Nothing is erased unless `dry_run` is false.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erase {
    provider: String,
    shop: String,
    order: String,
    #[serde(default = "count_only")]
    dry_run: bool,
}

fn count_only() -> bool {
    true
}

impl Outbox {
    pub(crate) async fn erase(&self, erase: Erase) -> Result<Value, TaskError> {
        let ids = self.store.of_order(&erase.provider, &erase.shop, &erase.order).await?;
        let (mut erased, mut waiting) = (0_u64, 0_u64);
        for ids in ids.chunks(25) {
            for (id, head) in self.store.heads(ids, With::Nothing).await? {
                match head.state {
                    // What is not published yet is not lost by erasing it.
                    State::Pending | State::Failed => waiting += 1,
                    // One that is erased and still found was not erased to its end.
                    _ => erased += u64::from(erase.dry_run || self.store.erase(&id, &head, ErasedBy::Operator).await?),
                }
            }
        }
        tracing::info!(
            erased,
            waiting,
            dry_run = erase.dry_run,
            provider = erase.provider,
            "erase"
        );
        Ok(json!({"erased": erased, "waiting": waiting, "dry_run": erase.dry_run}))
    }
}
