//! The AWS endpoints of the bench: each service has its own port, answers at once and always the same, and counts its
//! calls.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::net::server::{Port, Server, json};
use crate::project::settings::{self, Urls};
use crate::{Error, lock};

/// Where Linux distributions keep their trusted root certificates.
const SYSTEM_ROOTS: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// The endpoints.
#[derive(Debug)]
pub(super) struct Aws {
    dynamodb: Server,
    sns: Server,
    secrets_manager: Server,
    snipcart: Server,
    roots: Option<PathBuf>,
    seen: Arc<Mutex<Seen>>,
}

/// The calls since the last look.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The time of the first call.
    pub(super) first: Option<Instant>,
    /// The number of calls by their name.
    pub(super) calls: BTreeMap<String, u32>,
}

impl Aws {
    /// Serves the endpoints. With `tls`, a folder, they use TLS with a certificate authority of their own, and the
    /// folder holds its root certificate together with those of the system.
    pub(super) async fn start(tls: Option<&Path>) -> Result<Self, Error> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (acceptor, roots) = match tls {
            None => (None, None),
            Some(folder) => {
                let (acceptor, roots) = authority(folder)?;
                (Some(acceptor), Some(roots))
            }
        };
        let serve = async |answer: fn(&Request<Bytes>) -> (String, Response<Bytes>)| {
            let seen = Arc::clone(&seen);
            let port = Port::take(0, "").await?;
            Ok::<_, Error>(port.serve_over(acceptor.clone(), BODY_LIMIT, move |request, _| {
                let (call, answer) = answer(&request);
                let mut seen = lock(&seen);
                seen.first.get_or_insert_with(Instant::now);
                *seen.calls.entry(call).or_default() += 1;
                std::future::ready(Some(answer))
            }))
        };
        Ok(Self {
            dynamodb: serve(dynamodb).await?,
            sns: serve(sns).await?,
            secrets_manager: serve(secrets_manager).await?,
            snipcart: serve(snipcart).await?,
            roots,
            seen,
        })
    }

    /// Returns the calls since this was last called.
    pub(super) fn take_seen(&self) -> Seen {
        std::mem::take(&mut lock(&self.seen))
    }

    /// The environment variables of a function or peer. The secret is in Secrets Manager.
    pub(super) fn variables(&self, function: &str) -> BTreeMap<String, String> {
        let urls = Urls {
            dynamodb: self.dynamodb.url(),
            messages: self.sns.url(),
            providers: self.snipcart.url(),
        };
        let mut variables = settings::variables(function, &urls);
        let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
        set("AWS_ENDPOINT_URL_SECRETS_MANAGER", self.secrets_manager.url());
        set("SECRETS", secret_arn(function));
        // One file, as in the template; without TLS, that of the system.
        if let Some(file) = system_roots() {
            set("SSL_CERT_FILE", file.to_owned());
        }
        if let Some(roots) = &self.roots {
            let roots = roots.display().to_string();
            // In this order: the name that OpenSSL and rustls read; that of boto3; that of Node.js.
            for name in ["SSL_CERT_FILE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
                set(name, roots.clone());
            }
        }
        variables
    }
}

/// The file of this system's trusted root certificates.
fn system_roots() -> Option<&'static str> {
    SYSTEM_ROOTS.into_iter().find(|file| Path::new(file).exists())
}

fn secret_arn(function: &str) -> String {
    format!(
        "arn:aws:secretsmanager:{}:{}:secret:{function}",
        crate::REGION,
        crate::ACCOUNT
    )
}

/// The name of the operation, as the JSON protocols of AWS send it.
fn target(request: &Request<Bytes>) -> String {
    let target = request.headers().get("x-amz-target");
    let name = target.and_then(|target| target.to_str().ok()?.rsplit('.').next());
    name.map_or_else(|| "connection".to_owned(), str::to_owned)
}

fn dynamodb(request: &Request<Bytes>) -> (String, Response<Bytes>) {
    let call = target(request);
    let answer = match call.as_str() {
        "Query" => json!({"Items": [], "Count": 0, "ScannedCount": 0}),
        _ => json!({}),
    };
    (call, typed(answer.to_string(), "application/x-amz-json-1.0"))
}

fn sns(request: &Request<Bytes>) -> (String, Response<Bytes>) {
    const PUBLISHED: &str = r#"<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>567910cd-659e-55d4-8ccb-5aaf14679dc0</MessageId></PublishResult><ResponseMetadata><RequestId>d74b8436-ae13-5ab4-a9ff-ce54dfea72a0</RequestId></ResponseMetadata></PublishResponse>"#;
    const TOPIC: &str = r#"<GetTopicAttributesResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><GetTopicAttributesResult><Attributes><entry><key>DisplayName</key><value/></entry></Attributes></GetTopicAttributesResult><ResponseMetadata><RequestId>057f074c-33a7-11df-9540-99d0768312d3</RequestId></ResponseMetadata></GetTopicAttributesResponse>"#;
    for (action, answer) in [("Publish", PUBLISHED), ("GetTopicAttributes", TOPIC)] {
        if request.body().starts_with(format!("Action={action}&").as_bytes()) {
            return (action.to_owned(), typed(answer.to_owned(), "text/xml"));
        }
    }
    let mut missing = typed("<MissingAction/>".to_owned(), "text/xml");
    *missing.status_mut() = StatusCode::BAD_REQUEST;
    ("connection".to_owned(), missing)
}

fn secrets_manager(request: &Request<Bytes>) -> (String, Response<Bytes>) {
    let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
    let arn = body["SecretId"].as_str().unwrap_or_default();
    let secret = settings::secret(arn.rsplit(':').next().unwrap_or_default()).unwrap_or_default();
    let answer = json!({
        "ARN": arn,
        "Name": "bench",
        "VersionId": "a1b2c3d4-5678-90ab-cdef-EXAMPLE11111",
        "VersionStages": ["AWSCURRENT"],
        "CreatedDate": 1_727_693_024.5,
        "SecretString": secret.to_string(),
    });
    (target(request), typed(answer.to_string(), "application/x-amz-json-1.1"))
}

fn snipcart(request: &Request<Bytes>) -> (String, Response<Bytes>) {
    if request.uri().path().starts_with("/api/requestvalidation/") {
        let answer = json!({"token": request.uri().path().rsplit('/').next()});
        return ("requestvalidation".to_owned(), json(StatusCode::OK, &answer));
    }
    (
        "connection".to_owned(),
        json(StatusCode::NOT_FOUND, &json!({"message": "Not Found"})),
    )
}

fn typed(body: String, content_type: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(content_type));
    headers.insert(
        "x-amzn-requestid",
        HeaderValue::from_static("b25f48e8-84fd-11e6-80d9-574e0c4664cb"),
    );
    response
}

/// Creates a certificate for 127.0.0.1 of a new authority, and a file of root certificates.
///
/// The file holds the system's root certificates too, because a function on Lambda reads them all.
fn authority(folder: &Path) -> Result<(TlsAcceptor, PathBuf), Error> {
    let fault = |what: &dyn std::fmt::Display| Error::Start(format!("the certificates for TLS cannot be made: {what}"));
    let failed = |error: rcgen::Error| fault(&error);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "cargo local bench");
    let key = KeyPair::generate().map_err(failed)?;
    let root = params.self_signed(&key).map_err(failed)?;
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().map_err(failed)?;
    let leaf = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])
        .and_then(|params| params.signed_by(&key, &issuer))
        .map_err(failed)?;

    let system = system_roots().and_then(|path| std::fs::read_to_string(path).ok());
    let path = folder.join("roots.pem");
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, system.unwrap_or_default() + &root.pem()))
        .map_err(|error| fault(&error))?;

    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(&error))?
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .map_err(|error| fault(&error))?;
    // The endpoints of AWS for these services offer HTTP/1.1 only, and so does this one.
    Ok((TlsAcceptor::from(Arc::new(config)), path))
}
