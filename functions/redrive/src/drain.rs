//! `{"redrive":{}}`: publishing what is due.
//!
//! An outage counts against no event: whatever SNS does not take stays due, and the next run tries it again. Only an
//! event whose own message SNS blames is put off, longer each time, and given up in the end: it stays in the table,
//! in the state `failed`.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::identity::EventId;
use shared::publisher::{MessageLimit, Occasion, PublishError};
use shared::store::{Head, Place, SHARDS, State, StoreError, With};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::report::Run;
use crate::{Outbox, PAGE, TaskError, TimeLeft};

/// How often SNS may blame an event's message before it is given up: about a quarter of an hour in all.
const ATTEMPTS: u32 = 6;

/// Pages in hand at once, each of another shard, until a service asks for less.
const PAGES_AT_ONCE: usize = SHARDS as usize;

/// How long a mark is tried: what is published and not marked is published again.
const MARK_BUDGET: Duration = Duration::from_secs(5);
const MARK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How long no further page is begun after the first throttling; twice as long after each next one.
const PAUSE: Duration = Duration::from_millis(500);

/// What services say that are asked too much of, in the short time of a run.
const THROTTLED: [&str; 9] = [
    "KMSThrottling",
    "KMSThrottlingException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "Throttled",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// No parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redrive {}

#[derive(Default)]
struct Drained {
    published: u64,
    put_off: u64,
    failed: u64,
    /// Why something could not be published or marked.
    outage: Option<String>,
}

impl Drained {
    fn count(&mut self, marked: Marked) {
        match marked {
            Marked::Published => self.published += 1,
            Marked::PutOff => self.put_off += 1,
            Marked::Failed => self.failed += 1,
            Marked::Outage(cause) => self.outage = Some(cause),
        }
    }

    fn add(&mut self, page: &Self) {
        self.published += page.published;
        self.put_off += page.put_off;
        self.failed += page.failed;
    }
}

/// What this run has published and could not mark yet: met again, it is marked alone.
type Unmarked = Mutex<HashSet<EventId>>;

fn lock(unmarked: &Unmarked) -> MutexGuard<'_, HashSet<EventId>> {
    unmarked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A page that has been worked on.
struct Page {
    /// Where it begins.
    place: Place,
    begun: Instant,
    /// What became of it, and where its shard goes on.
    result: Result<(Drained, Option<Place>), StoreError>,
}

impl Page {
    /// Why it was not done to its end, if a service asks for fewer calls.
    fn throttled(&self) -> Option<String> {
        let cause = match &self.result {
            Ok((drained, _)) => drained.outage.clone()?,
            Err(error) => error.to_string(),
        };
        let code = cause.rsplit(' ').next().unwrap_or_default();
        THROTTLED.contains(&code).then_some(cause)
    }
}

impl Outbox {
    /// The shards are worked on side by side. Where a service throttles, half as many pages are in hand from then on, after a
    /// pause; one that throttles even a single page ends the run.
    pub(crate) async fn drain(&self, time: TimeLeft) -> Result<Value, TaskError> {
        let now = Timestamp::now();
        // What ends a run early, again and again, must not keep it from the same shards each time.
        let first = fastrand::u8(..SHARDS);
        let mut places: VecDeque<Place> = (first..SHARDS).chain(0..first).map(Place::at).collect();
        // Larger messages need more memory for a page.
        let larger = self.publisher.limit().bytes().div_ceil(MessageLimit::default().bytes());
        let (mut at_once, mut slowed_at) = ((PAGES_AT_ONCE / larger).max(1), Instant::now());
        let (mut pause, mut goes_on_at) = (PAUSE, Instant::now());
        let unmarked = Unmarked::default();
        let mut drained = Drained::default();
        let mut unreadable = None;
        let mut in_hand = FuturesUnordered::new();
        loop {
            while in_hand.len() < at_once
                && drained.outage.is_none()
                && unreadable.is_none()
                && Instant::now() < time.stop_at
                && Instant::now() >= goes_on_at
                && let Some(place) = places.pop_front()
            {
                in_hand.push(self.drain_page(place, now, &unmarked, time.stop_at));
            }
            let Ok(page) = timeout_at(time.give_up_at, in_hand.next()).await else {
                // What is in hand is let go, and not counted: its marks may have come or not.
                drained.outage.get_or_insert_with(|| "no answer in time".to_owned());
                break;
            };
            let Some(page) = page else {
                let pauses = Instant::now() < goes_on_at && goes_on_at < time.stop_at;
                if pauses && !places.is_empty() && drained.outage.is_none() && unreadable.is_none() {
                    sleep_until(goes_on_at).await;
                    continue;
                }
                break;
            };
            let throttled = page.throttled();
            if let Ok((of_page, _)) = &page.result {
                drained.add(of_page);
            }
            if let Some(cause) = throttled {
                // One throttling is seen by all the pages that were in hand then.
                if page.begun >= slowed_at && at_once == 1 {
                    drained.outage = Some(cause);
                } else if page.begun >= slowed_at {
                    (at_once, slowed_at) = (at_once / 2, Instant::now());
                    (pause, goes_on_at) = (pause * 2, slowed_at + pause);
                }
                places.push_back(page.place);
                continue;
            }
            match page.result {
                Ok((of_page, next)) => {
                    drained.outage = drained.outage.or(of_page.outage);
                    places.extend(next.filter(|next| next.shard() == page.place.shard()));
                }
                Err(error) => unreadable = Some(error),
            }
        }
        let is_sound = drained.outage.is_none() && unreadable.is_none();
        // Boxed: the compiler has a limit for how deep futures are nested.
        let expired = if is_sound { Box::pin(self.trim(time)).await } else { 0 };
        let run = Run {
            expired,
            published: drained.published,
            put_off: drained.put_off,
            failed: drained.failed,
            done: places.is_empty() && is_sound,
            outage: drained
                .outage
                .or_else(|| unreadable.as_ref().map(StoreError::to_string)),
        };
        Box::pin(self.tell(&run, time.deadline)).await;
        match unreadable {
            Some(error) => Err(error.into()),
            None => Ok(json!(run)),
        }
    }

    async fn drain_page(&self, place: Place, now: Timestamp, unmarked: &Unmarked, stop_at: Instant) -> Page {
        let begun = Instant::now();
        let result = async {
            let (ids, next) = self.store.due(State::Pending, &place, now, PAGE).await?;
            // The index lags: the heads say what is still to be done.
            let heads = self.store.heads(&ids, With::Event).await?;
            let (published, due): (Vec<_>, Vec<_>) = heads
                .into_iter()
                .filter(|(_, head)| head.state == State::Pending && head.is_due(now))
                .partition(|(id, _)| lock(unmarked).contains(id));
            let results = self.publish(&due, Occasion::News, stop_at).await;
            let is_whole = results.len() == due.len();
            let taken = due.iter().zip(&results).filter(|(_, result)| result.is_ok());
            lock(unmarked).extend(taken.map(|((id, _), _)| id.clone()));
            let marks = published
                .iter()
                .map(|event| (event, Ok(())))
                .chain(due.iter().zip(results))
                .map(|((id, head), result)| self.mark(id, head, result, unmarked));
            let mut drained = Drained::default();
            // Every mark is waited for, whatever becomes of another: one that is left out is an event published twice.
            for marked in join_all(marks).await {
                drained.count(marked.unwrap_or_else(|error| Marked::Outage(error.to_string())));
            }
            Ok((drained, if is_whole { next } else { Some(place.clone()) }))
        };
        let result = result.await;
        Page { place, begun, result }
    }

    async fn mark(
        &self,
        id: &EventId,
        head: &Head,
        result: Result<(), PublishError>,
        unmarked: &Unmarked,
    ) -> Result<Marked, StoreError> {
        match result {
            Ok(()) => {
                let until = Instant::now() + MARK_BUDGET;
                let mut wait = MARK_AGAIN_AFTER;
                while let Err(error) = self.store.mark_published(id).await {
                    if Instant::now() >= until {
                        return Err(error);
                    }
                    sleep(wait).await;
                    wait *= 2;
                }
                lock(unmarked).remove(id);
                Ok(Marked::Published)
            }
            Err(PublishError::Unavailable(cause)) => Ok(Marked::Outage(cause)),
            Err(PublishError::Message(cause)) if head.attempts + 1 >= ATTEMPTS => {
                tracing::error!(event_id = %id, cause, "SNS refuses the event for good");
                self.store.give_up(id, head, &cause).await?;
                Ok(Marked::Failed)
            }
            Err(PublishError::Message(cause)) => {
                tracing::warn!(event_id = %id, cause, attempts = head.attempts + 1, "SNS refuses the event");
                let wait = SignedDuration::from_secs(30 << head.attempts);
                self.store.put_off(id, head, &cause, Timestamp::now() + wait).await?;
                Ok(Marked::PutOff)
            }
        }
    }
}

enum Marked {
    Published,
    PutOff,
    Failed,
    Outage(String),
}
