//! The harness of the end-to-end tests: every test has a local stack of its own, with an empty store, on free ports, and the
//! real binaries behind it. With `MOTO_SERVER`, AWS is moto's and not the local stack's own.

pub mod alerts;
pub mod attacks;
pub mod authentic;
pub mod browser;
pub mod moto;
pub mod outbox;
pub mod payloads;
pub mod secrets_manager;
pub mod telemetry;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::{Read as _, Write as _};
use std::ops::Deref;
use std::sync::OnceLock;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use http::{HeaderMap, Request};
use jiff::{SignedDuration, Timestamp};
use local::binaries::{Binaries, Output, workspace};
use local::client::Client;
use local::fixture::{Catalogue, Fixture};
use local::log::Log;
use local::queue::Message;
use local::settings::REDRIVE;
use local::signing::{Credentials, sign};
use local::stack::Config;
use local::tap::{Rule, Service};
use local::{NAME, template};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::moto::Moto;
use crate::outbox::DENIED;

/// An item of the table.
pub type Item = HashMap<String, AttributeValue>;

/// Providers with an event each that is a plain order.
pub const ORDERS: [(&str, &str); 5] = [
    ("selldone", "checkout-order"),
    ("cartum", "order-created"),
    ("deeple", "order-changed"),
    ("aboutyou", "order-created"),
    ("snipcart", "order-completed"),
];

/// The event of [`ORDERS`] of a provider.
pub fn order_of(provider: &str) -> &'static str {
    let known = ORDERS.iter().find(|(name, _)| *name == provider);
    known.expect("a provider").1
}

/// A running stack. When the test fails, what the stack said is shown.
pub struct Stack {
    inner: local::stack::Stack,
    client: Client,
    catalogue: Catalogue,
    // Behind the stack, so that it ends after it.
    _aws: Option<Moto>,
}

impl Stack {
    /// A stack with the development settings.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A stack that is configured otherwise.
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
            inner: stack,
            _aws: aws,
        }
    }

    /// An event of `events/`, signed now.
    pub fn signed(&self, provider: &str, name: &str) -> Fixture {
        let mut fixture = self.unsigned(provider, name);
        self.sign(&mut fixture);
        fixture
    }

    /// An event of `events/` as it lies there.
    pub fn unsigned(&self, provider: &str, name: &str) -> Fixture {
        self.catalogue.event(provider, name).expect("an event")
    }

    /// Signs an event with the development secrets.
    pub fn sign(&self, fixture: &mut Fixture) {
        sign(fixture, &Credentials::default(), Timestamp::now()).expect("it can be signed");
    }

    /// A Snipcart order of `size` bytes and more that do not compress.
    pub fn large(&self, size: usize) -> Fixture {
        let mut fixture = self.unsigned("snipcart", "order-completed");
        let mut order: Value = serde_json::from_slice(&fixture.body().expect("a body")).expect("JSON");
        order["content"]["internalNotes"] = noise(size).into();
        fixture.set_body(order.to_string());
        self.sign(&mut fixture);
        fixture
    }

    /// The golden event for an event of `events/`, if it is published.
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

    /// Sends any request.
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

    /// Sends bytes as they are and reads the answer until the server closes.
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

    /// What the function `redrive` answers to a task.
    pub async fn ask(&self, task: Value) -> Value {
        self.inner.invoke(REDRIVE, &task).await.expect("an answer")
    }

    /// Publishes what waits in the outbox, as if its time had come.
    pub async fn redrive(&self) -> Value {
        self.inner
            .clients()
            .make_due(Timestamp::MAX)
            .await
            .expect("the table takes it");
        self.ask(json!({"redrive": {}})).await
    }

    /// Sends `count` events, of all providers by turns and each a new one, and gives their ids.
    pub async fn deliver_new(&self, count: usize) -> Vec<String> {
        let all: Vec<_> = ORDERS.into_iter().cycle().take(count).collect();
        let mut event_ids = Vec::with_capacity(count);
        // Few enough at once that a busy machine answers each in time.
        for some in all.chunks(10) {
            let sends = some.iter().map(|(provider, order)| async move {
                let mut fixture = self.unsigned(provider, order);
                fixture.renew().expect("an order");
                self.sign(&mut fixture);
                self.send(&fixture).await.event_id("accepted")
            });
            event_ids.extend(join_all(sends).await);
        }
        event_ids
    }

    /// Sends `count` new events while SNS is down, which are all due after it, and gives their ids.
    pub async fn left_by_an_outage(&self, count: usize) -> BTreeSet<String> {
        let down = self.tap().inject(Rule::all(Service::Sns), DENIED);
        let event_ids = self.deliver_new(count).await;
        drop(down);
        let due = self.clients().make_due(Timestamp::MAX).await;
        due.expect("the table takes it");
        event_ids.into_iter().collect()
    }

    /// How many events are in each state.
    pub async fn states(&self) -> BTreeMap<String, usize> {
        let mut states = BTreeMap::new();
        for item in self
            .items()
            .await
            .iter()
            .filter(|item| item["sk"].as_s().is_ok_and(|key| key == "head"))
        {
            *states.entry(state(item).to_owned()).or_default() += 1;
        }
        states
    }

    /// The ids of the events that wait in the outbox.
    pub async fn pending(&self) -> Vec<String> {
        let items = self.items().await;
        let pending = items
            .iter()
            .filter(|item| item["sk"].as_s().is_ok_and(|key| key == "head") && state(item) == "pending");
        pending.map(|item| item["pk"].as_s().expect("a text").clone()).collect()
    }

    /// The events of the outbox that are due first in the shard of `event_id`.
    pub async fn first_due(&self, event_id: &str, count: usize) -> Vec<String> {
        let work = self.head(event_id).await["work"].clone();
        let query = self
            .inner
            .clients()
            .dynamodb
            .query()
            .table_name(NAME)
            .index_name("work");
        let query = query
            .key_condition_expression("#work = :work")
            .expression_attribute_names("#work", "work")
            .expression_attribute_values(":work", work);
        let page = query.send().await.expect("the index can be read");
        let ids = page
            .items()
            .iter()
            .map(|item| item["pk"].as_s().expect("a text").clone());
        ids.take(count).collect()
    }

    /// Deletes the head item of an event.
    pub async fn erase_by_hand(&self, event_id: &str) {
        let text = |value: &str| AttributeValue::S(value.to_owned());
        let delete = self.inner.clients().dynamodb.delete_item().table_name(NAME);
        let delete = delete.key("pk", text(event_id)).key("sk", text("head"));
        delete.send().await.expect("it is deleted");
    }

    /// Replaces the stored event of a head by another.
    pub async fn rewrite_event(&self, event_id: &str, event: &Value) {
        let mut head = self.head(event_id).await;
        head.insert("event".to_owned(), compressed(event.to_string().as_bytes()));
        self.put(head).await;
    }

    /// Writes an item by hand.
    pub async fn put(&self, item: Item) {
        let put = self
            .inner
            .clients()
            .dynamodb
            .put_item()
            .table_name(NAME)
            .set_item(Some(item));
        put.send().await.expect("the table takes it");
    }

    /// A quarantined event of Selldone whose kept body is now `body`; `event_id` gives its id from the one that it was sent as.
    pub async fn quarantined(&self, body: &[u8], event_id: impl FnOnce(&str) -> String) -> String {
        let text = |value: &str| AttributeValue::S(value.to_owned());
        let mut fixture = self.unsigned("selldone", "checkout-order");
        fixture.renew().expect("an order");
        let mut unknown: Value = serde_json::from_slice(&fixture.body().expect("a body")).expect("JSON");
        unknown["action"] = "SomethingNew".into();
        fixture.set_body(unknown.to_string());
        self.sign(&mut fixture);
        let sent_as = self.send(&fixture).await.event_id("quarantined");
        let mut head: Item = self.head(&sent_as).await;
        let kept_as = event_id(&sent_as);
        head.insert("pk".to_owned(), text(&kept_as));
        head.insert("event_id".to_owned(), text(&kept_as));
        head.insert("payload".to_owned(), compressed(body));
        if kept_as != sent_as {
            let delete = self.inner.clients().dynamodb.delete_item().table_name(NAME);
            let delete = delete.key("pk", text(&sent_as)).key("sk", text("head"));
            delete.send().await.expect("it is deleted");
        }
        self.put(head).await;
        kept_as
    }

    /// Makes of a stored event what a version of this code would have kept that did not understand it: quarantined since
    /// `since`, in one shard of the index, under the id `old`.
    pub async fn not_understood(&self, event_id: &str, old: &str, since: Timestamp, shard: usize) {
        let text = |value: String| AttributeValue::S(value);
        let mut head = self.head(event_id).await;
        self.erase_by_hand(event_id).await;
        for name in [
            "event",
            "event_parts",
            "type",
            "time",
            "order",
            "order_key",
            "order_sort",
            "published_at",
        ] {
            head.remove(name);
        }
        for (name, value) in [
            ("pk", old.to_owned()),
            ("event_id", old.to_owned()),
            ("state", "quarantined".to_owned()),
            ("reason", "unknown_event".to_owned()),
            ("work", format!("quarantined#{shard}")),
            ("next_attempt_at", format!("{since:.3}")),
            ("received_at", format!("{since:.3}")),
        ] {
            head.insert(name.to_owned(), text(value));
        }
        self.put(head).await;
    }

    /// Moves the head of an event to another state, which is in no index of work.
    pub async fn set_state(&self, event_id: &str, state: &str) {
        let mut head = self.head(event_id).await;
        head.insert("state".to_owned(), AttributeValue::S(state.to_owned()));
        head.remove("work");
        head.remove("next_attempt_at");
        self.put(head).await;
    }

    /// The same event as `fixture` with another body, signed.
    pub fn with_another_body(&self, fixture: &Fixture, name: &str, value: Value) -> Fixture {
        let mut other = fixture.clone();
        let mut body: Value = serde_json::from_slice(&fixture.body().expect("a body")).expect("JSON");
        body[name] = value;
        other.set_body(body.to_string());
        self.sign(&mut other);
        other
    }

    /// Moves the table `by` into the past, as if so much time had passed: every time in it that a function reads, and the keys that
    /// follow from one. Redrive has run all the while: a retention was seen just now.
    pub async fn let_time_pass(&self, by: SignedDuration) {
        let earlier = |text: &str| {
            let time: Timestamp = text.parse().expect("a time");
            format!("{:.3}", time - by)
        };
        let table = &self.inner.clients().dynamodb;
        for mut item in self.all_items().await {
            for (name, value) in &mut item {
                *value = match (name.as_str(), &*value) {
                    (
                        "received_at" | "next_attempt_at" | "published_at" | "dismissed_at" | "erased_at" | "since"
                        | "first_seen" | "last_seen" | "last_at",
                        AttributeValue::S(time),
                    ) => AttributeValue::S(earlier(time)),
                    ("alert" | "cursor", AttributeValue::S(json)) => {
                        let mut json = serde_json::from_str(json).expect("JSON");
                        alerts::change_times(&mut json, &earlier);
                        AttributeValue::S(json.to_string())
                    }
                    ("expires_at", AttributeValue::N(seconds)) => {
                        let seconds: i64 = seconds.parse().expect("seconds");
                        AttributeValue::N((seconds - by.as_secs()).to_string())
                    }
                    ("order_sort", AttributeValue::S(key)) => {
                        let (time, id) = key.split_once('#').expect("a time and an id");
                        AttributeValue::S(format!("{}#{id}", earlier(time)))
                    }
                    ("hour", AttributeValue::S(key)) => {
                        let [shard, hour, of] = key.rsplitn(3, '#').collect::<Vec<_>>()[..] else {
                            panic!("{key} names no hour")
                        };
                        let hour = earlier(&format!("{hour}:00:00Z"));
                        AttributeValue::S(format!("{of}#{}#{shard}", &hour[..13]))
                    }
                    (_, value) => value.clone(),
                };
            }
            let put = table.put_item().table_name(NAME).set_item(Some(item));
            put.send().await.expect("the table takes it");
        }
    }

    /// All items of the table but those that are kept for alerts.
    pub async fn items(&self) -> Vec<Item> {
        let mut items = self.all_items().await;
        items.retain(|item| !alerts::is_for_alerts(item));
        items
    }

    /// All items of the table.
    pub async fn all_items(&self) -> Vec<Item> {
        let pages = self
            .inner
            .clients()
            .dynamodb
            .scan()
            .table_name(NAME)
            .consistent_read(true)
            .into_paginator();
        let items: Result<Vec<Item>, _> = pages.items().send().collect().await;
        items.expect("the table can be read")
    }

    /// The head item of an event.
    pub async fn head(&self, event_id: &str) -> Item {
        let head = self.item(event_id, "head").await;
        head.expect("the event is stored")
    }

    async fn item(&self, event_id: &str, sort_key: &str) -> Option<Item> {
        let key = |value: &str| AttributeValue::S(value.to_owned());
        let get = self
            .inner
            .clients()
            .dynamodb
            .get_item()
            .table_name(NAME)
            .consistent_read(true);
        let got = get.key("pk", key(event_id)).key("sk", key(sort_key)).send().await;
        got.expect("the table can be read").item
    }

    /// A value that is kept compressed, in the head or in parts.
    pub async fn value(&self, event_id: &str, name: &str) -> Vec<u8> {
        let head = self.head(event_id).await;
        let mut compressed = Vec::new();
        match (head.get(name), head.get(&format!("{name}_parts"))) {
            (Some(AttributeValue::B(bytes)), None) => compressed.extend_from_slice(bytes.as_ref()),
            (None, Some(AttributeValue::L(names))) => {
                for name in names {
                    let name = name.as_s().expect("a part's name");
                    // The previous version kept parts in the event's own partition.
                    let part = if name.starts_with(&format!("part#{event_id}#")) {
                        self.item(name, "part").await
                    } else {
                        self.item(event_id, name).await
                    };
                    let part = part.expect("the part is there");
                    compressed.extend_from_slice(part["data"].as_b().expect("bytes").as_ref());
                }
            }
            other => panic!("{name} is kept as {other:?}"),
        }
        let mut value = Vec::new();
        GzDecoder::new(&compressed[..])
            .read_to_end(&mut value)
            .expect("it is compressed");
        value
    }

    /// The stored order event.
    pub async fn stored_event(&self, event_id: &str) -> Value {
        serde_json::from_slice(&self.value(event_id, "event").await).expect("an event")
    }

    /// Replaces the stored order event, as if another version of the mapping had written it.
    pub async fn put_stored_event(&self, event_id: &str, event: &Value) {
        let mut head = self.head(event_id).await;
        head.insert("event".to_owned(), compressed(event.to_string().as_bytes()));
        self.put(head).await;
    }

    /// Makes of an event a tombstone that is over, and that DynamoDB has not deleted yet.
    pub async fn let_tombstone_end(&self, event_id: &str) {
        assert_eq!(
            self.ask(json!({"erase": {"event_id": event_id, "dry_run": false}}))
                .await["erased"],
            1
        );
        let mut head = self.head(event_id).await;
        head.insert("expires_at".to_owned(), AttributeValue::N("1".to_owned()));
        self.put(head).await;
    }

    /// Takes all messages that are in the queue.
    pub async fn messages(&self) -> Vec<Message> {
        self.inner.queue().drain().await.expect("the queue can be read")
    }

    /// Nothing is stored, and nothing was published.
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
            eprintln!("the stack said:\n  {}", self.inner.log().join("\n  "));
        }
    }
}

/// What a provider gets.
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
    /// The body's JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?} is not JSON"))
    }

    /// A text of the body's JSON.
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

    /// The event's id in an answer of 200 with `status`.
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

/// Stops the processes of a function, as Lambda does between events, and returns their ids.
pub async fn freeze(stack: &Stack, function: &str) -> Vec<u32> {
    let pids = stack.environments().pids(function);
    assert!(!pids.is_empty(), "{function} runs");
    signal("-STOP", &pids).await;
    pids
}

/// Lets processes go on.
pub async fn thaw(pids: &[u32]) {
    signal("-CONT", pids).await;
}

async fn signal(signal: &str, pids: &[u32]) {
    let mut kill = Command::new("kill");
    kill.arg(signal).args(pids.iter().map(u32::to_string));
    assert!(kill.status().await.expect("kill").success());
}

/// The state of a head item.
pub fn state(head: &Item) -> &str {
    head["state"].as_s().expect("a word")
}

fn compressed(value: &[u8]) -> AttributeValue {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(value).expect("memory");
    AttributeValue::B(Blob::new(encoder.finish().expect("memory")))
}

/// Text that does not compress: hexadecimal digits of a hash chain would by half, so all 64 digits of base64 are used.
pub fn noise(length: usize) -> String {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        // splitmix64: the same text in every run.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    })
    .flatten()
    .take(length * 3 / 4)
    .collect();
    STANDARD.encode(bytes)
}

/// The workspace's binaries, built once in a test process: they are those of the sources as they are now.
pub fn binaries() -> &'static Binaries {
    static BINARIES: OnceLock<Binaries> = OnceLock::new();
    BINARIES.get_or_init(|| {
        let built = Binaries::build(&workspace(), Output::Diagnostics);
        built.unwrap_or_else(|error| panic!("{error}"))
    })
}

/// `cargo local`'s own binary.
pub fn local_command() -> Command {
    Command::new(binaries().get("local").expect("the binary"))
}

/// The events of `events/`.
pub fn catalogue() -> Catalogue {
    Catalogue::read(workspace().join("events")).expect("events/")
}
