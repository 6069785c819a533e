//! `cargo local consumer-check`: checks a consumer of the queue, in whatever language it is written.

use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use local::consumer_check::{Check, Consumer, Limits, Queue};
use local::{ACCOUNT, Error, NAME};

use super::args::positive;

/// The flags of `cargo local consumer-check`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The URL of the queue that the consumer reads: of SQS, through the AWS CLI, or of an emulator [default: the queue
    /// of the local stack]
    #[arg(long, value_name = "URL")]
    queue: Option<String>,
    /// The port of SNS and SQS of the local stack
    #[arg(long, default_value_t = 4566, conflicts_with = "queue")]
    sns_port: u16,
    /// A command that gets provider, shop and order as arguments, and prints the consumer's state of the order as JSON
    #[arg(
        long,
        value_name = "COMMAND",
        required_unless_present = "state_url",
        conflicts_with = "state_url"
    )]
    state_command: Option<String>,
    /// A URL that gets provider, shop and order as query parameters, and returns the consumer's state of the order
    #[arg(long, value_name = "URL")]
    state_url: Option<String>,
    /// The seconds in which the consumer must handle a message and delete it
    #[arg(long, default_value = "30", value_parser = positive)]
    handled_within: f64,
    /// The seconds after the last message in which the consumer must show the expected state [default: 2; 15 for a
    /// queue of AWS]
    #[arg(long, value_parser = positive)]
    settled_within: Option<f64>,
    /// The seed by which histories are shuffled
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Checks a consumer. A broken rule is an error.
pub(crate) async fn run(options: Options) -> Result<(), Error> {
    let queue = options
        .queue
        .unwrap_or_else(|| format!("http://127.0.0.1:{}/{ACCOUNT}/{NAME}", options.sns_port));
    let consumer = match (options.state_command, options.state_url) {
        (Some(command), _) => Consumer::Command(command),
        (None, Some(url)) => Consumer::Url(url),
        (None, None) => return Err(Error::Send("--state-command or --state-url is missing".to_owned())),
    };
    let queue = Queue::new(&queue);
    let settled_within = options
        .settled_within
        .unwrap_or(if queue.is_of_aws() { 15.0 } else { 2.0 });
    let limits = Limits {
        handled: Duration::from_secs_f64(options.handled_within),
        settled: Duration::from_secs_f64(settled_within),
    };
    let line = ProgressBar::new_spinner();
    line.enable_steady_tick(Duration::from_millis(200));
    let shown = line.clone();
    let check = Check::new(queue, consumer, limits);
    let report = check
        .run(options.seed, move |history| shown.set_message(history.to_owned()))
        .await;
    line.finish_and_clear();
    let report = report?;
    println!("{report}");
    if report.is_passed() {
        Ok(())
    } else {
        Err(Error::RulesBroken(report.rules().join(", ")))
    }
}
