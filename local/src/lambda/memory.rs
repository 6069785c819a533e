//! The memory of a process.

/// The resident memory of a process in KiB, as the kernel counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The memory now.
    pub now: u64,
    /// The most memory that the process has had.
    pub peak: u64,
}

/// Reads the memory of the process `pid`; `None` if there is no such process, or no `/proc`.
pub fn of(pid: u32) -> Option<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    Some(Memory {
        now: kib("VmRSS:")?,
        peak: kib("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_read_from_proc() {
        if cfg!(target_os = "linux") {
            let memory = of(std::process::id()).expect("this process");
            assert!(memory.now > 100 && memory.peak >= memory.now, "{memory:?}");
        }
        assert_eq!(of(u32::MAX), None);
    }
}
