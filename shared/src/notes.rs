//! The notes for alerts that a receiving function writes to the table: known shops and signals.
//!
//! Notes are written after the answer of a delivery is decided, and never change it. An execution environment writes
//! each of them once in a few minutes, and collects in its memory what happens in between. If a note cannot be written,
//! a later delivery tries again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::alert::Subject;
use crate::codes::Code;
use crate::identity::Shop;
use crate::moment::Moment;
use crate::store::{Store, StoreError};

/// The time after which an execution environment writes a note again.
const WRITTEN_AGAIN_AFTER: Duration = Duration::from_mins(5);
/// The time after which a note is tried again after a failure.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How long an answer may wait for all notes together.
const BUDGET: Duration = Duration::from_millis(500);
/// The most characters of a sample's detail.
const DETAIL_LENGTH: usize = 200;
/// The most samples that are collected.
const SAMPLES: usize = crate::store::SAMPLES_AT_ONCE;

/// The notes of one execution environment: one for each configured shop, and one for each kind and shop.
#[derive(Default)]
pub(crate) struct Notes(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    shops: HashMap<Shop, Waiting>,
    signals: BTreeMap<Subject, (Waiting, Findings)>,
}

/// Whether a note is to be written, and not before which time.
#[derive(Default)]
struct Waiting {
    waits: bool,
    not_before: Option<(Moment, Duration)>,
}

impl Waiting {
    fn is_due(&self, now: Moment) -> bool {
        let may = |(since, pause): &(Moment, Duration)| now.since(*since) >= *pause;
        self.waits && self.not_before.as_ref().is_none_or(may)
    }
}

/// The findings that are not written to a signal yet.
#[derive(Clone, Default)]
struct Findings {
    count: u64,
    samples: BTreeSet<String>,
}

/// A note that is being written.
enum Note {
    Shop(Shop),
    Signal(Subject, Findings),
}

impl Notes {
    /// Notes that a shop has sent an authentic delivery.
    pub(crate) fn saw(&self, shop: &Shop) {
        self.with(|memory| memory.shops.entry(shop.clone()).or_default().waits = true);
    }

    /// Notes one finding, with the event's id and a detail for each sample.
    pub(crate) fn found(&self, subject: Subject, event_id: &str, details: impl IntoIterator<Item = String>) {
        self.with(|memory| {
            let (waiting, findings) = memory.signals.entry(subject).or_default();
            waiting.waits = true;
            findings.count += 1;
            for detail in details {
                if findings.samples.len() < SAMPLES {
                    let detail = detail.chars().take(DETAIL_LENGTH);
                    findings
                        .samples
                        .insert(format!("{event_id}|{}", detail.collect::<String>()));
                }
            }
        });
    }

    /// Writes the notes that are due, if there is time before `deadline`.
    pub(crate) async fn write(
        &self,
        store: &Store,
        provider: &str,
        silence_hours: impl Fn(&Shop) -> Option<u16>,
        deadline: Instant,
    ) {
        let until = Instant::now() + BUDGET;
        if until > deadline {
            return;
        }
        for note in self.due() {
            let now = Timestamp::now();
            let write = async {
                match &note {
                    Note::Shop(shop) => store.note_shop(provider, shop, now, silence_hours(shop)).await,
                    Note::Signal(subject, found) => store.add_signal(subject, found.count, &found.samples, now).await,
                }
            };
            let written = timeout_at(until, write).await;
            if let Err(cause) = written.unwrap_or(Err(StoreError::Timeout)) {
                tracing::warn!(
                    code = Code::NoteNotWritten.as_str(),
                    provider,
                    %cause,
                    "a note for alerts is not written yet"
                );
                self.put_back(note);
            }
        }
    }

    /// Takes the notes that are due out of the memory.
    fn due(&self) -> Vec<Note> {
        let now = Moment::now();
        let take = |waiting: &mut Waiting| {
            let is_due = waiting.is_due(now);
            if is_due {
                waiting.waits = false;
                waiting.not_before = Some((now, WRITTEN_AGAIN_AFTER));
            }
            is_due
        };
        self.with(|memory| {
            let shops = memory.shops.iter_mut();
            let shops = shops.filter_map(|(shop, waiting)| take(waiting).then(|| Note::Shop(shop.clone())));
            let signals = memory.signals.iter_mut().filter_map(|(subject, (waiting, findings))| {
                take(waiting).then(|| Note::Signal(subject.clone(), std::mem::take(findings)))
            });
            shops.chain(signals).collect()
        })
    }

    fn put_back(&self, note: Note) {
        let again = Waiting {
            waits: true,
            not_before: Some((Moment::now(), TRIED_AGAIN_AFTER)),
        };
        self.with(|memory| match note {
            Note::Shop(shop) => drop(memory.shops.insert(shop, again)),
            Note::Signal(subject, earlier) => {
                let (waiting, findings) = memory.signals.entry(subject).or_default();
                *waiting = again;
                findings.count += earlier.count;
                findings.samples.extend(earlier.samples);
            }
        });
    }

    fn with<T>(&self, read: impl FnOnce(&mut Memory) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Kind;
    use crate::settings::Settings;

    fn subject() -> Subject {
        Subject::new(Kind::Drift, "selldone", Shop::parse("main").as_ref())
    }

    fn found(notes: &Notes, details: usize) {
        notes.found(subject(), "7", (0..details).map(|detail| format!("/{detail}")));
    }

    #[test]
    fn a_note_is_due_at_once_and_then_waits() {
        let notes = Notes::default();
        let main = Shop::parse("main").expect("a shop");
        notes.saw(&main);
        found(&notes, 1);
        let due = notes.due();
        assert!(matches!(due.as_slice(), [Note::Shop(_), Note::Signal(_, _)]));
        notes.saw(&main);
        found(&notes, 1);
        assert!(notes.due().is_empty(), "it was written just now");
        notes.with(|memory| {
            for waiting in memory.shops.values_mut() {
                waiting.not_before = Some((Moment::now(), Duration::ZERO));
            }
        });
        assert!(matches!(notes.due().as_slice(), [Note::Shop(_)]));
    }

    #[test]
    fn what_cannot_be_written_is_kept_within_bounds() {
        let notes = Notes::default();
        found(&notes, 1);
        let [note] = <[Note; 1]>::try_from(notes.due()).unwrap_or_else(|_| panic!("one note"));
        found(&notes, 100);
        notes.put_back(note);
        assert!(notes.due().is_empty(), "it is not tried again at once");
        notes.with(|memory| {
            let (waiting, findings) = &memory.signals[&subject()];
            assert!(waiting.waits);
            assert_eq!((findings.count, findings.samples.len()), (2, SAMPLES));
        });
    }

    #[tokio::test]
    async fn without_time_before_the_deadline_nothing_is_written() {
        let settings = Settings::from_table([
            ("TABLE_NAME", "order-events"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "none"),
            ("AWS_SECRET_ACCESS_KEY", "none"),
            ("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9"),
        ]);
        let store = Store::from_settings(&settings).expect("a table");
        let notes = Notes::default();
        found(&notes, 1);
        let deadline = Instant::now() + BUDGET / 2;
        notes.write(&store, "selldone", |_| None, deadline).await;
        assert_eq!(notes.due().len(), 1, "it was not tried");
        found(&notes, 1);
        notes
            .write(&store, "selldone", |_| None, Instant::now() + 2 * BUDGET)
            .await;
        assert!(notes.due().is_empty());
    }

    #[test]
    fn a_long_detail_is_cut() {
        let notes = Notes::default();
        notes.found(subject(), "7", ["ä".repeat(1_000)]);
        let due = notes.due();
        let [Note::Signal(_, findings)] = due.as_slice() else {
            panic!("a signal")
        };
        assert_eq!(findings.samples, [format!("7|{}", "ä".repeat(DETAIL_LENGTH))].into());
    }
}
