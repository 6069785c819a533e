//! The orders that the providers know, whether or not a webhook has announced them. The order APIs list them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::lock;
use crate::project::settings::CARTUM_TIME_ZONE;

/// The most orders of a shop that are kept of what was delivered; the oldest are dropped.
const DELIVERED: usize = 10_000;

/// An order as a provider's order API returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The id of the order.
    pub id: String,
    /// When the order was placed.
    pub placed_at: Option<Timestamp>,
    /// When the order was last changed, if the provider states it.
    pub updated_at: Option<Timestamp>,
    /// The order as JSON.
    pub json: Bytes,
}

impl Order {
    /// The order that a webhook announces; `None` if the webhook does not hold a complete order.
    pub fn announced(provider: &str, body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let (order, id, placed, updated) = match provider {
            "snipcart" => (snipcart(&body)?, "token", "creationDate", "modificationDate"),
            "cartum" => (body, "order_id", "stat_created", ""),
            "selldone" => (body["basket"].clone(), "id", "created_at", "updated_at"),
            "aboutyou" => {
                let event = body["event"].as_str()?;
                let is_order = ["order.created", "order.updated"].contains(&event);
                let message = is_order.then(|| body["message"].clone());
                (message?, "order_number", "created_at", "updated_at")
            }
            _ => return None,
        };
        let id = match order.get(id)? {
            Value::String(id) => id.clone(),
            Value::Number(id) => id.to_string(),
            _ => return None,
        };
        Some(Self {
            id,
            placed_at: time(&order[placed]),
            updated_at: time(&order[updated]),
            json: order.to_string().into(),
        })
    }

    /// The order as JSON.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// When the order was last changed, as far as the provider says.
    fn age(&self) -> Option<Timestamp> {
        self.updated_at.or(self.placed_at)
    }
}

/// The `content` of a webhook. What a webhook says about a change is what the API says afterwards.
fn snipcart(body: &Value) -> Option<Value> {
    let mut content = body["content"].as_object()?.clone();
    let changed: &[(&str, &str)] = match body["eventName"].as_str()? {
        "order.completed" => &[],
        "order.status.changed" => &[("to", "status")],
        "order.paymentStatus.changed" => &[("to", "paymentStatus")],
        "order.trackingNumber.changed" => &[("trackingNumber", "trackingNumber"), ("trackingUrl", "trackingUrl")],
        _ => return None,
    };
    for (from, to) in changed {
        content.insert((*to).to_owned(), body[*from].clone());
    }
    Some(content.into())
}

/// A time with a zone, or Cartum's in the time zone of the shop.
pub(super) fn time(value: &Value) -> Option<Timestamp> {
    let text = value.as_str()?;
    let in_zone = || {
        let time: DateTime = text.parse().ok()?;
        let zone = TimeZone::get(CARTUM_TIME_ZONE).ok()?;
        Some(time.to_zoned(zone).ok()?.timestamp())
    };
    text.parse().ok().or_else(in_zone)
}

/// A provider and a shop.
type Place = (String, String);

/// The orders of all shops. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct OrderBook(Arc<Mutex<BTreeMap<Place, BTreeMap<String, Order>>>>);

impl OrderBook {
    /// Learns an order. An older state of a known order changes nothing.
    pub fn put(&self, provider: &str, shop: &str, order: Order) {
        let mut shops = lock(&self.0);
        let orders = shops.entry((provider.to_owned(), shop.to_owned())).or_default();
        if orders
            .get(&order.id)
            .is_none_or(|known| known.updated_at <= order.updated_at)
        {
            orders.insert(order.id.clone(), order);
        }
    }

    /// Learns the order of a delivery, if it holds a complete one. Returns whether it does.
    pub fn delivered(&self, provider: &str, shop: &str, body: &[u8]) -> bool {
        let Some(order) = Order::announced(provider, body) else {
            return false;
        };
        self.put(provider, shop, order);
        let mut shops = lock(&self.0);
        let orders = shops.entry((provider.to_owned(), shop.to_owned())).or_default();
        while orders.len() > DELIVERED {
            let oldest = orders.values().min_by_key(|order| order.age());
            let Some(oldest) = oldest.map(|order| order.id.clone()) else {
                break;
            };
            orders.remove(&oldest);
        }
        true
    }

    /// Forgets an order.
    pub fn remove(&self, provider: &str, shop: &str, id: &str) {
        let mut shops = lock(&self.0);
        if let Some(orders) = shops.get_mut(&(provider.to_owned(), shop.to_owned())) {
            orders.remove(id);
        }
    }

    /// The orders of a shop that `wanted` selects, the last changed first.
    pub fn orders(&self, provider: &str, shop: &str, wanted: impl Fn(&Order) -> bool) -> Vec<Order> {
        let shops = lock(&self.0);
        let orders = shops.get(&(provider.to_owned(), shop.to_owned()));
        let mut orders: Vec<Order> = orders
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter(|order| wanted(order))
            .cloned()
            .collect();
        drop(shops);
        orders.sort_by(|one, other| (other.age(), &other.id).cmp(&(one.age(), &one.id)));
        orders
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn announced(provider: &str, body: &Value) -> Option<Order> {
        Order::announced(provider, body.to_string().as_bytes())
    }

    #[test]
    fn a_webhook_announces_the_order_of_the_api() {
        let content = json!({"token": "t", "status": "Processed", "creationDate": "2026-01-01T10:00:00Z", "modificationDate": "2026-01-01T11:00:00Z"});
        let changed =
            json!({"eventName": "order.status.changed", "from": "Processed", "to": "Shipped", "content": content});
        let order = announced("snipcart", &changed).unwrap();
        assert_eq!((order.id.as_str(), &order.value()["status"]), ("t", &json!("Shipped")));
        assert!(order.updated_at > order.placed_at);

        let cartum = json!({"order_id": 7, "stat_created": "2026-01-01 12:00:00"});
        let order = announced("cartum", &cartum).unwrap();
        assert_eq!(order.placed_at, "2026-01-01T10:00:00Z".parse().ok());
        assert_eq!((order.id.as_str(), order.updated_at), ("7", None));

        let selldone = json!({"basket": {"id": 1, "updated_at": "2024-09-30T10:42:24.000000Z"}});
        assert_eq!(announced("selldone", &selldone).unwrap().id, "1");
        for (provider, incomplete) in [
            (
                "snipcart",
                json!({"eventName": "order.refund.created", "content": {"orderToken": "t"}}),
            ),
            (
                "aboutyou",
                json!({"event": "order_items.shipped", "message": {"items": []}}),
            ),
            ("selldone", json!({"basket": null})),
            ("cartum", json!([])),
            ("deeple", json!({"orderNumber": "1"})),
        ] {
            assert_eq!(announced(provider, &incomplete), None, "{provider}");
        }
    }

    #[test]
    fn an_older_state_changes_nothing() {
        let book = OrderBook::default();
        let state = |status: &str, hour: u8| {
            let basket = json!({"id": 1, "status": status, "updated_at": format!("2026-01-01T{hour:02}:00:00Z")});
            json!({ "basket": basket }).to_string()
        };
        for (status, hour) in [("Reserved", 10), ("Payed", 12), ("Canceled", 11)] {
            assert!(book.delivered("selldone", "main", state(status, hour).as_bytes()));
        }
        let orders = book.orders("selldone", "main", |_| true);
        assert_eq!(orders.len(), 1);
        assert_eq!(orders[0].value()["status"], "Payed");
        assert!(book.orders("selldone", "second", |_| true).is_empty());
        book.remove("selldone", "main", "1");
        assert!(book.orders("selldone", "main", |_| true).is_empty());
    }
}
