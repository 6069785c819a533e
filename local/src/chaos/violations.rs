//! What a run of chaos finds wrong.

/// The number of violations that are described; all are counted.
const SHOWN: usize = 20;

/// The violations of the system's guarantees in a run.
#[derive(Debug, Default)]
pub struct Violations {
    /// Descriptions of the first violations.
    pub described: Vec<String>,
    /// The number of all violations.
    pub count: usize,
}

impl Violations {
    pub(super) fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.described.len() < SHOWN {
            self.described.push(what());
        }
    }
}
