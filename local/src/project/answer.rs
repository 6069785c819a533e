//! The answer to a delivery, as `openapi.yaml` describes it.

use bytes::Bytes;
use http::Response;
use serde_json::Value;

/// What an answer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The `status` of an answer 200, such as `accepted`.
    pub outcome: Option<String>,
    /// The id of the event.
    pub event_id: Option<String>,
    /// Why the delivery is quarantined, such as `not_json`.
    pub reason: Option<String>,
    /// The name of the problem of any other answer, such as `verification_failed`.
    pub problem: Option<String>,
    /// The title of the problem, or the message of the gateway.
    pub title: Option<String>,
}

impl Answer {
    /// Reads an answer of a function or of the gateway.
    pub fn read(response: &Response<Bytes>) -> Self {
        let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        Self {
            status: response.status().as_u16(),
            outcome: text("status"),
            event_id: text("event_id"),
            reason: text("reason"),
            problem: text("type").and_then(|name| name.rsplit(':').next().map(str::to_owned)),
            title: text("title").or_else(|| text("message")),
        }
    }

    /// The status and what the answer says in a word or a title, such as `200 accepted`.
    pub fn summary(&self) -> String {
        let text = self.outcome.as_deref().or(self.title.as_deref());
        format!("{} {}", self.status, text.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_outcome_problem_or_message() {
        for (status, body, summary, problem) in [
            (200, r#"{"status":"duplicate","event_id":"e"}"#, "200 duplicate", None),
            (
                401,
                r#"{"type":"urn:order-webhooks:problem:verification_failed","title":"Unauthorized","status":401}"#,
                "401 Unauthorized",
                Some("verification_failed"),
            ),
            (404, r#"{"message":"Not Found"}"#, "404 Not Found", None),
            (502, "<html>", "502 ", None),
        ] {
            let mut response = Response::new(Bytes::from_static(body.as_bytes()));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            let answer = Answer::read(&response);
            assert_eq!(answer.summary(), summary);
            assert_eq!(answer.problem.as_deref(), problem);
        }
    }
}
