//! The processor time of a process.

use std::fs;
use std::time::Duration;

/// Reads the processor time of all threads of the process `pid` so far; `None` if there is no such process, or no
/// `/proc`.
pub fn of(pid: u32) -> Option<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let nanoseconds = tasks.filter_map(|task| {
        let schedstat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    });
    Some(Duration::from_nanos(nanoseconds.sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_time_of_a_process_is_read_from_proc() {
        if cfg!(target_os = "linux") {
            assert!(of(std::process::id()).expect("this process") > Duration::ZERO);
        }
        assert_eq!(of(u32::MAX), None);
    }
}
