//! One HTTP request of a provider, before it is verified.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use lambda_http::Body;
use lambda_http::aws_lambda_events::query_map::QueryMap;
use lambda_http::http::{HeaderMap, Method};

use crate::answer::Refusal;
use crate::event::Origin;
use crate::http_event::{HttpEvent, UnreadableBody};
use crate::identity::Shop;
use crate::reconciliation::{Base, Reconciled};

/// The limit for a body in base64, which takes a third more than the body. API Gateway passes on at most 6 MB.
const BASE64_BODY_LIMIT: usize = 4_500_000;

/// The largest plausible difference between API Gateway's clock and this one. An older event was saved and is now used
/// to invoke the function manually.
const CLOCKS_APART: SignedDuration = SignedDuration::from_hours(24);

/// The query parameter that holds the token.
pub(crate) const TOKEN_PARAMETER: &str = "token";

/// The largest body that is read, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit(usize);

impl BodyLimit {
    /// The default, which API Gateway passes on as text.
    pub const DEFAULT: usize = 5_000_000;
    /// The largest limit that can be configured.
    const LARGEST: usize = 9_999_999;

    /// Creates a limit of `bytes`.
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

/// A delivery: the request of a provider, not verified yet.
///
/// Only verification can read the body; see [`Verified`](crate::verification::Verified).
pub struct Delivery {
    method: Method,
    shop: Shop,
    headers: HeaderMap,
    query: QueryMap,
    body: Vec<u8>,
    received_at: Timestamp,
    body_limit: BodyLimit,
    reconciled: Option<Reconciled>,
}

impl Delivery {
    /// Reads a request of the route `/webhooks/{provider}/{shop}`. Keeps only the token and those parameters of its query
    /// that `event_parameters` names for its method.
    ///
    /// # Errors
    /// In this order: 405 for a method that is not in `methods`, 400 for a body that cannot be decoded, 413 for a body
    /// over the limit, and 401 if the path names no shop.
    pub fn read(
        event: HttpEvent,
        methods: &'static [Method],
        event_parameters: fn(&Method) -> &'static [&'static str],
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
            query: only(&event.query, event_parameters(&method)),
            method,
            shop,
            headers: event.headers,
            body,
            received_at: received_at(event.received_at),
            body_limit: limit,
            reconciled: None,
        })
    }

    /// A delivery from the table. Its headers, which include credentials, are not stored.
    pub(crate) fn stored(method: Method, shop: Shop, query: QueryMap, body: Vec<u8>, received_at: Timestamp) -> Self {
        let headers = HeaderMap::new();
        Self {
            method,
            shop,
            headers,
            query,
            body,
            received_at,
            // The body was within the limit that was set when it was received.
            body_limit: BodyLimit(BodyLimit::LARGEST),
            reconciled: None,
        }
    }

    /// The same delivery, made of an order that the provider's API has listed.
    pub(crate) fn into_reconciled(self, reconciled: Reconciled) -> Self {
        Self {
            reconciled: Some(reconciled),
            ..self
        }
    }

    /// Names the latest stored event of a reconciled order.
    pub(crate) fn reconcile_after(&mut self, base: Option<Base>) {
        if let Some(reconciled) = &mut self.reconciled {
            reconciled.base = base;
        }
    }

    /// How the delivery came about, unless the provider sent it.
    pub(crate) fn reconciled(&self) -> Option<&Reconciled> {
        self.reconciled.as_ref()
    }

    /// How the event of the delivery became known.
    pub fn origin(&self) -> Origin {
        match self.reconciled {
            Some(_) => Origin::Reconciliation,
            None => Origin::Webhook,
        }
    }

    /// The HTTP method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The shop that the path names.
    pub fn shop(&self) -> &Shop {
        &self.shop
    }

    /// The time of receipt, by API Gateway's clock, or by this machine's if the event does not state a plausible time.
    pub fn received_at(&self) -> Timestamp {
        self.received_at
    }

    pub(crate) fn count_as_received_at(&mut self, time: Timestamp) {
        self.received_at = time;
    }

    /// The value of a header; `None` if it is missing, repeated or not ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }

    /// The value of a query parameter. Fails if the parameter is repeated.
    pub fn parameter(&self, name: &str) -> Result<Option<&str>, Repeated> {
        match self.query.all(name).as_deref() {
            None | Some([]) => Ok(None),
            Some([value]) => Ok(Some(value)),
            Some(_) => Err(Repeated),
        }
    }

    /// The query parameters that may be stored, each with all its values.
    pub(crate) fn parameters_without_credentials(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut parameters = BTreeMap::<_, Vec<_>>::new();
        // The table does not accept an empty name, which has no meaning anyway.
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

    /// The largest text to which the body may unpack.
    pub(crate) fn body_limit(&self) -> BodyLimit {
        self.body_limit
    }
}

/// Reduces a query to the token and `parameters`. No signature covers the others, and nothing reads them.
fn only(query: &QueryMap, parameters: &[&str]) -> QueryMap {
    let mut kept = HashMap::<String, Vec<String>>::new();
    for (name, value) in query.iter() {
        if name == TOKEN_PARAMETER || parameters.contains(&name) {
            kept.entry(name.to_owned()).or_default().push(value.to_owned());
        }
    }
    kept.into()
}

/// The time of API Gateway, which does not depend on this machine's clock, if it is plausible.
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
    /// A delivery for a test, with a raw query, headers and a body.
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
            reconciled: None,
        }
    }
}
