//! The head of an event, as the table holds it.

use jiff::Timestamp;
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::{FIRST_REDRIVE_AFTER, Item, LEASE, StoreError, text};
use crate::answer::Reason;
use crate::event::Origin;
use crate::identity::{EventId, sha256_hex};
use crate::reconciliation::{Base, OrderVersion, Reconciled};

/// The state of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// Stored, and waiting in the outbox to be published.
    Pending,
    /// Published.
    Published,
    /// Not published, because SNS refused its message several times.
    Failed,
    /// Not understood, and kept for an operator.
    Quarantined,
    /// A known event that is not an order event.
    Unsupported,
    /// Stored again under another id.
    Superseded,
    /// A tombstone: the content is erased, and the id is kept so that a late repeat is still a duplicate.
    Erased,
}

impl State {
    /// The word for the state in the table.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the event still has to be processed. Such events are in the index `work`.
    pub(super) fn is_work(self) -> bool {
        matches!(self, Self::Pending | Self::Failed | Self::Quarantined)
    }
}

/// An event as it is in the table.
pub struct Head {
    /// The state of the event.
    pub state: State,
    /// The reason why the event is quarantined.
    pub reason: Option<Reason>,
    /// How often SNS has refused the event's message.
    pub attempts: u32,
    /// How often the event was put off after an error that SNS did not blame on its message.
    pub deferrals: u32,
    /// How many runs of redrive in a row have leased the event and ended without a result.
    pub leases: u32,
    pub(super) payload_sha256: String,
    pub(super) attempt_id: String,
    pub(super) next_attempt_at: Option<Timestamp>,
    pub(super) item: Item,
}

impl Head {
    pub(super) fn read(item: Item) -> Result<Self, StoreError> {
        let text = |name| text(&item, name);
        let count = |name: &str| {
            let count = item.get(name).and_then(|count| count.as_n().ok()?.parse().ok());
            count.unwrap_or(0)
        };
        Ok(Self {
            state: text("state")
                .and_then(|word| word.parse().ok())
                .ok_or(StoreError::Corrupt("state"))?,
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

    /// Whether the item holds an order event.
    pub fn has_event(&self) -> bool {
        ["event", "event_parts"]
            .iter()
            .any(|name| self.item.contains_key(*name))
    }

    /// The time at which the event was first received.
    pub fn received_at(&self) -> Option<Timestamp> {
        self.text("received_at")?.parse().ok()
    }

    /// How the delivery came about, unless the provider sent it.
    pub(super) fn reconciled(&self) -> Result<Option<Reconciled>, StoreError> {
        if self.text("origin") != Some(Origin::Reconciliation.as_str()) {
            return Ok(None);
        }
        let base = self.item.get("reconciled_from").map(|base| {
            let base = base.as_m().ok()?;
            let text = |name| text(base, name);
            Some(Base {
                id: EventId::stored(text("event_id")?),
                version: OrderVersion::parse(text("order_version")?)?,
            })
        });
        match base {
            Some(None) => Err(StoreError::Corrupt("reconciled_from")),
            base => Ok(Some(Reconciled { base: base.flatten() })),
        }
    }

    /// The operator's name for the shop.
    pub fn shop(&self) -> Option<&str> {
        self.text("shop")
    }

    /// The provider's slug.
    pub fn provider(&self) -> Option<&str> {
        self.text("provider")
    }

    /// The type of the event.
    pub fn event_type(&self) -> Option<&str> {
        self.text("type")
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        text(&self.item, name)
    }

    /// The SHA-256 of the stored body.
    pub fn payload_sha256(&self) -> &str {
        &self.payload_sha256
    }

    /// Whether an operator has dismissed the event.
    pub fn is_dismissed(&self) -> bool {
        self.text("dismissed_at").is_some()
    }

    /// Whether the item is a tombstone and its erasure is complete.
    pub fn is_erased_to_its_end(&self) -> bool {
        self.state == State::Erased
            && ["erasing", "order_key"]
                .iter()
                .all(|name| !self.item.contains_key(*name))
    }

    /// Whether an erasure of the item has begun and is not complete.
    pub fn is_being_erased(&self) -> bool {
        self.item.contains_key("erasing")
    }

    /// Whether the event was stored with this body.
    pub fn has_body(&self, body: &[u8]) -> bool {
        self.payload_sha256 == sha256_hex(body)
    }

    /// Whether the order event was stored with this JSON. Versions before this one did not store its SHA-256; their
    /// events are not compared.
    pub fn has_event_json(&self, sha256: &str) -> bool {
        self.text("event_sha256").is_none_or(|stored| stored == sha256)
    }

    /// Whether the event's next attempt is due.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.next_attempt_at.is_none_or(|next| next <= now)
    }

    /// The time until which the delivery that wrote the event last may still be publishing it.
    pub fn leased_until(&self) -> Option<Timestamp> {
        Some(self.next_attempt_at? - FIRST_REDRIVE_AFTER + LEASE)
    }

    /// Whether redrive has put the event off. From then on only redrive publishes it, at its own pace.
    pub fn is_put_off(&self) -> bool {
        self.attempts > 0 || self.deferrals > 0 || self.leases > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_from_its_word() {
        for state in State::VARIANTS {
            assert_eq!(state.as_str().parse(), Ok(*state));
        }
        assert!("Pending".parse::<State>().is_err());
    }
}
