//! One HTTP request of a provider, before anything in it is believed.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use lambda_http::Body;
use lambda_http::aws_lambda_events::query_map::QueryMap;
use lambda_http::http::{HeaderMap, Method};

use crate::answer::Refusal;
use crate::http_event::{HttpEvent, UnreadableBody};
use crate::identity::Shop;

/// API Gateway hands over at most 6 MB, and base64 takes a third more than the body.
const BASE64_BODY_LIMIT: usize = 4_500_000;

/// How far API Gateway's clock and this one may be apart. An event that is further away was kept by somebody, who now invokes the
/// function with it by hand.
const CLOCKS_APART: SignedDuration = SignedDuration::from_hours(24);

/// The query parameter that holds a credential.
pub(crate) const TOKEN_PARAMETER: &str = "token";

/// The largest body that is read, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit(usize);

impl BodyLimit {
    /// What fits through API Gateway as text.
    pub const DEFAULT: usize = 5_000_000;
    /// The most that can be configured.
    const LARGEST: usize = 9_999_999;

    /// A limit of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    /// The limit for a body that is read as text, in bytes.
    pub(crate) fn bytes(self) -> usize {
        self.0
    }

    fn for_body(self, body: &Body) -> usize {
        match body {
            Body::Binary(_) => self.0.min(BASE64_BODY_LIMIT),
            _ => self.0,
        }
    }
}

/// A delivery: what a provider sent, not yet known to be from it.
///
/// The body can be read by verification alone; see [`Verified`](crate::verification::Verified).
pub struct Delivery {
    method: Method,
    shop: Shop,
    headers: HeaderMap,
    query: QueryMap,
    body: Vec<u8>,
    received_at: Timestamp,
    body_limit: BodyLimit,
}

impl Delivery {
    /// Reads a request of the route `/webhooks/{provider}/{shop}`. Of its query, the token and the `event_parameters` are kept.
    ///
    /// # Errors
    /// In this order: 405 for another method than `methods`, 413 for a body over the limit or 400 for one that cannot be decoded,
    /// 401 where the path names no shop.
    pub fn read(
        event: HttpEvent,
        methods: &'static [Method],
        event_parameters: &[&str],
        limit: BodyLimit,
    ) -> Result<Self, Refusal> {
        let method = event.method.filter(|method| methods.contains(method));
        let method = method.ok_or(Refusal::MethodNotAllowed(methods))?;
        let unreadable = |UnreadableBody| Refusal::Malformed("the body cannot be decoded");
        let body = event.body.map_err(unreadable)?;
        let bytes = limit.for_body(&body);
        if body.len() > bytes {
            return Err(Refusal::TooLarge { limit: bytes });
        }
        let shop = event.shop.as_deref().and_then(Shop::parse);
        let shop = shop.ok_or(Refusal::no_credentials("the path names no shop"))?;
        let body = match body {
            Body::Text(text) => text.into_bytes(),
            Body::Binary(bytes) => bytes,
            _ => Vec::new(),
        };
        Ok(Self {
            method,
            shop,
            headers: event.headers,
            query: only(&event.query, event_parameters),
            body,
            received_at: received_at(event.received_at),
            body_limit: limit,
        })
    }

    /// A delivery as it was kept; its headers, credentials among them, were not.
    pub(crate) fn kept(method: Method, shop: Shop, query: QueryMap, body: Vec<u8>, received_at: Timestamp) -> Self {
        let headers = HeaderMap::new();
        Self {
            method,
            shop,
            headers,
            query,
            body,
            received_at,
            // Whatever the limit was when it was received, the body was accepted.
            body_limit: BodyLimit(BodyLimit::LARGEST),
        }
    }

    /// The HTTP method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The shop in the path.
    pub fn shop(&self) -> &Shop {
        &self.shop
    }

    /// When it was received: by API Gateway's clock, or by this machine's where the event does not say.
    pub fn received_at(&self) -> Timestamp {
        self.received_at
    }

    pub(crate) fn count_as_received_at(&mut self, time: Timestamp) {
        self.received_at = time;
    }

    /// A header that must be there, once and in ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }

    /// A query parameter; [`Err`] where it is repeated.
    pub fn parameter(&self, name: &str) -> Result<Option<&str>, Repeated> {
        match self.query.all(name).as_deref() {
            None | Some([]) => Ok(None),
            Some([value]) => Ok(Some(value)),
            Some(_) => Err(Repeated),
        }
    }

    /// The query parameters that may be kept, each with all its values.
    pub(crate) fn parameters_without_credentials(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut parameters = BTreeMap::<_, Vec<_>>::new();
        // The table takes no name that is empty, and one says nothing.
        for (name, value) in self
            .query
            .iter()
            .filter(|(name, _)| !["", TOKEN_PARAMETER].contains(name))
        {
            parameters.entry(name).or_default().push(value);
        }
        parameters
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The largest text that the body may unpack to.
    pub(crate) fn body_limit(&self) -> BodyLimit {
        self.body_limit
    }
}

/// The query reduced to the token and `parameters`: no signature covers the others, and nobody reads them.
fn only(query: &QueryMap, parameters: &[&str]) -> QueryMap {
    let mut kept = HashMap::<String, Vec<String>>::new();
    for (name, value) in query.iter() {
        if name == TOKEN_PARAMETER || parameters.contains(&name) {
            kept.entry(name.to_owned()).or_default().push(value.to_owned());
        }
    }
    kept.into()
}

/// API Gateway's time, which does not depend on this machine's clock, if it is plausible.
fn received_at(by_gateway: Option<Timestamp>) -> Timestamp {
    let now = Timestamp::now();
    let plausible = |time: &Timestamp| now.duration_since(*time).abs() <= CLOCKS_APART;
    by_gateway.filter(plausible).unwrap_or(now)
}

/// A query parameter is given more than once.
#[derive(Debug)]
pub struct Repeated;

#[cfg(test)]
impl Delivery {
    /// A delivery as a test wants it: method, path's shop, raw query, headers, body.
    pub(crate) fn sample(query: &str, headers: &[(&'static str, &str)], body: &str) -> Self {
        Self {
            method: Method::POST,
            shop: Shop::parse("main").expect("a shop"),
            headers: headers
                .iter()
                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
                .fold(
                    HeaderMap::new(),
                    |mut map, (name, value): (lambda_http::http::HeaderName, _)| {
                        map.append(name, value);
                        map
                    },
                ),
            query: query.parse().expect("a query"),
            body: body.as_bytes().to_vec(),
            received_at: Timestamp::now(),
            body_limit: BodyLimit::new(BodyLimit::DEFAULT),
        }
    }
}
