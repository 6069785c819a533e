//! Part items hold the values that do not fit into a head. Each has a partition key of its own, so that one large event
//! is not limited by the write rate of a single DynamoDB partition (1,000 units a second).
//!
//! Parts are named by their content and written before the item that names them. Until that item commits, a manifest in
//! the event's own partition names them: a repeat continues where an earlier attempt stopped, and the sweep deletes the
//! parts that no repeat ever completes. The transaction that commits the item ends the manifest, on the condition that
//! no sweep has begun. Therefore a sweep never deletes a part that a committed item names: it closes the manifest
//! first, and reads the committed items after that.

use std::collections::{BTreeSet, HashSet};

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, Delete, KeysAndAttributes, ReturnValue, TransactWriteItem};
use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};

use super::event_items::EventItems;
use super::{
    Change, Condition, Expression, Item, NewEvent, RetryPolicy, Store, StoreError, head_key, item_key, retry_until,
    text,
};
use crate::identity::EventId;

/// The time after the last attempt at which the parts of an event that never committed are deleted. By then every
/// provider has given up, or begins again at no loss.
pub(super) const SWEEP_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// The most keys that DynamoDB takes in one batch.
const BATCH: usize = 100;
/// The sort key of a part that has a partition key of its own.
const PART: &str = "part";
/// The prefix of a manifest's sort key.
pub(super) const MANIFEST: &str = "manifest";
/// The state of a manifest whose parts are being written.
pub(super) const OPEN: &str = "open";

/// The name of a part: its partition key. It belongs to one body of one event, and to these bytes.
pub(super) fn part_name(id: &EventId, payload_sha256: &str, value_sha256: &str, index: usize) -> String {
    format!("{PART}#{id}#{payload_sha256}#{value_sha256}#{index:04}")
}

/// The key of a part. If the name does not contain the event's id, the part is in the event's own partition, where the
/// previous version wrote it.
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

pub(super) fn is_manifest(item: &Item) -> bool {
    text(item, "sk").is_some_and(|sort_key| sort_key.starts_with(MANIFEST))
}

/// The sort key of the manifest for one body of an event.
pub(super) fn manifest_sort_key(payload_sha256: &str) -> String {
    format!("{MANIFEST}#{payload_sha256}")
}

/// The key of a shard's manifests in the index `work`.
pub(super) fn manifests_of_shard(shard: u8) -> AttributeValue {
    AttributeValue::S(format!("{MANIFEST}#{shard}"))
}

/// The items that an earlier attempt to store the same body may have left.
pub(super) struct EarlierAttempt {
    pub(super) head: Option<Item>,
    /// The time at which an attempt that has not committed received the body.
    pub(super) received_at: Option<Timestamp>,
}

impl Store {
    /// Reads what an earlier attempt to store this body has left.
    pub(super) async fn earlier_attempt(
        &self,
        id: &EventId,
        payload_sha256: &str,
        policy: RetryPolicy,
    ) -> Result<EarlierAttempt, StoreError> {
        let manifest_key = manifest_sort_key(payload_sha256);
        let keys = [head_key(id), item_key(id.as_str(), &manifest_key)];
        let items = retry_until(policy, || self.batch_get(keys.to_vec(), None)).await?;
        let (manifests, heads): (Vec<_>, Vec<_>) = items
            .into_iter()
            .partition(|item| text(item, "sk") == Some(&manifest_key));
        let received_at = manifests.first().and_then(|manifest| text(manifest, "received_at"));
        Ok(EarlierAttempt {
            head: heads.into_iter().next(),
            received_at: received_at.and_then(|time| time.parse().ok()),
        })
    }

    /// Writes those parts of an event that the table does not hold yet. Returns the end of their manifest, which
    /// [`Self::commit`] writes together with the item that names them; `None` if the event has no parts.
    ///
    /// `replaced` are the parts of an item that the event's item replaces. Those that the new item does not name are
    /// swept after the commit.
    pub(super) async fn put_parts(
        &self,
        new_event: &NewEvent<'_>,
        items: &mut EventItems,
        replaced: BTreeSet<String>,
        policy: RetryPolicy,
    ) -> Result<Option<TransactWriteItem>, StoreError> {
        if items.parts.is_empty() {
            return Ok(None);
        }
        let names: BTreeSet<String> = items.parts.iter().map(|(name, _)| name.clone()).collect();
        let manifest = item_key(new_event.id.as_str(), &manifest_sort_key(&items.payload_sha256));
        let all = names.union(&replaced).cloned().collect();
        let earlier = self.open_manifest(new_event, items, &manifest, all, policy).await?;
        let mut missing = std::mem::take(&mut items.parts);
        let mut is_complete = replaced.is_subset(&names);
        if let Some(earlier) = earlier {
            let keys = names.iter().map(|name| part_key(new_event.id, name)).collect();
            let existing = self.which_exist(keys, policy).await?;
            missing.retain(|(name, _)| !existing.contains(name));
            // Parts that another version or another mapping has left are deleted by the sweep.
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

    /// Opens the manifest of an event, or joins the manifest of an earlier attempt, whose item is returned.
    async fn open_manifest(
        &self,
        new_event: &NewEvent<'_>,
        items: &EventItems,
        manifest: &Item,
        names: BTreeSet<String>,
        policy: RetryPolicy,
    ) -> Result<Option<Item>, StoreError> {
        let bytes: usize = items.parts.iter().map(|(_, bytes)| bytes.len()).sum();
        let change = Change::default()
            .set("state", OPEN)
            .set_if_absent("received_at", &new_event.delivery.received_at())
            .set("provider", new_event.provider)
            .set("shop", new_event.delivery.shop().as_str())
            .set("bytes", &AttributeValue::N(bytes.to_string()))
            .set("work", &manifests_of_shard(new_event.id.shard()))
            .add("parts", &AttributeValue::Ss(names.into_iter().collect()))
            .only_if(Condition::no_item().or(Condition::equals("state", OPEN)));
        let open = || {
            let change = change.clone().set("next_attempt_at", &(Timestamp::now() + SWEEP_AFTER));
            async move { self.update_item(manifest.clone(), &change, ReturnValue::AllOld).await }
        };
        let earlier = retry_until(policy, open).await?.ok_or(StoreError::Swept)?;
        Ok((!earlier.is_empty()).then_some(earlier))
    }

    /// The part of a commit that ends the manifest. `parts` is the number of parts that the manifest names. `None`
    /// means that it names others too, which are left to the next sweep.
    fn end_of_manifest(&self, manifest: Item, parts: Option<usize>) -> TransactWriteItem {
        let is_open = Condition::equals("state", OPEN);
        let Some(count) = parts else {
            let change = Change::default()
                .set("next_attempt_at", &Timestamp::now())
                .only_if(is_open);
            let update = change.transacted(&self.table, manifest);
            return TransactWriteItem::builder().update(update).build();
        };
        // Without the count, an attempt that has joined since would lose the names of its parts.
        let Expression {
            condition,
            names,
            values,
            ..
        } = is_open.and(Condition::HasSize("parts", count)).to_expression();
        let delete = Delete::builder()
            .table_name(&self.table)
            .set_key(Some(manifest))
            .set_condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .build();
        TransactWriteItem::builder()
            .delete(delete.expect("table and key are set"))
            .build()
    }

    /// Returns the names of those parts with these keys that the table holds.
    async fn which_exist(&self, keys: Vec<Item>, policy: RetryPolicy) -> Result<HashSet<String>, StoreError> {
        let mut existing = HashSet::new();
        for keys in keys.chunks(BATCH) {
            let items = retry_until(policy, || self.batch_get(keys.to_vec(), Some("pk"))).await?;
            existing.extend(items.iter().filter_map(|item| text(item, "pk").map(str::to_owned)));
        }
        Ok(existing)
    }

    /// Reads items by their keys, consistently. Keys that DynamoDB leaves unprocessed are requested again.
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
