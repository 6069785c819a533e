//! One suite that every [`Provider`](shared::Provider) passes.

mod field_coverage;
mod golden;
mod malformed_payloads;
