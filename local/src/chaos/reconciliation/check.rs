//! Compares the states that a consumer of the stream knows with those that the providers know.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::super::consumer::{Consumer, Facts};
use super::super::violations::Violations;
use super::Run;
use super::history::Fate;
use crate::aws::queue::Message;
use crate::aws::stored_events::text;
use crate::providers::order_book::Order;
use crate::stack::Stack;
use crate::{Error, NAME};

/// The facts of the orders, by the source of the events and the id of the order.
type Orders = BTreeMap<(String, String), Facts>;

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// The orders that the providers know.
    pub orders: usize,
    /// The states of the orders, each of which has a webhook.
    pub webhooks: usize,
    /// The webhooks that never arrive.
    pub never: usize,
    /// The webhooks that arrive twice.
    pub twice: usize,
    /// The webhooks that arrive after the run of reconcile that follows their state.
    pub late: usize,
    /// Those of them that arrive after the second run.
    pub late_in_the_end: usize,
    /// The provider that is silent for three hours.
    pub silent: &'static str,
    /// The answers to the webhooks.
    pub answers: BTreeMap<String, usize>,
    /// The injected faults by their kind.
    pub faults: BTreeMap<String, usize>,
    /// The invocations of reconcile for the two runs.
    pub invocations: usize,
    /// The orders that a run found missing. A run that is killed finds them again.
    pub missing: usize,
    /// The orders that a run found in a newer state.
    pub newer: usize,
    /// The events that reconciliation stored.
    pub reconciled: usize,
    /// The messages in the stream.
    pub messages: usize,
    /// The orders that are not in the stream after two runs.
    pub missing_in_the_end: usize,
    /// The orders whose state in the stream is not that of the provider.
    pub other_state: usize,
    /// The states that reconciliation stored or published more than once.
    pub reconciled_twice: usize,
    /// The orders that a late webhook changes for a consumer.
    pub changed_by_late: usize,
    /// How long the run took.
    pub took: Duration,
    /// What is wrong.
    pub violations: Violations,
}

impl Report {
    pub(super) fn count_webhook(&mut self, fate: Fate) {
        self.webhooks += 1;
        match fate {
            Fate::Lost => self.never += 1,
            Fate::Twice => self.twice += 1,
            Fate::Late => self.late += 1,
            Fate::OnTime => {}
        }
    }

    pub(super) fn add_run(&mut self, run: &Run) {
        self.invocations += run.invocations;
        self.missing += run.missing;
        self.newer += run.newer;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: usize = self.faults.values().sum();
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(formatter, "| {name} | {value} |");
        row("orders", &self.orders)?;
        row("states, each with a webhook", &self.webhooks)?;
        row("- webhooks that never arrive", &self.never)?;
        row("- webhooks that arrive twice", &self.twice)?;
        row("- webhooks that arrive after a run", &self.late)?;
        row("silent for three hours", &self.silent)?;
        for (answer, count) in &self.answers {
            row(&format!("answered {answer}"), count)?;
        }
        row("faults injected", &faults)?;
        for (fault, count) in &self.faults {
            row(&format!("- {fault}"), count)?;
        }
        row("invocations of reconcile for two runs", &self.invocations)?;
        row("- orders found missing", &self.missing)?;
        row("- orders found in a newer state", &self.newer)?;
        row("events stored by reconciliation", &self.reconciled)?;
        row("messages", &self.messages)?;
        row(
            "**orders missing in the stream**",
            &format!("**{}**", self.missing_in_the_end),
        )?;
        row("**orders in another state**", &format!("**{}**", self.other_state))?;
        row(
            "**states stored or published twice by reconciliation**",
            &format!("**{}**", self.reconciled_twice),
        )?;
        row(
            "**orders that a late webhook changes**",
            &format!("**{}**", self.changed_by_late),
        )?;
        row("took", &format!("{:.0} s", self.took.as_secs_f64()))
    }
}

/// The facts that a consumer of the messages knows.
pub(super) fn facts(messages: &[Message]) -> Orders {
    let mut consumer = Consumer::default();
    for message in messages {
        consumer.receive(&message.event);
    }
    consumer.orders()
}

/// Compares the orders in the stream with those that the order APIs list for these shops.
pub(super) fn orders(
    stack: &Stack,
    shops: &BTreeSet<(&'static str, &'static str)>,
    messages: &[Message],
    report: &mut Report,
) {
    let mut known = facts(messages);
    for (provider, shop) in shops {
        for order in stack.order_apis().book().orders(provider, shop, |_| true) {
            report.orders += 1;
            let Some(facts) = known.remove(&(format!("/{provider}/{shop}"), order.id.clone())) else {
                report.missing_in_the_end += 1;
                report
                    .violations
                    .add(|| format!("order {} of {provider} {shop} is not in the stream", order.id));
                continue;
            };
            let (expected, found) = (words(provider, &order), stated(&facts));
            if expected != found {
                report.other_state += 1;
                report.violations.add(|| {
                    format!(
                        "order {} of {provider} {shop} is {expected:?}, and {found:?} in the stream",
                        order.id
                    )
                });
            }
        }
    }
    for (source, order) in known.keys() {
        report
            .violations
            .add(|| format!("order {order} of {source} is in the stream, but unknown to its provider"));
    }
}

/// The words for status and payment, and the time of the last change.
type Words = [Option<String>; 3];

/// The words of an order as its provider has them.
fn words(provider: &str, order: &Order) -> Words {
    let names = match provider {
        "snipcart" => ["status", "paymentStatus"],
        "cartum" => ["stat_status", "payed"],
        "selldone" => ["delivery_state", "status"],
        _ => ["status", ""],
    };
    let json = order.value();
    let [status, payment] = names.map(|name| match &json[name] {
        Value::Null => None,
        Value::String(word) => Some(word.clone()),
        other => Some(other.to_string()),
    });
    [status, payment, order.updated_at.map(|time| time.to_string())]
}

/// The words of an order as a consumer knows them.
fn stated(facts: &Facts) -> Words {
    let text = |name: &str| facts.get(name).and_then(Value::as_str).map(str::to_owned);
    let updated = text("updated_at").map(|time| time.parse::<Timestamp>().map_or(time, |time| time.to_string()));
    [text("provider_status"), text("provider_payment_status"), updated]
}

/// Counts the orders that the messages since `before` have changed for a consumer.
pub(super) fn unchanged(before: &Orders, messages: &[Message], report: &mut Report) {
    for (order, facts) in facts(messages) {
        if before.get(&order) != Some(&facts) {
            report.changed_by_late += 1;
            report.violations.add(|| {
                format!(
                    "a late webhook changes {order:?} from {:?} to {facts:?}",
                    before.get(&order)
                )
            });
        }
    }
}

/// Checks that each state is stored once by reconciliation, under the id that it is published with.
pub(super) async fn stored_once(stack: &Stack, messages: &[Message], report: &mut Report) -> Result<(), Error> {
    report.messages = messages.len();
    let mut states = HashMap::<(String, Words), BTreeSet<String>>::new();
    let mut published = BTreeSet::new();
    for Message { event, .. } in messages {
        if event["data"]["origin"] != "reconciliation" {
            continue;
        }
        let order = &event["data"]["order"];
        let word = |name: &str| order[name].as_str().map(str::to_owned);
        let words = ["provider_status", "provider_payment_status", "updated_at"].map(word);
        let id = event["id"].as_str().unwrap_or_default().to_owned();
        let place = format!("{} {}", event["source"], order["id"]);
        states.entry((place, words)).or_default().insert(id.clone());
        published.insert(id);
    }
    for ((order, words), ids) in &states {
        if ids.len() > 1 {
            report.reconciled_twice += 1;
            report
                .violations
                .add(|| format!("the state {words:?} of {order} is reconciled as {ids:?}"));
        }
    }
    let scan = stack
        .clients()
        .dynamodb
        .scan()
        .table_name(NAME)
        .consistent_read(true)
        .projection_expression("pk, sk, origin, #state")
        .expression_attribute_names("#state", "state");
    let mut items = scan.into_paginator().items().send();
    let mut stored = BTreeSet::new();
    while let Some(item) = items.next().await {
        let item = item.map_err(|error| Error::Send(format!("the table cannot be read: {error:?}")))?;
        if text(&item, "sk") != Some("head") {
            continue;
        }
        let id = text(&item, "pk").unwrap_or_default().to_owned();
        if text(&item, "state") != Some("published") {
            report
                .violations
                .add(|| format!("{id} is {:?} in the end", text(&item, "state")));
        }
        if text(&item, "origin") == Some("reconciliation") {
            stored.insert(id);
        }
    }
    report.reconciled = stored.len();
    for id in stored.symmetric_difference(&published) {
        report
            .violations
            .add(|| format!("{id} is either stored or published by reconciliation, but not both"));
    }
    Ok(())
}
