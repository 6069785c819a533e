//! Measures time in a process that Lambda freezes between deliveries.

use std::time::{Duration, Instant, SystemTime};

/// A point in time on two clocks.
///
/// The monotonic clock may stop while the process is frozen, and the wall clock may be set back at any time, so neither
/// is enough by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) steady: Instant,
    pub(crate) wall: SystemTime,
}

impl Moment {
    /// The current time.
    pub(crate) fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// The time since `earlier`, by the clock that shows more of it.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        self.steady.saturating_duration_since(earlier.steady).max(wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_shows_more_time_counts() {
        let earlier = Moment::now();
        let later = |steady, wall: SystemTime| Moment {
            steady: earlier.steady + Duration::from_secs(steady),
            wall,
        };
        let minute = Duration::from_mins(1);
        assert_eq!(later(1, earlier.wall + minute).since(earlier), minute, "frozen");
        assert_eq!(later(60, earlier.wall - minute).since(earlier), minute, "set back");
    }
}
