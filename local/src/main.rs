//! `cargo local`: the whole system on this machine, and events to send to it.
#![allow(clippy::print_stdout, reason = "a command talks on standard output")]

mod deployed;
mod measure;
mod outbox;
mod send;
mod stopwatch;
mod storm;
mod up;

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use local::Error;
use local::binaries::workspace;
use local::fixture::Catalogue;
use local::settings::{DEEPLE_PID, DEEPLE_SECRET, SHOP, TOKEN};
use local::signing::{Credentials, sign};

const EXAMPLES: &str = "\
Examples:
  cargo local                                   start everything; Ctrl-C stops it
  cargo local --port 9100 --dynamodb-port 0     the same on other ports (0: any free one)
  cargo local --data .local                     keep the table and the list over restarts
  cargo local --secrets FILE --tunnel-port 9002 take real webhooks through a tunnel to port 9002
  cargo local --json | jq -r .outcome           each delivery a line of JSON
  cargo local list                              all providers and events
  cargo local send snipcart order-completed     send an event, see what becomes of it
  cargo local send cartum order-created --count 200 --rate 20 --fresh
  cargo local send selldone checkout-order --url https://API.execute-api.REGION.amazonaws.com --token TOKEN
  cargo local redrive                           publish what is due now, and not in a minute
  cargo local get snipcart main ORDER           all events of an order, whole
  cargo local replay cartum --from 2026-01-31T00:00:00Z --to 2026-02-01T00:00:00Z --dry-run
  cargo local compare cartum --from 2026-01-31T00:00:00Z --to 2026-02-01T00:00:00Z
  cargo local erase cartum main --email j.doe@example.com --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z
  cargo local requeue --stack order-webhooks    the same tasks on a deployed stack, by the AWS CLI
  cargo local chaos --events 20000 --seed 1     are none lost, and none twice?
  cargo local event deeple order-changed | sam local invoke DeepleFunction -e - --env-vars events/env.json";

const MEASURES: &str = "\
Examples, with optimised binaries (cargo local-optimized is the same command as cargo local):
  cargo local-optimized bench --runs 20
  cargo local-optimized load --rate 50 --seconds 60
  cargo local-optimized load --rate 20 --provider snipcart --json
  cargo local-optimized backlog --events 100000
  cargo local-optimized backlog --events 2000 --dynamodb-ms 5 --sns-ms 20";

#[derive(Debug, Parser)]
#[command(name = "cargo local", bin_name = "cargo local", about = "The whole system on this machine: no Docker, no AWS account.", after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: up::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the functions and start everything (the default)
    #[command(after_help = EXAMPLES)]
    Up(up::Options),
    /// Send an event, freshly signed, and print the answer and what became of it
    #[command(after_help = EXAMPLES)]
    Send(send::Options),
    /// Print an event, freshly signed, for `sam local invoke -e -`
    #[command(after_help = EXAMPLES)]
    Event(Event),
    /// List all providers and events
    List,
    /// Publish what waits in the outbox and is due
    Redrive(outbox::Place),
    /// Show events whole: one by its id, or all of an order
    #[command(visible_alias = "show")]
    Get(outbox::Get),
    /// Publish stored events again
    Replay(outbox::Replay),
    /// Give failed events another try
    Requeue(outbox::Requeue),
    /// Read deliveries again that were not understood
    Reprocess(outbox::Reprocess),
    /// Close a quarantined delivery that no mapping will ever understand
    Dismiss(outbox::Dismiss),
    /// Take a dismissal back
    Undismiss(outbox::Dismiss),
    /// Publish another body that came under a known event's id, as an event of its own
    PublishConflict(outbox::PublishConflict),
    /// Erase what is stored of an event, an order or a customer
    Erase(outbox::Erase),
    /// Show what today's mapping would change in stored events; nothing is written or published
    #[command(after_help = EXAMPLES)]
    Compare(outbox::Compare),
    /// List parts of large deliveries that no event refers to
    Audit(outbox::Audit),
    /// Apply the functions' retention to events that are stored already
    Retain(outbox::Retain),
    /// Send events through random faults and kills in a stack of its own, and count what became of them
    Chaos(storm::Options),
    /// Send new orders at a steady rate in a stack of its own, and say how long each took
    #[command(after_help = MEASURES)]
    Load(measure::Load),
    /// Fill the outbox of a stack of its own, empty it, and say how long that took and in how much memory
    #[command(after_help = MEASURES)]
    Backlog(measure::Backlog),
    /// Measure start, events, memory and size of the functions as deployed, beside peers
    #[command(after_help = MEASURES)]
    Bench(stopwatch::Options),
}

/// Which event.
#[derive(Debug, Args)]
struct Event {
    /// The provider, such as snipcart
    provider: String,
    /// The event's name, such as order-completed
    #[arg(value_name = "EVENT")]
    name: String,
    #[command(flatten)]
    secrets: Secrets,
}

/// What signs it.
#[derive(Debug, Args)]
struct Secrets {
    /// The shop in the URL
    #[arg(long, default_value = SHOP)]
    shop: String,
    /// The URL token
    #[arg(long, default_value = TOKEN)]
    token: String,
    /// Deeple's project id
    #[arg(long, default_value = DEEPLE_PID)]
    pid: String,
    /// Deeple's secret, or ABOUT YOU's client secret
    #[arg(long, default_value = DEEPLE_SECRET)]
    secret: String,
    /// Snipcart's request token [default: a new one that the local stand-in takes for genuine]
    #[arg(long)]
    request_token: Option<String>,
    /// The header for ABOUT YOU's signature, where the shop demands one
    #[arg(long)]
    signature_header: Option<String>,
}

impl Secrets {
    fn credentials(&self) -> Credentials {
        Credentials {
            shop: self.shop.clone(),
            token: self.token.clone(),
            pid: self.pid.clone(),
            secret: self.secret.clone(),
            request_token: self.request_token.clone(),
            signature_header: self.signature_header.clone(),
        }
    }
}

/// The local stack's ports.
#[derive(Debug, Clone, Copy, Args)]
struct Ports {
    /// The gateway's port
    #[arg(long, default_value_t = 9000)]
    port: u16,
    /// DynamoDB's port
    #[arg(long, default_value_t = 8000)]
    dynamodb_port: u16,
    /// The port of SNS and SQS
    #[arg(long, default_value_t = 4566)]
    sns_port: u16,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Up(cli.up)) {
        Command::Up(options) => run(up::up(options)),
        Command::Send(options) => run(send::send(options)),
        Command::Event(options) => event(&options),
        Command::List => list(),
        Command::Redrive(place) => run(outbox::redrive(place)),
        Command::Get(options) => run(outbox::get(options)),
        Command::Replay(options) => run(outbox::replay(options)),
        Command::Requeue(options) => run(outbox::requeue(options)),
        Command::Reprocess(options) => run(outbox::reprocess(options)),
        Command::Dismiss(options) => run(outbox::dismiss(options)),
        Command::Undismiss(options) => run(outbox::undismiss(options)),
        Command::PublishConflict(options) => run(outbox::publish_conflict(options)),
        Command::Erase(options) => run(outbox::erase(options)),
        Command::Compare(options) => run(outbox::compare(options)),
        Command::Audit(options) => run(outbox::audit(options)),
        Command::Retain(options) => run(outbox::retain(options)),
        Command::Chaos(options) => run(storm::chaos(options)),
        Command::Load(options) => run(measure::load(options)),
        Command::Backlog(options) => run(measure::backlog(options)),
        Command::Bench(options) => run(stopwatch::bench(options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    tokio::runtime::Runtime::new()
        .map_err(|error| Error::Start(error.to_string()))?
        .block_on(command)
}

fn catalogue() -> Result<Catalogue, Error> {
    Catalogue::read(workspace().join("events"))
}

fn event(options: &Event) -> Result<(), Error> {
    let mut fixture = catalogue()?.event(&options.provider, &options.name)?;
    sign(&mut fixture, &options.secrets.credentials(), Timestamp::now())?;
    // A reader that closes early, such as `head`, is no fault.
    let _ = writeln!(std::io::stdout().lock(), "{:#}", fixture.event);
    Ok(())
}

fn list() -> Result<(), Error> {
    let mut output = std::io::stdout().lock();
    for (provider, events) in catalogue()?.names() {
        let _ = writeln!(output, "{provider}\n  {}", events.join("\n  "));
    }
    Ok(())
}
