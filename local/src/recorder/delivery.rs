//! One delivery as it is kept.

use http::HeaderMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::project::answer::Answer;
use crate::recorder::redaction::Redactor;

/// How many bytes of a body are kept.
const BODY: usize = 512 * 1024;
/// How many bytes of an answer, or of a line of a log, are kept.
const LINE: usize = 16 * 1024;

/// A delivery's body, as far as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "kept", rename_all = "snake_case")]
pub enum Body {
    /// All of it.
    Whole {
        /// The text.
        text: String,
    },
    /// Its beginning, or all but a secret that was in it.
    Changed {
        /// The text.
        text: String,
        /// How many bytes came.
        bytes: usize,
    },
    /// It is no text.
    Binary {
        /// How many bytes came.
        bytes: usize,
    },
    /// It had to make room for newer ones.
    Dropped {
        /// How many bytes came.
        bytes: usize,
    },
}

impl Body {
    pub(super) fn of(body: &[u8], masking: &Redactor) -> Self {
        let bytes = body.len();
        let kept = &body[..bytes.min(BODY)];
        let text = match std::str::from_utf8(kept) {
            Ok(text) => text,
            // A character may have been cut in two.
            Err(error) if bytes > BODY && error.valid_up_to() + 4 > kept.len() => {
                std::str::from_utf8(&kept[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => return Self::Binary { bytes },
        };
        let masked = masking.text(text);
        if masked.len() == bytes && masked.as_bytes() == body {
            Self::Whole { text: masked }
        } else {
            Self::Changed { text: masked, bytes }
        }
    }

    /// How many bytes came.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Whole { text } => text.len(),
            Self::Changed { bytes, .. } | Self::Binary { bytes } | Self::Dropped { bytes } => *bytes,
        }
    }

    pub(super) fn kept(&self) -> usize {
        match self {
            Self::Whole { text } | Self::Changed { text, .. } => text.len(),
            Self::Binary { .. } | Self::Dropped { .. } => 0,
        }
    }
}

/// What the table says of a delivery's event.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Stored {
    /// The event's type, such as `order.created`.
    pub r#type: Option<String>,
    /// The order's id.
    pub order: Option<String>,
    /// The state, such as `published`.
    pub state: String,
    /// How often it was tried to publish it.
    pub attempts: u64,
}

/// A delivery and what became of it. Nothing secret is in it; all of it is untrusted text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    /// Its number, from 1.
    pub id: u64,
    /// When it came.
    pub at: Timestamp,
    /// The HTTP method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query's parameters.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
    /// The provider whose route it is.
    pub provider: Option<String>,
    /// The shop in the path.
    pub shop: Option<String>,
    /// The answer's HTTP status.
    pub status: u16,
    /// The answer's body.
    pub answer: String,
    /// How long the answer took, in microseconds.
    pub micros: u64,
    /// What became of it, in a word.
    pub outcome: String,
    /// Why it was quarantined, in a word.
    pub reason: Option<String>,
    /// The event's id.
    pub event_id: Option<String>,
    /// What the function wrote meanwhile.
    pub log: Vec<String>,
    /// What the table says of the event.
    pub stored: Option<Stored>,
    /// Whether it was told of already, on the terminal and in the file.
    #[serde(skip)]
    pub said: bool,
    /// The number of the change that it was changed with last.
    #[serde(skip)]
    pub changed: u64,
}

impl Delivery {
    /// What the list shows of it.
    pub fn row(&self) -> Value {
        let stored = self.stored.as_ref();
        json!({
            "id": self.id,
            "at": self.at.as_millisecond(),
            "provider": self.provider,
            "shop": self.shop,
            "outcome": self.outcome,
            "reason": self.reason,
            "status": self.status,
            "micros": self.micros,
            "event_id": self.event_id,
            "type": stored.and_then(|stored| stored.r#type.as_deref()),
            "order": stored.and_then(|stored| stored.order.as_deref()),
            "state": stored.map(|stored| stored.state.as_str()),
            "attempts": stored.map_or(0, |stored| stored.attempts),
        })
    }

    /// Why it was refused, as the function says it to its operator.
    pub fn cause(&self) -> Option<String> {
        let lines = self.log.iter().rev();
        lines
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|line| line["cause"].as_str().map(str::to_owned))
    }
}

pub(super) fn headers(headers: &HeaderMap, masking: &Redactor) -> Vec<(String, String)> {
    let headers = headers.iter().map(|(name, value)| {
        let value = masking.named(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
        (name.to_string(), cut(&value))
    });
    headers.collect()
}

pub(super) fn cut(text: &str) -> String {
    if text.len() <= LINE {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(LINE);
    format!("{}… (cut: {} bytes)", &text[..end], text.len())
}

/// What became of a delivery, in a word.
pub(super) fn outcome(answer: &Answer) -> &str {
    match (answer.outcome.as_deref(), answer.problem.as_deref(), answer.status) {
        (Some(outcome), _, 200) => outcome,
        (_, Some("verification_failed"), _) => "refused",
        (_, Some("method_not_allowed" | "body_too_large" | "malformed_request"), _) | (_, _, 413) => "invalid",
        (_, Some(problem @ ("misconfigured" | "unavailable")), _) => problem,
        (_, None, 404) => "no_route",
        (_, None, 503) => "timed_out",
        _ => "died",
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;

    use super::*;

    #[test]
    fn a_body_is_kept_whole_or_its_beginning_and_never_with_a_secret() {
        let masking = Redactor::new(&[json!({"shops": {"main": {"tokens": ["a-long-random-token"]}}})]);
        let whole = Body::of("{\"é\":1}".as_bytes(), &masking);
        assert_eq!(
            whole,
            Body::Whole {
                text: "{\"é\":1}".to_owned()
            }
        );
        let secret = Body::of(b"x a-long-random-token", &masking);
        assert_eq!(
            secret,
            Body::Changed {
                text: "x ••••••".to_owned(),
                bytes: 21
            }
        );
        assert_eq!(Body::of(b"\xff", &masking), Body::Binary { bytes: 1 });
        // Cut in the middle of a character.
        let large = format!("x{}", "é".repeat(BODY));
        let Body::Changed { text, bytes } = Body::of(large.as_bytes(), &masking) else {
            panic!("it is too long");
        };
        assert_eq!((text.len(), bytes), (BODY - 1, large.len()));
    }

    #[test]
    fn what_became_of_a_delivery_is_what_its_provider_is_told() {
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
            (500, r#"{"message":"Internal Server Error"}"#, "died"),
            (404, r#"{"message":"Not Found"}"#, "no_route"),
        ] {
            let mut response = Response::new(Bytes::from_static(body.as_bytes()));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            assert_eq!(outcome(&Answer::read(&response)), word, "{body}");
        }
    }
}
