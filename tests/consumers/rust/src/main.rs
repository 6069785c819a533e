//! Reads order events from a queue, and prints a line for each order that changes.
//!
//! ```sh
//! QUEUE_URL=... cargo run --package consumer --bin consumer
//! ```
//!
//! The AWS SDK finds region, credentials and endpoint as usual.
#![allow(clippy::print_stdout, reason = "a line on standard output is the result")]

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::path::Path;

use aws_config::BehaviorVersion;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use serde::Deserialize;
use serde_json::Value;
use shared::order_state::{History, OrderState};

const SCHEMA: &str = "urn:order-webhooks:order-event:v1";

/// The envelope of SNS. A replay has the message attribute `replay` and its original id, so it needs no special case.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    message: String,
}

/// This state is lost at a restart. In production, keep both in one database: `handled` as a table with the event's
/// id as its primary key, and the events of each order. Insert the id in the transaction that adds the event, so that
/// neither is stored without the other. An id may be deleted when its message cannot arrive any more: after the
/// longest time that you may replay.
#[derive(Default)]
struct View {
    handled: HashSet<String>,
    orders: HashMap<String, History>,
    states: HashMap<String, OrderState>,
}

impl View {
    /// Handles one message. An error leaves it in the queue.
    fn handle(&mut self, body: &str) -> Result<(), Box<dyn Error>> {
        let envelope: Envelope = serde_json::from_str(body)?;
        let event: Value = serde_json::from_str(&envelope.message)?;
        if event["dataschema"] != SCHEMA {
            return Err("another version of the event".into());
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (id, source) = text(&event["id"]).zip(text(&event["source"])).ok_or("no event")?;
        if self.handled.contains(&id) {
            return Ok(());
        }
        // Test orders are not real orders, and some events only name items.
        if let (false, Some(order)) = (event["data"]["test"] == true, text(&event["data"]["order"]["id"])) {
            let key = format!("{source}/{order}");
            let history = self.orders.entry(key.clone()).or_default();
            history.add_value(event)?;
            if let Some(state) = history.states().remove(&key) {
                println!("{key} {}", line(&state));
                self.states.insert(key, state);
            }
        }
        self.handled.insert(id);
        if let Some(file) = std::env::var_os("STATES_FILE") {
            self.save_states(Path::new(&file))?;
        }
        Ok(())
    }

    /// Writes all states to a file, in which the state command of `cargo local consumer-check` looks them up.
    fn save_states(&self, file: &Path) -> Result<(), Box<dyn Error>> {
        let new = file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&self.states)?)?;
        Ok(std::fs::rename(new, file)?)
    }
}

/// The most important facts of an order.
fn line(state: &OrderState) -> String {
    let order = Value::Object(state.order.clone());
    let fact = |pointer| order.pointer(pointer).and_then(Value::as_str).unwrap_or("-");
    format!(
        "status={} payment={} total={} {} events={}",
        fact("/status"),
        fact("/payment_status"),
        // An exact decimal: never a float.
        fact("/totals/total"),
        fact("/currency"),
        state.events.len()
    )
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let queue_url = std::env::var("QUEUE_URL").map_err(|_| "QUEUE_URL is not set")?;
    let tls = Provider::Rustls(CryptoMode::Ring);
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(Builder::new().tls_provider(tls).build_https())
        .load()
        .await;
    let sqs = aws_sdk_sqs::Client::new(&config);
    let mut view = View::default();
    loop {
        let receive = sqs.receive_message().queue_url(&queue_url);
        let received = receive.max_number_of_messages(10).wait_time_seconds(20).send().await?;
        for message in received.messages() {
            if view.handle(message.body().unwrap_or_default()).is_err() {
                // Not deleted: SQS delivers it again, then dead-letters it. Its content is not logged.
                eprintln!(
                    "message {} stays in the queue",
                    message.message_id().unwrap_or_default()
                );
                continue;
            }
            // After a crash before this line, the message arrives again, and its id is already handled.
            let receipt = message.receipt_handle().unwrap_or_default();
            sqs.delete_message()
                .queue_url(&queue_url)
                .receipt_handle(receipt)
                .send()
                .await?;
        }
    }
}
