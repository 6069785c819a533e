//! `cargo local chaos`: orders through random faults, and then a count of what became of each.
//!
//! Every fault is drawn from the seed, the event that a call is for, and how many calls of its kind the event has had:
//! the same seed brings the same faults over the same calls, however the calls of different events interleave.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use flate2::read::GzDecoder;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::client::Client;
use crate::fixture::{Catalogue, Fixture};
use crate::queue::Message;
use crate::settings::REDRIVE;
use crate::signing::{Credentials, sign};
use crate::snipcart::{self, Behaviour};
use crate::stack::Stack;
use crate::tap::{Call, Fault, Service};
use crate::{Error, NAME, lock};

/// What takes a provider a minute takes this long here.
const MINUTE: Duration = Duration::from_millis(10);
/// Events on their way at once: enough to keep two cores busy, and few enough that calls do not wait for each other.
const SENDERS: usize = 16;
/// Kept of what goes wrong; the rest is counted.
const SHOWN: usize = 20;

/// What is drawn, in ten thousandths of the functions' calls to AWS.
const FAULTS: [(usize, &str); 8] = [
    (150, "throttled"),
    (150, "answered 500"),
    (150, "reset"),
    (150, "done, answer lost"),
    (150, "slow"),
    (30, "never answered"),
    (40, "function killed before"),
    (40, "function killed after"),
];

/// What happens.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many events are sent.
    pub events: usize,
    /// Where all chance comes from.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Events that were sent.
    pub events: usize,
    /// Requests that were sent for them.
    pub deliveries: usize,
    /// Answers by what they said.
    pub answers: BTreeMap<String, usize>,
    /// Faults by their kind.
    pub faults: BTreeMap<String, usize>,
    /// Events that were answered 200.
    pub acknowledged: usize,
    /// Events of which their provider gave up before it was answered 200.
    pub given_up: usize,
    /// Items of the table that are events.
    pub stored: usize,
    /// Events that were answered 200 and are not stored, or were never published.
    pub lost: usize,
    /// Items that an event has beside its first.
    pub duplicated_items: usize,
    /// Messages.
    pub messages: usize,
    /// Events with more messages than one.
    pub published_more_than_once: usize,
    /// Events that redrive published.
    pub redriven: usize,
    /// From an event's receipt to its publication.
    pub longest_in_outbox: SignedDuration,
    /// How long it took.
    pub took: Duration,
    /// What must not be, the first few.
    pub violations: Vec<String>,
    /// All of them.
    pub violated: usize,
}

impl Report {
    fn violation(&mut self, what: impl FnOnce() -> String) {
        self.violated += 1;
        if self.violations.len() < SHOWN {
            self.violations.push(what());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: usize = self.faults.values().sum();
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(formatter, "| {name} | {value} |");
        row("events", &self.events)?;
        row("deliveries", &self.deliveries)?;
        for (answer, count) in &self.answers {
            row(&format!("- answered {answer}"), count)?;
        }
        row("faults injected", &faults)?;
        for (fault, count) in &self.faults {
            row(&format!("- {fault}"), count)?;
        }
        row("events answered 200", &self.acknowledged)?;
        row("events their provider gave up", &self.given_up)?;
        row("events stored", &self.stored)?;
        row("published by redrive", &self.redriven)?;
        row("messages", &self.messages)?;
        row("events published more than once", &self.published_more_than_once)?;
        row(
            "longest time in the outbox",
            &format!("{:.1} s", self.longest_in_outbox.as_secs_f64()),
        )?;
        row("**lost**", &format!("**{}**", self.lost))?;
        row("**duplicated items**", &format!("**{}**", self.duplicated_items))?;
        row("took", &format!("{:.0} s", self.took.as_secs_f64()))
    }
}

/// A number that follows from the seed and these words alone.
fn draw(seed: u64, words: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in words.iter().flat_map(|word| word.bytes().chain([0xff])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // FNV's high bits are poor: splitmix64's last steps mix them.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

/// Whether a chance of `ten_thousandths` comes true.
fn chance(ten_thousandths: u64, seed: u64, words: &[&str]) -> bool {
    draw(seed, words) % 10_000 < ten_thousandths
}

/// How a provider sends again what was not answered 200.
#[derive(Debug, Clone, Copy)]
struct Retries {
    tries: usize,
    wait: Duration,
}

impl Retries {
    fn of(provider: &str) -> Self {
        let (tries, minutes) = match provider {
            // About every ten minutes, ten times at most.
            "cartum" => (11, 10),
            // Hourly for 48 hours.
            "aboutyou" => (49, 60),
            // Five times at Deeple, "several" at Selldone; when is not documented. At Snipcart somebody resends by hand.
            _ => (6, 10),
        };
        Self {
            tries,
            wait: MINUTE * minutes,
        }
    }
}

type Counts = Arc<Mutex<BTreeMap<String, usize>>>;

fn count(counts: &Counts, what: &str) {
    *lock(counts).entry(what.to_owned()).or_default() += 1;
}

/// Decides over the functions' calls to AWS.
fn faults(plan: Plan, injected: Counts) -> impl Fn(&Call) -> Option<Fault> {
    let seen = Mutex::new(HashMap::<(String, String), usize>::new());
    let published = AtomicUsize::new(0);
    // Now and then SNS is down for everyone.
    let period = (plan.events / 4).max(40);
    move |call| {
        // What reads the table and the queue to check them is left alone.
        call.caller.as_ref()?;
        if call.service == Service::Sns && published.fetch_add(1, Ordering::Relaxed) % period >= period * 85 / 100 {
            count(&injected, "SNS down");
            return Some(Fault::DOWN);
        }
        let event = event_of(call);
        let nth = {
            let mut seen = lock(&seen);
            let nth = seen.entry((call.operation.clone(), event.clone())).or_default();
            *nth += 1;
            nth.to_string()
        };
        let words = [call.operation.as_str(), &event, &nth];
        let mut drawn = usize::try_from(draw(plan.seed, &words) % 10_000).unwrap_or_default();
        let (_, kind) = FAULTS.iter().find(|(chance, _)| match drawn.checked_sub(*chance) {
            Some(rest) => {
                drawn = rest;
                false
            }
            None => true,
        })?;
        let server_error = match call.service {
            Service::Sns => "InternalError",
            _ => "InternalServerError",
        };
        count(&injected, kind);
        Some(match *kind {
            "throttled" => Fault::THROTTLED,
            "answered 500" => Fault::Answer {
                status: 500,
                code: server_error,
            },
            "reset" => Fault::Reset,
            "done, answer lost" => Fault::LoseAnswer,
            "slow" => Fault::Slow(Duration::from_millis(50 + 5 * drawn as u64)),
            "never answered" => Fault::Hang,
            "function killed before" => Fault::KillBefore,
            _ => Fault::KillAfter,
        })
    }
}

/// The event that a call is for, the first of many; nothing where it names none.
fn event_of(call: &Call) -> String {
    let body = String::from_utf8_lossy(&call.body);
    let marks = [r#""pk":{"S":""#, "%22id%22%3A%22"];
    let found = marks.iter().find_map(|mark| body.split_once(mark));
    found
        .and_then(|(_, rest)| rest.get(..64))
        .unwrap_or_default()
        .to_owned()
}

/// Decides over the calls to Snipcart.
fn validation_faults(seed: u64, injected: Counts) -> impl Fn(&str) -> Option<Behaviour> {
    move |path| {
        let (kind, behaviour) = match draw(seed, &["validation", path]) % 10_000 {
            0..100 => ("Snipcart answers 500", Behaviour::Status(500)),
            100..200 => ("Snipcart answers 503", Behaviour::Status(503)),
            200..210 => ("Snipcart never answers", Behaviour::Hang),
            _ => return None,
        };
        count(&injected, kind);
        Some(behaviour)
    }
}

/// The events that can be made new ones.
fn renewable(catalogue: &Catalogue) -> Result<Vec<Fixture>, Error> {
    let mut fixtures = Vec::new();
    for (provider, names) in catalogue.names() {
        for name in names {
            if catalogue.normalized(provider, name)?.is_none() {
                continue;
            }
            let fixture = catalogue.event(provider, name)?;
            let [mut one, mut other] = [fixture.clone(), fixture.clone()];
            one.renew_as(identity(1, 0))?;
            other.renew_as(identity(2, 0))?;
            if one.body()? != other.body()? {
                fixtures.push(fixture);
            }
        }
    }
    Ok(fixtures)
}

/// A different one for each event; what becomes a number of it is the event's own number.
fn identity(index: usize, seed: u64) -> Uuid {
    Uuid::from_u64_pair((index as u64) << 34 | seed & 0xffff, draw(seed, &[&index.to_string()]))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// What a provider knows of an event in the end.
struct Sent {
    body: [u8; 32],
    deliveries: usize,
    /// What was said of it with 200.
    event_ids: BTreeSet<String>,
}

/// A provider.
struct Sender {
    client: Client,
    url: String,
    seed: u64,
    answers: Counts,
    injected: Counts,
}

impl Sender {
    /// Sends an event until it is answered 200, or as often as its provider does.
    async fn send(&self, index: usize, mut fixture: Fixture) -> Result<Sent, Error> {
        fixture.renew_as(identity(index, self.seed))?;
        let retries = Retries::of(&fixture.provider);
        let mut sent = Sent {
            body: sha256(&fixture.body()?),
            deliveries: 0,
            event_ids: BTreeSet::new(),
        };
        let index = index.to_string();
        for attempt in 0..retries.tries {
            if attempt > 0 {
                tokio::time::sleep(retries.wait).await;
            }
            let attempt = attempt.to_string();
            let credentials = Credentials {
                request_token: Some(format!("{}{index}-{attempt}", snipcart::GENUINE)),
                ..Credentials::default()
            };
            sign(&mut fixture, &credentials, Timestamp::now())?;
            sent.deliveries += 1;
            let Ok(answer) = self.client.send(fixture.to_request(&self.url)?).await else {
                count(&self.answers, "nothing");
                continue;
            };
            let said: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            let status = answer.status().as_u16();
            count(
                &self.answers,
                &format!("{status} {}", said["status"].as_str().unwrap_or_default()),
            );
            let Some(event_id) = said["event_id"].as_str().filter(|_| status == 200) else {
                continue;
            };
            sent.event_ids.insert(event_id.to_owned());
            // On its way to the provider the answer may be lost too, and some send again what was answered.
            if !chance(200, self.seed, &["unheard", &index, &attempt]) {
                return Ok(sent);
            }
            count(&self.injected, "answer lost on its way to the provider");
        }
        Ok(sent)
    }
}

/// What the queue's consumer knows of an event.
#[derive(Default)]
struct Received {
    messages: usize,
    /// Of the messages that leave nothing out.
    texts: HashSet<[u8; 32]>,
}

fn receive(received: &Mutex<HashMap<String, Received>>, messages: &[Message]) {
    let mut received = lock(received);
    for message in messages {
        let event_id = message.event["id"].as_str().unwrap_or_default();
        let event = received.entry(event_id.to_owned()).or_default();
        event.messages += 1;
        if message.event["data"]["omitted"] == json!([]) {
            event.texts.insert(sha256(message.text.as_bytes()));
        }
    }
}

/// Sends the events, lets redrive come to its end, and counts. `progress` is told of each event that has been sent.
pub async fn run(
    stack: &Arc<Stack>,
    catalogue: &Catalogue,
    plan: Plan,
    progress: impl Fn() + Send + Sync + Clone + 'static,
) -> Result<Report, Error> {
    let begun = Instant::now();
    let (injected, answers) = (Counts::default(), Counts::default());
    let fixtures = renewable(catalogue)?;
    stack.tap().follow(faults(plan, Arc::clone(&injected)));
    stack
        .snipcart()
        .follow(validation_faults(plan.seed, Arc::clone(&injected)));

    let sending = Arc::new(AtomicBool::new(true));
    let received = Arc::new(Mutex::new(HashMap::new()));
    let meanwhile = tokio::spawn(redrive_meanwhile(Arc::clone(stack), Arc::clone(&sending)));
    let consumer = tokio::spawn(consume(Arc::clone(stack), Arc::clone(&sending), Arc::clone(&received)));

    let sender = Arc::new(Sender {
        client: Client::new(&stack.url())?,
        url: stack.url(),
        seed: plan.seed,
        answers: Arc::clone(&answers),
        injected: Arc::clone(&injected),
    });
    let room = Arc::new(Semaphore::new(SENDERS));
    let mut sends = JoinSet::new();
    for index in 0..plan.events {
        let providers = catalogue.names().len() as u64;
        let provider = draw(plan.seed, &["provider", &index.to_string()]) % providers;
        let provider = catalogue
            .names()
            .keys()
            .nth(usize::try_from(provider).unwrap_or_default());
        let its: Vec<&Fixture> = fixtures
            .iter()
            .filter(|fixture| Some(&fixture.provider) == provider)
            .collect();
        let drawn = draw(plan.seed, &["event", &index.to_string()]) % its.len().max(1) as u64;
        let Some(fixture) = its.get(usize::try_from(drawn).unwrap_or_default()) else {
            continue;
        };
        let (fixture, sender, progress) = ((*fixture).clone(), Arc::clone(&sender), progress.clone());
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            break;
        };
        sends.spawn(async move {
            let sent = sender.send(index, fixture).await;
            drop(permit);
            progress();
            sent
        });
    }
    let sent = sends.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;

    stack.tap().follow_nothing();
    stack.snipcart().follow(|_| None);
    sending.store(false, Ordering::Relaxed);
    let ended = |_| Error::Send("a part of the run ended before its time".to_owned());
    let mut redriven = meanwhile.await.map_err(ended)?;
    redriven += redrive_to_the_end(stack).await?;
    consumer.await.map_err(ended)??;
    receive(&received, &stack.queue().drain().await?);

    let received = std::mem::take(&mut *lock(&received));
    let mut report = Report {
        events: sent.len(),
        deliveries: sent.iter().map(|sent| sent.deliveries).sum(),
        redriven,
        answers: lock(&answers).clone(),
        faults: lock(&injected).clone(),
        ..Report::default()
    };
    check(stack, &sent, &received, &mut report).await?;
    report.took = begun.elapsed();
    Ok(report)
}

/// Again and again, on events that have waited for a third of the time that a delivery has to publish them.
async fn redrive_meanwhile(stack: Arc<Stack>, sending: Arc<AtomicBool>) -> usize {
    let mut redriven = 0;
    while sending.load(Ordering::Relaxed) {
        tokio::time::sleep(MINUTE * 60).await;
        // Both may meet a fault; the next run goes on.
        let until = Timestamp::now() + SignedDuration::from_secs(20);
        let _ = stack.clients().make_due(until).await;
        if let Ok(answer) = stack.invoke(REDRIVE, &json!({"redrive": {}})).await {
            redriven += published(&answer);
        }
    }
    redriven
}

async fn redrive_to_the_end(stack: &Stack) -> Result<usize, Error> {
    let mut redriven = 0;
    loop {
        let due = stack.clients().make_due(Timestamp::MAX).await?;
        let answer = stack.invoke(REDRIVE, &json!({"redrive": {}})).await?;
        redriven += published(&answer);
        // What redrive cannot publish now it never will: the check says so.
        if due == 0 || answer["done"] == true && published(&answer) == 0 {
            return Ok(redriven);
        }
    }
}

fn published(answer: &Value) -> usize {
    answer["published"]
        .as_u64()
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or_default()
}

async fn consume(
    stack: Arc<Stack>,
    sending: Arc<AtomicBool>,
    received: Arc<Mutex<HashMap<String, Received>>>,
) -> Result<(), Error> {
    let queue = stack.queue();
    while sending.load(Ordering::Relaxed) {
        receive(&received, &queue.drain().await?);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// An event of the table.
struct Stored {
    state: String,
    payload: [u8; 32],
    event: [u8; 32],
}

/// Compares what the providers were told, what is stored, and what was published.
async fn check(
    stack: &Stack,
    sent: &[Sent],
    received: &HashMap<String, Received>,
    report: &mut Report,
) -> Result<(), Error> {
    let stored = read_table(stack, report).await?;
    report.stored = stored.len();
    report.messages = received.values().map(|received| received.messages).sum();
    report.published_more_than_once = received.values().filter(|received| received.messages > 1).count();

    let mut items_of = HashMap::<[u8; 32], usize>::new();
    for event in stored.values() {
        *items_of.entry(event.payload).or_default() += 1;
    }
    for sent in sent {
        let items = items_of.remove(&sent.body).unwrap_or_default();
        if items > 1 {
            report.duplicated_items += items - 1;
            report.violation(|| format!("one event has {items} items: {:?}", sent.event_ids));
        }
        if sent.event_ids.is_empty() {
            report.given_up += 1;
            continue;
        }
        report.acknowledged += 1;
        if sent.event_ids.len() > 1 {
            report.violation(|| format!("one event has several ids: {:?}", sent.event_ids));
        }
        for event_id in &sent.event_ids {
            match stored.get(event_id) {
                None => {
                    report.lost += 1;
                    report.violation(|| format!("{event_id} was answered 200 and is not stored"));
                }
                Some(event) if event.payload != sent.body => {
                    report.violation(|| format!("{event_id} is stored with another body than it was sent with"));
                }
                Some(_) if !received.contains_key(event_id) => {
                    report.lost += 1;
                    report.violation(|| format!("{event_id} was answered 200 and never published"));
                }
                Some(_) => {}
            }
        }
    }
    for (event_id, event) in &stored {
        if event.state != "published" {
            report.violation(|| format!("{event_id} is {} in the end", event.state));
        }
        if items_of.contains_key(&event.payload) {
            report.violation(|| format!("{event_id} is stored with a body that nobody sent"));
        }
    }
    for (event_id, received) in received {
        match stored.get(event_id) {
            None => report.violation(|| format!("{event_id} is published and not stored")),
            Some(event) if received.texts.iter().any(|text| *text != event.event) => {
                report.violation(|| format!("{event_id} was published otherwise than it is stored"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

async fn read_table(stack: &Stack, report: &mut Report) -> Result<HashMap<String, Stored>, Error> {
    let mut stored = HashMap::new();
    let scan = stack.clients().dynamodb.scan().table_name(NAME).consistent_read(true);
    let mut items = scan.into_paginator().items().send();
    while let Some(item) = items.next().await {
        let item = item.map_err(|error| Error::Send(format!("the table cannot be read: {error:?}")))?;
        let text = |name: &str| {
            item.get(name)
                .and_then(|value| value.as_s().ok())
                .map_or("", String::as_str)
        };
        let event_id = text("pk").to_owned();
        if text("sk") != "head" {
            report.violation(|| format!("{event_id} has an item {}", text("sk")));
            continue;
        }
        let value = |name: &str| {
            let mut value = Vec::new();
            if let Some(AttributeValue::B(bytes)) = item.get(name) {
                // What cannot be read is not what was sent: the check finds it.
                let _ = GzDecoder::new(bytes.as_ref()).read_to_end(&mut value);
            }
            sha256(&value)
        };
        let time = |name: &str| text(name).parse::<Timestamp>().ok();
        if let (Some(from), Some(to)) = (time("received_at"), time("published_at")) {
            report.longest_in_outbox = report.longest_in_outbox.max(to.duration_since(from));
        }
        let event = Stored {
            state: text("state").to_owned(),
            payload: value("payload"),
            event: value("event"),
        };
        stored.insert(event_id, event);
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn call(operation: &str, body: &str) -> Call {
        Call {
            service: Service::DynamoDb,
            operation: operation.to_owned(),
            caller: Some("cartum-1".to_owned()),
            body: Bytes::from(body.to_owned()),
        }
    }

    #[test]
    fn the_same_seed_brings_the_same_faults_over_the_same_calls() {
        let plan = |seed| faults(Plan { events: 1000, seed }, Counts::default());
        let calls: Vec<Call> = (0..2000)
            .map(|index| call("PutItem", &format!(r#"{{"Item":{{"pk":{{"S":"{index:064}"}}}}}}"#)))
            .collect();
        let (one, same, other) = (plan(1), plan(1), plan(2));
        let drawn: Vec<_> = calls.iter().map(&one).collect();
        let backwards: Vec<_> = calls.iter().rev().map(&same).collect();
        assert!(drawn.iter().eq(backwards.iter().rev()), "whatever the order");
        assert_ne!(drawn, calls.iter().map(&other).collect::<Vec<_>>());
        let hit = drawn.iter().flatten().count();
        assert!(
            (120..240).contains(&hit),
            "{hit} of 2000 is far from what the table of faults says"
        );
    }

    #[test]
    fn a_call_is_for_the_event_it_names() {
        let id = "a".repeat(64);
        for body in [
            format!(r#"{{"Key":{{"pk":{{"S":"{id}"}}}}}}"#),
            format!("Message=%7B%22id%22%3A%22{id}%22"),
        ] {
            assert_eq!(event_of(&call("X", &body)), id);
        }
        assert_eq!(event_of(&call("Query", "{}")), "");
    }
}
