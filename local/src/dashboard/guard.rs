//! Decides which requests the dashboard answers: those of the developer's browser on this machine, from the dashboard's
//! pages.
//!
//! The port of the gateway may be reachable through a tunnel, and by every page that is open in the developer's
//! browser. Therefore:
//!
//! - The `Host` header must name this machine. Another name is that of a tunnel, or one that was made to point here
//!   (DNS rebinding).
//! - The request must not have come through a proxy. A tunnel that rewrites `Host` still adds its headers.
//! - A page of another site may link to the dashboard, and do nothing else.
//! - A request that changes something must come from a page of the dashboard, which browsers state in `Origin`.
//!
//! A tunnel of bare TCP shows none of this. `--tunnel-port` is for that: the dashboard is not served there.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};

use crate::net::server::message;

/// Headers that proxies add. Proxies also add headers whose names begin with one of [`PROXY_PREFIXES`].
const PROXY_HEADERS: [&str; 6] = [
    "forwarded",
    "via",
    "x-real-ip",
    "true-client-ip",
    "x-original-host",
    "cdn-loop",
];
const PROXY_PREFIXES: [&str; 4] = ["x-forwarded-", "cf-", "ngrok-", "tailscale-"];

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request has another host name or came through a proxy. The answer is that of the gateway to any unknown
    /// path, and reveals nothing.
    NotHere,
    /// The request came from a page of another site.
    AnotherOrigin,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let answer = match self {
            Self::NotHere => message(StatusCode::NOT_FOUND, "Not Found"),
            Self::AnotherOrigin => message(
                StatusCode::FORBIDDEN,
                "only a page of the dashboard may send this request, with its Origin header",
            ),
        };
        answer.map(Into::into)
    }
}

/// Whether the dashboard on `port` answers this request.
pub(super) fn admit(request: &Request<Bytes>, port: u16) -> Result<(), Refusal> {
    let headers = request.headers();
    let host = only(headers, &header::HOST).ok_or(Refusal::NotHere)?;
    if !is_this_machine(host, port) || headers.keys().any(is_of_a_proxy) {
        return Err(Refusal::NotHere);
    }
    let site = only(headers, &HeaderName::from_static("sec-fetch-site"));
    let fetch = |name: &'static str| only(headers, &HeaderName::from_static(name));
    if [Method::GET, Method::HEAD].contains(request.method()) {
        let is_link = fetch("sec-fetch-mode") == Some("navigate") && fetch("sec-fetch-dest") == Some("document");
        return match site {
            None | Some("none" | "same-origin") => Ok(()),
            _ if is_link => Ok(()),
            _ => Err(Refusal::AnotherOrigin),
        };
    }
    let is_ours = only(headers, &header::ORIGIN)
        .and_then(|origin| origin.strip_prefix("http://"))
        .is_some_and(|origin| origin == host);
    if is_ours && site.is_none_or(|site| site == "same-origin") {
        Ok(())
    } else {
        Err(Refusal::AnotherOrigin)
    }
}

/// The value of a header that occurs once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn is_this_machine(host: &str, port: u16) -> bool {
    let (name, given) = host.rsplit_once(':').unwrap_or((host, "80"));
    ["127.0.0.1", "localhost", "[::1]"].contains(&name) && given.parse() == Ok(port)
}

fn is_of_a_proxy(name: &HeaderName) -> bool {
    let name = name.as_str();
    PROXY_HEADERS.contains(&name) || PROXY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        admit(&request.body(Bytes::new()).unwrap(), 9000)
    }

    #[test]
    fn the_dashboard_answers_only_this_machine() {
        const HOST: (&str, &str) = ("host", "127.0.0.1:9000");
        for (headers, expected) in [
            (&[HOST][..], Ok(())),
            (&[("host", "localhost:9000")], Ok(())),
            (&[("host", "[::1]:9000")], Ok(())),
            (&[HOST, ("sec-fetch-site", "none")], Ok(())),
            (&[HOST, ("sec-fetch-site", "same-origin")], Ok(())),
            (&[], Err(Refusal::NotHere)),
            (&[HOST, ("host", "shop.example")], Err(Refusal::NotHere)),
            (&[("host", "127.0.0.1")], Err(Refusal::NotHere)),
            (&[("host", "127.0.0.1:9001")], Err(Refusal::NotHere)),
            (&[("host", "abc.ngrok.app")], Err(Refusal::NotHere)),
            (&[("host", "rebound.example:9000")], Err(Refusal::NotHere)),
            (&[("host", "127.0.0.1.example:9000")], Err(Refusal::NotHere)),
            (&[HOST, ("x-forwarded-for", "203.0.113.5")], Err(Refusal::NotHere)),
            (&[HOST, ("x-forwarded-host", "abc.ngrok.app")], Err(Refusal::NotHere)),
            (&[HOST, ("forwarded", "for=203.0.113.5")], Err(Refusal::NotHere)),
            (&[HOST, ("cf-connecting-ip", "203.0.113.5")], Err(Refusal::NotHere)),
            (&[HOST, ("via", "1.1 tunnel")], Err(Refusal::NotHere)),
            (&[HOST, ("sec-fetch-site", "cross-site")], Err(Refusal::AnotherOrigin)),
            (&[HOST, ("sec-fetch-site", "same-site")], Err(Refusal::AnotherOrigin)),
        ] {
            assert_eq!(asked("GET", headers), expected, "{headers:?}");
        }
        let link = |dest| {
            let site = ("sec-fetch-site", "cross-site");
            asked(
                "GET",
                &[HOST, site, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", dest)],
            )
        };
        assert_eq!(link("document"), Ok(()));
        assert_eq!(link("iframe"), Err(Refusal::AnotherOrigin));
    }

    #[test]
    fn only_pages_of_the_dashboard_can_change_something() {
        const HOST: (&str, &str) = ("host", "127.0.0.1:9000");
        const ORIGIN: (&str, &str) = ("origin", "http://127.0.0.1:9000");
        for (headers, expected) in [
            (&[HOST, ORIGIN][..], Ok(())),
            (&[HOST, ORIGIN, ("sec-fetch-site", "same-origin")], Ok(())),
            (&[HOST], Err(Refusal::AnotherOrigin)),
            (&[HOST, ("sec-fetch-site", "same-origin")], Err(Refusal::AnotherOrigin)),
            (&[HOST, ("origin", "null")], Err(Refusal::AnotherOrigin)),
            (&[HOST, ("origin", "https://evil.example")], Err(Refusal::AnotherOrigin)),
            (
                &[HOST, ("origin", "http://localhost:9000")],
                Err(Refusal::AnotherOrigin),
            ),
            (
                &[HOST, ("origin", "http://127.0.0.1:3000")],
                Err(Refusal::AnotherOrigin),
            ),
            (&[HOST, ORIGIN, ORIGIN], Err(Refusal::AnotherOrigin)),
            (
                &[HOST, ORIGIN, ("sec-fetch-site", "cross-site")],
                Err(Refusal::AnotherOrigin),
            ),
            (
                &[("host", "evil.example:9000"), ("origin", "http://evil.example:9000")],
                Err(Refusal::NotHere),
            ),
            (&[HOST, ORIGIN, ("x-forwarded-proto", "https")], Err(Refusal::NotHere)),
        ] {
            assert_eq!(asked("POST", headers), expected, "{headers:?}");
        }
    }
}
