//! The whole system on one machine: `cargo local`, and the end-to-end tests, which use the same code.
//!
//! A [`stack::Stack`] is a gateway with `template.yaml`'s routes, the real function binaries as child processes on a Lambda
//! Runtime API, DynamoDB, SNS and SQS as wire protocols in memory, and a stand-in for Snipcart's validation call. Everything is
//! on 127.0.0.1. It shares no code with the functions: what passes between them is what passes on AWS.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod alerts;
pub mod backlog;
pub mod bench;
pub mod binaries;
mod capacity;
pub mod chaos;
pub mod client;
pub mod data;
mod draw;
pub mod endpoints;
pub mod environment;
pub mod event;
pub mod fixture;
pub mod gateway;
pub mod json_text;
pub mod lambda;
pub mod load;
pub mod log;
pub mod masking;
mod messages;
pub mod orders;
pub mod queue;
pub mod recorder;
pub mod runtime_api;
pub mod server;
pub mod settings;
pub mod signing;
pub mod snipcart;
pub mod stack;
pub mod store;
pub mod stored;
pub mod tap;
pub mod template;
pub mod view;
pub mod wire;

/// The local stack's region.
pub const REGION: &str = "us-east-1";
/// The local stack's account.
pub const ACCOUNT: &str = "000000000000";
/// What table, topic and queue are called.
pub const NAME: &str = "order-events";
/// The topic's ARN.
pub const TOPIC_ARN: &str = "arn:aws:sns:us-east-1:000000000000:order-events";

/// Lambda's limit for an event, and for what a function returns.
pub(crate) const LAMBDA_PAYLOAD_LIMIT: usize = 6_291_556;

/// What keeps the stack from starting, or a command from doing its work. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port cannot be taken.
    #[error(
        "port {port} cannot be used ({source}). Is `cargo local` running already? {flag} PORT takes another one, {flag} 0 any free one."
    )]
    Port {
        /// The port.
        port: u16,
        /// The flag that names another.
        flag: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// `template.yaml` cannot be served.
    #[error("the routes come from the template: {0}")]
    Template(String),
    /// The functions do not build.
    #[error("{0}")]
    Build(String),
    /// A function does not start.
    #[error("{name} {what}")]
    Function {
        /// The function.
        name: String,
        /// What happened, and what to do.
        what: String,
    },
    /// An endpoint does not start, or does not take its table, topic or queue.
    #[error("the local stack does not start: {0}")]
    Start(String),
    /// An event of `events/` is not there or cannot be used.
    #[error("{0}")]
    Fixture(String),
    /// A request got no answer.
    #[error("{0}")]
    Send(String),
    /// Something became of events that must not.
    #[error("{count} times something happened that must not; --seed {seed} draws the same faults again")]
    Violated {
        /// How often.
        count: usize,
        /// The run's seed.
        seed: u64,
    },
    /// The functions are too large, or take too much memory.
    #[error("what is deployed is over its bars: {0}")]
    Missed(String),
    /// A function did not do what it was invoked for.
    #[error("{function}: {what}")]
    Invoke {
        /// The function.
        function: String,
        /// What it says, or what became of it.
        what: String,
    },
}

impl Error {
    fn io(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |error| Self::Start(format!("{what}: {error}"))
    }
}

/// A poisoned lock is used all the same: what it guards is whole after every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
