//! An event as the table holds it.

use jiff::Timestamp;

use super::{FIRST_REDRIVE_AFTER, Item, LEASE, StoreError};
use crate::answer::Reason;
use crate::identity::sha256_hex;

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Stored, waiting in the outbox to be published.
    Pending,
    /// Published.
    Published,
    /// SNS refuses the message for good.
    Failed,
    /// Not understood.
    Quarantined,
    /// No order event.
    Unsupported,
    /// Stored again under another id.
    Superseded,
    /// A tombstone: its content is erased, and it is known never to happen again.
    Erased,
}

impl State {
    pub(super) const ALL: [Self; 7] = [
        Self::Pending,
        Self::Published,
        Self::Failed,
        Self::Quarantined,
        Self::Unsupported,
        Self::Superseded,
        Self::Erased,
    ];

    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Published => "published",
            Self::Failed => "failed",
            Self::Quarantined => "quarantined",
            Self::Unsupported => "unsupported",
            Self::Superseded => "superseded",
            Self::Erased => "erased",
        }
    }

    /// Whether somebody still has to do something about it: such events are in the index `work`.
    pub(super) fn is_work(self) -> bool {
        matches!(self, Self::Pending | Self::Failed | Self::Quarantined)
    }
}

/// An event as it stands in the table.
pub struct Head {
    /// Where it stands.
    pub state: State,
    /// Why it is quarantined.
    pub reason: Option<Reason>,
    /// How often SNS has blamed the event's message.
    pub attempts: u32,
    /// How often the event was put off for an error that SNS does not blame on its message.
    pub deferrals: u32,
    /// How often in a row a run of redrive has leased the event and not come back.
    pub leases: u32,
    pub(super) payload_sha256: String,
    pub(super) attempt_id: String,
    pub(super) next_attempt_at: Option<Timestamp>,
    pub(super) item: Item,
}

impl Head {
    pub(super) fn read(item: Item) -> Result<Self, StoreError> {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).map(String::as_str);
        let count = |name: &str| {
            let count = item.get(name).and_then(|count| count.as_n().ok()?.parse().ok());
            count.unwrap_or(0)
        };
        let state = text("state").and_then(|word| State::ALL.into_iter().find(|state| state.as_str() == word));
        Ok(Self {
            state: state.ok_or(StoreError::Corrupt("state"))?,
            reason: text("reason").and_then(Reason::from_word),
            attempts: count("attempts"),
            deferrals: count("deferrals"),
            leases: count("leases"),
            payload_sha256: text("payload_sha256")
                .ok_or(StoreError::Corrupt("payload_sha256"))?
                .to_owned(),
            attempt_id: text("attempt_id").ok_or(StoreError::Corrupt("attempt_id"))?.to_owned(),
            next_attempt_at: text("next_attempt_at").and_then(|time| time.parse().ok()),
            item,
        })
    }

    /// Whether an event came of it.
    pub fn has_event(&self) -> bool {
        ["event", "event_parts"]
            .iter()
            .any(|name| self.item.contains_key(*name))
    }

    /// When it was first received.
    pub fn received_at(&self) -> Option<Timestamp> {
        self.text("received_at")?.parse().ok()
    }

    /// The operator's name of the shop.
    pub fn shop(&self) -> Option<&str> {
        self.text("shop")
    }

    /// The provider's slug.
    pub fn provider(&self) -> Option<&str> {
        self.text("provider")
    }

    /// The event's type.
    pub fn event_type(&self) -> Option<&str> {
        self.text("type")
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.item.get(name)?.as_s().ok().map(String::as_str)
    }

    /// The hash of the body that it was stored with.
    pub fn payload_sha256(&self) -> &str {
        &self.payload_sha256
    }

    /// Whether somebody has dismissed it.
    pub fn is_dismissed(&self) -> bool {
        self.text("dismissed_at").is_some()
    }

    /// Whether it is a tombstone whose erasure has come to its end.
    pub fn is_erased_to_its_end(&self) -> bool {
        self.state == State::Erased
            && ["erasing", "order_key"]
                .iter()
                .all(|name| !self.item.contains_key(*name))
    }

    /// Whether an erasure of it has begun and has not come to its end.
    pub fn is_being_erased(&self) -> bool {
        self.item.contains_key("erasing")
    }

    /// Whether it was stored with this body.
    pub fn has_body(&self, body: &[u8]) -> bool {
        self.payload_sha256 == sha256_hex(body)
    }

    /// Whether its next attempt is due.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.next_attempt_at.is_none_or(|next| next <= now)
    }

    /// Until when the delivery that wrote it last may still be publishing it.
    pub fn leased_until(&self) -> Option<Timestamp> {
        Some(self.next_attempt_at? - FIRST_REDRIVE_AFTER + LEASE)
    }

    /// Whether redrive has put it off: redrive alone publishes it then, at its own pace.
    pub fn is_put_off(&self) -> bool {
        self.attempts > 0 || self.deferrals > 0 || self.leases > 0
    }
}
