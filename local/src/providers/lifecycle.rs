//! The life of an order at a provider with an order API: it is placed, shipped and delivered, at given times.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Error;
use crate::project::settings::CARTUM_TIME_ZONE;
use crate::providers::random::identity;
use crate::providers::samples::{Catalogue, Fixture};

/// The events of `events/` that orders are made of.
const PLACED: [(&str, &str); 4] = [
    ("snipcart", "order-completed-v3"),
    ("cartum", "order-created"),
    ("selldone", "checkout-order"),
    ("aboutyou", "order-created"),
];

/// A state of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The order is placed.
    Placed,
    /// The order is on its way.
    Shipped,
    /// The order has arrived. ABOUT YOU, which reports no arrival, reports a return.
    Delivered,
}

/// An order that is made of an event of `events/`.
#[derive(Debug, Clone)]
pub struct Life {
    fixture: Fixture,
    number: Uuid,
    placed_at: Timestamp,
}

impl Life {
    /// The order number `index` of a provider, placed at `placed_at`.
    pub fn new(
        catalogue: &Catalogue,
        provider: &str,
        index: usize,
        seed: u64,
        placed_at: Timestamp,
    ) -> Result<Self, Error> {
        let known = PLACED.into_iter().find(|(known, _)| *known == provider);
        let (provider, name) = known.ok_or_else(|| Error::Fixture(format!("{provider} has no order API")))?;
        let fixture = catalogue.event(provider, name)?;
        Ok(Self {
            fixture,
            number: identity(index, seed),
            placed_at,
        })
    }

    /// The webhook that announces `state` at `at`, not signed yet.
    pub fn webhook(&self, state: State, at: Timestamp) -> Result<Fixture, Error> {
        let mut fixture = self.fixture.clone();
        let mut body: Value = serde_json::from_slice(&fixture.body()?)
            .map_err(|error| Error::Fixture(format!("{} is not JSON: {error}", fixture.name)))?;
        // Fits into a signed 32-bit integer.
        let number = self.number.as_fields().0 / 4;
        match fixture.provider.as_str() {
            "snipcart" => self.snipcart(&mut body, state, at),
            "cartum" => {
                let zone = TimeZone::get(CARTUM_TIME_ZONE).map_err(|error| Error::Fixture(error.to_string()))?;
                body["order_id"] = number.into();
                body["stat_created"] = self.placed_at.to_zoned(zone).strftime("%F %T").to_string().into();
                body["stat_status"] = (state as u8 + 1).into();
                body["payed"] = u8::from(state != State::Placed).into();
                if state != State::Placed {
                    let mut query = fixture.query();
                    query.retain(|(name, _)| name != "event");
                    query.push(("event".to_owned(), "order_update".to_owned()));
                    fixture.set_query(&query);
                }
            }
            "selldone" => {
                let (action, delivery, status) = match state {
                    State::Placed => ("CheckoutOrder", "CheckQueue", "Reserved"),
                    State::Shipped => ("SentOrder", "SentOrder", "Payed"),
                    State::Delivered => ("ToCustomer", "ToCustomer", "Payed"),
                };
                body["action"] = action.into();
                let basket = &mut body["basket"];
                basket["id"] = number.into();
                basket["delivery_state"] = delivery.into();
                basket["status"] = status.into();
                basket["created_at"] = json!(self.placed_at);
                basket["updated_at"] = json!(at);
            }
            _ => {
                let (event, status) = match state {
                    State::Placed => ("order.created", "open"),
                    State::Shipped => ("order.updated", "shipped"),
                    State::Delivered => ("order.updated", "returned"),
                };
                // The event has an id of its own.
                body["id"] = (number * 4 + state as u32).into();
                body["event"] = event.into();
                body["timestamp"] = json!(at);
                let message = &mut body["message"];
                message["order_number"] = self.id().into();
                message["status"] = status.into();
                message["created_at"] = json!(self.placed_at);
                message["updated_at"] = json!(at);
                for item in message["order_items"].as_array_mut().into_iter().flatten() {
                    item["status"] = status.into();
                }
            }
        }
        fixture.set_body(body.to_string());
        Ok(fixture)
    }

    fn snipcart(&self, body: &mut Value, state: State, at: Timestamp) {
        let status = match state {
            State::Placed => "Processed",
            State::Shipped => "Shipped",
            State::Delivered => "Delivered",
        };
        body["createdOn"] = json!(at);
        if state != State::Placed {
            body["eventName"] = "order.status.changed".into();
            body["from"] = "Processed".into();
            body["to"] = status.into();
        }
        let content = &mut body["content"];
        content["token"] = self.number.to_string().into();
        content["status"] = status.into();
        content["creationDate"] = json!(self.placed_at);
        content["completionDate"] = json!(self.placed_at);
        content["modificationDate"] = json!(at);
    }

    /// The id of the order.
    pub fn id(&self) -> String {
        match self.fixture.provider.as_str() {
            "snipcart" => self.number.to_string(),
            "aboutyou" => format!("ayou-{}", self.number.as_fields().0 / 4),
            _ => (self.number.as_fields().0 / 4).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::build::workspace;
    use crate::project::settings::ORDER_APIS;
    use crate::providers::order_book::Order;

    #[test]
    fn each_state_is_announced_with_its_time() {
        let catalogue = Catalogue::read(workspace().join("events")).unwrap();
        let at = |minute: i8| format!("2026-03-01T10:{minute:02}:00Z").parse().unwrap();
        for provider in ORDER_APIS {
            let lives = [1, 2].map(|index| Life::new(&catalogue, provider, index, 7, at(0)).unwrap());
            assert_ne!(lives[0].id(), lives[1].id());
            let mut states = Vec::new();
            for (state, minute) in [(State::Placed, 0), (State::Shipped, 5), (State::Delivered, 9)] {
                let webhook = lives[0].webhook(state, at(minute)).unwrap();
                let order = Order::announced(provider, &webhook.body().unwrap()).unwrap();
                assert_eq!(
                    (order.id.clone(), order.placed_at),
                    (lives[0].id(), Some(at(0))),
                    "{provider}"
                );
                let updated = (provider != "cartum").then(|| at(minute));
                assert_eq!(order.updated_at, updated, "{provider}");
                states.push(order.json);
            }
            assert!(states[0] != states[1] && states[1] != states[2], "{provider}");
        }
    }
}
