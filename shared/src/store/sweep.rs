//! Deletes parts: those that no committed item names, and those of erased events.

use std::collections::HashSet;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};

use super::parts::{
    MANIFEST, SWEEP_AFTER, is_manifest, manifest_sort_key, manifests_of_shard, part_key, parts_named_by,
};
use super::{
    Change, Condition, Expression, Item, Orphan, State, Store, StoreError, is_condition_failed, item_key, sortable,
    text,
};
use crate::identity::EventId;

/// How long a sweep may take before another one repeats it.
const SWEEP_LEASE: SignedDuration = SignedDuration::from_mins(10);
/// How long after an erasure the sweep looks for parts that a concurrent delivery has still written.
const SWEEP_AFTER_ERASURE: SignedDuration = SignedDuration::from_mins(1);
/// How long after the last attempt an operator may delete the parts of an event that never committed: long after any
/// delivery has ended.
const ABANDONED_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// The state of a closed manifest: nothing more is committed under it.
const SWEEPING: &str = "sweeping";

impl Store {
    /// Deletes the parts of events whose last attempt is a day ago and that never committed, and their manifests: at
    /// most `limit` manifests in one shard. Returns how many it deleted.
    pub async fn sweep(&self, shard: u8, now: Timestamp, limit: i32) -> Result<u64, StoreError> {
        let query = self.client.query().table_name(&self.table).index_name("work");
        let query = query
            .key_condition_expression("#work = :work AND next_attempt_at <= :now")
            .expression_attribute_names("#work", "work")
            .expression_attribute_values(":work", manifests_of_shard(shard))
            .expression_attribute_values(":now", AttributeValue::S(sortable(now)))
            .limit(limit);
        let due = query.send().await?;
        let mut swept = 0;
        for manifest in due.items() {
            // A lease: a sweep that is interrupted here is repeated when the lease has ended.
            let lease = Timestamp::now() + SWEEP_LEASE;
            if let Some(manifest) = self.close_manifest(manifest, now, lease).await? {
                self.sweep_one(&manifest).await?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Deletes the parts of an event that never committed before they are due, and their manifest. Deletes nothing and
    /// returns false if the last attempt is less than ten minutes old, or if the manifest is gone.
    pub async fn sweep_orphan(&self, orphan: &Orphan) -> Result<bool, StoreError> {
        let now = Timestamp::now();
        let key = item_key(orphan.event_id.as_str(), &manifest_sort_key(&orphan.payload_sha256));
        let abandoned = now + SWEEP_AFTER - ABANDONED_AFTER;
        let Some(manifest) = self.close_manifest(&key, abandoned, now + SWEEP_LEASE).await? else {
            return Ok(false);
        };
        self.sweep_one(&manifest).await?;
        Ok(true)
    }

    /// Whether any item of an event names a part: its head, a conflict, or a manifest.
    pub async fn is_named(&self, id: &EventId, part: &str) -> Result<bool, StoreError> {
        let items = self.items_of(id).await?;
        Ok(items.iter().flat_map(parts_named_by).any(|name| name == part))
    }

    /// Deletes a part that no item names. Returns false if an item names it, or if it is gone.
    ///
    /// A delivery may begin to store the same part between the reading and the deletion. Its manifest names the part
    /// before it is written, so the part is put back if an item names it after the deletion. The part is read first,
    /// because the answer to the deletion may be lost.
    pub async fn delete_part_alone(&self, id: &EventId, part: &str) -> Result<bool, StoreError> {
        let key = part_key(id, part);
        // Without a copy, a part that a delivery writes in the meantime could not be put back.
        let Some(stored) = self.get_by_key(key.clone()).await? else {
            return Ok(false);
        };
        if self.is_named(id, part).await? {
            return Ok(false);
        }
        let deleted = self.delete(key).await;
        if !self.is_named(id, part).await? {
            return deleted.map(|()| true);
        }
        let put = self.client.put_item().table_name(&self.table);
        put.set_item(Some(stored)).send().await?;
        Ok(false)
    }

    /// Deletes the parts that a closed manifest names and no committed item does, then the manifest.
    async fn sweep_one(&self, manifest: &Item) -> Result<(), StoreError> {
        let (Some(pk), Some(sort_key)) = (text(manifest, "pk"), text(manifest, "sk")) else {
            return Err(StoreError::Corrupt("the key of a manifest"));
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
        let Expression {
            condition,
            names,
            values,
            ..
        } = Condition::equals("state", SWEEPING).to_expression();
        let delete = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(item_key(pk, sort_key)))
            .set_condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values);
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(error) if is_condition_failed(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Closes a manifest that is due at `now`, so that nothing more is committed under it, and has it swept at
    /// `sweep_at`. Returns its item, or `None` if the manifest is no longer due or is gone.
    async fn close_manifest(
        &self,
        manifest: &Item,
        now: Timestamp,
        sweep_at: Timestamp,
    ) -> Result<Option<Item>, StoreError> {
        let key = ["pk", "sk"].map(|name| Some((name.to_owned(), manifest.get(name)?.clone())));
        let key: Option<Item> = key.into_iter().collect();
        let key = key.ok_or(StoreError::Corrupt("the key of a manifest"))?;
        let change = Change::default()
            .set("state", SWEEPING)
            .set("next_attempt_at", &sweep_at)
            .only_if(Condition::at_most("next_attempt_at", &now));
        Ok(self.update_item(key, &change, ReturnValue::AllNew).await?)
    }

    /// Deletes everything that is stored of an event except its head: the parts that the head and other items name, the
    /// conflicts, and the parts in the event's own partition. Works without a head, and may be repeated at any time.
    ///
    /// Nothing may read the head's parts any more when this is called. The head keeps the names of its parts; remove
    /// them only after this returns, so that an interrupted deletion can be repeated. A manifest stays, closed, for
    /// another minute, so that the sweep deletes what a concurrent delivery may still write.
    ///
    /// Deletes nothing and returns false if the event has a head that is not erased. A delivery may commit a head at
    /// any time until its manifest is closed, and then owns the parts.
    pub(super) async fn delete_beside_head(&self, id: &EventId) -> Result<bool, StoreError> {
        let has = |item: &Item, name: &str, value: &str| text(item, name) == Some(value);
        for manifest in self.items_of(id).await?.iter().filter(|item| is_manifest(item)) {
            let sweep_at = Timestamp::now() + SWEEP_AFTER_ERASURE;
            self.close_manifest(manifest, Timestamp::MAX, sweep_at).await?;
        }
        // Read after the manifests are closed, so that everything that was committed before is included.
        let items = self.items_of(id).await?;
        let is_live = |item: &Item| has(item, "sk", "head") && !has(item, "state", State::Erased.as_str());
        if items.iter().any(is_live) {
            return Ok(false);
        }
        for item in &items {
            let Some(sort_key) = text(item, "sk") else {
                continue;
            };
            // A delivery has opened it since, and may still commit.
            if is_manifest(item) && !has(item, "state", SWEEPING) {
                continue;
            }
            for name in parts_named_by(item) {
                self.delete(part_key(id, &name)).await?;
            }
            // After its parts, since it names them.
            if sort_key != "head" && !sort_key.starts_with(MANIFEST) {
                self.delete(item_key(id.as_str(), sort_key)).await?;
            }
        }
        Ok(true)
    }

    /// Whether anything except a head and closed manifests is stored of an event.
    pub async fn has_leftovers(&self, id: &EventId) -> Result<bool, StoreError> {
        let is_closed = |item: &Item| is_manifest(item) && text(item, "state") == Some(SWEEPING);
        let is_head = |item: &Item| text(item, "sk") == Some("head");
        let items = self.items_of(id).await?;
        Ok(items.iter().any(|item| !is_closed(item) && !is_head(item)))
    }

    /// Reads the items in an event's own partition: their keys, their states, and the names of their parts.
    async fn items_of(&self, id: &EventId) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let query = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression("pk = :id")
                .expression_attribute_values(":id", AttributeValue::S(id.to_string()))
                .projection_expression("pk, sk, #state, payload_parts, event_parts, #parts")
                .expression_attribute_names("#state", "state")
                .expression_attribute_names("#parts", "parts")
                .consistent_read(true)
                .set_exclusive_start_key(start);
            let page = query.send().await?;
            items.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }

    pub(super) async fn delete(&self, key: Item) -> Result<(), StoreError> {
        let delete = self.client.delete_item().table_name(&self.table).set_key(Some(key));
        delete.send().await?;
        Ok(())
    }
}
