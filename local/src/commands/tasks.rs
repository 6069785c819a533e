//! The tasks of `redrive`, on this machine or on a deployed stack: `cargo local redrive`, `get`, `replay`, `requeue`,
//! `reprocess`, `dismiss`, `undismiss`, `publish-conflict`, `erase`, `compare` and `retain`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use jiff::Timestamp;
use local::lambda::invoke_api;
use local::project::settings::REDRIVE;
use local::{Error, pretty_json};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::aws_cli;

/// The output of a deployed stack that names the function `redrive`.
const OUTPUT: &str = "Redrive";

/// The stack whose function is invoked.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// The port of SNS and SQS, which also invokes functions
    #[arg(long, default_value_t = 4566)]
    sns_port: u16,
    /// The name of a deployed CloudFormation stack to use instead of the local one; the AWS CLI invokes its function
    #[arg(long, value_name = "NAME", conflicts_with = "sns_port")]
    pub(super) stack: Option<String>,
}

/// The flags of `cargo local get`.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The id of an event; or a provider, a shop and an order
    #[arg(required = true, num_args = 1..=3, value_names = ["EVENT_ID | PROVIDER", "SHOP", "ORDER"])]
    what: Vec<String>,
    #[command(flatten)]
    place: Place,
}

/// The flags of `cargo local state`.
#[derive(Debug, Args)]
pub(crate) struct State {
    /// The provider
    provider: String,
    /// The operator's name for the shop
    shop: String,
    /// The provider's id of the order
    order: String,
    #[command(flatten)]
    place: Place,
}

/// The flags of `cargo local replay`.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The provider
    provider: String,
    /// Events that were received at or after this time, such as 2026-01-31T12:00:00Z
    #[arg(long)]
    from: Timestamp,
    /// Events that were received before this time
    #[arg(long)]
    to: Timestamp,
    /// Only events of this shop
    #[arg(long)]
    shop: Option<String>,
    /// Only events of this type, such as order.created; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only count the events
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

/// The flags of `cargo local requeue`.
#[derive(Debug, Args)]
pub(crate) struct Requeue {
    /// Only count the events
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

/// The flags of `cargo local reprocess`.
#[derive(Debug, Args)]
pub(crate) struct Reprocess {
    /// The id of one quarantined or unsupported delivery
    #[arg(long, value_name = "ID", conflicts_with_all = ["provider", "shop", "unsupported"])]
    event_id: Option<String>,
    /// Only deliveries of this provider
    #[arg(long)]
    provider: Option<String>,
    /// Only deliveries of this shop
    #[arg(long)]
    shop: Option<String>,
    /// Unsupported deliveries instead of quarantined ones
    #[arg(long, requires_all = ["provider", "from", "to"])]
    unsupported: bool,
    /// Unsupported deliveries that were received at or after this time
    #[arg(long, requires = "unsupported")]
    from: Option<Timestamp>,
    /// Unsupported deliveries that were received before this time
    #[arg(long, requires = "unsupported")]
    to: Option<Timestamp>,
    /// Only count the deliveries
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

/// The flags of `cargo local dismiss` and `undismiss`.
#[derive(Debug, Args)]
pub(crate) struct Dismiss {
    /// The id of the event
    event_id: String,
    /// Only count the delivery
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

/// The flags of `cargo local publish-conflict`.
#[derive(Debug, Args)]
pub(crate) struct PublishConflict {
    /// The id of the event
    event_id: String,
    /// The SHA-256 of the other body, which `cargo local get EVENT_ID` lists
    payload_sha256: String,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

/// The flags of `cargo local erase`.
#[derive(Debug, Args)]
pub(crate) struct Erase {
    /// The id of an event; or a provider, a shop and an order; or, with --email, a provider and a shop
    #[arg(required = true, num_args = 1..=3, value_names = ["EVENT_ID | PROVIDER", "SHOP", "ORDER"])]
    what: Vec<String>,
    /// Deliveries of the shop from --from to --to that name this e-mail address
    #[arg(long, requires_all = ["from", "to"])]
    email: Option<String>,
    /// Received at or after this time
    #[arg(long, requires = "email")]
    from: Option<Timestamp>,
    /// Received before this time
    #[arg(long, requires = "email")]
    to: Option<Timestamp>,
    /// Erase the data; without this it is only counted
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    place: Place,
}

/// The flags of `cargo local retain`.
#[derive(Debug, Args)]
pub(crate) struct Retain {
    /// The provider
    provider: String,
    /// Events that were received at or after this time, such as 2026-01-31T12:00:00Z
    #[arg(long)]
    from: Timestamp,
    /// Events that were received before this time
    #[arg(long)]
    to: Timestamp,
    /// Only count the events
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

/// The flags of `cargo local compare`.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The provider
    provider: String,
    /// Events that were received at or after this time, such as 2026-01-31T12:00:00Z
    #[arg(long)]
    from: Timestamp,
    /// Events that were received before this time
    #[arg(long)]
    to: Timestamp,
    /// Only events of this shop
    #[arg(long)]
    shop: Option<String>,
    /// Show the values that differ, which are customers' data; without this only their JSON types are shown
    #[arg(long)]
    values: bool,
    #[command(flatten)]
    place: Place,
}

/// Publishes the events that are due.
pub(crate) async fn redrive(place: Place) -> Result<(), Error> {
    let task = Task::new("redrive", json!({}), place).await?;
    print(&task.run(&["published", "put_off", "failed", "expired"]).await?);
    Ok(())
}

/// Shows stored events in full.
pub(crate) async fn get(get: Get) -> Result<(), Error> {
    let parameters = match get.what.as_slice() {
        [event_id] => json!({"event_id": event_id}),
        [provider, shop, order] => json!({"provider": provider, "shop": shop, "order": order}),
        _ => {
            return Err(Error::Invoke {
                function: "get".to_owned(),
                what: "expected the id of an event, or a provider, a shop and an order".to_owned(),
            });
        }
    };
    let events = Task::new("get", parameters, get.place).await?.all_events().await?;
    let json = serde_json::to_string(&events).map_err(|error| Error::Invoke {
        function: "get".to_owned(),
        what: error.to_string(),
    })?;
    println!("{}", pretty_json::indented(&json).unwrap_or(json));
    Ok(())
}

/// The bytes of the largest state that an answer of the task holds. Of a larger one it returns the size only.
const LARGEST_STATE: u64 = 5_000_000;

/// Shows the state of an order.
pub(crate) async fn state(state: State) -> Result<(), Error> {
    let parameters = json!({"provider": state.provider, "shop": state.shop, "order": state.order});
    let task = Task::new("state", parameters, state.place).await?;
    let mut answer: Value = task.once().await?;
    if let Some(cause) = answer["outage"].as_str() {
        return Err(task.stopped(&format!("stopped by an outage ({cause})"), &["nothing".to_owned()]));
    }
    if answer["unreadable"].as_array().is_some_and(|ids| !ids.is_empty()) {
        eprintln!(
            "The state lacks the facts of events that cannot be read: {}",
            answer["unreadable"]
        );
    }
    let bytes = answer["bytes"].as_u64().unwrap_or_default();
    if answer["state"].is_null() && bytes > LARGEST_STATE {
        return Err(Error::Invoke {
            function: "state".to_owned(),
            what: format!("the state of the order takes {bytes} bytes, and an answer at most {LARGEST_STATE}"),
        });
    }
    print(&answer["state"].take());
    Ok(())
}

/// Publishes stored events again.
pub(crate) async fn replay(replay: Replay) -> Result<(), Error> {
    let mut parameters = json!({
        "provider": replay.provider,
        "from": replay.from,
        "to": replay.to,
        "types": replay.types,
        "dry_run": replay.dry_run,
    });
    if let Some(shop) = replay.shop {
        parameters["shop"] = shop.into();
    }
    let task = Task::new("replay", parameters, replay.place).await?;
    print(&task.run(&["replayed", "expired"]).await?);
    Ok(())
}

/// Retries failed events.
pub(crate) async fn requeue(requeue: Requeue) -> Result<(), Error> {
    let task = Task::new("requeue", json!({"dry_run": requeue.dry_run}), requeue.place).await?;
    print(&task.run(&["requeued"]).await?);
    Ok(())
}

/// Reads quarantined or unsupported deliveries again.
pub(crate) async fn reprocess(reprocess: Reprocess) -> Result<(), Error> {
    let mut parameters = json!({"dry_run": reprocess.dry_run});
    for (name, value) in [
        ("event_id", reprocess.event_id),
        ("provider", reprocess.provider),
        ("shop", reprocess.shop),
        ("state", reprocess.unsupported.then(|| "unsupported".to_owned())),
        ("from", reprocess.from.map(|time| time.to_string())),
        ("to", reprocess.to.map(|time| time.to_string())),
    ] {
        if let Some(value) = value {
            parameters[name] = value.into();
        }
    }
    let task = Task::new("reprocess", parameters, reprocess.place).await?;
    let counted = [
        "accepted",
        "duplicates",
        "conflicts",
        "unsupported",
        "quarantined",
        "expired",
    ];
    print(&task.run(&counted).await?);
    Ok(())
}

/// Closes a quarantined delivery that no mapping will ever understand.
pub(crate) async fn dismiss(dismiss: Dismiss) -> Result<(), Error> {
    let parameters = json!({"event_id": dismiss.event_id, "dry_run": dismiss.dry_run});
    print(&Task::new("dismiss", parameters, dismiss.place).await?.once().await?);
    Ok(())
}

/// Shows what the current mapping would change in stored events.
pub(crate) async fn compare(compare: Compare) -> Result<(), Error> {
    let mut parameters = json!({
        "provider": compare.provider,
        "from": compare.from,
        "to": compare.to,
        "values": compare.values,
    });
    if let Some(shop) = compare.shop {
        parameters["shop"] = shop.into();
    }
    let task = Task::new("compare", parameters, compare.place).await?;
    print(&task.compared().await?);
    Ok(())
}

/// Undoes a dismissal.
pub(crate) async fn undismiss(undismiss: Dismiss) -> Result<(), Error> {
    let parameters = json!({"event_id": undismiss.event_id, "dry_run": undismiss.dry_run});
    print(
        &Task::new("undismiss", parameters, undismiss.place)
            .await?
            .once()
            .await?,
    );
    Ok(())
}

/// Publishes a conflict as its own event.
pub(crate) async fn publish_conflict(conflict: PublishConflict) -> Result<(), Error> {
    let parameters = json!({
        "event_id": conflict.event_id,
        "payload_sha256": conflict.payload_sha256,
        "dry_run": conflict.dry_run,
    });
    let task = Task::new("publish_conflict", parameters, conflict.place).await?;
    print(&task.once().await?);
    Ok(())
}

/// Erases an event, an order, or the deliveries that name an e-mail address.
pub(crate) async fn erase(erase: Erase) -> Result<(), Error> {
    let mut parameters = match (erase.what.as_slice(), &erase.email) {
        ([event_id], None) => json!({"event_id": event_id}),
        ([provider, shop, order], None) => json!({"provider": provider, "shop": shop, "order": order}),
        ([provider, shop], Some(email)) => {
            json!({"provider": provider, "shop": shop, "email": email, "from": erase.from, "to": erase.to})
        }
        _ => {
            return Err(Error::Invoke {
                function: "erase".to_owned(),
                what: "expected the id of an event; a provider, a shop and an order; or a provider, a shop and --email"
                    .to_owned(),
            });
        }
    };
    parameters["dry_run"] = (!erase.yes).into();
    let task = Task::new("erase", parameters, erase.place).await?;
    if erase.email.is_some() {
        print(&task.run(&["erased", "waiting"]).await?);
    } else {
        print(&task.once().await?);
    }
    if !erase.yes {
        eprintln!("Nothing is erased yet; --yes erases it.");
    }
    Ok(())
}

/// Applies the configured retention to events that are already stored.
pub(crate) async fn retain(retain: Retain) -> Result<(), Error> {
    let parameters = json!({
        "provider": retain.provider,
        "from": retain.from,
        "to": retain.to,
        "dry_run": retain.dry_run,
    });
    let task = Task::new("retain", parameters, retain.place).await?;
    print(&task.run(&["marked", "unmarked"]).await?);
    Ok(())
}

/// The stored events and conflicts, as they were written.
#[derive(Serialize)]
struct Events {
    events: Vec<Box<RawValue>>,
    conflicts: Vec<Box<RawValue>>,
}

/// The part of them that fits into one answer.
#[derive(Deserialize)]
struct Answer {
    events: Vec<Box<RawValue>>,
    /// The previous version of the function does not send this.
    #[serde(default)]
    conflicts: Vec<Box<RawValue>>,
    done: bool,
    cursor: Value,
    outage: Option<String>,
}

/// The result of `compare`.
#[derive(Default, Serialize, Deserialize)]
struct Comparison {
    compared: u64,
    changed: u64,
    unreadable: u64,
    pointers: BTreeMap<String, u64>,
    events: Vec<Value>,
    #[serde(skip_serializing)]
    done: bool,
    #[serde(skip_serializing)]
    cursor: Value,
    #[serde(skip_serializing)]
    outage: Option<String>,
}

impl Comparison {
    fn add(&mut self, page: Self) {
        self.compared += page.compared;
        self.changed += page.changed;
        self.unreadable += page.unreadable;
        for (pointer, count) in page.pointers {
            *self.pointers.entry(pointer).or_default() += count;
        }
        self.events.extend(page.events);
    }
}

/// A task, which may take several invocations.
struct Task {
    name: &'static str,
    parameters: Value,
    function: Function,
}

/// A function that operators invoke.
pub(super) enum Function {
    /// The function of the local stack whose SNS and SQS endpoint has this URL.
    Local(String, &'static str),
    /// The function with this name, of a deployed stack.
    Deployed(String),
}

impl Function {
    /// The function `name` of the local stack, or the one that the output `output` of a deployed stack names.
    pub(super) async fn find(place: Place, name: &'static str, output: &str) -> Result<Self, Error> {
        Ok(match place.stack {
            Some(stack) => Self::Deployed(aws_cli::output(&stack, output).await?),
            None => Self::Local(format!("http://127.0.0.1:{}", place.sns_port), name),
        })
    }

    /// The function redrive of a stack.
    pub(super) async fn redrive(place: Place) -> Result<Self, Error> {
        Self::find(place, REDRIVE, OUTPUT).await
    }

    /// Invokes the function once, and returns its result.
    pub(super) async fn invoke<T: DeserializeOwned>(&self, payload: &Value) -> Result<T, Error> {
        match self {
            Self::Local(url, name) => invoke_api::invoke(url, name, payload).await,
            Self::Deployed(name) => aws_cli::invoke(name, payload).await,
        }
    }
}

impl Task {
    async fn new(name: &'static str, parameters: Value, place: Place) -> Result<Self, Error> {
        Ok(Self {
            name,
            parameters,
            function: Function::redrive(place).await?,
        })
    }

    async fn once<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let payload = Map::from_iter([(self.name.to_owned(), self.parameters.clone())]).into();
        self.function.invoke(&payload).await
    }

    /// Collects the events of all answers.
    async fn all_events(mut self) -> Result<Events, Error> {
        let (mut events, mut conflicts) = (Vec::new(), Vec::new());
        loop {
            let answer: Answer = self.once().await?;
            events.extend(answer.events);
            conflicts.extend(answer.conflicts);
            if answer.done {
                return Ok(Events { events, conflicts });
            }
            if let Some(cause) = answer.outage {
                let so_far = format!("{} events", events.len());
                return Err(self.stopped(&format!("stopped by an outage ({cause})"), &[so_far]));
            }
            self.parameters["cursor"] = answer.cursor;
        }
    }

    /// Adds up the counts and collects the changed events of all answers.
    async fn compared(mut self) -> Result<Value, Error> {
        let line = ProgressBar::new_spinner();
        line.enable_steady_tick(Duration::from_millis(200));
        let mut total = Comparison::default();
        loop {
            let mut answer: Comparison = self.once().await?;
            let (done, cursor, outage) = (answer.done, answer.cursor.take(), answer.outage.take());
            total.add(answer);
            line.set_message(format!("{} compared, {} changed", total.compared, total.changed));
            if done {
                line.finish_and_clear();
                return Ok(json!(total));
            }
            if let Some(cause) = outage {
                line.finish_and_clear();
                let said = [format!("{} compared", total.compared)];
                return Err(self.stopped(&format!("stopped by an outage ({cause})"), &said));
            }
            self.parameters["cursor"] = cursor;
        }
    }

    /// Invokes the function until it is done. `counted` names the counts to add up.
    async fn run(mut self, counted: &[&str]) -> Result<Value, Error> {
        let line = ProgressBar::new_spinner();
        line.enable_steady_tick(Duration::from_millis(200));
        let mut totals = vec![0_u64; counted.len()];
        loop {
            let mut answer: Value = self.once().await?;
            let mut changed = 0;
            for (name, total) in counted.iter().zip(&mut totals) {
                let count = answer[*name].as_u64().unwrap_or_default();
                changed += count;
                *total += count;
                answer[*name] = (*total).into();
            }
            let said: Vec<String> = counted
                .iter()
                .zip(&totals)
                .map(|(name, total)| format!("{total} {name}"))
                .collect();
            line.set_message(format!("{}: {}", self.name, said.join(", ")));
            if answer["done"] == true {
                line.finish_and_clear();
                return Ok(answer);
            }
            if let Some(cause) = answer["outage"].as_str() {
                line.finish_and_clear();
                return Err(self.stopped(&format!("stopped by an outage ({cause})"), &said));
            }
            if answer["cursor"].is_object() {
                self.parameters["cursor"] = answer["cursor"].take();
            } else if changed == 0 || self.parameters["dry_run"] == true {
                // Without a cursor the next run would start again, forever.
                line.finish_and_clear();
                return Ok(answer);
            }
        }
    }

    fn stopped(&self, why: &str, said: &[String]) -> Error {
        Error::Invoke {
            function: self.name.to_owned(),
            what: format!("{why}; so far {}. Run it again later.", said.join(", ")),
        }
    }
}

fn print(answer: &Value) {
    println!("{answer:#}");
}
