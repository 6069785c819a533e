//! The table: what was received, where it stands, and the outbox. One conditional write decides who was first.
//!
//! A head item (`sk` = `head`) is an event. Values that do not fit into it are first written to part items, which are named by
//! their own hash, so that attempts never mix; the head's conditional write commits the event. See the module `parts`.

use std::collections::{BTreeSet, HashMap};
use std::io::Read as _;
use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::get_item::GetItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use flate2::read::GzDecoder;
use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::answer::Reason;
use crate::aws;
use crate::delivery::Delivery;
use crate::event::OrderEvent;
pub use crate::identity::SHARDS;
use crate::identity::{EventId, Shop, sha256_hex};
use crate::publisher::Stored;
use crate::settings::{SettingError, Settings};
use crate::verification::Verified;

mod alerts;
mod backlog;
mod compressed;
mod conflicts;
mod erasure;
mod event_items;
mod history;
mod lease;
mod outbox;
mod parts;
mod retention;
#[cfg(test)]
mod scale;
mod shops;
mod signals;

pub use alerts::{ALERTS_AT_ONCE, AlertItem, Alerts, Finding, Source};
pub use compressed::EventJson;
pub use conflicts::{Conflict, KeptConflict, PublishedConflict};
pub use erasure::ErasedBy;
use event_items::{EventItems, sortable};
pub use history::{Hour, Received};
pub use lease::StartedRun;
use outbox::ASK_FOR_REST_AFTER;
pub use outbox::{Projection, Superseded, WorkCursor};
use parts::{Commit, Condition, part_key};
pub use parts::{ManifestPlace, Orphan};
pub use retention::{Expiring, Expiry, Retained, Retention, Trimmed};
pub use shops::KnownShop;
pub(crate) use signals::SAMPLES_AT_ONCE;
pub use signals::Signal;

type Item = HashMap<String, AttributeValue>;

/// When redrive first looks after an event that its delivery left unpublished.
const FIRST_REDRIVE_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// How long a delivery that has just stored an event may take to publish it before a repeat does.
const LEASE: SignedDuration = SignedDuration::from_secs(3);

/// The events of one table.
pub struct Store {
    client: aws_sdk_dynamodb::Client,
    table: String,
    retention: Retention,
}

/// The table cannot be used. Nothing may be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// DynamoDB refused or was not reached; the text holds no item.
    #[error("DynamoDB: {0}")]
    DynamoDb(String),
    /// There was no answer in the time there is.
    #[error("DynamoDB did not answer in time")]
    Timeout,
    /// The parts that an earlier try has left are being deleted. It may be tried again in a minute.
    #[error("the parts of an earlier try are being deleted")]
    Swept,
    /// An item is not as this project writes it.
    #[error("the stored item is damaged: {0}")]
    Corrupt(&'static str),
}

impl StoreError {
    /// Whether DynamoDB asks for fewer calls.
    pub fn is_throttling(&self) -> bool {
        matches!(self, Self::DynamoDb(code) if aws::is_throttling(code))
    }
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Stored, waiting in the outbox to be published.
    Pending,
    /// Published.
    Published,
    /// SNS refuses the message for good.
    Failed,
    /// Not understood.
    Quarantined,
    /// No order event.
    Unsupported,
    /// Stored again under another id.
    Superseded,
    /// A tombstone: its content is erased, and it is known never to happen again.
    Erased,
}

impl State {
    const ALL: [Self; 7] = [
        Self::Pending,
        Self::Published,
        Self::Failed,
        Self::Quarantined,
        Self::Unsupported,
        Self::Superseded,
        Self::Erased,
    ];

    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Published => "published",
            Self::Failed => "failed",
            Self::Quarantined => "quarantined",
            Self::Unsupported => "unsupported",
            Self::Superseded => "superseded",
            Self::Erased => "erased",
        }
    }

    /// Whether somebody still has to do something about it: such events are in the index `work`.
    fn is_work(self) -> bool {
        matches!(self, Self::Pending | Self::Failed | Self::Quarantined)
    }
}

/// One try to store and publish an event: an SDK that repeats a write meets its own, and whoever publishes has the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptId(String);

impl AttemptId {
    /// A random one.
    pub fn random() -> Self {
        Self(format!("{:032x}", fastrand::u128(..)))
    }
}

/// An event to be written.
pub struct NewEvent<'a> {
    /// Its id.
    pub id: &'a EventId,
    /// The provider's slug.
    pub provider: &'static str,
    /// The delivery it came with.
    pub delivery: &'a Verified<Delivery>,
    /// What it is.
    pub content: Content<'a>,
}

/// What an event is, and with it the state it is first written in.
#[derive(Clone, Copy)]
pub enum Content<'a> {
    /// An order event and its JSON: written as pending.
    Order(&'a OrderEvent, &'a EventJson),
    /// No order event.
    Unsupported,
    /// Not understood; with the order's id, where the body is clearly an order.
    Quarantined(Reason, Option<&'a str>),
}

impl Content<'_> {
    fn state(self) -> State {
        match self {
            Self::Order(..) => State::Pending,
            Self::Unsupported => State::Unsupported,
            Self::Quarantined(..) => State::Quarantined,
        }
    }
}

/// How a conditional write ended.
pub enum Put {
    /// The event is new and stored.
    Stored,
    /// The event was there before.
    Existing(Box<Head>),
    /// An earlier try has begun to write its parts, and received it at this time: the entry is to be made as of then, so that what
    /// is written need not be written again.
    InProgress(Timestamp),
}

/// An event as it stands in the table.
pub struct Head {
    /// Where it stands.
    pub state: State,
    /// Why it is quarantined.
    pub reason: Option<Reason>,
    /// How often SNS has blamed the event's message.
    pub attempts: u32,
    /// How often the event was put off for an error that SNS does not blame on its message.
    pub deferrals: u32,
    /// How often in a row a run of redrive has leased the event and not come back.
    pub leases: u32,
    payload_sha256: String,
    attempt_id: String,
    next_attempt_at: Option<Timestamp>,
    item: Item,
}

impl Head {
    fn read(item: Item) -> Result<Self, StoreError> {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).map(String::as_str);
        let count = |name: &str| {
            let count = item.get(name).and_then(|count| count.as_n().ok()?.parse().ok());
            count.unwrap_or(0)
        };
        let state = text("state").and_then(|word| State::ALL.into_iter().find(|state| state.as_str() == word));
        Ok(Self {
            state: state.ok_or(StoreError::Corrupt("state"))?,
            reason: text("reason").and_then(Reason::from_word),
            attempts: count("attempts"),
            deferrals: count("deferrals"),
            leases: count("leases"),
            payload_sha256: text("payload_sha256")
                .ok_or(StoreError::Corrupt("payload_sha256"))?
                .to_owned(),
            attempt_id: text("attempt_id").ok_or(StoreError::Corrupt("attempt_id"))?.to_owned(),
            next_attempt_at: text("next_attempt_at").and_then(|time| time.parse().ok()),
            item,
        })
    }

    /// Whether an event came of it.
    pub fn has_event(&self) -> bool {
        ["event", "event_parts"]
            .iter()
            .any(|name| self.item.contains_key(*name))
    }

    /// When it was first received.
    pub fn received_at(&self) -> Option<Timestamp> {
        self.text("received_at")?.parse().ok()
    }

    /// The operator's name of the shop.
    pub fn shop(&self) -> Option<&str> {
        self.text("shop")
    }

    /// The provider's slug.
    pub fn provider(&self) -> Option<&str> {
        self.text("provider")
    }

    /// The event's type.
    pub fn event_type(&self) -> Option<&str> {
        self.text("type")
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.item.get(name)?.as_s().ok().map(String::as_str)
    }

    /// The hash of the body that it was stored with.
    pub fn payload_sha256(&self) -> &str {
        &self.payload_sha256
    }

    /// Whether somebody has dismissed it.
    pub fn is_dismissed(&self) -> bool {
        self.text("dismissed_at").is_some()
    }

    /// Whether it is a tombstone whose erasure has come to its end.
    pub fn is_erased_to_its_end(&self) -> bool {
        self.state == State::Erased
            && ["erasing", "order_key"]
                .iter()
                .all(|name| !self.item.contains_key(*name))
    }

    /// Whether an erasure of it has begun and has not come to its end.
    pub fn is_being_erased(&self) -> bool {
        self.item.contains_key("erasing")
    }

    /// Whether it was stored with this body.
    pub fn has_body(&self, body: &[u8]) -> bool {
        self.payload_sha256 == sha256_hex(body)
    }

    /// Whether its next attempt is due.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.next_attempt_at.is_none_or(|next| next <= now)
    }

    /// Until when the delivery that wrote it last may still be publishing it.
    pub fn leased_until(&self) -> Option<Timestamp> {
        Some(self.next_attempt_at? - FIRST_REDRIVE_AFTER + LEASE)
    }

    /// Whether redrive has put it off: redrive alone publishes it then, at its own pace.
    pub fn is_put_off(&self) -> bool {
        self.attempts > 0 || self.deferrals > 0 || self.leases > 0
    }
}

impl Store {
    /// The table `TABLE_NAME`.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            client: aws::dynamodb(settings)?,
            table: settings.required("TABLE_NAME")?,
            retention: Retention::from_settings(settings)?,
        })
    }

    /// Asks for an item that is never there, so that the connection stands and the client has worked once.
    pub async fn connect(&self) -> Result<(), StoreError> {
        let key = |text: &str| AttributeValue::S(text.to_owned());
        let get = self.client.get_item().table_name(&self.table);
        let get = get.key("pk", key("connect")).key("sk", key("connect"));
        get.send()
            .await
            .map_err(|error| StoreError::DynamoDb(describe(&error)))?;
        Ok(())
    }

    /// Writes an event if it is not there yet: its parts first, then its head, on the condition that there is none but a tombstone
    /// that is over.
    pub async fn put(
        &self,
        new_event: &NewEvent<'_>,
        attempt: &AttemptId,
        policy: impl Into<RetryPolicy>,
    ) -> Result<Put, StoreError> {
        let mut written = EventItems::of(new_event, attempt);
        let policy = policy.into().with_parts(!written.parts.is_empty());
        if !written.parts.is_empty() {
            let earlier = self.earlier_try(new_event.id, &written.payload_sha256, policy);
            let (head, received_at) = earlier.await?;
            // The event's parts follow from the payload and from when it was received.
            if let Some(first) = received_at
                && sortable(first) != sortable(new_event.delivery.received_at())
            {
                return Ok(Put::InProgress(first));
            }
            if let Some(head) = head.filter(|head| !retention::is_over(head, Timestamp::now())) {
                return Ok(Put::Existing(Box::new(Head::read(head)?)));
            }
        }
        let (state, received_at) = (new_event.content.state(), new_event.delivery.received_at());
        self.retention
            .mark_new(&mut written.head, new_event.id, state, received_at);
        let end_of_manifest = self.put_parts(new_event, &mut written, BTreeSet::new(), policy).await?;
        let condition = Condition::absent(Timestamp::now());
        let commit = self.commit(&written.head, &condition, end_of_manifest, policy);
        let item = match commit.await? {
            Commit::Done => return Ok(Put::Stored),
            Commit::Refused(item) => item,
        };
        let head = Head::read(item)?;
        // A write whose answer was lost meets itself.
        if head.attempt_id == attempt.0 {
            Ok(Put::Stored)
        } else {
            Ok(Put::Existing(Box::new(head)))
        }
    }

    /// The JSON of the stored order event exactly as it was written.
    pub async fn event(&self, id: &EventId, head: &Head) -> Result<Stored, StoreError> {
        let json = String::from_utf8(self.value(id, head, "event").await?);
        let json = json.map_err(|_| StoreError::Corrupt("event"))?;
        Ok(Stored { json })
    }

    /// The delivery that an event came with.
    pub async fn delivery(&self, id: &EventId, head: &Head) -> Result<Verified<Delivery>, StoreError> {
        let request = head.item.get("request").and_then(|request| request.as_m().ok());
        let request = request.ok_or(StoreError::Corrupt("request"))?;
        let method = request
            .get("method")
            .and_then(|method| method.as_s().ok()?.parse().ok());
        let query: HashMap<String, Vec<String>> = request
            .get("query")
            .and_then(|query| query.as_m().ok())
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), texts(value)?)))
            .collect();
        Ok(Verified::kept(Delivery::kept(
            method.ok_or(StoreError::Corrupt("request"))?,
            head.shop().and_then(Shop::parse).ok_or(StoreError::Corrupt("shop"))?,
            query.into(),
            self.value(id, head, "payload").await?,
            head.received_at().ok_or(StoreError::Corrupt("received_at"))?,
        )))
    }

    /// One of the two large values, wherever it is kept.
    async fn value(&self, id: &EventId, head: &Head, name: &'static str) -> Result<Vec<u8>, StoreError> {
        let compressed = match (head.item.get(name), head.item.get(&format!("{name}_parts"))) {
            (Some(AttributeValue::B(bytes)), _) => bytes.as_ref().to_vec(),
            (None, Some(AttributeValue::L(names))) => self.parts(id, names).await?,
            _ => return Err(StoreError::Corrupt(name)),
        };
        let mut value = Vec::new();
        GzDecoder::new(&compressed[..])
            .read_to_end(&mut value)
            .map_err(|_| StoreError::Corrupt(name))?;
        Ok(value)
    }

    async fn parts(&self, id: &EventId, names: &[AttributeValue]) -> Result<Vec<u8>, StoreError> {
        let parts = names.iter().map(|name| async move {
            let name = name.as_s().map_err(|_| StoreError::Corrupt("a part's name"))?;
            let item = self
                .get_by_key(part_key(id, name))
                .await
                .map_err(|error| StoreError::DynamoDb(describe(&error)))?
                .ok_or(StoreError::Corrupt("a part is missing"))?;
            match item.get("data") {
                Some(AttributeValue::B(bytes)) => Ok(bytes.as_ref().to_vec()),
                _ => Err(StoreError::Corrupt("a part")),
            }
        });
        Ok(try_join_all(parts).await?.concat())
    }

    async fn get(&self, id: &EventId, sort_key: &str) -> Result<Option<Item>, StoreError> {
        self.get_by_key(item_key(id.as_str(), sort_key))
            .await
            .map_err(|error| StoreError::DynamoDb(describe(&error)))
    }

    async fn get_by_key(&self, key: Item) -> Result<Option<Item>, SdkError<GetItemError>> {
        let get = self.client.get_item().table_name(&self.table).consistent_read(true);
        Ok(get.set_key(Some(key)).send().await?.item)
    }

    /// The event as it stands now.
    pub async fn head(&self, id: &EventId) -> Result<Head, StoreError> {
        Head::read(
            self.get(id, "head")
                .await?
                .ok_or(StoreError::Corrupt("the head is missing"))?,
        )
    }

    async fn update<'a>(
        &self,
        id: &EventId,
        change: &str,
        condition: &str,
        values: impl IntoIterator<Item = (&'a str, AttributeValue)>,
    ) -> Result<bool, StoreError> {
        let mut update = self.client.update_item().table_name(&self.table);
        update = update
            .key("pk", AttributeValue::S(id.to_string()))
            .key("sk", AttributeValue::S("head".to_owned()));
        update = update.update_expression(change).condition_expression(condition);
        for (placeholder, name) in [
            ("#state", "state"),
            ("#work", "work"),
            ("#order", "order"),
            ("#hour", "hour"),
            ("#request", "request"),
        ] {
            if change.contains(placeholder) || condition.contains(placeholder) {
                update = update.expression_attribute_names(placeholder, name);
            }
        }
        for (name, value) in values {
            update = update.expression_attribute_values(name, value);
        }
        match update.send().await {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(StoreError::DynamoDb(describe(&error))),
        }
    }
}

/// The key of an item.
fn item_key(pk: &str, sk: &str) -> Item {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    HashMap::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))])
}

/// The texts of a list.
fn texts(list: &AttributeValue) -> Option<Vec<String>> {
    list.as_l()
        .ok()?
        .iter()
        .map(|value| value.as_s().ok().cloned())
        .collect()
}

/// The key of a head in an index: where a reading goes on.
fn index_key(hash: (&str, AttributeValue), range: (&str, &str), id: &str) -> Item {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    HashMap::from([
        (hash.0.to_owned(), hash.1),
        (range.0.to_owned(), text(range.1)),
        ("pk".to_owned(), text(id)),
        ("sk".to_owned(), text("head")),
    ])
}

/// The events that a page of an index names.
fn ids_of(items: &[Item]) -> Vec<EventId> {
    let ids = items
        .iter()
        .filter_map(|item| Some(EventId::stored(item.get("pk")?.as_s().ok()?)));
    ids.collect()
}

/// How long a write is tried.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    until: Instant,
    with_parts_until: Instant,
    retries_access_errors: bool,
}

impl RetryPolicy {
    /// Tries until `until`; an entry that needs parts, which take longer to write, until `with_parts_until`.
    pub fn new(until: Instant, with_parts_until: Instant) -> Self {
        Self {
            until,
            with_parts_until,
            retries_access_errors: false,
        }
    }

    /// Tries again after an error of access too: what is not stored now cannot be sent again, and a permission may be given back.
    #[must_use]
    pub fn retrying_access_errors(self) -> Self {
        Self {
            retries_access_errors: true,
            ..self
        }
    }

    fn with_parts(self, has_parts: bool) -> Self {
        Self {
            until: if has_parts { self.with_parts_until } else { self.until },
            ..self
        }
    }

    /// Whether the same call may succeed a moment later.
    fn allows<E: ProvideErrorMetadata>(self, error: &SdkError<E>) -> bool {
        let is_one_of = |codes: &[&str]| error.code().is_some_and(|code| codes.contains(&code));
        let is_invalid = is_one_of(&["ValidationException", "ResourceNotFoundException"])
            // A transaction names the faults of its parts in its message.
            || error.message().is_some_and(|message| message.contains("ValidationError"));
        !is_invalid && (self.retries_access_errors || !is_one_of(&ACCESS_ERRORS))
    }
}

impl From<Instant> for RetryPolicy {
    fn from(until: Instant) -> Self {
        Self::new(until, until)
    }
}

/// What DynamoDB says where the function's role or its credentials are the fault.
const ACCESS_ERRORS: [&str; 7] = [
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "UnrecognizedClientException",
];

/// The first wait before another try; each next one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Tries until it works, fails for good, or there is no time left. The error is then that of the last try.
async fn retry_until<T, E, F>(policy: RetryPolicy, mut operation: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, SdkError<E>>>,
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let mut tries = 0_u32;
    let mut last = None;
    let mut wait = FIRST_WAIT;
    let trying = async {
        loop {
            tries += 1;
            match operation().await {
                Ok(value) => return Ok(value),
                Err(error) if policy.allows(&error) => last = Some(describe(&error)),
                Err(error) => return Err(StoreError::DynamoDb(describe(&error))),
            }
            tokio::time::sleep(wait / 2 + (wait / 2).mul_f32(fastrand::f32())).await;
            wait = LONGEST_WAIT.min(wait * 2);
        }
    };
    let ended = tokio::time::timeout_at(policy.until, trying).await;
    ended.unwrap_or_else(|_| match last {
        Some(cause) if tries == 1 => Err(StoreError::DynamoDb(format!("{cause} after 1 try"))),
        Some(cause) => Err(StoreError::DynamoDb(format!("{cause} after {tries} tries"))),
        None => Err(StoreError::Timeout),
    })
}

/// The error's code, or what the connection says: never the request, which holds the order. Of a transaction also the codes of its
/// parts.
fn describe<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E>) -> String {
    let Some(code) = error.code() else {
        return aws::cause(error);
    };
    let reasons = error
        .message()
        .and_then(|message| message.find('[').map(|at| &message[at..]));
    match reasons {
        Some(reasons) if code == "TransactionCanceledException" => format!("{code} {reasons}"),
        _ => code.to_owned(),
    }
}
