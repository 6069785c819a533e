//! One HTTP request of a provider, before anything in it is believed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lambda_http::aws_lambda_events::query_map::QueryMap;
use lambda_http::http::{HeaderMap, Method};
use lambda_http::{Body, Request, RequestExt as _};

use crate::answer::Refusal;
use crate::identity::Shop;

/// API Gateway hands over at most 6 MB, and base64 takes a third more than the body.
const BASE64_BODY_LIMIT: usize = 4_500_000;

/// The largest body that is read, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit(usize);

impl BodyLimit {
    /// What fits through API Gateway as text.
    pub const DEFAULT: usize = 5_000_000;

    /// A limit of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self(bytes)
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
}

impl Delivery {
    /// Reads a request of the route `/webhooks/{provider}/{shop}`.
    ///
    /// # Errors
    /// 405 for another method than `methods`, 413 for a body over the limit, 401 for a shop that is none: in this order.
    pub fn read(request: Request, methods: &'static [Method], limit: BodyLimit) -> Result<Self, Refusal> {
        if !methods.contains(request.method()) {
            return Err(Refusal::MethodNotAllowed(methods));
        }
        let limit = limit.for_body(request.body());
        if request.body().len() > limit {
            return Err(Refusal::TooLarge { limit });
        }
        let shop = request.path_parameters().first("shop").and_then(Shop::parse);
        let shop = shop.ok_or(Refusal::Unauthorized("the path names no shop"))?;
        let query = request.query_string_parameters();
        let (head, body) = request.into_parts();
        let body = match body {
            Body::Text(text) => text.into_bytes(),
            Body::Binary(bytes) => bytes,
            _ => Vec::new(),
        };
        Ok(Self {
            method: head.method,
            shop,
            headers: head.headers,
            query,
            body,
            received_at: Timestamp::now(),
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

    /// When it was received.
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
        for (name, value) in self.query.iter().filter(|(name, _)| !["", "token"].contains(name)) {
            parameters.entry(name).or_default().push(value);
        }
        parameters
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }
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
        }
    }
}
