//! The processes of a stack end with it.

use std::fs;
use std::time::{Duration, Instant};

use tests::providers::PROVIDERS;

use crate::up::Up;

/// One for each provider, redrive and reconcile.
const FUNCTIONS: usize = PROVIDERS.len() + 2;

/// The processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter(|process| parent_of(*process) == Some(parent))
        .collect()
}

/// After the name, which may hold anything, come the state and the parent.
fn parent_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // A zombie has ended.
    (state != "Z").then_some(parent)
}

async fn until_gone(processes: &[u32]) {
    let begun = Instant::now();
    while processes.iter().any(|process| parent_of(*process).is_some()) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{processes:?} are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn ctrl_c_and_kill_end_all_children() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let mut up = Up::start().await;
        let children = children(up.id());
        assert_eq!(children.len(), FUNCTIONS, "one process for each function");
        up.signal(signal).await;
        assert!(up.process.wait().await.expect("the process ends").success(), "{signal}");
        until_gone(&children).await;
    }
}

#[tokio::test]
async fn children_end_when_the_stack_is_killed() {
    let mut up = Up::start().await;
    let children = children(up.id());
    assert_eq!(children.len(), FUNCTIONS);
    up.process.kill().await.expect("the process is killed");
    until_gone(&children).await;
}
