//! What does not jitter: the size of a binary and its zip, and how many instructions it runs.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::aws::Aws;
use super::process::{Target, fault};
use crate::Error;

/// A zip's own part for one file called `bootstrap`: its two headers and the end.
const ZIP_HEADERS: u64 = 30 + 46 + 22 + 2 * 9;
/// How many events the instructions of one are drawn from.
const EVENTS: u64 = 40;

/// A binary's size, and that of the zip which `sam deploy` makes of it, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// The binary.
    pub binary: u64,
    /// Its zip.
    pub zip: u64,
}

/// The sizes of a binary. The zip is made as `sam` makes it: deflate, at its usual level.
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

/// How many instructions a process runs, as valgrind counts them.
#[derive(Debug, Clone, Copy)]
pub struct Instructions {
    /// From its start to its first answer.
    pub start: u64,
    /// For one event after that.
    pub event: u64,
}

/// Counts them; `None` where valgrind is not installed.
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
    // `==123== Collected : 4567`
    let count = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.ok_or_else(|| fault(&target.name, format!("was not counted by valgrind: {said}")))
}
