//! `cargo local connect`: subscribes to the order events of a shop, with the function `reconcile` of this machine or of
//! a deployed stack.

use std::fmt::Write as _;

use clap::Args;
use local::Error;
use local::project::settings::RECONCILE;
use serde::Deserialize;
use serde_json::{Value, json};

use super::aws_cli;
use super::reconcile::OUTPUT;
use super::tasks::{Function, Place};

/// The flags of `cargo local connect`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The provider: cartum or aboutyou
    provider: String,
    /// The operator's name for the shop
    shop: String,
    /// The URL of the API that the provider calls, such as https://API_ID.execute-api.REGION.amazonaws.com [default:
    /// that of the stack]
    #[arg(long)]
    url: Option<String>,
    /// An event to subscribe although it was subscribed before: you have ended that subscription; may be repeated
    #[arg(long, value_name = "EVENT")]
    again: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// The port of the local gateway
    #[arg(long, default_value_t = 9000, conflicts_with_all = ["url", "stack"])]
    port: u16,
    #[command(flatten)]
    place: Place,
}

/// The answer of the function.
#[derive(Debug, Deserialize)]
struct Connected {
    subscriptions: Vec<Subscribed>,
    done: bool,
}

/// The result for one event.
#[derive(Debug, Deserialize)]
struct Subscribed {
    event: String,
    status: String,
    id: Option<String>,
    cause: Option<String>,
    /// The secret of ABOUT YOU's signatures. Only the answer that makes the subscription has it.
    client_secret: Option<String>,
}

impl Connected {
    /// The results, for a person.
    fn table(&self) -> String {
        let width = |text: fn(&Subscribed) -> &String| {
            let lengths = self.subscriptions.iter().map(|subscribed| text(subscribed).len());
            lengths.max().unwrap_or_default()
        };
        let (events, statuses) = (
            width(|subscribed| &subscribed.event),
            width(|subscribed| &subscribed.status),
        );
        let mut table = String::new();
        for Subscribed {
            event,
            status,
            id,
            cause,
            client_secret,
        } in &self.subscriptions
        {
            let id = id.as_ref().map(|id| format!("id {id}"));
            let details: Vec<&str> = [id.as_deref(), cause.as_deref()].into_iter().flatten().collect();
            let _ = writeln!(table, "{event:<events$}  {status:<statuses$}  {}", details.join("; "));
            if let Some(secret) = client_secret {
                let _ = writeln!(
                    table,
                    "client secret: {secret}\nIt is shown this once. functions/aboutyou/README.md says how to check signatures with it."
                );
            }
        }
        table
    }
}

/// Subscribes, and prints a line for each event. An event that is not subscribed is an error.
pub(crate) async fn connect(options: Options) -> Result<(), Error> {
    let Options { provider, shop, .. } = &options;
    let function = Function::find(options.place.clone(), RECONCILE, OUTPUT).await?;
    let url = match (&options.url, &options.place.stack) {
        (Some(url), _) => url.clone(),
        (None, Some(stack)) => api(stack, provider).await?,
        (None, None) => format!("http://127.0.0.1:{}", options.port),
    };
    let task = json!({"provider": provider, "shop": shop, "url": url, "again": options.again});
    let answer: Value = function.invoke(&json!({ "connect": task })).await?;
    let connected =
        Connected::deserialize(&answer).map_err(|error| failed(format!("the answer is not readable: {error}")))?;
    if options.json {
        println!("{answer:#}");
    } else {
        print!("{}", connected.table());
    }
    if connected.done {
        return Ok(());
    }
    Err(failed(format!(
        "not all order events of the shop {shop} of {provider} are subscribed to {url}; functions/reconcile/README.md says what each status means"
    )))
}

/// The URL of the API of a deployed stack, from the output with the URL to register at the provider.
async fn api(stack: &str, provider: &str) -> Result<String, Error> {
    let mut letters = provider.chars();
    let initial = letters.next().map(|letter| letter.to_ascii_uppercase());
    let name: String = initial.into_iter().chain(letters).chain("Webhook".chars()).collect();
    let webhook = aws_cli::output(stack, &name).await?;
    Ok(of_api(&webhook).to_owned())
}

/// The part of the URL of a webhook that is the URL of the API.
fn of_api(webhook: &str) -> &str {
    webhook.split_once("/webhooks/").map_or(webhook, |(api, _)| api)
}

fn failed(what: String) -> Error {
    Error::Invoke {
        function: "connect".to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_a_line_and_a_client_secret_is_shown() {
        let connected: Connected = serde_json::from_value(json!({
            "provider": "cartum", "shop": "main", "done": false, "subscriptions": [
                {"event": "order_created", "status": "subscribed", "id": "17", "cause": null},
                {"event": "order_paid", "status": "elsewhere", "id": "4", "cause": "it has another URL"},
                {"event": "orders", "status": "unclear", "id": null, "cause": "no answer", "client_secret": "a-secret"},
            ],
        }))
        .unwrap();
        assert_eq!(
            connected.table(),
            "order_created  subscribed  id 17\n\
             order_paid     elsewhere   id 4; it has another URL\n\
             orders         unclear     no answer\n\
             client secret: a-secret\n\
             It is shown this once. functions/aboutyou/README.md says how to check signatures with it.\n"
        );
    }

    #[test]
    fn the_url_of_the_api_is_the_beginning_of_a_webhooks() {
        for (webhook, api) in [
            (
                "https://a1.execute-api.us-east-1.amazonaws.com/webhooks/cartum/{shop}?token={token}",
                "https://a1.execute-api.us-east-1.amazonaws.com",
            ),
            (
                "https://orders.example.com/live/webhooks/deeple/{shop}",
                "https://orders.example.com/live",
            ),
        ] {
            assert_eq!(of_api(webhook), api);
        }
    }
}
