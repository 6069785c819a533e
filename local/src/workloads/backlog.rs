//! `cargo local backlog`: an outage of SNS fills the outbox, redrive then empties it, and its memory is watched.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::aws::faults::{Fault, Rule, Service};
use crate::lambda::memory;
use crate::net::client::Client;
use crate::project::settings::REDRIVE;
use crate::providers::generator::Orders;
use crate::providers::signing::{Credentials, sign};
use crate::stack::Stack;
use crate::workloads::load::outcome;
use crate::{Error, lock};

/// The number of deliveries under way at once: few enough that none waits long for a process.
const SENDERS: usize = 16;
/// How often an order is sent at most.
const TRIES: usize = 6;
/// Rejected at once, and not repeated by the SDK: the fastest way into the outbox.
const DENIED: Fault = Fault::Answer {
    status: 403,
    code: "AuthorizationError",
};
/// The time between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a run does.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The number of events that are sent while SNS is down.
    pub events: usize,
    /// The number of letters that are added to each order.
    pub larger_by: usize,
    /// The time that is added to each of redrive's calls to DynamoDB.
    pub dynamodb: Duration,
    /// The time that is added to each of redrive's calls to SNS.
    pub sns: Duration,
}

/// The result of a run. Memory is in KiB, as the kernel counts resident pages.
#[derive(Debug, Default)]
pub struct Report {
    /// The events in the outbox.
    pub events: usize,
    /// The time that it took to send them.
    pub filled_in: Duration,
    /// The time from the start of the first run of redrive to the end of the last.
    pub drained_in: Duration,
    /// The number of runs of redrive; on AWS there is one a minute.
    pub runs: usize,
    /// The events that redrive reports as published.
    pub published: usize,
    /// The events that arrived in the queue.
    pub arrived: usize,
    /// The events of which more than one message arrived.
    pub arrived_more_than_once: usize,
    /// The events that are still in the outbox.
    pub waiting: usize,
    /// The memory when a tenth, half and all of the events had arrived.
    pub memory: [u64; 3],
    /// The most memory that any process of the function ever had.
    pub peak: u64,
}

/// The memory of redrive's process in KiB: when a tenth, half and all of the events had arrived, and at most.
#[derive(Debug, Default)]
struct Watched {
    at_tenths: [u64; 3],
    peak: u64,
}

impl Report {
    /// The events that did not arrive.
    pub fn lost(&self) -> usize {
        self.events.saturating_sub(self.arrived)
    }

    /// The events that were published in a second.
    pub fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far from 2^52")]
        let published = self.published as f64;
        published / self.drained_in.as_secs_f64().max(0.001)
    }

    /// How many KiB the memory grew after a tenth of the events had arrived.
    pub fn growth(&self) -> u64 {
        self.peak.saturating_sub(self.memory[0])
    }

    /// The result as JSON: memory in KiB, times in seconds.
    pub fn to_json(&self) -> Value {
        json!({
            "events": self.events,
            "filled_in": self.filled_in.as_secs_f64(),
            "drained_in": self.drained_in.as_secs_f64(),
            "rate": self.rate(),
            "runs": self.runs,
            "arrived": self.arrived,
            "arrived_more_than_once": self.arrived_more_than_once,
            "lost": self.lost(),
            "waiting": self.waiting,
            "memory_kib": {"10%": self.memory[0], "50%": self.memory[1], "100%": self.memory[2], "peak": self.peak},
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(formatter, "| {name} | {value} |");
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "far from 2^52")]
        let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
        row("events in the outbox", &self.events)?;
        row("drained in", &seconds(self.drained_in))?;
        row("published a second", &format!("{:.0}", self.rate()))?;
        row("runs of redrive", &self.runs)?;
        row("memory at 10 %", &mib(self.memory[0]))?;
        row("memory at 50 %", &mib(self.memory[1]))?;
        row("memory at 100 %", &mib(self.memory[2]))?;
        row("peak memory", &mib(self.peak))?;
        row("events that arrived more than once", &self.arrived_more_than_once)?;
        row("**lost**", &format!("**{}**", self.lost()))
    }
}

/// The progress of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The number of events that have been answered.
    Filled(usize),
    /// The last event is not due yet.
    Waits,
    /// The number of events that have arrived.
    Drained(usize),
}

/// Fills the outbox, empties it, and counts.
pub async fn run(
    stack: &Arc<Stack>,
    orders: &Orders,
    plan: Plan,
    progress: impl Fn(Progress) + Send + Sync + Clone + 'static,
) -> Result<Report, Error> {
    let mut report = Report::default();
    let begun = Instant::now();
    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    fill(stack, orders, plan, &progress).await?;
    drop(down);
    report.filled_in = begun.elapsed();
    report.events = stack.clients().pending().await?;
    progress(Progress::Waits);
    let due = stack.clients().last_due().await?.unwrap_or_else(Timestamp::now);
    tokio::time::sleep(Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default()).await;

    let (dynamodb, sns) = (plan.dynamodb, plan.sns);
    stack.tap().follow(move |call| {
        call.caller.as_ref()?;
        let wait = if call.service == Service::Sns { sns } else { dynamodb };
        (!wait.is_zero()).then_some(Fault::Slow(wait))
    });
    let arrived = Arc::new(Mutex::new(HashMap::<String, usize>::new()));
    let draining = Arc::new(AtomicBool::new(true));
    let consumer = tokio::spawn(consume(
        Arc::clone(stack),
        Arc::clone(&draining),
        Arc::clone(&arrived),
        progress,
    ));
    let watcher = tokio::spawn(watch(
        Arc::clone(stack),
        Arc::clone(&draining),
        Arc::clone(&arrived),
        report.events,
    ));
    let drained = drain(stack, &mut report).await;
    draining.store(false, Ordering::Relaxed);
    stack.tap().follow_nothing();
    let ended = |_| Error::Send("a task of the run ended early".to_owned());
    let memory = watcher.await.map_err(ended)?;
    (report.memory, report.peak) = (memory.at_tenths, memory.peak);
    consumer.await.map_err(ended)??;
    drained?;
    {
        let arrived = lock(&arrived);
        report.arrived = arrived.len();
        report.arrived_more_than_once = arrived.values().filter(|messages| **messages > 1).count();
    }
    report.waiting = stack.clients().pending().await?;
    Ok(report)
}

async fn fill(stack: &Stack, orders: &Orders, plan: Plan, progress: &impl Fn(Progress)) -> Result<(), Error> {
    let url = stack.url();
    let client = Client::new(&url)?;
    let sends = stream::iter(0..plan.events).map(|index| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            let mut fixture = match plan.larger_by {
                0 => orders.order(index)?,
                letters => orders.large_order(index, letters)?,
            };
            let mut answer = String::new();
            // As its provider would, because a busy machine may be too slow for one attempt.
            for _ in 0..TRIES {
                sign(&mut fixture, &Credentials::default(), Timestamp::now())?;
                answer = outcome(&client.send(fixture.to_request(&url)?).await);
                if answer.starts_with("200") {
                    return Ok(());
                }
            }
            Err(Error::Send(format!("a new order was answered {answer}")))
        }
    });
    let sends = sends.buffer_unordered(SENDERS);
    sends
        .try_fold(0, |filled, ()| {
            progress(Progress::Filled(filled + 1));
            std::future::ready(Ok(filled + 1))
        })
        .await?;
    Ok(())
}

/// Invokes redrive again and again, without the minute between two runs.
async fn drain(stack: &Stack, report: &mut Report) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let answer = stack.invoke(REDRIVE, &json!({"redrive": {}})).await?;
        let published = answer["published"]
            .as_u64()
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or_default();
        report.runs += 1;
        report.published += published;
        report.drained_in = begun.elapsed();
        // A busy machine may answer too late now and then, as AWS may.
        if let Some(outage) = answer["outage"].as_str().filter(|_| published == 0) {
            return Err(Error::Send(format!("redrive stopped at an outage: {outage}")));
        }
        if answer["done"] == true {
            return Ok(());
        }
    }
}

async fn consume(
    stack: Arc<Stack>,
    draining: Arc<AtomicBool>,
    arrived: Arc<Mutex<HashMap<String, usize>>>,
    progress: impl Fn(Progress),
) -> Result<(), Error> {
    let queue = stack.queue();
    loop {
        // Read before the queue, so that everything that was published before is received.
        let goes_on = draining.load(Ordering::Relaxed);
        for message in queue.drain().await? {
            let event_id = message.event["id"].as_str().unwrap_or_default().to_owned();
            *lock(&arrived).entry(event_id).or_default() += 1;
        }
        progress(Progress::Drained(lock(&arrived).len()));
        if !goes_on {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Watches the memory of redrive's process.
async fn watch(
    stack: Arc<Stack>,
    draining: Arc<AtomicBool>,
    arrived: Arc<Mutex<HashMap<String, usize>>>,
    events: usize,
) -> Watched {
    let mut watched = Watched::default();
    while draining.load(Ordering::Relaxed) {
        let arrived = lock(&arrived).len();
        for pid in stack.environments().pids(REDRIVE) {
            let Some(memory) = memory::of(pid) else { continue };
            watched.peak = watched.peak.max(memory.peak);
            for (at, tenths) in watched.at_tenths.iter_mut().zip([1, 5, 10]) {
                if arrived * 10 <= events * tenths || *at == 0 {
                    *at = memory.now;
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    watched
}
