//! `{"erase":{...}}`: removing what is stored of an event, of an order, or of a customer by e-mail address. Of each event a tombstone
//! stays, so that a late repeat is still a duplicate.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::codes::Code;
use shared::identity::EventId;
use shared::store::{ErasedBy, Head, Hour, Projection, Received, State, StoreError};
use tokio::time::Instant;

use crate::mentions::Address;
use crate::{Outbox, TaskError, TimeLeft, event_id};

/// Keys that are read from the index at once; what they name is read one by one.
const KEYS: usize = 25;

/// What to erase: one event, an order, or what one shop's deliveries of a time say of an e-mail address. Nothing is erased unless
/// `dry_run` is false.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erase {
    event_id: Option<String>,
    provider: Option<String>,
    shop: Option<String>,
    order: Option<String>,
    email: Option<String>,
    /// Received at this time or later.
    from: Option<Timestamp>,
    /// Received before this time.
    to: Option<Timestamp>,
    #[serde(default = "count_only")]
    dry_run: bool,
    /// Where an earlier run stopped.
    cursor: Option<Cursor>,
}

fn count_only() -> bool {
    true
}

/// The hour that was looked through, and the item that was the last.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    hour: Timestamp,
    after: Option<Received>,
}

/// What one shop's deliveries of a time say of an address.
struct Window<'t> {
    provider: &'t str,
    shop: &'t str,
    address: Address,
    from: Timestamp,
    to: Timestamp,
}

impl Window<'_> {
    /// Whether an item is of the shop, and was received in the time.
    fn contains(&self, head: &Head) -> bool {
        let received_at = head.received_at();
        head.shop() == Some(self.shop) && received_at.is_some_and(|time| (self.from..self.to).contains(&time))
    }
}

#[derive(Default)]
struct Counts {
    erased: u64,
    waiting: u64,
}

impl Outbox {
    pub(crate) async fn erase(&self, erase: &Erase, time: TimeLeft) -> Result<Value, TaskError> {
        let mut counts = Counts::default();
        let mut cursor = None;
        let outage = match (
            &erase.event_id,
            &erase.provider,
            &erase.shop,
            &erase.order,
            &erase.email,
        ) {
            (Some(id), None, None, None, None) => {
                let id = event_id(id)?;
                time.cut(self.erase_event(&id, erase.dry_run, &mut counts)).await?.err()
            }
            (None, Some(provider), Some(shop), Some(order), None) => {
                let erased = self.erase_order((provider, shop, order), erase.dry_run, &mut counts);
                time.cut(erased).await?.err()
            }
            (None, Some(provider), Some(shop), None, Some(email)) => {
                let (Some(from), Some(to)) = (erase.from, erase.to) else {
                    return Err(TaskError::NoTask("erase by email takes from and to".to_owned()));
                };
                let address = Address::parse(email)
                    .ok_or_else(|| TaskError::NoTask("the email is not an e-mail address".to_owned()))?;
                let window = Window {
                    provider,
                    shop,
                    address,
                    from,
                    to,
                };
                let first = Cursor {
                    hour: Hour::containing(from).start(),
                    after: None,
                };
                let mut here = erase.cursor.clone().unwrap_or(first);
                let outage = self
                    .erase_window(&window, erase.dry_run, &mut here, time, &mut counts)
                    .await?;
                cursor = (outage.is_some() || here.hour < to).then_some(here);
                outage
            }
            _ => {
                return Err(TaskError::NoTask(
                    "erase takes event_id; or provider, shop and order; or provider, shop, email, from and to"
                        .to_owned(),
                ));
            }
        };
        let Counts { erased, waiting } = counts;
        tracing::info!(
            erased,
            waiting,
            outage,
            dry_run = erase.dry_run,
            provider = erase.provider,
            "erase"
        );
        let mut answer = json!({"erased": erased, "waiting": waiting, "dry_run": erase.dry_run});
        if erase.email.is_some() || outage.is_some() {
            answer["done"] = (cursor.is_none() && outage.is_none()).into();
            answer["cursor"] = json!(cursor);
            answer["outage"] = outage.into();
        }
        Ok(answer)
    }

    async fn erase_event(&self, id: &EventId, dry_run: bool, counts: &mut Counts) -> Result<(), TaskError> {
        let Some(head) = self.store.find_head(id).await? else {
            // Parts that no delivery has committed.
            let erased = if dry_run {
                self.store.has_leftovers(id).await?
            } else {
                self.store.erase_leftovers(id).await?
            };
            counts.erased += u64::from(erased);
            return Ok(());
        };
        self.erase_head(id, &head, dry_run, counts).await
    }

    async fn erase_order(
        &self,
        (provider, shop, order): (&str, &str, &str),
        dry_run: bool,
        counts: &mut Counts,
    ) -> Result<(), TaskError> {
        let ids = self.store.of_order(provider, shop, order).await?;
        let (mut unreadable, mut unreadable_ids) = (None, HashSet::new());
        for ids in ids.chunks(25) {
            let mut left_out: HashSet<&EventId> = ids.iter().collect();
            for (id, head) in self.store.heads(ids, Projection::Nothing).await? {
                left_out.remove(&id);
                self.erase_head(&id, &head, dry_run, counts).await?;
            }
            for id in left_out {
                match self.store.find_head(id).await {
                    // One that cannot be read holds up no other, but the order is not erased to its end.
                    Err(error @ StoreError::Corrupt(_)) => {
                        unreadable = Some(error);
                        unreadable_ids.insert(id.clone());
                    }
                    Err(error) => return Err(error.into()),
                    Ok(_) => {}
                }
            }
        }
        // What lies beside a head that was erased is gone with it, and counted with it.
        let erased: HashSet<EventId> = ids.into_iter().filter(|id| !unreadable_ids.contains(id)).collect();
        for (id, payload_sha256) in self.store.conflicts_of_order(provider, shop, order).await? {
            let is_left = !erased.contains(&id) || self.is_waiting(&id).await?;
            if is_left {
                counts.erased += u64::from(dry_run || self.store.erase_conflict(&id, &payload_sha256).await?);
            }
        }
        unreadable.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn is_waiting(&self, id: &EventId) -> Result<bool, StoreError> {
        let heads = self.store.heads(std::slice::from_ref(id), Projection::Nothing).await?;
        Ok(heads.iter().any(|(_, head)| head.state == State::Pending))
    }

    async fn erase_head(&self, id: &EventId, head: &Head, dry_run: bool, counts: &mut Counts) -> Result<(), TaskError> {
        match head.state {
            // What is not published yet must not get lost by erasing it.
            State::Pending => counts.waiting += 1,
            State::Erased if head.is_erased_to_its_end() => {
                // A delivery in flight may have written parts since.
                if !dry_run {
                    self.store.erase_beside(id).await?;
                }
            }
            _ => counts.erased += u64::from(dry_run || self.store.erase(id, head, ErasedBy::Operator).await?),
        }
        Ok(())
    }

    /// Goes through the hours. Why it could not go on, if it could not.
    async fn erase_window(
        &self,
        window: &Window<'_>,
        dry_run: bool,
        here: &mut Cursor,
        time: TimeLeft,
        counts: &mut Counts,
    ) -> Result<Option<String>, TaskError> {
        while here.hour < window.to && Instant::now() < time.stop_at {
            let page = self.erase_page(window, dry_run, here, time, counts);
            if let Err(cause) = time.cut(page).await? {
                return Ok(Some(cause));
            }
        }
        Ok(None)
    }

    /// Reads what the next keys name, and moves the cursor past each.
    async fn erase_page(
        &self,
        window: &Window<'_>,
        dry_run: bool,
        here: &mut Cursor,
        time: TimeLeft,
        counts: &mut Counts,
    ) -> Result<(), TaskError> {
        let hour = Hour::containing(here.hour);
        let page = self.store.received_in(window.provider, hour, here.after.as_ref(), KEYS);
        let (received, has_more) = page.await?;
        for received in received {
            if Instant::now() >= time.stop_at {
                return Ok(());
            }
            match &received.conflict {
                None => self.erase_if_mentioned(window, &received.id, dry_run, counts).await?,
                Some(payload_sha256) => {
                    let conflict = self.store.conflict(&received.id, payload_sha256).await?;
                    // An interrupted erasure may have deleted the text that names the address.
                    if let Some(conflict) = conflict
                        && ((conflict.head.is_being_erased() && window.contains(&conflict.head))
                            || self.mentions(window, &received.id, &conflict.head).await?)
                    {
                        let erased = dry_run || self.store.erase_conflict(&received.id, payload_sha256).await?;
                        counts.erased += u64::from(erased);
                    }
                }
            }
            here.after = Some(received);
        }
        if !has_more {
            *here = Cursor {
                hour: hour.next().start(),
                after: None,
            };
        }
        Ok(())
    }

    async fn erase_if_mentioned(
        &self,
        window: &Window<'_>,
        id: &EventId,
        dry_run: bool,
        counts: &mut Counts,
    ) -> Result<(), TaskError> {
        let heads = self.store.heads(std::slice::from_ref(id), Projection::Delivery).await?;
        if let Some((_, head)) = heads.first() {
            // An interrupted erasure has removed the text that would name the address. It is finished for whatever address it was.
            let is_half_erased = head.state == State::Erased && !head.is_erased_to_its_end();
            if (is_half_erased && window.contains(head)) || self.mentions(window, id, head).await? {
                self.erase_head(id, head, dry_run, counts).await?;
            }
        }
        Ok(())
    }

    /// Whether an item is of the window and names its address: in the event, which holds all that the provider has sent, or else in
    /// the body as it came.
    async fn mentions(&self, window: &Window<'_>, id: &EventId, head: &Head) -> Result<bool, TaskError> {
        if !window.contains(head) || head.state == State::Erased {
            return Ok(false);
        }
        // As large as an event may be, one is enough in memory.
        let _reading = self.reading.lock().await;
        let text = if head.has_event() {
            self.store.event(id, head).await.map(|stored| stored.json.into_bytes())
        } else {
            self.store
                .delivery(id, head)
                .await
                .map(|delivery| delivery.body().to_vec())
        };
        match text {
            Ok(text) => Ok(window.address.is_in(&String::from_utf8_lossy(&text))),
            // One that cannot be read holds up no other.
            Err(error @ StoreError::Corrupt(_)) => {
                tracing::error!(
                    code = Code::CorruptItem.as_str(),
                    event_id = %id,
                    cause = %error,
                    "a stored item cannot be read, and is not erased"
                );
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}
