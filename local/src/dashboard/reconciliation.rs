//! The page with the last run of reconcile for each shop, and the subscriptions that it has made.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::Value;

use super::json::visible;
use super::page::{Page, failed, word};
use super::state::State as View;
use crate::aws::stored_events::{Item, text};

/// The counts of a run, as the table holds them.
const COUNTS: [&str; 6] = ["compared", "missing", "newer", "unreadable", "accepted", "duplicates"];

/// `GET /reconciliation`.
pub(super) async fn page(State(view): State<Arc<View>>) -> Response {
    let runs = match view.clients.reconciliations().await {
        Ok(runs) => runs,
        Err(error) => return failed(&error),
    };
    let subscriptions = match view.clients.subscriptions().await {
        Ok(subscriptions) => subscriptions,
        Err(error) => return failed(&error),
    };
    let content = html! {
        div.reconciliation {
            section {
                @if runs.is_empty() {
                    div.empty {
                        p { "Reconcile has not run yet. It compares the orders that a provider's API lists with the stored events." }
                        p { "To see what it does: " code { "cargo local send selldone checkout-order --fresh --lost; cargo local reconcile selldone main --from 2024-09-01T00:00:00Z" } }
                    }
                } @else {
                    table.headers {
                        thead { tr { th { "shop" } th { "last complete run" } @for name in COUNTS { th { (name) } } th { "failing since" } } }
                        tbody { @for run in &runs { (row(run)) } }
                    }
                }
            }
            section {
                h2 { "Subscriptions" }
                @if subscriptions.is_empty() {
                    div.empty {
                        p { "No shop is connected. To subscribe to the order events of a shop: " code { "cargo local connect cartum main" } }
                    }
                } @else {
                    table.headers {
                        thead { tr { th { "shop" } th { "event" } th { "subscribed" } th { "ended" } th { "finding" } } }
                        tbody { @for subscription in &subscriptions { (subscribed(subscription)) } }
                    }
                }
            }
        }
    };
    Page {
        title: "Reconciliation".to_owned(),
        at: "reconciliation",
        scripts: &[],
        content,
    }
    .into_response()
}

fn row(run: &Item) -> Markup {
    let said = |name: &str| text(run, name).unwrap_or_default();
    let counts: Value = serde_json::from_str(said("last_counts")).unwrap_or_default();
    html! {
        tr {
            td { (visible(&said("sk").replace('#', " / "))) }
            td { (visible(said("last_complete_at"))) }
            @for name in COUNTS { td { @if let Some(count) = counts[name].as_u64() { (count) } } }
            td {
                @if let Some(since) = text(run, "failing_since") {
                    (word("unavailable")) " " (visible(since)) " " (visible(said("last_cause")))
                }
            }
        }
    }
}

/// A subscription: its event, since when it exists, when it ended, and what the last run has found to be wrong. Its URL is
/// not shown, because it has a token.
fn subscribed(subscription: &Item) -> Markup {
    let said = |name: &str| text(subscription, name).unwrap_or_default();
    let (shop, event) = said("sk").rsplit_once('#').unwrap_or_default();
    let ended = text(subscription, "ended_at");
    html! {
        tr {
            td { (visible(&shop.replace('#', " / "))) }
            td { (visible(event)) }
            td {
                @if ended.is_none() && text(subscription, "subscription_id").is_none() {
                    (word("unclear")) " " (visible(said("noted_at")))
                } @else {
                    (visible(said("subscribed_at")))
                }
            }
            td { @if let Some(ended) = ended { (word("ended")) " " (visible(ended)) } }
            td { (visible(said("finding"))) }
        }
    }
}
