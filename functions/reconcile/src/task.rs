//! `{"reconcile":{...}}`: the task and its parameters.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use shared::identity::Shop;
use shared::order_api::{Listing, Period};
use shared::store::ReconcileProgress;

use crate::connect::Connect;
use crate::{TaskError, Windows};

/// The overlap of the periods of two runs, for clocks that differ.
pub(crate) const OVERLAP: SignedDuration = SignedDuration::from_mins(15);
/// The time between two runs that look further back than the others.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The task of an invocation.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// Compare orders with the stored events.
    Reconcile(Reconcile),
    /// Subscribe to the order events of a shop.
    Connect(Connect),
}

/// The shops of a provider, or one of them: from where the last run ended, or in a period that an operator names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reconcile {
    pub(crate) provider: String,
    pub(crate) shop: Option<String>,
    /// The beginning of the period.
    pub(crate) from: Option<Timestamp>,
    /// The end of the period.
    pub(crate) to: Option<Timestamp>,
    /// Only count.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// Where an earlier run of the same period stopped.
    pub(crate) cursor: Option<Cursor>,
}

/// Where a run of a period stopped: at a shop, and there at a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cursor {
    pub(crate) shop: String,
    pub(crate) place: Place,
}

/// A position in the list of a shop's orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) position: u64,
    /// Whether this is the daily run, which looks further back than the others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_daily: bool,
}

impl Place {
    /// The beginning of a period.
    pub(crate) fn beginning_of(period: Period) -> Self {
        Self {
            from: period.from,
            to: period.to,
            position: 0,
            is_daily: false,
        }
    }

    /// The period.
    pub(crate) fn period(self) -> Period {
        Period {
            from: self.from,
            to: self.to,
        }
    }

    /// The place as the table holds it.
    pub(crate) fn to_json(self) -> String {
        serde_json::to_string(&self).expect("times and numbers are JSON")
    }
}

impl Reconcile {
    /// Checks the parameters that belong together.
    pub(crate) fn check(&self) -> Result<(), TaskError> {
        let wrong = |text: &str| Err(TaskError::NoTask(text.to_owned()));
        let shops = [self.shop.as_ref(), self.cursor.as_ref().map(|cursor| &cursor.shop)];
        if shops.into_iter().flatten().any(|shop| Shop::parse(shop).is_none()) {
            return wrong("shop is not a shop's name");
        }
        if self.from.is_none() && self.to.is_some() {
            return wrong("to is given without from");
        }
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            return wrong("from is not before to");
        }
        if self.cursor.is_some() && !self.is_of_period() {
            return wrong("a cursor belongs to a task with from, or to a dry run");
        }
        Ok(())
    }

    /// Whether an operator has named the period, or only wants to count. Such a run says nothing about how far the regular
    /// ones have come.
    pub(crate) fn is_of_period(&self) -> bool {
        self.from.is_some() || self.dry_run
    }

    /// Where a run of a shop begins.
    pub(crate) fn beginning(
        &self,
        shop: &Shop,
        listing: Listing,
        windows: Windows,
        progress: &ReconcileProgress,
        now: Timestamp,
    ) -> Place {
        if let Some(cursor) = self.cursor.as_ref().filter(|cursor| cursor.shop == shop.as_str()) {
            return cursor.place;
        }
        let daily = beginning_of_daily_run(listing, windows, progress, now).filter(|_| !self.dry_run);
        let regular = regular_place(listing, windows, progress, now, daily);
        if let Some(from) = self.from {
            let to = self.to.unwrap_or(regular.to);
            let from = not_expired(from, windows, now).min(to);
            return Place::beginning_of(Period { from, to });
        }
        let resumed = progress
            .resume
            .as_deref()
            .filter(|_| !self.dry_run)
            .and_then(|resume| serde_json::from_str(resume).ok());
        resumed.unwrap_or(regular)
    }
}

/// Where a regular run begins. `daily` is the beginning of the period if this is the daily run.
fn regular_place(
    listing: Listing,
    windows: Windows,
    progress: &ReconcileProgress,
    now: Timestamp,
    daily: Option<Timestamp>,
) -> Place {
    let to = before(now, windows.settle);
    let lookback = before(now, windows.lookback);
    let from = match (progress.complete_until, listing) {
        (None, _) => lookback,
        // An order that was placed earlier may have changed since.
        (Some(until), Listing::PlacedInPeriod) => before(until, OVERLAP).min(lookback),
        (Some(until), _) => before(until, OVERLAP),
    };
    let from = daily.map_or(from, |daily| daily.min(from));
    let from = not_expired(from, windows, now);
    Place {
        is_daily: daily.is_some(),
        ..Place::beginning_of(Period { from: from.min(to), to })
    }
}

/// The beginning of the period of the daily run, if it is due and the provider's API lists orders by the day when they
/// were placed: it finds changes of orders that the other runs do not see any more. It does not reach back behind the
/// period of the first run, so that it imports no older orders.
fn beginning_of_daily_run(
    listing: Listing,
    windows: Windows,
    progress: &ReconcileProgress,
    now: Timestamp,
) -> Option<Timestamp> {
    let is_due = progress.last_daily_at.is_none_or(|last| last <= before(now, DAY));
    if listing != Listing::PlacedInPeriod || windows.daily.is_zero() || !is_due {
        return None;
    }
    progress.complete_until?;
    // A version without daily runs has not noted the period of the first run.
    let first = || Some(before(progress.first_run_at?, windows.lookback));
    Some(before(now, windows.daily).max(progress.first_from.or_else(first)?))
}

/// The beginning of a period from `from` on. After the retention, an order would count as missing.
fn not_expired(from: Timestamp, windows: Windows, now: Timestamp) -> Timestamp {
    windows.kept.map_or(from, |kept| from.max(before(now, kept)))
}

fn before(time: Timestamp, age: SignedDuration) -> Timestamp {
    time.checked_sub(age).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    const WINDOWS: Windows = Windows {
        lookback: SignedDuration::from_hours(48),
        daily: SignedDuration::from_hours(30 * 24),
        settle: SignedDuration::from_mins(5),
        kept: None,
    };

    fn task(json: &str) -> Reconcile {
        serde_json::from_str(json).expect("a task")
    }

    fn begin(
        task: &Reconcile,
        listing: Listing,
        windows: Windows,
        progress: &ReconcileProgress,
    ) -> (String, String, u64) {
        let shop = Shop::parse("main").expect("a shop");
        let place = task.beginning(&shop, listing, windows, progress, time("2026-03-10T12:00:00Z"));
        (place.from.to_string(), place.to.to_string(), place.position)
    }

    fn place(from: &str, to: &str, position: u64) -> (String, String, u64) {
        (from.to_owned(), to.to_owned(), position)
    }

    #[test]
    fn the_first_run_looks_back_and_later_ones_overlap() {
        let regular = task(r#"{"provider":"snipcart"}"#);
        let mut progress = ReconcileProgress::default();
        let first = place("2026-03-08T12:00:00Z", "2026-03-10T11:55:00Z", 0);
        assert_eq!(begin(&regular, Listing::LastChangedFirst, WINDOWS, &progress), first);
        progress.complete_until = Some(time("2026-03-10T11:40:00Z"));
        let overlap = place("2026-03-10T11:25:00Z", "2026-03-10T11:55:00Z", 0);
        assert_eq!(begin(&regular, Listing::Unordered, WINDOWS, &progress), overlap);
        assert_eq!(begin(&regular, Listing::PlacedInPeriod, WINDOWS, &progress), first);
        // After an outage of a week, nothing is left out.
        progress.complete_until = Some(time("2026-03-03T12:15:00Z"));
        let week = place("2026-03-03T12:00:00Z", "2026-03-10T11:55:00Z", 0);
        assert_eq!(begin(&regular, Listing::PlacedInPeriod, WINDOWS, &progress), week);
    }

    #[test]
    fn one_run_a_day_looks_further_back() {
        let regular = task(r#"{"provider":"cartum"}"#);
        let now = time("2026-03-10T12:00:00Z");
        let shop = Shop::parse("main").expect("a shop");
        let begin = |progress: &ReconcileProgress, listing: Listing, windows: Windows| {
            let place = regular.beginning(&shop, listing, windows, progress, now);
            (place.from, place.is_daily)
        };
        let two_days_ago = time("2026-03-08T12:00:00Z");
        // The first complete run is not a daily one, however many runs have failed before it.
        let mut progress = ReconcileProgress {
            first_run_at: Some(time("2026-03-01T12:00:00Z")),
            ..ReconcileProgress::default()
        };
        assert_eq!(
            begin(&progress, Listing::PlacedInPeriod, WINDOWS),
            (two_days_ago, false)
        );
        // A daily run does not reach back behind it.
        progress.complete_until = Some(time("2026-03-10T11:40:00Z"));
        progress.last_daily_at = Some(time("2026-03-09T12:00:00Z"));
        let before_first_run = time("2026-02-27T12:00:00Z");
        assert_eq!(
            begin(&progress, Listing::PlacedInPeriod, WINDOWS),
            (before_first_run, true)
        );
        let first = time("2026-03-05T12:00:00Z");
        progress.first_from = Some(first);
        assert_eq!(begin(&progress, Listing::PlacedInPeriod, WINDOWS), (first, true));
        progress.first_from = Some(time("2026-01-01T00:00:00Z"));
        let thirty_days_ago = time("2026-02-08T12:00:00Z");
        assert_eq!(
            begin(&progress, Listing::PlacedInPeriod, WINDOWS),
            (thirty_days_ago, true)
        );
        // After a longer outage, nothing is left out.
        let outage = ReconcileProgress {
            complete_until: Some(time("2026-02-01T00:15:00Z")),
            ..progress.clone()
        };
        let since_outage = (time("2026-02-01T00:00:00Z"), true);
        assert_eq!(begin(&outage, Listing::PlacedInPeriod, WINDOWS), since_outage);
        let dry_run = task(r#"{"provider":"cartum","dry_run":true}"#);
        let place = dry_run.beginning(&shop, Listing::PlacedInPeriod, WINDOWS, &progress, now);
        assert_eq!((place.from, place.is_daily), (two_days_ago, false));
        // The other lists have every change.
        let overlap = time("2026-03-10T11:25:00Z");
        assert_eq!(begin(&progress, Listing::Unordered, WINDOWS), (overlap, false));
        let off = Windows {
            daily: SignedDuration::ZERO,
            ..WINDOWS
        };
        assert_eq!(begin(&progress, Listing::PlacedInPeriod, off), (two_days_ago, false));
        progress.last_daily_at = Some(time("2026-03-09T12:00:01Z"));
        assert_eq!(
            begin(&progress, Listing::PlacedInPeriod, WINDOWS),
            (two_days_ago, false)
        );
        let place = Place {
            from: two_days_ago,
            to: now,
            position: 100,
            is_daily: true,
        };
        progress.resume = Some(place.to_json());
        assert_eq!(begin(&progress, Listing::PlacedInPeriod, WINDOWS), (two_days_ago, true));
    }

    #[test]
    fn orders_that_have_expired_are_not_looked_for() {
        let kept = Windows {
            kept: Some(SignedDuration::from_hours(24)),
            ..WINDOWS
        };
        let regular = task(r#"{"provider":"snipcart"}"#);
        let day = place("2026-03-09T12:00:00Z", "2026-03-10T11:55:00Z", 0);
        assert_eq!(
            begin(&regular, Listing::PlacedInPeriod, kept, &ReconcileProgress::default()),
            day
        );
        let of_period = task(r#"{"provider":"snipcart","from":"2026-01-01T00:00:00Z"}"#);
        let progress = ReconcileProgress::default();
        assert_eq!(begin(&of_period, Listing::Unordered, kept, &progress), day);
        let expired = r#"{"provider":"snipcart","from":"2026-01-01T00:00:00Z","to":"2026-02-01T00:00:00Z"}"#;
        let nothing = place("2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z", 0);
        assert_eq!(begin(&task(expired), Listing::Unordered, kept, &progress), nothing);
    }

    #[test]
    fn an_order_is_left_alone_before_its_events_expire() {
        let now = time("2026-03-10T12:00:00Z");
        let kept = Windows {
            kept: Some(SignedDuration::from_hours(24)),
            ..WINDOWS
        };
        // The first day of the period is listed completely.
        assert!(kept.has_expired(Some(time("2026-03-09T00:00:00Z")), now));
        assert!(kept.has_expired(Some(time("2026-03-09T12:14:59Z")), now));
        assert!(!kept.has_expired(Some(time("2026-03-09T12:15:00Z")), now));
        assert!(!kept.has_expired(None, now));
        assert!(!WINDOWS.has_expired(Some(time("2020-01-01T00:00:00Z")), now));
    }

    #[test]
    fn a_regular_run_resumes_and_one_of_a_period_does_not() {
        let resume = Place {
            from: time("2026-03-01T00:00:00Z"),
            to: time("2026-03-02T00:00:00Z"),
            position: 250,
            is_daily: false,
        };
        let progress = ReconcileProgress {
            resume: Some(resume.to_json()),
            ..ReconcileProgress::default()
        };
        let begin = |json: &str| begin(&task(json), Listing::Unordered, WINDOWS, &progress);
        let resumed = place("2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z", 250);
        assert_eq!(begin(r#"{"provider":"snipcart"}"#), resumed);
        assert_eq!(begin(r#"{"provider":"snipcart","dry_run":true}"#).2, 0);
        let from = r#"{"provider":"snipcart","from":"2026-01-01T00:00:00Z"}"#;
        assert_eq!(begin(from), place("2026-01-01T00:00:00Z", "2026-03-10T11:55:00Z", 0));
        let cursor = Cursor {
            shop: "main".to_owned(),
            place: resume,
        };
        let cursor = serde_json::to_string(&cursor).expect("JSON");
        let json = format!(r#"{{"provider":"snipcart","from":"2026-01-01T00:00:00Z","cursor":{cursor}}}"#);
        assert_eq!(begin(&json), resumed);
    }

    #[test]
    fn parameters_that_do_not_fit_are_refused() {
        for json in [
            r#"{"provider":"snipcart","to":"2026-01-01T00:00:00Z"}"#,
            r#"{"provider":"snipcart","from":"2026-01-01T00:00:00Z","to":"2026-01-01T00:00:00Z"}"#,
            r#"{"provider":"snipcart","shop":"Main"}"#,
            r#"{"provider":"snipcart","cursor":{"shop":"main","place":{"from":"2026-01-01T00:00:00Z","to":"2026-01-02T00:00:00Z","position":1}}}"#,
        ] {
            assert!(task(json).check().is_err(), "{json}");
        }
        assert!(serde_json::from_str::<Reconcile>(r#"{"provider":"snipcart","form":"2026"}"#).is_err());
    }
}
