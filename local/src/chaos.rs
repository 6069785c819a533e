//! `cargo local chaos`: sends orders through random faults, and then checks that each event is stored once and
//! published, and audits the table.
//!
//! Each fault is drawn from the seed, the event that a call is for, and the number of earlier calls of that kind for
//! the event. The same seed therefore injects the same faults into the same calls, however the calls of different
//! events interleave.

mod alerts;
mod audit;
mod check;
pub mod consumer;
mod faults;
mod model;
pub mod reconciliation;
mod violations;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use self::check::Report;
use self::faults::{Counts, count, damages, faults, validation_faults};
pub use self::model::Plan;
use self::model::{CONFLICTS, Deliveries, Drawn, Kind, MINUTE, Received, Retries, SHOPS, Sent, sha256};
pub use self::violations::Violations;
use crate::aws::queue::Message;
use crate::net::client::Client;
use crate::project::answer::Answer;
use crate::project::settings::{self, REDRIVE, SHOP};
use crate::providers::generator::{Choice, Orders, add};
use crate::providers::random::chance;
use crate::providers::samples::{Catalogue, Fixture};
use crate::providers::signing::{Credentials, sign};
use crate::providers::snipcart;
use crate::stack::{Config, Stack};
use crate::{Error, lock};

/// The number of events under way at once: enough to keep two cores busy, and so few that calls do not wait for each
/// other.
const SENDERS: usize = 16;

/// The write units that DynamoDB accepts for a partition key in a second.
const UNITS_OF_A_PARTITION: u32 = 1_000;

/// Gives every provider its second shop, and lets connections be damaged.
pub fn configure(config: &mut Config) {
    config.wires = true;
    // Each finding is in a message of its own run, so that the messages can be compared with the table.
    config
        .variables
        .insert("ALERT_PERIOD_MINUTES".to_owned(), "0".to_owned());
    for function in &config.functions {
        if let Some(mut secret) = settings::secret(&function.name) {
            let first = secret["shops"][SHOP].clone();
            for shop in SHOPS {
                secret["shops"][shop] = first.clone();
                if !first["api"].is_null() {
                    secret["shops"][shop]["api"] = settings::api(&function.name, shop);
                }
            }
            config.secrets.insert(function.name.clone(), secret);
        }
    }
}

/// A provider that sends events.
struct Sender {
    client: Client,
    url: String,
    deliveries: Deliveries,
    answers: Counts,
    injected: Counts,
}

impl Sender {
    /// Sends the delivery number `index`, and sometimes another body for the same event after it.
    async fn send(&self, index: usize) -> Result<Vec<Sent>, Error> {
        let Drawn { kind, shop, content } = self.deliveries.delivery(index);
        let mut fixture = self.deliveries.fixture(kind, content)?;
        let number = index.to_string();
        let sent = self.send_until_answered(&number, kind, shop, &mut fixture).await?;
        let is_known = kind == Kind::Order && !sent.event_ids.is_empty();
        let mut all = vec![sent];
        if is_known && chance(CONFLICTS, self.deliveries.seed, &["conflict", &number]) {
            add(&mut fixture, &number)?;
            let number = format!("{number}-conflict");
            let sent = self.send_until_answered(&number, Kind::Conflict, shop, &mut fixture);
            all.push(sent.await?);
        }
        Ok(all)
    }

    /// Sends an event until it is answered 200, or as often as its provider would.
    async fn send_until_answered(
        &self,
        number: &str,
        kind: Kind,
        shop: &'static str,
        fixture: &mut Fixture,
    ) -> Result<Sent, Error> {
        let retries = Retries::of(&fixture.provider);
        let mut sent = Sent {
            kind,
            shop,
            body: sha256(&fixture.body()?),
            deliveries: 0,
            event_ids: BTreeSet::new(),
            outcomes: BTreeSet::new(),
        };
        for attempt in 0..retries.tries {
            if attempt > 0 {
                tokio::time::sleep(retries.wait).await;
            }
            let attempt = attempt.to_string();
            let credentials = Credentials {
                shop: shop.to_owned(),
                request_token: Some(format!("{}{number}-{attempt}", snipcart::GENUINE)),
                ..Credentials::default()
            };
            sign(fixture, &credentials, Timestamp::now())?;
            sent.deliveries += 1;
            let Ok(answer) = self.client.send(fixture.to_request(&self.url)?).await else {
                count(&self.answers, "nothing");
                continue;
            };
            let answer = Answer::read(&answer);
            let outcome = answer.outcome.unwrap_or_default();
            // An answer of 5xx says no outcome.
            count(&self.answers, format!("{} {outcome}", answer.status).trim_end());
            let Some(event_id) = answer.event_id.filter(|_| answer.status == 200) else {
                continue;
            };
            sent.event_ids.insert(event_id);
            sent.outcomes.insert(outcome);
            // The answer may be lost on its way to the provider, and some providers repeat what was answered.
            if !chance(200, self.deliveries.seed, &["unheard", number, &attempt]) {
                return Ok(sent);
            }
            count(&self.injected, "answer lost on its way to the provider");
        }
        Ok(sent)
    }
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

/// Sends the events, runs redrive until nothing is left, and checks the result. `progress` is called after each event.
pub async fn run(
    stack: &Arc<Stack>,
    catalogue: &Catalogue,
    plan: Plan,
    progress: impl Fn() + Send + Sync + Clone + 'static,
) -> Result<Report, Error> {
    let (begun, begun_at) = (Instant::now(), Timestamp::now());
    let (injected, answers) = (Counts::default(), Counts::default());
    let orders = Orders::read(catalogue, &[], Choice::Every, plan.seed)?;
    stack.tap().follow(faults(plan, Arc::clone(&injected)));
    let _as_on_aws = stack.tap().limit_writes(UNITS_OF_A_PARTITION);
    stack
        .snipcart()
        .follow(validation_faults(plan.seed, Arc::clone(&injected)));
    let wires = stack
        .wires()
        .ok_or_else(|| Error::Start("the stack is not configured for chaos".to_owned()))?;
    let wires = [
        ("DynamoDB", &wires.dynamodb),
        ("SNS", &wires.messages),
        ("Snipcart", &wires.snipcart),
    ];
    for (server, wire) in wires {
        wire.follow(damages(plan.seed, server, Arc::clone(&injected)));
    }

    let sending = Arc::new(AtomicBool::new(true));
    let received = Arc::new(Mutex::new(HashMap::new()));
    let meanwhile = tokio::spawn(redrive_meanwhile(Arc::clone(stack), Arc::clone(&sending)));
    let consumer = tokio::spawn(consume(Arc::clone(stack), Arc::clone(&sending), Arc::clone(&received)));

    let sender = Arc::new(Sender {
        client: Client::new(&stack.url())?,
        url: stack.url(),
        deliveries: Deliveries {
            orders,
            seed: plan.seed,
        },
        answers: Arc::clone(&answers),
        injected: Arc::clone(&injected),
    });
    let room = Arc::new(Semaphore::new(SENDERS));
    let mut sends = JoinSet::new();
    for index in 0..plan.events {
        let (sender, progress) = (Arc::clone(&sender), progress.clone());
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            break;
        };
        sends.spawn(async move {
            let sent = sender.send(index).await;
            drop(permit);
            progress();
            sent
        });
    }
    let sent = sends.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let sent: Vec<Sent> = sent.into_iter().flatten().collect();

    stack.tap().follow_nothing();
    stack.snipcart().follow(|_| None);
    for (_, wire) in wires {
        wire.follow_nothing();
    }
    sending.store(false, Ordering::Relaxed);
    let ended = |_| Error::Send("a task of the run ended early".to_owned());
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
    check::check(stack, &sent, &received, &mut report).await?;
    alerts::check(stack, &mut report).await?;
    audit::check(stack, begun_at, &mut report).await?;
    report.took = begun.elapsed();
    Ok(report)
}

/// Runs redrive again and again, on events that have waited for a third of the time that a delivery has to publish
/// them.
async fn redrive_meanwhile(stack: Arc<Stack>, sending: Arc<AtomicBool>) -> usize {
    let mut redriven = 0;
    while sending.load(Ordering::Relaxed) {
        tokio::time::sleep(MINUTE * 60).await;
        // Both calls may meet a fault; the next run continues.
        let until = Timestamp::now() + SignedDuration::from_secs(20);
        let _ = stack.clients().make_due(until).await;
        if let Ok(answer) = stack.invoke(REDRIVE, &json!({"redrive": {}})).await {
            redriven += published(&answer);
        }
        let _ = stack.invoke(REDRIVE, &json!({"alert": {}})).await;
    }
    redriven
}

async fn redrive_to_the_end(stack: &Stack) -> Result<usize, Error> {
    let mut redriven = 0;
    loop {
        let due = stack.clients().make_due(Timestamp::MAX).await?;
        let answer = stack.invoke(REDRIVE, &json!({"redrive": {}})).await?;
        redriven += published(&answer);
        // Redrive will never publish what it cannot publish now, and the check reports it.
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
