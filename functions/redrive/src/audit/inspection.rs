//! Checks one item: its attributes, its body, its event, and what belongs to it in the table.

use serde_json::Value;
use shared::classify::Classification;
use shared::identity::{EventId, sha256_hex};
use shared::store::{Entry, Fault, Head, Received, State, StoredFacts};

use super::books::Place;
use super::{ANSWER, Run};
use crate::TaskError;

/// The result of checking an item.
#[derive(Default)]
struct Checked {
    faults: Vec<Fault>,
    /// The hash of the event's JSON.
    event_sha256: String,
    /// The event's JSON, if it can be shown.
    event: Option<String>,
}

impl Run<'_> {
    /// Counts an item that the index `by_hour` names, and lists its faults.
    pub(super) async fn check_entry(&mut self, provider: &str, key: &Received, entry: Entry) -> Result<(), TaskError> {
        let outbox = self.outbox;
        // One event is in memory at a time: a body may be many times as large as a message.
        let _reading = outbox.reading.lock().await;
        let mut entry = entry;
        let mut checked = self.check_item(key, &entry).await?;
        if !checked.faults.is_empty()
            && let Some((_, again)) = outbox.store.items_of_entries(vec![key.clone()]).await?.pop()
        {
            // The item may have been erased while it was checked. A fault is still there.
            let first = checked.faults;
            entry = again;
            checked = self.check_item(key, &entry).await?;
            checked.faults.retain(|fault| first.contains(fault));
        }
        let head = match &entry {
            Entry::Read(head) if self.counts(head) => Some(head.as_ref()),
            Entry::Gone | Entry::Read(_) => return Ok(()),
            Entry::Missing => None,
            Entry::Unreadable { shop } => {
                let Some(received_at) = key.time() else { return Ok(()) };
                if !self.task.wants(Some(provider), shop.as_deref()) {
                    return Ok(());
                }
                let place = Place::of(provider, shop.as_deref(), received_at);
                self.books.entry(place).or_default().add_unreadable();
                None
            }
        };
        for fault in checked.faults {
            self.find(key, Some(provider), head, fault);
        }
        if let Some((head, received_at)) = head.and_then(|head| Some((head, head.received_at()?))) {
            let place = Place::of(provider, head.shop(), received_at);
            let book = self.books.entry(place).or_default();
            book.add(key, head, &checked.event_sha256);
        }
        if self.task.events
            && let Some(json) = checked.event
        {
            self.show(&key.id, &json);
        }
        Ok(())
    }

    /// Whether the books count an item.
    fn counts(&self, head: &Head) -> bool {
        let is_in_period = self
            .period
            .zip(head.received_at())
            .is_some_and(|((from, to), at)| (from..to).contains(&at));
        is_in_period && self.task.wants(head.provider(), head.shop())
    }

    async fn check_item(&self, key: &Received, entry: &Entry) -> Result<Checked, TaskError> {
        let store = &self.outbox.store;
        let mut checked = Checked::default();
        match entry {
            Entry::Missing => {
                if !store.is_conflict_of_erased(key).await? {
                    checked.faults.push(Fault::ItemMissing);
                }
            }
            Entry::Unreadable { .. } => checked.faults.push(Fault::ItemUnreadable),
            Entry::Read(head) if self.counts(head) => {
                checked.faults = head.faults(key);
                checked.faults.extend(store.faults_around_item(key, head).await?);
                if head.state != State::Erased {
                    checked.faults.extend(self.check_delivery(key, head).await?);
                    if head.has_event() {
                        self.check_event(key, head, &mut checked).await?;
                    }
                }
                checked.faults.sort_unstable();
                checked.faults.dedup();
            }
            Entry::Gone | Entry::Read(_) => {}
        }
        Ok(checked)
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

    /// Checks the stored event.
    async fn check_event(&self, key: &Received, head: &Head, checked: &mut Checked) -> Result<(), TaskError> {
        let json = match self.outbox.store.audited_event(key, head).await? {
            Ok(json) => json,
            Err(fault) => {
                checked.faults.push(fault);
                return Ok(());
            }
        };
        checked.event_sha256 = sha256_hex(json.as_bytes());
        if !head.has_event_json(&checked.event_sha256) {
            checked.faults.push(Fault::EventDiffers);
        }
        // The words are left to the caller, who validates the event against the JSON Schema.
        let Ok(event) = serde_json::from_str::<StoredFacts>(&json) else {
            checked.faults.push(Fault::EventInvalid);
            return Ok(());
        };
        checked.faults.extend(head.faults_of_event(key, &event));
        drop(event);
        checked.event = Some(json);
        Ok(())
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
