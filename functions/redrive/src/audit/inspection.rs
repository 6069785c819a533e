//! Checks one item: its attributes, its body, its event, and what belongs to it in the table.

use serde_json::Value;
use shared::classify::Classification;
use shared::event::OrderEvent;
use shared::identity::{EventId, sha256_hex};
use shared::store::{Entry, Fault, Head, Received, State};

use super::books::Place;
use super::{ANSWER, Run};
use crate::TaskError;

impl Run<'_> {
    /// Counts an item that the index `by_hour` names, and lists its faults.
    pub(super) async fn check_entry(&mut self, provider: &str, key: &Received, entry: Entry) -> Result<(), TaskError> {
        let head = match entry {
            Entry::Gone => return Ok(()),
            Entry::Missing => {
                self.find(key, None, Fault::ItemMissing);
                return Ok(());
            }
            Entry::Unreadable { shop } => {
                if self.task.wants(Some(provider), shop.as_deref())
                    && let Some(received_at) = key.time()
                {
                    let place = Place::of(provider, shop.as_deref(), received_at);
                    self.books.entry(place).or_default().add_unreadable();
                    self.find(key, None, Fault::ItemUnreadable);
                }
                return Ok(());
            }
            Entry::Read(head) => head,
        };
        let is_in_period = self
            .period
            .zip(head.received_at())
            .is_some_and(|((from, to), at)| (from..to).contains(&at));
        if !is_in_period || !self.task.wants(head.provider(), head.shop()) {
            return Ok(());
        }
        let mut faults = head.faults(key);
        faults.extend(self.outbox.store.faults_around_item(key, &head).await?);
        let mut event_sha256 = String::new();
        if head.state != State::Erased {
            // One event is in memory at a time: a body may be many times as large as a message.
            let _reading = self.outbox.reading.lock().await;
            faults.extend(self.check_delivery(key, &head).await?);
            if head.has_event() {
                let (of_event, sha256) = self.check_event(key, &head).await?;
                faults.extend(of_event);
                event_sha256 = sha256;
            }
        }
        faults.sort_unstable();
        faults.dedup();
        for fault in faults {
            self.find(key, Some(&head), fault);
        }
        if let Some(received_at) = head.received_at() {
            let place = Place::of(provider, head.shop(), received_at);
            let book = self.books.entry(place).or_default();
            book.add(key, &head, &event_sha256);
        }
        Ok(())
    }

    /// Checks the body, and that today's code gives it the id under which it is stored.
    async fn check_delivery(&self, key: &Received, head: &Head) -> Result<Option<Fault>, TaskError> {
        let delivery = match self.outbox.store.audited_delivery(key, head).await? {
            Ok(delivery) => delivery,
            Err(fault) => return Ok(Some(fault)),
        };
        if !head.has_event() {
            // A corrected mapping may give a delivery that was not understood another id. Reprocessing it does so.
            return Ok(None);
        }
        let providers = self.outbox.providers.as_ref().map_err(Clone::clone)?;
        let classified = head
            .provider()
            .and_then(|provider| providers.classify(provider, &delivery));
        let Some((provider, classified)) = classified else {
            return Ok(None);
        };
        if !matches!(classified.classification, Classification::Order(_)) {
            return Ok(None);
        }
        // A published conflict has an id of its own.
        let of_conflict = || EventId::of_conflict(provider, delivery.shop(), &classified.key, head.payload_sha256());
        let is_its_id = classified.id == key.id || key.conflict.is_none() && of_conflict() == key.id;
        Ok((!is_its_id).then_some(Fault::OtherId))
    }

    /// Checks the stored event. Returns its faults, and the hash of its JSON.
    async fn check_event(&mut self, key: &Received, head: &Head) -> Result<(Vec<Fault>, String), TaskError> {
        let json = match self.outbox.store.audited_event(key, head).await? {
            Ok(json) => json,
            Err(fault) => return Ok((vec![fault], String::new())),
        };
        let sha256 = sha256_hex(json.as_bytes());
        let Ok(event) = serde_json::from_str::<OrderEvent>(&json) else {
            return Ok((vec![Fault::EventInvalid], sha256));
        };
        let faults = head.faults_of_event(key, &event);
        drop(event);
        if self.task.events {
            self.show(&key.id, &json);
        }
        Ok((faults, sha256))
    }

    fn show(&mut self, id: &EventId, json: &str) {
        if json.len() > ANSWER {
            self.too_large.push(id.clone());
        } else if let Ok(event) = serde_json::from_str::<Value>(json) {
            self.bytes += json.len();
            self.events.push(event);
        }
    }
}
