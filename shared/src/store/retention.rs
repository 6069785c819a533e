//! How long events are kept, and how expired events are removed.
//!
//! The head of an event that may expire has `work` = `expiring#{shard}`, and its `next_attempt_at` is the time of
//! expiry. A quarantined event is in the index `work` anyway and needs no mark. Expiry leaves a tombstone, as an
//! erasure does. Only tombstones have the table's TTL attribute, `expires_at`, so DynamoDB never deletes a head whose
//! parts still exist.

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};

use super::event_items::sortable;
use super::{Change, Condition, ErasedBy, Head, Item, State, Store, StoreError, WorkCursor, item_key};
use crate::identity::EventId;
use crate::settings::{SettingError, Settings};

/// The kind of events that may expire in the index `work`.
pub(super) const EXPIRING: &str = "expiring";

/// The notice before a new value of `UNPUBLISHED_RETENTION_DAYS` takes effect, and the time before its expiry in which
/// a quarantined event counts as expiring.
pub(super) const NOTICE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How often redrive records that a retention is still set, and the gap in these records after which its notice begins
/// again.
const NOTE_EVERY: SignedDuration = SignedDuration::from_hours(24);
const FORGET_AFTER: SignedDuration = SignedDuration::from_hours(2 * 24);

/// Tombstones must outlive the longest retry window of a provider, which is 48 hours.
const LEAST_DEDUPLICATION_DAYS: u16 = 3;
const DEFAULT_DEDUPLICATION_DAYS: u16 = 30;

/// How long events and tombstones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// For published and superseded events; `None`: for ever.
    orders: Option<SignedDuration>,
    /// For quarantined and unsupported events; `None`: for ever.
    unpublished: Option<SignedDuration>,
    /// For tombstones.
    deduplication: SignedDuration,
}

impl Retention {
    /// Reads `ORDER_RETENTION_DAYS` and `UNPUBLISHED_RETENTION_DAYS` (default 0: for ever), and `DEDUPLICATION_DAYS`.
    pub(super) fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        const NAME: &str = "DEDUPLICATION_DAYS";
        const EXPECTED: &str = "a whole number of days from 3 to 65535";
        let days = |count: u16| SignedDuration::from_hours(24 * i64::from(count));
        let kept = |name| {
            let count = settings.parsed(name, 0_u16, "a whole number of days, at most 65535")?;
            Ok((count > 0).then(|| days(count)))
        };
        let deduplication = settings.parsed(NAME, DEFAULT_DEDUPLICATION_DAYS, EXPECTED)?;
        if deduplication < LEAST_DEDUPLICATION_DAYS {
            return Err(SettingError::Invalid {
                name: NAME,
                expected: EXPECTED,
            });
        }
        Ok(Self {
            orders: kept("ORDER_RETENTION_DAYS")?,
            unpublished: kept("UNPUBLISHED_RETENTION_DAYS")?,
            deduplication: days(deduplication),
        })
    }

    /// Whether any event expires.
    fn is_on(&self) -> bool {
        self.orders.is_some() || self.unpublished.is_some()
    }

    /// How long an event in `state` is kept; `None`: for ever.
    fn of(&self, state: State) -> Option<SignedDuration> {
        match state {
            State::Published | State::Superseded => self.orders,
            State::Unsupported | State::Quarantined => self.unpublished,
            State::Pending | State::Failed | State::Erased => None,
        }
    }

    /// The time at which an event expires that has been in `state` since `since`; `None`: never.
    fn expiry(&self, state: State, since: Timestamp) -> Option<Timestamp> {
        since.checked_add(self.of(state)?).ok()
    }

    /// The time at which an event expires by the current settings; `None`: never.
    fn expiry_of(&self, head: &Head) -> Option<Timestamp> {
        let time = |name| head.text(name)?.parse::<Timestamp>().ok();
        let since = match head.state {
            State::Published => time("published_at"),
            State::Unsupported => time("dismissed_at"),
            _ => None,
        };
        self.expiry(head.state, since.or_else(|| head.received_at())?)
    }

    /// The time from which DynamoDB may delete a tombstone made at `now`; `None` if nothing expires.
    pub(super) fn end_of_tombstone(&self, now: Timestamp) -> Option<Timestamp> {
        let end = now.checked_add(self.deduplication).ok()?;
        self.is_on().then_some(end)
    }

    /// Marks a new head that may expire. A quarantined one is in the index already.
    pub(super) fn mark_new(&self, head: &mut Item, id: &EventId, state: State, received_at: Timestamp) {
        if state == State::Unsupported
            && let Some(expiry) = self.expiry(state, received_at)
        {
            head.insert("work".to_owned(), AttributeValue::S(work_key(id)));
            head.insert("next_attempt_at".to_owned(), AttributeValue::S(sortable(expiry)));
        }
    }

    /// Lets an event that changes to `state` leave the index `work`, or stay there as an event that expires. `since` is
    /// the time from which its retention counts.
    pub(super) fn leave_work(&self, change: Change, state: State, id: &EventId, since: Timestamp) -> Change {
        self.leave_work_until(change, state, id, since, since)
    }

    /// The same as [`Self::leave_work`], for an event that expires no earlier than `earliest`.
    pub(super) fn leave_work_until(
        &self,
        change: Change,
        state: State,
        id: &EventId,
        since: Timestamp,
        earliest: Timestamp,
    ) -> Change {
        match self.expiry(state, since) {
            Some(expiry) => change
                .set("work", work_key(id).as_str())
                .set("next_attempt_at", &expiry.max(earliest)),
            None => change.remove(&["work", "next_attempt_at"]),
        }
    }
}

fn work_key(id: &EventId) -> String {
    format!("{EXPIRING}#{}", id.shard())
}

/// Whether an item is a tombstone that DynamoDB may delete. It counts as gone.
pub(super) fn is_expired_tombstone(item: &Item, now: Timestamp) -> bool {
    let ends_at = item
        .get("expires_at")
        .and_then(|end| end.as_n().ok()?.parse::<i64>().ok());
    ends_at.is_some_and(|end| end <= now.as_second())
}

/// Where an expired event is found in the index `work`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiring {
    /// Among the events that were marked when they left the outbox, or when they were written.
    Marked,
    /// Among the quarantined events.
    Quarantined,
}

/// The result of removing an event that was due to expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trimmed {
    /// The content is removed.
    Removed,
    /// The event is kept: the settings have changed since it was marked, or somebody else has changed it.
    Kept,
}

/// The result of [`Store::retain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retained {
    /// The event expires at another time than before, or did not expire before.
    Marked,
    /// The event no longer expires.
    Unmarked,
    /// Nothing has changed.
    Unchanged,
}

/// Decides which events have expired at a time. Expired events count as gone, although redrive may not have removed
/// them yet.
pub struct Expiry {
    retention: Retention,
    now: Timestamp,
    /// Quarantined events that were received up to this time have expired.
    quarantined_until: Option<Timestamp>,
}

impl Expiry {
    /// Whether an event has expired, by its mark and by the current settings.
    pub fn has_expired(&self, head: &Head) -> bool {
        let is_past = |time: Option<Timestamp>| time.is_some_and(|time| time <= self.now);
        match head.state {
            State::Published | State::Superseded | State::Unsupported => {
                is_past(head.next_attempt_at) && is_past(self.retention.expiry_of(head))
            }
            State::Quarantined => {
                let received_at = head.received_at();
                let until = self.quarantined_until;
                until.is_some_and(|until| received_at.is_some_and(|received_at| received_at <= until))
            }
            State::Pending | State::Failed | State::Erased => false,
        }
    }
}

impl Store {
    /// Whether an event has expired at `now`. A quarantined event counts as kept until it is removed, because only
    /// [`Store::expiry`] reads whether its retention is in force.
    pub fn has_expired(&self, head: &Head, now: Timestamp) -> bool {
        let expiry = Expiry {
            retention: self.retention,
            now,
            quarantined_until: None,
        };
        expiry.has_expired(head)
    }

    /// Reads which events have expired at `now`.
    pub async fn expiry(&self, now: Timestamp) -> Result<Expiry, StoreError> {
        Ok(Expiry {
            retention: self.retention,
            now,
            quarantined_until: self.quarantined_until(now).await?,
        })
    }

    /// The time of receipt up to which quarantined events have expired; `None` if none has.
    ///
    /// A retention takes effect a week after redrive has first seen it, so that no quarantined event expires less than
    /// a week after it was first counted as expiring. While the retention is off, nothing records it as seen, and later
    /// its week begins again.
    async fn quarantined_until(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let Some(retention) = self.retention.unpublished else {
            return Ok(None);
        };
        let key = item_key("redrive", "unpublished_retention");
        let known = self.get_by_key(key.clone()).await?.unwrap_or_default();
        let days = AttributeValue::N((retention.as_hours() / 24).to_string());
        // A new value begins a new week.
        let known = Some(known)
            .filter(|known| known.get("days") == Some(&days))
            .unwrap_or_default();
        let time = |value: &AttributeValue| value.as_s().ok()?.parse::<Timestamp>().ok();
        let since = known.get("since").and_then(time);
        // A version that does not record `seen` has left `since` as it was.
        let seen = known.get("seen").and_then(time).or(since);
        let is_older = |age| seen.is_none_or(|seen| now.duration_since(seen) > age);
        let since = since.filter(|_| !is_older(FORGET_AFTER)).unwrap_or(now);
        if is_older(NOTE_EVERY) {
            let item = key.into_iter().chain([
                ("days".to_owned(), days),
                ("since".to_owned(), AttributeValue::S(sortable(since))),
                ("seen".to_owned(), AttributeValue::S(sortable(now))),
            ]);
            let put = self.client.put_item().table_name(&self.table);
            put.set_item(Some(item.collect())).send().await?;
        }
        let is_announced = since.checked_add(NOTICE).is_ok_and(|from| from <= now);
        Ok(is_announced.then(|| now.checked_sub(retention).ok()).flatten())
    }

    /// Lists events that may have expired: at most `limit` from `cursor` on. Returns the position after them too, if
    /// there are more.
    pub async fn due_to_expire(
        &self,
        what: Expiring,
        expiry: &Expiry,
        cursor: &WorkCursor,
        limit: i32,
    ) -> Result<(Vec<EventId>, Option<WorkCursor>), StoreError> {
        match (what, expiry.quarantined_until) {
            (Expiring::Marked, _) => self.due_as(EXPIRING, cursor, expiry.now, limit).await,
            (Expiring::Quarantined, Some(until)) => self.due(State::Quarantined, cursor, until, limit).await,
            (Expiring::Quarantined, None) => Ok((Vec::new(), None)),
        }
    }

    /// How long published events are kept; `None`: for ever.
    pub fn keeps_orders_for(&self) -> Option<SignedDuration> {
        self.retention.orders
    }

    /// Whether any event may expire. If not, redrive does not look for expired events.
    pub fn expires_anything(&self) -> bool {
        self.retention.is_on()
    }

    /// Removes an event that has expired, and corrects the mark of one that has not.
    pub async fn trim(&self, id: &EventId, head: &Head, expiry: &Expiry) -> Result<Trimmed, StoreError> {
        // A tombstone that is still in the index is the result of an interrupted erasure.
        if head.state != State::Erased && !expiry.has_expired(head) {
            self.retain(id, head).await?;
            return Ok(Trimmed::Kept);
        }
        Ok(if self.erase(id, head, ErasedBy::Retention).await? {
            Trimmed::Removed
        } else {
            Trimmed::Kept
        })
    }

    /// The result that [`Store::retain`] would have.
    pub fn retained(&self, head: &Head) -> Retained {
        if !matches!(head.state, State::Published | State::Superseded | State::Unsupported) {
            return Retained::Unchanged;
        }
        match (self.retention.expiry_of(head), head.next_attempt_at) {
            (None, None) => Retained::Unchanged,
            (None, Some(_)) => Retained::Unmarked,
            // The table stores milliseconds.
            (Some(expiry), Some(marked)) if sortable(expiry) == sortable(marked) => Retained::Unchanged,
            (Some(_), _) => Retained::Marked,
        }
    }

    /// Lets an event that has left the outbox expire by the current settings.
    pub async fn retain(&self, id: &EventId, head: &Head) -> Result<Retained, StoreError> {
        let retained = self.retained(head);
        let change = match (retained, self.retention.expiry_of(head)) {
            (Retained::Marked, Some(expiry)) => Change::default()
                .set("work", work_key(id).as_str())
                .set("next_attempt_at", &expiry),
            (Retained::Unmarked, _) => Change::default().remove(&["work", "next_attempt_at"]),
            _ => return Ok(Retained::Unchanged),
        };
        let changed = self
            .update(id, &change.only_if(Condition::in_state(head.state)))
            .await?;
        Ok(if changed { retained } else { Retained::Unchanged })
    }

    /// Counts the quarantined events that expire within a week: at most 1,000 in each shard.
    pub async fn count_expiring_quarantined(&self, now: Timestamp) -> Result<u64, StoreError> {
        let Some(retention) = self.retention.unpublished else {
            return Ok(0);
        };
        let until = now.checked_add(NOTICE - retention).unwrap_or(now);
        self.count_until(State::Quarantined, until).await
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray as _;

    use super::*;

    fn retention(orders: &str, unpublished: &str, deduplication: &str) -> Result<Retention, SettingError> {
        Retention::from_settings(&Settings::from_table([
            ("ORDER_RETENTION_DAYS", orders),
            ("UNPUBLISHED_RETENTION_DAYS", unpublished),
            ("DEDUPLICATION_DAYS", deduplication),
        ]))
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn nothing_expires_unless_a_setting_says_so() {
        for retention in [retention("", "", ""), retention("0", "0", "3")] {
            let retention = retention.expect("settings");
            assert!(!retention.is_on());
            assert!(State::VARIANTS.iter().all(|state| retention.of(*state).is_none()));
            assert_eq!(retention.end_of_tombstone(time("2026-01-01T00:00:00Z")), None);
        }
    }

    #[test]
    fn an_event_that_is_not_settled_never_expires() {
        let retention = retention("30", "90", "").expect("settings");
        let since = time("2026-01-01T00:00:00Z");
        let expiry = |state| retention.expiry(state, since);
        for state in [State::Pending, State::Failed, State::Erased] {
            assert_eq!(expiry(state), None);
        }
        for (state, end) in [
            (State::Published, "2026-01-31T00:00:00Z"),
            (State::Superseded, "2026-01-31T00:00:00Z"),
            (State::Unsupported, "2026-04-01T00:00:00Z"),
            (State::Quarantined, "2026-04-01T00:00:00Z"),
        ] {
            assert_eq!(expiry(state), Some(time(end)));
        }
        assert_eq!(retention.expiry(State::Published, Timestamp::MAX), None);
    }

    #[test]
    fn a_tombstone_expires_at_its_end() {
        let retention = retention("30", "", "3").expect("settings");
        let end = retention
            .end_of_tombstone(time("2026-01-01T00:00:00Z"))
            .expect("an end");
        let expires_at = AttributeValue::N(end.as_second().to_string());
        let tombstone = Item::from([("expires_at".to_owned(), expires_at)]);
        assert!(!is_expired_tombstone(&tombstone, time("2026-01-03T23:59:59Z")));
        assert!(is_expired_tombstone(&tombstone, time("2026-01-04T00:00:00Z")));
        assert!(!is_expired_tombstone(&Item::new(), Timestamp::MAX));
    }

    #[test]
    fn a_wrong_number_of_days_is_named() {
        for (orders, unpublished, deduplication, name) in [
            ("-1", "", "", "ORDER_RETENTION_DAYS"),
            ("", "ninety", "", "UNPUBLISHED_RETENTION_DAYS"),
            ("", "", "2", "DEDUPLICATION_DAYS"),
            ("", "", "70000", "DEDUPLICATION_DAYS"),
        ] {
            let error = retention(orders, unpublished, deduplication).expect_err("it is wrong");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
