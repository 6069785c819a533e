//! The answers to providers: outcomes of stored deliveries, and refusals.
//!
//! A refusal has two audiences. Its message is for the operator and goes to the log; the provider receives the status
//! and a fixed text, which reveal nothing about secrets or configuration.

use lambda_http::http::{Method, StatusCode, header};
use lambda_http::{Body, Response};
use serde_json::json;
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::codes::Code;
use crate::identity::EventId;

/// Seconds after which a provider should repeat a delivery that was answered 503.
const RETRY_AFTER: &str = "30";

/// The outcome of an authentic delivery, which is stored and answered 200.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// The event is new. It is stored, and published or waiting in the outbox.
    Accepted,
    /// The event was stored before.
    Duplicate,
    /// The event is known and is not an order event.
    Unsupported,
    /// The delivery was not understood.
    Quarantined(Reason),
}

impl Outcome {
    /// The `status` in the answer and the `outcome` in the log.
    pub fn as_str(&self) -> &'static str {
        self.into()
    }

    /// The metric that counts the outcome. A conflict does not count as quarantined, because no new mapping resolves
    /// it. Nor does a panic of the mapping, which is a reason to roll a deployment back.
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

/// Why an authentic delivery was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// The body is not JSON.
    NotJson,
    /// The payload does not name its event.
    NoDiscriminator,
    /// The payload names an event that is not known.
    UnknownEvent,
    /// The payload does not identify its order.
    NoOrderId,
    /// The event is already stored with another body.
    Conflict,
    /// The mapping panicked on the payload.
    MappingFailed,
    /// The body unpacks to more than the limit.
    TooLarge,
}

impl Reason {
    /// All reasons.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The `reason` in the answer, in the table and in the log. It is the reason's code too.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The reason that is written as `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        word.parse().ok()
    }
}

/// Why a delivery is not stored. The message is for the operator; the provider receives the status and a fixed text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 405: the route accepts other methods.
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
    /// 401: the delivery could not be verified. The answer is the same for every reason.
    #[error(transparent)]
    Unauthorized(#[from] Unverified),
    /// 500: the configuration or the secret is wrong.
    #[error("{0}")]
    Misconfigured(String),
    /// 503: a service that is needed cannot be used; the provider should repeat the delivery.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a delivery could not be verified. Operators can distinguish the two kinds by their codes and metrics; callers
/// cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// The shop is not configured, or the request carries nothing that looks like the provider's credentials. Every
    /// public address receives such requests.
    #[error("{0}")]
    NoCredentials(&'static str),
    /// The shop is configured and the request carries what looks like the provider's credentials, but they do not pass.
    /// After a failed rotation, every authentic delivery is refused like this.
    #[error("{0}")]
    WrongCredentials(&'static str),
}

impl Refusal {
    /// 401 for [`Unverified::NoCredentials`].
    pub const fn no_credentials(cause: &'static str) -> Self {
        Self::Unauthorized(Unverified::NoCredentials(cause))
    }

    /// 401 for [`Unverified::WrongCredentials`].
    pub const fn wrong_credentials(cause: &'static str) -> Self {
        Self::Unauthorized(Unverified::WrongCredentials(cause))
    }

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

    /// The code in the answer's problem type, and the `outcome` in the log.
    pub fn as_str(&self) -> &'static str {
        let code = match self {
            // Callers must not learn the cause.
            Self::Unauthorized(_) => Code::VerificationFailed,
            other => other.code(),
        };
        code.as_str()
    }

    /// The code in the log.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::MethodNotAllowed(_) => Code::MethodNotAllowed,
            Self::TooLarge { .. } => Code::BodyTooLarge,
            Self::Malformed(_) => Code::MalformedRequest,
            Self::Unauthorized(Unverified::NoCredentials(_)) => Code::NoCredentials,
            Self::Unauthorized(Unverified::WrongCredentials(_)) => Code::WrongCredentials,
            Self::Misconfigured(_) => Code::Misconfigured,
            Self::Unavailable(_) => Code::Unavailable,
        }
    }

    /// The metrics that count the refusal.
    pub(crate) fn metrics(&self) -> &'static [&'static str] {
        match self {
            Self::MethodNotAllowed(_) | Self::TooLarge { .. } | Self::Malformed(_) => &["Invalid"],
            Self::Unauthorized(Unverified::NoCredentials(_)) => &["Refused"],
            Self::Unauthorized(Unverified::WrongCredentials(_)) => &["Refused", "WrongCredentials"],
            Self::Misconfigured(_) => &["Misconfigured"],
            Self::Unavailable(_) => &["Unavailable"],
        }
    }

    /// The answer: a problem of RFC 9457.
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
    use crate::identity::{IdempotencyKey, Shop};

    fn body(response: &Response<Body>) -> Value {
        serde_json::from_slice(response.body()).expect("JSON")
    }

    #[test]
    fn an_outcome_is_200_and_names_the_event() {
        let id = EventId::new(
            "deeple",
            &Shop::parse("main").expect("a shop"),
            &IdempotencyKey::Body,
            b"",
        );
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
    fn a_refusal_is_a_problem_that_does_not_reveal_its_cause() {
        for (refusal, status, extra) in [
            (
                Refusal::MethodNotAllowed(&[Method::POST, Method::PUT]),
                405,
                Some(("allow", "POST, PUT")),
            ),
            (Refusal::TooLarge { limit: 5 }, 413, None),
            (Refusal::no_credentials("inside"), 401, None),
            (Refusal::wrong_credentials("inside"), 401, None),
            (Refusal::Malformed("the body cannot be decoded"), 400, None),
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
            let code = body["type"].as_str().and_then(|uri| uri.rsplit(':').next());
            assert!(Code::ALL.iter().any(|known| Some(known.as_str()) == code), "{body}");
            assert_eq!(
                (&body["status"], &body["request_id"]),
                (&json!(status), &json!("request-1"))
            );
            assert!(!body.to_string().contains("inside"));
        }
    }

    #[test]
    fn both_kinds_of_401_have_the_same_answer() {
        let answers = [Refusal::no_credentials("one"), Refusal::wrong_credentials("another")].map(|refusal| {
            let answer = refusal.into_response("request-1");
            (answer.headers().clone(), body(&answer))
        });
        assert_eq!(answers[0], answers[1]);
    }

    #[test]
    fn wrong_credentials_count_as_refused_too() {
        assert_eq!(Refusal::no_credentials("").metrics(), ["Refused"]);
        assert_eq!(
            Refusal::wrong_credentials("").metrics(),
            ["Refused", "WrongCredentials"]
        );
    }

    #[test]
    fn a_reason_is_found_by_its_word() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_word(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::from_word("?"), None);
    }
}
