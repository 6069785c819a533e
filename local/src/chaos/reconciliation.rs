//! `cargo local chaos --reconcile`: webhooks get lost, come twice, late and out of order, functions are killed and order
//! APIs fail; after two runs of reconcile, the states of the orders in the stream are those that the providers know.
//!
//! There are two phases, and a run of reconcile ends each. In the second phase, some orders change and new ones are
//! placed. A late webhook arrives after the run that follows its state.

mod check;
mod history;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use self::check::Report;
use self::history::{Fate, Histories, Webhook};
use super::faults::{Counts, count, faults, validation_faults};
use super::model::Plan;
use super::{SENDERS, audit, redrive_to_the_end};
use crate::aws::faults::{Call, Fault};
use crate::aws::queue::Message;
use crate::net::client::Client;
use crate::project::answer::Answer;
use crate::project::settings::{ORDER_APIS, RECONCILE};
use crate::providers::order_apis;
use crate::providers::order_book::Order;
use crate::providers::random::draw;
use crate::providers::samples::Catalogue;
use crate::providers::signing::{Credentials, sign};
use crate::providers::snipcart;
use crate::stack::Stack;
use crate::{Error, lock};

/// How often a webhook is repeated until it is answered 200. Which providers give up is the subject of the other chaos
/// run; here, webhooks are lost on purpose.
const TRIES: usize = 50;
/// The pause before a repeat.
const PAUSE: Duration = Duration::from_millis(100);
/// The kills of reconcile in a run. Without a limit, no page would be finished.
const KILLS: usize = 16;
/// The chance of a kill at a call of reconcile, in ten thousandths.
const KILL: u64 = 200;
/// The invocations that a run may take.
const INVOCATIONS: usize = 100;

/// Sends webhooks.
struct Sender {
    client: Client,
    url: String,
    answers: Counts,
    sent: AtomicUsize,
}

impl Sender {
    /// Sends a webhook until it is answered 200.
    async fn send(&self, webhook: &Webhook) -> Result<(), Error> {
        for _ in 0..TRIES {
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            let mut fixture = webhook.fixture.clone();
            let credentials = Credentials {
                shop: webhook.shop.to_owned(),
                request_token: Some(format!("{}{number}", snipcart::GENUINE)),
                ..Credentials::default()
            };
            sign(&mut fixture, &credentials, Timestamp::now())?;
            if let Ok(answer) = self.client.send(fixture.to_request(&self.url)?).await {
                let answer = Answer::read(&answer);
                count(&self.answers, &answer.summary());
                if answer.status == 200 {
                    return Ok(());
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::Send("a webhook was not answered 200".to_owned()))
    }
}

/// A run of chaos.
struct Chaos<'a> {
    stack: &'a Arc<Stack>,
    sender: Arc<Sender>,
    injected: Counts,
    seed: u64,
    messages: Vec<Message>,
}

/// Sends the webhooks, runs reconcile twice, and checks the result. `progress` is called after each webhook.
pub async fn run(
    stack: &Arc<Stack>,
    catalogue: &Catalogue,
    plan: Plan,
    progress: impl Fn() + Send + Sync + Clone + 'static,
) -> Result<Report, Error> {
    let (begun, begun_at) = (Instant::now(), Timestamp::now());
    let mut chaos = Chaos {
        stack,
        sender: Arc::new(Sender {
            client: Client::new(&stack.url())?,
            url: stack.url(),
            answers: Counts::default(),
            sent: AtomicUsize::new(0),
        }),
        injected: Counts::default(),
        seed: plan.seed,
        messages: Vec::new(),
    };
    let mut histories = Histories::new(catalogue, plan);
    let mut report = Report::default();
    let mut late = Vec::new();
    for phase in 0..2 {
        let webhooks = histories.phase(phase, Timestamp::now())?;
        for webhook in &webhooks {
            let body = webhook.fixture.body()?;
            let order = Order::announced(&webhook.fixture.provider, &body)
                .ok_or_else(|| Error::Fixture(format!("{} holds no complete order", webhook.fixture.name)))?;
            let provider = &webhook.fixture.provider;
            stack.order_apis().book().put(provider, webhook.shop, order);
            report.count_webhook(webhook.fate);
        }
        // Those that were late in the phase before come among the others.
        let mut due = std::mem::take(&mut late);
        for webhook in webhooks {
            match webhook.fate {
                Fate::Lost => progress(),
                Fate::Late => late.push(webhook),
                Fate::Twice => due.extend([webhook.clone(), webhook]),
                Fate::OnTime => due.push(webhook),
            }
        }
        due.sort_by_key(|webhook| webhook.turn);
        chaos.begin_faults(plan);
        chaos.send(due, &progress).await?;
        let runs = join_all(ORDER_APIS.map(|provider| chaos.reconcile(provider))).await;
        chaos.end_faults();
        for run in runs {
            report.add_run(&run?);
        }
        chaos.settle().await?;
    }
    let expected = histories.shops();
    check::orders(stack, &expected, &chaos.messages, &mut report);

    let before = check::facts(&chaos.messages);
    report.late_in_the_end = late.len();
    chaos.send(late, &progress).await?;
    chaos.settle().await?;
    check::unchanged(&before, &chaos.messages, &mut report);
    for provider in ORDER_APIS {
        let run = chaos.reconcile(provider).await?;
        if run.accepted > 0 {
            report
                .violations
                .add(|| format!("a third run stores {} states of {provider}: {run:?}", run.accepted));
        }
    }
    chaos.settle().await?;
    check::stored_once(stack, &chaos.messages, &mut report).await?;
    let audited = audit::run(stack, begun_at).await?;
    for violation in audit::violations(&audited) {
        report.violations.add(|| violation);
    }
    report.answers = lock(&chaos.sender.answers).clone();
    report.faults = lock(&chaos.injected).clone();
    report.silent = histories.silent();
    report.took = begun.elapsed();
    Ok(report)
}

/// Decides about the requests to the order APIs. Every second of the first requests to an API meets another fault, so
/// that each fault occurs in each phase; after that they are drawn.
fn faults_of_order_apis(seed: u64, injected: Counts) -> impl Fn(&'static str, usize) -> Option<order_apis::Fault> {
    const FAULTS: [(&str, order_apis::Fault); 5] = [
        ("answers 500", order_apis::Fault::Status(500)),
        ("answers 429", order_apis::Fault::TooMany(1)),
        ("cuts a page", order_apis::Fault::Cut),
        ("sends half a page", order_apis::Fault::Half),
        ("is slow", order_apis::Fault::Slow(Duration::from_millis(300))),
    ];
    let requests = Mutex::new(BTreeMap::<&str, usize>::new());
    move |provider, _| {
        let number = {
            let mut requests = lock(&requests);
            let number = requests.entry(provider).or_default();
            *number += 1;
            *number
        };
        let first = ORDER_APIS
            .iter()
            .position(|known| *known == provider)
            .unwrap_or_default();
        let drawn = draw(seed, &["order API", provider, &number.to_string()]) % 50;
        let which = match number / 2 {
            turn if turn < FAULTS.len() => number.is_multiple_of(2).then_some(first + turn),
            _ => usize::try_from(drawn).ok().filter(|drawn| *drawn < FAULTS.len()),
        };
        let (name, fault) = FAULTS[which? % FAULTS.len()];
        count(&injected, &format!("order API {name}"));
        Some(fault)
    }
}

/// The counts of a run for all shops of a provider.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) invocations: usize,
    pub(super) missing: usize,
    pub(super) newer: usize,
    pub(super) accepted: usize,
}

impl Chaos<'_> {
    fn begin_faults(&self, plan: Plan) {
        let (kills, calls) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<String, usize>::new()));
        let (seed, injected) = (self.seed, Arc::clone(&self.injected));
        let others = faults(plan, Arc::clone(&self.injected));
        self.stack.tap().follow(move |call: &Call| {
            if !call.caller.as_ref().is_some_and(|caller| caller.starts_with(RECONCILE)) {
                return others(call);
            }
            let nth = {
                let mut calls = lock(&calls);
                let nth = calls.entry(call.operation.clone()).or_default();
                *nth += 1;
                nth.to_string()
            };
            let drawn = draw(seed, &["reconcile", &call.operation, &nth]) % 10_000;
            if drawn < KILL && kills.fetch_add(1, Ordering::Relaxed) < KILLS {
                let (name, fault) = if drawn.is_multiple_of(2) {
                    ("reconcile killed before a call", Fault::KillBefore)
                } else {
                    ("reconcile killed after a call", Fault::KillAfter)
                };
                count(&injected, name);
                return Some(fault);
            }
            match drawn {
                9_900..=9_949 => {
                    count(&injected, "throttled");
                    Some(Fault::THROTTLED)
                }
                9_950.. => {
                    count(&injected, "done, answer lost");
                    Some(Fault::LoseAnswer)
                }
                _ => None,
            }
        });
        self.stack
            .snipcart()
            .follow(validation_faults(self.seed, Arc::clone(&self.injected)));
        self.stack
            .order_apis()
            .follow(faults_of_order_apis(self.seed, Arc::clone(&self.injected)));
    }

    fn end_faults(&self) {
        self.stack.tap().follow_nothing();
        self.stack.snipcart().follow(|_| None);
        self.stack.order_apis().end_faults();
    }

    async fn send(
        &self,
        webhooks: Vec<Webhook>,
        progress: &(impl Fn() + Send + Sync + Clone + 'static),
    ) -> Result<(), Error> {
        let room = Arc::new(Semaphore::new(SENDERS));
        let mut sends = JoinSet::new();
        for webhook in webhooks {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                break;
            };
            let (sender, progress) = (Arc::clone(&self.sender), progress.clone());
            sends.spawn(async move {
                let sent = sender.send(&webhook).await;
                drop(permit);
                progress();
                sent
            });
        }
        sends.join_all().await.into_iter().collect()
    }

    /// Runs reconcile for all shops of a provider, until it has completed. A killed run and an API that fails are what
    /// the next invocation goes on after.
    async fn reconcile(&self, provider: &'static str) -> Result<Run, Error> {
        let task = json!({"reconcile": {"provider": provider}});
        let mut run = Run::default();
        let mut last = Value::Null;
        while run.invocations < INVOCATIONS {
            run.invocations += 1;
            let Ok(answer) = self.stack.invoke(RECONCILE, &task).await else {
                self.stack.clients().let_leases_expire().await?;
                continue;
            };
            let shops = answer["shops"].as_array().cloned().unwrap_or_default();
            for shop in &shops {
                let number = |name: &str| usize::try_from(shop[name].as_u64().unwrap_or_default()).unwrap_or(0);
                run.missing += number("missing");
                run.newer += number("newer");
                run.accepted += number("accepted");
            }
            let is_complete = |shop: &Value| shop["status"] == "complete";
            if answer["done"] == true && !shops.is_empty() && shops.iter().all(is_complete) {
                return Ok(run);
            }
            // A run that was killed holds its lease on.
            if shops.iter().any(|shop| shop["status"] == "busy") {
                self.stack.clients().let_leases_expire().await?;
            }
            last = answer;
        }
        Err(Error::Send(format!(
            "reconcile does not complete for {provider}: {last}"
        )))
    }

    /// Publishes what is in the outbox, and takes all messages.
    async fn settle(&mut self) -> Result<(), Error> {
        redrive_to_the_end(self.stack).await?;
        self.messages.extend(self.stack.queue().drain().await?);
        Ok(())
    }
}
