//! What is sent, and what the providers and the consumer know of it.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::Error;
use crate::project::settings::SHOP;
use crate::providers::generator::Orders;
use crate::providers::random::chance;
use crate::providers::samples::Fixture;

/// What happens.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many events are sent.
    pub events: usize,
    /// Where all chance comes from.
    pub seed: u64,
}

/// What takes a provider a minute takes this long here.
pub(super) const MINUTE: Duration = Duration::from_millis(10);
/// The shops of each provider.
pub(super) const SHOPS: [&str; 2] = [SHOP, "second"];

// Of ten thousand deliveries:
/// no order events, or not to be understood;
pub(super) const OTHERS: u64 = 800;
/// so large that they are kept in parts;
pub(super) const LARGE: u64 = 150;
/// what the one before was, at the other shop;
pub(super) const TWINS: u64 = 300;
/// sent with another body as well, once they are answered.
pub(super) const CONFLICTS: u64 = 400;

/// Letters that make an event too large for one item.
pub(super) const LARGE_BY: usize = 600_000;

/// How a provider sends again what was not answered 200.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retries {
    pub(super) tries: usize,
    pub(super) wait: Duration,
}

impl Retries {
    pub(super) fn of(provider: &str) -> Self {
        let (tries, minutes) = match provider {
            // About every ten minutes, ten times at most.
            "cartum" => (11, 10),
            // Hourly for 48 hours.
            "aboutyou" => (49, 60),
            // Five times at Deeple, "several" at Selldone; when is not documented. At Snipcart somebody resends by hand.
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

/// What is to become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is published.
    Order,
    /// The same; it is kept in parts.
    Large,
    /// It is kept only.
    Other,
    /// It has the id of another, which is an order, and is kept beside it; unless its id follows from its body.
    Conflict,
}

/// What a provider knows of an event in the end.
pub(super) struct Sent {
    pub(super) kind: Kind,
    pub(super) shop: &'static str,
    pub(super) body: [u8; 32],
    pub(super) deliveries: usize,
    /// What was said of it with 200: ids, and what became of them.
    pub(super) event_ids: BTreeSet<String>,
    pub(super) outcomes: BTreeSet<String>,
}

/// Which deliveries there are: all that is drawn follows from the seed and a delivery's number.
pub(super) struct Deliveries {
    pub(super) orders: Orders,
    pub(super) seed: u64,
}

impl Deliveries {
    /// The delivery number `index`: what it is, its shop, and the number that its content follows from.
    pub(super) fn what(&self, index: usize) -> (Kind, &'static str, usize) {
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
            return (kind, SHOPS[1 - shop], index - 1);
        }
        let (kind, shop) = of_its_own(index);
        (kind, SHOPS[shop], index)
    }

    pub(super) fn fixture(&self, kind: Kind, index: usize) -> Result<Fixture, Error> {
        match kind {
            Kind::Order | Kind::Conflict => self.orders.order(index),
            Kind::Large => self.orders.large_order(index, LARGE_BY),
            Kind::Other => self.orders.other(index),
        }
    }
}

/// What the queue's consumer knows of an event.
#[derive(Default)]
pub(super) struct Received {
    pub(super) messages: usize,
    /// Of the messages that leave nothing out.
    pub(super) texts: HashSet<[u8; 32]>,
}
