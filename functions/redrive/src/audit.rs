//! `{"audit":{}}`: lists the parts in the table that no event refers to. The parts of a large delivery are written
//! before its event. If the event was never stored, its parts are listed here until a later run of `redrive` deletes
//! them.

use serde::Deserialize;
use serde_json::{Value, json};
use shared::store::ManifestCursor;

use crate::time_left::TimeLeft;
use crate::{Outbox, TaskError};

/// The largest number of orphans that are read at once, and that one answer lists.
const PAGE: i32 = 100;
const LISTED: usize = 1_000;

/// All orphans, or those that an earlier answer had no room for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Where an earlier run stopped.
    cursor: Option<ManifestCursor>,
}

impl Outbox {
    pub(crate) async fn audit(&self, audit: Audit, time: TimeLeft) -> Result<Value, TaskError> {
        let mut orphans = Vec::new();
        let mut cursor = Some(audit.cursor.unwrap_or_default());
        while let Some(here) = &cursor
            && !time.is_up()
            && orphans.len() < LISTED
        {
            let (page, next) = self.store.orphans(here, PAGE).await?;
            orphans.extend(page);
            cursor = next;
        }
        tracing::info!(orphans = orphans.len(), "audit");
        Ok(json!({"orphans": orphans, "done": cursor.is_none(), "cursor": cursor}))
    }
}
