//! Random numbers that follow from a seed and words alone, and not from the order in which they are drawn, which a
//! generator with a state cannot do.

use uuid::Uuid;

/// A number that follows from the seed and these words.
pub(crate) fn draw(seed: u64, words: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in words.iter().flat_map(|word| word.bytes().chain([0xff])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    mix(hash)
}

/// The last steps of splitmix64, because the high bits of FNV are poor.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

/// One of `items`; `None` if there are none.
pub(crate) fn one_of<'a, T>(items: &'a [T], seed: u64, words: &[&str]) -> Option<&'a T> {
    let length = u64::try_from(items.len()).ok().filter(|length| *length > 0)?;
    items.get(usize::try_from(draw(seed, words) % length).ok()?)
}

/// Returns true with a probability of `ten_thousandths`.
pub(crate) fn chance(ten_thousandths: u64, seed: u64, words: &[&str]) -> bool {
    draw(seed, words) % 10_000 < ten_thousandths
}

/// A different identity for each index. A number that is made of it is unique too.
pub(crate) fn identity(index: usize, seed: u64) -> Uuid {
    Uuid::from_u64_pair((index as u64) << 34 | seed & 0xffff, draw(seed, &[&index.to_string()]))
}

/// Letters that hardly compress, different for each word.
pub(crate) fn noise(length: usize, seed: u64, word: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let start = draw(seed, &["noise", word]);
    let mut text = String::with_capacity(length + 10);
    for step in 0.. {
        if text.len() >= length {
            break;
        }
        let mut bits = mix(start.wrapping_add(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(step)));
        for _ in 0..10 {
            text.push(char::from(LETTERS[usize::try_from(bits % 64).unwrap_or_default()]));
            bits /= 64;
        }
    }
    text.truncate(length);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_follows_from_the_seed_and_the_words() {
        assert_eq!(draw(1, &["a", "b"]), draw(1, &["a", "b"]));
        assert_ne!(draw(1, &["a", "b"]), draw(2, &["a", "b"]));
        assert_ne!(draw(1, &["a", "b"]), draw(1, &["ab"]));
        assert_ne!(noise(100, 1, "a"), noise(100, 1, "b"));
        assert_eq!(noise(101, 1, "a").len(), 101);
        assert_eq!(one_of::<u8>(&[], 1, &[]), None);
    }
}
