//! Asking the provider whether a delivery is its own: a call back over HTTPS.

use aws_smithy_http_client::Connector;
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lambda_http::http::{Request, StatusCode, header};
use tokio::time::{Instant, timeout_at};

use crate::aws;
use crate::secrets::SigningKey;
use crate::verification::Proof;

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

/// A client for calls back.
pub struct Callback {
    connector: Connector,
}

impl Callback {
    /// A client. It asks nothing yet.
    pub fn new() -> Self {
        Self {
            connector: Connector::builder()
                .tls_provider(aws::TLS)
                .tls_context(aws::trust())
                .build(),
        }
    }

    /// Opens a connection to the host of `url` by asking it, as nobody; whatever it answers will do.
    pub async fn connect(&self, url: &str) {
        let request = Request::get(url).body(SdkBody::empty());
        let Some(request) = request.ok().and_then(|request| request.try_into().ok()) else {
            return;
        };
        // Whether it answers is found out when it matters. Read to its end, so that the connection can be used again.
        if let Ok(response) = self.connector.call(request).await {
            let _ = ByteStream::new(response.into_body()).collect().await;
        }
    }

    /// Asks `url`, as the user `key` with an empty password, and waits for the answer until `until` at most.
    pub async fn ask(&self, url: &str, key: &SigningKey, until: Instant) -> Confirmation {
        let credentials = STANDARD.encode([key.expose(), b":"].concat());
        let request = Request::get(url)
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, format!("Basic {credentials}"))
            .body(SdkBody::empty());
        let Some(request) = request.ok().and_then(|request| request.try_into().ok()) else {
            return Confirmation::Unreachable("the address of the validation call is no URL".to_owned());
        };
        match timeout_at(until, self.connector.call(request)).await {
            Err(_) => Confirmation::Unreachable("no answer in time".to_owned()),
            Ok(Err(error)) => Confirmation::Unreachable(aws::cause(&error)),
            Ok(Ok(response)) => match StatusCode::from_u16(response.status().as_u16()) {
                Ok(StatusCode::OK) => Confirmation::Confirmed(Proof::of_a_passed_check()),
                Ok(status) => Confirmation::Refused(status),
                Err(_) => Confirmation::Unreachable("the answer has no valid status".to_owned()),
            },
        }
    }
}

impl Default for Callback {
    fn default() -> Self {
        Self::new()
    }
}
