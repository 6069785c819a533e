//! The queue that the consumer reads: that of a local stack by the AWS SDK, any other by the AWS CLI, which knows the
//! operator's access.

use std::process::Stdio;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::Value;
use tokio::process::Command;

use crate::Error;
use crate::aws::clients::Clients;

/// The counts that together are the messages in a queue.
const COUNTS: [QueueAttributeName; 3] = [
    QueueAttributeName::ApproximateNumberOfMessages,
    QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
    QueueAttributeName::ApproximateNumberOfMessagesDelayed,
];

/// How the end of a consumer's work is seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How long the queue must be empty. The counts of SQS lag behind by some seconds.
    pub(super) empty_for: Duration,
    /// The time after which an expected state is looked at once more.
    pub(super) confirmed_after: Duration,
}

/// A queue.
#[derive(Debug)]
pub struct Queue {
    url: String,
    access: Access,
}

#[derive(Debug)]
enum Access {
    Sdk(aws_sdk_sqs::Client),
    Cli,
}

impl Queue {
    /// The queue with this URL: `http://` for an emulator, `https://` for AWS.
    pub fn new(url: &str) -> Self {
        let mut parts = url.splitn(4, '/');
        let access = match (parts.next(), parts.next(), parts.next()) {
            (Some("http:"), Some(_), Some(host)) => {
                let endpoint = format!("http://{host}");
                Access::Sdk(Clients::new(&endpoint, &endpoint).sqs)
            }
            _ => Access::Cli,
        };
        Self {
            url: url.to_owned(),
            access,
        }
    }

    /// The URL of the queue.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the queue is one of AWS.
    pub fn is_of_aws(&self) -> bool {
        matches!(self.access, Access::Cli)
    }

    pub(super) fn pace(&self) -> Pace {
        if self.is_of_aws() {
            Pace {
                empty_for: Duration::from_secs(5),
                confirmed_after: Duration::from_secs(1),
            }
        } else {
            Pace {
                empty_for: Duration::ZERO,
                confirmed_after: Duration::from_millis(50),
            }
        }
    }

    /// Sends a message.
    pub(super) async fn send(&self, body: &str) -> Result<(), Error> {
        match &self.access {
            Access::Sdk(client) => {
                let send = client.send_message().queue_url(&self.url).message_body(body);
                send.send().await.map_err(|error| self.unusable(&error))?;
            }
            Access::Cli => {
                self.aws("send-message", &["--message-body", body]).await?;
            }
        }
        Ok(())
    }

    /// The number of messages that wait, or that were received and not deleted.
    pub(super) async fn count(&self) -> Result<u64, Error> {
        let counts: Vec<String> = match &self.access {
            Access::Sdk(client) => {
                let get = client.get_queue_attributes().queue_url(&self.url);
                let got = get.set_attribute_names(Some(COUNTS.to_vec())).send().await;
                let attributes = got
                    .map_err(|error| self.unusable(&error))?
                    .attributes
                    .unwrap_or_default();
                attributes.into_values().collect()
            }
            Access::Cli => {
                let names = COUNTS.map(|name| name.as_str().to_owned());
                let mut arguments = vec!["--attribute-names"];
                arguments.extend(names.iter().map(String::as_str));
                let said = self.aws("get-queue-attributes", &arguments).await?;
                let said: Value = serde_json::from_slice(&said).map_err(|error| self.failed(&error.to_string()))?;
                let counts = said["Attributes"].as_object().into_iter().flatten();
                counts
                    .filter_map(|(_, count)| count.as_str().map(str::to_owned))
                    .collect()
            }
        };
        if counts.len() < COUNTS.len() {
            return Err(self.failed("it does not count its messages"));
        }
        let numbers = counts.iter().map(|count| count.parse::<u64>());
        let numbers: Result<Vec<_>, _> = numbers.collect();
        Ok(numbers.map_err(|error| self.failed(&error.to_string()))?.iter().sum())
    }

    /// Deletes all messages.
    pub(super) async fn purge(&self) -> Result<(), Error> {
        match &self.access {
            Access::Sdk(client) => {
                let purge = client.purge_queue().queue_url(&self.url).send();
                purge.await.map_err(|error| self.unusable(&error))?;
            }
            Access::Cli => {
                self.aws("purge-queue", &[]).await?;
            }
        }
        Ok(())
    }

    async fn aws(&self, operation: &str, arguments: &[&str]) -> Result<Vec<u8>, Error> {
        let mut command = Command::new("aws");
        command.args(["sqs", operation, "--queue-url", &self.url, "--output", "json"]);
        // The CLI takes the region from its configuration, and not from the URL.
        if let Some(region) = region_of(&self.url) {
            command.args(["--region", region]);
        }
        let output = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = output.await.map_err(|error| {
            self.failed(&format!(
                "it needs the AWS CLI, which cannot be run ({error}); see https://docs.aws.amazon.com/cli/ to install it"
            ))
        })?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(self.failed(String::from_utf8_lossy(&output.stderr).trim()))
        }
    }

    fn unusable(&self, error: &impl std::error::Error) -> Error {
        self.failed(&aws_sdk_sqs::error::DisplayErrorContext(error).to_string())
    }

    fn failed(&self, why: &str) -> Error {
        Error::Send(format!("the queue {} cannot be used: {why}", self.url))
    }
}

/// The region in the URL of a queue, such as `https://sqs.eu-central-1.amazonaws.com/111122223333/orders`. Returns
/// `None` for a URL of another shape.
fn region_of(url: &str) -> Option<&str> {
    let host = url.strip_prefix("https://sqs.")?.split('/').next()?;
    let (region, domain) = host.split_once('.')?;
    ["amazonaws.com", "amazonaws.com.cn"]
        .contains(&domain)
        .then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_queue_names_its_region() {
        for (url, region) in [
            (
                "https://sqs.eu-central-1.amazonaws.com/111122223333/orders",
                Some("eu-central-1"),
            ),
            (
                "https://sqs.cn-north-1.amazonaws.com.cn/111122223333/orders",
                Some("cn-north-1"),
            ),
            (
                "https://vpce-0.sqs.eu-central-1.vpce.amazonaws.com/111122223333/orders",
                None,
            ),
            ("https://sqs.example.com/111122223333/orders", None),
        ] {
            assert_eq!(region_of(url), region, "{url}");
        }
    }
}
