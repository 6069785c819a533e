//! What became of a delivery, in words, and what to do about it.

use crate::aws::stored_events::{Item, text};
use crate::recorder::Delivery;

/// What happened.
pub(super) fn story(delivery: &Delivery, head: Option<&Item>) -> Vec<String> {
    let mut story = vec![beginning(delivery)];
    if let Some(cause) = delivery.cause() {
        story.push(format!("The function says: {cause}."));
    }
    if let Some(advice) = advice(delivery) {
        story.push(advice.to_owned());
    }
    story.extend(head.and_then(standing));
    story
}

fn beginning(delivery: &Delivery) -> String {
    match delivery.outcome.as_str() {
        "accepted" => "A new event: verified, stored once, and normalized.",
        "duplicate" => "The same event again. It is stored once, and nothing was published a second time.",
        "unsupported" => {
            "Authentic and kept, but no order event: a known event that has nothing to publish, or a ping."
        }
        "quarantined" => return quarantined(delivery.reason.as_deref()),
        "refused" => {
            "Refused: it could not be verified. Nothing of it was read or stored, and the provider is not told why."
        }
        "invalid" => "Refused before it was verified: the method or the size is not one that this route takes.",
        "misconfigured" => "Our own configuration or secret is wrong. Nothing is stored; the provider sends again.",
        "unavailable" => "Something that is needed was not there. Nothing was acknowledged; the provider sends again.",
        "timed_out" => "The function was killed at its timeout. The provider sends again.",
        "died" => "The function died, or answered nothing that can be used. The provider sends again.",
        "no_route" => "No route leads anywhere from this path: the URL that the provider has is wrong.",
        _ => "The answer is none that this view knows.",
    }
    .to_owned()
}

fn quarantined(reason: Option<&str>) -> String {
    let why = match reason {
        Some("not_json") => "the body is not JSON, or nested deeper, or of more parts, than can be handled",
        Some("no_discriminator") => "the payload does not say which event it is",
        Some("unknown_event") => "the payload names an order event that is not known",
        Some("no_order_id") => "the payload names no order",
        Some("conflict") => {
            "the event is known already, with another body; the first one stays as it is, and this one is kept beside it"
        }
        Some("too_large") => "the body is gzip that unpacks to more than the body limit",
        Some("mapping_failed") => "our own code panicked over it; the log says where",
        _ => "it is not understood",
    };
    format!("Authentic, so it is kept as it came and answered 200, but not published: {why}.")
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

/// Where the event stands now.
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
