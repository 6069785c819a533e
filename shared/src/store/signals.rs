//! Signals: small counters of faults that no event in the table shows, such as a malformed secret. The receiving
//! functions write them, all in one partition, and the task `alert` of redrive reads them.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;

use super::event_items::sortable;
use super::{Item, Store, StoreError, item_key, text};
use crate::alert::Subject;

/// The partition of the signals.
pub(super) const SIGNALS: &str = "signals";
/// The number of samples from which on a signal takes no more of them.
const SAMPLES: usize = 10;
/// The most samples that one write adds.
pub(crate) const SAMPLES_AT_ONCE: usize = 5;

/// The number of findings of one kind at one shop, and samples of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The kind and the shop.
    pub subject: Subject,
    /// The number of findings since the item exists.
    pub count: u64,
    /// How many of them the task `alert` has taken.
    pub taken: u64,
    /// The time of the last finding.
    pub last_at: Timestamp,
    /// Samples, each as `{event id}|{detail}`; the event id may be empty.
    pub samples: BTreeSet<String>,
}

impl Store {
    /// Adds `count` findings to a signal, and those `samples` for which there is room.
    pub(crate) async fn add_signal(
        &self,
        subject: &Subject,
        count: u64,
        samples: &BTreeSet<String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let add = |with_samples: bool| {
            let update = self.client.update_item().table_name(&self.table);
            let update = update
                .set_key(Some(item_key(SIGNALS, &subject.to_string())))
                .expression_attribute_names("#count", "count")
                .expression_attribute_values(":count", AttributeValue::N(count.to_string()))
                .expression_attribute_values(":now", AttributeValue::S(sortable(now)));
            let change = "SET last_at = :now ADD #count :count";
            if !with_samples {
                return update.update_expression(change);
            }
            update
                .update_expression(format!("{change}, samples :samples"))
                .condition_expression("attribute_not_exists(samples) OR size(samples) < :most")
                .expression_attribute_values(":samples", AttributeValue::Ss(samples.iter().cloned().collect()))
                .expression_attribute_values(":most", AttributeValue::N(SAMPLES.to_string()))
        };
        let mut added = add(!samples.is_empty()).send().await;
        if let Err(error) = &added
            && error.code() == Some("ConditionalCheckFailedException")
        {
            added = add(false).send().await;
        }
        added?;
        Ok(())
    }

    /// Adds one finding to a signal that no event shows.
    pub async fn report(&self, subject: &Subject, detail: &str) -> Result<(), StoreError> {
        let samples = [format!("|{detail}")].into();
        self.add_signal(subject, 1, &samples, Timestamp::now()).await
    }

    /// Reads all signals.
    pub async fn signals(&self) -> Result<Vec<Signal>, StoreError> {
        // A consistent read, because the count is compared with the one that was taken last.
        let items = self.partition(SIGNALS, true).await?;
        Ok(items.iter().filter_map(signal).collect())
    }
}

fn signal(item: &Item) -> Option<Signal> {
    let text = |name| text(item, name);
    let number = |name: &str| item.get(name)?.as_n().ok()?.parse().ok();
    Some(Signal {
        subject: Subject::parse(text("sk")?)?,
        count: number("count")?,
        taken: number("taken").unwrap_or(0),
        last_at: text("last_at")?.parse().ok()?,
        samples: item
            .get("samples")
            .and_then(|samples| samples.as_ss().ok())
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
    })
}
