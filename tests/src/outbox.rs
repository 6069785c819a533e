//! What keeps an event in the outbox, and what comes out of it.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use local::aws::faults::Fault;
use local::aws::queue::Message;

/// Refused at once, and not tried again by the SDK: the quickest way into the outbox.
pub const DENIED: Fault = Fault::Answer {
    status: 403,
    code: "AuthorizationError",
};

/// The ids of messages' events.
pub fn ids<'a>(messages: impl IntoIterator<Item = &'a Message>) -> BTreeSet<String> {
    let id = |message: &Message| message.event["id"].as_str().expect("an id").to_owned();
    messages.into_iter().map(id).collect()
}

/// A text attribute.
pub fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}
