//! Figures that are the same in each run: the size of a binary and of its zip, and the number of instructions that it
//! runs.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::aws::Aws;
use super::process::{Target, fault};
use crate::Error;

/// The overhead of a zip with one file called `bootstrap`: two headers and the end.
const ZIP_HEADERS: u64 = 30 + 46 + 22 + 2 * 9;
/// The number of events that the instructions of one event are averaged over.
const EVENTS: u64 = 40;

/// The size of a binary, and of the zip that `sam deploy` makes of it, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// The size of the binary.
    pub binary: u64,
    /// The size of the zip.
    pub zip: u64,
}

/// Measures a binary. The zip is made like `sam` makes it: deflate at its default level.
pub fn of(binary: &Path) -> Result<Size, Error> {
    let failed = |error: std::io::Error| Error::Start(format!("{} cannot be read: {error}", binary.display()));
    let bytes = std::fs::read(binary).map_err(failed)?;
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    let zipped = encoder
        .write_all(&bytes)
        .and_then(|()| encoder.finish())
        .map_err(failed)?;
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Ok(Size {
        binary: length(&bytes),
        zip: length(&zipped) + ZIP_HEADERS,
    })
}

/// The number of instructions that a process runs, as counted by valgrind.
#[derive(Debug, Clone, Copy)]
pub struct Instructions {
    /// From the start to the first answer.
    pub start: u64,
    /// For one later event.
    pub event: u64,
}

/// Counts the instructions; `None` if valgrind is not installed.
pub async fn instructions(target: &Target) -> Result<Option<Instructions>, Error> {
    let installed = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !installed.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let aws = Aws::start(None).await?;
    let start = counted(target, &aws, 1).await?;
    let more = counted(target, &aws, 1 + EVENTS).await?;
    Ok(Some(Instructions {
        start,
        event: more.saturating_sub(start) / EVENTS,
    }))
}

async fn counted(target: &Target, aws: &Aws, events: u64) -> Result<u64, Error> {
    let wrapper = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"].map(str::to_owned);
    let mut process = target.start(aws, &wrapper).await?;
    for _ in 0..events {
        process.invoke(&target.event).await?;
    }
    let said = process.close().await?;
    // The line `==123== Collected : 4567`.
    let count = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.ok_or_else(|| fault(&target.name, format!("was not counted by valgrind: {said}")))
}
