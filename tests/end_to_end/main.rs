//! Deliveries, failures and the tasks of `redrive` over real HTTP, with the real binaries.

mod alerts;
mod audit;
mod authentication;
mod conflicts;
mod connections;
mod consumer_check;
mod crash_recovery;
mod deliveries;
mod erasure;
mod large_orders;
mod log_privacy;
mod malformed_requests;
mod operator;
mod order_state;
mod outages;
mod permissions;
mod published_state;
mod reconciliation;
mod reconciliation_log;
mod redrive;
mod redrive_tasks;
mod refused_messages;
mod reprocess;
mod retention;
mod secrets;
mod telemetry;
