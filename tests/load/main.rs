//! Tests that need the machine for themselves: random faults, a backlog, and the memory that a function needs.

mod backlog;
mod chaos;
mod memory;
mod reconciliation;

use tokio::sync::{Mutex, MutexGuard};

/// Waits until no other test of this binary runs.
async fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::const_new(());
    MACHINE.lock().await
}
