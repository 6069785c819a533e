//! `cargo local send`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http::{Request, Response, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use local::Error;
use local::net::client::Client;
use local::project::answer::Answer;
use local::providers::order_apis::BOOK;
use local::providers::samples::Fixture;
use local::providers::signing::{Credentials, sign};
use local::stats::quantile;
use local::workloads::load::outcome;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::args::{Ports, Secrets, catalogue, positive};
use super::sent::Sent;

/// How many requests are under way at once without `--rate`: as many as one function has processes.
const UNPACED: usize = 10;
/// How many requests are under way at once with `--rate`, so that a server that falls behind is not flooded.
const PACED: usize = 200;

/// The flags of `cargo local send`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The provider, such as snipcart
    provider: String,
    /// The name of the event, such as order-completed; `cargo local list` lists all
    event: String,
    /// Send the event this many times; without --fresh, all but the first are duplicates
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Send this many events a second [default: as fast as they are answered, ten at a time]
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Give each event a new order id (or event id), so that none is a duplicate
    #[arg(long)]
    fresh: bool,
    /// The URL of a deployed stack; only its answer is printed [default: the local stack]
    #[arg(long)]
    url: Option<String>,
    /// Also print the answer, the stored item and the published event in full
    #[arg(long, conflicts_with_all = ["json", "count"])]
    verbose: bool,
    /// Print one JSON document, with the answer, the stored item and the published event in full
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lost: Lost,
    #[command(flatten)]
    secrets: Secrets,
    #[command(flatten)]
    ports: Ports,
}

/// A webhook that never arrives.
#[derive(Debug, Clone, Copy, Args)]
struct Lost {
    /// Do not send the event: only the stand-in for the provider's order API learns of its order
    #[arg(long, conflicts_with_all = ["url", "count", "verbose", "json"])]
    lost: bool,
    /// The port of the stand-ins for the order APIs, for --lost
    #[arg(long, default_value_t = 9001, requires = "lost")]
    snipcart_port: u16,
}

/// Sends an event, and prints the answer, the stored event and the published message.
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
    if options.lost.lost {
        return lose(&sender, options.lost.snipcart_port).await;
    }
    if options.count > 1 {
        return send_many(sender, &options).await;
    }
    let fixture = sender.sign()?;
    let request = fixture.to_request(&sender.url)?;
    // Without the query, which may hold a token.
    let line = format!("{} {}{}", request.method(), sender.url, request.uri().path());
    let begun = Instant::now();
    let response = sender.client.send(request).await?;
    let mut sent = Sent::new(line, &response, begun.elapsed());
    if options.url.is_none() {
        sent.look_up(&sender.url, options.ports).await?;
    }
    match (options.json, options.verbose) {
        (true, _) => println!("{:#}", sent.to_json()),
        (false, true) => print!("{}{}", sent.summary(), sent.details()),
        (false, false) => print!("{}", sent.summary()),
    }
    Ok(())
}

/// Tells the stand-in for the provider's order API about the order of an event whose webhook never arrives.
async fn lose(sender: &Sender, port: u16) -> Result<(), Error> {
    let fixture = sender.sign()?;
    let (provider, shop) = (&fixture.provider, &sender.credentials.shop);
    let url = format!("http://127.0.0.1:{port}{BOOK}{provider}/{shop}");
    let request = Request::post(&url).body(fixture.body()?.into());
    let request = request.map_err(|error| Error::Send(error.to_string()))?;
    let answer = Client::new(&url)?.send(request).await?;
    if answer.status() != StatusCode::OK {
        let answer = Answer::read(&answer).summary();
        return Err(Error::Send(format!("the stand-in does not learn the order: {answer}")));
    }
    println!("{provider} knows the order now; its webhook never arrives. `cargo local reconcile` finds it.");
    Ok(())
}

/// Sends one event again and again.
struct Sender {
    client: Client,
    url: String,
    fixture: Fixture,
    credentials: Credentials,
    fresh: bool,
}

impl Sender {
    fn sign(&self) -> Result<Fixture, Error> {
        let mut fixture = self.fixture.clone();
        if self.fresh {
            fixture.renew()?;
        }
        sign(&mut fixture, &self.credentials, Timestamp::now())?;
        Ok(fixture)
    }

    async fn send(&self) -> Result<Response<Bytes>, Error> {
        self.client.send(self.sign()?.to_request(&self.url)?).await
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
    let summary = Summary::new(sent, begun.elapsed());
    if options.json {
        println!("{:#}", summary.to_json());
    } else {
        print!("{summary}");
    }
    Ok(())
}

/// What many events were answered, and how fast.
struct Summary {
    answers: BTreeMap<String, usize>,
    durations: Vec<Duration>,
    took: Duration,
}

impl Summary {
    fn new(sent: Vec<(String, Duration)>, took: Duration) -> Self {
        let mut answers = BTreeMap::<String, usize>::new();
        let mut durations = Vec::with_capacity(sent.len());
        for (answer, duration) in sent {
            *answers.entry(answer).or_default() += 1;
            durations.push(duration);
        }
        Self {
            answers,
            durations,
            took,
        }
    }

    fn milliseconds(&self, fraction: f64) -> f64 {
        let time = quantile(self.durations.clone(), fraction).unwrap_or_default();
        time.as_secs_f64() * 1000.0
    }

    fn to_json(&self) -> Value {
        json!({
            "sent": self.durations.len(),
            "seconds": self.took.as_secs_f64(),
            "p50_ms": self.milliseconds(0.5),
            "p99_ms": self.milliseconds(0.99),
            "answers": self.answers,
        })
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            formatter,
            "{} sent in {:.1} s; p50 {:.0} ms, p99 {:.0} ms",
            self.durations.len(),
            self.took.as_secs_f64(),
            self.milliseconds(0.5),
            self.milliseconds(0.99)
        )?;
        for (answer, count) in &self.answers {
            writeln!(formatter, "{count:8}  {answer}")?;
        }
        Ok(())
    }
}
