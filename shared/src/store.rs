//! The table: the events, their states, and the outbox.
//!
//! An event is a head item (`sk` = `head`). Values that do not fit into the head are written first, to part items that
//! are named by their own hash, so that attempts never mix. The conditional write of the head then commits the event
//! and decides which of several concurrent deliveries was first. See the module `parts`.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::get_item::GetItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::answer::Reason;
use crate::aws;
use crate::delivery::Delivery;
use crate::event::OrderEvent;
use crate::http::MOST_IDLE;
pub use crate::identity::SHARDS;
use crate::identity::{EventId, Shop};
use crate::publisher::Stored;
use crate::settings::{SettingError, Settings};
use crate::verification::Verified;

mod alerts;
mod audit;
mod backlog;
mod commit;
mod compressed;
mod conflicts;
mod erasure;
mod error;
mod event_items;
mod expression;
mod head;
mod history;
mod lease;
mod order_history;
mod order_versions;
mod orphans;
mod outbox;
mod parts;
mod published_state;
mod reconcile;
mod retention;
mod retry;
#[cfg(test)]
mod scale;
mod shops;
mod signals;
mod stored_facts;
mod subscriptions;
mod sweep;

pub use alerts::{ALERTS_AT_ONCE, AlertItem, Alerts, Finding, Source};
pub use audit::{Entry, Fault, ScanPosition, Scanned, WorkPosition};
use commit::Commit;
pub use compressed::EventJson;
pub use conflicts::{Conflict, KeptConflict, PublishedConflict};
pub use erasure::ErasedBy;
pub use error::StoreError;
use error::is_condition_failed;
use event_items::{EventItems, sortable};
use expression::{Change, Condition, Expression};
pub use head::{Head, State};
pub use history::{Hour, Received};
pub use lease::StartedRun;
pub use order_history::{PUBLISHED_HISTORY, StoredHistory};
pub(crate) use order_versions::AT_ONCE;
pub use orphans::{ManifestCursor, Orphan};
use outbox::ASK_FOR_REST_AFTER;
pub use outbox::{Projection, Superseded, WorkCursor};
use parts::part_key;
pub use published_state::{OrderKey, StateVersion};
pub use reconcile::{ReconcileEnd, ReconcileLease, ReconcileProgress};
pub use retention::{Expiring, Expiry, Retained, Retention, Trimmed};
pub use retry::RetryPolicy;
use retry::retry_until;
pub use shops::KnownShop;
pub(crate) use signals::SAMPLES_AT_ONCE;
pub use signals::Signal;
pub use stored_facts::StoredFacts;
pub use subscriptions::{NOTE_BUDGET, NotedSubscription, SubscriptionAttempt, SubscriptionKey, WebhookUrl};

type Item = HashMap<String, AttributeValue>;

/// The time after which redrive publishes an event that its delivery has stored and not published.
const FIRST_REDRIVE_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// The time that the delivery that stored an event has to publish it before a repeat does.
const LEASE: SignedDuration = SignedDuration::from_secs(3);

/// The events of one table.
pub struct Store {
    client: aws_sdk_dynamodb::Client,
    table: String,
    retention: Retention,
}

/// The id of one attempt to store and publish an event. If the SDK repeats a write, the
/// store recognizes its own item by this id. The latest attempt to publish an event holds the event's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptId(String);

impl AttemptId {
    /// Creates a random id.
    pub fn random() -> Self {
        Self(format!("{:032x}", fastrand::u128(..)))
    }
}

/// An event to be written.
pub struct NewEvent<'a> {
    /// The id of the event.
    pub id: &'a EventId,
    /// The provider's slug.
    pub provider: &'static str,
    /// The delivery that reports the event.
    pub delivery: &'a Verified<Delivery>,
    /// The content of the event.
    pub content: Content<'a>,
}

/// The content of a new event. It determines the state in which the event is first written.
#[derive(Clone, Copy)]
pub enum Content<'a> {
    /// An order event and its JSON: written as pending.
    Order(&'a OrderEvent, &'a EventJson),
    /// A known event that is not an order event.
    Unsupported,
    /// A delivery that was not understood, with the id of its order if the body is clearly an order.
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

/// The result of [`Store::put`].
pub enum Put {
    /// The event is new and is stored.
    Stored,
    /// The event was stored before.
    Existing(Box<Head>),
    /// An earlier attempt, received at this time, has begun to write the event's parts. The event must be made as of
    /// that time, so that the parts that are already written need not be written again.
    InProgress(Timestamp),
}

/// The last key of a page of an index, after which the next page begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, String)", into = "(String, String)")]
pub struct IndexPosition {
    sort_key: String,
    id: String,
}

impl From<(String, String)> for IndexPosition {
    fn from((sort_key, id): (String, String)) -> Self {
        Self { sort_key, id }
    }
}

impl From<IndexPosition> for (String, String) {
    fn from(IndexPosition { sort_key, id }: IndexPosition) -> Self {
        (sort_key, id)
    }
}

impl IndexPosition {
    /// Reads the last key of a page of the index whose sort key is `sort_key`.
    fn read(last_key: &Item, sort_key: &str) -> Option<Self> {
        Some(Self {
            sort_key: text(last_key, sort_key)?.to_owned(),
            id: text(last_key, "pk")?.to_owned(),
        })
    }

    /// The key of a head in an index, given the names of the index's keys and the value of its partition key.
    fn to_key(&self, (partition_key, value): (&str, &AttributeValue), sort_key: &str) -> Item {
        let mut key = item_key(&self.id, "head");
        key.insert(partition_key.to_owned(), value.clone());
        key.insert(sort_key.to_owned(), AttributeValue::S(self.sort_key.clone()));
        key
    }
}

impl Store {
    /// The table that `TABLE_NAME` names.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        Self::with_connections(settings, MOST_IDLE)
    }

    /// The same table, for a function that makes many calls at once: up to `most_idle` idle connections are kept, since
    /// opening one takes more CPU than a call.
    pub(crate) fn with_connections(settings: &Settings, most_idle: usize) -> Result<Self, SettingError> {
        Ok(Self {
            client: aws::dynamodb(settings, most_idle)?,
            table: settings.required("TABLE_NAME")?,
            retention: Retention::from_settings(settings)?,
        })
    }

    /// Reads an item that never exists, to open a connection and to set up the client.
    pub async fn connect(&self) -> Result<(), StoreError> {
        let get = self.client.get_item().table_name(&self.table);
        get.set_key(Some(item_key("connect", "connect"))).send().await?;
        Ok(())
    }

    /// Writes an event unless it exists: its parts first, then its head. An expired tombstone does not count as an
    /// event.
    pub async fn put(
        &self,
        new_event: &NewEvent<'_>,
        attempt: &AttemptId,
        policy: impl Into<RetryPolicy>,
    ) -> Result<Put, StoreError> {
        let mut items = EventItems::of(new_event, attempt);
        let policy = policy.into().with_parts(!items.parts.is_empty());
        if !items.parts.is_empty() {
            let earlier = self
                .earlier_attempt(new_event.id, &items.payload_sha256, policy)
                .await?;
            // The parts depend on the payload and on the time of receipt.
            if let Some(first) = earlier.received_at
                && sortable(first) != sortable(new_event.delivery.received_at())
            {
                return Ok(Put::InProgress(first));
            }
            let head = earlier.head;
            if let Some(head) = head.filter(|head| !retention::is_expired_tombstone(head, Timestamp::now())) {
                return Ok(Put::Existing(Box::new(Head::read(head)?)));
            }
        }
        let (state, received_at) = (new_event.content.state(), new_event.delivery.received_at());
        self.retention
            .mark_new(&mut items.head, new_event.id, state, received_at);
        let end_of_manifest = self.put_parts(new_event, &mut items, BTreeSet::new(), policy).await?;
        let condition = Condition::no_event(Timestamp::now());
        let item = match self.commit(&items.head, &condition, end_of_manifest, policy).await? {
            Commit::Done => return Ok(Put::Stored),
            Commit::Refused(item) => item,
        };
        let head = Head::read(item)?;
        // The answer to an earlier try of this write was lost.
        if head.attempt_id == attempt.0 {
            Ok(Put::Stored)
        } else {
            Ok(Put::Existing(Box::new(head)))
        }
    }

    /// The JSON of the stored order event, exactly as it was written.
    pub async fn event(&self, id: &EventId, head: &Head) -> Result<Stored, StoreError> {
        let json = String::from_utf8(self.value(id, head, "event").await?);
        let json = json.map_err(|_| StoreError::Corrupt("event"))?;
        Ok(Stored { json })
    }

    /// The delivery that reported an event.
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
        let delivery = Delivery::stored(
            method.ok_or(StoreError::Corrupt("request"))?,
            head.shop().and_then(Shop::parse).ok_or(StoreError::Corrupt("shop"))?,
            query.into(),
            self.value(id, head, "payload").await?,
            head.received_at().ok_or(StoreError::Corrupt("received_at"))?,
        );
        Ok(Verified::stored(match head.reconciled()? {
            Some(reconciled) => delivery.into_reconciled(reconciled),
            None => delivery,
        }))
    }

    /// One of the two large values, `payload` or `event`, from the head or from its parts.
    async fn value(&self, id: &EventId, head: &Head, name: &'static str) -> Result<Vec<u8>, StoreError> {
        let compressed = match (head.item.get(name), head.item.get(&format!("{name}_parts"))) {
            (Some(AttributeValue::B(bytes)), _) => bytes.as_ref().to_vec(),
            (None, Some(AttributeValue::L(names))) => self.parts(id, names).await?,
            _ => return Err(StoreError::Corrupt(name)),
        };
        compressed::gunzip(&compressed).map_err(|_| StoreError::Corrupt(name))
    }

    async fn parts(&self, id: &EventId, names: &[AttributeValue]) -> Result<Vec<u8>, StoreError> {
        let parts = names.iter().map(|name| async move {
            let name = name.as_s().map_err(|_| StoreError::Corrupt("the name of a part"))?;
            let item = self.get_by_key(part_key(id, name)).await?;
            match item.ok_or(StoreError::Corrupt("a part is missing"))?.get("data") {
                Some(AttributeValue::B(bytes)) => Ok(bytes.as_ref().to_vec()),
                _ => Err(StoreError::Corrupt("the data of a part")),
            }
        });
        Ok(try_join_all(parts).await?.concat())
    }

    async fn get(&self, id: &EventId, sort_key: &str) -> Result<Option<Item>, StoreError> {
        Ok(self.get_by_key(item_key(id.as_str(), sort_key)).await?)
    }

    async fn get_by_key(&self, key: Item) -> Result<Option<Item>, SdkError<GetItemError>> {
        let get = self.client.get_item().table_name(&self.table).consistent_read(true);
        Ok(get.set_key(Some(key)).send().await?.item)
    }

    /// The current head of an event.
    pub async fn head(&self, id: &EventId) -> Result<Head, StoreError> {
        let item = self.get(id, "head").await?;
        Head::read(item.ok_or(StoreError::Corrupt("the head is missing"))?)
    }

    /// Changes the head of an event. Returns false if the change's condition does not hold.
    async fn update(&self, id: &EventId, change: &Change) -> Result<bool, StoreError> {
        let updated = self.update_item(head_key(id), change, ReturnValue::None).await?;
        Ok(updated.is_some())
    }

    /// Changes an item, and returns those of its attributes that `returned` names. Returns `None` if the change's
    /// condition does not hold.
    async fn update_item(
        &self,
        key: Item,
        change: &Change,
        returned: ReturnValue,
    ) -> Result<Option<Item>, SdkError<UpdateItemError>> {
        let Expression {
            update,
            condition,
            names,
            values,
        } = change.to_expression();
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key))
            .update_expression(update)
            .set_condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .return_values(returned);
        // Boxed, because the SDK's future is large.
        match Box::pin(request.send()).await {
            Ok(updated) => Ok(Some(updated.attributes.unwrap_or_default())),
            Err(error) if is_condition_failed(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The key of an item.
fn item_key(pk: &str, sk: &str) -> Item {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    HashMap::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))])
}

/// The key of an event's head.
fn head_key(id: &EventId) -> Item {
    item_key(id.as_str(), "head")
}

/// A text attribute of an item.
fn text<'i>(item: &'i Item, name: &str) -> Option<&'i str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

/// The texts of a list.
fn texts(list: &AttributeValue) -> Option<Vec<String>> {
    list.as_l()
        .ok()?
        .iter()
        .map(|value| value.as_s().ok().cloned())
        .collect()
}

/// The ids of the events on a page of an index.
fn ids_of(items: &[Item]) -> Vec<EventId> {
    let ids = items.iter().filter_map(|item| Some(EventId::stored(text(item, "pk")?)));
    ids.collect()
}
