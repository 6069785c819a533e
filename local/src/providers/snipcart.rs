//! A stand-in for Snipcart's validation call: `GET /api/requestvalidation/{token}` with HTTP Basic, whose user is the
//! secret key. The stand-ins for the order APIs are on the same port.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::json;

use crate::lock;
use crate::net::server::{Answer, Port, Server, json, message};
use crate::project::settings::{SNIPCART_KEY, SNIPCART_TEST_KEY, order_api_path};
use crate::providers::order_apis::OrderApis;

/// The limit for the body of a request, which may be an order.
const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// A token that begins with this is valid.
pub const GENUINE: &str = "local-";

/// How the stand-in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Like Snipcart: 200 for a valid token, 404 for any other token, and 401 for another key. The key of the test mode
    /// knows no token.
    Genuine,
    /// Like `Genuine`, but a token validates only once; Snipcart does not document whether it does.
    Once,
    /// Answers every call with this status.
    Status(u16),
    /// A redirect to an answer that would be 200.
    Redirect,
    /// Never answers.
    Hang,
}

/// Decides by the path how a call is answered; `None` leaves it to the behaviour.
type Plan = Box<dyn Fn(&str) -> Option<Behaviour> + Send + Sync>;

/// The stand-in.
#[derive(Debug)]
pub struct Snipcart {
    server: Server,
    state: Arc<State>,
    orders: OrderApis,
}

struct State {
    behaviour: Mutex<Behaviour>,
    plan: Mutex<Option<Plan>>,
    asked: Mutex<Vec<String>>,
    /// Tokens that have been validated.
    used: Mutex<HashSet<String>>,
}

impl Snipcart {
    /// Serves the stand-in.
    pub fn start(port: Port) -> Self {
        let state = Arc::new(State {
            behaviour: Mutex::new(Behaviour::Genuine),
            plan: Mutex::new(None),
            asked: Mutex::default(),
            used: Mutex::default(),
        });
        let orders = OrderApis::default();
        let (shared, apis) = (Arc::clone(&state), orders.clone());
        let server = port.serve(BODY_LIMIT, move |request, _| {
            let (state, apis) = (Arc::clone(&shared), apis.clone());
            async move {
                match apis.answer(&request).await {
                    Some(answer) => Some(answer),
                    None => Some(state.answer(&request).await?.map(Body::from)),
                }
            }
        });
        Self { server, state, orders }
    }

    /// The stand-ins for the order APIs.
    pub fn orders(&self) -> &OrderApis {
        &self.orders
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The URL of Snipcart's API, as the functions get it.
    pub fn api_url(&self) -> String {
        format!("{}{}", self.url(), order_api_path("snipcart"))
    }

    /// Changes how calls are answered.
    pub fn behave(&self, behaviour: Behaviour) {
        *lock(&self.state.behaviour) = behaviour;
    }

    /// Lets `plan` decide by the path how a call is answered, until there is another plan.
    pub fn follow(&self, plan: impl Fn(&str) -> Option<Behaviour> + Send + Sync + 'static) {
        *lock(&self.state.plan) = Some(Box::new(plan));
    }

    /// The paths that have been requested so far, except the root of the API, which validates nothing.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.state.asked).clone()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    async fn answer(&self, request: &Request<Bytes>) -> Answer {
        let path = request.uri().path();
        // A function connects in advance by requesting the root of the API.
        if path == "/api" {
            return Some(message(StatusCode::NOT_FOUND, "not an endpoint"));
        }
        lock(&self.asked).push(path.to_owned());
        if path == "/redirected" {
            return Some(json(StatusCode::OK, &json!({})));
        }
        let planned = lock(&self.plan).as_ref().and_then(|plan| plan(path));
        let behaviour = planned.unwrap_or(*lock(&self.behaviour));
        Some(match behaviour {
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Status(status) => message(
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                "as configured",
            ),
            Behaviour::Redirect => {
                let mut response = message(StatusCode::FOUND, "elsewhere");
                response
                    .headers_mut()
                    .insert(LOCATION, HeaderValue::from_static("/redirected"));
                response
            }
            Behaviour::Genuine | Behaviour::Once => {
                let is_sent = |key: &str| {
                    let expected = format!("Basic {}", BASE64.encode(format!("{key}:")));
                    let sent = request.headers().get(AUTHORIZATION);
                    sent.is_some_and(|sent| sent.as_bytes() == expected.as_bytes())
                };
                let token = path.strip_prefix("/api/requestvalidation/");
                let is_genuine = |token: &&str| request.method() == Method::GET && token.starts_with(GENUINE);
                match token.filter(is_genuine) {
                    _ if !is_sent(SNIPCART_KEY) && !is_sent(SNIPCART_TEST_KEY) => {
                        message(StatusCode::UNAUTHORIZED, "wrong key")
                    }
                    Some(token) if is_sent(SNIPCART_KEY) && self.validates(token, behaviour) => {
                        json(StatusCode::OK, &json!({ "token": token }))
                    }
                    _ => message(StatusCode::NOT_FOUND, "unknown token"),
                }
            }
        })
    }

    fn validates(&self, token: &str, behaviour: Behaviour) -> bool {
        lock(&self.used).insert(token.to_owned()) || behaviour == Behaviour::Genuine
    }
}
