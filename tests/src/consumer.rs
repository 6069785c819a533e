//! A small consumer of the queue, which shows the states of its orders at a URL. A switch gives it one of the faults
//! that `cargo local consumer-check` finds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use local::net::server::{Port, Server};
use serde_json::{Value, json};
use shared::order_state::History;
use tokio::task::JoinHandle;

use crate::Stack;

/// A fault of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The consumer follows every rule.
    None,
    /// It counts an event as often as it arrives.
    NoDeduplication,
    /// It counts an event as often as it arrives, and refuses a refund of an order that it does not know.
    NoDeduplicationAndRefusesUnknownOrders,
    /// It takes the event that arrives last for the latest.
    LastArrivalWins,
    /// It takes null in a partial event for "removed".
    IgnoresPartial,
    /// It does not distinguish the shops.
    MixesShops,
    /// It refuses an event that has a field it does not know.
    FailsOnAnUnknownField,
    /// It takes a replay for a new event.
    TakesAReplayAsNew,
    /// It removes what a message leaves out.
    DropsWhatIsOmitted,
    /// It takes the replay of an order's first event for the beginning of its complete history.
    StartsAgainAtAReplay,
    /// It takes the later arrival for the later one of two events with the same times.
    BreaksTiesByArrival,
    /// It takes a test order for a real one.
    TakesATestOrderAsReal,
}

/// The fields of `data.order` that the consumer with [`Fault::FailsOnAnUnknownField`] knows.
const KNOWN: &str = include_str!("../../events/selldone/checkout-order.normalized.json");

/// A running consumer. It ends when this is dropped.
pub struct Consumer {
    server: Server,
    reader: JoinHandle<()>,
}

impl Consumer {
    /// Starts a consumer of the stack's queue.
    pub async fn start(stack: &Stack, fault: Fault) -> Self {
        let view = Arc::new(Mutex::new(View::new(fault)));
        let port = Port::take(0, "").await.expect("a port");
        let shown = Arc::clone(&view);
        let server = port.serve(1_000_000, move |request, _| {
            let state = shown.lock().expect("not poisoned").answer(&request);
            std::future::ready(Some(state))
        });
        let (sqs, queue) = (stack.clients().sqs.clone(), stack.queue().url().to_owned());
        let reader = tokio::spawn(async move {
            loop {
                let receive = sqs.receive_message().queue_url(&queue);
                let received = receive.max_number_of_messages(10).wait_time_seconds(1).send();
                let Ok(received) = received.await else { return };
                for message in received.messages.unwrap_or_default() {
                    let body = message.body.unwrap_or_default();
                    if view.lock().expect("not poisoned").handle(&body).is_none() {
                        // It stays in the queue.
                        continue;
                    }
                    let delete = sqs.delete_message().queue_url(&queue);
                    let deleted = delete.set_receipt_handle(message.receipt_handle).send();
                    if deleted.await.is_err() {
                        return;
                    }
                }
            }
        });
        Self { server, reader }
    }

    /// The URL at which the consumer shows its states.
    pub fn url(&self) -> String {
        format!("http://{}/state", self.server.address())
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// What the consumer knows.
struct View {
    fault: Fault,
    /// The events of each order.
    orders: BTreeMap<String, History>,
    /// The number of messages so far.
    arrived: i64,
    /// The refunds of each order, as a consumer counts them that does not deduplicate.
    refunds: BTreeMap<String, Vec<Value>>,
    /// The ids of the events so far.
    seen: BTreeSet<String>,
    /// The orders whose items were dropped.
    without_items: BTreeSet<String>,
    known: Value,
}

impl View {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            orders: BTreeMap::new(),
            arrived: 0,
            refunds: BTreeMap::new(),
            seen: BTreeSet::new(),
            without_items: BTreeSet::new(),
            known: serde_json::from_str(KNOWN).expect("an event"),
        }
    }

    /// Handles a message. Returns `None` if it must stay in the queue.
    fn handle(&mut self, body: &str) -> Option<()> {
        self.arrived += 1;
        let envelope: Value = serde_json::from_str(body).ok()?;
        let mut event: Value = serde_json::from_str(envelope["Message"].as_str()?).ok()?;
        let order = event["data"]["order"]["id"].as_str()?.to_owned();
        if event["data"]["test"] == true {
            if self.fault != Fault::TakesATestOrderAsReal {
                return Some(());
            }
            event["data"]["test"] = false.into();
        }
        match self.fault {
            Fault::FailsOnAnUnknownField if !has_only_fields_of(&event, &self.known) => return None,
            Fault::LastArrivalWins => {
                let arrived = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(self.arrived);
                event["time"] = json!(arrived);
                event["data"]["order"]["updated_at"] = json!(arrived);
                event["id"] = format!("{:064}", self.arrived).into();
            }
            Fault::TakesAReplayAsNew if envelope["MessageAttributes"]["replay"].is_object() => {
                event["id"] = format!("{:064}", self.arrived).into();
            }
            Fault::BreaksTiesByArrival => {
                if !self.seen.insert(event["id"].to_string()) {
                    return Some(());
                }
                let arrived = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(self.arrived);
                event["data"]["received_at"] = json!(arrived);
            }
            Fault::MixesShops => {
                event["source"] = "/selldone/any".into();
                event["data"]["shop"] = "any".into();
            }
            _ => {}
        }
        let key = format!("{}/{order}", event["source"].as_str()?);
        if self.fault == Fault::NoDeduplicationAndRefusesUnknownOrders && !self.orders.contains_key(&key) {
            event["data"]["refund"].is_null().then_some(())?;
        }
        if event["data"]["refund"].is_object() {
            let refunds = self.refunds.entry(key.clone()).or_default();
            refunds.push(json!({"refund": event["data"]["refund"]}));
        }
        let omitted = event["data"]["omitted"].as_array()?;
        if omitted.contains(&json!("/data/order/items")) {
            self.without_items.insert(key.clone());
        }
        let history = self.orders.entry(key).or_default();
        if self.fault == Fault::IgnoresPartial && event["data"]["partial"] == true {
            *history = History::default();
        }
        let is_replay = envelope["MessageAttributes"]["replay"].is_object();
        if self.fault == Fault::StartsAgainAtAReplay && is_replay && event["type"] == "order.created" {
            *history = History::default();
        }
        // With its facts under a new id, the last arrival would be counted twice.
        if self.fault == Fault::LastArrivalWins && event["data"]["refund"].is_object() {
            event["data"]["refund"] = Value::Null;
        }
        history.add_value(event).ok()
    }

    /// Answers a request for the state of an order.
    fn answer(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let query = request.uri().query().unwrap_or_default();
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.to_owned())
        };
        let names = ["provider", "shop", "order"].map(|name| parameter(name).unwrap_or_default());
        let [provider, shop, order] = names;
        let shop = if self.fault == Fault::MixesShops {
            "any".to_owned()
        } else {
            shop
        };
        let key = format!("/{provider}/{shop}/{order}");
        let mut response = Response::new(Bytes::new());
        match self.state(&key) {
            Some(state) => *response.body_mut() = state.to_string().into(),
            None => *response.status_mut() = StatusCode::NOT_FOUND,
        }
        response
    }

    fn state(&self, key: &str) -> Option<Value> {
        let states = self.orders.get(key)?.states();
        let mut state = serde_json::to_value(states.get(key)?).expect("JSON");
        match self.fault {
            Fault::NoDeduplication | Fault::NoDeduplicationAndRefusesUnknownOrders => {
                state["refunds"] = json!(self.refunds.get(key));
            }
            Fault::LastArrivalWins => {
                // It deduplicates refunds: each has another amount in these histories.
                let refunds = self.refunds.get(key).cloned().unwrap_or_default();
                let distinct: BTreeMap<String, Value> =
                    refunds.into_iter().map(|refund| (refund.to_string(), refund)).collect();
                state["refunds"] = distinct.into_values().collect();
            }
            Fault::DropsWhatIsOmitted if self.without_items.contains(key) => state["order"]["items"] = json!([]),
            _ => {}
        }
        Some(state)
    }
}

/// Whether every field of `event` is one of `known`, in objects at any depth.
fn has_only_fields_of(event: &Value, known: &Value) -> bool {
    match (event, known) {
        (Value::Object(event), Value::Object(known)) => event.iter().all(|(name, value)| {
            let known = known.get(name);
            known.is_some_and(|known| has_only_fields_of(value, known))
        }),
        (Value::Array(event), Value::Array(known)) => match known.first() {
            Some(known) => event.iter().all(|item| has_only_fields_of(item, known)),
            None => true,
        },
        _ => true,
    }
}
