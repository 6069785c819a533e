//! An HTTP client for webhooks: to the local gateway, or to a deployed stack.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Error as ClientError};
use hyper_util::rt::TokioExecutor;

use crate::Error;

/// Longer than API Gateway waits for a function.
const PATIENCE: Duration = Duration::from_secs(35);

/// The client.
#[derive(Debug, Clone)]
pub enum Client {
    /// A client for `http://`, without certificates.
    Plain(legacy::Client<HttpConnector, Full<Bytes>>),
    /// A client for `https://`, with the certificates of the system.
    Tls(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

impl Client {
    /// Creates a client for `url`.
    pub fn new(url: &str) -> Result<Self, Error> {
        let builder = legacy::Client::builder(TokioExecutor::new());
        match url.parse::<Uri>().ok().as_ref().and_then(Uri::scheme_str) {
            Some("http") => Ok(Self::Plain(builder.build_http())),
            Some("https") => {
                let connector = HttpsConnectorBuilder::new()
                    .with_native_roots()
                    .map_err(|error| Error::Send(format!("the certificates of the system cannot be read: {error}")))?
                    .https_only()
                    .enable_http1()
                    .build();
                Ok(Self::Tls(builder.build(connector)))
            }
            _ => Err(Error::Send(format!(
                "{url} is not a URL: it must begin with https:// or http://"
            ))),
        }
    }

    /// Sends a request and reads the complete response.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        self.send_within(PATIENCE, request).await
    }

    /// Sends a request and reads the complete response, waiting up to `patience`.
    pub async fn send_within(&self, patience: Duration, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        let to = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let sent = tokio::time::timeout(patience, async {
            let (parts, body) = self
                .begin(request.map(Full::new))
                .await
                .map_err(|error| failed(&to, &error))?
                .into_parts();
            let body = body
                .collect()
                .await
                .map_err(|error| Error::Send(format!("the answer of {to} is incomplete: {error}")))?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        });
        sent.await
            .unwrap_or_else(|_| Err(Error::Send(format!("{to} did not answer within {patience:?}"))))
    }

    async fn begin(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        match self {
            Self::Plain(client) => client.request(request).await,
            Self::Tls(client) => client.request(request).await,
        }
    }
}

fn failed(to: &str, error: &ClientError) -> Error {
    // The innermost error is the reason.
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    if error.is_connect() && to.starts_with("127.0.0.1") {
        Error::Send(format!(
            "nothing answers at {to} ({reason}). Is `cargo local` running? Start it in another terminal."
        ))
    } else {
        Error::Send(format!("{to} cannot be reached: {reason}"))
    }
}
