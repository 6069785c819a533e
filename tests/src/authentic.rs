//! Authentic deliveries with any body, and the invariants of their classification.
//!
//! The fuzz targets include this file, so it does not use the local stack.

use std::collections::HashMap;

use lambda_http::Body;
use lambda_http::http::{HeaderMap, Method};
use serde_json::Value;
use shared::answer::Reason;
use shared::classify::{Classification, Classified};
use shared::delivery::{BodyLimit, Delivery};
use shared::event::OrderEvent;
use shared::http_event::HttpEvent;
use shared::identity::EventId;
use shared::verification::{Verified, url_token};

const TOKEN: &str = "a-token-for-these-tests";

/// A verified delivery for any provider, since the classification does not depend on the kind of the proof.
pub fn delivery(method: Method, query: &[(&str, &str)], body: Vec<u8>) -> Verified<Delivery> {
    delivery_with(method, query, |_| &["event"], body)
}

/// A verified delivery for a provider whose event is named by these query parameters.
pub fn delivery_with(
    method: Method,
    query: &[(&str, &str)],
    event_parameters: fn(&Method) -> &'static [&'static str],
    body: Vec<u8>,
) -> Verified<Delivery> {
    let parameters: HashMap<String, Vec<String>> = query
        .iter()
        .chain(&[("token", TOKEN)])
        .map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]))
        .collect();
    let event = HttpEvent {
        method: Some(method),
        shop: Some("main".to_owned()),
        headers: HeaderMap::new(),
        query: parameters.into(),
        body: Ok(Body::Binary(body)),
        received_at: None,
    };
    let every = &[Method::PUT, Method::POST, Method::DELETE];
    let limit = BodyLimit::new(BodyLimit::DEFAULT);
    let Ok(delivery) = Delivery::read(event, every, event_parameters, limit) else {
        panic!("the body is over the limit")
    };
    let tokens = serde_json::from_str::<Vec<_>>(&format!(r#"["{TOKEN}"]"#)).expect("tokens");
    let proof = url_token(&delivery, &tokens).expect("the token is right");
    Verified::new(delivery, proof)
}

/// Checks the invariants of the classification of a delivery with this body.
///
/// # Errors
/// Describes the invariant that does not hold.
pub fn check(body: &[u8], classified: &Classified) -> Result<(), String> {
    if EventId::parse(classified.id.as_str()).is_none() {
        return Err(format!("the event id is {}", classified.id));
    }
    match &classified.classification {
        Classification::Order(event) => check_event(body, event),
        Classification::Quarantined(Reason::Conflict) => Err("only the store can find a conflict".to_owned()),
        Classification::Quarantined(Reason::MappingFailed) => Err("the mapping panicked".to_owned()),
        Classification::Quarantined(_) | Classification::Unsupported => Ok(()),
    }
}

fn check_event(body: &[u8], event: &OrderEvent) -> Result<(), String> {
    let json = event.to_json();
    if json.contains(['\u{fffe}', '\u{ffff}']) {
        return Err("the event has a character that SQS refuses".to_owned());
    }
    let read: OrderEvent = serde_json::from_str(&json).map_err(|error| format!("the event cannot be read: {error}"))?;
    if read != *event {
        return Err("the event changes when it is read".to_owned());
    }
    if event.subject != event.data.order.id {
        return Err("the subject is not the id of the order".to_owned());
    }
    if !event.data.assumed.is_empty() {
        let value: Value = serde_json::from_str(&json).map_err(|error| format!("the event cannot be read: {error}"))?;
        let absent = |pointer: &&String| value.pointer(pointer).is_none_or(Value::is_null);
        if let Some(pointer) = event.data.assumed.iter().find(absent) {
            return Err(format!("the assumed value {pointer} is not in the event"));
        }
    }
    // The function replaces unpaired surrogates, and `serde_json` does not read such a body.
    if !event.data.warnings.is_empty()
        && let Ok(payload) = serde_json::from_slice::<Value>(body)
    {
        let unmapped = event.data.unmapped.as_ref();
        let unmapped = unmapped.ok_or("a stored event has no unmapped fields")?.fields();
        let unmapped = Value::from(unmapped.map_err(|error| format!("the unmapped fields cannot be read: {error}"))?);
        for pointer in &event.data.warnings {
            let odd = payload.pointer(pointer);
            let odd = odd.ok_or_else(|| format!("the warning {pointer} is not in the payload"))?;
            if unmapped.pointer(pointer) != Some(odd) {
                return Err(format!(
                    "the value of the warning {pointer} is not unchanged in unmapped"
                ));
            }
        }
    }
    if event.data.omitted.is_empty() {
        Ok(())
    } else {
        Err("a stored event omits values".to_owned())
    }
}
