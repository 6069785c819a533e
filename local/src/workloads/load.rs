//! `cargo local load`: new orders at a steady rate, whatever becomes of those before: an open loop.
//!
//! A delivery's time runs from when it was to be sent, and not from when it was: one that had to wait, for another or for
//! this machine, counts that wait (no coordinated omission).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::Error;
use crate::net::client::Client;
use crate::project::answer::Answer;
use crate::providers::generator::Orders;
use crate::providers::signing::{Credentials, sign};
use crate::stack::Stack;
use crate::stats::quantile;

/// Requests on their way at once, each a connection. What waits for one of them counts its wait.
const CONNECTIONS: usize = 400;
/// Requests that are made ahead of their time, so that making one delays none.
const AHEAD: usize = 64;
/// Less than this part of the rate reached: the machine did not keep up.
const KEPT_UP: f64 = 0.98;
/// A request that leaves later than this was not sent at its time.
const LATE: Duration = Duration::from_millis(10);

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Deliveries a second.
    pub rate: f64,
    /// For how long.
    pub duration: Duration,
}

impl Plan {
    /// How many deliveries that makes; one at least.
    pub fn deliveries(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "both are positive and bounded by the command line"
        )]
        let count = (self.rate * self.duration.as_secs_f64()) as usize;
        count.max(1)
    }

    /// When a delivery is to be sent, from the beginning.
    fn time_of(&self, index: usize) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "far from 2^52")]
        let seconds = index as f64 / self.rate;
        Duration::from_secs_f64(seconds)
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// What was sent.
    pub plan: Plan,
    /// Deliveries by what was answered.
    pub answers: BTreeMap<String, usize>,
    /// From when each was to be sent until it was answered.
    pub times: Vec<Duration>,
    /// How much later than it was to be the last was sent of those that were late most.
    pub latest: Duration,
    /// Deliveries that were sent over 10 ms late.
    pub late: usize,
    /// From the first delivery's time to the last answer.
    pub took: Duration,
    /// Events that were stored and not published at once.
    pub waiting: usize,
}

impl Report {
    /// All of them.
    pub fn deliveries(&self) -> usize {
        self.answers.values().sum()
    }

    /// Those that were not answered 200 and `accepted`: each was a new order.
    pub fn errors(&self) -> usize {
        self.deliveries() - self.answers.get("200 accepted").copied().unwrap_or_default()
    }

    /// Answers a second.
    pub fn reached(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far from 2^52")]
        let deliveries = self.deliveries() as f64;
        // The last one's own time is no part of the rate.
        deliveries / self.took.max(self.plan.duration).as_secs_f64()
    }

    /// Whether the deliveries could be sent and answered as fast as they were to be.
    pub fn kept_up(&self) -> bool {
        self.reached() >= self.plan.rate.min(self.reached_at_best()) * KEPT_UP && self.late * 100 <= self.deliveries()
    }

    /// A whole number of deliveries does not always fill the time.
    fn reached_at_best(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far from 2^52")]
        let deliveries = self.deliveries() as f64;
        deliveries / self.plan.duration.as_secs_f64()
    }

    fn milliseconds(&self, fraction: f64) -> f64 {
        quantile(self.times.clone(), fraction).unwrap_or_default().as_secs_f64() * 1000.0
    }

    /// For other programs: times in milliseconds, rates per second.
    pub fn to_json(&self) -> Value {
        json!({
            "rate": self.plan.rate,
            "seconds": self.plan.duration.as_secs_f64(),
            "deliveries": self.deliveries(),
            "reached": self.reached(),
            "kept_up": self.kept_up(),
            "answers": self.answers,
            "errors": self.errors(),
            "p50_ms": self.milliseconds(0.5),
            "p99_ms": self.milliseconds(0.99),
            "p99_9_ms": self.milliseconds(0.999),
            "max_ms": self.milliseconds(1.0),
            "sent_late": self.late,
            "latest_ms": self.latest.as_secs_f64() * 1000.0,
            "waiting_in_the_outbox": self.waiting,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(formatter, "| {name} | {value} |");
        row("deliveries", &self.deliveries())?;
        row(
            "reached",
            &format!("{:.1} of {} a second", self.reached(), self.plan.rate),
        )?;
        for (answer, count) in &self.answers {
            row(&format!("- answered {answer}"), count)?;
        }
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            row(name, &format!("{:.1} ms", self.milliseconds(quantile)))?;
        }
        row("errors", &self.errors())?;
        row("stored, and published later", &self.waiting)
    }
}

/// A request that is ready, and when it is to be sent.
struct Ready {
    request: Request<Bytes>,
    at: Duration,
}

/// What became of one.
struct Answered {
    answer: String,
    sent_late: Duration,
    time: Duration,
}

/// Sends, and measures. `progress` is told of each answer.
pub async fn run(
    stack: &Stack,
    orders: Orders,
    plan: Plan,
    progress: impl Fn() + Send + Sync + Clone + 'static,
) -> Result<Report, Error> {
    // An environment of each function is there, as on a stack that is in use; the others start when they are needed.
    stack.warm().await;
    let url = stack.url();
    let client = Client::new(&url)?;
    let (made, mut ready) = mpsc::channel(AHEAD);
    let maker = tokio::spawn(make(orders, plan, url, made));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut sends = JoinSet::new();
    let mut answered = Vec::with_capacity(plan.deliveries());
    let begun = Instant::now();
    while let Some(Ready { request, at }) = ready.recv().await {
        let due = begun + at;
        tokio::time::sleep_until(due.into()).await;
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            break;
        };
        let (client, progress) = (client.clone(), progress.clone());
        sends.spawn(async move {
            let sent_late = due.elapsed();
            let answer = outcome(&client.send(request).await);
            let time = due.elapsed();
            drop(permit);
            progress();
            Answered {
                answer,
                sent_late,
                time,
            }
        });
        while let Some(done) = sends.try_join_next() {
            answered.push(done.map_err(|error| Error::Send(error.to_string()))?);
        }
    }
    answered.extend(sends.join_all().await);
    let took = begun.elapsed();
    maker.await.map_err(|error| Error::Send(error.to_string()))??;

    let mut report = Report {
        plan,
        answers: BTreeMap::new(),
        times: Vec::with_capacity(answered.len()),
        latest: Duration::ZERO,
        late: 0,
        took,
        waiting: stack.clients().pending().await?,
    };
    for one in answered {
        *report.answers.entry(one.answer).or_default() += 1;
        report.times.push(one.time);
        report.late += usize::from(one.sent_late > LATE);
        report.latest = report.latest.max(one.sent_late);
    }
    Ok(report)
}

/// Makes the requests, in their order, until all are made or nobody wants them.
async fn make(orders: Orders, plan: Plan, url: String, made: mpsc::Sender<Ready>) -> Result<(), Error> {
    for index in 0..plan.deliveries() {
        let mut fixture = orders.order(index)?;
        sign(&mut fixture, &Credentials::default(), Timestamp::now())?;
        let request = fixture.to_request(&url)?;
        let at = plan.time_of(index);
        if made.send(Ready { request, at }).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The answer's status and what it says, else why there is none.
pub fn outcome(answer: &Result<Response<Bytes>, Error>) -> String {
    match answer {
        Ok(answer) => Answer::read(answer).summary(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(count: usize, took: Duration, late: usize) -> Report {
        Report {
            plan: Plan {
                rate: 100.0,
                duration: Duration::from_secs(10),
            },
            answers: BTreeMap::from([("200 accepted".to_owned(), count - 1), ("503 busy".to_owned(), 1)]),
            times: Vec::new(),
            latest: Duration::ZERO,
            late,
            took,
            waiting: 0,
        }
    }

    #[test]
    fn a_delivery_has_its_time_whatever_became_of_those_before() {
        let plan = Plan {
            rate: 40.0,
            duration: Duration::from_secs(2),
        };
        assert_eq!(plan.deliveries(), 80);
        assert_eq!(plan.time_of(0), Duration::ZERO);
        assert_eq!(plan.time_of(60), Duration::from_millis(1500));
    }

    #[test]
    fn a_machine_that_falls_behind_is_said_to() {
        assert!(report(1000, Duration::from_millis(10_050), 0).kept_up());
        assert!(
            !report(1000, Duration::from_secs(13), 0).kept_up(),
            "answered too slowly"
        );
        assert!(!report(1000, Duration::from_secs(10), 11).kept_up(), "sent too late");
        assert_eq!(report(1000, Duration::from_secs(10), 0).errors(), 1);
    }
}
