//! `{"audit":{}}`: what the table holds and no event refers to. Parts of a large delivery are written before the event that names
//! them; where that event was never stored, the parts are listed here, until the sweep of a later run deletes them.

use serde::{Deserialize, Serialize};
use shared::store::{ManifestCursor, Orphan};
use tokio::time::Instant;

use crate::{Outbox, TaskError};

/// Orphans that are listed at once, and in one answer.
const PAGE: i32 = 100;
const LISTED: usize = 1_000;

/// Everything, or what an earlier answer had no room for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Where an earlier run stopped.
    cursor: Option<ManifestCursor>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Audited {
    /// Where to go on, unless it is done.
    cursor: Option<ManifestCursor>,
    done: bool,
    orphans: Vec<Orphan>,
}

impl Outbox {
    pub(crate) async fn audit(&self, audit: Audit, stop_at: Instant) -> Result<Audited, TaskError> {
        let mut orphans = Vec::new();
        let mut place = Some(audit.cursor.unwrap_or_default());
        while let Some(here) = place
            .as_ref()
            .filter(|_| Instant::now() < stop_at && orphans.len() < LISTED)
        {
            let (some, next) = self.store.orphans(here, PAGE).await?;
            orphans.extend(some);
            place = next;
        }
        tracing::info!(orphans = orphans.len(), "audit");
        Ok(Audited {
            done: place.is_none(),
            cursor: place,
            orphans,
        })
    }
}
