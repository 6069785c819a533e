//! How a function calls others: HTTP/1.1, with TLS or without. One client for the AWS services and for calls back to a provider, so
//! there is one pool of connections, and whom TLS trusts is read once.
//!
//! It stands in for `aws-smithy-http-client`, whose HTTP/2, tunnels and proxies nothing here has a use for: a tenth of a function.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::{env, fs};

use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{self, CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lambda_http::http::Request;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Where the authorities that a system trusts are, in one file.
const AUTHORITIES: [&str; 4] = [
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
];

/// What requests are sent with.
pub(crate) type HttpClient = Client<HttpsConnector<connect::HttpConnector>, SdkBody>;

/// It waits for as long as it is waited for: every call has a limit of its own.
static CLIENT: LazyLock<HttpClient> = LazyLock::new(|| {
    let mut tcp = connect::HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(tls())
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(tls)
});

/// The one client.
pub(crate) fn client() -> &'static HttpClient {
    &CLIENT
}

/// The one client, for the AWS SDK.
pub(crate) fn of_the_sdk() -> SharedHttpClient {
    let connector = SharedHttpConnector::new(Connector);
    http_client_fn(move |_, _| connector.clone())
}

/// `ring` keeps the binary small.
fn tls() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has a cipher suite for every version")
        .with_root_certificates(authorities(env::var_os("SSL_CERT_FILE")))
        .with_no_client_auth()
}

/// Whom TLS trusts: the authorities of the file that is named, else of the system. The template names one; where that is not, another
/// is better than none.
fn authorities(named: Option<OsString>) -> RootCertStore {
    let files = named
        .map(PathBuf::from)
        .into_iter()
        .chain(AUTHORITIES.map(PathBuf::from));
    let mut store = RootCertStore::empty();
    if let Some(bundle) = files.into_iter().find_map(|file| fs::read(file).ok()) {
        // One that cannot be read is left out: it vouches for nobody.
        store.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).flatten());
    }
    if store.is_empty() {
        tracing::warn!("there are no authorities to trust: TLS will fail (SSL_CERT_FILE names a file of them)");
    }
    store
}

/// [`CLIENT`], as the AWS SDK calls it.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        lend_connection(&mut request);
        let response = CLIENT.request(request);
        HttpConnectorFuture::new(async move {
            // Whatever went wrong on the way, another try may get through.
            let response = response.await.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// Lets the SDK close the connection of `request` where it was answered by a server that is not well: another one may be.
fn lend_connection(request: &mut Request<SdkBody>) {
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
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::aws;
    use crate::settings::Settings;

    #[test]
    fn where_the_named_authorities_are_not_the_systems_are_trusted() {
        let of_the_system = authorities(None).len();
        let has_some = AUTHORITIES.iter().any(|file| fs::exists(file).unwrap());
        assert_eq!(of_the_system > 0, has_some);
        assert_eq!(authorities(Some("/nowhere".into())).len(), of_the_system);
        assert_eq!(authorities(Some("Cargo.toml".into())).len(), 0);
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

    #[tokio::test]
    async fn a_server_that_fails_is_asked_again_over_another_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let accept = || listener.accept().unwrap().0;
            let mut failing = answer(accept(), 500);
            // This one serves what comes next too.
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
        let client = aws::dynamodb(&settings).unwrap();
        client.list_tables().send().await.unwrap();
        client.list_tables().send().await.unwrap();
        server.join().unwrap();
    }
}
