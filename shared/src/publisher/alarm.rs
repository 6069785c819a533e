//! Publishes messages to the alarm topic.

use aws_sdk_sns::types::{MessageAttributeValue, PublishBatchRequestEntry};

use super::{PublishError, Publisher, call_error, fault_of};

impl Publisher {
    /// Publishes a text with a subject and text attributes to a topic other than that of the events.
    ///
    /// The call is a batch of one message, because another operation of SNS would make the binary of redrive larger.
    pub async fn publish_alarm(
        &self,
        topic_arn: &str,
        subject: &str,
        text: &str,
        attributes: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<(), PublishError> {
        let mut entry = PublishBatchRequestEntry::builder()
            .id("0")
            .subject(subject)
            .message(text);
        for (name, value) in attributes {
            let value = MessageAttributeValue::builder().data_type("String").string_value(value);
            entry = entry.message_attributes(name, value.build().expect("a type is set"));
        }
        let request = self.client.publish_batch().topic_arn(topic_arn);
        let request = request.publish_batch_request_entries(entry.build().expect("id and message are set"));
        let answer = request.send().await.map_err(|error| call_error(&error, 1))?;
        answer.failed().first().map_or(Ok(()), |entry| {
            Err(PublishError {
                fault: fault_of(entry.code(), entry.sender_fault()),
                cause: entry.code().to_owned(),
                is_alone: true,
            })
        })
    }
}
