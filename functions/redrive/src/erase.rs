//! `{"erase":{...}}`: erases an event, an order, or what names a customer's e-mail address. Each erased event leaves a
//! tombstone, so that a late repeat is still a duplicate.

mod by_email;
mod email_address;

use std::collections::HashSet;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::identity::EventId;
use shared::store::{ErasedBy, Head, Projection, State, StoreError};

use self::by_email::{Cursor, Search};
use self::email_address::EmailAddress;
use crate::time_left::TimeLeft;
use crate::{Outbox, TaskError, event_id};

/// The number of events of an order that are read at once.
const PAGE: usize = 25;

/// One event, an order, or the events of one shop that were received in a period and contain an e-mail address. Nothing
/// is erased unless `dry_run` is false.
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
    #[serde(default = "only_count")]
    dry_run: bool,
    /// Where an earlier run stopped.
    cursor: Option<Cursor>,
}

fn only_count() -> bool {
    true
}

/// What the task erases.
enum Target<'t> {
    Event(EventId),
    Order {
        provider: &'t str,
        shop: &'t str,
        order: &'t str,
    },
    Email(Search<'t>),
}

impl Erase {
    fn target(&self) -> Result<Target<'_>, TaskError> {
        let names = (&self.event_id, &self.provider, &self.shop, &self.order, &self.email);
        match names {
            (Some(id), None, None, None, None) => event_id(id).map(Target::Event),
            (None, Some(provider), Some(shop), Some(order), None) => Ok(Target::Order { provider, shop, order }),
            (None, Some(provider), Some(shop), None, Some(email)) => {
                let (Some(from), Some(to)) = (self.from, self.to) else {
                    let no_period = "erase by email takes from and to";
                    return Err(TaskError::NoTask(no_period.to_owned()));
                };
                let address = EmailAddress::parse(email)
                    .ok_or_else(|| TaskError::NoTask("email is not an e-mail address".to_owned()))?;
                Ok(Target::Email(Search {
                    provider,
                    shop,
                    address,
                    from,
                    to,
                }))
            }
            _ => Err(TaskError::NoTask(
                "erase takes event_id; or provider, shop and order; or provider, shop, email, from and to".to_owned(),
            )),
        }
    }
}

/// A run of the task.
struct Erasure<'t> {
    outbox: &'t Outbox,
    dry_run: bool,
    time: TimeLeft,
    erased: u64,
    /// Events that are not published yet, and are therefore not erased.
    waiting: u64,
}

impl Outbox {
    pub(crate) async fn erase(&self, task: &Erase, time: TimeLeft) -> Result<Value, TaskError> {
        let mut erasure = Erasure {
            outbox: self,
            dry_run: task.dry_run,
            time,
            erased: 0,
            waiting: 0,
        };
        let mut cursor = None;
        let outage = match task.target()? {
            Target::Event(id) => time.attempt(erasure.erase_event(&id)).await?.err(),
            Target::Order { provider, shop, order } => {
                time.attempt(erasure.erase_order(provider, shop, order)).await?.err()
            }
            Target::Email(search) => {
                let walked = erasure.erase_by_email(&search, task.cursor.clone()).await?;
                cursor = walked.cursor;
                walked.outage
            }
        };
        let Erasure { erased, waiting, .. } = erasure;
        tracing::info!(
            erased,
            waiting,
            outage,
            dry_run = task.dry_run,
            provider = task.provider,
            "erase"
        );
        let mut answer = json!({"erased": erased, "waiting": waiting, "dry_run": task.dry_run});
        if task.email.is_some() || outage.is_some() {
            answer["done"] = (cursor.is_none() && outage.is_none()).into();
            answer["cursor"] = json!(cursor);
            answer["outage"] = outage.into();
        }
        Ok(answer)
    }
}

impl Erasure<'_> {
    async fn erase_event(&mut self, id: &EventId) -> Result<(), TaskError> {
        let store = &self.outbox.store;
        if let Some(head) = store.find_head(id).await? {
            return self.erase_head(id, &head).await;
        }
        // There may be parts of a delivery whose event was never stored.
        let has_erased = if self.dry_run {
            store.has_leftovers(id).await?
        } else {
            store.erase_leftovers(id).await?
        };
        self.erased += u64::from(has_erased);
        Ok(())
    }

    async fn erase_order(&mut self, provider: &str, shop: &str, order: &str) -> Result<(), TaskError> {
        let store = &self.outbox.store;
        if !self.dry_run {
            store.note_erasure_of_order(provider, shop, order).await?;
        }
        let ids = store.of_order(provider, shop, order).await?;
        let (mut unreadable, mut unreadable_ids) = (None, HashSet::new());
        for ids in ids.chunks(PAGE) {
            let mut left_out: HashSet<&EventId> = ids.iter().collect();
            for (id, head) in store.heads(ids, Projection::Nothing).await? {
                left_out.remove(&id);
                self.erase_head(&id, &head).await?;
            }
            for id in left_out {
                match store.find_head(id).await {
                    // A head that cannot be read does not hold up the others, but the erasure of the order is not
                    // complete.
                    Err(error @ StoreError::Corrupt(_)) => {
                        unreadable = Some(error);
                        unreadable_ids.insert(id.clone());
                    }
                    Err(error) => return Err(error.into()),
                    Ok(_) => {}
                }
            }
        }
        // The conflicts of an erased event are erased and counted with it.
        let erased: HashSet<EventId> = ids.into_iter().filter(|id| !unreadable_ids.contains(id)).collect();
        for (id, payload_sha256) in store.conflicts_of_order(provider, shop, order).await? {
            let is_left = !erased.contains(&id) || self.is_waiting(&id).await?;
            if is_left {
                self.erase_conflict(&id, &payload_sha256).await?;
            }
        }
        unreadable.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn is_waiting(&self, id: &EventId) -> Result<bool, StoreError> {
        let ids = std::slice::from_ref(id);
        let heads = self.outbox.store.heads(ids, Projection::Nothing).await?;
        Ok(heads.iter().any(|(_, head)| head.state == State::Pending))
    }

    async fn erase_head(&mut self, id: &EventId, head: &Head) -> Result<(), TaskError> {
        let store = &self.outbox.store;
        match head.state {
            // Erasing an event that is not published yet would lose it.
            State::Pending => self.waiting += 1,
            State::Erased if head.is_erased_to_its_end() => {
                // A delivery in flight may have written parts since.
                if !self.dry_run {
                    store.erase_beside(id).await?;
                }
            }
            _ => self.erased += u64::from(self.dry_run || store.erase(id, head, ErasedBy::Operator).await?),
        }
        Ok(())
    }

    async fn erase_conflict(&mut self, id: &EventId, payload_sha256: &str) -> Result<(), StoreError> {
        let store = &self.outbox.store;
        self.erased += u64::from(self.dry_run || store.erase_conflict(id, payload_sha256).await?);
        Ok(())
    }
}
