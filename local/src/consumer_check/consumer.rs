//! Asks a consumer for the state of an order.

use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::Error;
use crate::net::client::Client;

/// The time that a state command has.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a consumer is asked.
#[derive(Debug)]
pub enum Consumer {
    /// A command line of the shell, which gets provider, shop and order as further arguments and prints JSON.
    Command(String),
    /// A URL, which gets provider, shop and order as query parameters and returns JSON.
    Url(String),
}

impl Consumer {
    /// The state of an order as the consumer knows it; null if it does not know the order.
    pub(super) async fn state(&self, provider: &str, shop: &str, order: &str) -> Result<Value, Error> {
        let text = match self {
            Self::Command(command) => run(command, [provider, shop, order]).await?,
            Self::Url(url) => get(url, [("provider", provider), ("shop", shop), ("order", order)]).await?,
        };
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&text).map_err(|error| failed(&format!("the state of {order} is not JSON: {error}")))
    }
}

async fn run(command: &str, order: [&str; 3]) -> Result<Vec<u8>, Error> {
    let output = Command::new("sh")
        .args(["-c", &format!("{command} \"$@\""), "sh"])
        .args(order)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, output)
        .await
        .map_err(|_| failed(&format!("the state command did not end within {PATIENCE:?}")))?
        .map_err(|error| failed(&format!("the state command cannot be run: {error}")))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(failed(&format!("the state command failed: {}", output.status)))
    }
}

async fn get(url: &str, order: [(&str, &str); 3]) -> Result<Vec<u8>, Error> {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(order)
        .finish();
    let separator = if url.contains('?') { '&' } else { '?' };
    let request = Request::get(format!("{url}{separator}{query}"))
        .body(Bytes::new())
        .map_err(|error| failed(&error.to_string()))?;
    let answer = Client::new(url)?.send_within(PATIENCE, request).await?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body().to_vec()),
        StatusCode::NOT_FOUND => Ok(Vec::new()),
        status => Err(failed(&format!("the state URL answered {status}"))),
    }
}

fn failed(what: &str) -> Error {
    Error::Send(format!("the consumer cannot be asked: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_gets_the_order_as_arguments() {
        let consumer = Consumer::Command(r#"printf '{"said":["%s","%s","%s"]}'"#.to_owned());
        let state = consumer.state("cartum", "main", "it's 1; true").await.expect("a state");
        assert_eq!(state["said"], serde_json::json!(["cartum", "main", "it's 1; true"]));
        let silent = Consumer::Command("true".to_owned());
        assert_eq!(silent.state("cartum", "main", "1").await.expect("a state"), Value::Null);
        let broken = Consumer::Command("false".to_owned());
        assert!(broken.state("cartum", "main", "1").await.is_err());
        let words = Consumer::Command("echo status".to_owned());
        assert!(words.state("cartum", "main", "1").await.is_err());
    }
}
