//! Large values are kept in part items, each under a partition key of its own, so that one large event is not limited by what a
//! single DynamoDB partition can write (1,000 units a second).
//!
//! Parts are named by what they hold and written before the item that names them. Until that item commits, a manifest in the
//! event's own partition names them: a repeat goes on where an earlier try stopped, and what no repeat ever finishes is swept.
//! The transaction that commits the item ends the manifest, on the condition that no sweep has begun. A part that a committed
//! item names is therefore never deleted by a sweep: the sweep closes the manifest first and reads the committed items after that.

use std::collections::{BTreeSet, HashSet};

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, Delete, KeysAndAttributes, ReturnValue, TransactWriteItem, Update};
use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};

use super::event_items::{EventItems, sortable};
use super::{Item, NewEvent, RetryPolicy, Store, StoreError, item_key, retry_until};
use crate::identity::EventId;

/// How long after the last try the parts of an entry that never committed are deleted. Every provider has given up by then, or
/// begins again at no loss.
const SWEEP_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// The most keys that DynamoDB takes in one batch.
const BATCH: usize = 100;
/// The sort key of a part that has a partition key of its own.
const PART: &str = "part";
pub(super) const MANIFEST: &str = "manifest";

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

pub(super) fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

pub(super) fn is_manifest(item: &Item) -> bool {
    let sort_key = item.get("sk").and_then(|sk| sk.as_s().ok());
    sort_key.is_some_and(|sort_key| sort_key.starts_with(MANIFEST))
}

pub(super) fn sort_key_of(payload_sha256: &str) -> String {
    format!("{MANIFEST}#{payload_sha256}")
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
    pub(super) async fn batch_get(
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
}

/// The key of a shard's manifests in the index `work`.
pub(super) fn work_key(shard: u8) -> String {
    format!("{MANIFEST}#{shard}")
}
