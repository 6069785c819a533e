//! Large values are kept in part items, each under a partition key of its own, so that one large event is not limited by what a
//! single DynamoDB partition can write (1,000 units a second).
//!
//! Parts are named by what they hold and written before the item that names them. Until that item commits, a manifest in the
//! event's own partition names them: a repeat goes on where an earlier try stopped, and what no repeat ever finishes is swept.
//! The transaction that commits the item ends the manifest, on the condition that no sweep has begun. A part that a committed
//! item names is therefore never deleted by a sweep: the sweep closes the manifest first and reads the committed items after that.

use std::collections::{BTreeSet, HashMap, HashSet};

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, Delete, KeysAndAttributes, Put, ReturnValue, ReturnValuesOnConditionCheckFailure,
    TransactWriteItem, Update,
};
use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::event_items::{EventItems, sortable};
use super::{Item, NewEvent, RetryPolicy, State, Store, StoreError, describe, item_key, retry_until};
use crate::identity::{EventId, SHARDS};

/// How long after the last try the parts of an entry that never committed are deleted. Every provider has given up by then, or
/// begins again at no loss.
const SWEEP_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// How long a sweep may take before another one repeats it.
const SWEEP_LEASE: SignedDuration = SignedDuration::from_mins(10);
/// How long after an erasure the sweep looks for parts that a delivery in flight has still written.
const SWEEP_AFTER_ERASURE: SignedDuration = SignedDuration::from_mins(1);
/// The most keys that DynamoDB takes in one batch.
const BATCH: usize = 100;
/// The sort key of a part that has a partition key of its own.
const PART: &str = "part";
const MANIFEST: &str = "manifest";

/// The name of a part: its partition key. It belongs to one body of one event, and to these bytes.
pub(super) fn part_name(id: &EventId, payload_sha256: &str, value_sha256: &str, index: usize) -> String {
    format!("{PART}#{id}#{payload_sha256}#{value_sha256}#{index:04}")
}

/// The key of a part. A name without the event's id is that of a part in the event's own partition, as the previous version
/// wrote it.
pub(super) fn part_key(id: &EventId, name: &str) -> Item {
    if name.starts_with(&format!("{PART}#{id}#")) {
        item_key(name, PART)
    } else {
        item_key(id.as_str(), name)
    }
}

/// The names of the parts that an item refers to.
pub(super) fn parts_named_by(item: &Item) -> BTreeSet<String> {
    let lists = ["payload_parts", "event_parts"].map(|name| item.get(name).and_then(|names| names.as_l().ok()));
    let listed = lists.into_iter().flatten().flatten();
    let listed = listed.filter_map(|name| name.as_s().ok().cloned());
    let manifest = item.get("parts").and_then(|names| names.as_ss().ok());
    listed.chain(manifest.into_iter().flatten().cloned()).collect()
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn is_manifest(item: &Item) -> bool {
    let sort_key = item.get("sk").and_then(|sk| sk.as_s().ok());
    sort_key.is_some_and(|sort_key| sort_key.starts_with(MANIFEST))
}

fn sort_key_of(payload_sha256: &str) -> String {
    format!("{MANIFEST}#{payload_sha256}")
}

/// An entry whose parts were written, and whose item has not committed.
#[derive(Debug, Serialize)]
pub struct Orphan {
    /// The event's id.
    pub event_id: EventId,
    /// The SHA-256 of the body.
    pub payload_sha256: String,
    /// The provider's slug.
    pub provider: Option<String>,
    /// The operator's name of the shop.
    pub shop: Option<String>,
    /// When the first try was received.
    pub received_at: Option<Timestamp>,
    /// How many parts were written, or were about to be.
    pub parts: usize,
    /// How large they are in all.
    pub bytes: Option<u64>,
    /// When they are deleted, unless another try is made.
    pub swept_at: Option<Timestamp>,
}

impl Orphan {
    fn read(manifest: &Item) -> Option<Self> {
        let attribute = |name| manifest.get(name).and_then(|value: &AttributeValue| value.as_s().ok());
        let sort_key = attribute("sk")?;
        Some(Self {
            event_id: EventId::stored(attribute("pk")?),
            payload_sha256: sort_key.strip_prefix(MANIFEST)?.trim_start_matches('#').to_owned(),
            provider: attribute("provider").cloned(),
            shop: attribute("shop").cloned(),
            received_at: attribute("received_at").and_then(|time| time.parse().ok()),
            parts: parts_named_by(manifest).len(),
            bytes: manifest.get("bytes").and_then(|bytes| bytes.as_n().ok()?.parse().ok()),
            swept_at: attribute("next_attempt_at").and_then(|time| time.parse().ok()),
        })
    }
}

/// A place among the manifests: a shard, and the manifest after which to go on in it. The default is the beginning.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestPlace {
    shard: u8,
    after: Option<ManifestKey>,
}

/// The key of a manifest in the index `work`, within its shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestKey {
    next_attempt_at: String,
    event_id: String,
    payload_sha256: String,
}

/// The condition of a write.
#[derive(Clone, Default)]
pub(super) struct Condition {
    expression: &'static str,
    names: HashMap<String, String>,
    values: Item,
}

impl Condition {
    /// The condition `expression`; its placeholder for `state` is `#state`.
    pub(super) fn new<const N: usize>(expression: &'static str, values: [(&str, &str); N]) -> Self {
        let names = expression
            .contains("#state")
            .then(|| ("#state".to_owned(), "state".to_owned()));
        Self {
            expression,
            names: names.into_iter().collect(),
            values: values
                .into_iter()
                .map(|(name, value)| (name.to_owned(), text(value)))
                .collect(),
        }
    }

    /// The condition that there is no event: no item, or a tombstone that is over at `now` and that DynamoDB has not deleted yet.
    pub(super) fn absent(now: Timestamp) -> Self {
        let mut condition = Self::new(
            "attribute_not_exists(pk) OR (#state = :erased AND expires_at <= :now)",
            [(":erased", State::Erased.as_str())],
        );
        let now = AttributeValue::N(now.as_second().to_string());
        condition.values.insert(":now".to_owned(), now);
        condition
    }

    /// The condition itself.
    pub(super) fn expression(&self) -> &'static str {
        self.expression
    }

    /// The names of its placeholders.
    pub(super) fn names(&self) -> Option<HashMap<String, String>> {
        (!self.names.is_empty()).then(|| self.names.clone())
    }

    /// Its values.
    pub(super) fn values(&self) -> Option<Item> {
        (!self.values.is_empty()).then(|| self.values.clone())
    }
}

/// How a conditional write ended.
pub(super) enum Commit {
    Done,
    /// This item does not meet the condition.
    Refused(Item),
}

/// How a transaction ended.
enum Transacted {
    Commit(Commit),
    /// The manifest was ended by somebody else.
    ManifestGone,
}

impl Store {
    /// The item of an event's head, and when an earlier try that has not committed received the same body.
    pub(super) async fn earlier_try(
        &self,
        id: &EventId,
        payload_sha256: &str,
        policy: RetryPolicy,
    ) -> Result<(Option<Item>, Option<Timestamp>), StoreError> {
        let manifest_key = sort_key_of(payload_sha256);
        let keys = [item_key(id.as_str(), "head"), item_key(id.as_str(), &manifest_key)];
        let items = retry_until(policy, || self.batch_get(keys.to_vec(), None)).await?;
        let (manifests, heads): (Vec<_>, Vec<_>) = items
            .into_iter()
            .partition(|item| item.get("sk").and_then(|sk| sk.as_s().ok()) == Some(&manifest_key));
        let received_at = manifests.first().and_then(|manifest| manifest.get("received_at"));
        let received_at = received_at.and_then(|time| time.as_s().ok()?.parse().ok());
        Ok((heads.into_iter().next(), received_at))
    }

    /// Writes those parts of an entry that the table does not hold yet. Returns the end of their manifest, which [`Self::commit`]
    /// writes together with the item that names them; `None` where the entry has no parts.
    ///
    /// `replaced` are the parts of an item that the entry's item replaces: those that it does not name are swept after the commit.
    pub(super) async fn put_parts(
        &self,
        new_event: &NewEvent<'_>,
        written: &mut EventItems,
        replaced: BTreeSet<String>,
        policy: RetryPolicy,
    ) -> Result<Option<TransactWriteItem>, StoreError> {
        if written.parts.is_empty() {
            return Ok(None);
        }
        let names: BTreeSet<String> = written.parts.iter().map(|(name, _)| name.clone()).collect();
        let manifest = item_key(new_event.id.as_str(), &sort_key_of(&written.payload_sha256));
        let all = names.union(&replaced).cloned().collect();
        let earlier = self.open_manifest(new_event, written, &manifest, all, policy).await?;
        let mut missing = std::mem::take(&mut written.parts);
        let mut is_complete = replaced.is_subset(&names);
        if let Some(earlier) = earlier {
            let keys = names.iter().map(|name| part_key(new_event.id, name)).collect();
            let there = self.which_exist(keys, policy).await?;
            missing.retain(|(name, _)| !there.contains(name));
            // What other code, or another reading, has left: the sweep deletes it.
            is_complete &= parts_named_by(&earlier).is_subset(&names);
        }
        let parts = missing.into_iter().map(|(name, bytes)| {
            let mut item = part_key(new_event.id, &name);
            item.insert("data".to_owned(), AttributeValue::B(Blob::new(bytes)));
            async move {
                let put = || {
                    self.client
                        .put_item()
                        .table_name(&self.table)
                        .set_item(Some(item.clone()))
                        .send()
                };
                retry_until(policy, put).await
            }
        });
        try_join_all(parts).await?;
        Ok(Some(self.end_of_manifest(manifest, is_complete.then_some(names.len()))))
    }

    /// Opens the manifest of an entry, or joins the one of an earlier try, whose item is returned.
    async fn open_manifest(
        &self,
        new_event: &NewEvent<'_>,
        written: &EventItems,
        manifest: &Item,
        names: BTreeSet<String>,
        policy: RetryPolicy,
    ) -> Result<Option<Item>, StoreError> {
        let bytes: usize = written.parts.iter().map(|(_, bytes)| bytes.len()).sum();
        let names = AttributeValue::Ss(names.into_iter().collect());
        let open = || async {
            let update = self
                .client
                .update_item()
                .table_name(&self.table)
                .set_key(Some(manifest.clone()))
                .update_expression(
                    "SET #state = :open, received_at = if_not_exists(received_at, :received_at), provider = :provider, \
                     shop = :shop, #bytes = :bytes, #work = :work, next_attempt_at = :sweep_at ADD #parts :parts",
                )
                .condition_expression("attribute_not_exists(pk) OR #state = :open")
                .expression_attribute_names("#state", "state")
                .expression_attribute_names("#bytes", "bytes")
                .expression_attribute_names("#work", "work")
                .expression_attribute_names("#parts", "parts")
                .expression_attribute_values(":open", text("open"))
                .expression_attribute_values(":received_at", text(&sortable(new_event.delivery.received_at())))
                .expression_attribute_values(":provider", text(new_event.provider))
                .expression_attribute_values(":shop", text(new_event.delivery.shop().as_str()))
                .expression_attribute_values(":bytes", AttributeValue::N(bytes.to_string()))
                .expression_attribute_values(":work", text(&work_key(new_event.id.shard())))
                .expression_attribute_values(":sweep_at", text(&sortable(Timestamp::now() + SWEEP_AFTER)))
                .expression_attribute_values(":parts", names.clone())
                .return_values(ReturnValue::AllOld);
            match update.send().await {
                Ok(updated) => Ok(Some(updated.attributes)),
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
                {
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        let opened = retry_until(policy, open).await?.ok_or(StoreError::Swept)?;
        Ok(opened.filter(|item| !item.is_empty()))
    }

    /// The part of a commit that ends the manifest. `parts` is how many it names; `None` where it names others too, which are left
    /// to the next sweep.
    fn end_of_manifest(&self, manifest: Item, parts: Option<usize>) -> TransactWriteItem {
        if let Some(count) = parts {
            // A try that has joined since would lose its parts' names.
            let delete = Delete::builder()
                .table_name(&self.table)
                .set_key(Some(manifest))
                .condition_expression("#state = :open AND size(#parts) = :count")
                .expression_attribute_names("#state", "state")
                .expression_attribute_names("#parts", "parts")
                .expression_attribute_values(":open", text("open"))
                .expression_attribute_values(":count", AttributeValue::N(count.to_string()))
                .build();
            TransactWriteItem::builder()
                .delete(delete.expect("table and key are set"))
                .build()
        } else {
            let update = Update::builder()
                .table_name(&self.table)
                .set_key(Some(manifest))
                .update_expression("SET next_attempt_at = :now")
                .condition_expression("#state = :open")
                .expression_attribute_names("#state", "state")
                .expression_attribute_values(":open", text("open"))
                .expression_attribute_values(":now", text(&sortable(Timestamp::now())))
                .build();
            TransactWriteItem::builder()
                .update(update.expect("table, key and expression are set"))
                .build()
        }
    }

    /// Writes an item if `condition` holds, and in the same transaction ends the manifest of its parts. Without parts it is a single
    /// conditional put.
    pub(super) async fn commit(
        &self,
        item: &Item,
        condition: &Condition,
        end_of_manifest: Option<TransactWriteItem>,
        policy: RetryPolicy,
    ) -> Result<Commit, StoreError> {
        let Some(end) = end_of_manifest else {
            return retry_until(policy, || self.put_if(item, condition)).await;
        };
        match retry_until(policy, || self.put_and_end(item, condition, &end)).await? {
            Transacted::Commit(Commit::Done) => Ok(Commit::Done),
            Transacted::Commit(Commit::Refused(old)) if !old.is_empty() => Ok(Commit::Refused(old)),
            ended => {
                let key = ["pk", "sk"].map(|name| (name.to_owned(), item[name].clone()));
                let stored = retry_until(policy, || self.get_by_key(HashMap::from(key.clone()))).await?;
                match (ended, stored) {
                    (Transacted::Commit(_), Some(stored)) => Ok(Commit::Refused(stored)),
                    // A write whose answer was lost has ended the manifest itself.
                    (_, Some(stored)) if stored.get("attempt_id") == item.get("attempt_id") => Ok(Commit::Done),
                    _ => Err(StoreError::Swept),
                }
            }
        }
    }

    async fn put_if(&self, item: &Item, condition: &Condition) -> Result<Commit, SdkError<PutItemError>> {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item.clone()))
            .condition_expression(condition.expression)
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await {
            Ok(_) => Ok(Commit::Done),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                    Ok(Commit::Refused(failed.item.clone().unwrap_or_default()))
                }
                _ => Err(error),
            },
        }
    }

    async fn put_and_end(
        &self,
        item: &Item,
        condition: &Condition,
        end: &TransactWriteItem,
    ) -> Result<Transacted, SdkError<TransactWriteItemsError>> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item.clone()))
            .condition_expression(condition.expression)
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .expect("table and item are set");
        let items = vec![TransactWriteItem::builder().put(put).build(), end.clone()];
        let transaction = self.client.transact_write_items().set_transact_items(Some(items));
        let Err(error) = transaction.send().await else {
            return Ok(Transacted::Commit(Commit::Done));
        };
        let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() else {
            return Err(error);
        };
        let refused: Vec<_> = cancelled
            .cancellation_reasons()
            .iter()
            .map(|reason| (reason.code() == Some("ConditionalCheckFailed")).then(|| reason.item.clone()))
            .collect();
        match refused.as_slice() {
            [Some(old), ..] => Ok(Transacted::Commit(Commit::Refused(old.clone().unwrap_or_default()))),
            [None, Some(_)] => Ok(Transacted::ManifestGone),
            _ => Err(error),
        }
    }

    /// Which of the parts with these keys the table holds, by name.
    async fn which_exist(&self, keys: Vec<Item>, policy: RetryPolicy) -> Result<HashSet<String>, StoreError> {
        let mut there = HashSet::new();
        for keys in keys.chunks(BATCH) {
            let items = retry_until(policy, || self.batch_get(keys.to_vec(), Some("pk"))).await?;
            there.extend(items.iter().filter_map(|item| item.get("pk")?.as_s().ok().cloned()));
        }
        Ok(there)
    }

    /// Items by their keys, as they are now; what DynamoDB leaves out of an answer is asked for again.
    async fn batch_get(
        &self,
        mut keys: Vec<Item>,
        projection: Option<&str>,
    ) -> Result<Vec<Item>, SdkError<BatchGetItemError>> {
        let mut items = Vec::with_capacity(keys.len());
        while !keys.is_empty() {
            let wanted = KeysAndAttributes::builder()
                .set_keys(Some(keys))
                .set_projection_expression(projection.map(str::to_owned))
                .consistent_read(true)
                .build();
            let batch = self.client.batch_get_item();
            let batch = batch.request_items(&self.table, wanted.expect("there are keys"));
            let mut answer = batch.send().await?;
            let of_table = answer.responses.as_mut().and_then(|tables| tables.remove(&self.table));
            items.extend(of_table.unwrap_or_default());
            let rest = answer.unprocessed_keys.as_mut();
            let rest = rest.and_then(|tables| tables.remove(&self.table));
            keys = rest.map(|rest| rest.keys).unwrap_or_default();
            if !keys.is_empty() {
                tokio::time::sleep(super::ASK_FOR_REST_AFTER).await;
            }
        }
        Ok(items)
    }

    /// Deletes all that is stored of an event beside its head: the parts that the head and other items name, other bodies that came
    /// under its id, and parts in its own partition. Works without a head, and may be repeated at any time.
    ///
    /// Nothing may read the head's parts any more when this is called. The head keeps the names of its parts: remove them after this
    /// returns, so that a deletion that was interrupted can be repeated. A manifest stays for another minute, closed, for the
    /// sweep to delete what a delivery in flight may still write.
    ///
    /// Deletes nothing and returns false if the event has a head that is not erased: a delivery may commit one at any time until its
    /// manifest is closed, and then owns the parts.
    pub(super) async fn delete_beside_head(&self, id: &EventId) -> Result<bool, StoreError> {
        let has = |item: &Item, name: &str, value: &str| {
            item.get(name)
                .is_some_and(|text| text.as_s().is_ok_and(|text| text == value))
        };
        for manifest in self.items_of(id).await?.iter().filter(|item| is_manifest(item)) {
            let sweep_at = Timestamp::now() + SWEEP_AFTER_ERASURE;
            self.close_manifest(manifest, Timestamp::MAX, sweep_at).await?;
        }
        // Read after the manifests are closed: what has committed before that is in here.
        let items = self.items_of(id).await?;
        let is_live = |item: &Item| has(item, "sk", "head") && !has(item, "state", State::Erased.as_str());
        if items.iter().any(is_live) {
            return Ok(false);
        }
        for item in &items {
            let Some(sort_key) = item.get("sk").and_then(|sk| sk.as_s().ok()) else {
                continue;
            };
            // A delivery has opened it since, and may still commit.
            if is_manifest(item) && !has(item, "state", "sweeping") {
                continue;
            }
            for name in parts_named_by(item) {
                self.delete(part_key(id, &name)).await?;
            }
            // Last, since it names its parts.
            if sort_key != "head" && !sort_key.starts_with(MANIFEST) {
                self.delete(item_key(id.as_str(), sort_key)).await?;
            }
        }
        Ok(true)
    }

    /// Whether anything but a head and closed manifests is stored of an event.
    pub async fn has_leftovers(&self, id: &EventId) -> Result<bool, StoreError> {
        let is = |item: &Item, name: &str, value: &str| {
            item.get(name)
                .is_some_and(|text| text.as_s().is_ok_and(|text| text.starts_with(value)))
        };
        let is_closed = |item: &Item| is(item, "sk", MANIFEST) && is(item, "state", "sweeping");
        let is_head = |item: &Item| item.get("sk") == Some(&text("head"));
        let items = self.items_of(id).await?;
        Ok(items.iter().any(|item| !is_closed(item) && !is_head(item)))
    }

    /// The items in an event's own partition: their sort keys and states, and the parts that they name.
    async fn items_of(&self, id: &EventId) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let query = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression("pk = :id")
                .expression_attribute_values(":id", text(id.as_str()))
                .projection_expression("pk, sk, #state, payload_parts, event_parts, #parts")
                .expression_attribute_names("#state", "state")
                .expression_attribute_names("#parts", "parts")
                .consistent_read(true)
                .set_exclusive_start_key(start);
            let page = query.send().await.map_err(|error| failed(&error))?;
            items.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }

    pub(super) async fn delete(&self, key: Item) -> Result<(), StoreError> {
        let delete = self.client.delete_item().table_name(&self.table).set_key(Some(key));
        delete.send().await.map(|_| ()).map_err(|error| failed(&error))
    }

    /// Closes a manifest that is due at `now`, so that nothing more is committed under it, and has it swept at `sweep_at`. Returns its
    /// item; `None` where it is no longer due, or gone.
    async fn close_manifest(
        &self,
        manifest: &Item,
        now: Timestamp,
        sweep_at: Timestamp,
    ) -> Result<Option<Item>, StoreError> {
        let (Some(pk), Some(sk)) = (manifest.get("pk"), manifest.get("sk")) else {
            return Err(StoreError::Corrupt("a manifest"));
        };
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("pk", pk.clone())
            .key("sk", sk.clone())
            .update_expression("SET #state = :sweeping, next_attempt_at = :sweep_at")
            .condition_expression("next_attempt_at <= :now")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":now", text(&sortable(now)))
            .expression_attribute_values(":sweeping", text("sweeping"))
            .expression_attribute_values(":sweep_at", text(&sortable(sweep_at)))
            .return_values(ReturnValue::AllNew);
        match update.send().await {
            Ok(updated) => Ok(updated.attributes),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed(&error)),
        }
    }

    /// The entries that have parts and have not committed, at most `limit` from `place` on, and the place to go on at. An entry that
    /// a delivery is storing right now is among them.
    pub async fn orphans(
        &self,
        cursor: &ManifestPlace,
        limit: i32,
    ) -> Result<(Vec<Orphan>, Option<ManifestPlace>), StoreError> {
        let work = text(&work_key(cursor.shard));
        let start = cursor.after.as_ref().map(|after| {
            let mut start = item_key(&after.event_id, &sort_key_of(&after.payload_sha256));
            start.insert("work".to_owned(), work.clone());
            start.insert("next_attempt_at".to_owned(), text(&after.next_attempt_at));
            start
        });
        let query = self.client.query().table_name(&self.table).index_name("work");
        let query = query
            .key_condition_expression("#work = :work")
            .expression_attribute_names("#work", "work")
            .expression_attribute_values(":work", work)
            .limit(limit)
            .set_exclusive_start_key(start);
        let page = query.send().await.map_err(|error| failed(&error))?;
        let keys = page.items().iter().filter_map(|item| {
            let keys = ["pk", "sk"].map(|name| Some((name.to_owned(), item.get(name)?.clone())));
            keys.into_iter().collect::<Option<Item>>()
        });
        let manifests = self.batch_get(keys.collect(), None).await;
        let manifests = manifests.map_err(|error| failed(&error))?;
        let last = page.last_evaluated_key.as_ref().and_then(|last| {
            let attribute = |name| last.get(name).and_then(|value: &AttributeValue| value.as_s().ok());
            Some(ManifestKey {
                next_attempt_at: attribute("next_attempt_at")?.clone(),
                event_id: attribute("pk")?.clone(),
                payload_sha256: attribute("sk")?
                    .strip_prefix(MANIFEST)?
                    .trim_start_matches('#')
                    .to_owned(),
            })
        });
        let shard = if last.is_some() { cursor.shard } else { cursor.shard + 1 };
        let next = (shard < SHARDS).then_some(ManifestPlace { shard, after: last });
        Ok((manifests.iter().filter_map(Orphan::read).collect(), next))
    }

    /// Deletes the parts of entries whose last try is a day ago and that never committed, and their manifests: at most `limit` in
    /// one shard. Returns how many manifests were ended.
    pub async fn sweep(&self, shard: u8, now: Timestamp, limit: i32) -> Result<u64, StoreError> {
        let query = self.client.query().table_name(&self.table).index_name("work");
        let query = query
            .key_condition_expression("#work = :work AND next_attempt_at <= :now")
            .expression_attribute_names("#work", "work")
            .expression_attribute_values(":work", text(&work_key(shard)))
            .expression_attribute_values(":now", text(&sortable(now)))
            .limit(limit);
        let due = query.send().await.map_err(|error| failed(&error))?;
        let mut swept = 0;
        for manifest in due.items() {
            // A lease: a sweep that dies here is repeated when it has run out.
            let lease = Timestamp::now() + SWEEP_LEASE;
            if let Some(manifest) = self.close_manifest(manifest, now, lease).await? {
                self.sweep_one(&manifest).await?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Deletes the parts that a closed manifest names and no committed item does, then the manifest.
    async fn sweep_one(&self, manifest: &Item) -> Result<(), StoreError> {
        let attribute = |name| manifest.get(name).and_then(|value: &AttributeValue| value.as_s().ok());
        let (Some(pk), Some(sort_key)) = (attribute("pk"), attribute("sk")) else {
            return Err(StoreError::Corrupt("a manifest"));
        };
        let id = EventId::stored(pk);
        let kept: HashSet<String> = self
            .items_of(&id)
            .await?
            .iter()
            .filter(|item| !is_manifest(item))
            .flat_map(parts_named_by)
            .collect();
        let orphans = parts_named_by(manifest).into_iter().filter(|name| !kept.contains(name));
        let deletes = orphans.map(|name| self.delete(part_key(&id, &name)));
        try_join_all(deletes).await?;
        let delete = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(item_key(pk, sort_key)))
            .condition_expression("#state = :sweeping")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":sweeping", text("sweeping"));
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(DeleteItemError::is_conditional_check_failed_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(failed(&error)),
        }
    }
}

/// The key of a shard's manifests in the index `work`.
fn work_key(shard: u8) -> String {
    format!("{MANIFEST}#{shard}")
}

fn failed<E>(error: &SdkError<E>) -> StoreError
where
    E: aws_sdk_dynamodb::error::ProvideErrorMetadata + std::error::Error + 'static,
{
    StoreError::DynamoDb(describe(error))
}
