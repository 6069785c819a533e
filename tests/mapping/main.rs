//! What the code makes of a payload, and what the documents say about it. Most of these tests start no process.

mod contract;
mod field_coverage;
mod generated_orders;
mod golden;
mod malformed_payloads;
mod schema;
