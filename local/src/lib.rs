//! Runs the whole system on one machine, for `cargo local` and for the end-to-end tests.
//!
//! A [`stack::Stack`] is a gateway with the routes of `template.yaml`, the real function binaries as child processes on
//! a Lambda Runtime API, DynamoDB, SNS and SQS as wire protocols in memory, and a stand-in for Snipcart's validation
//! call. Everything listens on 127.0.0.1. The stack shares no code with the functions: they exchange what they would
//! exchange on AWS.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod audit;
pub mod aws;
pub mod bench;
pub mod chaos;
pub mod consumer_check;
pub mod dashboard;
pub mod gzip;
pub mod lambda;
pub mod net;
pub mod pretty_json;
pub mod project;
pub mod providers;
pub mod recorder;
pub mod stack;
pub mod stats;
pub mod terminal;
pub mod workloads;

/// The region of the local stack.
pub const REGION: &str = "us-east-1";
/// The account of the local stack.
pub const ACCOUNT: &str = "000000000000";
/// The name of the table, the topic and the queue.
pub const NAME: &str = "order-events";
/// The ARN of the topic.
pub const TOPIC_ARN: &str = "arn:aws:sns:us-east-1:000000000000:order-events";
/// The name of the alarm topic and of the queue that is subscribed to it.
pub const ALARMS: &str = "order-alarms";
/// The ARN of the alarm topic.
pub const ALARM_TOPIC_ARN: &str = "arn:aws:sns:us-east-1:000000000000:order-alarms";

/// Why the stack does not start, or why a command fails. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port cannot be taken.
    #[error(
        "port {port} cannot be used ({source}). Is `cargo local` running already? {flag} PORT selects another port, {flag} 0 any free port."
    )]
    Port {
        /// The port.
        port: u16,
        /// The flag that selects another port.
        flag: &'static str,
        /// The error of the system.
        source: std::io::Error,
    },
    /// `template.yaml` cannot be served.
    #[error("the template cannot be served: {0}")]
    Template(String),
    /// The functions do not build.
    #[error("{0}")]
    Build(String),
    /// A function does not start.
    #[error("{name} {what}")]
    Function {
        /// The name of the function.
        name: String,
        /// What happened, and what to do.
        what: String,
    },
    /// An endpoint does not start, or its table, topic or queue cannot be created.
    #[error("the local stack does not start: {0}")]
    Start(String),
    /// An event of `events/` is missing or unusable.
    #[error("{0}")]
    Fixture(String),
    /// A request was not answered.
    #[error("{0}")]
    Send(String),
    /// A run violated the guarantees of the system.
    #[error("{count} invariant violations; --seed {seed} injects the same faults again")]
    Violated {
        /// The number of violations.
        count: usize,
        /// The seed of the run.
        seed: u64,
    },
    /// The books of an audit do not balance.
    #[error("the books do not balance: {faults} faults")]
    Unbalanced {
        /// The number of faults.
        faults: usize,
    },
    /// A consumer breaks rules.
    #[error("the consumer breaks these rules: {0}")]
    RulesBroken(String),
    /// The functions exceed a limit for size or memory.
    #[error("figures miss their bars: {0}")]
    Missed(String),
    /// A function failed.
    #[error("{function}: {what}")]
    Invoke {
        /// The name of the function.
        function: String,
        /// The error of the function, or how it ended.
        what: String,
    },
}

impl Error {
    fn io(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |error| Self::Start(format!("{what}: {error}"))
    }
}

/// A poisoned lock is still used: each step leaves the guarded value consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
