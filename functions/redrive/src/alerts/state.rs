//! The state of one alert, and the message that is due. Nothing here calls the table or SNS.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use shared::alert::Kind;
use shared::identity::EventId;
use shared::store::Received;

/// How long a run may take to send a message that it has claimed. After that, the next run sends it with the same id.
const LEASE: SignedDuration = SignedDuration::from_secs(30);
/// The most events and details in a message, and the most waiting events that are remembered.
const SHOWN: usize = 5;
/// The most characters of an order id or a detail that are kept.
const LENGTH: usize = 200;

/// An alert that is open, or that is over and whose period has not ended.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Alert {
    /// The time of the first finding.
    since: Timestamp,
    /// The time of the last finding.
    last_at: Timestamp,
    /// The number of findings since the first.
    total: u64,
    /// The findings that are in no message yet.
    new: Findings,
    /// The time at which the last message about findings was sent.
    sent_at: Option<Timestamp>,
    /// The message that is being sent, which does not change until then.
    sending: Option<Sending>,
    is_over: bool,
    /// Events that waited for an operator when they were last read.
    pub(super) waiting: Vec<Received>,
    /// How far the index has been searched for another waiting event.
    pub(super) searched: Option<Received>,
}

/// Findings of one kind at one shop: their number, and the first few.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(super) struct Findings {
    pub(super) count: u64,
    pub(super) events: Vec<Example>,
    pub(super) details: Vec<String>,
}

/// An event in a message.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Example {
    pub(super) event_id: EventId,
    pub(super) order: Option<String>,
    /// The hash of the other body, for a conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) payload_sha256: Option<String>,
}

impl Findings {
    pub(super) fn add(&mut self, count: u64, event: Option<Example>, detail: Option<&str>) {
        self.count += count;
        if let Some(mut event) = event.filter(|event| !self.events.contains(event))
            && self.events.len() < SHOWN
        {
            event.order = event.order.as_deref().map(printable);
            self.events.push(event);
        }
        let detail = detail.map(printable).filter(|detail| !self.details.contains(detail));
        if self.details.len() < SHOWN {
            self.details.extend(detail);
        }
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        for event in other.events {
            self.add(0, Some(event), None);
        }
        for detail in &other.details {
            self.add(0, None, Some(detail));
        }
    }
}

/// Untrusted text without control characters, cut to a bounded length.
fn printable(text: &str) -> String {
    let printable = text.chars().filter(|character| !character.is_control());
    printable.take(LENGTH).collect()
}

/// A message that a run has claimed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Sending {
    /// The id of the message, by which subscribers deduplicate.
    pub(super) id: String,
    /// Whether it says that the alert is over.
    pub(super) is_over: bool,
    pub(super) findings: Findings,
    pub(super) total: u64,
    pub(super) since: Timestamp,
    /// The time until which only the run that has claimed it sends it.
    lease_until: Timestamp,
}

/// The next step of an alert.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Nothing,
    Send,
    Delete,
}

impl Alert {
    /// Whether events of this kind wait for an operator. An alert of another kind is over after a period without a
    /// finding.
    pub(super) fn has_waiting_events(kind: Kind) -> bool {
        matches!(kind, Kind::Quarantined | Kind::Failed)
    }

    /// Whether the next finding opens the alert.
    pub(super) fn is_new(&self) -> bool {
        self.total == 0 || self.is_over
    }

    /// Adds findings, and events that wait.
    pub(super) fn add(&mut self, findings: Findings, waiting: impl IntoIterator<Item = Received>, now: Timestamp) {
        if self.is_new() {
            *self = Self {
                since: now,
                sent_at: self.sent_at,
                sending: self.sending.take(),
                ..Self::default()
            };
        }
        self.last_at = now;
        self.total += findings.count;
        self.new.merge(findings);
        self.keep_waiting(waiting);
    }

    /// Remembers events that wait.
    pub(super) fn keep_waiting(&mut self, waiting: impl IntoIterator<Item = Received>) {
        let room = SHOWN.saturating_sub(self.waiting.len());
        self.waiting.extend(waiting.into_iter().take(room));
    }

    /// Whether findings were sent, and not that the alert is over.
    pub(super) fn is_open(&self) -> bool {
        self.sent_at.is_some() && !self.is_over && self.sending.is_none()
    }

    /// Whether nothing was found for a period after the last finding and the last message.
    pub(super) fn is_quiet(&self, now: Timestamp, period: SignedDuration) -> bool {
        self.is_past(now, period) && now.duration_since(self.last_at) >= period
    }

    /// Whether the period that began with the last message has ended.
    fn is_past(&self, now: Timestamp, period: SignedDuration) -> bool {
        self.sent_at.is_none_or(|sent_at| now.duration_since(sent_at) >= period)
    }

    /// Claims the message that is due, if there is one. `has_ended` means that the cause of the alert has ended.
    pub(super) fn claim(&mut self, now: Timestamp, period: SignedDuration, has_ended: bool) -> Step {
        let lease_until = now + LEASE;
        if let Some(sending) = &mut self.sending {
            if now < sending.lease_until {
                return Step::Nothing;
            }
            sending.lease_until = lease_until;
            return Step::Send;
        }
        let ends = has_ended && self.is_open();
        if !ends && (self.new.count == 0 || !self.is_past(now, period)) {
            let is_done = self.is_over && self.is_past(now, period);
            return if is_done { Step::Delete } else { Step::Nothing };
        }
        self.sending = Some(Sending {
            id: format!("{:032x}", fastrand::u128(..)),
            is_over: ends,
            findings: std::mem::take(&mut self.new),
            total: self.total,
            since: self.since,
            lease_until,
        });
        Step::Send
    }

    /// The message that is claimed.
    pub(super) fn sending(&self) -> Option<&Sending> {
        self.sending.as_ref()
    }

    /// Marks the claimed message as sent.
    pub(super) fn sent(&mut self, now: Timestamp) {
        match self.sending.take() {
            Some(sending) if sending.is_over => self.is_over = self.new.count == 0,
            _ => self.sent_at = Some(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    fn findings(count: u64) -> Findings {
        Findings {
            count,
            ..Findings::default()
        }
    }

    /// An alert of which one finding was sent at minute 0.
    fn sent_once() -> Alert {
        let mut alert = Alert::default();
        alert.add(findings(1), [], at(0));
        assert_eq!(alert.claim(at(0), HOUR, false), Step::Send);
        alert.sent(at(0));
        alert
    }

    #[test]
    fn what_comes_within_a_period_is_sent_at_its_end() {
        let mut alert = sent_once();
        assert_eq!(alert.claim(at(1), HOUR, false), Step::Nothing);
        alert.add(findings(2), [], at(2));
        alert.add(findings(3), [], at(59));
        assert_eq!(alert.claim(at(59), HOUR, false), Step::Nothing);
        assert_eq!(alert.claim(at(60), HOUR, false), Step::Send);
        let sending = alert.sending().expect("a message");
        assert_eq!((sending.findings.count, sending.total, sending.since), (5, 6, at(0)));
    }

    #[test]
    fn a_claimed_message_is_sent_again_unchanged_after_its_lease() {
        let mut alert = Alert::default();
        alert.add(findings(1), [], at(0));
        assert_eq!(alert.claim(at(0), HOUR, false), Step::Send);
        let first = alert.sending().cloned().expect("a message");
        alert.add(findings(9), [], at(0));
        assert_eq!(
            alert.claim(at(0), HOUR, true),
            Step::Nothing,
            "another run is sending it"
        );
        assert_eq!(alert.claim(at(1), HOUR, true), Step::Send);
        let second = alert.sending().expect("a message");
        assert_eq!((&second.id, &second.findings), (&first.id, &first.findings));
        alert.sent(at(1));
        assert_eq!(alert.claim(at(61), HOUR, false), Step::Send);
        assert_eq!(alert.sending().expect("a digest").findings.count, 9);
    }

    #[test]
    fn an_alert_that_is_over_is_deleted_at_the_end_of_its_period() {
        let mut alert = sent_once();
        assert_eq!(alert.claim(at(5), HOUR, true), Step::Send);
        assert!(alert.sending().expect("a message").is_over);
        alert.sent(at(5));
        assert_eq!(alert.claim(at(59), HOUR, true), Step::Nothing);
        assert_eq!(alert.claim(at(60), HOUR, true), Step::Delete);
    }

    #[test]
    fn a_finding_after_the_end_waits_and_counts_from_one() {
        let mut alert = sent_once();
        alert.claim(at(5), HOUR, true);
        alert.sent(at(5));
        alert.add(findings(2), [], at(6));
        assert_eq!(alert.claim(at(6), HOUR, false), Step::Nothing);
        assert_eq!(alert.claim(at(60), HOUR, false), Step::Send);
        let sending = alert.sending().expect("a message");
        assert_eq!((sending.findings.count, sending.total, sending.since), (2, 2, at(6)));
    }

    #[test]
    fn a_finding_while_the_end_is_sent_keeps_the_alert_open() {
        let mut alert = sent_once();
        alert.claim(at(5), HOUR, true);
        alert.add(findings(2), [], at(5));
        alert.sent(at(5));
        assert_eq!(alert.claim(at(60), HOUR, false), Step::Send);
        assert!(!alert.sending().expect("a message").is_over);
    }

    #[test]
    fn a_kind_without_a_state_ends_a_period_after_the_last_message() {
        let mut alert = sent_once();
        alert.add(findings(1), [], at(10));
        assert!(!alert.is_quiet(at(60), HOUR), "it was found 50 minutes ago");
        alert.claim(at(60), HOUR, false);
        alert.sent(at(60));
        assert!(!alert.is_quiet(at(119), HOUR));
        assert!(alert.is_quiet(at(120), HOUR));
    }

    #[test]
    fn what_is_kept_of_any_number_of_findings_is_bounded() {
        let mut alert = Alert::default();
        for number in 0..1_000 {
            let mut findings = Findings::default();
            let event = Example {
                event_id: EventId::parse(&format!("{number:064x}")).expect("an id"),
                order: Some(format!("{number}\n{}", "ä".repeat(100_000))),
                payload_sha256: None,
            };
            findings.add(1, Some(event), Some(&"ö".repeat(100_000)));
            alert.add(findings, [], at(0));
        }
        assert_eq!((alert.total, alert.new.events.len()), (1_000, SHOWN));
        assert!(
            alert
                .new
                .events
                .iter()
                .all(|event| !event.order.as_deref().unwrap_or_default().contains('\n'))
        );
        assert!(serde_json::to_vec(&alert).expect("JSON").len() < 8_000);
    }
}
