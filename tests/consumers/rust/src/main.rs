//! Reads order events from a queue, and prints a line for each order that changes.
//!
//! ```sh
//! QUEUE_URL=... cargo run --package consumer
//! ```
//!
//! The AWS SDK finds region, credentials and endpoint as usual.
#![allow(clippy::print_stdout, reason = "a line on standard output is the result")]

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt;

use aws_config::BehaviorVersion;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use jiff::Timestamp;
use serde::Deserialize;
use shared::event::{OrderEvent, PaymentStatus, Status};
use shared::money::Currency;

const SCHEMA: &str = "urn:order-webhooks:order-event:v1";

/// The envelope of SNS. A replay has the message attribute `replay` and its original id, so it needs no special case.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    message: String,
}

/// The sort key of an event: `order.updated_at` (or `time` if it is absent), then `time`, then the id.
type Place = (Timestamp, Timestamp, String);

/// A fact, and the position of the event that stated it.
#[derive(Default)]
struct Fact(Option<(Place, String)>);

impl Fact {
    /// Applies a value. The latest event that states a fact wins, in whatever order events arrive.
    fn say(&mut self, place: &Place, value: Option<impl fmt::Display>) {
        let is_later = self.0.as_ref().is_none_or(|(known, _)| place > known);
        if let Some(value) = value.filter(|_| is_later) {
            self.0 = Some((place.clone(), value.to_string()));
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.as_ref().map_or("-", |(_, value)| value))
    }
}

/// The known facts of an order.
#[derive(Default)]
struct Order {
    status: Fact,
    payment: Fact,
    total: Fact,
    currency: Fact,
    events: usize,
}

impl Order {
    fn apply(&mut self, event: &OrderEvent) {
        let order = &event.data.order;
        let place = (order.updated_at.unwrap_or(event.time), event.time, event.id.to_string());
        self.status.say(&place, order.status.map(Status::as_str));
        self.payment
            .say(&place, order.payment_status.map(PaymentStatus::as_str));
        self.total.say(&place, order.totals.total);
        self.currency.say(&place, order.currency.as_ref().map(Currency::as_str));
        self.events += 1;
    }
}

impl fmt::Display for Order {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            status,
            payment,
            total,
            currency,
            events,
        } = self;
        write!(
            formatter,
            "status={status} payment={payment} total={total} {currency} events={events}"
        )
    }
}

/// This state is lost at a restart. In production, keep both in one database: `handled` as a table with the event's
/// id as its primary key, and one row for each order. Insert the id in the transaction that changes the order, so
/// that neither is stored without the other. An id may be deleted when its message cannot arrive any more: after the
/// longest time that you may replay.
#[derive(Default)]
struct View {
    handled: HashSet<String>,
    orders: HashMap<String, Order>,
}

impl View {
    /// Handles one message. An error leaves it in the queue; a word that these types do not know is an error.
    fn handle(&mut self, body: &str) -> Result<(), Box<dyn Error>> {
        let envelope: Envelope = serde_json::from_str(body)?;
        let event: OrderEvent = serde_json::from_str(&envelope.message)?;
        if event.dataschema != SCHEMA {
            return Err("another version of the event".into());
        }
        if self.handled.contains(event.id.as_str()) {
            return Ok(());
        }
        // Test orders are not real orders, and some events only name items.
        if let (false, Some(id)) = (event.data.test, &event.data.order.id) {
            let key = format!("{}/{id}", event.source);
            let order = self.orders.entry(key.clone()).or_default();
            order.apply(&event);
            println!("{key} {order}");
        }
        self.handled.insert(event.id.to_string());
        Ok(())
    }
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
