//! The subscriptions of shops to events, as Cartum and ABOUT YOU keep them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::lock;
use crate::net::server::{json, message};

/// The most subscriptions of a shop to one event of Cartum.
pub const PLACES: usize = 5;
/// The events of Cartum that can be subscribed.
const CARTUMS_EVENTS: [&str; 5] = [
    "order_created",
    "order_paid",
    "order_update",
    "user_signup",
    "request_call_me",
];
/// The events of ABOUT YOU that can be subscribed.
const ABOUTYOUS_EVENTS: [&str; 6] = [
    "order.created",
    "order.updated",
    "order_items.shipped",
    "order_items.cancelled",
    "order_items.returned",
    "stock.updated",
];

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The provider's id of the subscription.
    pub id: u64,
    /// The events; at Cartum, always one.
    pub events: Vec<String>,
    /// The URL that the provider calls.
    pub url: String,
    /// Whether the provider calls the URL.
    pub is_enabled: bool,
    /// What ABOUT YOU was asked to call it.
    description: Option<String>,
    /// The secret of ABOUT YOU's signatures, which only the answer to the request has that makes the subscription.
    pub client_secret: Option<String>,
}

impl Subscription {
    /// The subscription as ABOUT YOU lists it.
    fn listed(&self) -> Value {
        json!({
            "id": self.id,
            "url": self.url,
            "events": self.events,
            "enabled": self.is_enabled,
            "description": self.description,
        })
    }
}

/// The subscriptions of all shops. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Subscriptions(Arc<Mutex<Made>>);

#[derive(Debug, Default)]
struct Made {
    last_id: u64,
    /// By provider and shop.
    shops: BTreeMap<(String, String), Vec<Subscription>>,
}

impl Made {
    fn make(
        &mut self,
        provider: &str,
        shop: &str,
        events: Vec<String>,
        url: &str,
        description: Option<String>,
    ) -> Subscription {
        self.last_id += 1;
        let subscription = Subscription {
            id: self.last_id,
            events,
            url: url.to_owned(),
            is_enabled: true,
            description,
            client_secret: (provider == "aboutyou").then(|| Uuid::new_v4().simple().to_string()),
        };
        let of_shop = self.shops.entry((provider.to_owned(), shop.to_owned())).or_default();
        of_shop.push(subscription.clone());
        subscription
    }
}

impl Subscriptions {
    /// The subscriptions of a shop, the oldest first.
    pub fn of(&self, provider: &str, shop: &str) -> Vec<Subscription> {
        let made = lock(&self.0);
        let of_shop = made.shops.get(&(provider.to_owned(), shop.to_owned()));
        of_shop.cloned().unwrap_or_default()
    }

    /// Makes a subscription, and returns its id.
    pub fn add(&self, provider: &str, shop: &str, events: &[&str], url: &str) -> u64 {
        let events = events.iter().map(|&event| event.to_owned()).collect();
        lock(&self.0).make(provider, shop, events, url, None).id
    }

    /// Removes a subscription, as a person does in the admin panel of the provider. Returns `None` if no subscription has
    /// this id.
    pub fn remove(&self, provider: &str, shop: &str, id: u64) -> Option<Subscription> {
        let mut made = lock(&self.0);
        let of_shop = made.shops.get_mut(&(provider.to_owned(), shop.to_owned()))?;
        let index = of_shop.iter().position(|subscription| subscription.id == id)?;
        Some(of_shop.remove(index))
    }

    /// Changes the subscriptions of a shop, as a person does in the admin panel of the provider.
    pub fn change(&self, provider: &str, shop: &str, change: impl FnMut(&mut Subscription)) {
        let mut made = lock(&self.0);
        let of_shop = made.shops.get_mut(&(provider.to_owned(), shop.to_owned()));
        of_shop.into_iter().flatten().for_each(change);
    }

    /// Subscribes to an event of Cartum. Returns `None` if the event is unknown, or if its places are used up.
    pub(super) fn cartum(&self, shop: &str, event: &str, url: &str) -> Option<u64> {
        let mut made = lock(&self.0);
        let of_shop = made.shops.get(&("cartum".to_owned(), shop.to_owned()));
        let of_event = |made: &&Subscription| made.events.iter().any(|subscribed| subscribed == event);
        let taken = of_shop.into_iter().flatten().filter(of_event).count();
        let is_possible = CARTUMS_EVENTS.contains(&event) && taken < PLACES && !url.is_empty();
        is_possible.then(|| made.make("cartum", shop, vec![event.to_owned()], url, None).id)
    }

    /// Answers a request to ABOUT YOU's `/api/v1/webhooks/`. `rest` is the path after that.
    pub(super) fn aboutyou(&self, shop: &str, rest: &str, request: &Request<Bytes>) -> Response<Bytes> {
        let id: Option<u64> = rest.parse().ok();
        let unknown = || message(StatusCode::NOT_FOUND, "there is no such subscription");
        match (request.method(), id) {
            (&Method::GET, None) if rest.is_empty() => {
                let listed = self.of("aboutyou", shop);
                json(StatusCode::OK, &listed.iter().map(Subscription::listed).collect())
            }
            (&Method::POST, None) if rest.is_empty() => self.post(shop, request.body()),
            (&Method::GET, Some(id)) => {
                let listed = self.of("aboutyou", shop);
                let found = listed.iter().find(|subscription| subscription.id == id);
                found.map_or_else(unknown, |found| json(StatusCode::OK, &found.listed()))
            }
            (&Method::DELETE, Some(id)) => match self.remove("aboutyou", shop, id) {
                Some(_) => {
                    let mut done = Response::new(Bytes::new());
                    *done.status_mut() = StatusCode::NO_CONTENT;
                    done
                }
                None => unknown(),
            },
            (_, None) if !rest.is_empty() => unknown(),
            _ => message(StatusCode::METHOD_NOT_ALLOWED, "GET, POST or DELETE"),
        }
    }

    /// Makes a subscription at ABOUT YOU. An unknown event makes the request fail.
    fn post(&self, shop: &str, body: &[u8]) -> Response<Bytes> {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let events: Option<Vec<String>> = serde_json::from_value(asked["events"].clone()).ok();
        let is_known = |event: &String| ABOUTYOUS_EVENTS.contains(&event.as_str());
        let (Some(url), Some(events)) = (
            asked["url"].as_str(),
            events.filter(|events| events.iter().all(is_known)),
        ) else {
            return message(StatusCode::UNPROCESSABLE_ENTITY, "no url, or an unknown event");
        };
        let description = asked["description"].as_str().map(str::to_owned);
        let made = lock(&self.0).make("aboutyou", shop, events, url, description);
        let answer = json!({"id": made.id, "client_secret": made.client_secret});
        json(StatusCode::CREATED, &answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://api.example.com/webhooks";

    fn ask(subscriptions: &Subscriptions, method: Method, rest: &str, body: &Value) -> (u16, Value) {
        let mut request = Request::new(Bytes::from(body.to_string()));
        *request.method_mut() = method;
        let answer = subscriptions.aboutyou("main", rest, &request);
        let body = serde_json::from_slice(answer.body()).unwrap_or_default();
        (answer.status().as_u16(), body)
    }

    #[test]
    fn an_event_of_cartum_has_five_places_at_a_shop() {
        let subscriptions = Subscriptions::default();
        for _ in 0..PLACES {
            assert!(subscriptions.cartum("main", "order_paid", URL).is_some());
        }
        assert_eq!(subscriptions.cartum("main", "order_paid", URL), None);
        assert_eq!(subscriptions.cartum("main", "order_unpaid", URL), None);
        assert!(subscriptions.cartum("main", "order_update", URL).is_some());
        assert!(subscriptions.cartum("second", "order_paid", URL).is_some());
        let first = subscriptions.of("cartum", "main")[0].id;
        assert!(subscriptions.remove("cartum", "main", first).is_some());
        assert!(subscriptions.cartum("main", "order_paid", URL).is_some());
    }

    #[test]
    fn a_subscription_of_aboutyou_is_made_listed_and_deleted() {
        let subscriptions = Subscriptions::default();
        let asked = json!({"url": URL, "events": ["order.created", "order_items.shipped"], "description": "ours"});
        let (status, made) = ask(&subscriptions, Method::POST, "", &asked);
        assert_eq!((status, &made["id"]), (201, &json!(1)), "{made}");
        assert!(made["client_secret"].is_string(), "{made}");
        let listed = json!({
            "id": 1,
            "url": URL,
            "events": ["order.created", "order_items.shipped"],
            "enabled": true,
            "description": "ours",
        });
        let nothing = Value::Null;
        let list = |rest| ask(&subscriptions, Method::GET, rest, &nothing);
        assert_eq!(list(""), (200, json!([listed])));
        assert_eq!(list("1"), (200, listed));
        for rest in ["2", "one"] {
            assert_eq!(list(rest).0, 404, "{rest}");
        }
        assert_eq!(ask(&subscriptions, Method::DELETE, "1", &nothing).0, 204);
        assert_eq!(ask(&subscriptions, Method::DELETE, "1", &nothing).0, 404);
        assert_eq!(list(""), (200, json!([])));
    }

    #[test]
    fn an_unknown_event_of_aboutyou_makes_the_request_fail() {
        let subscriptions = Subscriptions::default();
        for asked in [
            json!({"url": URL, "events": ["order.created", "order.deleted"]}),
            json!({"events": ["order.created"]}),
            json!({"url": URL}),
        ] {
            assert_eq!(ask(&subscriptions, Method::POST, "", &asked).0, 422, "{asked}");
        }
        assert_eq!(subscriptions.of("aboutyou", "main"), []);
    }
}
