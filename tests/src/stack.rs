//! A local stack for one test.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Request};
use jiff::Timestamp;
use local::aws::faults::{Fault, Rule, Service};
use local::aws::queue::Message;
use local::net::client::Client;
use local::project::build::workspace;
use local::project::settings::REDRIVE;
use local::project::template;
use local::providers::samples::{Catalogue, Fixture};
use local::providers::signing::{Credentials, sign};
use local::recorder::log::Log;
use local::stack::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::moto::Moto;
use crate::outbox::DENIED;
use crate::providers::ORDERS;
use crate::{binaries, catalogue, json_body, noise};

/// A running stack. If the test fails, the log of the stack is printed.
pub struct Stack {
    inner: local::stack::Stack,
    client: Client,
    catalogue: Catalogue,
    started_at: Timestamp,
    // Declared after the stack, so that it is dropped after it.
    _aws: Option<Moto>,
}

impl Stack {
    /// Starts a stack with the development settings.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts a stack with changed settings.
    pub async fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let functions = template::read(&workspace().join("template.yaml")).expect("the template's routes");
        let mut config = Config::new(functions, binaries().clone(), Log::memory());
        let aws = Moto::start().await;
        config.aws = aws.as_ref().map(|moto| moto.address().to_owned());
        configure(&mut config);
        let stack = local::stack::Stack::start(config).await.expect("the stack starts");
        Self {
            client: Client::new(&stack.url()).expect("a client"),
            catalogue: catalogue(),
            started_at: Timestamp::now(),
            inner: stack,
            _aws: aws,
        }
    }

    /// An event of `events/` with new, valid credentials.
    pub fn signed(&self, provider: &str, name: &str) -> Fixture {
        let mut fixture = self.unsigned(provider, name);
        self.sign(&mut fixture);
        fixture
    }

    /// An event of `events/` with a new identity, signed.
    pub fn renewed(&self, provider: &str, name: &str) -> Fixture {
        let mut fixture = self.unsigned(provider, name);
        fixture.renew().expect("an order");
        self.sign(&mut fixture);
        fixture
    }

    /// When the stack has started.
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// The events of `events/`.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// An event of `events/` as it is in its file.
    pub fn unsigned(&self, provider: &str, name: &str) -> Fixture {
        self.catalogue.event(provider, name).expect("an event")
    }

    /// Signs an event with the development credentials.
    pub fn sign(&self, fixture: &mut Fixture) {
        sign(fixture, &Credentials::default(), Timestamp::now()).expect("the event can be signed");
    }

    /// An order of Snipcart with `size` more bytes that do not compress.
    pub fn large(&self, size: usize) -> Fixture {
        let mut fixture = self.unsigned("snipcart", "order-completed");
        let mut order = json_body(&fixture);
        order["content"]["internalNotes"] = noise(size).into();
        fixture.set_body(order.to_string());
        self.sign(&mut fixture);
        fixture
    }

    /// The golden event of an event of `events/`, if that is published.
    pub fn golden(&self, provider: &str, name: &str) -> Option<Value> {
        self.catalogue.normalized(provider, name).expect("a golden event")
    }

    /// The names of a provider's events.
    pub fn events(&self, provider: &str) -> Vec<String> {
        self.catalogue.names().get(provider).cloned().unwrap_or_default()
    }

    /// Sends a signed event.
    pub async fn send(&self, fixture: &Fixture) -> Answer {
        self.send_request(fixture.to_request(&self.inner.url()).expect("a request"))
            .await
    }

    /// Sends a request.
    pub async fn send_request(&self, request: Request<Bytes>) -> Answer {
        let answer = self.client.send(request).await.expect("an answer");
        let (parts, body) = answer.into_parts();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(body.to_vec()).expect("text"),
        }
    }

    /// Signs an event of `events/` and sends it.
    pub async fn deliver(&self, provider: &str, name: &str) -> Answer {
        self.send(&self.signed(provider, name)).await
    }

    /// Sends bytes over a connection and reads the answer until the server closes it.
    pub async fn send_raw(&self, request: &[u8]) -> String {
        let address = self.inner.url();
        let mut stream = TcpStream::connect(address.trim_start_matches("http://"))
            .await
            .expect("a connection");
        stream.write_all(request).await.expect("the request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    /// The answer of the function `redrive` to a task.
    pub async fn ask(&self, task: Value) -> Value {
        self.inner.invoke(REDRIVE, &task).await.expect("an answer")
    }

    /// Makes every event in the outbox due and runs redrive.
    pub async fn redrive(&self) -> Value {
        self.inner
            .clients()
            .make_due(Timestamp::MAX)
            .await
            .expect("the items are written");
        self.ask(json!({"redrive": {}})).await
    }

    /// Sends `count` new events of all providers in turn, and returns their ids.
    pub async fn deliver_new(&self, count: usize) -> Vec<String> {
        let all: Vec<_> = ORDERS.into_iter().cycle().take(count).collect();
        let mut event_ids = Vec::with_capacity(count);
        // Ten at a time, so that a busy machine answers each in time.
        for some in all.chunks(10) {
            let sends = some.iter().map(|(provider, order)| async move {
                self.send(&self.renewed(provider, order)).await.event_id("accepted")
            });
            event_ids.extend(join_all(sends).await);
        }
        event_ids
    }

    /// Sends `count` new events while SNS is down, makes them due, and returns their ids.
    pub async fn left_by_an_outage(&self, count: usize) -> BTreeSet<String> {
        let down = self.tap().inject(Rule::all(Service::Sns), DENIED);
        let event_ids = self.deliver_new(count).await;
        drop(down);
        let due = self.clients().make_due(Timestamp::MAX).await;
        due.expect("the items are written");
        event_ids.into_iter().collect()
    }

    /// Lets SNS refuse the messages of due events until redrive gives an event up.
    pub async fn let_an_event_fail(&self) {
        let refusal = Fault::Answer {
            status: 400,
            code: "InvalidParameter",
        };
        let refused = self.tap().inject(Rule::new(Service::Sns, "PublishBatch"), refusal);
        while self.redrive().await["failed"] == 0 {}
        drop(refused);
    }

    /// The same event as `fixture` with another value in a field of its body, signed.
    pub fn with_another_body(&self, fixture: &Fixture, name: &str, value: Value) -> Fixture {
        let mut other = fixture.clone();
        let mut body = json_body(fixture);
        body[name] = value;
        other.set_body(body.to_string());
        self.sign(&mut other);
        other
    }

    /// Takes all messages out of the queue.
    pub async fn messages(&self) -> Vec<Message> {
        self.inner.queue().drain().await.expect("the queue can be read")
    }

    /// Asserts that nothing is stored and nothing was published.
    pub async fn assert_untouched(&self, why: &str) {
        assert_eq!(self.items().await, [], "{why}: something is stored");
        assert!(self.messages().await.is_empty(), "{why}: something was published");
    }
}

impl Deref for Stack {
    type Target = local::stack::Stack;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of the stack:\n  {}", self.inner.log().join("\n  "));
        }
    }
}

/// The answer to a request.
#[derive(Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The JSON of the body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?} is not JSON"))
    }

    /// A text in the JSON of the body.
    pub fn said(&self, name: &str) -> String {
        let json = self.json();
        json[name]
            .as_str()
            .unwrap_or_else(|| panic!("{self:?} has no {name}"))
            .to_owned()
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The event id in the answer, which must be 200 with this `status`.
    #[track_caller]
    pub fn event_id(&self, status: &str) -> String {
        assert_eq!((self.status, self.said("status").as_str()), (200, status), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        self.said("event_id")
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.status, self.text)
    }
}

/// Stops the processes of a function, as Lambda does between invocations, and returns their process ids.
pub async fn freeze(stack: &Stack, function: &str) -> Vec<u32> {
    let pids = stack.environments().pids(function);
    assert!(!pids.is_empty(), "{function} does not run");
    signal("-STOP", &pids).await;
    pids
}

/// Resumes stopped processes.
pub async fn thaw(pids: &[u32]) {
    signal("-CONT", pids).await;
}

async fn signal(signal: &str, pids: &[u32]) {
    let mut kill = Command::new("kill");
    kill.arg(signal).args(pids.iter().map(u32::to_string));
    assert!(kill.status().await.expect("kill").success());
}
