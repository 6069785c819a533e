//! The AWS endpoints: DynamoDB on one port; SNS, SQS and Lambda's Invoke API on another. Every call to DynamoDB, SNS
//! and SQS passes the fault injector.

use std::path::PathBuf;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinHandle;

use crate::Error;
use crate::aws::faults::{Call, FaultInjector};
use crate::aws::protocol::Service;
use crate::aws::sns_sqs::SnsSqs;
use crate::lambda::invoke_api::{self, Functions};
use crate::net::server::{Answer, Port, Server, message};
use crate::recorder::Recorder;

/// More than any AWS request has: DynamoDB's own limit is 16 MB.
const LIMIT: usize = 20 * 1024 * 1024;

/// The served endpoints. Dropping them ends them and discards their data.
#[derive(Debug)]
pub struct Endpoints {
    dynamodb: Server,
    messages: Server,
    database: Option<JoinHandle<()>>,
    behind: Authority,
}

/// What the endpoints serve.
#[derive(Debug, Clone, Default)]
pub struct Holding {
    /// The host and port of another AWS emulator, to which all calls are forwarded; nothing is emulated here then.
    pub aws: Option<String>,
    /// The file of the table, which outlives the stack; without it the table is in memory.
    pub table: Option<PathBuf>,
    /// Records the messages that the topic delivers.
    pub recorder: Option<Recorder>,
}

impl Endpoints {
    /// Serves DynamoDB with the table of `holding`, and SNS and SQS without a topic or queue.
    ///
    /// `functions` is filled later, because the functions need the URLs of the endpoints.
    pub async fn start(
        dynamodb: Port,
        messages: Port,
        tap: &FaultInjector,
        functions: &Functions,
        holding: Holding,
    ) -> Result<Self, Error> {
        let Holding { aws, table, recorder } = holding;
        let (database, authority) = match &aws {
            Some(address) => (None, address.clone()),
            None => database(table)
                .await
                .map(|(database, address)| (Some(database), address))?,
        };
        let authority = Authority::try_from(authority).map_err(|error| Error::Start(error.to_string()))?;
        let upstream = Upstream {
            client: Client::builder(TokioExecutor::new()).build_http(),
            authority: authority.clone(),
        };

        let elsewhere = aws.as_ref().map(|_| upstream.clone());
        let dynamodb_tap = tap.clone();
        let dynamodb = dynamodb.serve(LIMIT, move |request, _| {
            let (tap, upstream) = (dynamodb_tap.clone(), upstream.clone());
            async move {
                if let Some(refused) = of_a_page(&request) {
                    return Some(refused);
                }
                let target = request
                    .headers()
                    .get("x-amz-target")
                    .and_then(|target| target.to_str().ok())
                    .unwrap_or_default();
                let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
                let call = call(Service::DynamoDb, operation, request.headers(), request.body());
                let (parts, _) = request.into_parts();
                tap.pass(call, |body| async move {
                    upstream.answer(Request::from_parts(parts, body)).await
                })
                .await
            }
        });

        let emulated = SnsSqs::new(messages.address(), recorder);
        let (messages_tap, functions) = (tap.clone(), functions.clone());
        let messages = messages.serve(LIMIT, move |request, _| {
            let (tap, emulated, functions) = (messages_tap.clone(), emulated.clone(), functions.clone());
            let elsewhere = elsewhere.clone();
            async move {
                if let Some(refused) = of_a_page(&request) {
                    return Some(refused);
                }
                match invoke_api::function_of(&request) {
                    Some(function) => Some(functions.answer(&function, request).await),
                    None => pass_message(&tap, emulated, elsewhere, request).await,
                }
            }
        });
        Ok(Self {
            dynamodb,
            messages,
            database,
            behind: authority,
        })
    }

    /// The URL of the table behind the fault injector: calls to it meet no faults and are not counted.
    pub fn table_url(&self) -> String {
        format!("http://{}", self.behind)
    }

    /// The URL of DynamoDB.
    pub fn dynamodb_url(&self) -> String {
        self.dynamodb.url()
    }

    /// The URL of SNS, SQS and Lambda.
    pub fn messages_url(&self) -> String {
        self.messages.url()
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        if let Some(database) = &self.database {
            database.abort();
        }
    }
}

/// Refuses the request of a web page, which must not do what an operator may. Browsers send these headers; no SDK does.
fn of_a_page(request: &Request<Bytes>) -> Option<Response<Bytes>> {
    let is_of_a_page = ["origin", "sec-fetch-site"]
        .iter()
        .any(|name| request.headers().contains_key(*name));
    is_of_a_page.then(|| {
        message(
            StatusCode::FORBIDDEN,
            "the AWS endpoints of the local stack do not answer web pages",
        )
    })
}

/// Starts a DynamoDB, and returns its address: the emulator can only be reached over HTTP.
async fn database(table: Option<PathBuf>) -> Result<(JoinHandle<()>, String), Error> {
    let database = match &table {
        None => dynoxide::Database::memory(),
        Some(file) => dynoxide::Database::new(&file.to_string_lossy()),
    };
    let database = database.map_err(|error| Error::Start(format!("DynamoDB does not start: {error}")))?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .map_err(Error::io("a port for DynamoDB"))?;
    let address = listener.local_addr().map_err(Error::io("a port for DynamoDB"))?;
    let database = tokio::spawn(dynoxide::server::serve_on(listener, database));
    Ok((database, address.to_string()))
}

async fn pass_message(
    tap: &FaultInjector,
    messages: SnsSqs,
    elsewhere: Option<Upstream>,
    request: Request<Bytes>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let (service, operation) = SnsSqs::operation(&parts.headers, &body);
    let call = call(service, operation, &parts.headers, &body);
    tap.pass(call, |body| async move {
        match (elsewhere, service) {
            (Some(elsewhere), _) => elsewhere.answer(Request::from_parts(parts, body)).await,
            (None, Service::Sns) => messages.sns(body).await,
            (None, _) => messages.sqs(&parts.headers, body).await,
        }
    })
    .await
}

/// The session token names the caller: it is the id of the environment.
fn call(service: Service, operation: String, headers: &HeaderMap, body: &Bytes) -> Call {
    let header = |name| headers.get(name)?.to_str().ok().map(str::to_owned);
    // For example `attempt=1; max=3`.
    let attempt = header("amz-sdk-request");
    let attempt = attempt.iter().flat_map(|request| request.split("; "));
    let attempt = attempt.filter_map(|part| part.strip_prefix("attempt=")?.parse::<u32>().ok());
    Call {
        service,
        operation,
        caller: header("x-amz-security-token"),
        is_retry: attempt.max().is_some_and(|attempt| attempt > 1),
        body: body.clone(),
    }
}

/// The emulator behind the fault injector.
#[derive(Debug, Clone)]
struct Upstream {
    client: Client<HttpConnector, Full<Bytes>>,
    authority: Authority,
}

impl Upstream {
    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        let mut request = request.map(Full::new);
        let path = request
            .uri()
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path)
            .build();
        let Ok(uri) = uri else {
            return message(StatusCode::BAD_REQUEST, "invalid path");
        };
        *request.uri_mut() = uri;
        // A fault may change the body, and the body of the answer.
        request.headers_mut().remove(http::header::CONTENT_LENGTH);
        let unreachable = |error: &dyn std::error::Error| {
            message(
                StatusCode::BAD_GATEWAY,
                &format!("the emulator does not answer: {error}"),
            )
        };
        match self.client.request(request).await {
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                parts.headers.remove(http::header::CONTENT_LENGTH);
                match body.collect().await {
                    Ok(body) => Response::from_parts(parts, body.to_bytes()),
                    Err(error) => unreachable(&error),
                }
            }
            Err(error) => unreachable(&error),
        }
    }
}
