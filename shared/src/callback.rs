//! Asking the provider whether a delivery is its own: a call back over HTTPS.

use aws_smithy_types::body::SdkBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt as _;
use lambda_http::http::{Request, StatusCode, header};
use tokio::time::{Instant, timeout_at};

use crate::secrets::SigningKey;
use crate::verification::Proof;
use crate::{aws, http};

/// What the provider says of a delivery.
#[derive(Debug)]
pub enum Confirmation {
    /// 200: it is genuine.
    Confirmed(Proof),
    /// Any other answer, redirects included: none is followed.
    Refused(StatusCode),
    /// No answer in time.
    Unreachable(String),
}

/// Opens a connection to the host of `url` by asking it, as nobody; whatever it answers will do.
pub async fn connect(url: &str) {
    let Ok(request) = Request::get(url).body(SdkBody::empty()) else {
        return;
    };
    // Whether it answers is found out when it matters. Read to its end, so that the connection can be used again.
    if let Ok(response) = http::client().request(request).await {
        let _ = response.collect().await;
    }
}

/// Asks `url`, as the user `key` with an empty password, and waits for the answer until `until` at most.
pub async fn ask(url: &str, key: &SigningKey, until: Instant) -> Confirmation {
    let credentials = STANDARD.encode([key.expose(), b":"].concat());
    let request = Request::get(url)
        .header(header::ACCEPT, "application/json")
        .header(header::AUTHORIZATION, format!("Basic {credentials}"))
        .body(SdkBody::empty());
    let Ok(request) = request else {
        return Confirmation::Unreachable("the address of the validation call is no URL".to_owned());
    };
    match timeout_at(until, http::client().request(request)).await {
        Err(_) => Confirmation::Unreachable("no answer in time".to_owned()),
        Ok(Err(error)) => Confirmation::Unreachable(aws::cause(&error)),
        Ok(Ok(response)) => match response.status() {
            StatusCode::OK => Confirmation::Confirmed(Proof::of_a_passed_check()),
            status => Confirmation::Refused(status),
        },
    }
}
