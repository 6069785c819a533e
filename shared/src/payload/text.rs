//! Unwraps a body to its text in UTF-8.
//!
//! Some senders wrap their JSON: a proxy compresses it, or an editor or a library writes a byte order mark before it.
//! Both are recognized by their first bytes, with which no JSON begins. Headers are not used: they may be wrong, and
//! are not stored.

use std::borrow::Cow;
use std::io::Read as _;

use flate2::bufread::MultiGzDecoder;

use super::NotJson;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const UTF_8_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// The text of a body: unpacked if it is gzip, and in UTF-8 without a byte order mark.
///
/// # Errors
/// If gzip cannot be unpacked, or unpacks to more than `limit` bytes. No more than that is ever in memory.
pub(super) fn unwrapped(body: &[u8], limit: usize) -> Result<Cow<'_, [u8]>, NotJson> {
    if !body.starts_with(&GZIP) {
        return Ok(without_mark(body.into()));
    }
    let mut unpacked = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = MultiGzDecoder::new(body).take(most).read_to_end(&mut unpacked);
    if unpacked.len() > limit {
        return Err(NotJson::TooLarge { limit });
    }
    read.map_err(|_| NotJson::CorruptGzip)?;
    Ok(without_mark(unpacked.into()))
}

fn without_mark(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match &*text {
        [0xff, 0xfe, utf_16 @ ..] => from_utf_16(utf_16, u16::from_le_bytes).into(),
        [0xfe, 0xff, utf_16 @ ..] => from_utf_16(utf_16, u16::from_be_bytes).into(),
        marked if marked.starts_with(&UTF_8_MARK) => match text {
            Cow::Borrowed(text) => text[UTF_8_MARK.len()..].into(),
            Cow::Owned(mut text) => {
                text.drain(..UTF_8_MARK.len());
                text.into()
            }
        },
        _ => text,
    }
}

/// Decodes UTF-16. Half of a surrogate pair becomes U+FFFD, as it does if JSON escapes it. So does a single byte at the
/// end.
fn from_utf_16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Vec<u8> {
    let (pairs, rest) = bytes.as_chunks();
    let text = char::decode_utf16(pairs.iter().copied().map(unit));
    let text = text.map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER));
    let end = (!rest.is_empty()).then_some(char::REPLACEMENT_CHARACTER);
    text.chain(end).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const TEXT: &str = r#"{"name":"Zoë 😀"}"#;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    fn marked(text: &[u8]) -> Vec<u8> {
        [&UTF_8_MARK[..], text].concat()
    }

    fn utf_16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        "\u{feff}"
            .encode_utf16()
            .chain(text.encode_utf16())
            .flat_map(bytes)
            .collect()
    }

    #[test]
    fn a_wrapped_text_is_unwrapped() {
        let plain = TEXT.as_bytes().to_vec();
        let (first, second) = plain.split_at(5);
        for body in [
            plain.clone(),
            marked(&plain),
            gzip(&plain),
            gzip(&marked(&plain)),
            [gzip(first), gzip(second)].concat(),
            utf_16(TEXT, u16::to_le_bytes),
            utf_16(TEXT, u16::to_be_bytes),
            gzip(&utf_16(TEXT, u16::to_le_bytes)),
        ] {
            assert_eq!(unwrapped(&body, 100).expect("text"), plain, "{body:?}");
        }
    }

    #[test]
    fn plain_text_is_not_copied() {
        for body in [
            TEXT.as_bytes(),
            b"",
            b"\x1f",
            b"\xef\xbb",
            b"\xff",
            &marked(TEXT.as_bytes()),
        ] {
            assert!(matches!(unwrapped(body, 0), Ok(Cow::Borrowed(_))), "{body:?}");
        }
    }

    #[test]
    fn corrupt_utf_16_is_read_with_replacement_characters() {
        let cut = [utf_16("a", u16::to_le_bytes), vec![0x3d, 0xd8, b'b', 0, b'c']].concat();
        assert_eq!(unwrapped(&cut, 0).expect("text"), "a\u{fffd}b\u{fffd}".as_bytes());
    }

    #[test]
    fn gzip_is_unpacked_up_to_the_limit() {
        let body = gzip(&[b' '; 1000]);
        assert_eq!(unwrapped(&body, 1000).expect("text").len(), 1000);
        assert!(matches!(unwrapped(&body, 999), Err(NotJson::TooLarge { limit: 999 })));
        // Compressed a thousand to one. Nothing over the limit is unpacked.
        let bomb = gzip(&vec![b' '; 20_000_000]);
        assert!(bomb.len() < 25_000);
        assert!(matches!(unwrapped(&bomb, 1000), Err(NotJson::TooLarge { limit: 1000 })));
    }

    #[test]
    fn corrupt_gzip_is_reported() {
        let body = gzip(TEXT.as_bytes());
        let mut flipped = body.clone();
        let at = body.len() - 6;
        flipped[at] ^= 1;
        for body in [
            &body[..2],
            &body[..12],
            &body[..body.len() - 1],
            &flipped,
            &[&body[..], b"more"].concat(),
        ] {
            assert!(matches!(unwrapped(body, 100), Err(NotJson::CorruptGzip)), "{body:?}");
        }
    }
}
