//! A consumer of the stream that follows the two rules of `events/README.md`: it deduplicates by `id`, and orders the
//! events of an order by `order.updated_at` and then by `time`.
//!
//! It does not use the fold of `shared::order_state`, so that chaos checks the stream with code of its own.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

/// The facts that the consumer follows.
const FOLLOWED: [&str; 5] = [
    "status",
    "provider_status",
    "payment_status",
    "provider_payment_status",
    "updated_at",
];

/// The facts of an order that are stated.
pub type Facts = BTreeMap<&'static str, Value>;

/// The age of an event: `updated_at` or `time`, and `time`. Without the `Z`, the text of a time sorts like the time.
type Age = (String, String);

/// The consumer.
#[derive(Debug, Default)]
pub struct Consumer {
    seen: HashSet<String>,
    /// The events of each order, by the source and the id of the order.
    orders: BTreeMap<(String, String), Vec<(Age, Facts)>>,
}

impl Consumer {
    /// Receives an event.
    pub fn receive(&mut self, event: &Value) {
        let text = |pointer: &str| {
            event
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let order = text("/data/order/id");
        if order.is_empty() || !self.seen.insert(text("/id")) {
            return;
        }
        let time = text("/time").trim_end_matches('Z').to_owned();
        let updated = text("/data/order/updated_at").trim_end_matches('Z').to_owned();
        let age = (if updated.is_empty() { time.clone() } else { updated }, time);
        let facts = FOLLOWED.into_iter().filter_map(|name| {
            let fact = &event["data"]["order"][name];
            (!fact.is_null()).then(|| (name, fact.clone()))
        });
        let events = self.orders.entry((text("/source"), order)).or_default();
        events.push((age, facts.collect()));
    }

    /// The facts of each order, by the source and the id of the order. The fact of an earlier event applies until a
    /// later event states another.
    pub fn orders(&self) -> BTreeMap<(String, String), Facts> {
        let orders = self.orders.iter().map(|(order, events)| {
            let mut events: Vec<_> = events.iter().collect();
            events.sort_by(|(one, _), (other, _)| one.cmp(other));
            let facts = events.into_iter().flat_map(|(_, facts)| facts.clone()).collect();
            (order.clone(), facts)
        });
        orders.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(id: &str, time: &str, updated_at: Option<&str>, status: &str, payment: Option<&str>) -> Value {
        let order = json!({"id": "1", "status": status, "payment_status": payment, "updated_at": updated_at});
        json!({"id": id, "source": "/selldone/main", "time": time, "data": {"order": order}})
    }

    #[test]
    fn a_late_event_and_a_repeat_change_nothing() {
        let mut consumer = Consumer::default();
        let shipped = event(
            "b",
            "2026-01-01T12:00:00Z",
            Some("2026-01-01T12:00:00Z"),
            "shipped",
            None,
        );
        for event in [
            &event(
                "a",
                "2026-01-01T10:00:00Z",
                Some("2026-01-01T10:00:00Z"),
                "pending",
                Some("paid"),
            ),
            &shipped,
        ] {
            consumer.receive(event);
        }
        let before = consumer.orders();
        let facts = &before[&("/selldone/main".to_owned(), "1".to_owned())];
        assert_eq!(
            (&facts["status"], &facts["payment_status"]),
            (&json!("shipped"), &json!("paid"))
        );
        consumer.receive(&shipped);
        consumer.receive(&event("c", "2026-01-01T11:00:00Z", None, "confirmed", None));
        // The fraction makes it later than the same second, although `.` sorts before `Z`.
        consumer.receive(&event("d", "2026-01-01T11:59:59.9Z", None, "processing", None));
        assert_eq!(consumer.orders(), before);
    }
}
