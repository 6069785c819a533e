//! Publishing an event to the topic, within what SNS takes.

use aws_sdk_sns::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_sns::operation::publish::PublishError as SnsError;
use aws_sdk_sns::types::MessageAttributeValue;

use crate::aws;
use crate::event::{Order, OrderEvent};
use crate::settings::{SettingError, Settings};

/// SNS takes 256 KiB a message, body and attributes together.
const MESSAGE_LIMIT: usize = 256 * 1024;

/// Publishes events to one topic.
pub struct Publisher {
    client: aws_sdk_sns::Client,
    topic_arn: String,
    unmapped: Unmapped,
}

/// Whether messages carry the part of the payload that has no place in the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unmapped {
    Published,
    LeftOut,
}

/// An event was not published. It waits in the outbox.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Even without all that can be left out it is over the limit of SNS.
    #[error("the event is over {MESSAGE_LIMIT} bytes whatever is left out")]
    TooLarge,
    /// SNS refused it or was not reached.
    #[error("SNS does not take the event: {0}")]
    Sns(String),
}

impl Publisher {
    /// A publisher to the topic `TOPIC_ARN`.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        let publish_unmapped = settings.parsed("PUBLISH_UNMAPPED", true, "`true` or `false`")?;
        Ok(Self {
            client: aws::sns(settings)?,
            topic_arn: settings.required("TOPIC_ARN")?,
            unmapped: if publish_unmapped {
                Unmapped::Published
            } else {
                Unmapped::LeftOut
            },
        })
    }

    /// Publishes `event`, whose JSON is `json`: exactly that, or what of it fits into a message.
    pub async fn publish(&self, event: &OrderEvent, json: &str) -> Result<(), PublishError> {
        let attributes = attributes(event);
        let room = MESSAGE_LIMIT
            - attributes
                .iter()
                .map(|(name, value)| name.len() + "String".len() + value.len())
                .sum::<usize>();
        let message = match self.unmapped {
            Unmapped::Published if json.len() <= room => json.to_owned(),
            unmapped => reduced(event, unmapped, room).ok_or(PublishError::TooLarge)?,
        };
        let mut request = self.client.publish().topic_arn(&self.topic_arn).message(message);
        for (name, value) in attributes {
            let value = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(value)
                .build();
            request = request.message_attributes(name, value.map_err(|error| PublishError::Sns(error.to_string()))?);
        }
        request.send().await.map_err(|error| publish_error(&error))?;
        Ok(())
    }
}

fn publish_error(error: &SdkError<SnsError>) -> PublishError {
    PublishError::Sns(match error.code() {
        Some(code) => code.to_owned(),
        None => aws::cause(error),
    })
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

/// The event's JSON, with as little left out as makes it fit into `room` bytes; `None` if nothing makes it fit.
fn reduced(event: &OrderEvent, unmapped: Unmapped, room: usize) -> Option<String> {
    let mut steps = OMISSIONS.iter();
    let mut event = event.clone();
    if unmapped == Unmapped::LeftOut {
        steps.next()?.apply(&mut event);
    }
    loop {
        let message = event.to_json();
        if message.len() <= room {
            return Some(message);
        }
        steps.next()?.apply(&mut event);
    }
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
        event.data.unmapped = Some([("more".to_owned(), large(unmapped).into())].into_iter().collect());
        event.data.assumed = vec!["/data/order/items/0/quantity".to_owned(), "/time".to_owned()];
        event
    }

    fn omitted(event: &OrderEvent, unmapped: Unmapped) -> Option<Vec<String>> {
        let message = reduced(event, unmapped, MESSAGE_LIMIT)?;
        assert!(message.len() <= MESSAGE_LIMIT);
        let read: OrderEvent = serde_json::from_str(&message).expect("an event");
        assert_eq!((&read.id, &read.data.order.id), (&event.id, &event.data.order.id));
        Some(read.data.omitted)
    }

    #[test]
    fn as_little_as_possible_is_left_out() {
        let much = MESSAGE_LIMIT;
        assert_eq!(omitted(&event(10, 10, 10), Unmapped::Published), Some(vec![]));
        assert_eq!(
            omitted(&event(10, 10, 10), Unmapped::LeftOut),
            Some(vec!["/data/unmapped".to_owned()])
        );
        assert_eq!(
            omitted(&event(much, 10, 10), Unmapped::Published),
            Some(vec!["/data/unmapped".to_owned()])
        );
        let both = Some(vec!["/data/unmapped".to_owned(), "/data/order/items".to_owned()]);
        assert_eq!(omitted(&event(10, much, 10), Unmapped::Published), both);
        let all = omitted(&event(10, 10, much), Unmapped::Published).expect("a message");
        assert!(all.contains(&"/data/order/note".to_owned()));
    }

    #[test]
    fn what_is_left_out_is_no_longer_named_as_assumed() {
        let message = reduced(&event(10, MESSAGE_LIMIT, 10), Unmapped::Published, MESSAGE_LIMIT).expect("a message");
        let read: OrderEvent = serde_json::from_str(&message).expect("an event");
        assert_eq!(read.data.assumed, ["/time"]);
    }

    #[test]
    fn an_order_id_that_fills_a_message_cannot_be_published() {
        let mut event = event(10, 10, 10);
        event.data.order.id = Some(large(MESSAGE_LIMIT));
        assert_eq!(omitted(&event, Unmapped::Published), None);
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
