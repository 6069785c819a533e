//! `cargo local load`: sends new orders at a steady rate, however long earlier ones take (an open loop).
//!
//! The time of a delivery runs from when it was due, and not from when it was sent. If it had to wait for another
//! delivery or for this machine, the wait counts, so there is no coordinated omission.

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

/// The number of requests under way at once, each on its own connection. Waiting for one counts.
const CONNECTIONS: usize = 400;
/// The number of requests that are prepared in advance, so that preparing one does not delay it.
const AHEAD: usize = 64;
/// If less than this part of the rate is reached, the machine did not keep up.
const KEPT_UP: f64 = 0.98;
/// A request that is sent later than this after it was due is late.
const LATE: Duration = Duration::from_millis(10);

/// What a run sends.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The deliveries a second.
    pub rate: f64,
    /// The duration of the run.
    pub duration: Duration,
}

impl Plan {
    /// The number of deliveries; at least one.
    pub fn deliveries(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "both are positive and bounded by the command line"
        )]
        let count = (self.rate * self.duration.as_secs_f64()) as usize;
        count.max(1)
    }

    /// When a delivery is due, counted from the start.
    fn time_of(&self, index: usize) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "far from 2^52")]
        let seconds = index as f64 / self.rate;
        Duration::from_secs_f64(seconds)
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// What was sent.
    pub plan: Plan,
    /// The deliveries by their answer.
    pub answers: BTreeMap<String, usize>,
    /// The time of each delivery, from when it was due until it was answered.
    pub times: Vec<Duration>,
    /// The longest delay of a delivery after it was due.
    pub latest: Duration,
    /// The number of deliveries that were sent over 10 ms late.
    pub late: usize,
    /// The time from the first delivery to the last answer.
    pub took: Duration,
    /// The events that were stored and not published at once.
    pub waiting: usize,
}

impl Report {
    /// The number of deliveries.
    pub fn deliveries(&self) -> usize {
        self.answers.values().sum()
    }

    /// The deliveries that were not accepted, although each was a new order.
    pub fn errors(&self) -> usize {
        self.deliveries() - self.answers.get("200 accepted").copied().unwrap_or_default()
    }

    /// The answers a second.
    pub fn reached(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far from 2^52")]
        let deliveries = self.deliveries() as f64;
        // The time of the last delivery does not count.
        deliveries / self.took.max(self.plan.duration).as_secs_f64()
    }

    /// Whether the deliveries were sent and answered at the planned rate.
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

    /// The result as JSON: times in milliseconds, rates per second.
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

/// A prepared request, and when it is due.
struct Ready {
    request: Request<Bytes>,
    at: Duration,
}

/// The answer to a delivery, and its times.
struct Answered {
    answer: String,
    sent_late: Duration,
    time: Duration,
}

/// Sends the deliveries and measures their times. `progress` is called after each answer.
pub async fn run(
    stack: &Stack,
    orders: Orders,
    plan: Plan,
    progress: impl Fn() + Send + Sync + Clone + 'static,
) -> Result<Report, Error> {
    // Each function has a running environment, as on a stack that is in use. Others start when they are needed.
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

/// Prepares the requests in order, until all are prepared or nobody receives them.
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

/// The status of the answer and what it says, or why there is no answer.
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
    fn a_delivery_is_due_at_its_time() {
        let plan = Plan {
            rate: 40.0,
            duration: Duration::from_secs(2),
        };
        assert_eq!(plan.deliveries(), 80);
        assert_eq!(plan.time_of(0), Duration::ZERO);
        assert_eq!(plan.time_of(60), Duration::from_millis(1500));
    }

    #[test]
    fn a_machine_that_falls_behind_is_reported() {
        assert!(report(1000, Duration::from_millis(10_050), 0).kept_up());
        assert!(
            !report(1000, Duration::from_secs(13), 0).kept_up(),
            "answered too slowly"
        );
        assert!(!report(1000, Duration::from_secs(10), 11).kept_up(), "sent too late");
        assert_eq!(report(1000, Duration::from_secs(10), 0).errors(), 1);
    }
}
