//! The outcome of a delivery, in a word and in a sentence.

use crate::project::answer::Answer;

/// The outcome of an event that reconciliation stored, for which there was no request.
pub const RECONCILED: &str = "reconciled";

/// The outcome of a delivery in a word, from its answer.
pub fn outcome(answer: &Answer) -> &str {
    match (answer.outcome.as_deref(), answer.problem.as_deref(), answer.status) {
        (Some(outcome), _, 200) => outcome,
        (_, Some("verification_failed"), _) => "refused",
        (_, Some("method_not_allowed" | "body_too_large" | "malformed_request"), _) | (_, _, 413) => "invalid",
        (_, Some(problem @ ("misconfigured" | "unavailable")), _) => problem,
        (_, None, 404) => "no_route",
        (_, None, 503) => "timed_out",
        _ => "crashed",
    }
}

/// What an outcome means, in a sentence. `reason` is why a delivery is quarantined.
pub fn meaning(outcome: &str, reason: Option<&str>) -> String {
    match outcome {
        "accepted" => "The event is new. It was verified, stored and normalized.",
        RECONCILED => {
            "No webhook has announced this state of the order. Reconciliation found it through the provider's order API."
        }
        "duplicate" => "The event was stored before. Nothing was stored or published again.",
        "unsupported" => "The delivery is authentic and stored, but it is not an order event, so nothing is published.",
        "quarantined" => return quarantined(reason),
        "refused" => "The delivery could not be verified. Nothing was stored, and the provider does not learn why.",
        "invalid" => "The method, the size or the encoding of the request is not accepted. Nothing was stored.",
        "misconfigured" => {
            "The configuration or the secret of the function is wrong. Nothing was stored; the provider retries."
        }
        "unavailable" => "A service that the function needs is unavailable. Nothing was stored; the provider retries.",
        "timed_out" => "The function exceeded its timeout and was killed. The provider retries.",
        "crashed" => "The function crashed or returned no usable answer. The provider retries.",
        "no_route" => "No route matches the path, so the URL that the provider uses is wrong.",
        _ => "Unknown answer.",
    }
    .to_owned()
}

fn quarantined(reason: Option<&str>) -> String {
    let why = match reason {
        Some("not_json") => "the body is not JSON, or it exceeds the limits for nesting and for the number of values",
        Some("no_discriminator") => "the payload does not name its event type",
        Some("unknown_event") => "the payload names an unknown order event",
        Some("no_order_id") => "the payload names no order",
        Some("conflict") => {
            "an event with the same id and another body is stored already; this body is kept in addition"
        }
        Some("too_large") => "the gzip body unpacks to more than the body limit",
        Some("mapping_failed") => "the mapping panicked; the log says where",
        _ => "it was not understood",
    };
    format!("The delivery is authentic and stored as it came, but not published: {why}.")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;

    use super::*;

    #[test]
    fn the_outcome_follows_from_the_answer() {
        for (status, body, word) in [
            (
                200,
                r#"{"status":"quarantined","event_id":"e","reason":"not_json"}"#,
                "quarantined",
            ),
            (
                401,
                r#"{"type":"urn:order-webhooks:problem:verification_failed","status":401}"#,
                "refused",
            ),
            (
                405,
                r#"{"type":"urn:order-webhooks:problem:method_not_allowed","status":405}"#,
                "invalid",
            ),
            (413, r#"{"message":"Request Too Long"}"#, "invalid"),
            (
                500,
                r#"{"type":"urn:order-webhooks:problem:misconfigured","status":500}"#,
                "misconfigured",
            ),
            (
                503,
                r#"{"type":"urn:order-webhooks:problem:unavailable","status":503}"#,
                "unavailable",
            ),
            (503, r#"{"message":"Service Unavailable"}"#, "timed_out"),
            (500, r#"{"message":"Internal Server Error"}"#, "crashed"),
            (404, r#"{"message":"Not Found"}"#, "no_route"),
        ] {
            let mut response = Response::new(Bytes::from_static(body.as_bytes()));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            assert_eq!(outcome(&Answer::read(&response)), word, "{body}");
        }
    }
}
