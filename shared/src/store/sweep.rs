//! Deleting the parts that no committed item names.

use std::collections::HashSet;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};

use super::event_items::sortable;
use super::parts::{MANIFEST, is_manifest, part_key, parts_named_by, text, work_key};
use super::{Item, State, Store, StoreError, describe, item_key};
use crate::identity::EventId;

/// How long a sweep may take before another one repeats it.
const SWEEP_LEASE: SignedDuration = SignedDuration::from_mins(10);

/// How long after an erasure the sweep looks for parts that a delivery in flight has still written.
const SWEEP_AFTER_ERASURE: SignedDuration = SignedDuration::from_mins(1);

impl Store {
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
}

pub(super) fn failed<E>(error: &SdkError<E>) -> StoreError
where
    E: aws_sdk_dynamodb::error::ProvideErrorMetadata + std::error::Error + 'static,
{
    StoreError::DynamoDb(describe(error))
}
