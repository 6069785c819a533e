//! How long events are kept, and how the expired ones are removed.
//!
//! An event that may expire has `work` = `expiring#{shard}` on its head, and `next_attempt_at` is the time at which it does.
//! A quarantined event is in the index `work` as it is, and needs no more. Expiry leaves a tombstone, as an erasure does; only a
//! tombstone ever has the table's TTL attribute, `expires_at`, so DynamoDB never deletes a head whose parts are still there.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};

use super::event_items::sortable;
use super::{ErasedBy, Head, Item, State, Store, StoreError, WorkCursor, describe};
use crate::identity::EventId;
use crate::settings::{SettingError, Settings};

/// The word in the index `work` of events that may expire.
const EXPIRING: &str = "expiring";

/// How long before it takes effect a new value of `UNPUBLISHED_RETENTION_DAYS` is announced, and how long before its expiry a
/// quarantined event counts as expiring.
pub(super) const NOTICE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How often it is noted that a retention is still set, and how long it may go unnoted before its notice begins again.
const NOTE_EVERY: SignedDuration = SignedDuration::from_hours(24);
const FORGET_AFTER: SignedDuration = SignedDuration::from_hours(2 * 24);

/// Tombstones must outlive the longest retry window of a provider, which is 48 hours.
const LEAST_DEDUPLICATION_DAYS: u16 = 3;
const DEFAULT_DEDUPLICATION_DAYS: u16 = 30;

/// How long events and tombstones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What was published or superseded; `None`: for ever.
    orders: Option<SignedDuration>,
    /// What is quarantined or unsupported; `None`: for ever.
    unpublished: Option<SignedDuration>,
    /// Tombstones.
    deduplication: SignedDuration,
}

impl Retention {
    /// `ORDER_RETENTION_DAYS`, `UNPUBLISHED_RETENTION_DAYS` (0, the default of both: for ever) and `DEDUPLICATION_DAYS`.
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

    /// Whether anything expires at all.
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

    /// When an event in `state` expires that has been in it since `since`; `None`: never.
    fn expiry(&self, state: State, since: Timestamp) -> Option<Timestamp> {
        since.checked_add(self.of(state)?).ok()
    }

    /// When today's settings let an event expire; `None`: never.
    fn expiry_of(&self, head: &Head) -> Option<Timestamp> {
        let time = |name| head.text(name)?.parse::<Timestamp>().ok();
        let since = match head.state {
            State::Published => time("published_at"),
            State::Unsupported => time("dismissed_at"),
            _ => None,
        };
        self.expiry(head.state, since.or_else(|| head.received_at())?)
    }

    /// When DynamoDB may delete a tombstone made at `now`, in seconds since the epoch; `None` where nothing expires.
    pub(super) fn end_of_tombstone(&self, now: Timestamp) -> Option<AttributeValue> {
        let end = now.checked_add(self.deduplication).ok()?;
        self.is_on().then(|| AttributeValue::N(end.as_second().to_string()))
    }

    /// Makes a new head expire if its state does. A quarantined one is in the index already.
    pub(super) fn mark_new(&self, head: &mut Item, id: &EventId, state: State, received_at: Timestamp) {
        if state == State::Unsupported
            && let Some(expiry) = self.expiry(state, received_at)
        {
            head.insert("work".to_owned(), AttributeValue::S(work(id)));
            head.insert("next_attempt_at".to_owned(), AttributeValue::S(sortable(expiry)));
        }
    }

    /// How a change of state to `state` leaves the index `work`: as an event that expires, or not at all. `since` is what the time
    /// of expiry counts from.
    pub(super) fn leave_work(&self, state: State, id: &EventId, since: Timestamp) -> LeaveWork {
        self.leave_work_until(state, id, since, since)
    }

    /// The same, for an event that expires no earlier than `earliest`.
    pub(super) fn leave_work_until(
        &self,
        state: State,
        id: &EventId,
        since: Timestamp,
        earliest: Timestamp,
    ) -> LeaveWork {
        let expiry = self.expiry(state, since);
        LeaveWork(expiry.map(|expiry| (work(id), sortable(expiry.max(earliest)))))
    }
}

/// See [`Retention::leave_work`].
pub(super) struct LeaveWork(Option<(String, String)>);

impl LeaveWork {
    /// What follows the other clauses of `SET`. The expression calls the attribute `work` `#work`.
    pub(super) fn clauses(&self) -> &'static str {
        match &self.0 {
            Some(_) => ", #work = :expiring, next_attempt_at = :expiry",
            None => " REMOVE #work, next_attempt_at",
        }
    }

    /// The values of [`Self::clauses`].
    pub(super) fn values(self) -> Vec<(&'static str, AttributeValue)> {
        self.0.map_or_else(Vec::new, |(work, expiry)| {
            vec![
                (":expiring", AttributeValue::S(work)),
                (":expiry", AttributeValue::S(expiry)),
            ]
        })
    }
}

fn work(id: &EventId) -> String {
    format!("{EXPIRING}#{}", id.shard())
}

/// Whether an item is a tombstone that DynamoDB may delete: as good as gone.
pub(super) fn is_over(item: &Item, now: Timestamp) -> bool {
    let ends_at = item
        .get("expires_at")
        .and_then(|end| end.as_n().ok()?.parse::<i64>().ok());
    ends_at.is_some_and(|end| end <= now.as_second())
}

/// What an expired event was found as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiring {
    /// Marked when it left the outbox, or when it was written.
    Marked,
    /// Quarantined.
    Quarantined,
}

/// The result of removing an event that was due to expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trimmed {
    /// Its content is removed.
    Removed,
    /// It is kept: the settings have changed since it was marked, or somebody else has changed it.
    Kept,
}

/// What `retain` does to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retained {
    /// It expires at another time than before, or now does and did not.
    Marked,
    /// It no longer expires.
    Unmarked,
    /// It is as it was.
    Unchanged,
}

/// Which events have expired at a time. They are treated as gone, although redrive may not have removed them yet.
pub struct Expiry {
    retention: Retention,
    now: Timestamp,
    /// Quarantined events that were received until then have expired.
    quarantined_until: Option<Timestamp>,
}

impl Expiry {
    /// Whether an event has expired: its time has come, and today's settings agree.
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
    /// Whether an event has expired at `now`. For a repeat, a quarantined event stays until it is removed: whether its retention is in
    /// force yet is known to [`Store::expiry`] alone.
    pub fn has_expired(&self, head: &Head, now: Timestamp) -> bool {
        let expiry = Expiry {
            retention: self.retention,
            now,
            quarantined_until: None,
        };
        expiry.has_expired(head)
    }

    /// Which events have expired at `now`.
    pub async fn expiry(&self, now: Timestamp) -> Result<Expiry, StoreError> {
        Ok(Expiry {
            retention: self.retention,
            now,
            quarantined_until: self.quarantined_until(now).await?,
        })
    }

    /// The time of receipt up to which quarantined events have expired; `None` where none has.
    ///
    /// A retention takes effect a week after redrive has first seen it, so that nothing quarantined expires in less than a week after
    /// it was first counted as expiring. While it is switched off nobody notes it as seen, and the week begins again after that.
    async fn quarantined_until(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let Some(retention) = self.retention.unpublished else {
            return Ok(None);
        };
        let text = |value: String| AttributeValue::S(value);
        let key = [
            ("pk".to_owned(), text("redrive".to_owned())),
            ("sk".to_owned(), text("unpublished_retention".to_owned())),
        ];
        let get = self.client.get_item().table_name(&self.table).consistent_read(true);
        let known = get.set_key(Some(HashMap::from(key.clone()))).send().await;
        let known = known.map_err(|error| StoreError::DynamoDb(describe(&error)))?;
        let known = known.item.unwrap_or_default();
        let days = AttributeValue::N((retention.as_hours() / 24).to_string());
        // Another value begins another week.
        let known = Some(known)
            .filter(|known| known.get("days") == Some(&days))
            .unwrap_or_default();
        let time = |value: &AttributeValue| value.as_s().ok()?.parse::<Timestamp>().ok();
        let since = known.get("since").and_then(time);
        // A version that does not note it as seen has left the beginning alone.
        let seen = known.get("seen").and_then(time).or(since);
        let is_older = |age| seen.is_none_or(|seen| now.duration_since(seen) > age);
        let since = since.filter(|_| !is_older(FORGET_AFTER)).unwrap_or(now);
        if is_older(NOTE_EVERY) {
            let item = key.into_iter().chain([
                ("days".to_owned(), days),
                ("since".to_owned(), text(sortable(since))),
                ("seen".to_owned(), text(sortable(now))),
            ]);
            let put = self.client.put_item().table_name(&self.table);
            let put = put.set_item(Some(item.collect())).send().await;
            put.map_err(|error| StoreError::DynamoDb(describe(&error)))?;
        }
        let is_announced = since.checked_add(NOTICE).is_ok_and(|from| from <= now);
        Ok(is_announced.then(|| now.checked_sub(retention).ok()).flatten())
    }

    /// Ids of events that may have expired, some at a time from `place` on; and the place to go on at.
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

    /// Whether any event may expire. Where nothing does, redrive does not look for any.
    pub fn expires_anything(&self) -> bool {
        self.retention.is_on()
    }

    /// Removes an event that has expired, and puts right the mark of one that has not.
    pub async fn trim(&self, id: &EventId, head: &Head, expiry: &Expiry) -> Result<Trimmed, StoreError> {
        // A tombstone that is still in the index was not made to its end.
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

    /// What [`Store::retain`] would do.
    pub fn retained(&self, head: &Head) -> Retained {
        if !matches!(head.state, State::Published | State::Superseded | State::Unsupported) {
            return Retained::Unchanged;
        }
        match (self.retention.expiry_of(head), head.next_attempt_at) {
            (None, None) => Retained::Unchanged,
            (None, Some(_)) => Retained::Unmarked,
            // The table keeps milliseconds.
            (Some(expiry), Some(marked)) if sortable(expiry) == sortable(marked) => Retained::Unchanged,
            (Some(_), _) => Retained::Marked,
        }
    }

    /// Lets an event that has left the outbox expire as today's settings say.
    pub async fn retain(&self, id: &EventId, head: &Head) -> Result<Retained, StoreError> {
        let retained = self.retained(head);
        let (change, mut values) = match (retained, self.retention.expiry_of(head)) {
            (Retained::Marked, Some(expiry)) => (
                "SET #work = :expiring, next_attempt_at = :expiry",
                vec![
                    (":expiring", AttributeValue::S(work(id))),
                    (":expiry", AttributeValue::S(sortable(expiry))),
                ],
            ),
            (Retained::Unmarked, _) => ("REMOVE #work, next_attempt_at", Vec::new()),
            _ => return Ok(Retained::Unchanged),
        };
        values.push((":seen", AttributeValue::S(head.state.as_str().to_owned())));
        let changed = self.update(id, change, "#state = :seen", values).await?;
        Ok(if changed { retained } else { Retained::Unchanged })
    }

    /// How many quarantined events expire within a week. No more than 1,000 are counted in a shard.
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
            assert!(State::ALL.into_iter().all(|state| retention.of(state).is_none()));
            assert_eq!(retention.end_of_tombstone(time("2026-01-01T00:00:00Z")), None);
        }
    }

    #[test]
    fn what_is_not_settled_never_expires() {
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
    fn a_tombstone_is_over_at_its_end() {
        let retention = retention("30", "", "3").expect("settings");
        let end = retention
            .end_of_tombstone(time("2026-01-01T00:00:00Z"))
            .expect("an end");
        let tombstone = Item::from([("expires_at".to_owned(), end)]);
        assert!(!is_over(&tombstone, time("2026-01-03T23:59:59Z")));
        assert!(is_over(&tombstone, time("2026-01-04T00:00:00Z")));
        assert!(!is_over(&Item::new(), Timestamp::MAX));
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
