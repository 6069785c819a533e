//! The list of deliveries, which updates itself.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use futures_util::stream::Stream;
use http::HeaderMap;
use maud::{PreEscaped, html};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::page::Page;
use super::state::{State as View, TOGETHER};

/// The number of rows in the page itself: more than a screen shows.
const FIRST: usize = 100;

/// The outcomes, in the order of the filter.
const OUTCOMES: [&str; 12] = [
    "accepted",
    "reconciled",
    "duplicate",
    "unsupported",
    "quarantined",
    "refused",
    "invalid",
    "misconfigured",
    "unavailable",
    "timed_out",
    "crashed",
    "no_route",
];

/// `GET /`.
pub(super) async fn page(State(view): State<Arc<View>>) -> Page {
    let (rows, change) = view.recorder.rows(0, FIRST);
    let rows = json!({"run": view.recorder.run(), "change": change, "rows": rows});
    // Data, not a script: it only must not close its own element.
    let rows = rows.to_string().replace('<', "\\u003c");
    let content = html! {
        section.picture {
            figure {
                canvas #chart width="600" height="72" role="img" aria-label="Deliveries and latency over the last five minutes" {}
                figcaption #legend {}
            }
        }
        form #filters.filters role="search" {
            select name="provider" aria-label="Provider" {
                option value="" { "all providers" }
                @for provider in view.signer.providers() { option { (provider) } }
            }
            input name="type" list="types" placeholder="type" aria-label="Type" autocomplete="off" spellcheck="false";
            datalist #types {}
            select name="outcome" aria-label="Outcome" {
                option value="" { "all outcomes" }
                @for outcome in OUTCOMES { option value=(outcome) { (outcome.replace('_', " ")) } }
            }
            input name="order" type="search" placeholder="order id or event id  ( / )" aria-label="Order" autocomplete="off" spellcheck="false";
            output #count {}
            button #clear type="button" title="Show all (Esc)" hidden { "clear" }
        }
        div #list.list tabindex="0" role="table" aria-label="Deliveries" {
            div.row.head role="row" {
                @for (class, name) in COLUMNS { span class={ "c-" (class) } role="columnheader" { (name) } }
            }
            div #space.space role="rowgroup" {}
            div #none.empty hidden {
                p #why { "No deliveries yet." }
                p { "Send a sample from " a href="/try" { "Try" } ", or " code { "cargo local send snipcart order-completed" } "." }
            }
        }
        footer.keys { kbd { "j" } kbd { "k" } " move " kbd { "Enter" } " open " kbd { "/" } " order " kbd { "Esc" } " clear " kbd { "g" } " newest" }
        script #rows type="application/json" { (PreEscaped(rows)) }
        noscript { p.empty { "The list needs JavaScript." } }
    };
    Page {
        title: "Deliveries".to_owned(),
        at: "list",
        scripts: &["list.js"],
        content,
    }
}

const COLUMNS: [(&str, &str); 8] = [
    ("at", "time"),
    ("outcome", "outcome"),
    ("provider", "provider"),
    ("shop", "shop"),
    ("type", "type"),
    ("order", "order"),
    ("took", "took"),
    ("state", "state"),
];

/// `GET /deliveries.json`: all rows.
pub(super) async fn rows(State(view): State<Arc<View>>) -> Json<Value> {
    let (rows, change) = view.recorder.rows(0, usize::MAX);
    Json(json!({"run": view.recorder.run(), "change": change, "rows": rows}))
}

/// The change after which a page wants to receive changes.
#[derive(Debug, serde::Deserialize)]
pub(super) struct After {
    /// The id of the run and the number of the change, which are the id of an event.
    after: Option<String>,
}

/// What a page receives.
struct Hearing {
    view: Arc<View>,
    changes: watch::Receiver<u64>,
    status: watch::Receiver<Value>,
    /// The last change that the page has received; `None` if it was in another run.
    after: Option<u64>,
}

/// `GET /live`: events `rows` with changed rows, `status` with counts and faults, and `reload` if the page is outdated.
pub(super) async fn live(State(view): State<Arc<View>>, Query(asked): Query<After>, headers: HeaderMap) -> Response {
    let mut hearing = Hearing {
        changes: view.recorder.changes(),
        status: view.status.subscribe(),
        after: Some(view.recorder.rows(0, 0).1),
        view,
    };
    // A browser that reconnects sends the id of the last event.
    let again = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    if let Some(last) = again.or(asked.after.as_deref()) {
        let known = last
            .rsplit_once('-')
            .filter(|(run, _)| *run == hearing.view.recorder.run());
        hearing.after = known.and_then(|(_, change)| change.parse().ok());
    }
    // The current status is sent at once.
    hearing.changes.mark_changed();
    hearing.status.mark_changed();
    Sse::new(events(hearing))
        .keep_alive(KeepAlive::default())
        .into_response()
}

fn events(hearing: Hearing) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(Some(hearing), |hearing| async move {
        let mut hearing = hearing?;
        let Some(after) = hearing.after else {
            return Some((Ok(Event::default().event("reload").data("")), None));
        };
        let event = tokio::select! {
            biased;
            changed = hearing.status.changed() => {
                changed.ok()?;
                Event::default().event("status").data(hearing.status.borrow_and_update().to_string())
            }
            changed = hearing.changes.changed() => {
                changed.ok()?;
                tokio::time::sleep(TOGETHER).await;
                hearing.changes.mark_unchanged();
                let (rows, change) = hearing.view.recorder.rows(after, usize::MAX);
                hearing.after = Some(change);
                let id = format!("{}-{change}", hearing.view.recorder.run());
                Event::default().event("rows").id(id).data(json!({ "rows": rows }).to_string())
            }
        };
        Some((Ok(event), Some(hearing)))
    })
}
