//! A recorded delivery.

use http::HeaderMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::recorder::outcome::RECONCILED;
use crate::recorder::redaction::Redactor;

/// The number of recorded bytes of a body.
const BODY: usize = 512 * 1024;
/// The number of recorded bytes of an answer or a log line.
const LINE: usize = 16 * 1024;

/// The body of a delivery, as far as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "kept", rename_all = "snake_case")]
pub enum Body {
    /// The complete body.
    Whole {
        /// The text.
        text: String,
    },
    /// The beginning of the body, or the body without the secrets that were in it.
    Changed {
        /// The text.
        text: String,
        /// The number of bytes that were received.
        bytes: usize,
    },
    /// The body is not text.
    Binary {
        /// The number of bytes that were received.
        bytes: usize,
    },
    /// The body was dropped to make room for newer ones.
    Dropped {
        /// The number of bytes that were received.
        bytes: usize,
    },
}

impl Body {
    pub(super) fn of(body: &[u8], redactor: &Redactor) -> Self {
        let bytes = body.len();
        let kept = &body[..bytes.min(BODY)];
        let text = match std::str::from_utf8(kept) {
            Ok(text) => text,
            // The cut may be within a character.
            Err(error) if bytes > BODY && error.valid_up_to() + 4 > kept.len() => {
                std::str::from_utf8(&kept[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => return Self::Binary { bytes },
        };
        let masked = redactor.text(text);
        if masked.len() == bytes && masked.as_bytes() == body {
            Self::Whole { text: masked }
        } else {
            Self::Changed { text: masked, bytes }
        }
    }

    /// The number of bytes that were received.
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

/// What the table says about the event of a delivery.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Stored {
    /// The type of the event, such as `order.created`.
    pub r#type: Option<String>,
    /// The id of the order.
    pub order: Option<String>,
    /// The state of the event, such as `published`.
    pub state: String,
    /// The number of attempts to publish the event.
    pub attempts: u64,
}

/// A delivery and what happened to it. It holds no secrets, but all of it is untrusted text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    /// The number of the delivery, from 1.
    pub id: u64,
    /// When the delivery arrived.
    pub at: Timestamp,
    /// The HTTP method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The parameters of the query.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
    /// The provider of the route.
    pub provider: Option<String>,
    /// The shop in the path.
    pub shop: Option<String>,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The body of the answer.
    pub answer: String,
    /// The time until the answer, in microseconds.
    pub micros: u64,
    /// The outcome in a word, such as `accepted`.
    pub outcome: String,
    /// Why the delivery is quarantined, such as `not_json`.
    pub reason: Option<String>,
    /// The id of the event.
    pub event_id: Option<String>,
    /// The log lines of the function.
    pub log: Vec<String>,
    /// What the table says about the event.
    pub stored: Option<Stored>,
    /// Whether the delivery was reported on the terminal and in the file.
    #[serde(skip)]
    pub said: bool,
    /// The number of the last change of the delivery.
    #[serde(skip)]
    pub changed: u64,
}

impl Delivery {
    /// An event that reconciliation stored, for which there was no request.
    pub(super) fn reconciled(id: u64, event: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(cut);
        Self {
            id,
            at: Timestamp::now(),
            method: String::new(),
            path: String::new(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::Whole { text: String::new() },
            provider: text(&event["data"]["provider"]),
            shop: text(&event["data"]["shop"]),
            status: 0,
            answer: String::new(),
            micros: 0,
            outcome: RECONCILED.to_owned(),
            reason: None,
            event_id: text(&event["id"]),
            log: Vec::new(),
            stored: None,
            said: false,
            changed: 0,
        }
    }

    /// Whether the delivery was a request, and not found by reconciliation.
    pub fn is_request(&self) -> bool {
        self.outcome != RECONCILED
    }

    /// The row of the list.
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

    /// Why the delivery was refused, as the function logs it.
    pub fn cause(&self) -> Option<String> {
        let lines = self.log.iter().rev();
        lines
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|line| line["cause"].as_str().map(str::to_owned))
    }
}

pub(super) fn headers(headers: &HeaderMap, redactor: &Redactor) -> Vec<(String, String)> {
    let headers = headers.iter().map(|(name, value)| {
        let value = redactor.named(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_cut_and_masked() {
        let redactor = Redactor::new(&[json!({"shops": {"main": {"tokens": ["a-long-random-token"]}}})]);
        let complete = Body::of("{\"é\":1}".as_bytes(), &redactor);
        assert_eq!(
            complete,
            Body::Whole {
                text: "{\"é\":1}".to_owned()
            }
        );
        let secret = Body::of(b"x a-long-random-token", &redactor);
        assert_eq!(
            secret,
            Body::Changed {
                text: "x ••••••".to_owned(),
                bytes: 21
            }
        );
        assert_eq!(Body::of(b"\xff", &redactor), Body::Binary { bytes: 1 });
        // The cut is within a character.
        let large = format!("x{}", "é".repeat(BODY));
        let Body::Changed { text, bytes } = Body::of(large.as_bytes(), &redactor) else {
            panic!("it is too long");
        };
        assert_eq!((text.len(), bytes), (BODY - 1, large.len()));
    }
}
