//! `cargo local load` and `cargo local backlog`: speed and memory on this machine.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use local::Error;
use local::project::build::{Binaries, Output, profile, workspace};
use local::project::template;
use local::providers::generator::{Choice, Orders};
use local::recorder::log::Log;
use local::stack::{Config, Stack};
use local::workloads::backlog::{self, Progress};
use local::workloads::load;
use serde_json::{Value, json};

use super::args::{catalogue, positive};

/// The flags of `cargo local load`.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The deliveries a second
    #[arg(long, value_parser = positive)]
    rate: f64,
    /// The duration in seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    #[command(flatten)]
    orders: Which,
}

/// The flags of `cargo local backlog`.
#[derive(Debug, Args)]
pub(crate) struct Backlog {
    /// The number of events that are sent while SNS is down
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    events: u32,
    /// The number of letters, which hardly compress, to add to each order
    #[arg(long, value_name = "LETTERS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=4_000_000))]
    larger_by: u32,
    /// Milliseconds to add to each of redrive's calls to DynamoDB
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1000))]
    dynamodb_ms: u16,
    /// Milliseconds to add to each of redrive's calls to SNS
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=900))]
    sns_ms: u16,
    #[command(flatten)]
    orders: Which,
}

#[derive(Debug, Args)]
struct Which {
    /// Send new orders of this provider; may be repeated [default: random providers]
    #[arg(long = "provider", value_name = "PROVIDER")]
    providers: Vec<String>,
    /// The limit for the processes of one function
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    environments: u16,
    /// The seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Which {
    fn read(&self) -> Result<Orders, Error> {
        Orders::read(&catalogue()?, &self.providers, Choice::Plainest, self.seed)
    }

    async fn stack(&self) -> Result<Stack, Error> {
        let root = workspace();
        let functions = template::read(&root.join("template.yaml"))?;
        let binaries = Binaries::build(&root, Output::Diagnostics)?;
        let mut config = Config::new(functions, binaries, Log::notices());
        config.environments = usize::from(self.environments);
        Stack::start(config).await
    }

    /// The conditions under which the figures were measured.
    fn setting(&self) -> Value {
        json!({
            "binaries": profile(),
            "processors": std::thread::available_parallelism().map_or(1, usize::from),
            "architecture": std::env::consts::ARCH,
            "environments": self.environments,
            "seed": self.seed,
        })
    }

    fn print(&self, command: &str, report: &impl std::fmt::Display, mut figures: Value) {
        let setting = self.setting();
        if self.json {
            figures["setting"] = setting;
            println!("{figures:#}");
            return;
        }
        println!(
            "| {command} --seed {} | {} processors, {}; {} binaries |\n|---|---|\n{report}",
            self.seed,
            setting["processors"],
            std::env::consts::ARCH,
            profile(),
        );
    }
}

/// Sends at a steady rate in a separate stack. An order that is not accepted is an error.
pub(crate) async fn load(options: Load) -> Result<(), Error> {
    let orders = options.orders.read()?;
    let stack = options.orders.stack().await?;
    let plan = load::Plan {
        rate: options.rate,
        duration: Duration::from_secs(options.seconds.into()),
    };
    let bar = ProgressBar::new(plan.deliveries() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} answered, {per_sec} {elapsed}") {
        bar.set_style(style);
    }
    let shown = bar.clone();
    let report = load::run(&stack, orders, plan, move || shown.inc(1)).await?;
    bar.finish_and_clear();
    stack.shutdown().await;
    let command = format!("cargo local load --rate {} --seconds {}", options.rate, options.seconds);
    options.orders.print(&command, &report, report.to_json());
    if !report.kept_up() {
        eprintln!(
            "This machine did not keep up: {:.1} of {} deliveries a second were answered, and {} were sent over 10 ms late, {:.0} ms at most. \
             The times above include the wait in a growing queue. Use a lower --rate to measure a delivery.",
            report.reached(),
            options.rate,
            report.late,
            report.latest.as_secs_f64() * 1000.0,
        );
    }
    match report.errors() {
        0 => Ok(()),
        errors => Err(Error::Send(format!(
            "{errors} of {} new orders were not accepted",
            report.deliveries()
        ))),
    }
}

/// Fills and empties the outbox of a separate stack. An event that does not arrive is an error.
pub(crate) async fn backlog(options: Backlog) -> Result<(), Error> {
    let orders = options.orders.read()?;
    let stack = Arc::new(options.orders.stack().await?);
    let milliseconds = |value: u16| Duration::from_millis(value.into());
    let plan = backlog::Plan {
        events: usize::try_from(options.events).unwrap_or(usize::MAX),
        larger_by: usize::try_from(options.larger_by).unwrap_or(usize::MAX),
        dynamodb: milliseconds(options.dynamodb_ms),
        sns: milliseconds(options.sns_ms),
    };
    let bar = ProgressBar::new(options.events.into());
    if let Ok(style) = ProgressStyle::with_template("{msg:10} {bar:40} {pos}/{len} {per_sec} {elapsed}") {
        bar.set_style(style);
    }
    let shown = bar.clone();
    let report = backlog::run(&stack, &orders, plan, move |progress| match progress {
        Progress::Filled(events) => {
            shown.set_message("filling");
            shown.set_position(events as u64);
        }
        Progress::Waits => shown.set_message("waiting"),
        Progress::Drained(events) => {
            shown.set_message("draining");
            shown.set_position(events as u64);
        }
    })
    .await?;
    bar.finish_and_clear();
    let slower = match (options.dynamodb_ms, options.sns_ms) {
        (0, 0) => String::new(),
        (dynamodb, sns) => format!(" --dynamodb-ms {dynamodb} --sns-ms {sns}"),
    };
    let larger = match options.larger_by {
        0 => String::new(),
        letters => format!(" --larger-by {letters}"),
    };
    let command = format!("cargo local backlog --events {}{larger}{slower}", options.events);
    options.orders.print(&command, &report, report.to_json());
    match (report.lost(), report.waiting) {
        (0, 0) => Ok(()),
        (lost, waiting) => Err(Error::Send(format!(
            "{lost} events did not arrive, and {waiting} are still in the outbox"
        ))),
    }
}
