//! The rules that a consumer follows.

/// A rule. They are checked in this order, the most basic first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The consumer handles a plain order, and shows its state.
    Plain,
    /// Fields are added without notice.
    UnknownFields,
    /// An event counts once.
    Deduplication,
    /// A replay has its original id.
    Replay,
    /// The provider's clock decides, not the arrival.
    Ordering,
    /// A partial event removes nothing.
    Partial,
    /// A part that a message leaves out is not removed.
    Omitted,
    /// An order belongs to its shop.
    Shops,
    /// A test order is not a real one.
    TestOrders,
    /// An erased event is not replayed.
    Erased,
    /// All rules at once.
    Combined,
}

impl Rule {
    const ALL: [Self; 11] = [
        Self::Plain,
        Self::UnknownFields,
        Self::Deduplication,
        Self::Replay,
        Self::Ordering,
        Self::Partial,
        Self::Omitted,
        Self::Shops,
        Self::TestOrders,
        Self::Erased,
        Self::Combined,
    ];

    /// The name of the rule.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain order",
            Self::UnknownFields => "unknown fields",
            Self::Deduplication => "deduplication",
            Self::Replay => "replay",
            Self::Ordering => "ordering",
            Self::Partial => "partial",
            Self::Omitted => "omitted",
            Self::Shops => "shops",
            Self::TestOrders => "test orders",
            Self::Erased => "erased",
            Self::Combined => "combined",
        }
    }

    /// The rule in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Plain => "the state of an order whose events arrive once and in order is that of its events",
            Self::UnknownFields => "ignore fields that you do not know: within v1 fields are added without notice",
            Self::Deduplication => "deduplicate by `id`: an event may be published twice",
            Self::Replay => "a message with the attribute `replay` is the same event if its `id` is known",
            Self::Ordering => "order by `order.updated_at`, then by `time`, never by arrival",
            Self::Partial => "an event with `partial` states a part of the order: null means \"not stated\"",
            Self::Omitted => "what `omitted` names was left out of the message and is not removed from the order",
            Self::Shops => "an order id is unique within its `source` only: one provider and one shop",
            Self::TestOrders => "an event with `test` is no real order: ignore it, or show the order as a test",
            Self::Erased => "after an erasure, a replay lacks the erased event; keep what you know of it",
            Self::Combined => "the state is that of the set of events, in whatever order and however often they arrive",
        }
    }

    /// Whether this rule cannot be checked if `other` is broken.
    pub(super) fn depends_on(self, other: Self) -> bool {
        match self {
            Self::Plain => false,
            Self::Replay => matches!(other, Self::Plain | Self::Deduplication),
            Self::Erased => matches!(other, Self::Plain | Self::Deduplication | Self::Replay | Self::Ordering),
            Self::Combined => true,
            _ => other == Self::Plain,
        }
    }

    /// The rules that are checked after this one.
    pub(super) fn after(rule: Self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().skip_while(move |other| *other != rule).skip(1)
    }
}
