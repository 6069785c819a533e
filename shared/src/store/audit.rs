//! Reads the table for an audit: the entries of the indexes, the items that they name, and what is wrong with an item.
//!
//! Other readers skip an item that they cannot read. An audit names it.

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use super::conflicts::CONFLICT;
use super::history::Received;
use super::retention::{EXPIRING, is_expired_tombstone};
use super::{Head, Hour, Item, SHARDS, State, Store, StoreError, item_key, text};
use crate::delivery::Delivery;
use crate::identity::EventId;
use crate::verification::Verified;

/// The number of partitions that an hour of a provider has in the index `by_hour`: the shards of its events, then those
/// of its conflicts.
const PARTITIONS: u8 = 2 * SHARDS;

/// The kinds of entries in the index `work` whose items an audit reads. Manifests are read as orphans.
const KINDS: [&str; 5] = ["pending", "failed", "quarantined", "conflict", EXPIRING];

/// The attributes that a tombstone does not have once its erasure is complete.
const ERASED: [&str; 8] = [
    "payload",
    "payload_parts",
    "event",
    "event_parts",
    "request",
    "order",
    "order_key",
    "erasing",
];

/// What is wrong with a stored item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Fault {
    /// An index names the item, and the table does not hold it.
    ItemMissing,
    /// The item lacks an attribute that every event has.
    ItemUnreadable,
    /// The item was written for another event: it names another id than its key, or today's code gives its body another
    /// id.
    OtherId,
    /// The key in the index `by_hour` is missing or wrong, so that no task by period finds the event.
    HourKey,
    /// The key in the index `work` does not belong to the state of the event, so that redrive does not find it, or tries
    /// it again in every run.
    WorkKey,
    /// The key in the index `by_order` is missing or wrong, so that the history of the order does not show the event.
    OrderKey,
    /// The body or the event is missing.
    ValueMissing,
    /// A part of the body or of the event is missing.
    PartMissing,
    /// The body or the event cannot be decompressed.
    ValueUnreadable,
    /// The body has another SHA-256 than the item says.
    PayloadDiffers,
    /// The stored event is not an order event.
    EventInvalid,
    /// The stored event has another SHA-256 than the item says, or is not the event that the item describes.
    EventDiffers,
    /// An event without an order event has a state that only order events have, or the other way round.
    StateDiffers,
    /// The erasure of the event has begun and is not complete.
    HalfErased,
    /// The item is a conflict of an event that the table does not hold.
    ConflictAlone,
    /// The item is superseded by an event that the table does not hold.
    SuccessorMissing,
    /// A part that neither an event nor a manifest names.
    PartAlone,
}

impl Fault {
    /// The word for the fault in an answer.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// An item that an index names.
pub enum Entry {
    /// The table does not hold the item.
    Missing,
    /// The item is an expired tombstone, which counts as gone.
    Gone,
    /// The item cannot be read.
    Unreadable {
        /// The operator's name for the shop.
        shop: Option<String>,
    },
    /// The item as it is stored.
    Read(Box<Head>),
}

/// A position in the index `work`. The default is the beginning.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkPosition {
    partition: u8,
    after: Option<Received>,
}

/// A part, or the head of an event that the index `by_hour` does not name, as a scan of the table finds them.
pub enum Scanned {
    /// A part, with the id of its event.
    Part(EventId, String),
    /// A head.
    Head(EventId, Option<String>, Option<String>),
}

/// The key of the item after which a scan of the table continues.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanPosition {
    after: Option<(String, String)>,
}

impl Received {
    /// The time by which the index orders the entry; in the index `by_hour` the time of receipt.
    pub fn time(&self) -> Option<Timestamp> {
        self.at.parse().ok()
    }

    fn sort_key(&self) -> String {
        let conflict = self.conflict.as_ref();
        conflict.map_or_else(|| "head".to_owned(), |sha256| format!("{CONFLICT}{sha256}"))
    }

    fn read(item: &Item, time: &str) -> Option<Self> {
        Some(Self {
            at: text(item, time)?.to_owned(),
            id: EventId::stored(text(item, "pk")?),
            conflict: text(item, "sk")?.strip_prefix(CONFLICT).map(str::to_owned),
        })
    }
}

impl Head {
    /// Lists the faults of the item that follow from its attributes alone.
    pub fn faults(&self, key: &Received) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.text("event_id") != Some(key.id.as_str())
            || key
                .conflict
                .as_deref()
                .is_some_and(|sha256| sha256 != self.payload_sha256)
        {
            faults.push(Fault::OtherId);
        }
        let prefix = if key.conflict.is_some() { CONFLICT } else { "" };
        if !has_hour_key(self, prefix) {
            faults.push(Fault::HourKey);
        }
        if key.conflict.is_none() {
            if !has_work_key(self) {
                faults.push(Fault::WorkKey);
            }
            let is_order_event = matches!(self.state, State::Published | State::Pending | State::Failed);
            if self.state != State::Erased && is_order_event != self.has_event() {
                faults.push(Fault::StateDiffers);
            }
        }
        let is_half_erased = match self.state {
            State::Erased => ERASED.iter().any(|name| self.item.contains_key(*name)),
            _ => self.is_being_erased(),
        };
        if is_half_erased {
            faults.push(Fault::HalfErased);
        }
        faults
    }
}

impl Store {
    /// Lists the partitions of an hour that have entries.
    pub async fn partitions_in_use(&self, provider: &str, hour: Hour) -> Result<Vec<u8>, StoreError> {
        let pages = (0..PARTITIONS).map(|partition| async move {
            let (keys, _) = self.partition_of_hour(provider, hour, partition, 1, None).await?;
            Ok::<_, StoreError>((!keys.is_empty()).then_some(partition))
        });
        Ok(try_join_all(pages).await?.into_iter().flatten().collect())
    }

    /// Lists the entries of one partition of an hour: at most `limit` after `after`. Returns the last of them too, if
    /// there are more.
    pub async fn partition_of_hour(
        &self,
        provider: &str,
        hour: Hour,
        partition: u8,
        limit: i32,
        after: Option<&Received>,
    ) -> Result<(Vec<Received>, Option<Received>), StoreError> {
        let (kind, shard) = (["", CONFLICT][usize::from(partition / SHARDS)], partition % SHARDS);
        let key = format!("{kind}{provider}#{}#{shard}", hour.key());
        self.entries_of(("by_hour", "hour", "received_at"), key, limit, after)
            .await
    }

    /// Lists entries of the index `work`: at most `limit` from `position` on. Returns the position after them, if there
    /// are more.
    pub async fn work_entries(
        &self,
        position: &WorkPosition,
        limit: i32,
    ) -> Result<(Vec<Received>, Option<WorkPosition>), StoreError> {
        let (kind, shard) = (
            KINDS[usize::from(position.partition / SHARDS)],
            position.partition % SHARDS,
        );
        let index = ("work", "work", "next_attempt_at");
        let page = self.entries_of(index, format!("{kind}#{shard}"), limit, position.after.as_ref());
        let (keys, last) = page.await?;
        let partition = if last.is_some() {
            position.partition
        } else {
            position.partition + 1
        };
        let is_last = usize::from(partition) == KINDS.len() * usize::from(SHARDS);
        Ok((keys, (!is_last).then_some(WorkPosition { partition, after: last })))
    }

    async fn entries_of(
        &self,
        (index, hash, range): (&str, &str, &str),
        key: String,
        limit: i32,
        after: Option<&Received>,
    ) -> Result<(Vec<Received>, Option<Received>), StoreError> {
        let start = after.map(|after| {
            let mut start = item_key(after.id.as_str(), &after.sort_key());
            start.insert(hash.to_owned(), AttributeValue::S(key.clone()));
            start.insert(range.to_owned(), AttributeValue::S(after.at.clone()));
            start
        });
        let query = self.client.query().table_name(&self.table).index_name(index);
        let query = query
            .key_condition_expression("#hash = :hash")
            .expression_attribute_names("#hash", hash)
            .expression_attribute_values(":hash", AttributeValue::S(key))
            .limit(limit)
            .set_exclusive_start_key(start);
        let page = query.send().await?;
        let keys = page.items().iter().filter_map(|item| Received::read(item, range));
        let last = page.last_evaluated_key.as_ref();
        Ok((keys.collect(), last.and_then(|last| Received::read(last, range))))
    }

    /// Reads the items of at most 100 entries, consistently and in full.
    pub async fn items_of_entries(&self, keys: Vec<Received>) -> Result<Vec<(Received, Entry)>, StoreError> {
        let wanted = keys.iter().map(|key| item_key(key.id.as_str(), &key.sort_key()));
        let mut items = self.items_with_keys(wanted.collect(), None).await?;
        let now = Timestamp::now();
        let entries = keys.into_iter().map(|key| {
            let is_named = |item: &Item| {
                text(item, "pk") == Some(key.id.as_str()) && text(item, "sk") == Some(key.sort_key().as_str())
            };
            let entry = match items.iter().position(is_named) {
                None => Entry::Missing,
                Some(at) => read_entry(items.swap_remove(at), now),
            };
            (key, entry)
        });
        Ok(entries.collect())
    }

    /// Lists the faults of an item that concern other items of the table: what an erasure has left, the event of a
    /// conflict, and the successor of a superseded event.
    pub async fn faults_around_item(&self, key: &Received, head: &Head) -> Result<Vec<Fault>, StoreError> {
        let exists = async |id: &EventId| {
            Ok::<_, StoreError>(
                !self
                    .head_items(std::slice::from_ref(id), Some(&["pk"]))
                    .await?
                    .is_empty(),
            )
        };
        let mut faults = Vec::new();
        if key.conflict.is_some() {
            if !exists(&key.id).await? {
                faults.push(Fault::ConflictAlone);
            }
        } else if head.state == State::Erased {
            if self.has_leftovers(&key.id).await? {
                faults.push(Fault::HalfErased);
            }
        } else if head.state == State::Superseded {
            let successor = head.text("superseded_by").map(EventId::stored);
            let is_stored = match &successor {
                Some(successor) => exists(successor).await?,
                None => false,
            };
            if !is_stored {
                faults.push(Fault::SuccessorMissing);
            }
        }
        Ok(faults)
    }

    /// Whether an entry leads to a conflict of an erased event. The erasure has deleted the conflict, and an index lags
    /// behind the table.
    pub async fn is_conflict_of_erased(&self, key: &Received) -> Result<bool, StoreError> {
        if key.conflict.is_none() {
            return Ok(false);
        }
        let id = std::slice::from_ref(&key.id);
        let heads = self.head_items(id, Some(&["pk", "state"])).await?;
        Ok(heads
            .iter()
            .any(|head| text(head, "state") == Some(State::Erased.as_str())))
    }

    /// The stored delivery, if its body is complete and unchanged; otherwise what is wrong with it.
    pub async fn audited_delivery(
        &self,
        key: &Received,
        head: &Head,
    ) -> Result<Result<Verified<Delivery>, Fault>, StoreError> {
        let delivery = match self.delivery(&key.id, head).await {
            Ok(delivery) => delivery,
            Err(error) => return fault_of_value(head, "payload", error).map(Err),
        };
        Ok(if head.has_body(delivery.body()) {
            Ok(delivery)
        } else {
            Err(Fault::PayloadDiffers)
        })
    }

    /// The stored JSON of the order event, if it is complete; otherwise what is wrong with it.
    pub async fn audited_event(&self, key: &Received, head: &Head) -> Result<Result<String, Fault>, StoreError> {
        match self.event(&key.id, head).await {
            Ok(stored) => Ok(Ok(stored.json)),
            Err(error) => fault_of_value(head, "event", error).map(Err),
        }
    }

    /// Reads a page of the table, and returns its parts and the heads that the index `by_hour` does not name. Returns
    /// the position after the page, if there is more.
    ///
    /// This is the only reader that scans the table: no index names a part.
    pub async fn scan_for_audit(
        &self,
        position: &ScanPosition,
    ) -> Result<(Vec<Scanned>, Option<ScanPosition>), StoreError> {
        let start = position.after.as_ref().map(|(pk, sk)| item_key(pk, sk));
        let value = |text: &str| AttributeValue::S(text.to_owned());
        let scan = self.client.scan().table_name(&self.table);
        let scan = scan
            .filter_expression(
                "begins_with(sk, :part) OR (sk = :head AND attribute_not_exists(#hour) AND #state <> :erased)",
            )
            .projection_expression("pk, sk, provider, shop")
            .expression_attribute_names("#hour", "hour")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":part", value("part"))
            .expression_attribute_values(":head", value("head"))
            .expression_attribute_values(":erased", value(State::Erased.as_str()))
            .consistent_read(true)
            .set_exclusive_start_key(start);
        let page = scan.send().await?;
        let found = page.items().iter().filter_map(|item| {
            let (pk, sk) = (text(item, "pk")?, text(item, "sk")?);
            let owned = |name| text(item, name).map(str::to_owned);
            Some(match (pk.strip_prefix("part#"), sk) {
                (Some(rest), _) => Scanned::Part(EventId::stored(rest.split('#').next()?), pk.to_owned()),
                (None, "head") => Scanned::Head(EventId::stored(pk), owned("provider"), owned("shop")),
                // The previous version kept parts in the event's own partition.
                (None, name) => Scanned::Part(EventId::stored(pk), name.to_owned()),
            })
        });
        let found = found.collect();
        let last = page.last_evaluated_key.as_ref();
        let next = last.and_then(|last| {
            let after = Some((text(last, "pk")?.to_owned(), text(last, "sk")?.to_owned()));
            Some(ScanPosition { after })
        });
        Ok((found, next))
    }
}

fn read_entry(item: Item, now: Timestamp) -> Entry {
    if is_expired_tombstone(&item, now) {
        return Entry::Gone;
    }
    let shop = text(&item, "shop").map(str::to_owned);
    match Head::read(item) {
        Ok(head) if head.provider().is_some() && head.shop().is_some() && head.received_at().is_some() => {
            Entry::Read(Box::new(head))
        }
        _ => Entry::Unreadable { shop },
    }
}

/// Whether the item is in the index `by_hour`, under its provider and the hour of its receipt. The number of shards may
/// have been another one when it was written.
fn has_hour_key(head: &Head, prefix: &str) -> bool {
    let (Some(key), Some(provider), Some(received_at)) = (head.text("hour"), head.provider(), head.received_at())
    else {
        return false;
    };
    let hour = Hour::containing(received_at).key();
    let shard = key.strip_prefix(&format!("{prefix}{provider}#{hour}#"));
    shard.is_some_and(is_shard)
}

/// Whether the key of a head in the index `work` belongs to its state.
fn has_work_key(head: &Head) -> bool {
    let kind = match (head.text("work"), head.next_attempt_at) {
        (None, _) => return !head.state.is_work(),
        // An erasure by retention keeps the key until its end.
        (Some(_), _) if head.state == State::Erased => return head.is_being_erased(),
        (Some(_), None) => return false,
        (Some(key), Some(_)) => key.rsplit_once('#').filter(|(_, shard)| is_shard(shard)),
    };
    let expected = if head.state.is_work() {
        head.state.as_str()
    } else {
        EXPIRING
    };
    kind.is_some_and(|(kind, _)| kind == expected)
}

fn is_shard(text: &str) -> bool {
    text.parse::<u8>().is_ok_and(|shard| shard < SHARDS)
}

/// The fault that an error in reading one of the two large values means. Other errors than those of an item are
/// returned.
fn fault_of_value(head: &Head, name: &str, error: StoreError) -> Result<Fault, StoreError> {
    let StoreError::Corrupt(what) = error else {
        return Err(error);
    };
    let is_stored = [name.to_owned(), format!("{name}_parts")];
    let is_stored = is_stored.iter().any(|name| head.item.contains_key(name));
    Ok(match what {
        "a part is missing" => Fault::PartMissing,
        _ if is_stored => Fault::ValueUnreadable,
        _ => Fault::ValueMissing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0a";

    fn key(conflict: Option<&str>) -> Received {
        Received {
            at: "2026-01-31T10:43:44.000Z".to_owned(),
            id: EventId::stored(ID),
            conflict: conflict.map(str::to_owned),
        }
    }

    fn head(changes: &[(&str, Option<&str>)]) -> Head {
        let mut item: Item = [
            ("pk", ID),
            ("event_id", ID),
            ("state", "published"),
            ("provider", "cartum"),
            ("shop", "main"),
            ("received_at", "2026-01-31T10:43:44.000Z"),
            ("attempt_id", "1"),
            ("payload_sha256", "ab"),
            ("hour", "cartum#2026-01-31T10#0"),
            ("event", "compressed"),
        ]
        .map(|(name, value)| (name.to_owned(), AttributeValue::S(value.to_owned())))
        .into();
        for (name, value) in changes {
            match value {
                Some(value) => item.insert((*name).to_owned(), AttributeValue::S((*value).to_owned())),
                None => item.remove(*name),
            };
        }
        Head::read(item).expect("a head")
    }

    #[test]
    fn a_complete_item_has_no_fault() {
        assert_eq!(head(&[]).faults(&key(None)), []);
        let expiring = [
            ("work", Some("expiring#0")),
            ("next_attempt_at", Some("2026-03-01T00:00:00.000Z")),
        ];
        assert_eq!(head(&expiring).faults(&key(None)), []);
        let conflict = [
            ("state", Some("quarantined")),
            ("hour", Some("conflict#cartum#2026-01-31T10#0")),
        ];
        assert_eq!(head(&conflict).faults(&key(Some("ab"))), []);
        let tombstone = [("state", Some("erased")), ("event", None)];
        assert_eq!(head(&tombstone).faults(&key(None)), []);
    }

    #[test]
    fn each_wrong_attribute_is_its_own_fault() {
        let due = ("next_attempt_at", Some("2026-01-31T10:44:14.000Z"));
        for (changes, fault) in [
            (vec![("event_id", Some("0b"))], Fault::OtherId),
            (vec![("hour", None)], Fault::HourKey),
            (vec![("hour", Some("cartum#2026-01-31T11#0"))], Fault::HourKey),
            (vec![("hour", Some("deeple#2026-01-31T10#0"))], Fault::HourKey),
            (vec![("state", Some("pending"))], Fault::WorkKey),
            (vec![("work", Some("pending#0")), due], Fault::WorkKey),
            (
                vec![("state", Some("pending")), ("work", Some("pending#99")), due],
                Fault::WorkKey,
            ),
            (vec![("event", None)], Fault::StateDiffers),
            (vec![("state", Some("unsupported"))], Fault::StateDiffers),
            (vec![("erasing", Some("true"))], Fault::HalfErased),
            (vec![("state", Some("erased"))], Fault::HalfErased),
        ] {
            assert_eq!(head(&changes).faults(&key(None)), [fault], "{changes:?}");
        }
        assert!(head(&[]).faults(&key(Some("cd"))).contains(&Fault::OtherId));
    }
}
