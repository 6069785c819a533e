//! Values that are stored compressed.

use std::io::{self, Read as _};

use flate2::read::GzDecoder;

/// More bytes than the largest stored value unpacks to.
const MOST: u64 = 32 * 1024 * 1024;

/// Unpacks a stored value.
pub fn unpack(compressed: &[u8]) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    GzDecoder::new(compressed).take(MOST).read_to_end(&mut value)?;
    Ok(value)
}
