//! Signals: small counters by which the receiving functions report what no event in the table shows, such as a secret that is
//! malformed. They are all in one partition; the task `alert` of redrive reads them.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;

use super::event_items::sortable;
use super::{Item, Store, StoreError, item_key};
use crate::alert::Subject;

/// The partition of the signals.
pub(super) const SIGNALS: &str = "signals";
/// How many samples a signal may hold before another write adds none. A write brings no more than [`SAMPLES_AT_ONCE`].
const SAMPLES: usize = 10;
/// How many samples one write brings.
pub(crate) const SAMPLES_AT_ONCE: usize = 5;

/// How often something was found, and some of what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// What was found, and at which shop.
    pub subject: Subject,
    /// How often it was found since the item exists.
    pub count: u64,
    /// How much of `count` the task `alert` has taken up.
    pub taken: u64,
    /// When it was last found.
    pub last_at: Timestamp,
    /// What was found, in words, each as `{event id}|{detail}`; the event id may be empty.
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

    /// All signals.
    pub async fn signals(&self) -> Result<Vec<Signal>, StoreError> {
        // Consistently: its count is compared with the one that was taken up last.
        let items = self.partition(SIGNALS, true).await?;
        Ok(items.iter().filter_map(signal).collect())
    }
}

fn signal(item: &Item) -> Option<Signal> {
    let text = |name: &str| item.get(name)?.as_s().ok();
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
