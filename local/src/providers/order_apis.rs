//! Stand-ins for the order APIs of Snipcart, Cartum, Selldone and ABOUT YOU, all on the port of Snipcart's validation
//! call. Each lists the orders of the shop whose credentials a request has. Cartum's and ABOUT YOU's also make
//! subscriptions.

mod fault;
mod query;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::fault::Fault;
use self::fault::damaged;
use self::query::Query;
use crate::lock;
use crate::net::server::{json, message};
use crate::project::settings::{self, ORDER_APIS};
use crate::providers::order_book::{self, Order, OrderBook};
use crate::providers::subscriptions::Subscriptions;

/// The most orders in a page, unless a test asks for fewer.
const PAGE: usize = 100;
/// The most orders in a page of Selldone.
const SELLDONES_PAGE: usize = 250;
/// The path of ABOUT YOU's list of orders.
const ABOUTYOUS_ORDERS: &str = "/aboutyou/api/v1/orders/";
/// The path of ABOUT YOU's subscriptions.
const ABOUTYOUS_SUBSCRIPTIONS: &str = "/aboutyou/api/v1/webhooks/";
/// The path of the requests by which `cargo local send --lost` tells a stand-in about an order.
pub const BOOK: &str = "/orders-of/";

/// A request to an order API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The provider.
    pub provider: &'static str,
    /// The shop whose credentials were sent; `None` if they are wrong.
    pub shop: Option<String>,
    /// The path and the query.
    pub path: String,
    /// The number of orders in the answer.
    pub orders: usize,
}

/// A fault of a provider's API.
#[derive(Debug)]
struct InForce {
    provider: &'static str,
    /// The method and the path of the requests that it hits; `None` if it hits all.
    call: Option<&'static str>,
    fault: Fault,
    /// The number of requests that it does not hit first.
    spared: usize,
    /// The number of requests that it hits then.
    times: usize,
}

/// Decides by the provider and the number of the request what happens to it.
type Plan = Box<dyn Fn(&'static str, usize) -> Option<Fault> + Send + Sync>;

/// The stand-ins. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct OrderApis(Arc<State>);

#[derive(Default)]
struct State {
    book: OrderBook,
    subscriptions: Subscriptions,
    faults: Mutex<Vec<InForce>>,
    plan: Mutex<Option<Plan>>,
    /// The faults that a person has turned on, by their name.
    on: Mutex<BTreeMap<&'static str, Fault>>,
    asked: Mutex<Vec<Asked>>,
    /// The shops of Cartum's valid tokens.
    tokens: Mutex<HashMap<String, String>>,
    page: Mutex<Option<usize>>,
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("State").finish_non_exhaustive()
    }
}

/// What a request asks for.
enum Listing {
    /// The orders in the JSON of the answer, and how many they are.
    Orders(Value, usize),
    /// An answer without orders.
    Other(Response<Bytes>),
}

impl OrderApis {
    /// The orders that the stand-ins list.
    pub fn book(&self) -> &OrderBook {
        &self.0.book
    }

    /// The subscriptions at Cartum and ABOUT YOU.
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.0.subscriptions
    }

    /// Lets the next `times` requests to a provider's API meet a fault.
    pub fn inject(&self, provider: &'static str, fault: Fault, times: usize) {
        self.force(provider, None, fault, 0, times);
    }

    /// Lets all requests to a provider's API meet a fault, after the next `spared` requests.
    pub fn inject_after(&self, provider: &'static str, spared: usize, fault: Fault) {
        self.force(provider, None, fault, spared, usize::MAX);
    }

    /// Lets the next `times` requests with a method and a path, such as `POST /cartum/api/auth/`, meet a fault.
    pub fn inject_at(&self, provider: &'static str, call: &'static str, fault: Fault, times: usize) {
        self.force(provider, Some(call), fault, 0, times);
    }

    fn force(&self, provider: &'static str, call: Option<&'static str>, fault: Fault, spared: usize, times: usize) {
        lock(&self.0.faults).push(InForce {
            provider,
            call,
            fault,
            spared,
            times,
        });
    }

    /// Ends the faults of a provider's API.
    pub fn end_faults_of(&self, provider: &'static str) {
        lock(&self.0.faults).retain(|fault| fault.provider != provider);
    }

    /// Lets `plan` decide about every request that no other fault hits.
    pub fn follow(&self, plan: impl Fn(&'static str, usize) -> Option<Fault> + Send + Sync + 'static) {
        *lock(&self.0.plan) = Some(Box::new(plan));
    }

    /// Ends all faults and the plan.
    pub fn end_faults(&self) {
        lock(&self.0.faults).clear();
        *lock(&self.0.plan) = None;
    }

    /// Lets every request meet a fault, until it is turned off.
    pub(crate) fn turn_on(&self, name: &'static str, fault: Fault) {
        lock(&self.0.on).insert(name, fault);
    }

    /// Turns a fault off.
    pub(crate) fn turn_off(&self, name: &str) {
        lock(&self.0.on).remove(name);
    }

    /// Whether a fault is turned on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        lock(&self.0.on).contains_key(name)
    }

    /// Lets Cartum's tokens expire.
    pub fn expire_tokens(&self) {
        lock(&self.0.tokens).clear();
    }

    /// Limits the orders in a page.
    pub fn limit_pages(&self, orders: usize) {
        *lock(&self.0.page) = Some(orders);
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.0.asked).clone()
    }

    /// Answers a request to an order API; `None` if the request is to something else.
    pub(super) async fn answer(&self, request: &Request<Bytes>) -> Option<Response<Body>> {
        let path = request.uri().path();
        if let Some(place) = path.strip_prefix(BOOK) {
            return Some(self.learn(place, request).map(Body::from));
        }
        let provider = ORDER_APIS.into_iter().find(|provider| is_of(provider, path))?;
        let (fault, number) = self.fault(provider, request);
        match fault {
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
            Some(Fault::Expired) => self.expire_tokens(),
            _ => {}
        }
        let (shop, listing) = self.list(provider, request);
        let (orders, answer) = match listing {
            Listing::Orders(body, orders) => (orders, json(StatusCode::OK, &body)),
            Listing::Other(answer) => (0, answer),
        };
        let answer = damaged(answer, fault, request);
        if let Some(asked) = lock(&self.0.asked).get_mut(number) {
            asked.shop = shop;
            asked.orders = orders;
            asked.path = request
                .uri()
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default();
        }
        Some(answer)
    }

    /// Draws the fault for a request, and counts the request.
    fn fault(&self, provider: &'static str, request: &Request<Bytes>) -> (Option<Fault>, usize) {
        let mut asked = lock(&self.0.asked);
        let number = asked.len();
        asked.push(Asked {
            provider,
            shop: None,
            path: String::new(),
            orders: 0,
        });
        drop(asked);
        let mut faults = lock(&self.0.faults);
        let call = format!("{} {}", request.method(), request.uri().path());
        let given = faults
            .iter_mut()
            .find(|fault| fault.provider == provider && fault.times > 0 && fault.call.is_none_or(|hit| hit == call))
            .and_then(|fault| {
                if fault.spared > 0 {
                    fault.spared -= 1;
                    return None;
                }
                fault.times -= 1;
                Some(fault.fault)
            });
        drop(faults);
        let planned = || lock(&self.0.plan).as_ref().and_then(|plan| plan(provider, number));
        let turned_on = || lock(&self.0.on).values().next().copied();
        (given.or_else(planned).or_else(turned_on), number)
    }

    /// `POST /orders-of/{provider}/{shop}` with the body of a webhook.
    fn learn(&self, place: &str, request: &Request<Bytes>) -> Response<Bytes> {
        match place.split_once('/') {
            Some((provider, shop))
                if request.method() == Method::POST && self.0.book.delivered(provider, shop, request.body()) =>
            {
                json(StatusCode::OK, &json!({"status": "known"}))
            }
            _ => message(
                StatusCode::BAD_REQUEST,
                "no complete order of a provider with an order API",
            ),
        }
    }

    fn list(&self, provider: &'static str, request: &Request<Bytes>) -> (Option<String>, Listing) {
        let query = Query::of(request);
        let shop = match provider {
            "cartum" => return self.cartum(request),
            "aboutyou" if is_without_slash(request) => return (None, Listing::Other(with_slash(request))),
            "snipcart" => header(request, AUTHORIZATION.as_str()).and_then(|basic| {
                let basic = BASE64.decode(basic.strip_prefix("Basic ")?).ok()?;
                let key = String::from_utf8(basic).ok()?.strip_suffix(':')?.to_owned();
                settings::shop_of(provider, &key)
            }),
            "selldone" => header(request, AUTHORIZATION.as_str())
                .and_then(|bearer| settings::shop_of(provider, bearer.strip_prefix("Bearer ")?)),
            _ => header(request, "x-api-key").and_then(|key| settings::shop_of(provider, key)),
        };
        let Some(shop) = shop else {
            return (
                None,
                Listing::Other(message(StatusCode::UNAUTHORIZED, "wrong credentials")),
            );
        };
        let listing = match provider {
            "aboutyou" => self.aboutyou(&shop, request, &query),
            _ if request.method() != Method::GET => Listing::Other(message(StatusCode::METHOD_NOT_ALLOWED, "GET only")),
            "snipcart" => self.snipcart(&shop, &query),
            _ => self.selldone(&shop, &query),
        };
        (Some(shop), listing)
    }

    /// Snipcart filters by the day the order was placed.
    fn snipcart(&self, shop: &str, query: &Query) -> Listing {
        let (from, to) = (query.time("from"), query.time("to"));
        let placed = |order: &Order| is_between(order.placed_at, from, to);
        let orders = self.0.book.orders("snipcart", shop, placed);
        let (offset, limit) = (query.number("offset", 0), self.page(query.number("limit", 20), PAGE));
        let page = page(&orders, offset, limit);
        let count = page.len();
        let body = json!({"totalItems": orders.len(), "offset": offset, "limit": limit, "items": page});
        Listing::Orders(body, count)
    }

    fn selldone(&self, shop: &str, query: &Query) -> Listing {
        let orders = self.0.book.orders("selldone", shop, |_| true);
        let (offset, limit) = (
            query.number("offset", 0),
            self.page(query.number("limit", 20), SELLDONES_PAGE),
        );
        let page = page(&orders, offset, limit);
        let count = page.len();
        Listing::Orders(json!({"baskets": page, "total": orders.len()}), count)
    }

    /// ABOUT YOU filters by the time the order was placed.
    fn aboutyou(&self, shop: &str, request: &Request<Bytes>, query: &Query) -> Listing {
        let path = request.uri().path();
        if let Some(rest) = path.strip_prefix(ABOUTYOUS_SUBSCRIPTIONS) {
            return Listing::Other(self.0.subscriptions.aboutyou(shop, rest, request));
        }
        if (request.method(), path) != (&Method::GET, ABOUTYOUS_ORDERS) {
            return Listing::Other(message(StatusCode::NOT_FOUND, "not an endpoint"));
        }
        let (Ok(from), Ok(to)) = (query.moment("orders_from"), query.moment("orders_to")) else {
            return Listing::Other(message(StatusCode::UNPROCESSABLE_ENTITY, "not a time"));
        };
        let placed = |order: &Order| is_between(order.placed_at, from, to);
        let orders = self.0.book.orders("aboutyou", shop, placed);
        let (number, limit) = (
            query.number("page", 1).max(1),
            self.page(query.number("per_page", 20), PAGE),
        );
        let pages = orders.len().div_ceil(limit).max(1);
        let page = page(&orders, (number - 1).saturating_mul(limit), limit);
        let count = page.len();
        let pagination = json!({"page": number, "per_page": limit, "pages": pages, "total": orders.len()});
        Listing::Orders(json!({"items": page, "pagination": pagination}), count)
    }

    /// Cartum answers 200, and says in the body whether the credentials are right.
    fn cartum(&self, request: &Request<Bytes>) -> (Option<String>, Listing) {
        let other = |body: &Value| Listing::Other(json(StatusCode::OK, body));
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        let path = request.uri().path().trim_end_matches('/');
        match path.trim_start_matches("/cartum") {
            "/api/auth" => {
                let shop = settings::shop_of("cartum", text("login"))
                    .filter(|shop| settings::api("cartum", shop)["password"] == body["password"]);
                let Some(shop) = shop else {
                    return (None, other(&refusal("AUTHORIZATION_ERROR")));
                };
                let token = uuid::Uuid::new_v4().simple().to_string();
                lock(&self.0.tokens).insert(token.clone(), shop.clone());
                (
                    Some(shop),
                    other(&json!({"status": "OK", "response": {"token": token}})),
                )
            }
            "/api/orders/get" => {
                let Some(shop) = lock(&self.0.tokens).get(text("token")).cloned() else {
                    return (None, other(&refusal("UNAUTHORIZED")));
                };
                // In the time zone of the shop.
                let (from, to) = (order_book::time(&body["from"]), order_book::time(&body["to"]));
                let ids: Option<Vec<String>> = body["ids"].as_array().map(|ids| ids.iter().map(plain).collect());
                let wanted = |order: &Order| match &ids {
                    Some(ids) => ids.contains(&order.id),
                    None => is_between(order.placed_at, from, to),
                };
                let orders = self.0.book.orders("cartum", &shop, wanted);
                let number = |name: &str, otherwise: usize| plain(&body[name]).parse().unwrap_or(otherwise);
                let limit = self.page(number("limit", PAGE), PAGE);
                let page = page(&orders, number("offset", 0), limit);
                let count = page.len();
                let body = json!({"status": "OK", "response": {"orders": page}});
                (Some(shop), Listing::Orders(body, count))
            }
            "/api/hooks/subscribe" => {
                let Some(shop) = lock(&self.0.tokens).get(text("token")).cloned() else {
                    return (None, other(&refusal("UNAUTHORIZED")));
                };
                let answer = match self.0.subscriptions.cartum(&shop, text("event"), text("target_url")) {
                    Some(id) => Listing::Other(json(StatusCode::CREATED, &json!({ "id": id }))),
                    None => other(&refusal("ERROR")),
                };
                (Some(shop), answer)
            }
            _ => (None, Listing::Other(message(StatusCode::NOT_FOUND, "not an endpoint"))),
        }
    }

    fn page(&self, asked: usize, most: usize) -> usize {
        let most = lock(&self.0.page).unwrap_or(most);
        asked.clamp(1, most)
    }
}

/// Whether a path belongs to a provider's order API.
fn is_of(provider: &str, path: &str) -> bool {
    let prefix = settings::order_api_path(provider);
    let rest = path.strip_prefix(prefix.as_str()).unwrap_or_default();
    match provider {
        "snipcart" => rest == "/orders" || rest.starts_with("/orders/"),
        _ => rest.starts_with('/'),
    }
}

/// Whether a request lacks the slash at the end of a path of ABOUT YOU.
fn is_without_slash(request: &Request<Bytes>) -> bool {
    let path = request.uri().path();
    [ABOUTYOUS_ORDERS, ABOUTYOUS_SUBSCRIPTIONS].contains(&format!("{path}/").as_str())
}

/// The redirect to the same path with a slash at its end.
fn with_slash(request: &Request<Bytes>) -> Response<Bytes> {
    let uri = request.uri();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut answer = message(StatusCode::MOVED_PERMANENTLY, "the path ends with a slash");
    if let Ok(location) = HeaderValue::try_from(format!("{}/{query}", uri.path())) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

fn refusal(status: &str) -> Value {
    json!({"status": status, "response": {"message": "as configured"}})
}

fn header<'a>(request: &'a Request<Bytes>, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

/// A text or a number as text.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn page(orders: &[Order], offset: usize, limit: usize) -> Vec<Value> {
    let page = orders.iter().skip(offset).take(limit);
    page.map(Order::value).collect()
}

fn is_between(time: Option<Timestamp>, from: Option<Timestamp>, to: Option<Timestamp>) -> bool {
    // An order without a time is in every window.
    time.is_none_or(|time| from.is_none_or(|from| time >= from) && to.is_none_or(|to| time <= to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_of_aboutyou_without_its_slash_is_redirected() {
        let apis = OrderApis::default();
        for (path, expected) in [
            (
                "/aboutyou/api/v1/orders?page=1",
                Some("/aboutyou/api/v1/orders/?page=1"),
            ),
            ("/aboutyou/api/v1/webhooks", Some("/aboutyou/api/v1/webhooks/")),
            ("/aboutyou/api/v1/orders/?page=1", None),
        ] {
            let request = Request::get(path).header("x-api-key", "local-order-api-of-main");
            let answer = apis.answer(&request.body(Bytes::new()).unwrap()).await.unwrap();
            let location = answer
                .headers()
                .get(LOCATION)
                .map(|location| location.to_str().unwrap());
            assert_eq!(location, expected, "{path}");
            let status = if expected.is_some() { 301 } else { 200 };
            assert_eq!(answer.status().as_u16(), status, "{path}");
        }
    }

    #[tokio::test]
    async fn aboutyou_lists_the_orders_that_were_placed_in_a_period() {
        let apis = OrderApis::default();
        for (number, day) in [("1", 1), ("2", 2), ("3", 3)] {
            let order = json!({"order_number": number, "created_at": format!("2026-01-0{day}T10:00:00+00:00")});
            let webhook = json!({"event": "order.created", "message": order}).to_string();
            assert!(apis.book().delivered("aboutyou", "main", webhook.as_bytes()));
        }
        for (query, status, pagination) in [
            (
                "per_page=2&page=2",
                200,
                json!({"page": 2, "per_page": 2, "pages": 2, "total": 3}),
            ),
            (
                "per_page=2&orders_from=2026-01-02T00:00:00Z",
                200,
                json!({"page": 1, "per_page": 2, "pages": 1, "total": 2}),
            ),
            ("orders_from=yesterday", 422, Value::Null),
        ] {
            let request = Request::get(format!("{ABOUTYOUS_ORDERS}?{query}"));
            let request = request.header("x-api-key", "local-order-api-of-main");
            let answer = apis.answer(&request.body(Bytes::new()).unwrap()).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{query}");
            let body = axum::body::to_bytes(answer.into_body(), 100_000).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["pagination"], pagination, "{query}");
        }
    }
}
