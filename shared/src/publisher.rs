//! Publishing an event to the topic, within what SNS takes.

mod alarm;
mod stored;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use aws_sdk_sns::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sns::types::{MessageAttributeValue, PublishBatchRequestEntry};

use self::stored::StoredEvent;

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

/// An event was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SNS does not take the message: {cause}")]
pub struct PublishError {
    /// What kind of error it is.
    pub fault: Fault,
    /// The code of SNS, or what the connection says.
    pub cause: String,
    /// Whether it is about this message alone. An error of a call with several messages does not say which of them causes it.
    pub is_alone: bool,
}

/// Kinds of errors of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The event can never be a message: it is too large, or its item is damaged.
    Unpublishable,
    /// SNS refuses the call because of what is in it: the message, or the topic.
    Refused,
    /// SNS or the table asks for fewer calls.
    Throttled,
    /// SNS is not reached, or takes nothing from us.
    Outage,
    /// An error that does not say whose fault it is: a missing permission, an internal error, an unknown code.
    Unclear,
    /// The stored event cannot be read at the moment.
    Store,
}

impl PublishError {
    /// The event can never be a message.
    pub fn unpublishable(cause: impl Into<String>) -> Self {
        Self {
            fault: Fault::Unpublishable,
            cause: cause.into(),
            is_alone: true,
        }
    }
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
    First,
    /// Somebody asked for it again: the message says so in the attribute `replay`.
    Replay,
}

/// The JSON of an event exactly as it is stored. A newer version may have written it, so its types, words and fields are open.
pub struct Stored {
    /// The text.
    pub json: String,
}

/// What one run knows of whether the topic takes messages at the moment.
///
/// An error is one message's fault only if other messages pass; where nothing passes, it is an outage.
#[derive(Debug, Default)]
pub struct Evidence {
    published: AtomicBool,
    failed_since: AtomicU32,
}

impl Evidence {
    /// Whether anything was published.
    pub fn has_published(&self) -> bool {
        self.published.load(Ordering::Relaxed)
    }

    /// Whether another call is worth while after a failed one: something was published, and not too many calls have failed since.
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

/// Failed calls in a row after which a run takes an outage to have begun: more than it takes to find ten refused messages.
const FAILURES_IN_A_ROW: u32 = 24;

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
        request.send().await.map_err(|error| call_error(&error, 1))?;
        Ok(())
    }

    /// Whether the topic exists and is a standard topic, so that a message that SNS refuses is not refused because of the topic.
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

    /// Publishes many messages in as few calls as SNS allows; one result for each, in their order.
    ///
    /// A call that fails is split down to the message that causes it, as long as `evidence` says that others pass. Otherwise the
    /// rest is not tried: an outage is not multiplied.
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

    /// One call; what became of each message that the answer names.
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

    /// The message of a new event, whose JSON is `json` if that may be a message: exactly that, or what of it fits.
    ///
    /// # Errors
    /// Where the event is too large whatever is left out.
    pub fn new_message(&self, event: OrderEvent, json: Option<String>) -> Result<Message, PublishError> {
        let attributes = attributes(&event);
        self.message(attributes, json, |room| reduced(event, room))
    }

    /// The message of a stored event: its text as it is, or what of it fits.
    ///
    /// # Errors
    /// Where the text is no event, or too large whatever is left out.
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
        let whole = json.filter(|json| self.publishes_unmapped && json.len() <= room);
        let text = whole.or_else(|| reduced(room)).ok_or_else(|| {
            let too_large = format!("the event is over {limit} bytes whatever is left out");
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
    /// What it counts towards SNS's limit: its text and its attributes, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// Messages that go in one call, ten at most and together no larger than one may be, each with its place among all.
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

/// The codes by which SNS refuses a call because of what is in it. An outage, throttling or a missing permission is never one.
const REFUSED: [&str; 7] = [
    "BatchRequestTooLong",
    "BatchRequestTooLongException",
    "InvalidParameter",
    "InvalidParameterException",
    "InvalidParameterValue",
    "ParameterValueInvalid",
    "ValidationError",
];

/// The codes of an outage that no message causes: SNS itself, the topic, its key, or our credentials.
const OUTAGE: [&str; 12] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "NotFound",
    "NotFoundException",
    "RequestExpired",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
    "UnrecognizedClientException",
];

/// The error of a call with `messages` messages.
fn call_error<E>(error: &SdkError<E>, messages: usize) -> PublishError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let (fault, cause) = match error.code() {
        Some(code) => (fault_of(code, true), code.to_owned()),
        None => (Fault::Outage, aws::cause(error)),
    };
    PublishError {
        fault,
        cause,
        is_alone: messages == 1,
    }
}

/// What kind of error a code of SNS is; `ours`: SNS says that the caller is at fault.
fn fault_of(code: &str, ours: bool) -> Fault {
    if aws::is_throttling(code) {
        Fault::Throttled
    } else if ours && REFUSED.contains(&code) {
        Fault::Refused
    } else if OUTAGE.contains(&code) || code.starts_with("KMS") {
        Fault::Outage
    } else {
        Fault::Unclear
    }
}

fn size_of_attributes(attributes: &[(&str, String)]) -> usize {
    let sizes = attributes
        .iter()
        .map(|(name, value)| name.len() + "String".len() + value.len());
    sizes.sum()
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

/// An event that parts can be left out of.
trait Reducible {
    /// Leaves out a part, names it in `omitted`, and no longer names what is in it as assumed.
    fn leave_out(&mut self, omission: &Omission);

    /// Its JSON, if it takes `room` bytes at most.
    fn json_within(&self, room: usize) -> Option<String>;
}

/// The event's JSON without `unmapped`, and with as little more left out as makes it fit into `room` bytes; `None` if nothing does.
fn reduced(mut event: impl Reducible, room: usize) -> Option<String> {
    OMISSIONS.iter().find_map(|omission| {
        event.leave_out(omission);
        event.json_within(room)
    })
}

/// A part of the event that a message can do without.
struct Omission {
    pointers: &'static [&'static str],
    leave_out: fn(&mut OrderEvent),
}

impl Omission {
    fn holds(&self, pointer: &str) -> bool {
        self.pointers.iter().any(|omitted| pointer.starts_with(omitted))
    }
}

impl Reducible for OrderEvent {
    fn leave_out(&mut self, omission: &Omission) {
        (omission.leave_out)(self);
        self.data.assumed.retain(|pointer| !omission.holds(pointer));
        let pointers = omission.pointers.iter().map(|&pointer| pointer.to_owned());
        self.data.omitted.extend(pointers);
    }

    fn json_within(&self, room: usize) -> Option<String> {
        self.to_json_within(room)
    }
}

/// In the order in which a consumer can best do without them. After the items only oddities remain: the last steps are
/// there because an order that cannot be published as it is must still be announced.
const OMISSIONS: [Omission; 5] = [
    Omission {
        pointers: &["/data/unmapped"],
        leave_out: |event| event.data.unmapped = None,
    },
    Omission {
        pointers: &["/data/order/items"],
        leave_out: |event| event.data.order.items = None,
    },
    Omission {
        pointers: &[
            "/data/order/shipping/fulfillments",
            "/data/order/adjustments",
            "/data/order/custom_fields",
        ],
        leave_out: |event| {
            let order = &mut event.data.order;
            (order.shipping.fulfillments, order.adjustments, order.custom_fields) = (None, None, None);
        },
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
            "/data/order/url",
            "/data/order/cancel_reason",
        ],
        leave_out: |event| {
            (event.data.notification, event.data.change, event.data.refund) = (None, None, None);
            let order = std::mem::take(&mut event.data.order);
            event.data.order = Order {
                id: order.id,
                number: order.number,
                channel: order.channel,
                parent_id: order.parent_id,
                locale: order.locale,
                status: order.status,
                provider_status: order.provider_status,
                payment_status: order.payment_status,
                provider_payment_status: order.provider_payment_status,
                currency: order.currency,
                totals: order.totals,
                placed_at: order.placed_at,
                updated_at: order.updated_at,
                completed_at: order.completed_at,
                cancelled_at: order.cancelled_at,
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
    fn a_code_of_sns_says_what_kind_of_error_it_is() {
        for (code, fault) in [
            ("InvalidParameter", Fault::Refused),
            ("AuthorizationError", Fault::Unclear),
            ("InternalError", Fault::Unclear),
            ("Throttled", Fault::Throttled),
            ("KMSThrottling", Fault::Throttled),
            ("KMSAccessDenied", Fault::Outage),
            ("NotFound", Fault::Outage),
        ] {
            assert_eq!(fault_of(code, true), fault, "{code}");
        }
        assert_eq!(fault_of("InvalidParameter", false), Fault::Unclear);
    }

    #[test]
    fn a_batch_holds_ten_messages_and_no_more_than_one_may_hold() {
        let message = |size| Message {
            text: String::new(),
            attributes: HashMap::new(),
            size,
        };
        let default = MessageLimit::default();
        let lengths = |sizes: &[usize], limit| {
            let batches = batches(sizes.iter().map(|size| message(*size)).collect(), limit);
            batches.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&[1; 11], default), [10, 1]);
        assert_eq!(lengths(&[MESSAGE_LIMIT - 10, 10, 1], default), [2, 1]);
        assert_eq!(lengths(&[MESSAGE_LIMIT - 10, 11], default), [1, 1]);
        assert_eq!(lengths(&[], default), [0; 0]);
        // A call may be as large as one message.
        let large = publisher("1048576").expect("a publisher").limit();
        assert_eq!(lengths(&[MESSAGE_LIMIT; 5], large), [4, 1]);
        assert_eq!(lengths(&[MESSAGE_LIMIT; 2], default), [1, 1]);
    }

    #[test]
    fn another_call_is_worth_while_only_while_messages_pass() {
        let evidence = Evidence::default();
        assert!(!evidence.is_worth_a_call(), "nothing has passed yet");
        evidence.note(true);
        for _ in 0..FAILURES_IN_A_ROW {
            assert!(evidence.is_worth_a_call());
            evidence.note(false);
        }
        assert!(!evidence.is_worth_a_call(), "an outage has begun");
        evidence.note(true);
        assert!(evidence.is_worth_a_call());
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
            let new = publisher.new_message(event.clone(), Some(json.clone()));
            let stored = publisher.stored_message(Stored { json: json.clone() }, Occasion::First);
            for message in [new, stored] {
                let message = message.expect("a message");
                assert_eq!(message.text == json, is_complete, "{limit}");
                assert!(message.size() <= publisher.limit().bytes());
            }
        }
    }

    #[test]
    fn a_larger_limit_leaves_out_what_is_over_it_all_the_same() {
        let event = event(LARGEST_MESSAGE_LIMIT, 10, 10);
        let publisher = publisher("1048576").expect("a publisher");
        let message = publisher.new_message(event, None).expect("a message");
        let read: OrderEvent = serde_json::from_str(&message.text).expect("an event");
        assert_eq!(read.data.omitted, ["/data/unmapped"]);
    }

    #[test]
    fn a_limit_that_no_topic_has_is_a_wrong_setting() {
        for wrong in ["0", "262143", "1048577", "1 MiB", "-1"] {
            let error = publisher(wrong).err().expect("it is wrong").to_string();
            assert!(error.contains("MAX_MESSAGE_BYTES"), "{error}");
        }
    }

    #[test]
    fn everything_that_is_left_out_is_named() {
        fn leaves(at: &str, value: &serde_json::Value, found: &mut Vec<(String, serde_json::Value)>) {
            match value {
                serde_json::Value::Object(fields) if !fields.is_empty() => {
                    let mut below = |(name, value)| leaves(&format!("{at}/{name}"), value, found);
                    fields.iter().for_each(&mut below);
                }
                serde_json::Value::Null => {}
                leaf => found.push((at.to_owned(), leaf.clone())),
            }
        }
        for golden in [
            include_str!("../../events/selldone/checkout-order-receiver-info.normalized.json"),
            include_str!("../../events/selldone/cancel-product-rejected.normalized.json"),
            include_str!("../../events/cartum/order-update-shipping.normalized.json"),
            include_str!("../../events/snipcart/order-refund-created.normalized.json"),
        ] {
            let mut event: OrderEvent = serde_json::from_str(golden).expect("an event");
            let mut whole = Vec::new();
            leaves("", &serde_json::to_value(&event).expect("JSON"), &mut whole);
            for omission in &OMISSIONS {
                event.leave_out(omission);
                let reduced = serde_json::to_value(&event).expect("JSON");
                for (pointer, value) in &whole {
                    let is_kept = reduced.pointer(pointer) == Some(value);
                    let is_named = event.data.omitted.iter().any(|omitted| pointer.starts_with(omitted));
                    let speaks_of_others = ["/data/assumed", "/data/omitted"].contains(&pointer.as_str());
                    assert!(is_kept || is_named || speaks_of_others, "{pointer} is gone");
                }
            }
        }
    }

    #[test]
    fn large_lists_are_left_out_before_the_rest_of_the_order() {
        let mut event = event(10, 10, 10);
        event.data.order.custom_fields = Some(vec![crate::event::CustomField {
            name: None,
            value: Some(large(MESSAGE_LIMIT)),
        }]);
        let expected = [
            "/data/unmapped",
            "/data/order/items",
            "/data/order/shipping/fulfillments",
            "/data/order/adjustments",
            "/data/order/custom_fields",
        ];
        assert_eq!(omitted(&event).expect("a message"), expected);
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
