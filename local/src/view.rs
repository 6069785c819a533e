//! The live view: what comes in and what becomes of it, in a browser on this machine.
//!
//! All that comes from a delivery is untrusted. It reaches a page escaped by the templates, or as JSON that a script writes as
//! text; and a content security policy lets no script run but the view's own. Who may ask is decided in `guard.rs`.

mod actions;
mod alerts;
mod connect;
mod delivery;
mod faults;
mod guard;
mod json;
mod list;
mod order;
mod page;
mod signer;
mod words;

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
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::Error;
use crate::client::Client;
use crate::fixture::Catalogue;
use crate::lambda::Functions;
use crate::log::Log;
use crate::recorder::{Open, Recorder};
use crate::server::message;
use crate::store::Clients;
use crate::stored::{self, WORK};
use crate::tap::Tap;
use faults::Faults;
use signer::Signer;

/// What waits to be published is looked after so often.
const TICK: Duration = Duration::from_millis(500);
/// What comes within this time is shown at once.
const TOGETHER: Duration = Duration::from_millis(40);

/// What a page may load and do: its own style and script, and to ask its own server. No text becomes markup in a script either.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    frame-ancestors 'none'; base-uri 'none'; form-action 'self'; trusted-types 'none'; require-trusted-types-for 'script'";

/// What a view needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// What it shows.
    pub recorder: Recorder,
    /// What it can send.
    pub catalogue: Catalogue,
    /// Whose secrets the stack has.
    pub secrets: Secrets,
}

/// Whose secrets the stack has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// The development ones, which are none.
    Development,
    /// Those of a file.
    Given,
}

/// The stack that a view is of.
#[derive(Debug)]
pub struct Stack {
    /// Its functions.
    pub functions: Functions,
    /// Clients for it, past the tap.
    pub clients: Clients,
    /// Its tap.
    pub tap: Tap,
    /// Its secrets by function.
    pub secrets: BTreeMap<String, Value>,
    /// Where its gateway is.
    pub gateway: SocketAddr,
    /// Where only its routes are, if that is served.
    pub tunnel: Option<SocketAddr>,
}

/// The view. Clones are the same one.
#[derive(Debug, Clone)]
pub struct View {
    state: Arc<State>,
    router: Router,
}

#[derive(Debug)]
struct State {
    recorder: Recorder,
    signer: Signer,
    secrets: Secrets,
    client: Client,
    functions: Functions,
    clients: Clients,
    faults: Faults,
    gateway: SocketAddr,
    tunnel: Option<SocketAddr>,
    /// How much waits, and which faults are on.
    status: watch::Sender<Value>,
}

impl View {
    /// A view of `stack`.
    pub fn new(config: Config, stack: Stack) -> Result<Self, Error> {
        let state = Arc::new(State {
            recorder: config.recorder,
            signer: Signer::new(config.catalogue, stack.secrets),
            secrets: config.secrets,
            client: Client::new(&format!("http://{}", stack.gateway))?,
            functions: stack.functions,
            clients: stack.clients,
            faults: Faults::new(stack.tap),
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

    /// Whether a request that no route leads to is the view's: all but what looks like a webhook that went astray.
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
            // No other site learns what was looked at; not "no-referrer", under which a browser hides its origin from us too.
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

    /// Asks the table what became of what came in, as long as this is polled, and says it to `log` and to the pages.
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

impl State {
    async fn look(&self, log: &Log, open: Open) {
        let open = self.recorder.open(open);
        let mut event_ids: Vec<String> = open.iter().filter_map(|(_, event_id)| event_id.clone()).collect();
        event_ids.sort_unstable();
        event_ids.dedup();
        // An unreadable table is asked again at the next tick.
        let Ok(stored) = stored::summaries(&self.clients.dynamodb, &event_ids).await else {
            return;
        };
        for (id, event_id) in open {
            let stored = event_id.and_then(|event_id| stored.get(&event_id).cloned());
            if let Some(delivery) = self.recorder.settle(id, stored) {
                log.delivery(&delivery);
            }
        }
    }

    /// Counts what waits, as long as somebody looks.
    async fn refresh_status(&self) {
        if self.status.receiver_count() == 0 {
            return;
        }
        let Ok(counts) = stored::work(&self.clients.dynamodb).await else {
            return;
        };
        let mut status = json!({"faults": self.faults.on(), "alerts": self.recorder.alerts().count()});
        for (state, count) in WORK.iter().zip(counts) {
            status[*state] = count.into();
        }
        self.status.send_if_modified(|known| {
            let is_new = *known != status;
            *known = status;
            is_new
        });
    }
}

/// Style, scripts and the icon, which are in the binary.
async fn asset(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "view.css" => ("text/css; charset=utf-8", include_str!("view/assets/view.css")),
        "list.js" => ("text/javascript; charset=utf-8", include_str!("view/assets/list.js")),
        "chart.js" => ("text/javascript; charset=utf-8", include_str!("view/assets/chart.js")),
        "live.js" => ("text/javascript; charset=utf-8", include_str!("view/assets/live.js")),
        "alerts.js" => ("text/javascript; charset=utf-8", include_str!("view/assets/alerts.js")),
        "try.js" => ("text/javascript; charset=utf-8", include_str!("view/assets/try.js")),
        "connect.js" => ("text/javascript; charset=utf-8", include_str!("view/assets/connect.js")),
        "icon.svg" => ("image/svg+xml", include_str!("view/assets/icon.svg")),
        _ => return not_found().await,
    };
    // Asked for again each time: the next `cargo local` may have another.
    (
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")],
        text,
    )
        .into_response()
}

/// As the gateway says it.
async fn not_found() -> Response {
    message(StatusCode::NOT_FOUND, "Not Found").map(Body::from)
}

/// A time to the millisecond, in UTC.
fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}
