//! What a provider is told. The operator is told more, in the log: the two messages are kept apart.

use lambda_http::http::{Method, StatusCode, header};
use lambda_http::{Body, Response};
use serde_json::json;

use crate::identity::EventId;

/// How soon a provider should send again after a 503, in seconds.
const RETRY_AFTER: &str = "30";

/// What became of an authentic delivery. It is kept, and answered 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new event, stored; published or waiting in the outbox.
    Accepted,
    /// The same event again.
    Duplicate,
    /// A known event that is no order event.
    Unsupported,
    /// Stored, not understood.
    Quarantined(Reason),
}

impl Outcome {
    /// The word in the answer, and in the log.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Unsupported => "unsupported",
            Self::Quarantined(_) => "quarantined",
        }
    }

    /// The metric that counts it. A conflict is not counted as quarantined: nothing is to be done about one. Nor is a fault of the
    /// code, which is a reason to take back a deployment.
    pub(crate) fn metric(&self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Duplicate => "Duplicates",
            Self::Unsupported => "Unsupported",
            Self::Quarantined(Reason::Conflict) => "Conflicts",
            Self::Quarantined(Reason::MappingFailed) => "MappingFailed",
            Self::Quarantined(_) => "Quarantined",
        }
    }

    pub(crate) fn into_response(self, id: &EventId) -> Response<Body> {
        let mut body = json!({"status": self.as_str(), "event_id": id});
        if let Self::Quarantined(reason) = self {
            body["reason"] = reason.as_str().into();
        }
        response(StatusCode::OK, "application/json", body.to_string())
    }
}

/// Why an authentic delivery is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The body is not JSON.
    NotJson,
    /// The payload does not say which event it is.
    NoDiscriminator,
    /// The payload names an order event that is not known.
    UnknownEvent,
    /// The payload names no order.
    NoOrderId,
    /// The event is known already, with another body.
    Conflict,
    /// Our own code panicked over it.
    MappingFailed,
    /// The body unpacks to more than the limit.
    TooLarge,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NotJson,
        Self::NoDiscriminator,
        Self::UnknownEvent,
        Self::NoOrderId,
        Self::Conflict,
        Self::MappingFailed,
        Self::TooLarge,
    ];

    /// The word in the answer, in the store and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NoDiscriminator => "no_discriminator",
            Self::UnknownEvent => "unknown_event",
            Self::NoOrderId => "no_order_id",
            Self::Conflict => "conflict",
            Self::MappingFailed => "mapping_failed",
            Self::TooLarge => "too_large",
        }
    }

    /// The reason that `word` stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// Why a delivery is not kept. The message is for the operator; the provider is told the status and little else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 405: the route takes other methods.
    #[error("the method is not allowed")]
    MethodNotAllowed(&'static [Method]),
    /// 413: the body is over the limit.
    #[error("the body is over {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// 400: the request cannot be read.
    #[error("{0}")]
    Malformed(&'static str),
    /// 401: not known to come from the provider. The answer is the same for every reason.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// 500: our own configuration or secret is wrong.
    #[error("{0}")]
    Misconfigured(String),
    /// 503: something that is needed cannot be reached; the provider should send again.
    #[error("{0}")]
    Unavailable(String),
}

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Misconfigured(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The word in the log, and at the end of the problem's type.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::TooLarge { .. } => "body_too_large",
            Self::Malformed(_) => "malformed_request",
            Self::Unauthorized(_) => "verification_failed",
            Self::Misconfigured(_) => "misconfigured",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// The metric that counts it.
    pub(crate) fn metric(&self) -> &'static str {
        match self {
            Self::MethodNotAllowed(_) | Self::TooLarge { .. } | Self::Malformed(_) => "Invalid",
            Self::Unauthorized(_) => "Refused",
            Self::Misconfigured(_) => "Misconfigured",
            Self::Unavailable(_) => "Unavailable",
        }
    }

    /// A problem of RFC 9457.
    pub(crate) fn into_response(self, request_id: &str) -> Response<Body> {
        let detail = match &self {
            Self::MethodNotAllowed(methods) => format!("this route takes {}", names(methods)),
            Self::TooLarge { limit } => format!("the body is over the limit of {limit} bytes"),
            Self::Malformed(what) => (*what).to_owned(),
            Self::Unauthorized(_) => "the delivery could not be verified".to_owned(),
            Self::Misconfigured(_) => "the receiver is not set up correctly".to_owned(),
            Self::Unavailable(_) => "the delivery could not be handled now; send it again".to_owned(),
        };
        let status = self.status();
        let body = json!({
            "type": format!("urn:order-webhooks:problem:{}", self.as_str()),
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": detail,
            "request_id": request_id,
        });
        let mut response = response(status, "application/problem+json", body.to_string());
        match &self {
            Self::MethodNotAllowed(methods) => {
                let allow = names(methods).parse().expect("method names are a header value");
                response.headers_mut().insert(header::ALLOW, allow);
            }
            Self::Unavailable(_) => {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER));
            }
            _ => {}
        }
        response
    }
}

fn names(methods: &[Method]) -> String {
    methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let builder = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type);
    builder.body(body.into()).expect("status and header are valid")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::identity::{Identity, Shop};

    fn body(response: &Response<Body>) -> Value {
        serde_json::from_slice(response.body()).expect("JSON")
    }

    #[test]
    fn an_outcome_is_200_and_names_the_event() {
        let id = EventId::new("deeple", &Shop::parse("main").expect("a shop"), &Identity::Body, b"");
        let answer = Outcome::Quarantined(Reason::NoOrderId).into_response(&id);
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(
            body(&answer),
            json!({"status": "quarantined", "event_id": id, "reason": "no_order_id"})
        );
        assert_eq!(
            body(&Outcome::Accepted.into_response(&id)),
            json!({"status": "accepted", "event_id": id})
        );
    }

    #[test]
    fn a_refusal_is_a_problem_that_tells_the_provider_nothing_of_the_reason() {
        for (refusal, status, extra) in [
            (
                Refusal::MethodNotAllowed(&[Method::POST, Method::PUT]),
                405,
                Some(("allow", "POST, PUT")),
            ),
            (Refusal::TooLarge { limit: 5 }, 413, None),
            (Refusal::Malformed("the body cannot be decoded"), 400, None),
            (Refusal::Unauthorized("inside"), 401, None),
            (Refusal::Misconfigured("inside".into()), 500, None),
            (Refusal::Unavailable("inside".into()), 503, Some(("retry-after", "30"))),
        ] {
            let answer = refusal.into_response("request-1");
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            if let Some((name, value)) = extra {
                assert_eq!(answer.headers()[name], value);
            }
            let body = body(&answer);
            assert_eq!(
                (&body["status"], &body["request_id"]),
                (&json!(status), &json!("request-1"))
            );
            assert!(!body.to_string().contains("inside"));
        }
    }

    #[test]
    fn a_reason_is_found_by_its_word() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_word(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::from_word("?"), None);
    }
}
