//! The AWS endpoints of the local stack, the clients for them, and faults on the calls to them.

mod capacity;
pub mod clients;
pub mod endpoints;
pub mod faults;
mod outbox;
mod protocol;
pub mod queue;
mod reconciliation;
mod sns_sqs;
pub mod stored_events;
pub mod table;
