//! What every page has around it.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{DOCTYPE, Markup, html};

use crate::Error;
use crate::stored::Conflict;

/// A page of the view.
pub(super) struct Page {
    /// What the browser calls it.
    pub(super) title: String,
    /// Which entry of the navigation it is.
    pub(super) at: &'static str,
    /// Its scripts beside the one that all have.
    pub(super) scripts: &'static [&'static str],
    /// What is on it.
    pub(super) content: Markup,
}

const NAVIGATION: [(&str, &str, &str); 4] = [
    ("/", "Deliveries", "list"),
    ("/alerts", "Alerts", "alerts"),
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
                    link rel="stylesheet" href="/assets/view.css";
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
                        div.work title="Events in the table that somebody still has to do something about" {
                            a href="/try" { b #pending { "–" } " pending" }
                            span { b #failed { "–" } " failed" }
                            span { b #quarantined { "–" } " quarantined" }
                        }
                        span #live.live title="Whether this page hears of each delivery" { "…" }
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
        title: "Not here".to_owned(),
        at: "",
        scripts: &[],
        content: html! { section.empty { h1 { "Not here" } p { (what) } p { a href="/" { "All deliveries" } } } },
    };
    (StatusCode::NOT_FOUND, page).into_response()
}

/// An error on a page.
pub(super) fn failed(error: &Error) -> Response {
    let page = Page {
        title: "Failed".to_owned(),
        at: "",
        scripts: &[],
        content: html! { section.empty { h1 { "This does not work" } p { (error) } } },
    };
    (StatusCode::INTERNAL_SERVER_ERROR, page).into_response()
}

/// The coloured word for an outcome or a state.
pub(super) fn word(word: &str) -> Markup {
    html! { span class={ "word " (word) } { (word.replace('_', " ")) } }
}

/// Other bodies that came under the ids of known events.
pub(super) fn list_of_conflicts(conflicts: &[Conflict]) -> Markup {
    html! {
        @if !conflicts.is_empty() {
            details.conflicts open {
                summary { "Conflicts (" (conflicts.len()) "): other bodies under the id of a known event" }
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
