//! Lists the parts that no committed item names, by their manifests.

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::parts::{MANIFEST, manifest_sort_key, manifests_of_shard, parts_named_by};
use super::{Item, Store, StoreError, item_key, text};
use crate::identity::{EventId, SHARDS};

/// An event whose parts were written and whose item has not committed.
#[derive(Debug, Serialize)]
pub struct Orphan {
    /// The id of the event.
    pub event_id: EventId,
    /// The SHA-256 of the body.
    pub payload_sha256: String,
    /// The provider's slug.
    pub provider: Option<String>,
    /// The operator's name for the shop.
    pub shop: Option<String>,
    /// The time at which the first attempt was received.
    pub received_at: Option<Timestamp>,
    /// The number of parts that were written, or were about to be.
    pub parts: usize,
    /// The size of all parts, in bytes.
    pub bytes: Option<u64>,
    /// The time at which the parts are deleted, unless another attempt is made.
    pub swept_at: Option<Timestamp>,
}

impl Orphan {
    fn read(manifest: &Item) -> Option<Self> {
        let text = |name| text(manifest, name);
        let sort_key = text("sk")?;
        Some(Self {
            event_id: EventId::stored(text("pk")?),
            payload_sha256: body_of_manifest(sort_key)?,
            provider: text("provider").map(str::to_owned),
            shop: text("shop").map(str::to_owned),
            received_at: text("received_at").and_then(|time| time.parse().ok()),
            parts: parts_named_by(manifest).len(),
            bytes: manifest.get("bytes").and_then(|bytes| bytes.as_n().ok()?.parse().ok()),
            swept_at: text("next_attempt_at").and_then(|time| time.parse().ok()),
        })
    }
}

/// The SHA-256 of the body that a manifest's sort key names.
fn body_of_manifest(sort_key: &str) -> Option<String> {
    Some(sort_key.strip_prefix(MANIFEST)?.trim_start_matches('#').to_owned())
}

/// A position among the manifests: a shard, and the manifest after which to continue in it. The default is the
/// beginning.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestCursor {
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

impl Store {
    /// Lists the events that have parts and have not committed: at most `limit` from `cursor` on. Returns the position
    /// after them, if there are more. An event that a delivery is storing right now is included.
    pub async fn orphans(
        &self,
        cursor: &ManifestCursor,
        limit: i32,
    ) -> Result<(Vec<Orphan>, Option<ManifestCursor>), StoreError> {
        let work = manifests_of_shard(cursor.shard);
        let start = cursor.after.as_ref().map(|after| {
            let mut start = item_key(&after.event_id, &manifest_sort_key(&after.payload_sha256));
            start.insert("work".to_owned(), work.clone());
            let next_attempt_at = AttributeValue::S(after.next_attempt_at.clone());
            start.insert("next_attempt_at".to_owned(), next_attempt_at);
            start
        });
        let query = self.client.query().table_name(&self.table).index_name("work");
        let query = query
            .key_condition_expression("#work = :work")
            .expression_attribute_names("#work", "work")
            .expression_attribute_values(":work", work)
            .limit(limit)
            .set_exclusive_start_key(start);
        let page = query.send().await?;
        let keys = page.items().iter().filter_map(|item| {
            let keys = ["pk", "sk"].map(|name| Some((name.to_owned(), item.get(name)?.clone())));
            keys.into_iter().collect::<Option<Item>>()
        });
        let manifests = self.batch_get(keys.collect(), None).await?;
        let last = page.last_evaluated_key.as_ref().and_then(|last| {
            let text = |name| text(last, name);
            Some(ManifestKey {
                next_attempt_at: text("next_attempt_at")?.to_owned(),
                event_id: text("pk")?.to_owned(),
                payload_sha256: body_of_manifest(text("sk")?)?,
            })
        });
        let shard = if last.is_some() { cursor.shard } else { cursor.shard + 1 };
        let next = (shard < SHARDS).then_some(ManifestCursor { shard, after: last });
        Ok((manifests.iter().filter_map(Orphan::read).collect(), next))
    }
}
