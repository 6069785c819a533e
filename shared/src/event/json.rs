//! Writes an event as JSON that SQS accepts in a message.

use std::io::{self, Write};

use super::OrderEvent;

impl OrderEvent {
    /// The event as JSON text. The two characters that SQS rejects in a message are escaped.
    pub fn to_json(&self) -> String {
        self.to_json_within(usize::MAX).expect("there is room")
    }

    /// The same as [`Self::to_json`], if it takes at most `room` bytes. Writes no more than that to find out.
    pub(crate) fn to_json_within(&self, room: usize) -> Option<String> {
        let mut json = Within { text: Vec::new(), room };
        match self.write_json(&mut json) {
            Err(error) if error.is_io() => return None,
            written => written.expect("an event has string keys and finite numbers"),
        }
        Some(String::from_utf8(json.text).expect("JSON is UTF-8"))
    }

    /// Writes the same text as [`Self::to_json`] to `sink`.
    pub(crate) fn write_json(&self, sink: impl Write) -> serde_json::Result<()> {
        serde_json::to_writer(Escaping(sink), self)
    }
}

/// Writes `value` as JSON text that SQS accepts in a message, as [`OrderEvent::to_json`] does.
#[cfg(feature = "receiver")]
pub(crate) fn message_json(value: &impl serde::Serialize) -> String {
    let mut json = Vec::new();
    serde_json::to_writer(Escaping(&mut json), value).expect("the value has string keys and finite numbers");
    String::from_utf8(json).expect("JSON is UTF-8")
}

/// Escapes U+FFFE and U+FFFF. They occur only in strings, so replacing the text is safe, and `serde_json` never splits
/// a character between two writes.
struct Escaping<W>(W);

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some(at) = rest
            .windows(3)
            .position(|bytes| matches!(bytes, [0xef, 0xbf, 0xbe | 0xbf]))
        {
            self.0.write_all(&rest[..at])?;
            let escaped = if rest[at + 2] == 0xbe { b"\\ufffe" } else { b"\\uffff" };
            self.0.write_all(escaped)?;
            rest = &rest[at + 3..];
        }
        self.0.write_all(rest)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Text that grows up to `room` bytes and then fails.
struct Within {
    text: Vec<u8>,
    room: usize,
}

impl Write for Within {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.room - self.text.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
