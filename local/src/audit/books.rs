//! The books of a day, added up over the answers of the task.

use serde::{Deserialize, Serialize};
use shared::digest::SetDigest;

/// The provider, the shop and the day in UTC to which a book belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The provider's slug.
    pub provider: String,
    /// The operator's name for the shop.
    pub shop: String,
    /// The day, such as 2026-01-31.
    pub day: String,
}

/// The counts of one provider, shop and day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// The provider's slug.
    pub provider: String,
    /// The operator's name for the shop.
    pub shop: String,
    /// The day, such as 2026-01-31.
    pub day: String,
    /// Items that hold an order event.
    pub accepted: u64,
    /// Those of `accepted` that are published.
    pub published: u64,
    /// Those of `accepted` that wait in the outbox.
    pub pending: u64,
    /// Those of `accepted` that are not tried any more.
    pub failed: u64,
    /// All other items.
    pub kept: u64,
    /// Those of `kept` that were not understood.
    pub quarantined: u64,
    /// Those of `kept` that are no order events.
    pub unsupported: u64,
    /// Those of `kept` that are stored again under another id.
    pub superseded: u64,
    /// Those of `kept` whose content is erased.
    pub erased: u64,
    /// Those of `kept` that are other bodies of stored events.
    pub conflicts: u64,
    /// Items that cannot be read.
    pub unreadable: u64,
    /// A digest over the ids and hashes of the items.
    #[serde(with = "hex")]
    pub digest: SetDigest,
}

impl Book {
    /// Where the book belongs.
    pub fn place(&self) -> Place {
        Place {
            provider: self.provider.clone(),
            shop: self.shop.clone(),
            day: self.day.clone(),
        }
    }

    /// Whether the counts agree.
    pub fn is_balanced(&self) -> bool {
        self.accepted == self.published + self.pending + self.failed
            && self.kept == self.quarantined + self.unsupported + self.superseded + self.erased + self.conflicts
            && self.unreadable == 0
    }

    /// The number of items.
    pub fn received(&self) -> u64 {
        self.accepted + self.kept + self.unreadable
    }

    /// The counts with their names, in the order of the table.
    pub(super) fn counts(&self) -> [(&'static str, u64); 11] {
        [
            ("accepted", self.accepted),
            ("published", self.published),
            ("pending", self.pending),
            ("failed", self.failed),
            ("kept", self.kept),
            ("quarantined", self.quarantined),
            ("unsupported", self.unsupported),
            ("superseded", self.superseded),
            ("erased", self.erased),
            ("conflicts", self.conflicts),
            ("unreadable", self.unreadable),
        ]
    }

    /// Adds the counts of other items of the same place.
    pub(super) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.published += other.published;
        self.pending += other.pending;
        self.failed += other.failed;
        self.kept += other.kept;
        self.quarantined += other.quarantined;
        self.unsupported += other.unsupported;
        self.superseded += other.superseded;
        self.erased += other.erased;
        self.conflicts += other.conflicts;
        self.unreadable += other.unreadable;
        self.digest.add_set(other.digest);
    }
}

/// The digest as 64 hex digits.
mod hex {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use shared::digest::SetDigest;

    pub(super) fn serialize<S: Serializer>(digest: &SetDigest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SetDigest, D::Error> {
        let text = String::deserialize(deserializer)?;
        SetDigest::parse(&text).ok_or_else(|| D::Error::custom("a digest has 64 hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_digests_of_two_answers_add_up() {
        let book = |digest: &str| {
            let mut book = json!({"provider": "cartum", "shop": "main", "day": "2026-01-31", "digest": digest});
            for name in [
                "accepted",
                "published",
                "pending",
                "failed",
                "kept",
                "quarantined",
                "unsupported",
                "superseded",
                "erased",
                "conflicts",
                "unreadable",
            ] {
                book[name] = 1.into();
            }
            serde_json::from_value::<Book>(book)
        };
        let mut sum = book(&format!("{:064x}", 255)).expect("a book");
        sum.add(&book(&format!("{:064x}", 1)).expect("a book"));
        assert_eq!(
            serde_json::to_value(&sum).expect("JSON")["digest"],
            format!("{:064x}", 256)
        );
        assert!(book("ff").is_err());
    }
}
