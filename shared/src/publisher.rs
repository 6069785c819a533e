//! Publishing an event to the topic, within what SNS takes.

use std::collections::HashMap;

use aws_sdk_sns::error::ProvideErrorMetadata as _;
use aws_sdk_sns::types::{MessageAttributeValue, PublishBatchRequestEntry};

use crate::aws;
use crate::event::{Order, OrderEvent};
use crate::settings::{SettingError, Settings};

/// SNS takes 256 KiB a message, body and attributes together, unless the topic's `MaximumMessageSize` says more.
const MESSAGE_LIMIT: usize = 256 * 1024;
/// More than that no topic takes.
const LARGEST_MESSAGE_LIMIT: usize = 1024 * 1024;

/// How large a message may be, and the messages of one call together: what the topic's `MaximumMessageSize` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimit(usize);

impl MessageLimit {
    /// `MAX_MESSAGE_BYTES`, by default SNS's own.
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

    /// In bytes, attributes included.
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
    /// Whether messages carry the part of the payload that has no place in the event.
    publishes_unmapped: bool,
}

/// An event was not published. It waits in the outbox.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// SNS will never take this message.
    #[error("SNS refuses the message: {0}")]
    Message(String),
    /// SNS takes nothing at the moment, or nothing from us.
    #[error("SNS does not take messages: {0}")]
    Unavailable(String),
}

/// An event as SNS takes it.
pub struct Message {
    text: String,
    attributes: HashMap<String, MessageAttributeValue>,
    size: usize,
}

/// Whether a message is the first of its event's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The event has happened.
    News,
    /// Somebody asked for it again: the message says so in the attribute `replay`.
    Replay,
}

/// An event, and its JSON as it is stored.
pub struct Stored {
    /// The event.
    pub event: OrderEvent,
    /// Its JSON.
    pub json: String,
}

impl Publisher {
    /// A publisher to the topic `TOPIC_ARN`.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            client: aws::sns(settings)?,
            topic_arn: settings.required("TOPIC_ARN")?,
            limit: MessageLimit::from_settings(settings)?,
            publishes_unmapped: settings.parsed("PUBLISH_UNMAPPED", true, "`true` or `false`")?,
        })
    }

    /// How large a message may be.
    pub fn limit(&self) -> MessageLimit {
        self.limit
    }

    /// Asks what the topic is, so that the connection stands and the client has worked once.
    pub async fn connect(&self) -> Result<(), PublishError> {
        let request = self.client.get_topic_attributes().topic_arn(&self.topic_arn);
        request.send().await.map_err(|error| fault(error.code(), &error))?;
        Ok(())
    }

    /// Publishes `event`, whose JSON is `json`, if that may be a message: exactly that, or what of it fits.
    pub async fn publish(&self, event: OrderEvent, json: Option<String>) -> Result<(), PublishError> {
        self.publish_message(self.message(event, json, Occasion::News)?).await
    }

    /// Publishes many messages in as few calls as SNS allows; one result for each, in their order. After an outage the rest
    /// is not tried.
    pub async fn publish_all(&self, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        // Until SNS says otherwise.
        let unanswered = || Err(PublishError::Unavailable("no answer for this message".to_owned()));
        let mut results: Vec<_> = messages.iter().map(|_| unanswered()).collect();
        let mut batch = Batch::within(self.limit);
        for (index, message) in messages.into_iter().enumerate() {
            if !batch.has_room_for(&message) {
                let full = std::mem::replace(&mut batch, Batch::within(self.limit));
                self.publish_batch(full, &mut results).await;
                let last = index.checked_sub(1).map(|last| results[last].clone());
                if let Some(outage @ Err(PublishError::Unavailable(_))) = last {
                    results[index..].fill(outage);
                    return results;
                }
            }
            batch.add(index, message);
        }
        self.publish_batch(batch, &mut results).await;
        results
    }

    async fn publish_batch(&self, batch: Batch, results: &mut [Result<(), PublishError>]) {
        if batch.messages.is_empty() {
            return;
        }
        let entries = batch.messages.iter().map(|(index, message)| {
            let entry = PublishBatchRequestEntry::builder()
                .id(index.to_string())
                .message(&message.text);
            let entry = entry.set_message_attributes(Some(message.attributes.clone()));
            entry.build().expect("id and message are set")
        });
        let request = self.client.publish_batch().topic_arn(&self.topic_arn);
        match request
            .set_publish_batch_request_entries(Some(entries.collect()))
            .send()
            .await
        {
            Ok(output) => {
                for entry in output.successful() {
                    if let Some(result) = entry.id().and_then(|id| results.get_mut(id.parse::<usize>().ok()?)) {
                        *result = Ok(());
                    }
                }
                for entry in output.failed() {
                    if let Some(result) = entry.id().parse().ok().and_then(|index: usize| results.get_mut(index)) {
                        *result = Err(entry_fault(entry.code(), entry.sender_fault()));
                    }
                }
            }
            Err(error) => match fault(error.code(), &error) {
                // Which of the messages is at fault shows when each goes by itself.
                PublishError::Message(_) => {
                    for (index, message) in batch.messages {
                        results[index] = self.publish_message(message).await;
                    }
                }
                unavailable @ PublishError::Unavailable(_) => {
                    for (index, _) in batch.messages {
                        results[index] = Err(unavailable.clone());
                    }
                }
            },
        }
    }

    async fn publish_message(&self, message: Message) -> Result<(), PublishError> {
        let request = self.client.publish().topic_arn(&self.topic_arn).message(message.text);
        let request = request.set_message_attributes(Some(message.attributes));
        request.send().await.map_err(|error| fault(error.code(), &error))?;
        Ok(())
    }

    /// The message for `event`, whose JSON is `json`, if that may be a message: exactly that, or what of it fits.
    pub fn message(
        &self,
        event: OrderEvent,
        json: Option<String>,
        occasion: Occasion,
    ) -> Result<Message, PublishError> {
        let mut attributes = attributes(&event);
        if occasion == Occasion::Replay {
            attributes.push(("replay", "true".to_owned()));
        }
        let attributes_size: usize = attributes
            .iter()
            .map(|(name, value)| name.len() + "String".len() + value.len())
            .sum();
        let limit = self.limit.bytes();
        let room = limit - attributes_size;
        let whole = json.filter(|json| self.publishes_unmapped && json.len() <= room);
        let text = whole.or_else(|| reduced(event, room)).ok_or_else(|| {
            let too_large = format!("the event is over {limit} bytes whatever is left out");
            PublishError::Message(too_large)
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
    /// What it counts towards SNS's limit: its text and its attributes, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// Messages that go in one call: ten at most, and together no larger than one may be.
struct Batch {
    messages: Vec<(usize, Message)>,
    size: usize,
    limit: MessageLimit,
}

impl Batch {
    fn within(limit: MessageLimit) -> Self {
        Self {
            messages: Vec::new(),
            size: 0,
            limit,
        }
    }

    fn has_room_for(&self, message: &Message) -> bool {
        self.messages.len() < 10 && self.size + message.size <= self.limit.bytes()
    }

    fn add(&mut self, index: usize, message: Message) {
        self.size += message.size;
        self.messages.push((index, message));
    }
}

/// The codes by which SNS refuses a call because of what is in it. An outage, throttling or a missing permission is never one.
const BLAMES_THE_MESSAGE: [&str; 7] = [
    "BatchRequestTooLong",
    "BatchRequestTooLongException",
    "InvalidParameter",
    "InvalidParameterException",
    "InvalidParameterValue",
    "ParameterValueInvalid",
    "ValidationError",
];

fn fault(code: Option<&str>, error: &(dyn std::error::Error + 'static)) -> PublishError {
    match code {
        Some(code) => entry_fault(code, true),
        None => PublishError::Unavailable(aws::cause(error)),
    }
}

fn entry_fault(code: &str, ours: bool) -> PublishError {
    if ours && BLAMES_THE_MESSAGE.contains(&code) {
        PublishError::Message(code.to_owned())
    } else {
        PublishError::Unavailable(code.to_owned())
    }
}

/// What subscribers can filter by.
fn attributes(event: &OrderEvent) -> Vec<(&'static str, String)> {
    let mut attributes = vec![
        ("type", event.r#type.as_str().to_owned()),
        ("provider", event.data.provider.clone()),
        ("shop", event.data.shop.clone()),
        ("test", event.data.test.to_string()),
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

/// The event's JSON without `unmapped`, and with as little more left out as makes it fit into `room` bytes; `None` if nothing does.
fn reduced(mut event: OrderEvent, room: usize) -> Option<String> {
    OMISSIONS.iter().find_map(|omission| {
        omission.apply(&mut event);
        event.to_json_within(room)
    })
}

/// A part of the event that a message can do without.
struct Omission {
    pointers: &'static [&'static str],
    leave_out: fn(&mut OrderEvent),
}

impl Omission {
    fn apply(&self, event: &mut OrderEvent) {
        (self.leave_out)(event);
        let within = |pointer: &str| self.pointers.iter().any(|omitted| pointer.starts_with(omitted));
        event.data.assumed.retain(|pointer| !within(pointer));
        event
            .data
            .omitted
            .extend(self.pointers.iter().map(|&pointer| pointer.to_owned()));
    }
}

/// In the order in which a consumer can best do without them. After the items only oddities remain: the last steps are
/// there because an order that cannot be published as it is must still be announced.
const OMISSIONS: [Omission; 4] = [
    Omission {
        pointers: &["/data/unmapped"],
        leave_out: |event| event.data.unmapped = None,
    },
    Omission {
        pointers: &["/data/order/items"],
        leave_out: |event| event.data.order.items = None,
    },
    Omission {
        pointers: &["/data/warnings"],
        leave_out: |event| event.data.warnings.clear(),
    },
    Omission {
        pointers: &[
            "/data/notification",
            "/data/change",
            "/data/refund",
            "/data/order/discounts",
            "/data/order/tax_lines",
            "/data/order/customer",
            "/data/order/billing_address",
            "/data/order/shipping_address",
            "/data/order/shipping",
            "/data/order/payment",
            "/data/order/note",
        ],
        leave_out: |event| {
            (event.data.notification, event.data.change, event.data.refund) = (None, None, None);
            let order = std::mem::take(&mut event.data.order);
            event.data.order = Order {
                id: order.id,
                number: order.number,
                channel: order.channel,
                status: order.status,
                provider_status: order.provider_status,
                payment_status: order.payment_status,
                provider_payment_status: order.provider_payment_status,
                currency: order.currency,
                totals: order.totals,
                placed_at: order.placed_at,
                updated_at: order.updated_at,
                ..Order::default()
            };
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Item;
    use crate::event::tests::sample;
    use crate::money::Currency;

    fn large(bytes: usize) -> String {
        "x".repeat(bytes)
    }

    fn event(unmapped: usize, items: usize, note: usize) -> OrderEvent {
        let mut event = sample(Order {
            id: Some("7".to_owned()),
            items: Some(vec![Item {
                name: Some(large(items)),
                ..Item::default()
            }]),
            note: Some(large(note)),
            ..Order::default()
        });
        let more = [("more".to_owned(), large(unmapped).into())];
        event.data.unmapped = Some(serde_json::Map::from_iter(more).into());
        event.data.assumed = vec!["/data/order/items/0/quantity".to_owned(), "/time".to_owned()];
        event
    }

    fn omitted(event: &OrderEvent) -> Option<Vec<String>> {
        let message = reduced(event.clone(), MESSAGE_LIMIT)?;
        assert!(message.len() <= MESSAGE_LIMIT);
        let read: OrderEvent = serde_json::from_str(&message).expect("an event");
        assert_eq!((&read.id, &read.data.order.id), (&event.id, &event.data.order.id));
        Some(read.data.omitted)
    }

    #[test]
    fn as_little_as_possible_is_left_out() {
        let much = MESSAGE_LIMIT;
        let unmapped = Some(vec!["/data/unmapped".to_owned()]);
        assert_eq!(omitted(&event(much, 10, 10)), unmapped);
        let both = Some(vec!["/data/unmapped".to_owned(), "/data/order/items".to_owned()]);
        assert_eq!(omitted(&event(10, much, 10)), both);
        let all = omitted(&event(10, 10, much)).expect("a message");
        assert!(all.contains(&"/data/order/note".to_owned()));
    }

    #[test]
    fn what_is_left_out_is_no_longer_named_as_assumed() {
        let message = reduced(event(10, MESSAGE_LIMIT, 10), MESSAGE_LIMIT).expect("a message");
        let read: OrderEvent = serde_json::from_str(&message).expect("an event");
        assert_eq!(read.data.assumed, ["/time"]);
    }

    #[test]
    fn an_order_id_that_fills_a_message_cannot_be_published() {
        let mut event = event(10, 10, 10);
        event.data.order.id = Some(large(MESSAGE_LIMIT));
        assert_eq!(omitted(&event), None);
    }

    #[test]
    fn only_what_sns_blames_on_the_message_counts_against_it() {
        assert!(matches!(
            entry_fault("InvalidParameter", true),
            PublishError::Message(_)
        ));
        for code in [
            "AuthorizationError",
            "Throttled",
            "KMSAccessDenied",
            "NotFound",
            "InternalError",
        ] {
            assert!(
                matches!(entry_fault(code, true), PublishError::Unavailable(_)),
                "{code}"
            );
        }
        assert!(matches!(
            entry_fault("InvalidParameter", false),
            PublishError::Unavailable(_)
        ));
    }

    #[test]
    fn a_batch_holds_ten_messages_and_no_more_than_one_may_hold() {
        let message = |size| Message {
            text: String::new(),
            attributes: HashMap::new(),
            size,
        };
        let mut small = Batch::within(MessageLimit::default());
        (0..10).for_each(|index| small.add(index, message(1)));
        assert!(!small.has_room_for(&message(1)));
        let mut large = Batch::within(MessageLimit::default());
        large.add(0, message(MESSAGE_LIMIT - 10));
        assert!(large.has_room_for(&message(10)) && !large.has_room_for(&message(11)));
    }

    fn publisher(max_message_bytes: &str) -> Result<Publisher, SettingError> {
        Publisher::from_settings(&Settings::from_table([
            ("TOPIC_ARN", "arn:aws:sns:us-east-1:000000000000:order-events"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "none"),
            ("AWS_SECRET_ACCESS_KEY", "none"),
            ("MAX_MESSAGE_BYTES", max_message_bytes),
        ]))
    }

    #[test]
    fn a_topic_of_large_messages_gets_the_event_complete() {
        let event = event(MESSAGE_LIMIT, 10, 10);
        let json = event.to_json_within(usize::MAX).expect("JSON");
        let limits = [("", false), ("262144", false), ("524288", true), ("1048576", true)];
        for (limit, is_complete) in limits {
            let publisher = publisher(limit).expect("a publisher");
            let message = publisher.message(event.clone(), Some(json.clone()), Occasion::News);
            let message = message.expect("a message");
            assert_eq!(message.text == json, is_complete, "{limit}");
            assert!(message.size() <= publisher.limit().bytes());
        }
    }

    #[test]
    fn a_larger_limit_leaves_out_what_is_over_it_all_the_same() {
        let event = event(LARGEST_MESSAGE_LIMIT, 10, 10);
        let publisher = publisher("1048576").expect("a publisher");
        let message = publisher.message(event, None, Occasion::News).expect("a message");
        let read: OrderEvent = serde_json::from_str(&message.text).expect("an event");
        assert_eq!(read.data.omitted, ["/data/unmapped"]);
    }

    #[test]
    fn a_batch_may_be_as_large_as_one_message() {
        let message = |size| Message {
            text: String::new(),
            attributes: HashMap::new(),
            size,
        };
        let mut batch = Batch::within(publisher("1048576").expect("a publisher").limit());
        (0..4).for_each(|index| batch.add(index, message(MESSAGE_LIMIT)));
        assert_eq!(batch.messages.len(), 4);
        assert!(!batch.has_room_for(&message(1)));
        let mut batch = Batch::within(MessageLimit::default());
        batch.add(0, message(MESSAGE_LIMIT));
        assert!(!batch.has_room_for(&message(1)));
    }

    #[test]
    fn a_limit_that_no_topic_has_is_a_wrong_setting() {
        for wrong in ["0", "262143", "1048577", "1 MiB", "-1"] {
            let error = publisher(wrong).err().expect("it is wrong").to_string();
            assert!(error.contains("MAX_MESSAGE_BYTES"), "{error}");
        }
    }

    #[test]
    fn a_currency_is_an_attribute_where_it_is_known() {
        let mut event = event(1, 1, 1);
        let names = |event: &OrderEvent| attributes(event).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&event), ["type", "provider", "shop", "test"]);
        event.data.order.currency = Currency::parse("eur");
        assert!(attributes(&event).contains(&("currency", "EUR".to_owned())));
    }
}
