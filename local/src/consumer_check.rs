//! Checks a consumer of the queue, in whatever language it is written: sends histories of orders, asks the consumer for
//! the state of each order, and compares it with the fold of the history.
//!
//! Each history is sent under new order and event ids, so that the consumer need not forget anything in between. A
//! message is sent when the one before it has left the queue, so the order of arrival is the one of the history.

mod consumer;
mod histories;
mod queue;
mod rule;
mod state;

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

pub use self::consumer::Consumer;
use self::histories::{History, Message};
pub use self::queue::Queue;
pub use self::rule::Rule;
use self::state::Difference;
use crate::Error;

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(20);
/// The number of times in a row that the queue must be empty. The counts of SQS are approximate.
const EMPTY_TIMES: usize = 2;

/// How long the check waits for a consumer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time in which the consumer must handle a message and delete it.
    pub handled: Duration,
    /// The time after the last message in which the expected state must be seen.
    pub settled: Duration,
}

/// The result of a check.
#[derive(Debug)]
pub struct Report {
    /// The number of histories that the consumer got right.
    pub passed: usize,
    /// The rules that the consumer breaks.
    pub broken: Vec<Broken>,
    /// The rules that were not checked, because they depend on a broken one.
    pub unchecked: Vec<Rule>,
}

/// A broken rule, with the smallest history that shows it.
#[derive(Debug)]
pub struct Broken {
    /// The rule.
    pub rule: Rule,
    /// The messages in the order in which they were sent.
    history: Vec<Message>,
    symptom: Symptom,
}

/// How a consumer breaks a rule.
#[derive(Debug)]
enum Symptom {
    /// The last message stays in the queue.
    Stuck(Duration),
    /// The state differs.
    Differs(Vec<Difference>),
}

/// A check of one consumer.
#[derive(Debug)]
pub struct Check {
    queue: Queue,
    consumer: Consumer,
    limits: Limits,
    /// Makes the ids of each history new.
    nonce: String,
    histories_sent: usize,
}

impl Check {
    /// A check of the consumer that reads `queue`.
    pub fn new(queue: Queue, consumer: Consumer, limits: Limits) -> Self {
        Self {
            queue,
            consumer,
            limits,
            nonce: uuid::Uuid::new_v4().simple().to_string()[..8].to_owned(),
            histories_sent: 0,
        }
    }

    /// Sends all histories. `progress` gets the name of each history.
    pub async fn run(mut self, seed: u64, progress: impl Fn(&str)) -> Result<Report, Error> {
        let nobody_reads = |waited: Duration, url: &str| {
            let waited = waited.as_secs_f64();
            Error::Send(format!(
                "{url} was not empty after {waited:.1} s. Is the consumer running, and does it read this queue?"
            ))
        };
        let is_empty = self.wait_until_empty().await?;
        is_empty.map_err(|waited| nobody_reads(waited, self.queue.url()))?;
        let mut report = Report {
            passed: 0,
            broken: Vec::new(),
            unchecked: Vec::new(),
        };
        for (rule, histories) in histories::all(seed)? {
            if report.broken.iter().any(|broken| rule.depends_on(broken.rule)) {
                report.unchecked.push(rule);
                continue;
            }
            for history in histories {
                progress(&history.name);
                let Some(symptom) = self.try_history(&history.messages).await? else {
                    report.passed += 1;
                    continue;
                };
                if let (Rule::Plain, Symptom::Stuck(waited)) = (rule, &symptom) {
                    return Err(nobody_reads(*waited, self.queue.url()));
                }
                let (broken, is_stuck) = self.smallest(rule, history, symptom).await?;
                report.broken.push(broken);
                if is_stuck {
                    // The message may come back at any time, between those of another history.
                    report.unchecked.extend(Rule::after(rule));
                    self.queue.purge().await?;
                    return Ok(report);
                }
                break;
            }
        }
        Ok(report)
    }

    /// Leaves out one message after the other, as long as the rule is broken without it. Returns true if a message is
    /// stuck in the queue: nothing can be sent after it.
    async fn smallest(&mut self, rule: Rule, history: History, symptom: Symptom) -> Result<(Broken, bool), Error> {
        let mut broken = Broken {
            rule,
            history: history.messages,
            symptom,
        };
        if let Symptom::Stuck(_) = broken.symptom {
            // Each message is handled by itself.
            broken.history = broken.history.pop().into_iter().collect();
            return Ok((broken, true));
        }
        let mut at = 0;
        while at < broken.history.len() && broken.history.len() > 1 {
            let mut fewer = broken.history.clone();
            fewer.remove(at);
            match self.try_history(&fewer).await? {
                Some(Symptom::Differs(differences)) => {
                    broken.symptom = Symptom::Differs(differences);
                    broken.history = fewer;
                    at = 0;
                }
                Some(Symptom::Stuck(_)) => return Ok((broken, true)),
                None => at += 1,
            }
        }
        Ok((broken, false))
    }

    /// Sends a history under new ids, and compares the states of its orders. Returns `None` if they are as expected.
    async fn try_history(&mut self, messages: &[Message]) -> Result<Option<Symptom>, Error> {
        self.histories_sent += 1;
        let suffix = format!("{}-{}", self.nonce, self.histories_sent);
        let mut sent = Vec::with_capacity(messages.len());
        for message in messages {
            let renamed = message.renamed(&suffix);
            self.queue.send(&renamed.envelope()).await?;
            let handled = self.wait_until_empty().await?;
            sent.push(renamed);
            if let Err(waited) = handled {
                return Ok(Some(Symptom::Stuck(waited)));
            }
        }
        let expected = state::expected(&sent)?;
        let end = Instant::now() + self.limits.settled;
        let mut is_seen = false;
        loop {
            let mut differences = Vec::new();
            for (order, state) in &expected {
                let found = self.consumer.state(&order.provider, &order.shop, &order.id).await?;
                differences.extend(state::differences(order, state, &found));
            }
            if differences.is_empty() {
                // A consumer that still works on a message may change the state.
                if is_seen {
                    return Ok(None);
                }
                is_seen = true;
                sleep(self.queue.pace().confirmed_after).await;
                continue;
            }
            is_seen = false;
            if Instant::now() >= end {
                // The ids are those of the messages that the report shows.
                for difference in &mut differences {
                    difference.order = difference.order.replace(&format!("-{suffix}"), "");
                }
                return Ok(Some(Symptom::Differs(differences)));
            }
            sleep(EVERY).await;
        }
    }

    /// Waits until the queue is empty. The inner error is the time after which it was not.
    async fn wait_until_empty(&self) -> Result<Result<(), Duration>, Error> {
        let begun = Instant::now();
        let empty_for = self.queue.pace().empty_for;
        let (mut empty, mut empty_since) = (0, begun);
        loop {
            if self.queue.count().await? == 0 {
                if empty == 0 {
                    empty_since = Instant::now();
                }
                empty += 1;
                if empty >= EMPTY_TIMES && empty_since.elapsed() >= empty_for {
                    return Ok(Ok(()));
                }
            } else {
                empty = 0;
                if begun.elapsed() >= self.limits.handled {
                    return Ok(Err(begun.elapsed()));
                }
            }
            sleep(EVERY).await;
        }
    }
}

impl Report {
    /// Whether the consumer breaks no rule.
    pub fn is_passed(&self) -> bool {
        self.broken.is_empty()
    }

    /// The names of the broken rules.
    pub fn rules(&self) -> Vec<&'static str> {
        self.broken.iter().map(|broken| broken.rule.as_str()).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for broken in &self.broken {
            writeln!(formatter, "{broken}")?;
        }
        for rule in &self.unchecked {
            writeln!(formatter, "not checked: {}", rule.as_str())?;
        }
        write!(
            formatter,
            "{} histories passed, {} rules broken",
            self.passed,
            self.broken.len()
        )
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "! {}: {}", self.rule.as_str(), self.rule.text())?;
        writeln!(
            formatter,
            "  The smallest history that shows it, in the order of arrival:"
        )?;
        for message in &self.history {
            writeln!(formatter, "  - {message}")?;
        }
        match &self.symptom {
            Symptom::Stuck(waited) => writeln!(
                formatter,
                "  The last message was still in the queue after {:.0} s.",
                waited.as_secs_f64()
            ),
            Symptom::Differs(differences) => {
                for difference in differences {
                    writeln!(formatter, "  {difference}")?;
                }
                Ok(())
            }
        }
    }
}

/// A value as text, with null for an absent one.
fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "null".to_owned(), Value::to_string)
}
