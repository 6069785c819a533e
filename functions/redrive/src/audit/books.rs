//! The books: how many items of each kind were received, by provider, shop and day, and a digest of them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use shared::digest::SetDigest;
use shared::store::{Head, Received, State};

/// The provider, the shop and the day in UTC to which a book belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    provider: String,
    shop: String,
    day: String,
}

impl Place {
    /// The place of an item that was received at `received_at`.
    pub(super) fn of(provider: &str, shop: Option<&str>, received_at: Timestamp) -> Self {
        Self {
            provider: provider.to_owned(),
            shop: shop.unwrap_or_default().to_owned(),
            day: received_at.to_zoned(TimeZone::UTC).date().to_string(),
        }
    }
}

/// The counts of one place.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Items that hold an order event, except conflicts.
    accepted: u64,
    published: u64,
    pending: u64,
    failed: u64,
    /// All other items.
    kept: u64,
    quarantined: u64,
    unsupported: u64,
    superseded: u64,
    erased: u64,
    conflicts: u64,
    /// Items that cannot be read, and are in no other count.
    unreadable: u64,
    digest: SetDigest,
}

impl Book {
    /// Counts an item. `event_sha256` is the hash of its event's JSON.
    pub(super) fn add(&mut self, key: &Received, head: &Head, event_sha256: &str) {
        let kind = key.conflict.as_ref().map_or("event", |_| "conflict");
        let line = format!("{kind} {} {} {event_sha256}", key.id, head.payload_sha256());
        self.digest.add(line.as_bytes());
        if key.conflict.is_some() {
            self.kept += 1;
            self.conflicts += 1;
            return;
        }
        if head.has_event() {
            self.accepted += 1;
        } else {
            self.kept += 1;
        }
        let count = match head.state {
            State::Published => &mut self.published,
            State::Pending => &mut self.pending,
            State::Failed => &mut self.failed,
            State::Quarantined => &mut self.quarantined,
            State::Unsupported => &mut self.unsupported,
            State::Superseded => &mut self.superseded,
            State::Erased => &mut self.erased,
        };
        *count += 1;
    }

    pub(super) fn add_unreadable(&mut self) {
        self.unreadable += 1;
    }

    /// The number of items.
    pub(super) fn received(&self) -> u64 {
        self.accepted + self.kept + self.unreadable
    }

    pub(super) fn to_json(&self, place: &Place) -> Value {
        json!({
            "provider": place.provider,
            "shop": place.shop,
            "day": place.day,
            "accepted": self.accepted,
            "published": self.published,
            "pending": self.pending,
            "failed": self.failed,
            "kept": self.kept,
            "quarantined": self.quarantined,
            "unsupported": self.unsupported,
            "superseded": self.superseded,
            "erased": self.erased,
            "conflicts": self.conflicts,
            "unreadable": self.unreadable,
            "digest": self.digest.to_string(),
        })
    }
}
