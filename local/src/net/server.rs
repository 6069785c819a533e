//! A small HTTP server on 127.0.0.1: the gateway, the Runtime API, the AWS endpoints and the Snipcart stand-in all stand on it.
//!
//! It reads a request whole, hands it to one handler, and writes the answer. A handler may also give no answer at all:
//! then the connection is closed, which is how a test makes an answer get lost.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::Error;

/// An answer, or none: the connection is closed without one.
pub type Answer<B = Bytes> = Option<Response<B>>;

/// A port that is held, and not served yet.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Takes `port` on 127.0.0.1; 0 takes any free one. `flag` is the command's flag for it, named when the port is in use.
    pub async fn take(port: u16, flag: &'static str) -> Result<Self, Error> {
        let in_use = |source| Error::Port { port, flag, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(in_use)?;
        let address = listener.local_addr().map_err(in_use)?;
        Ok(Self { listener, address })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves it with `handler` until the [`Server`] is dropped. A body over `limit` bytes is answered 413, as API Gateway does.
    pub fn serve<H, F, B>(self, limit: usize, handler: H) -> Server
    where
        H: Fn(Request<Bytes>, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Answer<B>> + Send + 'static,
        B: Into<Body> + 'static,
    {
        self.serve_over(None, limit, handler)
    }

    /// The same over TLS where there is an acceptor.
    pub fn serve_over<H, F, B>(self, tls: Option<TlsAcceptor>, limit: usize, handler: H) -> Server
    where
        H: Fn(Request<Bytes>, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Answer<B>> + Send + 'static,
        B: Into<Body> + 'static,
    {
        let address = self.address;
        let has_tls = tls.is_some();
        let handler = Arc::new(handler);
        let task = tokio::spawn(async move {
            // Connections live in here, so that they end with the server.
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = self.listener.accept() => {
                        let Ok((stream, peer)) = accepted else { continue };
                        let _ = stream.set_nodelay(true);
                        let (handler, tls) = (Arc::clone(&handler), tls.clone());
                        connections.spawn(async move {
                            match tls {
                                None => connection(stream, peer, limit, handler).await,
                                Some(tls) => if let Ok(stream) = tls.accept(stream).await {
                                    connection(stream, peer, limit, handler).await;
                                },
                            }
                        });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Server { address, has_tls, task }
    }
}

/// A served port; dropping it closes the port and its connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    has_tls: bool,
    task: JoinHandle<Infallible>,
}

impl Server {
    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://`, or `https://`, and the address.
    pub fn url(&self) -> String {
        let scheme = if self.has_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }
}

impl Server {
    /// Stops it, and waits until its port is closed.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes hyper close the connection.
#[derive(Debug, thiserror::Error)]
#[error("no answer is given")]
struct NoAnswer;

async fn connection<H, F, B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    limit: usize,
    handler: Arc<H>,
) where
    H: Fn(Request<Bytes>, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Answer<B>> + Send + 'static,
    B: Into<Body> + 'static,
{
    let service = service_fn(move |request| {
        let handler = Arc::clone(&handler);
        async move { answer(request, peer, limit, &*handler).await.ok_or(NoAnswer) }
    });
    // An error here is a client that went away, or an answer that was meant to be lost.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer<H, F, B>(
    request: Request<Incoming>,
    peer: SocketAddr,
    limit: usize,
    handler: &H,
) -> Option<Response<Body>>
where
    H: Fn(Request<Bytes>, SocketAddr) -> F,
    F: Future<Output = Answer<B>>,
    B: Into<Body>,
{
    let (parts, body) = request.into_parts();
    match read(body, limit).await? {
        Received::Complete(body) => Some(handler(Request::from_parts(parts, body), peer).await?.map(Into::into)),
        Received::TooLong => Some(message(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Long").map(Into::into)),
    }
}

/// The body of a request.
enum Received {
    Complete(Bytes),
    TooLong,
}

/// Reads a body; `None` if the client goes away. A body that is too long is read to its end all the same: a client that is still
/// writing does not see an answer.
async fn read(mut body: Incoming, limit: usize) -> Option<Received> {
    let mut read = BytesMut::new();
    let mut length = 0usize;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= limit {
            read.extend_from_slice(&data);
        }
    }
    Some(if length <= limit {
        Received::Complete(read.freeze())
    } else {
        Received::TooLong
    })
}

/// A JSON answer.
pub fn json(status: StatusCode, body: &serde_json::Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

/// API Gateway's own way to say something: `{"message":"..."}`.
pub fn message(status: StatusCode, message: &str) -> Response<Bytes> {
    json(status, &serde_json::json!({ "message": message }))
}
