//! Explains in sentences what happened to a delivery, and what to do about it.

use crate::aws::stored_events::{Item, text};
use crate::recorder::Delivery;
use crate::recorder::outcome::meaning;

/// What happened to a delivery, a sentence each.
pub(super) fn story(delivery: &Delivery, head: Option<&Item>) -> Vec<String> {
    let mut story = vec![meaning(&delivery.outcome, delivery.reason.as_deref())];
    if let Some(cause) = delivery.cause() {
        story.push(format!("The function logged: {cause}."));
    }
    if let Some(advice) = advice(delivery) {
        story.push(advice.to_owned());
    }
    story.extend(head.and_then(standing));
    story
}

fn advice(delivery: &Delivery) -> Option<&'static str> {
    let cause = delivery.cause().unwrap_or_default();
    match delivery.outcome.as_str() {
        "quarantined" if delivery.reason.as_deref() != Some("conflict") => {
            Some("Once the mapping is fixed, `cargo local reprocess` reads the delivery again.")
        }
        "refused" if cause.contains("shop is not configured") => {
            Some("The provider's secret must contain the shop of the URL.")
        }
        "refused" if cause.contains("timestamp") => Some(
            "The clock of the sender is wrong, or a repeat carries the first timestamp: see TIMESTAMP_MAX_AGE_SECONDS.",
        ),
        "refused" if cause.contains("signature") => {
            Some("The provider signs with another secret, or the body was changed on its way, for example by a proxy.")
        }
        "refused" if cause.contains("token") => {
            Some("The URL at the provider must end with ?token= and the token of the secret; see Connect.")
        }
        "misconfigured" if cause.contains("names no shop") => {
            Some("The file of `--secrets FILE` must contain the provider with a shop; Connect shows which it contains.")
        }
        "no_route" => Some("Routes have the form /webhooks/PROVIDER/SHOP; Connect lists them."),
        _ => None,
    }
}

/// The current state of the event.
fn standing(head: &Item) -> Option<String> {
    let last = text(head, "last_error")
        .map(|error| format!(" SNS said: {error}."))
        .unwrap_or_default();
    match text(head, "state")? {
        "published" => {
            let at = text(head, "published_at")
                .map(|at| format!(" at {at}"))
                .unwrap_or_default();
            Some(format!("The event was published{at}."))
        }
        "pending" => {
            let next = text(head, "next_attempt_at").unwrap_or("the next run");
            Some(format!(
                "The event is in the outbox; redrive publishes it at {next} or later.{last}"
            ))
        }
        "failed" => Some(format!(
            "SNS rejects the message permanently.{last} `cargo local requeue` retries it."
        )),
        "superseded" => Some("The delivery was read again, and its event is stored under another id.".to_owned()),
        "erased" => Some("The content was erased on request.".to_owned()),
        _ => None,
    }
}
