//! An order of a provider's order API is read as the order of the provider's webhook is.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use local::net::server::{Port, Server};
use serde_json::{Value, json};
use shared::classify::{Classification, classify};
use shared::delivery::Delivery;
use shared::event::{EventType, OrderEvent, Origin};
use shared::identity::Shop;
use shared::order_api::{Api, BaseUrl, OrderApi, Period};
use shared::verification::Verified;
use tests::payloads::accepted;
use tests::providers::Tested;
use tests::reader::Reader;
use tests::{catalogue, payloads};
use tokio::time::Instant;

/// The largest request that the server reads.
pub(crate) const LIMIT: usize = 100_000;

/// A provider with an order API, as the tests answer for it.
pub(crate) trait Listed: OrderApi + Tested {
    /// The `api` of a shop's secret; for a shop in test mode, if the credentials say so.
    fn credentials(test: bool) -> Value;

    /// The order of the API that the body of a webhook describes.
    fn order(body: &Value) -> Value;

    /// The answer to a request. The list has one page.
    fn answer(request: &Request<Bytes>, orders: &[Value]) -> Value;
}

impl Listed for snipcart::Snipcart {
    fn credentials(test: bool) -> Value {
        json!({"key": "a-key", "test": test})
    }

    fn order(body: &Value) -> Value {
        body["content"].clone()
    }

    fn answer(_: &Request<Bytes>, orders: &[Value]) -> Value {
        json!({"totalItems": orders.len(), "offset": 0, "limit": 50, "items": orders})
    }
}

impl Listed for cartum::Cartum {
    fn credentials(_: bool) -> Value {
        json!({"domain": "shop.example.com", "login": "a-login", "password": "a-password"})
    }

    fn order(body: &Value) -> Value {
        body.clone()
    }

    fn answer(request: &Request<Bytes>, orders: &[Value]) -> Value {
        if request.uri().path() == "/api/auth/" {
            json!({"status": "OK", "response": {"token": "a-token"}})
        } else {
            json!({"status": "OK", "response": {"orders": orders}})
        }
    }
}

impl Listed for selldone::Selldone {
    fn credentials(_: bool) -> Value {
        json!({"shop_id": "7", "token": "a-token"})
    }

    fn order(body: &Value) -> Value {
        let mut basket = body["basket"].clone();
        for person in ["user", "customer"] {
            if let Some(known) = body.get(person) {
                basket[person] = known.clone();
            }
        }
        basket
    }

    fn answer(_: &Request<Bytes>, orders: &[Value]) -> Value {
        json!({"baskets": orders, "total": orders.len()})
    }
}

impl Listed for aboutyou::AboutYou {
    fn credentials(_: bool) -> Value {
        json!({"key": "a-key"})
    }

    fn order(body: &Value) -> Value {
        body["message"].clone()
    }

    fn answer(_: &Request<Bytes>, orders: &[Value]) -> Value {
        json!({"items": orders, "pagination": {"page": 1, "per_page": 100, "pages": 1}})
    }
}

/// The orders as the provider's client reads them from its API.
async fn listed<P: Listed>(orders: Vec<Value>, test: bool) -> Vec<Verified<Delivery>> {
    let port = Port::take(0, "").await.expect("a free port");
    let answer = move |request: Request<Bytes>, _| {
        let body = P::answer(&request, &orders).to_string();
        async move { Some(Response::new(body)) }
    };
    let server: Server = port.serve(LIMIT, answer);
    let base_url = BaseUrl::set_by_operator(&format!("http://{}", server.address()));
    let api = Api::new(&base_url, Instant::now() + Duration::from_secs(10));
    let credentials = serde_json::from_value(P::credentials(test)).unwrap_or_else(|_| panic!("the credentials"));
    let period = Period {
        from: Timestamp::UNIX_EPOCH,
        to: Timestamp::now(),
    };
    let (provider, mut session) = (Reader::<P>::new().provider, P::Session::default());
    let page = provider.page(&api, &credentials, &mut session, period, 0).await;
    let orders = page.unwrap_or_else(|error| panic!("{error}")).into_orders();
    let shop = Shop::parse("main").expect("a shop");
    let received_at = "2026-01-01T00:00:00Z".parse().expect("a time");
    orders
        .into_iter()
        .map(|order| order.into_delivery::<P>(&credentials, &shop, received_at))
        .collect()
}

fn event<P: Listed>(delivery: &Verified<Delivery>) -> Option<OrderEvent> {
    match classify(&Reader::<P>::new().provider, delivery, None).classification {
        Classification::Order(event) => Some(*event),
        _ => None,
    }
}

pub(crate) async fn a_listed_order_is_the_order_of_the_webhook<P: Listed>() {
    let mut compared = 0;
    for (name, body) in accepted(P::NAME) {
        let golden = catalogue().normalized(P::NAME, &name).expect("a golden event");
        let golden: OrderEvent = serde_json::from_value(golden.expect("a golden event")).expect("an event");
        // The other events describe a part of an order, or say more than the order itself.
        let is_plain = golden.r#type == EventType::Created && !golden.data.provider_event.contains("subscription");
        if !is_plain || golden.data.partial {
            continue;
        }
        let deliveries = listed::<P>(vec![P::order(&body)], golden.data.test).await;
        let [delivery] = deliveries.as_slice() else {
            panic!("{name}: {} orders", deliveries.len())
        };
        let event = event::<P>(delivery).unwrap_or_else(|| panic!("{name}: no order"));
        assert_eq!(event.data.order, golden.data.order, "{name}");
        assert_eq!(event.data.test, golden.data.test, "{name}");
        assert_ne!(event.id, golden.id, "{name}");
        assert_eq!(
            (event.r#type, event.data.origin, event.data.provider_event.as_str()),
            (EventType::Created, Origin::Reconciliation, "reconciliation"),
            "{name}"
        );
        let is_assumed = event.data.assumed.iter().any(|pointer| pointer == "/time");
        match event.data.order.updated_at {
            Some(updated_at) => assert_eq!(event.time, updated_at, "{name}"),
            None => assert_eq!((event.time, is_assumed), (event.data.received_at, true), "{name}"),
        }
        compared += 1;
    }
    assert!(compared > 5, "only {compared} orders were compared");
}

pub(crate) async fn an_unreadable_order_does_not_hold_up_the_others<P: Listed>() {
    let body = accepted(P::NAME)
        .into_iter()
        .find_map(|(name, body)| (name == P::FACTS.order).then_some(body))
        .expect("the plain order");
    let order = P::order(&body);
    let without_id = payloads::removed(&order, &format!("/{}", P::ORDER.id)).expect("a field");
    let orders = vec![without_id, json!(null), json!("an order"), json!([]), order];
    let count = orders.len();
    let deliveries = listed::<P>(orders, false).await;
    assert_eq!(deliveries.len(), count);
    let (readable, unreadable) = deliveries.split_last().expect("orders");
    assert!(event::<P>(readable).is_some());
    for delivery in unreadable {
        let classified = classify(&Reader::<P>::new().provider, delivery, None);
        assert!(
            matches!(classified.classification, Classification::Quarantined(_)),
            "{:?}",
            String::from_utf8_lossy(delivery.body())
        );
    }
}

pub(crate) async fn the_same_state_is_the_same_event<P: Listed>() {
    let body = accepted(P::NAME).swap_remove(0).1;
    let orders = vec![P::order(&body), P::order(&body)];
    let deliveries = listed::<P>(orders, false).await;
    let ids: Vec<_> = deliveries
        .iter()
        .filter_map(|delivery| Some(event::<P>(delivery)?.id))
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}
