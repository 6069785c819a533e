//! `{"replay":{...}}`: publishing exactly the stored events again. They keep their ids; the attribute `replay` tells.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::codes::Code;
use shared::publisher::{Evidence, Fault, Occasion};
use shared::store::{Projection, State, StoreError};
use tokio::time::{Instant, timeout_at};

use crate::by_hour::HourCursor;
use crate::{Outbox, TaskError, TimeLeft};

/// Which events: those of a provider that were received in a time, and of them those of a shop and of some types.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    provider: String,
    shop: Option<String>,
    /// Received at this time or later.
    from: Timestamp,
    /// Received before this time.
    to: Timestamp,
    /// Types of events, such as `order.created`; all where there are none.
    #[serde(default)]
    types: Vec<String>,
    /// Count them only.
    #[serde(default)]
    dry_run: bool,
    /// Where an earlier run stopped.
    cursor: Option<HourCursor>,
}

impl Outbox {
    pub(crate) async fn replay(&self, replay: Replay, time: TimeLeft) -> Result<Value, TaskError> {
        let mut place = replay.cursor.clone().unwrap_or_else(|| HourCursor::at(replay.from));
        let mut counts = Counts::default();
        let evidence = Evidence::default();
        while place.is_before(replay.to) {
            if Instant::now() >= time.stop_at {
                return Ok(answer(&counts, &replay, Some(&place), None));
            }
            let page = timeout_at(
                time.give_up_at,
                self.replay_page(&replay, &place, time.deadline, &evidence),
            )
            .await;
            let Ok(page) = page else {
                return Ok(answer(&counts, &replay, Some(&place), Some("no answer in time")));
            };
            match page {
                Ok(Page::Published(of_page, next)) => {
                    counts.replayed += of_page.replayed;
                    counts.expired += of_page.expired;
                    place = next;
                }
                Ok(Page::Outage(cause)) => return Ok(answer(&counts, &replay, Some(&place), Some(&cause))),
                Err(error) => return Ok(answer(&counts, &replay, Some(&place), Some(&error.to_string()))),
            }
        }
        let Counts { replayed, expired } = counts;
        tracing::info!(
            replayed,
            expired,
            dry_run = replay.dry_run,
            provider = replay.provider,
            "replay"
        );
        Ok(answer(&counts, &replay, None, None))
    }

    async fn replay_page(
        &self,
        replay: &Replay,
        place: &HourCursor,
        until: Instant,
        evidence: &Evidence,
    ) -> Result<Page, StoreError> {
        let (ids, last) = self.received(&replay.provider, place).await?;
        let wanted = self
            .store
            .heads(&ids, Projection::Event)
            .await?
            .into_iter()
            .filter(|(_, head)| {
                let received_at = head.received_at();
                head.state == State::Published
                    && received_at.is_some_and(|time| (replay.from..replay.to).contains(&time))
                    && replay.shop.as_deref().is_none_or(|shop| head.shop() == Some(shop))
                    && (replay.types.is_empty() || replay.types.iter().any(|wanted| head.event_type() == Some(wanted)))
            });
        let now = Timestamp::now();
        let (expired, wanted): (Vec<_>, Vec<_>) = wanted.partition(|(_, head)| self.store.has_expired(head, now));
        let mut counts = Counts {
            replayed: wanted.len() as u64,
            expired: expired.len() as u64,
        };
        if !replay.dry_run {
            let results = self.publish(&wanted, Occasion::Replay, until, evidence).await;
            for ((id, _), result) in wanted.iter().zip(results) {
                let Err(error) = result else { continue };
                // Others pass: it is this one that SNS does not take.
                let is_its_own_fault = error.fault == Fault::Unpublishable
                    || (error.is_alone
                        && evidence.is_worth_a_call()
                        && matches!(error.fault, Fault::Refused | Fault::Unclear | Fault::Outage));
                if !is_its_own_fault {
                    // The page is replayed again: what was published of it is published twice, under the same ids.
                    return Ok(Page::Outage(error.cause));
                }
                counts.replayed -= 1;
                tracing::error!(
                    code = Code::EventNotReplayed.as_str(),
                    event_id = %id,
                    cause = error.cause,
                    "the event cannot be published"
                );
            }
        }
        Ok(Page::Published(counts, place.next(last)))
    }
}

/// How many events were replayed, and how many were left out.
#[derive(Default)]
struct Counts {
    replayed: u64,
    /// Not replayed: they have expired, and are not removed yet.
    expired: u64,
}

enum Page {
    Published(Counts, HourCursor),
    Outage(String),
}

fn answer(counts: &Counts, replay: &Replay, cursor: Option<&HourCursor>, outage: Option<&str>) -> Value {
    let Counts { replayed, expired } = counts;
    json!({
        "replayed": replayed,
        "expired": expired,
        "dry_run": replay.dry_run,
        "done": cursor.is_none(),
        "cursor": cursor,
        "outage": outage,
    })
}
