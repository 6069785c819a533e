//! `{"alert":{}}`: alerts operators to new faults, by shop.
//!
//! A run adds new findings to their alerts, sends the messages that are due, and marks them as sent. Each step is a
//! conditional write, so that only one of two runs takes a finding, and only one sends a message. A finding is stored
//! before it is sent, so neither a killed run nor a topic that is down loses one. If a run is killed after it has sent
//! a message and before it has marked it, the next run sends the same message with the same id.

mod message;
mod state;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::alert::{Kind, Subject};
use shared::codes::Code;
use shared::identity::EventId;
use shared::publisher::Fault;
use shared::settings::{SettingError, Settings};
use shared::store::{ALERTS_AT_ONCE, AlertItem, Received, Source, StoreError};
use shared::telemetry;
use tracing::Level;

use self::message::{Message, Sender};
use self::state::{Alert, Example, Findings, Step};
use crate::time_left::TimeLeft;
use crate::{Outbox, TaskError};

/// The kinds whose findings are in the index `work`, and how old a key must be before it is read, because the index
/// lags behind the table. The key of a delivery is the time 30 seconds after its receipt.
const WAITING: [(Kind, SignedDuration); 3] = [
    (Kind::Quarantined, SignedDuration::ZERO),
    (Kind::Conflict, SignedDuration::ZERO),
    (Kind::Failed, SignedDuration::from_secs(30)),
];
/// The most events that one write adds to alerts.
const TAKEN_AT_ONCE: usize = 500;
/// How many events are read at once, and how often in a run, to find a waiting event of an alert.
const SEARCHED_AT_ONCE: usize = 100;
const SEARCHES: usize = 5;

/// The task has no parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendAlerts {}

/// The settings of alerts.
pub(crate) struct Alerting {
    topic_arn: String,
    period: SignedDuration,
    /// The silence that is allowed if the secret of a shop has no `silence_hours`; zero allows any.
    silence: SignedDuration,
    sender: Sender,
}

impl Alerting {
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        let minutes = settings.parsed("ALERT_PERIOD_MINUTES", 60_u16, "a whole number of minutes")?;
        let hours = settings.parsed("SILENCE_HOURS", 24_u16, "a whole number of hours")?;
        Ok(Self {
            topic_arn: settings.required("ALARM_TOPIC_ARN")?,
            period: SignedDuration::from_mins(minutes.into()),
            silence: SignedDuration::from_hours(hours.into()),
            sender: Sender {
                stack: settings.optional("STACK_NAME"),
                function: settings
                    .optional("AWS_LAMBDA_FUNCTION_NAME")
                    .unwrap_or_else(|| "FUNCTION".to_owned()),
            },
        })
    }
}

/// The answer of a run, which is also part of its log line.
#[derive(Default, Serialize)]
struct Report {
    /// The findings that were added to alerts.
    found: u64,
    /// The messages that were sent, including those that say that an alert is over.
    sent: u64,
    /// The alerts that are open, or over and within the period of their last message.
    open: usize,
    done: bool,
    outage: Option<String>,
}

/// The log line of a run.
#[derive(Serialize)]
struct LogRecord<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(flatten)]
    report: &'a Report,
}

/// The alerts of a run, each with the version of its item.
type Alerts = BTreeMap<Subject, (Alert, u64)>;

/// One run.
struct Run<'o> {
    outbox: &'o Outbox,
    alerting: &'o Alerting,
    time: TimeLeft,
    now: Timestamp,
    alerts: Alerts,
    report: Report,
    searches: usize,
}

impl Outbox {
    pub(crate) async fn send_alerts(&self, time: TimeLeft) -> Result<Value, TaskError> {
        let alerting = self.alerting.as_ref().map_err(Clone::clone)?;
        let mut run = Run {
            outbox: self,
            alerting,
            time,
            now: Timestamp::now(),
            alerts: Alerts::new(),
            report: Report::default(),
            searches: SEARCHES,
        };
        if let Err(cause) = time.attempt(run.run()).await? {
            run.report.outage = Some(cause);
        }
        let Run { mut report, alerts, .. } = run;
        report.open = alerts.len();
        report.done &= report.outage.is_none();
        let (level, code) = match report.outage {
            Some(_) => (Level::ERROR, Some(Code::AlertOutage.as_str())),
            None => (Level::INFO, None),
        };
        let record = LogRecord { code, report: &report };
        self.telemetry.write(level, "alert", &record, &[&[]]);
        Ok(json!(report))
    }
}

impl Run<'_> {
    async fn run(&mut self) -> Result<(), TaskError> {
        let store = &self.outbox.store;
        let known = store.alerts().await?;
        for item in known.items {
            // An alert that another version has written in another form is replaced.
            let alert = item.text.and_then(|text| serde_json::from_str(&text).ok());
            self.alerts
                .insert(item.subject, (alert.unwrap_or_default(), item.version));
        }
        let mut is_all = true;
        for (kind, settles) in WAITING {
            let cursor = known.cursors.get(&kind).cloned();
            is_all &= self.take_waiting(kind, cursor, self.now - settles).await?;
        }
        self.take_signals().await?;
        let silent = self.take_silence().await?;
        self.report.done = self.send(&silent).await? && is_all;
        Ok(())
    }

    /// Adds the events of a kind that are in the index after `cursor`. Returns false if there are more.
    async fn take_waiting(
        &mut self,
        kind: Kind,
        mut cursor: Option<Received>,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let store = &self.outbox.store;
        while !self.time.is_up() {
            let (waiting, has_more) = store.waiting(kind, cursor.as_ref(), until, TAKEN_AT_ONCE).await?;
            let mut found = BTreeMap::<Subject, (Findings, Vec<Received>)>::new();
            let mut last = waiting.last();
            for (event, finding) in store.findings(kind, &waiting).await? {
                let subject = Subject::new(kind, &finding.provider, Some(&finding.shop));
                if found.len() == ALERTS_AT_ONCE && !found.contains_key(&subject) {
                    break;
                }
                let (findings, events) = found.entry(subject).or_default();
                let shown = Example {
                    event_id: event.id.clone(),
                    order: finding.order,
                    payload_sha256: event.conflict.clone(),
                };
                findings.add(1, Some(shown), finding.detail.as_deref());
                if Alert::has_waiting_events(kind) {
                    events.push(event.clone());
                }
                last = Some(event).filter(|_| found.len() == ALERTS_AT_ONCE).or(last);
            }
            let Some(last) = last else { return Ok(true) };
            let source = Source::Waiting(kind, cursor.as_ref(), last);
            if !self.take(source, found).await? {
                return Ok(true);
            }
            if !has_more && waiting.last() == Some(last) {
                return Ok(true);
            }
            cursor = Some(last.clone());
        }
        Ok(false)
    }

    /// Adds the signals of the receiving functions.
    async fn take_signals(&mut self) -> Result<(), StoreError> {
        for signal in self.outbox.store.signals().await? {
            if signal.count <= signal.taken || self.time.is_up() {
                continue;
            }
            let mut findings = Findings::default();
            findings.add(signal.count - signal.taken, None, None);
            for sample in &signal.samples {
                let (event_id, detail) = sample.split_once('|').unwrap_or(("", sample));
                let event = EventId::parse(event_id).map(|event_id| Example {
                    event_id,
                    order: None,
                    payload_sha256: None,
                });
                findings.add(0, event, Some(detail));
            }
            let found = [(signal.subject.clone(), (findings, Vec::new()))].into();
            self.take(Source::Signal(&signal), found).await?;
        }
        Ok(())
    }

    /// Adds findings to their alerts and marks them as taken at their source. Returns false if another run has taken
    /// them.
    async fn take(
        &mut self,
        source: Source<'_>,
        found: BTreeMap<Subject, (Findings, Vec<Received>)>,
    ) -> Result<bool, StoreError> {
        let mut changed = Alerts::new();
        let mut count = 0;
        for (subject, (findings, waiting)) in found {
            count += findings.count;
            let (mut alert, version) = self.alerts.get(&subject).cloned().unwrap_or_default();
            alert.add(findings, waiting, self.now);
            changed.insert(subject, (alert, version));
        }
        let is_mine = self.put(source, &mut changed).await?;
        if is_mine {
            self.report.found += count;
            self.alerts.extend(changed);
        }
        Ok(is_mine)
    }

    /// Writes alerts and increments their versions. Returns false if another run has changed one.
    async fn put(&self, source: Source<'_>, alerts: &mut Alerts) -> Result<bool, StoreError> {
        let items: Vec<_> = alerts
            .iter()
            .map(|(subject, (alert, version))| AlertItem {
                subject: subject.clone(),
                text: Some(json!(alert).to_string()),
                version: *version,
            })
            .collect();
        let is_mine = self.outbox.store.put_alerts(source, &items).await?;
        for (_, version) in alerts.values_mut() {
            *version += 1;
        }
        Ok(is_mine)
    }

    /// Returns the shops that are silent, and begins an alert for each that was not silent before.
    async fn take_silence(&mut self) -> Result<Vec<Subject>, StoreError> {
        let mut silent = Vec::new();
        for shop in self.outbox.store.shops().await? {
            let hours = shop.silence_hours.map(|hours| SignedDuration::from_hours(hours.into()));
            let limit = hours.unwrap_or(self.alerting.silence);
            if limit.is_zero() || self.now.duration_since(shop.last_seen) <= limit {
                continue;
            }
            let subject = Subject {
                kind: Kind::Silence,
                provider: shop.provider,
                shop: Some(shop.shop),
            };
            // The alert is written when its message is claimed.
            let (alert, _) = self.alerts.entry(subject.clone()).or_default();
            if alert.is_new() {
                let mut findings = Findings::default();
                findings.add(
                    1,
                    None,
                    Some(&format!("the last delivery was at {:.0}", shop.last_seen)),
                );
                alert.add(findings, [], self.now);
                self.report.found += 1;
            }
            silent.push(subject);
        }
        Ok(silent)
    }

    /// Sends the messages that are due. Returns false if there was no time for all of them, or the topic is down.
    async fn send(&mut self, silent: &[Subject]) -> Result<bool, StoreError> {
        let subjects: Vec<Subject> = self.alerts.keys().cloned().collect();
        for subject in subjects {
            if self.time.is_up() || self.report.outage.is_some() {
                return Ok(false);
            }
            let Some((mut alert, version)) = self.alerts.get(&subject).cloned() else {
                continue;
            };
            let before = (alert.waiting.clone(), alert.searched.clone());
            let has_ended = alert.is_open()
                && match subject.kind {
                    Kind::Silence => !silent.contains(&subject),
                    kind if Alert::has_waiting_events(kind) => !self.waits(&subject, &mut alert).await?,
                    _ => alert.is_quiet(self.now, self.alerting.period),
                };
            let step = alert.claim(self.now, self.alerting.period, has_ended);
            if step == Step::Nothing && before == (alert.waiting.clone(), alert.searched.clone()) {
                continue;
            }
            if step == Step::Delete {
                self.delete(subject, version).await?;
                continue;
            }
            let mut claimed = Alerts::from([(subject.clone(), (alert, version))]);
            if !self.put(Source::Nothing, &mut claimed).await? || step != Step::Send {
                continue;
            }
            self.alerts.extend(claimed);
            self.send_claimed(&subject).await?;
        }
        Ok(true)
    }

    /// Sends the message that an alert has claimed, and marks it as sent.
    async fn send_claimed(&mut self, subject: &Subject) -> Result<(), StoreError> {
        let Some((mut alert, version)) = self.alerts.get(subject).cloned() else {
            return Ok(());
        };
        let Some(sending) = alert.sending() else { return Ok(()) };
        let sender = &self.alerting.sender;
        let message = Message::new(sender, subject, sending);
        let (title, text) = (message.subject(sender), message.text());
        let topic_arn = &self.alerting.topic_arn;
        let publisher = &self.outbox.publisher;
        let sent = publisher.publish_alarm(topic_arn, &title, &text, message.attributes());
        if let Err(error) = sent.await {
            // The next run sends it. A topic that is down takes no other message either.
            tracing::error!(
                code = Code::AlertNotSent.as_str(),
                alert = sending.id,
                kind = subject.kind.as_str(),
                cause = %error,
                "an alert is not sent yet"
            );
            if error.fault != Fault::Refused {
                self.report.outage = Some(error.to_string());
            }
            return Ok(());
        }
        tracing::info!(alert = sending.id, kind = subject.kind.as_str(), "an alert is sent");
        self.report.sent += 1;
        telemetry::count("AlertsSent");
        alert.sent(self.now);
        if alert.claim(self.now, self.alerting.period, false) == Step::Delete {
            return self.delete(subject.clone(), version).await;
        }
        let mut noted = Alerts::from([(subject.clone(), (alert, version))]);
        self.put(Source::Nothing, &mut noted).await?;
        self.alerts.extend(noted);
        Ok(())
    }

    async fn delete(&mut self, subject: Subject, version: u64) -> Result<(), StoreError> {
        self.alerts.remove(&subject);
        let item = AlertItem {
            subject,
            text: None,
            version,
        };
        self.outbox.store.put_alerts(Source::Nothing, &[item]).await?;
        Ok(())
    }

    /// Whether an event of the alert still waits for an operator. If none of the remembered events does, the index is
    /// searched for another one, some events in each run. Until the search is complete, the alert stays open.
    async fn waits(&mut self, subject: &Subject, alert: &mut Alert) -> Result<bool, StoreError> {
        let store = &self.outbox.store;
        while let Some(event) = alert.waiting.first() {
            if store.still_waits(subject.kind, event).await? {
                return Ok(true);
            }
            alert.waiting.remove(0);
        }
        while self.searches > 0 && !self.time.is_up() {
            self.searches -= 1;
            let page = store.waiting(subject.kind, alert.searched.as_ref(), Timestamp::MAX, SEARCHED_AT_ONCE);
            let (events, has_more) = page.await?;
            let findings = store.findings(subject.kind, &events).await?;
            let is_its =
                |provider: &str, shop: &str| provider == subject.provider && subject.shop.as_deref() == Some(shop);
            let its = findings
                .into_iter()
                .filter(|(_, finding)| is_its(&finding.provider, finding.shop.as_str()));
            alert.keep_waiting(its.map(|(event, _)| event.clone()));
            if !alert.waiting.is_empty() {
                alert.searched = None;
                return Ok(true);
            }
            if !has_more {
                return Ok(false);
            }
            alert.searched = events.last().cloned();
        }
        Ok(true)
    }
}
