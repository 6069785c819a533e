//! The page of an order: its events in order, and what each of them changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::Value;

use super::json::visible;
use super::page::{Page, absent, failed, list_of_conflicts, word};
use super::state::State as View;
use crate::Error;
use crate::aws::stored_events::{self, Conflict, text};
use crate::recorder::Delivery;
use crate::recorder::outcome::RECONCILED;

/// The limit for the events on a page.
const EVENTS: usize = 500;

/// The facts of the timeline: the name, the pointer in the event, and how the value is shown.
const FOLLOWED: [(&str, &str, Look); 8] = [
    ("status", "/data/order/status", Look::Word),
    ("payment", "/data/order/payment_status", Look::Word),
    ("tracking", "/data/order/shipping/tracking_number", Look::Text),
    ("carrier", "/data/order/shipping/carrier", Look::Text),
    ("total", "/data/order/totals/total", Look::Text),
    ("items", "/data/order/items", Look::Count),
    ("refund", "/data/refund/amount", Look::Text),
    ("note", "/data/order/note", Look::Text),
];

/// How a value is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Word,
    Text,
    Count,
}

/// The order that is requested.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Asked {
    provider: String,
    shop: String,
    id: String,
}

/// An event of the order.
struct Step {
    event: Value,
    state: String,
    deliveries: Vec<Delivery>,
    changes: Vec<Change>,
}

struct Change {
    name: &'static str,
    look: Look,
    from: Option<String>,
    to: String,
}

/// A delivery that names the order and has no event: quarantined or dismissed.
struct WithoutEvent {
    event_id: String,
    state: String,
    reason: String,
    received_at: String,
}

/// What the table holds about an order.
struct Found {
    steps: Vec<Step>,
    without_event: Vec<WithoutEvent>,
    conflicts: Vec<Conflict>,
}

/// `GET /order?provider=...&shop=...&id=...`.
pub(super) async fn page(State(view): State<Arc<View>>, Query(asked): Query<Asked>) -> Response {
    let Found {
        steps,
        without_event,
        conflicts,
    } = match find(&view, &asked).await {
        Ok(found) if found.steps.is_empty() && found.without_event.is_empty() && found.conflicts.is_empty() => {
            return absent("There are no events of this order.");
        }
        Ok(found) => found,
        Err(error) => return failed(&error),
    };
    let content = html! {
        article.order {
            header.summary {
                h1 { "Order " bdi { (visible(&asked.id)) } " " small { (asked.provider) " / " bdi { (visible(&asked.shop)) } } }
                (now(&steps))
            }
            ol.timeline { @for step in &steps { (event(step)) } }
            (list_without_event(&without_event))
            (list_of_conflicts(&conflicts))
        }
    };
    Page {
        title: format!("Order {}", asked.id),
        at: "order",
        scripts: &[],
        content,
    }
    .into_response()
}

fn list_without_event(deliveries: &[WithoutEvent]) -> Markup {
    html! {
        @if !deliveries.is_empty() {
            details.conflicts open {
                summary { "Not understood (" (deliveries.len()) "): deliveries that name the order and have no event" }
                ul {
                    @for delivery in deliveries {
                        li {
                            time datetime=(delivery.received_at) { (delivery.received_at) }
                            ", " (delivery.state) " " (delivery.reason)
                            p { "event " code { (delivery.event_id) } }
                        }
                    }
                }
            }
        }
    }
}

async fn find(view: &View, asked: &Asked) -> Result<Found, Error> {
    let client = &view.clients.dynamodb;
    let (mut steps, mut without_event) = (Vec::new(), Vec::new());
    let ids = stored_events::order(client, &asked.provider, &asked.shop, &asked.id).await?;
    let ids: Vec<String> = ids.into_iter().take(EVENTS).collect();
    let order = (asked.provider.as_str(), asked.shop.as_str(), asked.id.as_str());
    let conflicts = stored_events::conflicts(client, &ids, Some(order)).await?;
    for id in &ids {
        let Some(stored) = stored_events::event(client, id).await? else {
            continue;
        };
        let said = |name: &str| text(&stored.head, name).unwrap_or_default().to_owned();
        let Some(event) = stored.event.and_then(|event| serde_json::from_str(&event).ok()) else {
            without_event.push(WithoutEvent {
                event_id: id.clone(),
                state: said("state"),
                reason: said("reason"),
                received_at: said("received_at"),
            });
            continue;
        };
        steps.push(Step {
            event,
            state: text(&stored.head, "state").unwrap_or_default().to_owned(),
            deliveries: view.recorder.deliveries_of(id),
            changes: Vec::new(),
        });
    }
    // In the order in which a consumer reads them, which is not that of their arrival.
    steps.sort_by_cached_key(|step| {
        let time = |pointer: &str| step.event.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let happened = time("/time");
        (time("/data/order/updated_at").or_else(|| happened.clone()), happened)
    });
    let mut known = BTreeMap::new();
    for step in &mut steps {
        for (name, pointer, look) in FOLLOWED {
            // Null means "not said": an earlier value stays.
            let Some(to) = value(&step.event, pointer, look) else {
                continue;
            };
            let from = known.insert(name, to.clone());
            if from.as_ref() != Some(&to) {
                step.changes.push(Change { name, look, from, to });
            }
        }
    }
    Ok(Found {
        steps,
        without_event,
        conflicts,
    })
}

fn value(event: &Value, pointer: &str, look: Look) -> Option<String> {
    let value = event.pointer(pointer)?;
    match (look, value) {
        (Look::Count, Value::Array(items)) if !items.is_empty() => Some(items.len().to_string()),
        (Look::Count, _) | (_, Value::Null) => None,
        (_, Value::String(text)) => Some(text.clone()),
        (_, other) => Some(other.to_string()),
    }
}

/// The current state of the order: the last value of each fact.
fn now(steps: &[Step]) -> Markup {
    let mut facts = BTreeMap::new();
    for change in steps.iter().flat_map(|step| &step.changes) {
        facts.insert(change.name, change);
    }
    let currency = steps
        .iter()
        .rev()
        .find_map(|step| step.event["data"]["order"]["currency"].as_str());
    html! {
        p.facts {
            @for (name, _, _) in FOLLOWED {
                @if let Some(change) = facts.get(name) {
                    span {
                        b { (name) } (shown(change.look, &change.to))
                        @if let Some(currency) = currency.filter(|_| name == "total") { " " (currency) }
                    }
                }
            }
            span { b { "events" } (steps.len()) }
        }
    }
}

fn event(step: &Step) -> Markup {
    let text = |pointer: &str| step.event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    html! {
        li {
            div.when { time datetime=(text("/time")) { (text("/time").replace('T', " ").trim_end_matches('Z')) } }
            div.what {
                p {
                    b { (text("/type")) } " "
                    span.hint { (visible(text("/data/provider_event"))) }
                    @if step.event["data"]["origin"] == "reconciliation" { (word(RECONCILED)) " " }
                    @if step.event["data"]["partial"] == true { " " span.partial title="null means “not said”" { "partial" } }
                    @if step.state != "published" { " " (word(&step.state)) }
                }
                @if !step.changes.is_empty() {
                    ul.changes {
                        @for change in &step.changes {
                            li class=(change.name) {
                                b { (change.name) } " "
                                @if let Some(from) = &change.from { s { (visible(from)) } " → " }
                                (shown(change.look, &change.to))
                            }
                        }
                    }
                }
                p.hint {
                    @for (index, delivery) in step.deliveries.iter().rev().enumerate() {
                        @if index > 0 { ", " }
                        a href={ "/deliveries/" (delivery.id) } { "delivery " (delivery.id) } " " (delivery.outcome)
                    }
                    @if step.deliveries.is_empty() { "its delivery is no longer recorded" }
                }
            }
        }
    }
}

fn shown(look: Look, value: &str) -> Markup {
    match look {
        // Values of the schema, not of a provider.
        Look::Word if value.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') => word(value),
        _ => html! { bdi.value { (visible(value)) } },
    }
}
