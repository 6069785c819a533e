//! Helpers for tests of the outbox.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use local::aws::faults::Fault;
use local::aws::queue::Message;

/// An answer that the SDK does not retry, so that an event gets into the outbox at once.
pub const DENIED: Fault = Fault::Answer {
    status: 403,
    code: "AuthorizationError",
};

/// The event ids of messages.
pub fn ids<'a>(messages: impl IntoIterator<Item = &'a Message>) -> BTreeSet<String> {
    let id = |message: &Message| message.event["id"].as_str().expect("an id").to_owned();
    messages.into_iter().map(id).collect()
}

/// The ids of the orders that messages are about.
pub fn orders<'a>(messages: impl IntoIterator<Item = &'a Message>) -> BTreeSet<String> {
    let order = |message: &Message| {
        message.event["data"]["order"]["id"]
            .as_str()
            .expect("an order")
            .to_owned()
    };
    messages.into_iter().map(order).collect()
}

/// A text attribute of an item.
pub fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}
