//! The histories of the orders: their states, when each begins, and whether and when its webhook arrives.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::super::model::{Plan, SHOPS};
use crate::Error;
use crate::project::settings::ORDER_APIS;
use crate::providers::lifecycle::{Life, State};
use crate::providers::random::{chance, draw};
use crate::providers::samples::{Catalogue, Fixture};

// In ten thousandths of the webhooks:
/// webhooks that never arrive;
const LOST: u64 = 500;
/// webhooks that arrive twice;
const TWICE: u64 = 500;
/// webhooks that arrive hours late.
const LATE: u64 = 1_000;

/// How long a provider is silent in the first phase, in minutes before its end.
const SILENCE: std::ops::Range<i64> = 40..220;

/// What happens to a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    OnTime,
    Twice,
    Lost,
    /// It arrives after the run of reconcile that follows the state it announces.
    Late,
}

/// A webhook, not signed yet.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    pub(super) fixture: Fixture,
    pub(super) shop: &'static str,
    pub(super) fate: Fate,
    /// Webhooks are sent in this order, which is not that of the states.
    pub(super) turn: u64,
}

/// An order that has begun in the first phase.
struct Open {
    index: usize,
    life: Life,
    state: State,
}

/// The histories of all orders.
pub(super) struct Histories<'a> {
    catalogue: &'a Catalogue,
    plan: Plan,
    next: usize,
    open: Vec<Open>,
    shops: BTreeSet<(&'static str, &'static str)>,
}

impl<'a> Histories<'a> {
    pub(super) fn new(catalogue: &'a Catalogue, plan: Plan) -> Self {
        Self {
            catalogue,
            plan,
            // An order has no number 0.
            next: 1,
            open: Vec::new(),
            shops: BTreeSet::new(),
        }
    }

    /// The provider that is silent for three hours.
    pub(super) fn silent(&self) -> &'static str {
        let number = draw(self.plan.seed, &["silent"]) % 4;
        ORDER_APIS[usize::try_from(number).unwrap_or_default()]
    }

    /// The shops that have orders.
    pub(super) fn shops(&self) -> BTreeSet<(&'static str, &'static str)> {
        self.shops.clone()
    }

    /// The webhooks of a phase that ends at `now`: two thirds in the first, the rest in the second.
    pub(super) fn phase(&mut self, phase: usize, now: Timestamp) -> Result<Vec<Webhook>, Error> {
        if phase == 0 { self.first(now) } else { self.second(now) }
    }

    fn draw(&self, what: &str, index: usize, below: u64) -> i64 {
        let drawn = draw(self.plan.seed, &[what, &index.to_string()]) % below;
        i64::try_from(drawn).unwrap_or_default()
    }

    fn place(&mut self, now: Timestamp, minutes: i64) -> Result<(usize, Life), Error> {
        let index = self.next;
        self.next += 1;
        let (provider, _) = self.place_of(index);
        let life = Life::new(self.catalogue, provider, index, self.plan.seed, before(now, minutes))?;
        Ok((index, life))
    }

    fn place_of(&self, index: usize) -> (&'static str, &'static str) {
        let pick = |what: &str, below: usize| {
            let drawn = self.draw(what, index, u64::try_from(below).unwrap_or(1));
            usize::try_from(drawn).unwrap_or_default()
        };
        (
            ORDER_APIS[pick("provider", ORDER_APIS.len())],
            SHOPS[pick("shop", SHOPS.len())],
        )
    }

    /// Orders that were placed up to four hours ago, a third of which was shipped since.
    fn first(&mut self, now: Timestamp) -> Result<Vec<Webhook>, Error> {
        let mut webhooks = Vec::new();
        while webhooks.len() < self.plan.events * 2 / 3 {
            let placed = 40 + self.draw("placed", self.next, 200);
            let (index, life) = self.place(now, placed)?;
            webhooks.push(self.webhook(index, &life, State::Placed, now, placed)?);
            let mut state = State::Placed;
            if self.draw("shipped", index, 3) == 0 {
                state = State::Shipped;
                let shipped = placed - 1 - self.draw("after", index, 9);
                webhooks.push(self.webhook(index, &life, state, now, shipped)?);
            }
            self.open.push(Open { index, life, state });
        }
        Ok(webhooks)
    }

    /// Changes and new orders since the first run of reconcile, which its successor still looks at.
    fn second(&mut self, now: Timestamp) -> Result<Vec<Webhook>, Error> {
        let mut webhooks = Vec::new();
        let open = std::mem::take(&mut self.open);
        for Open { index, life, state } in &open {
            if webhooks.len() >= self.plan.events / 4 {
                break;
            }
            if *state == State::Placed && self.draw("ship", *index, 2) == 0 {
                let at = 14 + self.draw("ship at", *index, 4);
                webhooks.push(self.webhook(*index, life, State::Shipped, now, at)?);
            }
            if self.draw("deliver", *index, 2) == 0 {
                let at = 9 + self.draw("deliver at", *index, 4);
                webhooks.push(self.webhook(*index, life, State::Delivered, now, at)?);
            }
        }
        while webhooks.len() < self.plan.events / 3 {
            let placed = 9 + self.draw("placed", self.next, 9);
            let (index, life) = self.place(now, placed)?;
            webhooks.push(self.webhook(index, &life, State::Placed, now, placed)?);
        }
        Ok(webhooks)
    }

    fn webhook(
        &mut self,
        index: usize,
        life: &Life,
        state: State,
        now: Timestamp,
        minutes: i64,
    ) -> Result<Webhook, Error> {
        let (provider, shop) = self.place_of(index);
        self.shops.insert((provider, shop));
        let number = format!("{index}-{state:?}");
        let drawn = |part: u64, what: &str| chance(part, self.plan.seed, &[what, &number]);
        // Cartum states no time of a change: a consumer takes a change that comes late for a new one, as without
        // reconciliation, until the next run.
        let may_be_late = provider != "cartum" || state == State::Placed;
        let is_first_phase = minutes > 30;
        let fate = if is_first_phase && provider == self.silent() && SILENCE.contains(&minutes) || drawn(LOST, "lost") {
            Fate::Lost
        } else if drawn(LATE, "late") && may_be_late {
            Fate::Late
        } else if drawn(TWICE, "twice") {
            Fate::Twice
        } else {
            Fate::OnTime
        };
        Ok(Webhook {
            fixture: life.webhook(state, before(now, minutes))?,
            shop,
            fate,
            turn: draw(self.plan.seed, &["turn", &number]),
        })
    }
}

/// Some minutes before `now`, in whole seconds, because Cartum states no fractions.
fn before(now: Timestamp, minutes: i64) -> Timestamp {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    now - SignedDuration::from_mins(minutes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::build::workspace;

    #[test]
    fn the_seed_decides_about_every_webhook() {
        let catalogue = Catalogue::read(workspace().join("events")).unwrap();
        let now = "2026-03-01T12:00:00Z".parse().unwrap();
        let drawn = |seed: u64| {
            let mut histories = Histories::new(&catalogue, Plan { events: 900, seed });
            let first = histories.phase(0, now).unwrap();
            let second = histories.phase(1, now).unwrap();
            assert!(first.len() >= 600 && second.len() >= 300);
            assert_eq!(histories.shops().len(), 8);
            let fates: Vec<Fate> = first.iter().chain(&second).map(|webhook| webhook.fate).collect();
            fates
        };
        let fates = drawn(1);
        assert_eq!(fates, drawn(1));
        assert_ne!(fates, drawn(2));
        let number = |fate: Fate| fates.iter().filter(|other| **other == fate).count();
        assert!(number(Fate::Lost) > 100, "a provider is silent");
        assert!(number(Fate::Late) > 40 && number(Fate::Twice) > 20);
    }
}
