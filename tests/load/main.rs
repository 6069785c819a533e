//! Tests that take the machine for themselves: random faults, a backlog, and the memory that a function needs.

mod backlog;
mod chaos;
mod memory;
