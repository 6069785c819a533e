//! The page of an order: its state, its events in order, and what each of them changed.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::Value;
use shared::order_state::{History, OrderState};

use super::json::{self, Remarks, visible};
use super::page::{Page, absent, failed, list_of_conflicts, word};
use super::state::State as View;
use crate::Error;
use crate::aws::stored_events::{self, Conflict, text};
use crate::recorder::Delivery;
use crate::recorder::outcome::RECONCILED;

/// The limit for the events on a page.
const EVENTS: usize = 500;

/// The limit for the events whose changes are shown: for each of them, all events up to it are folded.
const CHANGES: usize = 100;

/// The facts of the timeline: the name, the pointer in the state, and how the value is shown.
const FOLLOWED: [(&str, &str, Look); 8] = [
    ("status", "/order/status", Look::Word),
    ("payment", "/order/payment_status", Look::Word),
    ("tracking", "/order/shipping/tracking_number", Look::Text),
    ("carrier", "/order/shipping/carrier", Look::Text),
    ("total", "/order/totals/total", Look::Text),
    ("items", "/order/items", Look::Count),
    ("refunds", "/refunds", Look::Count),
    ("note", "/order/note", Look::Text),
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
    /// The state as JSON; null if there is no event.
    state: Value,
    /// The events in the order of the state.
    steps: Vec<Step>,
    without_event: Vec<WithoutEvent>,
    conflicts: Vec<Conflict>,
}

/// `GET /order?provider=...&shop=...&id=...`.
pub(super) async fn page(State(view): State<Arc<View>>, Query(asked): Query<Asked>) -> Response {
    let Found {
        state,
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
                (now(&state, steps.len()))
            }
            ol.timeline { @for step in &steps { (event(step)) } }
            @if !steps.is_empty() {
                details {
                    summary { "State of the order, folded from these events" }
                    (json::shown(&state.to_string(), &Remarks::new()))
                }
            }
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
    let mut history = History::default();
    for id in &ids {
        let Some(stored) = stored_events::event(client, id).await? else {
            continue;
        };
        let said = |name: &str| text(&stored.head, name).unwrap_or_default().to_owned();
        let event = stored
            .event
            .as_deref()
            .and_then(|event| serde_json::from_str(event).ok());
        let Some(event) = event.filter(|event: &Value| history.add_value(event.clone()).is_ok()) else {
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
            state: said("state"),
            deliveries: view.recorder.deliveries_of(id),
            changes: Vec::new(),
        });
    }
    let state = the_state(&history);
    if let Some(state) = &state {
        // In the order in which a consumer reads them, which is not that of their arrival.
        steps.sort_by_key(|step| {
            state
                .events
                .iter()
                .position(|event| step.event["id"] == event.id.as_str())
        });
    }
    if steps.len() <= CHANGES {
        note_changes(&mut steps);
    }
    Ok(Found {
        state: as_json(state.as_ref()),
        steps,
        without_event,
        conflicts,
    })
}

/// The state of the order of which all these events are.
fn the_state(history: &History) -> Option<OrderState> {
    history.states().into_values().next()
}

fn as_json(state: Option<&OrderState>) -> Value {
    serde_json::to_value(state).expect("a state has string keys")
}

/// Notes which facts of the state each event changes, given the events before it.
fn note_changes(steps: &mut [Step]) {
    let (mut history, mut before) = (History::default(), Value::Null);
    for step in steps {
        history.add_value(step.event.clone()).expect("added before");
        let after = as_json(the_state(&history).as_ref());
        for (name, pointer, look) in FOLLOWED {
            let (from, to) = (value(&before, pointer, look), value(&after, pointer, look));
            if let Some(to) = to.filter(|to| from.as_ref() != Some(to)) {
                step.changes.push(Change { name, look, from, to });
            }
        }
        before = after;
    }
}

/// The value of a fact, as it is shown.
fn value(state: &Value, pointer: &str, look: Look) -> Option<String> {
    let value = state.pointer(pointer)?;
    match (look, value) {
        (Look::Count, Value::Array(items)) if !items.is_empty() => Some(items.len().to_string()),
        (Look::Count, _) | (_, Value::Null) => None,
        (_, Value::String(text)) => Some(text.clone()),
        (_, other) => Some(other.to_string()),
    }
}

/// The most important facts of the state.
fn now(state: &Value, events: usize) -> Markup {
    let currency = state.pointer("/order/currency").and_then(Value::as_str);
    html! {
        p.facts {
            @for (name, pointer, look) in FOLLOWED {
                @if let Some(value) = value(state, pointer, look) {
                    span title=[stated_by(state, pointer)] {
                        b { (name) } (shown(look, &value))
                        @if let Some(currency) = currency.filter(|_| name == "total") { " " (currency) }
                    }
                }
            }
            @if state["test"] == true { span { b { "test order" } } }
            span { b { "events" } (events) }
        }
    }
}

/// Names the event that states a fact.
fn stated_by(state: &Value, pointer: &str) -> Option<String> {
    let id = state["stated_by"][pointer].as_str()?;
    Some(format!("stated by event {id}"))
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
