//! An authentic delivery of any bytes, and what has to hold for whatever comes of it.
//!
//! The fuzz targets take this file as their own, so it needs nothing of the local stack.

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

/// A delivery that counts as verified, whichever provider reads it: none looks at what a proof was found by.
pub fn delivery(method: Method, query: &[(&str, &str)], body: Vec<u8>) -> Verified<Delivery> {
    delivery_with(method, query, &["event"], body)
}

/// The same, for a provider whose event is named by these parameters of the query.
pub fn delivery_with(
    method: Method,
    query: &[(&str, &str)],
    event_parameters: &[&str],
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

/// What has to hold of what a delivery with this body is understood to be.
///
/// # Errors
/// What does not, in words.
pub fn check(body: &[u8], classified: &Classified) -> Result<(), String> {
    if EventId::parse(classified.id.as_str()).is_none() {
        return Err(format!("the event id is {}", classified.id));
    }
    match &classified.classification {
        Classification::Order(event) => check_event(body, event),
        Classification::Quarantined(Reason::Conflict) => Err("a conflict is for the store to find".to_owned()),
        Classification::Quarantined(Reason::MappingFailed) => Err("our code panicked".to_owned()),
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
        return Err("the event is read as another one".to_owned());
    }
    if event.subject != event.data.order.id {
        return Err("the subject is not the order".to_owned());
    }
    if !event.data.assumed.is_empty() {
        let value: Value = serde_json::from_str(&json).map_err(|error| format!("the event cannot be read: {error}"))?;
        let absent = |pointer: &&String| value.pointer(pointer).is_none_or(Value::is_null);
        if let Some(pointer) = event.data.assumed.iter().find(absent) {
            return Err(format!("{pointer} is assumed and not there"));
        }
    }
    // A body with half a surrogate pair is read mended, which this does not do.
    if !event.data.warnings.is_empty()
        && let Ok(payload) = serde_json::from_slice::<Value>(body)
    {
        let unmapped = event.data.unmapped.as_ref();
        let unmapped = unmapped.ok_or("a whole event has its unmapped fields")?.fields();
        let unmapped = Value::from(unmapped.map_err(|error| format!("what is unmapped cannot be read: {error}"))?);
        for pointer in &event.data.warnings {
            let odd = payload.pointer(pointer);
            let odd = odd.ok_or_else(|| format!("{pointer} is warned of and not in the payload"))?;
            if unmapped.pointer(pointer) != Some(odd) {
                return Err(format!("{pointer} is warned of and not kept as it came"));
            }
        }
    }
    if event.data.omitted.is_empty() {
        Ok(())
    } else {
        Err("a stored event is whole".to_owned())
    }
}
