//! `{"retain":{...}}`: applying today's retention to events that left the outbox before it was switched on or changed.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::store::{Projection, Retained, StoreError};
use tokio::time::{Instant, timeout_at};

use crate::by_hour::HourCursor;
use crate::{Outbox, TaskError, TimeLeft};

/// Which events: those of a provider that were received in a time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retain {
    provider: String,
    /// Received at this time or later.
    from: Timestamp,
    /// Received before this time.
    to: Timestamp,
    /// Count them only.
    #[serde(default)]
    dry_run: bool,
    /// Where an earlier run stopped.
    cursor: Option<HourCursor>,
}

#[derive(Default)]
struct Counts {
    marked: u64,
    unmarked: u64,
}

impl Outbox {
    pub(crate) async fn retain(&self, retain: Retain, time: TimeLeft) -> Result<Value, TaskError> {
        let mut place = retain.cursor.clone().unwrap_or_else(|| HourCursor::at(retain.from));
        let mut counts = Counts::default();
        while place.is_before(retain.to) {
            if Instant::now() >= time.stop_at {
                return Ok(answer(&counts, &retain, Some(&place), None));
            }
            let page = timeout_at(time.give_up_at, self.retain_page(&retain, &place, &mut counts)).await;
            let outage = match page {
                Ok(Ok(next)) => {
                    place = next;
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            return Ok(answer(&counts, &retain, Some(&place), Some(&outage)));
        }
        let Counts { marked, unmarked } = counts;
        tracing::info!(
            marked,
            unmarked,
            dry_run = retain.dry_run,
            provider = retain.provider,
            "retain"
        );
        Ok(answer(&counts, &retain, None, None))
    }

    async fn retain_page(
        &self,
        retain: &Retain,
        place: &HourCursor,
        counts: &mut Counts,
    ) -> Result<HourCursor, StoreError> {
        let (ids, last) = self.received(&retain.provider, place).await?;
        for (id, head) in self.store.heads(&ids, Projection::Nothing).await? {
            let received_at = head.received_at();
            if !received_at.is_some_and(|time| (retain.from..retain.to).contains(&time)) {
                continue;
            }
            let retained = if retain.dry_run {
                self.store.retained(&head)
            } else {
                self.store.retain(&id, &head).await?
            };
            match retained {
                Retained::Marked => counts.marked += 1,
                Retained::Unmarked => counts.unmarked += 1,
                Retained::Unchanged => {}
            }
        }
        Ok(place.next(last))
    }
}

fn answer(counts: &Counts, retain: &Retain, cursor: Option<&HourCursor>, outage: Option<&str>) -> Value {
    let Counts { marked, unmarked } = counts;
    json!({
        "marked": marked,
        "unmarked": unmarked,
        "dry_run": retain.dry_run,
        "done": cursor.is_none(),
        "cursor": cursor,
        "outage": outage,
    })
}
