//! A small HTTP server on 127.0.0.1 for the gateway, the Runtime API, the AWS endpoints and the stand-in for Snipcart.
//!
//! It reads a request completely, passes it to one handler, and writes the response. Without a response it closes the
//! connection, which is how a fault loses an answer; web frameworks always respond.

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

/// A response; without one the connection is closed.
pub type Answer<B = Bytes> = Option<Response<B>>;

/// A port that is bound, and not served yet.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Binds `port` on 127.0.0.1; 0 binds any free port. `flag` is the command's flag for it, which the error names if
    /// the port is in use.
    pub async fn take(port: u16, flag: &'static str) -> Result<Self, Error> {
        let in_use = |source| Error::Port { port, flag, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(in_use)?;
        let address = listener.local_addr().map_err(in_use)?;
        Ok(Self { listener, address })
    }

    /// The address of the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the port with `handler` until the [`Server`] is dropped. A body over `limit` bytes is answered 413, as by
    /// API Gateway.
    pub fn serve<H, F, B>(self, limit: usize, handler: H) -> Server
    where
        H: Fn(Request<Bytes>, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Answer<B>> + Send + 'static,
        B: Into<Body> + 'static,
    {
        self.serve_over(None, limit, handler)
    }

    /// Serves the port like [`Port::serve`], over TLS if there is an acceptor.
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
            // The connections end with the server, because they are in here.
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

/// A served port. Dropping it closes the port and its connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    has_tls: bool,
    task: JoinHandle<Infallible>,
}

impl Server {
    /// The address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the server: `http://` or `https://`, and the address.
    pub fn url(&self) -> String {
        let scheme = if self.has_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }
}

impl Server {
    /// Stops the server, and waits until its port is closed.
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
#[error("no response")]
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
    // An error is a client that went away, or an answer that was meant to be lost.
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

/// Reads a body; `None` if the client goes away. A body that is too long is still read to its end, because a client
/// that is still writing does not see an answer.
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

/// A JSON response.
pub fn json(status: StatusCode, body: &serde_json::Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

/// A response in the form of API Gateway's own: `{"message":"..."}`.
pub fn message(status: StatusCode, message: &str) -> Response<Bytes> {
    json(status, &serde_json::json!({ "message": message }))
}
