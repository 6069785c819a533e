//! The dashboard: shows deliveries and what happened to them, in a browser on this machine.
//!
//! Everything that comes from a delivery is untrusted. It reaches a page escaped by the templates, or as JSON that a
//! script inserts as text; and a content security policy allows only the dashboard's own scripts. `guard.rs` decides
//! which requests are answered.

mod actions;
mod alerts;
mod connect;
mod delivery;
mod explain;
mod faults;
mod guard;
mod json;
mod list;
mod order;
mod page;
mod reconciliation;
mod signer;
mod state;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::Error;
use crate::aws::clients::Clients;
use crate::aws::faults::FaultInjector;
use crate::lambda::invoke_api::Functions;
use crate::net::client::Client;
use crate::net::server::message;
use crate::providers::order_apis::OrderApis;
use crate::providers::samples::Catalogue;
use crate::recorder::log::Log;
use crate::recorder::{Open, Recorder};
use faults::Faults;
use signer::Signer;
pub use state::Secrets;
use state::{State, TOGETHER};

/// The interval at which unsettled deliveries are looked up.
const TICK: Duration = Duration::from_millis(500);
/// What a page may load: its own styles and scripts, and data of its own server. Scripts cannot turn text into markup
/// either.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    frame-ancestors 'none'; base-uri 'none'; form-action 'self'; trusted-types 'none'; require-trusted-types-for 'script'";

/// The configuration of the dashboard.
#[derive(Debug, Clone)]
pub struct Config {
    /// The recorder of the deliveries.
    pub recorder: Recorder,
    /// The samples that can be sent.
    pub catalogue: Catalogue,
    /// Whose secrets the stack has.
    pub secrets: Secrets,
}

/// The stack that the dashboard belongs to.
#[derive(Debug)]
pub struct Stack {
    /// The functions.
    pub functions: Functions,
    /// Clients that bypass the fault injector.
    pub clients: Clients,
    /// The fault injector.
    pub tap: FaultInjector,
    /// The stand-ins for the order APIs.
    pub orders: OrderApis,
    /// The secrets by function.
    pub secrets: BTreeMap<String, Value>,
    /// The address of the gateway.
    pub gateway: SocketAddr,
    /// The address that serves only the routes, if there is one.
    pub tunnel: Option<SocketAddr>,
}

/// The dashboard. Clones share their state.
#[derive(Debug, Clone)]
pub struct Dashboard {
    state: Arc<State>,
    router: Router,
}

impl Dashboard {
    /// Creates the dashboard of `stack`.
    pub fn new(config: Config, stack: Stack) -> Result<Self, Error> {
        let state = Arc::new(State {
            recorder: config.recorder,
            signer: Signer::new(config.catalogue, stack.secrets),
            secrets: config.secrets,
            client: Client::new(&format!("http://{}", stack.gateway))?,
            functions: stack.functions,
            clients: stack.clients,
            faults: Faults::new(stack.tap, stack.orders),
            gateway: stack.gateway,
            tunnel: stack.tunnel,
            status: watch::channel(Value::Null).0,
        });
        let router = Router::new()
            .route("/", get(list::page))
            .route("/deliveries.json", get(list::rows))
            .route("/live", get(list::live))
            .route("/deliveries/{id}", get(delivery::page))
            .route("/order", get(order::page))
            .route("/try", get(actions::page))
            .route("/alerts", get(alerts::page))
            .route("/reconciliation", get(reconciliation::page))
            .route("/connect", get(connect::page))
            .route("/assets/{name}", get(asset))
            .route("/do/send", post(actions::send))
            .route("/do/again", post(actions::again))
            .route("/do/redrive", post(actions::redrive))
            .route("/do/fault", post(actions::fault))
            .fallback(not_found)
            .with_state(Arc::clone(&state));
        Ok(Self { state, router })
    }

    /// Whether a request without a route is for the dashboard: all except those that look like misdirected webhooks.
    pub fn is_for(request: &Request<Bytes>) -> bool {
        let path = request.uri().path();
        let reads = [Method::GET, Method::HEAD].contains(request.method());
        !path.starts_with("/webhooks") && (reads || path.starts_with("/do/"))
    }

    /// Answers a request.
    pub async fn answer(&self, request: Request<Bytes>) -> Response {
        let mut response = match guard::admit(&request, self.state.gateway.port()) {
            Ok(()) => match self.router.clone().oneshot(request.map(Body::from)).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Err(refusal) => refusal.into_response(),
        };
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // Other sites do not learn which page was open. Not "no-referrer", which would hide the origin from the
            // dashboard too.
            (header::REFERRER_POLICY, "same-origin"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
        response
    }

    /// As long as this is polled, looks up the events of deliveries and reports them to `log` and to the pages.
    pub async fn follow(self, log: Log) {
        let state = &self.state;
        let mut changes = state.recorder.changes();
        let mut looked = Instant::now();
        loop {
            let open = tokio::select! {
                _ = changes.changed() => Open::New,
                () = tokio::time::sleep(TICK) => Open::All,
            };
            tokio::time::sleep(TOGETHER).await;
            changes.mark_unchanged();
            state.look(&log, open).await;
            for alert in state.recorder.alerts().news() {
                log.notice(&alert.line());
            }
            if open == Open::All || looked.elapsed() > TICK {
                looked = Instant::now();
                state.refresh_status().await;
            }
        }
    }
}

/// Styles, scripts and the icon, which are compiled in.
async fn asset(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "dashboard.css" => (
            "text/css; charset=utf-8",
            include_str!("dashboard/assets/dashboard.css"),
        ),
        "list.js" => (
            "text/javascript; charset=utf-8",
            include_str!("dashboard/assets/list.js"),
        ),
        "chart.js" => (
            "text/javascript; charset=utf-8",
            include_str!("dashboard/assets/chart.js"),
        ),
        "live.js" => (
            "text/javascript; charset=utf-8",
            include_str!("dashboard/assets/live.js"),
        ),
        "alerts.js" => (
            "text/javascript; charset=utf-8",
            include_str!("dashboard/assets/alerts.js"),
        ),
        "try.js" => (
            "text/javascript; charset=utf-8",
            include_str!("dashboard/assets/try.js"),
        ),
        "connect.js" => (
            "text/javascript; charset=utf-8",
            include_str!("dashboard/assets/connect.js"),
        ),
        "icon.svg" => ("image/svg+xml", include_str!("dashboard/assets/icon.svg")),
        _ => return not_found().await,
    };
    // The browser revalidates them, because the next `cargo local` may have others.
    (
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")],
        text,
    )
        .into_response()
}

/// The gateway's own answer to an unknown path.
async fn not_found() -> Response {
    message(StatusCode::NOT_FOUND, "Not Found").map(Body::from)
}
