//! The table: what was received, where it stands, and the outbox. One conditional write decides who was first.
//!
//! A head item (`sk` = `head`) is an event. Values that do not fit into it are first written to part items, which are named by
//! their own hash, so that attempts never mix; the head's conditional write commits the event. See the module `parts`.

use std::collections::{BTreeSet, HashMap};
use std::io::Read as _;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::get_item::GetItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use flate2::read::GzDecoder;
use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};

use crate::answer::Reason;
use crate::aws;
use crate::delivery::Delivery;
use crate::event::OrderEvent;
pub use crate::identity::SHARDS;
use crate::identity::{EventId, Shop};
use crate::publisher::Stored;
use crate::settings::{SettingError, Settings};
use crate::verification::Verified;

mod backlog;
mod commit;
mod compressed;
mod conflicts;
mod erasure;
mod error;
mod event_items;
mod head;
mod history;
mod lease;
mod orphans;
mod outbox;
mod parts;
mod retention;
mod retry;
#[cfg(test)]
mod scale;
mod sweep;

use commit::{Commit, Condition};
pub use compressed::EventJson;
pub use conflicts::{Conflict, KeptConflict, PublishedConflict};
pub use erasure::ErasedBy;
pub use error::StoreError;
use error::describe;
use event_items::{EventItems, sortable};
pub use head::{Head, State};
pub use history::{Hour, Received};
pub use lease::StartedRun;
pub use orphans::{ManifestPlace, Orphan};
use outbox::ASK_FOR_REST_AFTER;
pub use outbox::{Projection, Superseded, WorkCursor};
use parts::part_key;
pub use retention::{Expiring, Expiry, Retained, Retention, Trimmed};
pub use retry::RetryPolicy;
use retry::retry_until;

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
