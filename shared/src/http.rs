//! The HTTP/1.1 client of the functions, with or without TLS. Each service has its own pool of connections. The root
//! certificates are read once for all of them.
//!
//! A connection that was lost while the process was frozen looks alive until something is sent over it. So idle
//! connections are not reused after a pause of a minute, and a call that gets no answer discards all idle connections
//! of its service: the next attempt is made over a new one.
//!
//! This replaces `aws-smithy-http-client`, whose HTTP/2, tunnels and proxies are not needed here and are a tenth of a
//! function's size.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs};

use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{self, CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lambda_http::http::{Request, Response};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::codes::Code;
use crate::moment::Moment;

/// The usual files of a system's root certificates.
const CERTIFICATE_FILES: [&str; 4] = [
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
];

/// The pause between two calls, by the monotonic or the wall clock, after which idle connections are discarded. Load
/// balancers and NAT gateways drop idle connections silently.
const IDLE_FOR: Duration = Duration::from_mins(1);
/// The number of idle connections that are kept per host. A delivery makes its calls one after the other; only a large
/// order needs more at once.
pub(crate) const MOST_IDLE: usize = 2;

/// The client that sends requests.
pub(crate) type HttpClient = Client<HttpsConnector<connect::HttpConnector>, SdkBody>;

/// The TLS configuration, created once for all clients.
static TLS: LazyLock<ClientConfig> = LazyLock::new(tls);

/// The TLS configuration of all clients.
pub(crate) fn tls_config() -> ClientConfig {
    TLS.clone()
}

/// The connections to one service.
#[derive(Debug)]
pub(crate) struct Pool {
    current: Mutex<Option<Current>>,
    most_idle: usize,
    clock: fn() -> Moment,
}

#[derive(Debug)]
struct Current {
    client: HttpClient,
    /// Distinguishes this client from earlier ones.
    generation: Arc<()>,
    called_at: Moment,
}

impl Pool {
    pub(crate) const fn new() -> Self {
        Self::keeping(MOST_IDLE)
    }

    /// A pool that keeps up to `most_idle` idle connections per host.
    const fn keeping(most_idle: usize) -> Self {
        Self {
            current: Mutex::new(None),
            most_idle,
            clock: Moment::now,
        }
    }

    /// Begins a call with a client whose idle connections are recent enough to be used.
    pub(crate) fn call(&self) -> PooledCall<'_> {
        let now = (self.clock)();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match current.take() {
            Some(current) if now.since(current.called_at) < IDLE_FOR => Current {
                called_at: now,
                ..current
            },
            _ => Current {
                client: new_client(self.most_idle),
                generation: Arc::default(),
                called_at: now,
            },
        };
        let next = current.insert(next);
        PooledCall {
            pool: self,
            client: next.client.clone(),
            generation: Arc::clone(&next.generation),
            is_answered: false,
        }
    }

    /// Discards the idle connections: the next call is made over a new one.
    pub(crate) fn discard_idle(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Discards the connections of a generation, unless that has been done already. Calls in progress keep their
    /// connections.
    fn discard(&self, generation: &Arc<()>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.take_if(|current| Arc::ptr_eq(&current.generation, generation));
    }
}

/// One call over a [`Pool`]. A call that is dropped before it is answered, because it failed or took too long, discards
/// the pool's idle connections, which may be lost for the same reason.
#[derive(Debug)]
pub(crate) struct PooledCall<'a> {
    pool: &'a Pool,
    client: HttpClient,
    generation: Arc<()>,
    is_answered: bool,
}

impl PooledCall<'_> {
    /// Sends the request and waits for the head of the answer. Has no timeout: every caller sets its own.
    pub(crate) async fn send(mut self, request: Request<SdkBody>) -> Result<Response<SdkBody>, Error> {
        let response = self.client.request(request).await?;
        self.is_answered = true;
        Ok(response.map(SdkBody::from_body_1_x))
    }
}

impl Drop for PooledCall<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.pool.discard(&self.generation);
        }
    }
}

fn new_client(most_idle: usize) -> HttpClient {
    let mut tcp = connect::HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(tls_config())
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_FOR)
        .pool_max_idle_per_host(most_idle)
        .build(tls)
}

/// Creates a client for the AWS SDK, with its own pool, which keeps up to `most_idle` idle connections.
pub(crate) fn sdk_client(most_idle: usize) -> SharedHttpClient {
    let connector = SharedHttpConnector::new(Connector(Arc::new(Pool::keeping(most_idle))));
    http_client_fn(move |_, _| connector.clone())
}

/// Configures TLS with `ring`, which keeps the binary small.
fn tls() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has a cipher suite for every version")
        .with_root_certificates(load_root_certificates(env::var_os("SSL_CERT_FILE")))
        .with_no_client_auth()
}

/// Loads root certificates from the named file or, if it holds none, from the system's. The template names a file.
fn load_root_certificates(named: Option<OsString>) -> RootCertStore {
    let files = named
        .map(PathBuf::from)
        .into_iter()
        .chain(CERTIFICATE_FILES.map(PathBuf::from));
    let mut store = RootCertStore::empty();
    for bundle in files.filter_map(|file| fs::read(file).ok()) {
        // Certificates that cannot be read are skipped.
        store.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).flatten());
        if !store.is_empty() {
            break;
        }
    }
    if store.is_empty() {
        tracing::warn!(
            code = Code::NoRootCertificates.as_str(),
            "there are no root certificates, so TLS fails; SSL_CERT_FILE can name a file of them"
        );
    }
    store
}

/// The connector through which the AWS SDK uses a [`Pool`].
#[derive(Debug)]
struct Connector(Arc<Pool>);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        attach_connection_poisoning(&mut request);
        let pool = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            // Every error counts as one of the connection, so that the SDK tries again.
            let response = pool
                .call()
                .send(request)
                .await
                .map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// Lets the SDK close the connection of `request` after a server error, so that the next attempt may reach another
/// server.
fn attach_connection_poisoning(request: &mut Request<SdkBody>) {
    let Some(borrower) = request.extensions().get::<CaptureSmithyConnection>().cloned() else {
        return;
    };
    let captured = capture_connection(request);
    borrower.set_connection_retriever(move || {
        let captured = captured.clone();
        let is_there = captured.connection_metadata().is_some();
        is_there.then(|| {
            ConnectionMetadata::builder()
                .proxied(false)
                .poison_fn(move || poison(&captured))
                .build()
        })
    });
}

fn poison(captured: &CaptureConnection) {
    if let Some(connection) = captured.connection_metadata().as_ref() {
        connection.poison();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use futures_util::future::join_all;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::aws;
    use crate::settings::Settings;

    #[test]
    fn the_systems_certificates_replace_a_file_without_any() {
        let of_the_system = load_root_certificates(None).len();
        let has_some = CERTIFICATE_FILES.iter().any(|file| fs::exists(file).unwrap());
        assert_eq!(of_the_system > 0, has_some);
        assert_eq!(load_root_certificates(Some("/nowhere".into())).len(), of_the_system);
        // A file without certificates.
        assert_eq!(load_root_certificates(Some("Cargo.toml".into())).len(), of_the_system);
    }

    /// Answers one request with `status`, and leaves the connection open.
    fn answer(mut stream: TcpStream, status: u16) -> TcpStream {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            match line.trim_end().to_ascii_lowercase().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        reader.read_exact(&mut vec![0; length]).unwrap();
        write!(stream, "HTTP/1.1 {status} -\r\ncontent-length: 2\r\n\r\n{{}}").unwrap();
        stream
    }

    /// A server that answers every request with 200, and the numbers of connections that it has accepted and lost.
    fn server() -> (String, Arc<[AtomicUsize; 2]>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let counts = Arc::<[AtomicUsize; 2]>::default();
        let counted = Arc::clone(&counts);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted[0].fetch_add(1, Ordering::SeqCst);
                let counted = Arc::clone(&counted);
                thread::spawn(move || {
                    let mut stream = Some(stream);
                    while let Some(open) = stream
                        .take()
                        .filter(|open| open.peek(&mut [0]).is_ok_and(|length| length > 0))
                    {
                        stream = Some(answer(open, 200));
                    }
                    counted[1].fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        (url, counts)
    }

    async fn call(pool: &Pool, url: &str) {
        let request = Request::get(url).body(SdkBody::empty()).unwrap();
        let response = pool.call().send(request).await.unwrap();
        response.collect().await.unwrap();
        // The connection goes back to the pool on a task of its own.
        tokio::task::yield_now().await;
    }

    /// Waits until `count` is `expected`.
    async fn reaches(count: &AtomicUsize, expected: usize) {
        let reached = async {
            while count.load(Ordering::SeqCst) != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(5), reached).await;
        assert!(
            reached.is_ok(),
            "the count is {} and does not reach {expected}",
            count.load(Ordering::SeqCst)
        );
    }

    #[tokio::test]
    async fn a_minute_on_either_clock_discards_idle_connections() {
        static STEADY: AtomicUsize = AtomicUsize::new(0);
        static WALL: AtomicUsize = AtomicUsize::new(0);
        static BEGUN: LazyLock<Moment> = LazyLock::new(Moment::now);
        let pool = Pool {
            clock: || {
                let seconds = |clock: &AtomicUsize| Duration::from_secs(clock.load(Ordering::SeqCst) as u64);
                Moment {
                    steady: BEGUN.steady + seconds(&STEADY),
                    wall: BEGUN.wall + seconds(&WALL),
                }
            },
            ..Pool::new()
        };
        let (url, counts) = server();
        let mut connections = 0;
        for (clock, pause, is_fresh) in [
            (&WALL, 0, true),
            (&WALL, 59, false),
            (&WALL, 60, true),
            (&STEADY, 59, false),
            (&STEADY, 60, true),
        ] {
            clock.fetch_add(pause, Ordering::SeqCst);
            call(&pool, &url).await;
            connections += usize::from(is_fresh);
            assert_eq!(counts[0].load(Ordering::SeqCst), connections, "after {pause} s");
        }
        reaches(&counts[1], connections - 1).await;
    }

    #[tokio::test]
    async fn at_most_two_connections_stay_idle() {
        let (url, counts) = server();
        let pool = Pool::new();
        join_all((0..10).map(|_| call(&pool, &url))).await;
        assert_eq!(counts[0].load(Ordering::SeqCst), 10);
        reaches(&counts[1], 10 - MOST_IDLE).await;
    }

    #[tokio::test]
    async fn a_call_without_an_answer_discards_idle_connections() {
        let (url, counts) = server();
        let pool = Pool::new();
        call(&pool, &url).await;
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = format!("http://{}", silent.local_addr().unwrap());
        let late = tokio::time::timeout(
            Duration::from_millis(50),
            pool.call().send(Request::get(silent).body(SdkBody::empty()).unwrap()),
        );
        assert!(!late.await.is_ok_and(|answer| answer.is_ok()));
        call(&pool, &url).await;
        assert_eq!(counts[0].load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_failing_server_is_called_over_another_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let accept = || listener.accept().unwrap().0;
            let mut failing = answer(accept(), 500);
            // This connection serves the next call too.
            let other = answer(answer(accept(), 200), 200);
            failing.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            assert_eq!(failing.read(&mut [0]).unwrap(), 0, "the failing one is closed");
            drop(other);
        });
        let settings = Settings::from_table([
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_ENDPOINT_URL_DYNAMODB", &url),
        ]);
        let client = aws::dynamodb(&settings, MOST_IDLE).unwrap();
        client.list_tables().send().await.unwrap();
        client.list_tables().send().await.unwrap();
        server.join().unwrap();
    }
}
