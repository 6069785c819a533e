//! AWS Lambda: execution environments, the Runtime API that they ask for events, and the API that invokes functions.

pub mod environment;
pub mod invoke_api;
pub mod memory;
pub mod processor_time;
pub mod runtime_api;

/// Lambda's limit for an event, and for what a function returns.
pub(crate) const PAYLOAD_LIMIT: usize = 6_291_556;
