//! The compression of large values: gzip files (RFC 1952) without name and time, so that equal values give equal bytes.

use std::cell::Cell;
use std::io::{self, Read as _, Write};

use flate2::read::GzDecoder;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use sha2::{Digest as _, Sha256};

use crate::event::OrderEvent;
use crate::publisher::MessageLimit;

thread_local! {
    /// Kept, because creating a compressor takes several times as long as compressing an order.
    static DEFLATE: Cell<Option<Compress>> = const { Cell::new(None) };
}

/// The JSON of an event, written once: compressed, as it is stored, and as text only if the text is small enough for a
/// message.
pub struct EventJson {
    compressed: Vec<u8>,
    sha256: String,
    text: Option<String>,
}

impl EventJson {
    /// Writes `event`. Never holds more of its text in memory than a message of `limit` takes.
    pub fn of(event: &OrderEvent, limit: MessageLimit) -> Self {
        let mut writing = Writing {
            text: Vec::new(),
            gzip: None,
            hash: Sha256::new(),
            limit: limit.bytes(),
        };
        event
            .write_json(&mut writing)
            .expect("an event has string keys and finite numbers, and memory takes them");
        let Writing {
            text, gzip, mut hash, ..
        } = writing;
        let fits = gzip.is_none();
        hash.update(&text);
        Self {
            compressed: gzip.unwrap_or_else(Gzip::new).finish(&text),
            sha256: hex::encode(hash.finalize()),
            text: fits.then(|| String::from_utf8(text).expect("JSON is UTF-8")),
        }
    }

    /// The compressed JSON, as it is stored.
    pub(super) fn compressed(&self) -> &[u8] {
        &self.compressed
    }

    /// The SHA-256 of the JSON.
    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The text, if it is small enough for a message.
    pub fn into_text(self) -> Option<String> {
        self.text
    }
}

/// The text so far or, once it is too large for a message, the part that is not compressed yet.
struct Writing {
    text: Vec<u8>,
    gzip: Option<Gzip>,
    /// The hash of what `gzip` has got.
    hash: Sha256,
    limit: usize,
}

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > self.limit {
            let gzip = self.gzip.get_or_insert_with(Gzip::new);
            gzip.add(&self.text);
            self.hash.update(&self.text);
            self.text.clear();
            if bytes.len() > self.limit {
                gzip.add(bytes);
                self.hash.update(bytes);
                return Ok(bytes.len());
            }
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decompresses a gzip file.
pub(super) fn gunzip(file: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Compresses `bytes` to a gzip file.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    Gzip::new().finish(bytes)
}

/// A gzip file that is being written. Not flate2's encoder, which cannot keep its compressor for the next file.
struct Gzip {
    file: Vec<u8>,
    deflate: Compress,
    crc: Crc,
}

impl Gzip {
    fn new() -> Self {
        const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];
        let mut deflate = DEFLATE
            .take()
            .unwrap_or_else(|| Compress::new(Compression::fast(), false));
        deflate.reset();
        Self {
            file: HEADER.to_vec(),
            deflate,
            crc: Crc::new(),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.compress(bytes, FlushCompress::None);
    }

    fn finish(mut self, bytes: &[u8]) -> Vec<u8> {
        self.compress(bytes, FlushCompress::Finish);
        self.file.extend_from_slice(&self.crc.sum().to_le_bytes());
        self.file.extend_from_slice(&self.crc.amount().to_le_bytes());
        self.file.shrink_to_fit();
        DEFLATE.set(Some(self.deflate));
        self.file
    }

    fn compress(&mut self, bytes: &[u8], flush: FlushCompress) {
        self.crc.update(bytes);
        // A small reserve, because `compress_vec` fills all of it with zeros first.
        self.file.reserve_exact(bytes.len() / 4 + 64);
        let mut rest = bytes;
        loop {
            let before = self.deflate.total_in();
            let status = self.deflate.compress_vec(rest, &mut self.file, flush);
            let read = usize::try_from(self.deflate.total_in() - before).expect("a body has a few MB");
            rest = &rest[read..];
            match (status.expect("compressing to memory does not fail"), flush) {
                (Status::StreamEnd, _) => break,
                (Status::Ok | Status::BufError, FlushCompress::None) if rest.is_empty() => break,
                (Status::Ok | Status::BufError, _) => self.file.reserve(self.file.len()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Order;
    use crate::event::tests::sample;
    use crate::identity::sha256_hex;

    fn unzipped(file: &[u8]) -> Vec<u8> {
        gunzip(file).expect("a gzip file")
    }

    #[test]
    fn a_compressed_value_is_read_back_unchanged() {
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(700_000).collect();
        let repetitive = br#"{"id":"1906","quantity":1}"#.repeat(10_000);
        for bytes in [b"".as_slice(), b"{}", &noise, &repetitive, b"{}", &noise] {
            let file = gzip(bytes);
            assert!(unzipped(&file) == bytes, "{} bytes", bytes.len());
            assert_eq!(file, gzip(bytes));
        }
        // A file that was abandoned leaves nothing behind.
        Gzip::new().add(b"abandoned");
        assert!(unzipped(&gzip(&repetitive)) == repetitive);
    }

    #[test]
    fn an_event_is_kept_as_text_only_if_it_fits_into_a_message() {
        let limit = MessageLimit::default().bytes();
        let text = |letters| "x\u{ffff}".repeat(letters);
        for (note, id) in [
            (text(0), text(7)),
            (text(30_000), text(7)),
            (text(100_000), text(7)),
            (text(1_000), text(700_000)),
            (text(limit), text(limit)),
            // One field over the limit.
            ("x".repeat(limit + 1), text(7)),
            (text(7), "x".repeat(limit)),
        ] {
            let lengths = (note.len(), id.len());
            let event = sample(Order {
                id: Some(id),
                note: Some(note),
                ..Order::default()
            });
            let json = EventJson::of(&event, MessageLimit::default());
            let expected = event.to_json();
            assert!(unzipped(json.compressed()) == expected.as_bytes(), "{lengths:?}");
            assert_eq!(json.sha256(), sha256_hex(expected.as_bytes()), "{lengths:?}");
            let may_be_a_message = expected.len() <= limit;
            assert_eq!(json.into_text(), may_be_a_message.then_some(expected));
        }
    }
}
