//! How many pages a run has in hand at once.

use std::time::Duration;

use tokio::time::Instant;

/// How long no further page is begun after the first throttling; twice as long after each next one.
const PAUSE: Duration = Duration::from_millis(500);

/// Fewer pages at once, after a pause, each time a service asks for fewer calls.
pub(crate) struct Throttle {
    at_once: usize,
    slowed_at: Instant,
    pause: Duration,
    goes_on_at: Instant,
}

impl Throttle {
    /// Begins with `at_once` pages.
    pub(crate) fn new(at_once: usize) -> Self {
        let now = Instant::now();
        Self {
            at_once,
            slowed_at: now,
            pause: PAUSE,
            goes_on_at: now,
        }
    }

    /// Whether another page may be begun beside those in hand.
    pub(crate) fn admits_beside(&self, in_hand: usize) -> bool {
        in_hand < self.at_once && self.pauses_until().is_none()
    }

    /// When the pause ends, if there is one.
    pub(crate) fn pauses_until(&self) -> Option<Instant> {
        (Instant::now() < self.goes_on_at).then_some(self.goes_on_at)
    }

    /// Slows down after the throttling of a page that was begun at `begun`. False where a single page is still too much.
    pub(crate) fn slow_down(&mut self, begun: Instant) -> bool {
        // All pages that were in hand then see one and the same throttling.
        if begun < self.slowed_at {
            return true;
        }
        if self.at_once == 1 {
            return false;
        }
        self.at_once /= 2;
        self.slowed_at = Instant::now();
        self.goes_on_at = self.slowed_at + self.pause;
        self.pause *= 2;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_throttling_slows_down_once() {
        let mut throttle = Throttle::new(4);
        let before = Instant::now();
        assert!(throttle.slow_down(Instant::now()));
        assert!(throttle.slow_down(before), "a page that was in hand then");
        assert_eq!(throttle.at_once, 2);
        assert!(throttle.pauses_until().is_some() && !throttle.admits_beside(0));
        assert!(throttle.slow_down(Instant::now()));
        assert!(!throttle.slow_down(Instant::now()), "one page is too much");
    }
}
