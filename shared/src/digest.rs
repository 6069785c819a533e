//! A digest of a set: the same for the same members, in whatever order and in however many runs they are added.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The sum, modulo 2^256, of the SHA-256 of each member.
///
/// A chain of hashes would depend on the order in which an index returns its entries, and could not be continued by
/// another process. The sum protects against accidents, and not against somebody who may write to the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetDigest([u8; 32]);

impl SetDigest {
    /// Adds a member.
    pub fn add(&mut self, member: &[u8]) {
        self.add_number(Sha256::digest(member).into());
    }

    /// Adds the digest of another set, which has no member in common with this one.
    pub fn add_set(&mut self, other: Self) {
        self.add_number(other.0);
    }

    fn add_number(&mut self, number: [u8; 32]) {
        let mut carry = false;
        for (sum, byte) in self.0.iter_mut().zip(number).rev() {
            let (added, is_over) = sum.overflowing_add(byte);
            let (with_carry, is_over_again) = added.overflowing_add(u8::from(carry));
            *sum = with_carry;
            carry = is_over || is_over_again;
        }
    }

    /// Reads 64 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        hex::decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for SetDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(members: &[&str]) -> SetDigest {
        let mut digest = SetDigest::default();
        for member in members {
            digest.add(member.as_bytes());
        }
        digest
    }

    #[test]
    fn the_order_of_the_members_does_not_matter() {
        assert_eq!(digest(&["a", "b", "c"]), digest(&["c", "a", "b"]));
        assert_ne!(digest(&["a", "b"]), digest(&["a", "c"]));
        assert_ne!(digest(&["a"]), digest(&["a", "a"]));
    }

    #[test]
    fn the_digests_of_parts_add_up_to_that_of_the_set() {
        let mut parts = digest(&["a", "b"]);
        parts.add_set(digest(&["c", "d"]));
        assert_eq!(parts, digest(&["a", "b", "c", "d"]));
    }

    #[test]
    fn a_sum_carries_over_all_bytes() {
        let mut sum = SetDigest([0xff; 32]);
        sum.add_number([0xff; 32]);
        let mut expected = [0xff; 32];
        expected[31] = 0xfe;
        assert_eq!(sum.0, expected);
    }

    #[test]
    fn a_digest_is_read_from_its_text() {
        let digest = digest(&["a"]);
        assert_eq!(SetDigest::parse(&digest.to_string()), Some(digest));
        for text in ["", "ab", &"g".repeat(64)] {
            assert_eq!(SetDigest::parse(text), None, "{text}");
        }
    }
}
