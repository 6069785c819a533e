//! Where the stack says what happens: on the terminal, or in memory for a test that may want to show it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::lock;

/// The stack's log.
#[derive(Debug, Clone)]
pub enum Log {
    /// Deliveries on standard output, the rest on standard error.
    Terminal {
        /// Whether the functions' own lines are shown.
        functions: Functions,
    },
    /// Everything, in order.
    Memory(Arc<Mutex<Vec<String>>>),
}

/// What is done with the functions' own lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Functions {
    /// They are shown, each with the function's name.
    Shown,
    /// They are left out.
    Quiet,
}

impl Log {
    /// A log in memory.
    pub fn memory() -> Self {
        Self::Memory(Arc::default())
    }

    /// One delivery. The path comes without its query, which may hold a token.
    pub fn delivery(&self, method: &str, path: &str, status: u16, duration: Duration) {
        let line = format!("{method} {path} {status} {} ms", duration.as_millis());
        match self {
            Self::Terminal { .. } => {
                let _ = writeln!(std::io::stdout().lock(), "{line}");
            }
            Self::Memory(lines) => lock(lines).push(line),
        }
    }

    /// A line that a function wrote.
    pub fn function(&self, name: &str, line: &str) {
        let line = format!("[{name}] {line}");
        match self {
            Self::Terminal {
                functions: Functions::Quiet,
            } => {}
            Self::Terminal {
                functions: Functions::Shown,
            } => {
                let _ = writeln!(std::io::stderr().lock(), "{line}");
            }
            Self::Memory(lines) => lock(lines).push(line),
        }
    }

    /// Something that the developer has to know.
    pub fn notice(&self, line: &str) {
        match self {
            Self::Terminal { .. } => {
                let _ = writeln!(std::io::stderr().lock(), "! {line}");
            }
            Self::Memory(lines) => lock(lines).push(format!("! {line}")),
        }
    }

    /// The lines so far; none from a terminal.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Terminal { .. } => Vec::new(),
            Self::Memory(lines) => lock(lines).clone(),
        }
    }
}
