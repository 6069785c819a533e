//! Workloads for a stack of its own: a steady load, and a backlog in the outbox.

pub mod backlog;
pub mod load;
