//! The client of order APIs: JSON over TLS, with a limit on time and size. It follows no redirects.

use std::time::Duration;

use aws_smithy_types::body::SdkBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lambda_http::http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};
use tokio::time::{Instant, timeout_at};

use super::address::{Host, Reach, Resolver, resolver};
use crate::{aws, http};

/// How long one attempt may take, with its body.
pub const ATTEMPT: Duration = Duration::from_secs(20);
/// How often a call is tried if the API fails or asks for fewer calls.
const ATTEMPTS: u32 = 4;
/// The pause after a failed attempt. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that an answer may ask for. After a longer one, the next run goes on.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The most bytes of an answer. A page of orders takes far less.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// A secret text for an order API. It is not empty, and is not shown.
#[derive(Debug)]
pub struct Credentials(SecretString);

impl Credentials {
    /// The text, for a body that an API expects it in.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl<'de> Deserialize<'de> for Credentials {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            Err(D::Error::custom("empty"))
        } else {
            Ok(Self(text.into()))
        }
    }
}

/// Why an order API gives no answer that can be used. The text holds nothing of a secret or an order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct ApiError {
    /// The kind of failure.
    pub failure: Failure,
    cause: String,
}

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The API cannot be used at the moment.
    Unavailable,
    /// The API refuses the credentials.
    Refused,
    /// The API asks for fewer calls.
    Throttled,
    /// The secret or a setting is wrong.
    Misconfigured,
    /// The API answers, but not as documented.
    Unreadable,
}

impl ApiError {
    fn new(failure: Failure, cause: impl Into<String>) -> Self {
        Self {
            failure,
            cause: cause.into(),
        }
    }

    /// The API cannot be used at the moment. Nothing is concluded from that.
    pub fn unavailable(cause: impl Into<String>) -> Self {
        Self::new(Failure::Unavailable, cause)
    }

    /// The API refuses the credentials.
    pub fn refused(cause: impl Into<String>) -> Self {
        Self::new(Failure::Refused, cause)
    }

    /// The secret or a setting is wrong.
    pub fn misconfigured(cause: impl Into<String>) -> Self {
        Self::new(Failure::Misconfigured, cause)
    }

    /// The API answers, but not as documented.
    pub fn unreadable(cause: impl Into<String>) -> Self {
        Self::new(Failure::Unreadable, cause)
    }

    /// Whether the API has not done what a call asked for.
    pub fn is_refusal(&self) -> bool {
        match self.failure {
            Failure::Refused | Failure::Throttled | Failure::Misconfigured => true,
            Failure::Unavailable | Failure::Unreadable => false,
        }
    }
}

/// The base URL of an API, and the addresses that it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    url: String,
    reach: Reach,
}

impl BaseUrl {
    /// The API at `path` of a public host, over TLS.
    pub fn of(host: &Host, path: &str) -> Self {
        Self {
            url: format!("https://{}{path}", host.as_str()),
            reach: Reach::Public,
        }
    }

    /// A URL that an operator has set. It may be any, because whoever sets it can also change the code.
    pub fn set_by_operator(url: &str) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            reach: Reach::Any,
        }
    }
}

/// A call of an API.
pub struct Call {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: String,
}

impl Call {
    /// A GET of `path`, which begins with a slash and may have a query.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// A POST of a JSON text to `path`.
    pub fn post(path: impl Into<String>, json: String) -> Self {
        Self {
            method: Method::POST,
            body: json,
            ..Self::get(path)
        }
        .header(header::CONTENT_TYPE, "application/json")
    }

    fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// Adds a header with a secret value.
    ///
    /// # Errors
    /// If the value cannot be sent in a header.
    pub fn secret_header(mut self, name: HeaderName, value: &str) -> Result<Self, ApiError> {
        let value = HeaderValue::from_str(value);
        let mut value = value.map_err(|_| ApiError::misconfigured("a credential cannot be sent in a header"))?;
        value.set_sensitive(true);
        self.headers.push((name, value));
        Ok(self)
    }

    /// Adds `Authorization: Bearer`.
    ///
    /// # Errors
    /// If the token cannot be sent in a header.
    pub fn bearer(self, token: &Credentials) -> Result<Self, ApiError> {
        self.secret_header(header::AUTHORIZATION, &format!("Bearer {}", token.expose()))
    }

    /// Adds HTTP Basic with `user` and an empty password.
    ///
    /// # Errors
    /// Never fails, because base64 text is a valid header value. Returns a `Result` for uniformity with `bearer`.
    pub fn basic(self, user: &Credentials) -> Result<Self, ApiError> {
        let credentials = STANDARD.encode(format!("{}:", user.expose()));
        self.secret_header(header::AUTHORIZATION, &format!("Basic {credentials}"))
    }
}

/// An answer of an API with status 200 or 201.
pub struct Answer {
    body: Vec<u8>,
}

impl Answer {
    /// Parses the answer.
    ///
    /// # Errors
    /// If it is not as expected, for example because it was cut. The error quotes nothing of it.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            ApiError::unreadable(format!(
                "the answer is not as documented (line {line}, column {column})"
            ))
        })
    }
}

/// The API of one shop, with a client of its own.
pub struct Api {
    base: String,
    client: Client<HttpsConnector<HttpConnector<Resolver>>, SdkBody>,
    deadline: Instant,
}

impl Api {
    /// Creates a client for the API at `base`, which makes no attempt after `deadline`. Connects to nothing yet.
    pub fn new(base: &BaseUrl, deadline: Instant) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver(base.reach));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let tls = HttpsConnectorBuilder::new().with_tls_config(http::tls_config());
        let tls = match base.reach {
            Reach::Public => tls.https_only(),
            Reach::Any => tls.https_or_http(),
        };
        Self {
            base: base.url.clone(),
            client: Client::builder(TokioExecutor::new()).build(tls.enable_http1().wrap_connector(tcp)),
            deadline,
        }
    }

    /// The same API, with no attempt after `deadline`.
    #[must_use]
    pub fn until(&self, deadline: Instant) -> Self {
        Self {
            base: self.base.clone(),
            client: self.client.clone(),
            deadline: self.deadline.min(deadline),
        }
    }

    /// Calls the API once, for a call that must not be repeated.
    ///
    /// # Errors
    /// If the API does not answer 200 or 201 in time. Of the other answers, only those with a status 4xx are refusals.
    pub async fn call_once(&self, call: &Call) -> Result<Answer, ApiError> {
        let answer = self.attempt(call).await;
        answer.map_err(|Attempt { error, status, .. }| match status {
            Some(status) if !status.is_client_error() => ApiError::unavailable(error.cause),
            _ => error,
        })
    }

    /// Calls the API. An attempt that fails, or that the API asks to repeat later, is repeated.
    ///
    /// # Errors
    /// If the API does not answer 200 or 201 in time.
    pub async fn call(&self, call: &Call) -> Result<Answer, ApiError> {
        let mut attempt = 1;
        let mut pause = FIRST_PAUSE;
        loop {
            let (error, asked) = match self.attempt(call).await {
                Ok(answer) => return Ok(answer),
                Err(Attempt { error, retry_after, .. }) => (error, retry_after),
            };
            let may_pass = matches!(error.failure, Failure::Unavailable | Failure::Throttled);
            let wait = asked.unwrap_or(pause);
            let is_in_time = wait <= LONGEST_PAUSE && Instant::now() + wait < self.deadline;
            if attempt == ATTEMPTS || !may_pass || !is_in_time {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            attempt += 1;
            pause *= 2;
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Answer, Attempt> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.base, call.path))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "order-webhooks");
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(SdkBody::from(call.body.as_str()))
            .map_err(|_| ApiError::misconfigured("the address of the API is not a URL"))?;
        let until = self.deadline.min(Instant::now() + ATTEMPT);
        let no_answer = || ApiError::unavailable("no answer in time");
        let response = match timeout_at(until, self.client.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(ApiError::unavailable(aws::cause(&error)).into()),
            Err(_) => return Err(no_answer().into()),
        };
        let (head, body) = response.into_parts();
        if ![StatusCode::OK, StatusCode::CREATED].contains(&head.status) {
            return Err(Attempt::of(head.status, head.headers.get(header::RETRY_AFTER)));
        }
        // The deadline covers the body too: an API may send it byte by byte.
        match timeout_at(until, Limited::new(body, MOST_BYTES).collect()).await {
            Ok(Ok(body)) => Ok(Answer {
                body: body.to_bytes().to_vec(),
            }),
            Ok(Err(_)) => Err(ApiError::unavailable("the answer is cut or too large").into()),
            Err(_) => Err(no_answer().into()),
        }
    }

    /// Calls the API and parses the answer, with the answer for [`OrderPage`](super::OrderPage).
    ///
    /// # Errors
    /// If there is no answer, or it is not as expected.
    pub async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<(T, Answer), ApiError> {
        let answer = self.call(call).await?;
        Ok((answer.parse()?, answer))
    }
}

/// A failed attempt.
struct Attempt {
    error: ApiError,
    /// The status of the answer, if that is the error.
    status: Option<StatusCode>,
    /// The pause that the answer asks for.
    retry_after: Option<Duration>,
}

impl From<ApiError> for Attempt {
    fn from(error: ApiError) -> Self {
        Self {
            error,
            status: None,
            retry_after: None,
        }
    }
}

impl Attempt {
    /// Reads an answer with another status. Redirects are not followed, because they would carry the
    /// credentials to another host.
    fn of(status: StatusCode, retry_after: Option<&HeaderValue>) -> Self {
        let code = status.as_u16();
        let failure = match code {
            401 | 403 => Failure::Refused,
            408 | 500..=599 => Failure::Unavailable,
            429 => Failure::Throttled,
            _ => Failure::Misconfigured,
        };
        let cause = match failure {
            Failure::Refused => format!("the API refuses the credentials (status {code})"),
            Failure::Throttled => "the API asks for fewer calls (status 429)".to_owned(),
            _ => format!("the API answered with status {code}"),
        };
        let seconds = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Self {
            error: ApiError::new(failure, cause),
            status: Some(status),
            retry_after: seconds.map(Duration::from_secs),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    /// A server that answers each connection with the next of `answers`, and the number of connections.
    fn server(answers: Vec<&'static str>) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let count = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&count);
        thread::spawn(move || {
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept() else { return };
                counted.fetch_add(1, Ordering::SeqCst);
                let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
                    line.clear();
                }
                let _ = write!(stream, "HTTP/1.1 {answer}");
            }
        });
        (format!("localhost:{port}"), count)
    }

    async fn call(answers: Vec<&'static str>) -> (Result<String, ApiError>, usize) {
        let (host, count) = server(answers);
        let api = Api::new(&BaseUrl::set_by_operator(&format!("http://{host}")), soon());
        let answer = api.call(&Call::get("/orders")).await;
        let text = answer.map(|answer| String::from_utf8(answer.body).expect("UTF-8"));
        (text, count.load(Ordering::SeqCst))
    }

    const OK: &str = "200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
    const UNAVAILABLE: &str = "503 -\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test]
    async fn a_failed_call_is_repeated() {
        for failed in [
            UNAVAILABLE,
            "429 -\r\nretry-after: 0\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            // The body is cut.
            "200 OK\r\nconnection: close\r\ncontent-length: 20\r\n\r\n{",
        ] {
            let (answer, calls) = call(vec![failed, OK]).await;
            assert_eq!((answer.as_deref(), calls), (Ok("{}"), 2), "{failed}");
        }
    }

    #[tokio::test]
    async fn refused_credentials_and_redirects_are_final() {
        for (answer, failure) in [
            (
                "401 -\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                Failure::Refused,
            ),
            (
                "403 -\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                Failure::Refused,
            ),
            (
                "404 -\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                Failure::Misconfigured,
            ),
            (
                "302 -\r\nlocation: http://localhost:1/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                Failure::Misconfigured,
            ),
        ] {
            let (error, calls) = call(vec![answer, OK]).await;
            assert_eq!((error.expect_err(answer).failure, calls), (failure, 1), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_call_that_must_not_be_repeated_is_refused_by_a_status_4xx_only() {
        for (status, is_refusal) in [
            ("202 -", false),
            ("204 -", false),
            ("302 -", false),
            ("400 -", true),
            ("401 -", true),
            ("408 -", false),
            ("429 -", true),
            ("500 -", false),
        ] {
            let answer = format!("{status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            let (host, count) = server(vec![answer.leak(), OK]);
            let api = Api::new(&BaseUrl::set_by_operator(&format!("http://{host}")), soon());
            let error = api.call_once(&Call::get("/")).await.err().expect("an error");
            assert_eq!(
                (error.is_refusal(), count.load(Ordering::SeqCst)),
                (is_refusal, 1),
                "{status}"
            );
        }
    }

    #[tokio::test]
    async fn a_pause_that_is_too_long_is_left_to_the_next_run() {
        let asked = "429 -\r\nretry-after: 3600\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let (error, calls) = call(vec![asked, OK]).await;
        assert_eq!((error.expect_err("it waits").failure, calls), (Failure::Throttled, 1));
    }

    /// Calls a server on this machine as if it were a public host. Asserts that the server is not called.
    async fn refused_as_public(scheme: &str) -> String {
        let (host, count) = server(vec![OK]);
        // A name that a secret may hold would resolve like this one.
        let base = BaseUrl {
            url: format!("{scheme}://{host}"),
            reach: Reach::Public,
        };
        let deadline = Instant::now() + Duration::from_millis(200);
        let error = Api::new(&base, deadline).call(&Call::get("/")).await.err();
        assert_eq!(count.load(Ordering::SeqCst), 0);
        error.expect("refused").to_string()
    }

    #[tokio::test]
    async fn a_name_with_a_private_address_is_not_connected_to() {
        let error = refused_as_public("https").await;
        assert!(error.contains("private addresses"), "{error}");
    }

    #[tokio::test]
    async fn a_public_host_is_called_over_tls_only() {
        let error = refused_as_public("http").await;
        // The address of the server is private too, but its name is not resolved.
        assert!(error.contains("scheme"), "{error}");
        let host = Host::public("shop.example.com").expect("a host");
        assert_eq!(BaseUrl::of(&host, "/api").url, "https://shop.example.com/api");
    }

    #[tokio::test]
    async fn an_answer_that_is_not_json_is_not_quoted() {
        let body = "200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nsecret";
        let (host, _) = server(vec![body]);
        let api = Api::new(&BaseUrl::set_by_operator(&format!("http://{host}")), soon());
        let error = api
            .json::<serde_json::Value>(&Call::get("/"))
            .await
            .err()
            .expect("no JSON");
        assert_eq!(error.failure, Failure::Unreadable);
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn a_credential_is_not_shown() {
        let key: Credentials = serde_json::from_str(r#""a-secret""#).expect("a credential");
        assert!(!format!("{key:?}").contains("a-secret"));
        assert!(serde_json::from_str::<Credentials>(r#""""#).is_err());
        let call = Call::get("/").bearer(&key).expect("a header");
        assert!(!format!("{:?}", call.headers).contains("a-secret"));
    }
}
