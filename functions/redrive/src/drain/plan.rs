//! Which pages of the outbox a run works on, and in which order.

use std::collections::VecDeque;
use std::ops::Range;

use shared::store::WorkCursor;

/// Single messages that are tried, one after the other, before a run takes it for an outage that nothing passes.
const LOOKS: u32 = 8;

/// How much of a page is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of its messages.
    Page,
    /// One of them, to find out whether the topic takes any.
    OneMessage,
}

/// A page to be worked on.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) cursor: WorkCursor,
    pub(crate) extent: Extent,
}

/// The pages that are still to be done.
pub(crate) struct Plan {
    next: VecDeque<Step>,
    /// Pages that wait for a first message to pass.
    held_back: Vec<WorkCursor>,
    /// How many of these a message was tried of.
    looked_at: usize,
    looks: u32,
}

impl Plan {
    /// These shards from their beginnings.
    pub(crate) fn new(shards: Range<u8>) -> Self {
        // What ends a run early, again and again, must not keep it from the same shards each time.
        let first = fastrand::u8(shards.clone());
        let mut plan = Self {
            next: VecDeque::new(),
            held_back: Vec::new(),
            looked_at: 0,
            looks: 0,
        };
        for shard in (first..shards.end).chain(shards.start..first) {
            plan.go_on_at(WorkCursor::at(shard));
        }
        plan
    }

    /// The next page.
    pub(crate) fn next(&mut self) -> Option<Step> {
        self.next.pop_front()
    }

    /// Whether there is a next page.
    pub(crate) fn has_next(&self) -> bool {
        !self.next.is_empty()
    }

    /// Whether nothing is left.
    pub(crate) fn is_done(&self) -> bool {
        self.next.is_empty() && self.held_back.is_empty()
    }

    /// Adds a page.
    pub(crate) fn go_on_at(&mut self, cursor: WorkCursor) {
        self.again(Step {
            cursor,
            extent: Extent::Page,
        });
    }

    /// Adds a page that was not done to its end.
    pub(crate) fn again(&mut self, step: Step) {
        self.next.push_back(step);
    }

    /// Keeps pages until a message has passed.
    pub(crate) fn hold_back(&mut self, places: impl IntoIterator<Item = WorkCursor>) {
        self.held_back.extend(places);
    }

    /// Adds what waited for a message to pass, if one `has_passed`; else one message, if it is worth a look. False where there is
    /// nothing to add.
    pub(crate) fn go_on(&mut self, has_passed: bool) -> bool {
        if has_passed {
            let waited = std::mem::take(&mut self.held_back);
            self.looked_at = 0;
            for cursor in waited {
                self.go_on_at(cursor);
            }
        } else if self.looks < LOOKS
            && let Some(cursor) = self.held_back.get(self.looked_at).cloned()
        {
            self.looks += 1;
            self.looked_at += 1;
            self.again(Step {
                cursor,
                extent: Extent::OneMessage,
            });
        }
        self.has_next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_looked_at_a_few_times() {
        let mut plan = Plan::new(0..8);
        while let Some(step) = plan.next() {
            plan.hold_back([step.cursor.clone(), step.cursor]);
        }
        let mut looks = 0;
        while plan.go_on(false) {
            assert_eq!(plan.next().map(|step| step.extent), Some(Extent::OneMessage));
            looks += 1;
        }
        assert_eq!(looks, LOOKS);
        assert!(!plan.is_done());
    }

    #[test]
    fn what_was_set_aside_goes_on_once_a_message_passes() {
        let mut plan = Plan::new(0..8);
        while plan.next().is_some() {}
        plan.hold_back([WorkCursor::at(3)]);
        assert!(plan.go_on(true) && !plan.is_done());
        let step = plan.next().expect("a page");
        assert_eq!((step.cursor.shard(), step.extent), (3, Extent::Page));
        assert!(plan.is_done() && !plan.go_on(true));
    }
}
