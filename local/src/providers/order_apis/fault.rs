//! Faults of the order APIs.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};

use crate::net::server::message;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request is answered with this status.
    Status(u16),
    /// The request is answered 429, with this number of seconds in `Retry-After`.
    TooMany(u32),
    /// The request is answered after this time.
    Slow(Duration),
    /// The connection is closed in the middle of the answer.
    Cut,
    /// Half of the answer arrives, as if it were complete.
    Half,
    /// The request is never answered.
    Hang,
    /// The request is redirected to the same path at this port of 127.0.0.1.
    Redirect(u16),
    /// The token of Cartum has expired. The other APIs have no such tokens, and answer 401.
    Expired,
}

/// The answer that arrives in place of `answer`.
pub(super) fn damaged(answer: Response<Bytes>, fault: Option<Fault>, request: &Request<Bytes>) -> Response<Body> {
    match fault {
        Some(Fault::Status(status)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            message(status, "as configured").map(Body::from)
        }
        Some(Fault::TooMany(seconds)) => {
            let mut answer = message(StatusCode::TOO_MANY_REQUESTS, "too many requests");
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
            answer.map(Body::from)
        }
        Some(Fault::Redirect(port)) => {
            let path = request
                .uri()
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default();
            let mut answer = message(StatusCode::FOUND, "elsewhere");
            if let Ok(location) = HeaderValue::try_from(format!("http://127.0.0.1:{port}{path}")) {
                answer.headers_mut().insert(LOCATION, location);
            }
            answer.map(Body::from)
        }
        Some(Fault::Half) => answer.map(|body| Body::from(body.slice(..body.len() / 2))),
        Some(Fault::Cut) => {
            let half = answer.body().slice(..answer.body().len() / 2);
            let closed = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            let mut cut = Response::new(Body::from_stream(stream::iter([Ok(half), Err(closed)])));
            *cut.status_mut() = answer.status();
            let json = HeaderValue::from_static("application/json");
            cut.headers_mut().insert(CONTENT_TYPE, json);
            cut
        }
        Some(Fault::Expired) if !request.uri().path().starts_with("/cartum/") => {
            message(StatusCode::UNAUTHORIZED, "expired").map(Body::from)
        }
        _ => answer.map(Body::from),
    }
}
