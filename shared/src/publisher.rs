//! Publishes events to the topic, within the limits of SNS.

mod alarm;
mod error;
mod omission;
mod state;
mod stored;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use aws_sdk_sns::types::{MessageAttributeValue, PublishBatchRequestEntry};

pub use self::error::{Fault, PublishError};
use self::error::{call_error, fault_of};
use self::omission::reduced;
use self::stored::StoredEvent;

use crate::aws;
use crate::event::OrderEvent;
use crate::settings::{SettingError, Settings};

/// The default limit of a message, body and attributes together. The topic's `MaximumMessageSize` can raise it.
const MESSAGE_LIMIT: usize = 256 * 1024;
/// The largest limit that a topic can have.
const LARGEST_MESSAGE_LIMIT: usize = 1024 * 1024;

/// The limit of a message, and of all messages of one call together: the topic's `MaximumMessageSize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimit(usize);

impl MessageLimit {
    /// Reads `MAX_MESSAGE_BYTES`, whose default is the default of SNS.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        const NAME: &str = "MAX_MESSAGE_BYTES";
        const EXPECTED: &str = "a number of bytes from 262144 to 1048576";
        let bytes = settings.parsed(NAME, MESSAGE_LIMIT, EXPECTED)?;
        if (MESSAGE_LIMIT..=LARGEST_MESSAGE_LIMIT).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(SettingError::Invalid {
                name: NAME,
                expected: EXPECTED,
            })
        }
    }

    /// The limit in bytes, including attributes.
    pub fn bytes(self) -> usize {
        self.0
    }
}

impl Default for MessageLimit {
    fn default() -> Self {
        Self(MESSAGE_LIMIT)
    }
}

/// Publishes events to one topic.
pub struct Publisher {
    client: aws_sdk_sns::Client,
    topic_arn: String,
    limit: MessageLimit,
    /// Whether messages contain the parts of the payload that have no field in the event.
    publishes_unmapped: bool,
    /// Whether the state of an order is published after each of its events.
    publishes_states: bool,
}

/// The message of an event.
pub struct Message {
    text: String,
    attributes: HashMap<String, MessageAttributeValue>,
    size: usize,
}

/// Why an event is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The event has happened.
    First,
    /// An operator replays the event. The message says so in the attribute `replay`.
    Replay,
}

/// The JSON of an event, exactly as it is stored. A newer version may have written it, with types, words and fields
/// that this version does not know.
pub struct Stored {
    /// The JSON text.
    pub json: String,
}

/// The evidence that one run has on whether the topic accepts messages at the moment.
///
/// An error is the fault of one message only if other messages are published. If nothing is published, it is an outage.
#[derive(Debug, Default)]
pub struct Evidence {
    published: AtomicBool,
    failed_since: AtomicU32,
}

impl Evidence {
    /// Whether any message was published.
    pub fn has_published(&self) -> bool {
        self.published.load(Ordering::Relaxed)
    }

    /// Whether another call is worthwhile after a failed one: a message was published, and not too many calls have
    /// failed since.
    pub fn is_worth_a_call(&self) -> bool {
        self.has_published() && self.failed_since.load(Ordering::Relaxed) < FAILURES_IN_A_ROW
    }

    fn note(&self, any_published: bool) {
        if any_published {
            self.published.store(true, Ordering::Relaxed);
            self.failed_since.store(0, Ordering::Relaxed);
        } else {
            self.failed_since.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The number of failed calls in a row that count as an outage: more than it takes to find ten refused messages in a
/// batch.
const FAILURES_IN_A_ROW: u32 = 24;

impl Publisher {
    /// A publisher to the topic that `TOPIC_ARN` names.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            client: aws::sns(settings)?,
            topic_arn: settings.required("TOPIC_ARN")?,
            limit: MessageLimit::from_settings(settings)?,
            publishes_unmapped: settings.parsed("PUBLISH_UNMAPPED", true, "`true` or `false`")?,
            publishes_states: settings.parsed("PUBLISH_STATE", false, "`true` or `false`")?,
        })
    }

    /// The limit of a message.
    pub fn limit(&self) -> MessageLimit {
        self.limit
    }

    /// Whether the state of an order is published after each of its events.
    pub fn publishes_states(&self) -> bool {
        self.publishes_states
    }

    /// Reads the attributes of the topic, to open a connection and to set up the client.
    pub async fn connect(&self) -> Result<(), PublishError> {
        let request = self.client.get_topic_attributes().topic_arn(&self.topic_arn);
        request.send().await.map_err(|error| call_error(&error, 1))?;
        Ok(())
    }

    /// Whether the topic exists and is a standard topic. If so, SNS does not refuse a message because of the topic.
    pub async fn has_sound_topic(&self) -> bool {
        let request = self.client.get_topic_attributes().topic_arn(&self.topic_arn);
        let answer = request.send().await;
        let attributes = answer.as_ref().ok().and_then(|answer| answer.attributes());
        attributes.is_some_and(|attributes| attributes.get("FifoTopic").is_none_or(|fifo| fifo != "true"))
    }

    /// Publishes a message.
    pub async fn publish(&self, message: Message) -> Result<(), PublishError> {
        let request = self.client.publish().topic_arn(&self.topic_arn).message(message.text);
        let request = request.set_message_attributes(Some(message.attributes));
        request.send().await.map_err(|error| call_error(&error, 1))?;
        Ok(())
    }

    /// Publishes many messages in as few calls as SNS allows. Returns one result for each, in their order.
    ///
    /// A failed call is split down to the message that causes the error, as long as `evidence` says that others are
    /// published. Otherwise the rest is not tried, so that an outage does not cause even more calls.
    pub async fn publish_all(&self, messages: Vec<Message>, evidence: &Evidence) -> Vec<Result<(), PublishError>> {
        let mut results: Vec<Option<Result<(), PublishError>>> = messages.iter().map(|_| None).collect();
        let mut batches = batches(messages, self.limit);
        let mut ended_by = None;
        while let Some(mut batch) = batches.pop_front() {
            let outcomes = self.publish_batch(&batch).await;
            let outcomes = match outcomes {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    evidence.note(false);
                    let is_worth_a_call = error.fault != Fault::Throttled && evidence.is_worth_a_call();
                    if is_worth_a_call && batch.len() > 1 {
                        let rest = batch.split_off(batch.len() / 2);
                        batches.push_front(rest);
                        batches.push_front(batch);
                        continue;
                    }
                    for (index, _) in &batch {
                        results[*index] = Some(Err(error.clone()));
                    }
                    if is_worth_a_call {
                        continue;
                    }
                    ended_by = Some(PublishError {
                        is_alone: false,
                        ..error
                    });
                    break;
                }
            };
            evidence.note(outcomes.iter().any(|(_, outcome)| outcome.is_ok()));
            for (index, outcome) in outcomes {
                results[index] = Some(outcome);
            }
        }
        let unanswered = ended_by.unwrap_or_else(|| PublishError {
            fault: Fault::Unclear,
            cause: "no answer for this message".to_owned(),
            is_alone: false,
        });
        let results = results.into_iter();
        results
            .map(|result| result.unwrap_or_else(|| Err(unanswered.clone())))
            .collect()
    }

    /// Makes one call. Returns the result of each message that the answer names.
    async fn publish_batch(
        &self,
        batch: &[(usize, Message)],
    ) -> Result<Vec<(usize, Result<(), PublishError>)>, PublishError> {
        let entries = batch.iter().map(|(index, message)| {
            let entry = PublishBatchRequestEntry::builder()
                .id(index.to_string())
                .message(&message.text);
            let entry = entry.set_message_attributes(Some(message.attributes.clone()));
            entry.build().expect("id and message are set")
        });
        let request = self.client.publish_batch().topic_arn(&self.topic_arn);
        let request = request.set_publish_batch_request_entries(Some(entries.collect()));
        let answer = request.send().await.map_err(|error| call_error(&error, batch.len()))?;
        let index = |id: Option<&str>| {
            let index = id?.parse::<usize>().ok()?;
            batch.iter().any(|(known, _)| *known == index).then_some(index)
        };
        let published = answer
            .successful()
            .iter()
            .filter_map(|entry| Some((index(entry.id())?, Ok(()))));
        let refused = answer.failed().iter().filter_map(|entry| {
            let error = PublishError {
                fault: fault_of(entry.code(), entry.sender_fault()),
                cause: entry.code().to_owned(),
                is_alone: true,
            };
            Some((index(Some(entry.id()))?, Err(error)))
        });
        Ok(published.chain(refused).collect())
    }

    /// Creates the message of a new event: `json` if it is given and fits, or otherwise the event without the parts
    /// that do not fit.
    ///
    /// # Errors
    /// If the event is too large even without all optional parts.
    pub fn new_message(&self, event: OrderEvent, json: Option<String>) -> Result<Message, PublishError> {
        let attributes = attributes(&event);
        self.message(attributes, json, |room| reduced(event, room))
    }

    /// Creates the message of a stored event: its text unchanged, or without the parts that do not fit.
    ///
    /// # Errors
    /// If the text is not an event, or is too large even without all optional parts.
    pub fn stored_message(&self, stored: Stored, occasion: Occasion) -> Result<Message, PublishError> {
        let no_event = || PublishError::unpublishable("the stored event is not a JSON object");
        let mut attributes = stored::attributes(&stored.json).ok_or_else(no_event)?;
        if occasion == Occasion::Replay {
            attributes.push(("replay", "true".to_owned()));
        }
        let room = self.limit.bytes().saturating_sub(size_of_attributes(&attributes));
        if self.publishes_unmapped && stored.json.len() <= room {
            return self.message(attributes, Some(stored.json), |_| None);
        }
        let event = StoredEvent::read(&stored.json).ok_or_else(no_event)?;
        self.message(attributes, None, |room| reduced(event, room))
    }

    fn message(
        &self,
        attributes: Vec<(&'static str, String)>,
        json: Option<String>,
        reduced: impl FnOnce(usize) -> Option<String>,
    ) -> Result<Message, PublishError> {
        let attributes_size = size_of_attributes(&attributes);
        let limit = self.limit.bytes();
        let room = limit.saturating_sub(attributes_size);
        let complete = json.filter(|json| self.publishes_unmapped && json.len() <= room);
        let text = complete.or_else(|| reduced(room)).ok_or_else(|| {
            let too_large = format!("the event is over {limit} bytes even without its optional parts");
            PublishError::unpublishable(too_large)
        })?;
        let attribute = |value: String| {
            MessageAttributeValue::builder()
                .data_type("String")
                .string_value(value)
                .build()
                .expect("a type is set")
        };
        Ok(Message {
            size: text.len() + attributes_size,
            text,
            attributes: attributes
                .into_iter()
                .map(|(name, value)| (name.to_owned(), attribute(value)))
                .collect(),
        })
    }
}

impl Message {
    /// The size that counts towards the limit of SNS: text and attributes, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// Groups messages into calls of at most ten messages, which together must not exceed the limit of one. Each message
/// has its index among all messages.
fn batches(messages: Vec<Message>, limit: MessageLimit) -> VecDeque<Vec<(usize, Message)>> {
    let mut batches = VecDeque::<Vec<(usize, Message)>>::new();
    let mut size = 0;
    for (index, message) in messages.into_iter().enumerate() {
        match batches.back_mut() {
            Some(batch) if batch.len() < 10 && size + message.size <= limit.bytes() => {
                size += message.size;
                batch.push((index, message));
            }
            _ => {
                size = message.size;
                batches.push_back(vec![(index, message)]);
            }
        }
    }
    batches
}

fn size_of_attributes(attributes: &[(&str, String)]) -> usize {
    let sizes = attributes
        .iter()
        .map(|(name, value)| name.len() + "String".len() + value.len());
    sizes.sum()
}

/// The attributes by which subscribers can filter.
fn attributes(event: &OrderEvent) -> Vec<(&'static str, String)> {
    let mut attributes = vec![
        ("type", event.r#type.as_str().to_owned()),
        ("provider", event.data.provider.clone()),
        ("shop", event.data.shop.clone()),
        ("test", event.data.test.to_string()),
        ("origin", event.data.origin.as_str().to_owned()),
    ];
    attributes.extend(
        event
            .data
            .order
            .currency
            .map(|currency| ("currency", currency.as_str().to_owned())),
    );
    attributes
}

#[cfg(test)]
mod tests;
