//! The page with the alerts that redrive has published.

use std::sync::Arc;

use axum::extract::State;
use maud::html;

use super::page::{Page, time, word};
use super::state::State as View;

/// `GET /alerts`.
pub(super) async fn page(State(view): State<Arc<View>>) -> Page {
    let alerts = view.recorder.alerts().newest_first();
    let content = html! {
        div.alerts data-count=(view.recorder.alerts().count()) {
            @if alerts.is_empty() {
                section.empty {
                    p { "There are no alerts. Redrive looks for new faults once a minute." }
                    p { "To see an alert, send a delivery that is not understood: " code { "cargo local send selldone unknown-action" } }
                }
            }
            @for (index, alert) in alerts.iter().enumerate() {
                details open[index == 0] {
                    summary {
                        time datetime=(time(alert.at)) { (time(alert.at)) } " "
                        (word(if alert.said("status") == "over" { "over" } else { alert.said("kind") })) " "
                        (alert.subject)
                    }
                    pre.text { (alert.text) }
                }
            }
        }
    };
    Page {
        title: "Alerts".to_owned(),
        at: "alerts",
        scripts: &["alerts.js"],
        content,
    }
}
