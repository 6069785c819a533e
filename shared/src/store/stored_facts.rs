//! Compares a stored order event with the item that holds it.

use jiff::Timestamp;
use serde::Deserialize;

use super::event_items::{order_key, sortable};
use super::history::Received;
use super::{Fault, Head};
use crate::identity::EventId;

/// The facts of a stored order event that its item repeats. Read without the rest of the event, so that an audit by an
/// earlier version accepts the words of a later one.
#[derive(Debug, Deserialize)]
pub struct StoredFacts {
    id: EventId,
    source: String,
    r#type: String,
    time: Timestamp,
    data: StoredData,
}

#[derive(Debug, Deserialize)]
struct StoredData {
    provider: String,
    shop: String,
    order: StoredOrder,
}

#[derive(Debug, Deserialize)]
struct StoredOrder {
    id: Option<String>,
}

impl Head {
    /// Lists the faults of the order event that the item holds: whether it is the event that the item describes,
    /// and whether the history of its order shows it.
    pub fn faults_of_event(&self, key: &Received, event: &StoredFacts) -> Vec<Fault> {
        let mut faults = Vec::new();
        let time = self.text("time").and_then(|time| time.parse::<Timestamp>().ok());
        let is_described = event.id == key.id
            && self.provider() == Some(&event.data.provider)
            && self.shop() == Some(&event.data.shop)
            && event.source == format!("/{}/{}", event.data.provider, event.data.shop)
            && self.event_type() == Some(&event.r#type)
            && time == Some(event.time);
        if !is_described {
            faults.push(Fault::EventDiffers);
        }
        if key.conflict.is_none() {
            let of_order = event.data.order.id.as_deref().map(|order| {
                let received_at = self.received_at().map(sortable).unwrap_or_default();
                let key_of_order = order_key(&event.data.provider, &event.data.shop, order);
                (key_of_order, format!("{received_at}#{}", key.id))
            });
            let has = (self.text("order_key"), self.text("order_sort"));
            let should = of_order.as_ref().map(|(key, sort)| (key.as_str(), sort.as_str()));
            if should.is_some_and(|(key, sort)| has != (Some(key), Some(sort))) || should.is_none() && has.0.is_some() {
                faults.push(Fault::OrderKey);
            }
        }
        faults
    }
}
