//! The folder in which a stack keeps its data over restarts.

use std::fs::{File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::Error;

/// The folder, locked for this process.
#[derive(Debug)]
pub struct Data {
    folder: PathBuf,
    _lock: File,
}

impl Data {
    /// Opens the folder, and creates it if it is missing: for this user alone, because orders hold personal data.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let wrong = |what: &str| Error::Start(format!("--data {}: {what}", folder.display()));
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(|error| wrong(&error.to_string()))?;
        let lock = File::create(folder.join("lock")).map_err(|error| wrong(&error.to_string()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                folder: folder.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => {
                Err(wrong("another `cargo local` has it open; give this one another folder"))
            }
            Err(TryLockError::Error(error)) => Err(wrong(&error.to_string())),
        }
    }

    /// The file of the table.
    pub fn table(&self) -> PathBuf {
        self.folder.join("table.sqlite")
    }

    /// The file of the deliveries.
    pub fn deliveries(&self) -> PathBuf {
        self.folder.join("deliveries.jsonl")
    }
}
