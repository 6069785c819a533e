//! `cargo local send`.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use clap::Args;
use http::Response;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use local::aws::clients::Clients;
use local::aws::queue::Queue;
use local::net::client::Client;
use local::pretty_json;
use local::project::answer::Answer;
use local::providers::samples::Fixture;
use local::providers::signing::{Credentials, sign};
use local::stats::quantile;
use local::workloads::load::outcome;
use local::{Error, NAME};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::args::{Ports, Secrets, catalogue, positive};

/// How many requests are under way at once, where no rate is given: as many as one function has processes.
const UNPACED: usize = 10;
/// The same where a rate is given: a server that falls behind is not flooded.
const PACED: usize = 200;

/// `cargo local send`'s flags.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The provider, such as snipcart
    provider: String,
    /// The event's name, such as order-completed
    event: String,
    /// Send it so many times (without --fresh all but the first are duplicates)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Send so many a second [default: as fast as they are answered, ten at a time]
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Give each a new order id (or event id), so that none is a duplicate
    #[arg(long)]
    fresh: bool,
    /// A deployed stack's URL; only the answer is printed then [default: the local stack]
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    secrets: Secrets,
    #[command(flatten)]
    ports: Ports,
}

/// Sends, and prints what came of it.
pub(crate) async fn send(options: Options) -> Result<(), Error> {
    let fixture = catalogue()?.event(&options.provider, &options.event)?;
    let url = options
        .url
        .clone()
        .unwrap_or_else(|| format!("http://127.0.0.1:{}", options.ports.port));
    let sender = Sender {
        client: Client::new(&url)?,
        url,
        fixture,
        credentials: options.secrets.credentials(),
        fresh: options.fresh,
    };
    if options.count > 1 {
        return send_many(sender, &options).await;
    }
    let begun = Instant::now();
    let answer = sender.send().await?;
    let event = &sender.fixture.event;
    println!(
        "{} {}{}",
        sender.fixture.method(),
        sender.url,
        event["rawPath"].as_str().unwrap_or_default()
    );
    println!("{} in {} ms", answer.status(), begun.elapsed().as_millis());
    println!("{}", String::from_utf8_lossy(answer.body()));
    if options.url.is_none() {
        follow(&answer, options.ports).await?;
    }
    Ok(())
}

/// What sends one event again and again.
struct Sender {
    client: Client,
    url: String,
    fixture: Fixture,
    credentials: Credentials,
    fresh: bool,
}

impl Sender {
    async fn send(&self) -> Result<Response<Bytes>, Error> {
        let mut fixture = self.fixture.clone();
        if self.fresh {
            fixture.renew()?;
        }
        sign(&mut fixture, &self.credentials, Timestamp::now())?;
        self.client.send(fixture.to_request(&self.url)?).await
    }
}

/// Prints the stored item and the published event.
async fn follow(answer: &Response<Bytes>, ports: Ports) -> Result<(), Error> {
    let answer = Answer::read(answer);
    let (Some(event_id), Some(status)) = (answer.event_id.as_deref(), answer.outcome.as_deref()) else {
        println!("\nNothing was stored.");
        return Ok(());
    };
    let messages_url = format!("http://127.0.0.1:{}", ports.sns_port);
    let clients = Clients::new(&format!("http://127.0.0.1:{}", ports.dynamodb_port), &messages_url);
    let key = |value: &str| AttributeValue::S(value.to_owned());
    let stored = clients
        .dynamodb
        .get_item()
        .table_name(NAME)
        .key("pk", key(event_id))
        .key("sk", key("head"))
        .send()
        .await;
    let stored = stored.map_err(|error| {
        let cause = DisplayErrorContext(&error);
        Error::Send(format!(
            "the stored item cannot be read: {cause}. --dynamodb-port has to be what `cargo local` printed"
        ))
    })?;
    let item = stored.item.unwrap_or_default();
    println!("\nStored item");
    print_item(&item);

    // An accepted event has been published before it was answered; after that, what is in the queue is all there is.
    let published = item
        .get("state")
        .and_then(|state| state.as_s().ok())
        .is_some_and(|state| state == "published");
    let patience = Duration::from_secs(if status == "accepted" && published { 5 } else { 0 });
    match Queue::new(clients.sqs, &messages_url).take(event_id, patience).await? {
        Some(message) => println!(
            "\nPublished event (taken from the queue)\n{}",
            pretty_json::indented(&message.text).unwrap_or(message.text)
        ),
        None => println!("\n{}", why_nothing(status, published)),
    }
    Ok(())
}

fn why_nothing(status: &str, published: bool) -> &'static str {
    match status {
        "duplicate" if published => {
            "Nothing was published now: the event had been before, and its message is no longer in the queue."
        }
        "unsupported" => "Nothing was published: it is authentic and kept, but no order event.",
        "quarantined" => "Nothing was published: it is authentic and kept, but not understood.",
        _ if published => "It was published, but somebody else has taken its message from the queue.",
        _ => "It is not published yet: it is kept, and waits in the outbox.",
    }
}

/// Binary values are shown unpacked if they are text, else by their size.
fn print_item(item: &HashMap<String, AttributeValue>) {
    let item: BTreeMap<_, _> = item.iter().collect();
    for (name, value) in item {
        let text = match value {
            AttributeValue::S(text) | AttributeValue::N(text) => text.clone(),
            AttributeValue::B(bytes) => unpacked(bytes.as_ref()),
            other => format!("{other:?}"),
        };
        println!("  {name:16} {text}");
    }
}

fn unpacked(bytes: &[u8]) -> String {
    let mut text = String::new();
    // More than the terminal wants; what is larger is not unpacked to its end.
    let read = flate2::read::GzDecoder::new(bytes)
        .take(1 << 16)
        .read_to_string(&mut text);
    match read {
        Ok(length) if length < 1 << 16 => format!("({} bytes, {length} unpacked) {text}", bytes.len()),
        _ => format!("({} bytes)", bytes.len()),
    }
}

async fn send_many(sender: Sender, options: &Options) -> Result<(), Error> {
    let sender = Arc::new(sender);
    let room = Arc::new(Semaphore::new(if options.rate.is_some() { PACED } else { UNPACED }));
    let mut pace = options
        .rate
        .map(|rate| tokio::time::interval(Duration::from_secs_f64(1.0 / rate)));
    let bar = ProgressBar::new(options.count.into());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {elapsed}") {
        bar.set_style(style);
    }
    let begun = Instant::now();
    let mut sends = JoinSet::new();
    for _ in 0..options.count {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            break;
        };
        let (sender, bar) = (Arc::clone(&sender), bar.clone());
        sends.spawn(async move {
            let begun = Instant::now();
            let answer = sender.send().await;
            drop(permit);
            bar.inc(1);
            (outcome(&answer), begun.elapsed())
        });
    }
    let sent = sends.join_all().await;
    bar.finish_and_clear();
    print_summary(sent, begun.elapsed());
    Ok(())
}

fn print_summary(sent: Vec<(String, Duration)>, took: Duration) {
    let mut outcomes = BTreeMap::<String, usize>::new();
    let mut durations = Vec::with_capacity(sent.len());
    for (outcome, duration) in sent {
        *outcomes.entry(outcome).or_default() += 1;
        durations.push(duration);
    }
    let milliseconds = |fraction| quantile(durations.clone(), fraction).unwrap_or_default().as_millis();
    println!(
        "{} sent in {:.1} s; answered in {} ms (median), {} ms (99 of 100)",
        durations.len(),
        took.as_secs_f64(),
        milliseconds(0.5),
        milliseconds(0.99)
    );
    for (outcome, count) in outcomes {
        println!("{count:8}  {outcome}");
    }
}
