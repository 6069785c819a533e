//! The queue that is subscribed to the topic, read as a consumer reads it.

use std::time::Duration;

use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use serde_json::Value;
use tokio::time::Instant;

use crate::{ACCOUNT, Error, NAME};

/// The queue.
#[derive(Debug, Clone)]
pub struct Queue {
    client: aws_sdk_sqs::Client,
    url: String,
}

/// A message of the queue.
#[derive(Debug, Clone)]
pub struct Message {
    /// The order event as it was published.
    pub text: String,
    /// The order event as JSON.
    pub event: Value,
    /// The message attributes, as SNS's envelope holds them.
    pub attributes: Value,
    receipt: String,
}

impl Queue {
    /// The queue at an endpoint.
    pub fn new(client: aws_sdk_sqs::Client, messages_url: &str) -> Self {
        Self {
            client,
            url: queue_url(messages_url),
        }
    }

    /// The queue `name` of the same client.
    pub(crate) fn named(&self, name: &str) -> Self {
        let folder = self.url.rsplit_once('/').map_or("", |(folder, _)| folder);
        Self {
            client: self.client.clone(),
            url: format!("{folder}/{name}"),
        }
    }

    /// The URL of the queue.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Takes the message of the event `event_id` from the queue, waiting up to `patience` for it. Other messages stay
    /// in the queue.
    pub async fn take(&self, event_id: &str, patience: Duration) -> Result<Option<Message>, Error> {
        let end = Instant::now() + patience;
        let mut others = Vec::new();
        let mut found = None;
        while found.is_none() {
            let wait = end.saturating_duration_since(Instant::now());
            let received = self.receive(i32::try_from(wait.as_secs().min(5)).unwrap_or(0)).await?;
            if received.is_empty() && wait.is_zero() {
                break;
            }
            for message in received {
                if found.is_none() && message.event["id"] == event_id {
                    found = Some(message);
                } else {
                    others.push(message);
                }
            }
        }
        for other in others {
            self.client
                .change_message_visibility()
                .queue_url(&self.url)
                .receipt_handle(other.receipt)
                .visibility_timeout(0)
                .send()
                .await
                .map_err(unread)?;
        }
        if let Some(message) = &found {
            self.delete(message).await?;
        }
        Ok(found)
    }

    /// Takes all messages that are in the queue now.
    pub async fn drain(&self) -> Result<Vec<Message>, Error> {
        self.drain_raw().await?.into_iter().map(Message::read).collect()
    }

    /// Takes all messages that are in the queue now, without reading them as order events.
    pub(crate) async fn drain_raw(&self) -> Result<Vec<aws_sdk_sqs::types::Message>, Error> {
        let mut messages = Vec::new();
        loop {
            let received = self.receive_raw(0).await?;
            if received.is_empty() {
                return Ok(messages);
            }
            let entries = received.iter().enumerate().map(|(index, message)| {
                DeleteMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .set_receipt_handle(message.receipt_handle.clone())
                    .build()
                    .map_err(unread)
            });
            self.client
                .delete_message_batch()
                .queue_url(&self.url)
                .set_entries(Some(entries.collect::<Result<_, _>>()?))
                .send()
                .await
                .map_err(unread)?;
            messages.extend(received);
        }
    }

    async fn receive(&self, seconds: i32) -> Result<Vec<Message>, Error> {
        let received = self.receive_raw(seconds).await?;
        received.into_iter().map(Message::read).collect()
    }

    async fn receive_raw(&self, seconds: i32) -> Result<Vec<aws_sdk_sqs::types::Message>, Error> {
        let received = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(10)
            .wait_time_seconds(seconds)
            .send()
            .await
            .map_err(unread)?;
        Ok(received.messages.unwrap_or_default())
    }

    async fn delete(&self, message: &Message) -> Result<(), Error> {
        self.client
            .delete_message()
            .queue_url(&self.url)
            .receipt_handle(&message.receipt)
            .send()
            .await
            .map_err(unread)?;
        Ok(())
    }
}

impl Message {
    fn read(message: aws_sdk_sqs::types::Message) -> Result<Self, Error> {
        let odd = |what| Error::Send(format!("a message of the queue {what}"));
        let body = message.body.ok_or_else(|| odd("has no body"))?;
        let mut envelope: Value = serde_json::from_str(&body).map_err(|_| odd("is not in SNS's envelope"))?;
        let Value::String(text) = envelope["Message"].take() else {
            return Err(odd("is not in SNS's envelope"));
        };
        Ok(Self {
            event: serde_json::from_str(&text).map_err(|_| odd("does not hold a JSON event"))?,
            text,
            attributes: envelope["MessageAttributes"].take(),
            receipt: message.receipt_handle.ok_or_else(|| odd("has no receipt handle"))?,
        })
    }
}

fn unread(error: impl std::error::Error) -> Error {
    let cause = DisplayErrorContext(error);
    Error::Send(format!(
        "the queue cannot be read: {cause}. --sns-port has to be the port that `cargo local` printed"
    ))
}

/// The URL of the queue at an endpoint.
pub fn queue_url(messages_url: &str) -> String {
    format!("{messages_url}/{ACCOUNT}/{NAME}")
}
