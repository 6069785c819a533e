//! What is sent, and what the providers and the consumer know about it.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::Error;
use crate::project::settings::SHOP;
use crate::providers::generator::Orders;
use crate::providers::random::chance;
use crate::providers::samples::Fixture;

/// What a run sends.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The number of events.
    pub events: usize,
    /// The seed of all random choices.
    pub seed: u64,
}

/// The scaled length of one minute of a provider's retry interval.
pub(super) const MINUTE: Duration = Duration::from_millis(10);
/// The shops of each provider.
pub(super) const SHOPS: [&str; 2] = [SHOP, "second"];

// In ten thousandths of the deliveries:
/// deliveries that are unsupported or not understood;
pub(super) const OTHERS: u64 = 800;
/// deliveries that are stored in parts because they are large;
pub(super) const LARGE: u64 = 150;
/// deliveries that repeat the one before at the other shop;
pub(super) const TWINS: u64 = 300;
/// deliveries that are sent again with another body once they are answered.
pub(super) const CONFLICTS: u64 = 400;

/// The number of letters that makes an event too large for one item.
pub(super) const LARGE_BY: usize = 600_000;

/// How often and how soon a provider repeats a delivery that was not answered 200.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retries {
    pub(super) tries: usize,
    pub(super) wait: Duration,
}

impl Retries {
    pub(super) fn of(provider: &str) -> Self {
        let (tries, minutes) = match provider {
            // About every ten minutes, at most ten times.
            "cartum" => (11, 10),
            // Hourly for 48 hours.
            "aboutyou" => (49, 60),
            // Deeple repeats five times, Selldone "several" times; neither documents when. Snipcart is resent by a
            // person.
            _ => (6, 10),
        };
        Self {
            tries,
            wait: MINUTE * minutes,
        }
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// What is expected of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The event is published.
    Order,
    /// The event is published, and stored in parts.
    Large,
    /// The event is only stored.
    Other,
    /// The event has the id of an order event, and is stored as its conflict; unless its id follows from its body.
    Conflict,
}

/// What a provider knows about an event in the end.
pub(super) struct Sent {
    pub(super) kind: Kind,
    pub(super) shop: &'static str,
    pub(super) body: [u8; 32],
    pub(super) deliveries: usize,
    /// The ids and outcomes of the answers 200.
    pub(super) event_ids: BTreeSet<String>,
    pub(super) outcomes: BTreeSet<String>,
}

/// A delivery of a run.
pub(super) struct Drawn {
    pub(super) kind: Kind,
    pub(super) shop: &'static str,
    /// The number that the content follows from.
    pub(super) content: usize,
}

/// All deliveries of a run. They follow from the seed and the number of each delivery.
pub(super) struct Deliveries {
    pub(super) orders: Orders,
    pub(super) seed: u64,
}

impl Deliveries {
    /// The delivery number `index`.
    pub(super) fn delivery(&self, index: usize) -> Drawn {
        let is_twin = |index: usize| index > 0 && chance(TWINS, self.seed, &["twin", &index.to_string()]);
        let of_its_own = |index: usize| {
            let number = index.to_string();
            let kind = if chance(OTHERS, self.seed, &["other", &number]) {
                Kind::Other
            } else if chance(LARGE, self.seed, &["large", &number]) {
                Kind::Large
            } else {
                Kind::Order
            };
            (kind, usize::from(chance(5_000, self.seed, &["shop", &number])))
        };
        if is_twin(index) && !is_twin(index - 1) {
            let (kind, shop) = of_its_own(index - 1);
            return Drawn {
                kind,
                shop: SHOPS[1 - shop],
                content: index - 1,
            };
        }
        let (kind, shop) = of_its_own(index);
        Drawn {
            kind,
            shop: SHOPS[shop],
            content: index,
        }
    }

    pub(super) fn fixture(&self, kind: Kind, index: usize) -> Result<Fixture, Error> {
        match kind {
            Kind::Order | Kind::Conflict => self.orders.order(index),
            Kind::Large => self.orders.large_order(index, LARGE_BY),
            Kind::Other => self.orders.other(index),
        }
    }
}

/// What the consumer of the queue knows about an event.
#[derive(Default)]
pub(super) struct Received {
    pub(super) messages: usize,
    /// The hashes of the messages that omit nothing.
    pub(super) texts: HashSet<[u8; 32]>,
}
