//! The open alerts, all in one partition, and the events that wait for an operator, as the task `alert` of redrive
//! reads and writes them.
//!
//! The item of an alert has a version and a text, whose form is up to the task. Each write is conditional on the
//! version that was read and on the source of the findings, so that only one of two runs takes them.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, TransactWriteItem, Update};
use futures_util::future::try_join_all;
use jiff::Timestamp;

use super::commit::Transacted;
use super::conflicts::CONFLICT;
use super::event_items::sortable;
use super::history::{BEGINNING, Received, merged};
use super::signals::{SIGNALS, Signal};
use super::{Item, SHARDS, Store, StoreError, item_key, text};
use crate::alert::{Kind, Subject};
use crate::identity::Shop;

/// The partition of the alerts.
const ALERTS: &str = "alerts";
/// The prefix of a cursor's sort key. No subject begins with it.
const CURSOR: &str = "cursor#";
/// The most alerts that one write may change. A transaction takes 100 items, and one is the source.
pub const ALERTS_AT_ONCE: usize = 90;
/// The most items that one call reads.
const ITEMS_AT_ONCE: usize = 100;
/// The attributes that describe a finding.
const ATTRIBUTES: [&str; 8] = ["pk", "sk", "state", "provider", "shop", "order", "reason", "last_error"];

/// The item of an alert.
pub struct AlertItem {
    /// The subject of the alert.
    pub subject: Subject,
    /// The text of the alert; a write without one deletes the item.
    pub text: Option<String>,
    /// The version that was read; 0 for a new item.
    pub version: u64,
}

/// The content of the partition of the alerts.
pub struct Alerts {
    /// The alerts.
    pub items: Vec<AlertItem>,
    /// How far the waiting events were taken, by kind.
    pub cursors: BTreeMap<Kind, Received>,
}

/// The source of the findings of a write.
pub enum Source<'a> {
    /// No source from which another run could take them.
    Nothing,
    /// The events of a kind that wait for an operator, from one cursor to another.
    Waiting(Kind, Option<&'a Received>, &'a Received),
    /// A signal.
    Signal(&'a Signal),
}

/// An event that waits for an operator, or a conflict.
pub struct Finding {
    /// The provider's slug.
    pub provider: String,
    /// The shop.
    pub shop: Shop,
    /// The order's id, if it is known.
    pub order: Option<String>,
    /// The reason of a quarantined delivery, or the last error of a failed event.
    pub detail: Option<String>,
}

impl Store {
    /// Reads the alerts.
    pub async fn alerts(&self) -> Result<Alerts, StoreError> {
        let mut alerts = Alerts {
            items: Vec::new(),
            cursors: BTreeMap::new(),
        };
        for item in self.partition(ALERTS, true).await? {
            let key = text(&item, "sk").unwrap_or_default();
            if let Some(kind) = key.strip_prefix(CURSOR) {
                let cursor = text(&item, "cursor").and_then(|cursor| serde_json::from_str(cursor).ok());
                let kind = serde_json::from_value(kind.into()).ok();
                alerts.cursors.extend(kind.zip(cursor));
            } else if let Some(subject) = Subject::parse(key) {
                let version = item
                    .get("version")
                    .and_then(|version| version.as_n().ok()?.parse().ok());
                alerts.items.push(AlertItem {
                    subject,
                    text: text(&item, "alert").map(str::to_owned),
                    version: version.unwrap_or(0),
                });
            }
        }
        Ok(alerts)
    }

    /// Writes at most [`ALERTS_AT_ONCE`] alerts and the source of their findings, all or nothing. Returns false if
    /// another run has changed one of them.
    pub async fn put_alerts(&self, source: Source<'_>, alerts: &[AlertItem]) -> Result<bool, StoreError> {
        let mut items = Vec::with_capacity(alerts.len() + 1);
        match source {
            Source::Nothing => {}
            Source::Waiting(kind, from, to) => items.push(self.move_cursor(kind, from, to)),
            Source::Signal(signal) => items.push(self.take_signal(signal)),
        }
        items.extend(alerts.iter().map(|alert| self.write_alert(alert)));
        Ok(matches!(self.transact(&items).await?, Transacted::Done))
    }

    fn write_alert(&self, alert: &AlertItem) -> TransactWriteItem {
        const CONDITION: &str = "version = :seen OR (attribute_not_exists(pk) AND :seen = :new)";
        let number = |number: u64| AttributeValue::N(number.to_string());
        let key = item_key(ALERTS, &alert.subject.to_string());
        let values = [(":seen", alert.version), (":new", 0)];
        let values = values.map(|(name, value)| (name.to_owned(), number(value)));
        let item = TransactWriteItem::builder();
        let Some(text) = &alert.text else {
            let delete = Delete::builder().table_name(&self.table).set_key(Some(key));
            let delete = delete
                .condition_expression(CONDITION)
                .set_expression_attribute_values(Some(values.into()))
                .build();
            return item.delete(delete.expect("table and key are set")).build();
        };
        let put = Put::builder().table_name(&self.table).set_item(Some(key));
        let put = put
            .item("alert", AttributeValue::S(text.clone()))
            .item("version", number(alert.version + 1))
            .condition_expression(CONDITION)
            .set_expression_attribute_values(Some(values.into()))
            .build();
        item.put(put.expect("table and item are set")).build()
    }

    fn move_cursor(&self, kind: Kind, from: Option<&Received>, to: &Received) -> TransactWriteItem {
        let cursor = |cursor: &Received| AttributeValue::S(serde_json::json!(cursor).to_string());
        let put = Put::builder().table_name(&self.table);
        let put = put
            .set_item(Some(item_key(ALERTS, &format!("{CURSOR}{}", kind.as_str()))))
            .item("cursor", cursor(to));
        let put = match from {
            Some(from) => put
                .condition_expression("#cursor = :from")
                .expression_attribute_names("#cursor", "cursor")
                .expression_attribute_values(":from", cursor(from)),
            None => put.condition_expression("attribute_not_exists(pk)"),
        };
        let put = put.build().expect("table and item are set");
        TransactWriteItem::builder().put(put).build()
    }

    fn take_signal(&self, signal: &Signal) -> TransactWriteItem {
        let number = |number: u64| AttributeValue::N(number.to_string());
        let update = Update::builder().table_name(&self.table);
        let update = update
            .set_key(Some(item_key(SIGNALS, &signal.subject.to_string())))
            .condition_expression("attribute_not_exists(taken) OR taken = :before")
            .expression_attribute_values(":before", number(signal.taken))
            .expression_attribute_values(":taken", number(signal.count));
        // Samples that another delivery has added meanwhile stay.
        let update = if signal.samples.is_empty() {
            update.update_expression("SET taken = :taken")
        } else {
            let samples = signal.samples.iter().cloned().collect();
            update
                .update_expression("SET taken = :taken DELETE samples :samples")
                .expression_attribute_values(":samples", AttributeValue::Ss(samples))
        };
        let update = update.build().expect("table, key and expression are set");
        TransactWriteItem::builder().update(update).build()
    }

    /// Lists at most `limit` events of a kind that wait for an operator, in the order of the index `work`, after
    /// `after` and until `until`. The flag says whether there may be more.
    pub async fn waiting(
        &self,
        kind: Kind,
        after: Option<&Received>,
        until: Timestamp,
        limit: usize,
    ) -> Result<(Vec<Received>, bool), StoreError> {
        let shards = (0..SHARDS).map(|shard| format!("{}#{shard}", kind.as_str()));
        let from = after.map_or(BEGINNING, |after| &after.at);
        let index = ("work", "work", "next_attempt_at");
        let pages = try_join_all(shards.map(|key| self.first_of_index(index, key, from, limit)));
        let (mut waiting, has_more) = merged(pages.await?, after, limit);
        let (until, found) = (sortable(until), waiting.len());
        waiting.retain(|received| received.at <= until);
        let is_cut = waiting.len() < found;
        Ok((waiting, has_more && !is_cut))
    }

    /// Whether an event of a kind still waits for an operator.
    pub async fn still_waits(&self, kind: Kind, event: &Received) -> Result<bool, StoreError> {
        let work = AttributeValue::S(format!("{}#{}", kind.as_str(), event.id.shard()));
        let query = self.client.query().table_name(&self.table).index_name("work");
        let query = query
            .key_condition_expression("#work = :work AND next_attempt_at = :at")
            .expression_attribute_names("#work", "work")
            .expression_attribute_values(":work", work)
            .expression_attribute_values(":at", AttributeValue::S(event.at.clone()));
        let page = query.send().await?;
        let is_it = |item: &Item| text(item, "pk") == Some(event.id.as_str());
        Ok(page.items().iter().any(is_it))
    }

    /// Describes events that wait for an operator. Events that do not wait any more, or cannot be read, are left out.
    pub async fn findings<'a>(
        &self,
        kind: Kind,
        waiting: &'a [Received],
    ) -> Result<Vec<(&'a Received, Finding)>, StoreError> {
        let mut items = BTreeMap::new();
        for some in waiting.chunks(ITEMS_AT_ONCE) {
            let keys = some.iter().map(|event| item_key(event.id.as_str(), &sort_key(event)));
            for item in self.items_with_keys(keys.collect(), Some(&ATTRIBUTES)).await? {
                let key = |name| text(&item, name).map(str::to_owned);
                items.extend(key("pk").zip(key("sk")).map(|key| (key, item)));
            }
        }
        let finding = |event: &'a Received| {
            let item = items.get(&(event.id.to_string(), sort_key(event)))?;
            let text = |name| text(item, name).map(str::to_owned);
            let waits = kind == Kind::Conflict || text("state")? == kind.as_str();
            let finding = Finding {
                provider: text("provider")?,
                shop: Shop::parse(&text("shop")?)?,
                order: text("order"),
                detail: match kind {
                    Kind::Failed => text("last_error"),
                    Kind::Quarantined => text("reason"),
                    _ => None,
                },
            };
            waits.then_some((event, finding))
        };
        Ok(waiting.iter().filter_map(finding).collect())
    }

    /// Reads all items of a partition that holds no event.
    pub(super) async fn partition(&self, pk: &str, is_consistent: bool) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let query = self.client.query().table_name(&self.table);
            let query = query
                .key_condition_expression("pk = :pk")
                .expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()))
                .consistent_read(is_consistent)
                .set_exclusive_start_key(start);
            let page = query.send().await?;
            items.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }
}

/// The sort key of an event's head, or of a conflict.
fn sort_key(event: &Received) -> String {
    match &event.conflict {
        Some(payload_sha256) => format!("{CONFLICT}{payload_sha256}"),
        None => "head".to_owned(),
    }
}
