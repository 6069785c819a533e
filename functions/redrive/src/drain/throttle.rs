//! How many pages a run has in hand at once.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How long no page is begun after the first throttling. Each next pause is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// Halves the pages in hand, after a pause, each time a service throttles.
pub(super) struct Throttle {
    at_once: usize,
    slowed_at: Instant,
    pause: Duration,
    paused_until: Instant,
}

impl Throttle {
    /// Begins with `at_once` pages.
    pub(super) fn new(at_once: usize) -> Self {
        let now = Instant::now();
        Self {
            at_once,
            slowed_at: now,
            pause: PAUSE,
            paused_until: now,
        }
    }

    /// Whether another page may be begun while `in_hand` pages are.
    pub(super) fn admits(&self, in_hand: usize) -> bool {
        in_hand < self.at_once && Instant::now() >= self.paused_until
    }

    /// Waits until the pause is over. Returns false at once if it is not over before `stop_at`.
    pub(super) async fn wait(&self, stop_at: Instant) -> bool {
        let ends_in_time = self.paused_until < stop_at;
        if ends_in_time {
            sleep_until(self.paused_until).await;
        }
        ends_in_time
    }

    /// Slows down after a page that was begun at `begun` was throttled. Returns false if a single page is still too
    /// much.
    pub(super) fn slow_down(&mut self, begun: Instant) -> bool {
        // The pages that were in hand then all met the same throttling.
        if begun < self.slowed_at {
            return true;
        }
        if self.at_once == 1 {
            return false;
        }
        self.at_once /= 2;
        self.slowed_at = Instant::now();
        self.paused_until = self.slowed_at + self.pause;
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
        assert!(!throttle.admits(0), "it pauses");
        assert!(throttle.slow_down(Instant::now()));
        assert!(!throttle.slow_down(Instant::now()), "one page is too much");
    }
}
