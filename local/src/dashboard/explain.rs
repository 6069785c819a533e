//! Explains in sentences what happened to a delivery, and what to do about it.

use crate::aws::stored_events::{Item, text};
use crate::recorder::Delivery;
use crate::recorder::outcome::meaning;

/// What happened to a delivery, a sentence each.
pub(super) fn story(delivery: &Delivery, head: Option<&Item>) -> Vec<String> {
    let mut story = vec![meaning(&delivery.outcome, delivery.reason.as_deref())];
    if let Some(cause) = delivery.cause() {
        story.push(format!("The function says: {cause}."));
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
            Some("After a change of the provider's folder, `cargo local reprocess` reads it anew.")
        }
        "refused" if cause.contains("shop is not configured") => {
            Some("The shop in the URL has to be one of the provider's secret.")
        }
        "refused" if cause.contains("timestamp") => {
            Some("The sender's clock, or a repeat that carries its first timestamp: see TIMESTAMP_MAX_AGE_SECONDS.")
        }
        "refused" if cause.contains("signature") => Some(
            "The secret is another one than the provider signs with, or the body was changed on its way, as by a proxy.",
        ),
        "refused" if cause.contains("token") => {
            Some("The URL that the provider has ends with ?token= and the token of the secret; Connect shows it.")
        }
        "misconfigured" if cause.contains("names no shop") => Some(
            "Where `--secrets FILE` is given, the file has to name the provider with a shop; Connect shows which it has.",
        ),
        "no_route" => Some("Routes are /webhooks/PROVIDER/SHOP; Connect shows them."),
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
            Some(format!("It was published{at}."))
        }
        "pending" => {
            let next = text(head, "next_attempt_at").unwrap_or("the next run");
            Some(format!(
                "It waits in the outbox; redrive publishes it, not before {next}.{last}"
            ))
        }
        "failed" => Some(format!(
            "SNS refuses the message for good.{last} `cargo local requeue` gives it another try."
        )),
        "superseded" => Some("It was read anew since, and is stored under another id.".to_owned()),
        "erased" => Some("Its content has been erased on request.".to_owned()),
        _ => None,
    }
}
