//! The page of a delivery: the request, the answer, the stored item and the published message.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::Value;

use super::explain::story;
use super::json::{Remark, Remarks, shown, visible};
use super::page::{Page, absent, failed, list_of_conflicts, time, word};
use super::state::State as View;
use crate::aws::stored_events::{self, Event, Item, text};
use crate::recorder::{Body, Delivery, Published};

/// `GET /deliveries/{id}`.
pub(super) async fn page(State(view): State<Arc<View>>, Path(id): Path<String>) -> Response {
    let Some(delivery) = id.parse().ok().and_then(|id| view.recorder.delivery(id)) else {
        return absent("There is no such delivery, or no longer: only the last 10,000 are kept.");
    };
    let event = match &delivery.event_id {
        Some(event_id) => match stored_events::event(&view.clients.dynamodb, event_id).await {
            Ok(event) => event,
            Err(error) => return failed(&error),
        },
        None => None,
    };
    let event_ids: Vec<String> = delivery.event_id.iter().cloned().collect();
    let conflicts = match stored_events::conflicts(&view.clients.dynamodb, &event_ids, None).await {
        Ok(conflicts) => conflicts,
        Err(error) => return failed(&error),
    };
    let event_id = delivery.event_id.as_deref().unwrap_or_default();
    let messages = view.recorder.messages_of(event_id);
    let others = view.recorder.deliveries_of(event_id);
    let content = html! {
        article.delivery {
            (summary(&delivery, event.as_ref()))
            div.sides {
                @if delivery.is_request() {
                    section {
                        h2 { "Request" }
                        (request(&delivery, event.as_ref()))
                    }
                }
                section {
                    h2 { "Event" }
                    (normalized(&delivery, event.as_ref()))
                }
            }
            @if delivery.is_request() { (answer(&delivery)) }
            @if let Some(event) = &event { (item(&event.head)) }
            (published(&messages, event.as_ref()))
            (list_of_conflicts(&conflicts))
            @if others.len() > 1 { (repeats(&others, delivery.id)) }
            @if !delivery.log.is_empty() {
                details {
                    summary { "Log of the function" }
                    @for line in &delivery.log { (shown(line, &Remarks::new())) }
                }
            }
        }
    };
    Page {
        title: format!("Delivery {}", delivery.id),
        at: "delivery",
        scripts: &["try.js"],
        content,
    }
    .into_response()
}

fn summary(delivery: &Delivery, event: Option<&Event>) -> Markup {
    let head = event.map(|event| &event.head);
    let state = head.and_then(|head| text(head, "state"));
    let order = head.and_then(|head| text(head, "order"));
    let is_request = delivery.is_request();
    let is_whole = matches!(delivery.body, Body::Whole { .. }) && delivery.provider.is_some();
    html! {
        header.summary {
            h1 {
                (word(&delivery.outcome))
                @if let Some(reason) = &delivery.reason { " " span.reason { (reason.replace('_', " ")) } }
                @if is_request { " " small { (delivery.status) " in " (took(delivery.micros)) } }
            }
            p.facts {
                @if let Some(provider) = &delivery.provider { span { b { "provider" } (provider) } }
                @if let Some(shop) = &delivery.shop { span { b { "shop" } bdi { (visible(shop)) } } }
                @if let Some(kind) = head.and_then(|head| text(head, "type")) { span { b { "type" } (kind) } }
                @if let (Some(order), Some(provider), Some(shop)) = (order, &delivery.provider, &delivery.shop) {
                    span { b { "order" } a href=(order_link(provider, shop, order)) { bdi { (visible(order)) } } }
                }
                @if let Some(state) = state { span { b { "state" } (word(state)) } }
                @if let Some(stored) = delivery.stored.as_ref().filter(|stored| stored.attempts > 0) {
                    span { b { "attempts" } (stored.attempts) }
                }
                span { b { "received" } time datetime=(time(delivery.at)) { (time(delivery.at)) } }
                @if let Some(event_id) = &delivery.event_id { span.id { b { "event" } code { (event_id) } } }
            }
            div.story { @for sentence in story(delivery, head) { p { (visible(&sentence)) } } }
            p.do {
                @if is_whole && is_request {
                    button type="button" data-do="/do/again" data-id=(delivery.id) title="Sends the same request with a new signature" { "Send again" }
                } @else if is_request {
                    span.hint { "It cannot be sent again, because its body is not recorded completely." }
                }
                output {}
            }
        }
    }
}

fn request(delivery: &Delivery, event: Option<&Event>) -> Markup {
    // `warnings` names a field that could not be read by its place in the request.
    let said: Value = event
        .and_then(|event| serde_json::from_str(event.event.as_deref()?).ok())
        .unwrap_or_default();
    let remarks = pointers(&said["data"]["warnings"], Remark::Warned);
    html! {
        p.line { code { (delivery.method) " " (visible(&delivery.path)) } }
        table.headers {
            tbody {
                @for (name, value) in &delivery.query {
                    tr { th { "?" (visible(name)) } td { (visible(value)) } }
                }
                @for (name, value) in &delivery.headers {
                    tr { th { (visible(name)) } td { (visible(value)) } }
                }
            }
        }
        @match &delivery.body {
            Body::Whole { text } if text.is_empty() => p.hint { "No body." },
            Body::Whole { text } => (shown(text, &remarks)),
            Body::Changed { text, bytes } => {
                p.hint { (bytes) " bytes were received. Only the first are recorded, with secrets masked." }
                (shown(text, &remarks))
            }
            Body::Binary { bytes } => p.hint { (bytes) " bytes that are not text." },
            Body::Dropped { bytes } => p.hint { (bytes) " bytes were received, and dropped to make room for newer ones." },
        }
    }
}

fn normalized(delivery: &Delivery, event: Option<&Event>) -> Markup {
    let Some(json) = event.and_then(|event| event.event.as_deref()) else {
        let why = match delivery.outcome.as_str() {
            "unsupported" => "The delivery is not an order event.",
            "quarantined" => "The delivery was not understood.",
            _ if event.is_some() => "The stored item has no event.",
            _ => "Nothing is stored.",
        };
        return html! { p.hint { (why) } };
    };
    let said: Value = serde_json::from_str(json).unwrap_or_default();
    let mut remarks = pointers(&said["data"]["assumed"], Remark::Assumed);
    remarks.insert("/data/unmapped".to_owned(), Remark::Unmapped);
    let count = |name: &str| said["data"][name].as_array().map_or(0, Vec::len);
    let unmapped = said["data"]["unmapped"].as_object().map_or(0, serde_json::Map::len);
    html! {
        p.line {
            span.assumed { (count("assumed")) " assumed" } " "
            span.warned { (count("warnings")) " warnings" } " "
            span.unmapped { (unmapped) " unmapped" }
            @if said["data"]["partial"] == true { " " span.partial title="null means “not said”" { "partial" } }
        }
        (shown(json, &remarks))
    }
}

fn pointers(list: &Value, remark: Remark) -> Remarks {
    let pointers = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    pointers.map(|pointer| (pointer.to_owned(), remark)).collect()
}

fn answer(delivery: &Delivery) -> Markup {
    html! {
        details open {
            summary { "Answer to the provider" }
            p.line { code { (delivery.status) } }
            (shown(&delivery.answer, &Remarks::new()))
        }
    }
}

fn item(head: &Item) -> Markup {
    let mut names: Vec<&String> = head.keys().collect();
    names.sort();
    html! {
        details {
            summary { "Stored item" }
            table.headers {
                tbody { @for name in names { tr { th { (visible(name)) } td { (visible(&attribute(&head[name]))) } } } }
            }
        }
    }
}

fn attribute(value: &AttributeValue) -> String {
    match value {
        AttributeValue::S(text) | AttributeValue::N(text) => text.clone(),
        AttributeValue::B(bytes) => format!("{} bytes, compressed", bytes.as_ref().len()),
        AttributeValue::Bool(word) => word.to_string(),
        AttributeValue::L(values) => {
            let values: Vec<String> = values.iter().map(attribute).collect();
            format!("[{}]", values.join(", "))
        }
        AttributeValue::M(fields) => {
            let mut fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", attribute(value)))
                .collect();
            fields.sort();
            format!("{{{}}}", fields.join(", "))
        }
        _ => "null".to_owned(),
    }
}

fn published(messages: &[Published], event: Option<&Event>) -> Markup {
    let was = event.and_then(|event| text(&event.head, "state")) == Some("published");
    html! {
        details {
            summary {
                "Published message"
                @if messages.len() > 1 { "s (" (messages.len()) ")" }
                @if messages.is_empty() { ": none" }
            }
            @if messages.is_empty() && was { p.hint { "The event was published, but not in this run of the stack." } }
            @for message in messages {
                p.line { "received by the queue at " time datetime=(time(message.at)) { (time(message.at)) } ", in SNS's envelope" }
                @let envelope: Value = serde_json::from_str(&message.envelope).unwrap_or_default();
                (shown(&envelope["MessageAttributes"].to_string(), &Remarks::new()))
                @match envelope["Message"].as_str() {
                    // The message is usually the event above, which then is not shown twice.
                    Some(text) if event.is_some_and(|event| event.event.as_deref() == Some(text)) => {
                        p.hint { "The message is identical to the event above." }
                    }
                    Some(text) => (shown(text, &Remarks::new())),
                    None => (shown(&message.envelope, &Remarks::new())),
                }
            }
        }
    }
}

fn repeats(others: &[Delivery], this: u64) -> Markup {
    html! {
        details open {
            summary { "Deliveries of this event (" (others.len()) ")" }
            ul.repeats {
                @for other in others {
                    li {
                        @if other.id == this { b { "this one" } } @else { a href={ "/deliveries/" (other.id) } { "delivery " (other.id) } }
                        " " time datetime=(time(other.at)) { (time(other.at)) } " " (word(&other.outcome))
                    }
                }
            }
        }
    }
}

/// The path of the page of an order.
pub(super) fn order_link(provider: &str, shop: &str, order: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("provider", provider), ("shop", shop), ("id", order)])
        .finish();
    format!("/order?{query}")
}

fn took(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        _ => format!("{} ms", micros / 1000),
    }
}
