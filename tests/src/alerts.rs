//! The alerts of a stack, as a subscriber of the alarm topic receives them.

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use local::project::settings::RECONCILE;
use local::recorder::alerts::Alert;
use local::{ACCOUNT, ALARMS};
use serde_json::{Value, json};

use crate::{Item, Stack};

/// The partitions of the table that belong to alerts and to reconcile.
const PARTITIONS: [&str; 5] = ["shops", "signals", "alerts", RECONCILE, "subscriptions"];
/// The prefix of the partitions of orders that were erased on request.
const ERASED_ORDER: &str = "erased_order#";

/// Whether an item belongs to alerts or to reconcile, and to no event.
pub fn belongs_to_no_event(item: &Item) -> bool {
    let partition = item.get("pk").and_then(|pk| pk.as_s().ok());
    partition.is_some_and(|partition| PARTITIONS.contains(&partition.as_str()) || partition.starts_with(ERASED_ORDER))
}

/// Applies `change` to all times in a document.
pub(crate) fn change_times(document: &mut Value, change: &impl Fn(&str) -> String) {
    match document {
        Value::String(text) if text.parse::<Timestamp>().is_ok() => *text = change(text),
        Value::Array(values) => values.iter_mut().for_each(|value| change_times(value, change)),
        Value::Object(members) => members.values_mut().for_each(|value| change_times(value, change)),
        _ => {}
    }
}

impl Stack {
    /// Lets this time pass, runs the task `alert` and returns its answer.
    pub async fn alert_after(&self, time: SignedDuration) -> Value {
        self.let_time_pass(time).await;
        self.ask(json!({"alert": {}})).await
    }

    /// Takes all alerts out of the queue of the alarm topic.
    pub async fn alerts(&self) -> Vec<Alert> {
        let sqs = &self.clients().sqs;
        let url = format!("{}/{ACCOUNT}/{ALARMS}", self.endpoints().messages_url());
        let mut alerts = Vec::new();
        loop {
            let received = sqs.receive_message().queue_url(&url).max_number_of_messages(10);
            let received = received.send().await.expect("the queue can be read");
            if received.messages().is_empty() {
                return alerts;
            }
            for message in received.messages() {
                let receipt = message.receipt_handle().expect("a receipt handle");
                let deleted = sqs.delete_message().queue_url(&url).receipt_handle(receipt).send();
                deleted.await.expect("the message is deleted");
                alerts.push(Alert::read(message.body().expect("a body")).expect("an alert"));
            }
        }
    }

    /// The items of a partition.
    pub async fn partition(&self, name: &str) -> Vec<Item> {
        let mut items = self.all_items().await;
        items.retain(|item| item["pk"] == AttributeValue::S(name.to_owned()));
        items
    }
}
