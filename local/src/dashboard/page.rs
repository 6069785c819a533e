//! The frame of all pages.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use crate::Error;
use crate::aws::stored_events::Conflict;

/// A page of the dashboard.
pub(super) struct Page {
    /// The title of the page.
    pub(super) title: String,
    /// The entry of the navigation.
    pub(super) at: &'static str,
    /// The scripts of the page, in addition to the common one.
    pub(super) scripts: &'static [&'static str],
    /// The content of the page.
    pub(super) content: Markup,
}

const NAVIGATION: [(&str, &str, &str); 5] = [
    ("/", "Deliveries", "list"),
    ("/alerts", "Alerts", "alerts"),
    ("/reconciliation", "Reconciliation", "reconciliation"),
    ("/try", "Try", "try"),
    ("/connect", "Connect", "connect"),
];

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " · order-webhooks" }
                    link rel="icon" href="/assets/icon.svg";
                    link rel="stylesheet" href="/assets/dashboard.css";
                    script type="module" src="/assets/live.js" {}
                    @for script in self.scripts {
                        script type="module" src={ "/assets/" (script) } {}
                    }
                }
                body data-page=(self.at) {
                    header.top {
                        a.brand href="/" { "order-webhooks" }
                        nav {
                            @for (href, name, at) in NAVIGATION {
                                a href=(href) aria-current=[(at == self.at).then_some("page")] { (name) }
                            }
                        }
                        div.work title="Stored events that need attention" {
                            a href="/try" { b #pending { "–" } " pending" }
                            span { b #failed { "–" } " failed" }
                            span { b #quarantined { "–" } " quarantined" }
                        }
                        span #live.live title="Whether this page receives new deliveries" { "…" }
                    }
                    div #faults.faults hidden {}
                    main { (self.content) }
                }
            }
        };
        (StatusCode::OK, axum::response::Html(page.into_string())).into_response()
    }
}

/// A page that says why there is nothing to show.
pub(super) fn absent(what: &str) -> Response {
    let page = Page {
        title: "Not found".to_owned(),
        at: "",
        scripts: &[],
        content: html! { section.empty { h1 { "Not found" } p { (what) } p { a href="/" { "All deliveries" } } } },
    };
    (StatusCode::NOT_FOUND, page).into_response()
}

/// A page that shows an error.
pub(super) fn failed(error: &Error) -> Response {
    let page = Page {
        title: "Failed".to_owned(),
        at: "",
        scripts: &[],
        content: html! { section.empty { h1 { "Error" } p { (error) } } },
    };
    (StatusCode::INTERNAL_SERVER_ERROR, page).into_response()
}

/// An outcome or a state as a coloured word.
pub(super) fn word(word: &str) -> Markup {
    html! { span class={ "word " (word) } { (word.replace('_', " ")) } }
}

/// A list of conflicts.
pub(super) fn list_of_conflicts(conflicts: &[Conflict]) -> Markup {
    html! {
        @if !conflicts.is_empty() {
            details.conflicts open {
                summary { "Conflicts (" (conflicts.len()) "): other bodies with the id of a stored event" }
                ul {
                    @for conflict in conflicts {
                        li {
                            time datetime=(conflict.received_at) { (conflict.received_at) }
                            @if let Some(bytes) = conflict.bytes { ", " (bytes) " bytes" }
                            p { "event " code { (conflict.event_id) } }
                            p { "body " code { (conflict.payload_sha256) } }
                            @match &conflict.published_as {
                                Some(event_id) => p { "published as " code { (event_id) } },
                                None => p.hint {
                                    "cargo local publish-conflict " (conflict.event_id) " " (conflict.payload_sha256)
                                },
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A time in UTC with milliseconds.
pub(super) fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}
