//! The sub-commands of `cargo local`.

mod args;
mod audit;
mod aws_cli;
mod bench;
mod chaos;
mod connect;
mod consumer_check;
mod load;
mod reconcile;
mod samples;
mod send;
mod sent;
mod tasks;
mod up;

use clap::{Parser, Subcommand};
use local::Error;

const EXAMPLES: &str = "\
Examples:
  cargo local                                   start everything; Ctrl-C stops it
  cargo local --port 9100 --dynamodb-port 0     use other ports (0: any free port)
  cargo local --data .local                     keep the table and the list over restarts
  cargo local --secrets FILE --tunnel-port 9002 receive real webhooks through a tunnel to port 9002
  cargo local --json | jq -r .outcome           print each delivery as a line of JSON
  cargo local list                              list all providers and events
  cargo local send snipcart order-completed     send an event and sum up what happened
  cargo local send cartum order-created --count 200 --rate 20 --fresh
  cargo local send selldone checkout-order --url https://API.execute-api.REGION.amazonaws.com --token TOKEN
  cargo local redrive                           publish the due events without waiting for the schedule
  cargo local get snipcart main ORDER           show all events of an order in full
  cargo local state snipcart main ORDER         show what these events state about the order
  cargo local replay cartum --from 2026-01-31T00:00:00Z --to 2026-02-01T00:00:00Z --dry-run
  cargo local compare cartum --from 2026-01-31T00:00:00Z --to 2026-02-01T00:00:00Z
  cargo local erase cartum main --email j.doe@example.com --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z
  cargo local reconcile cartum main --from 2026-01-31T00:00:00Z --dry-run
  cargo local connect cartum main               subscribe to the order events of a shop
  cargo local requeue --stack order-webhooks    run the tasks on a deployed stack, with the AWS CLI
  cargo local chaos --events 20000 --seed 1     check exactly-once storage under faults
  cargo local event deeple order-changed | sam local invoke DeepleFunction -e - --env-vars events/env.json";

const SENDS: &str = "\
Examples:
  cargo local send snipcart order-completed             print a summary
  cargo local send snipcart order-completed --verbose   add the answer, the stored item and the published event
  cargo local send snipcart order-completed --json | jq -r .item.state
  cargo local send cartum order-created --count 200 --rate 20 --fresh
  cargo local send selldone checkout-order --token wrong
  cargo local send selldone checkout-order --url https://API.execute-api.REGION.amazonaws.com --token TOKEN";

const AUDITS: &str = "\
Examples:
  cargo local audit                                     the last day, on the local stack
  cargo local audit cartum --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z --stack order-webhooks
  cargo local audit --json > books.json                 later: cargo local audit --against books.json
  cargo local audit --scan --repair                     read the complete table, and delete orphaned parts";

const CONNECTS: &str = "\
Examples:
  cargo local connect cartum main                       the stand-in for Cartum, and the local gateway
  cargo local connect cartum main --stack order-webhooks
  cargo local connect aboutyou main --stack order-webhooks --url https://orders.example.com
  cargo local connect cartum main --again order_paid --stack order-webhooks
  cargo local connect cartum main --json | jq -r '.subscriptions[].status'";

const CHECKS: &str = "\
Start the consumer first, with nothing else in its queue. Examples:
  cargo local consumer-check --state-url http://127.0.0.1:8080/state
  cargo local consumer-check --state-command './my-consumer state'
  cargo local consumer-check --queue https://sqs.REGION.amazonaws.com/ACCOUNT/NAME --state-command ./state.sh";

const MEASURES: &str = "\
Examples, with optimized binaries (cargo local-optimized is the same command as cargo local):
  cargo local-optimized bench --runs 20
  cargo local-optimized load --rate 50 --seconds 60
  cargo local-optimized load --rate 20 --provider snipcart --json
  cargo local-optimized backlog --events 100000
  cargo local-optimized backlog --events 2000 --dynamodb-ms 5 --sns-ms 20";

#[derive(Debug, Parser)]
#[command(name = "cargo local", bin_name = "cargo local", about = "Run the whole system on this machine, without Docker or an AWS account.", after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
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
    /// Send a newly signed event, and sum up the answer, the stored event and the message
    #[command(after_help = SENDS)]
    Send(send::Options),
    /// Print a newly signed event, for `sam local invoke -e -`
    #[command(after_help = EXAMPLES)]
    Event(samples::Event),
    /// List all providers and events
    List,
    /// Publish the events of the outbox that are due
    Redrive(tasks::Place),
    /// Show stored events in full: one by its id, or all of an order
    #[command(visible_alias = "show")]
    Get(tasks::Get),
    /// Show the state of an order, folded from its stored events
    State(tasks::State),
    /// Publish stored events again
    Replay(tasks::Replay),
    /// Retry failed events
    Requeue(tasks::Requeue),
    /// Read quarantined or unsupported deliveries again
    Reprocess(tasks::Reprocess),
    /// Close a quarantined delivery that no mapping will ever understand
    Dismiss(tasks::Dismiss),
    /// Undo a dismissal
    Undismiss(tasks::Dismiss),
    /// Publish a conflict, which is another body for a stored event, as its own event
    PublishConflict(tasks::PublishConflict),
    /// Erase the stored data of an event, an order or a customer
    Erase(tasks::Erase),
    /// Show what the current mapping would change in stored events; nothing is written or published
    #[command(after_help = EXAMPLES)]
    Compare(tasks::Compare),
    /// Count what is stored by provider, shop and day, and name each fault; the exit code says whether the books balance
    #[command(after_help = AUDITS)]
    Audit(audit::Options),
    /// Apply the configured retention to events that are already stored
    Retain(tasks::Retain),
    /// Count the orders of a shop that no webhook announced, and store and publish them
    #[command(after_help = EXAMPLES)]
    Reconcile(reconcile::Options),
    /// Subscribe to the order events of a shop through the API of Cartum or ABOUT YOU
    #[command(after_help = CONNECTS)]
    Connect(connect::Options),
    /// Check exactly-once storage under random faults and kills, in a separate stack
    Chaos(chaos::Options),
    /// Check a consumer of the queue: send it histories of orders, and compare its states with those of the events
    #[command(after_help = CHECKS)]
    ConsumerCheck(consumer_check::Options),
    /// Send new orders at a steady rate in a separate stack, and measure their times
    #[command(after_help = MEASURES)]
    Load(load::Load),
    /// Fill and empty the outbox of a separate stack, and measure time and memory
    #[command(after_help = MEASURES)]
    Backlog(load::Backlog),
    /// Measure start, events, memory and size of the functions as deployed, compared with other languages
    #[command(after_help = MEASURES)]
    Bench(bench::Options),
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Error> {
        match self.command.unwrap_or(Command::Up(self.up)) {
            Command::Up(options) => run(up::up(options)),
            Command::Send(options) => run(send::send(options)),
            Command::Event(options) => samples::event(&options),
            Command::List => samples::list(),
            Command::Redrive(place) => run(tasks::redrive(place)),
            Command::Get(options) => run(tasks::get(options)),
            Command::State(options) => run(tasks::state(options)),
            Command::Replay(options) => run(tasks::replay(options)),
            Command::Requeue(options) => run(tasks::requeue(options)),
            Command::Reprocess(options) => run(tasks::reprocess(options)),
            Command::Dismiss(options) => run(tasks::dismiss(options)),
            Command::Undismiss(options) => run(tasks::undismiss(options)),
            Command::PublishConflict(options) => run(tasks::publish_conflict(options)),
            Command::Erase(options) => run(tasks::erase(options)),
            Command::Compare(options) => run(tasks::compare(options)),
            Command::Audit(options) => run(audit::run(options)),
            Command::Retain(options) => run(tasks::retain(options)),
            Command::Reconcile(options) => run(reconcile::reconcile(options)),
            Command::Connect(options) => run(connect::connect(options)),
            Command::Chaos(options) => run(chaos::chaos(options)),
            Command::ConsumerCheck(options) => run(consumer_check::run(options)),
            Command::Load(options) => run(load::load(options)),
            Command::Backlog(options) => run(load::backlog(options)),
            Command::Bench(options) => run(bench::bench(options)),
        }
    }
}

fn run(command: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    tokio::runtime::Runtime::new()
        .map_err(|error| Error::Start(error.to_string()))?
        .block_on(command)
}
