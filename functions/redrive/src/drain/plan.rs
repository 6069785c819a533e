//! Which pages of the outbox a run works on, and in which order.

use std::collections::VecDeque;
use std::ops::Range;

use shared::store::WorkCursor;

/// The number of single messages that a run tries, one after the other, before it takes the failure of all for an
/// outage.
const PROBES: u32 = 8;

/// How much of a page is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of its messages.
    Page,
    /// One of them, to find out whether the topic takes messages.
    Probe,
}

/// A page to publish.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) cursor: WorkCursor,
    pub(super) extent: Extent,
}

/// These shards, from a random one on: runs that end early must not always leave out the same shards.
pub(super) fn rotated(shards: Range<u8>) -> impl Iterator<Item = u8> {
    let first = fastrand::u8(shards.clone());
    (first..shards.end).chain(shards.start..first)
}

/// The pages that are left.
pub(super) struct Plan {
    next: VecDeque<Step>,
    /// Pages that wait until a first message is published.
    held_back: Vec<WorkCursor>,
    /// How many of the pages that are held back were probed.
    probed: usize,
    /// How many probes there were in all.
    probes: u32,
}

impl Plan {
    /// Plans these shards from their beginnings.
    pub(super) fn new(shards: Range<u8>) -> Self {
        let mut plan = Self {
            next: VecDeque::new(),
            held_back: Vec::new(),
            probed: 0,
            probes: 0,
        };
        for shard in rotated(shards) {
            plan.add(WorkCursor::at(shard));
        }
        plan
    }

    /// Takes the next page.
    pub(super) fn next(&mut self) -> Option<Step> {
        self.next.pop_front()
    }

    /// Whether there is a next page.
    pub(super) fn has_next(&self) -> bool {
        !self.next.is_empty()
    }

    /// Whether no page is left.
    pub(super) fn is_done(&self) -> bool {
        self.next.is_empty() && self.held_back.is_empty()
    }

    /// Adds a page.
    pub(super) fn add(&mut self, cursor: WorkCursor) {
        self.add_again(Step {
            cursor,
            extent: Extent::Page,
        });
    }

    /// Adds a page that was not finished.
    pub(super) fn add_again(&mut self, step: Step) {
        self.next.push_back(step);
    }

    /// Keeps pages until a message is published.
    pub(super) fn hold_back(&mut self, cursors: impl IntoIterator<Item = WorkCursor>) {
        self.held_back.extend(cursors);
    }

    /// Adds the pages that were held back if a message was published, or else a probe of one of them. Returns whether
    /// there is a next page.
    pub(super) fn resume(&mut self, has_published: bool) -> bool {
        if has_published {
            self.probed = 0;
            for cursor in std::mem::take(&mut self.held_back) {
                self.add(cursor);
            }
        } else if self.probes < PROBES
            && let Some(cursor) = self.held_back.get(self.probed).cloned()
        {
            self.probes += 1;
            self.probed += 1;
            self.add_again(Step {
                cursor,
                extent: Extent::Probe,
            });
        }
        self.has_next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_probed_a_few_times() {
        let mut plan = Plan::new(0..8);
        while let Some(step) = plan.next() {
            plan.hold_back([step.cursor.clone(), step.cursor]);
        }
        let mut probes = 0;
        while plan.resume(false) {
            assert_eq!(plan.next().map(|step| step.extent), Some(Extent::Probe));
            probes += 1;
        }
        assert_eq!(probes, PROBES);
        assert!(!plan.is_done());
    }

    #[test]
    fn held_back_pages_resume_once_a_message_is_published() {
        let mut plan = Plan::new(0..8);
        while plan.next().is_some() {}
        plan.hold_back([WorkCursor::at(3)]);
        assert!(plan.resume(true) && !plan.is_done());
        let step = plan.next().expect("a page");
        assert_eq!((step.cursor.shard(), step.extent), (3, Extent::Page));
        assert!(plan.is_done() && !plan.resume(true));
    }
}
