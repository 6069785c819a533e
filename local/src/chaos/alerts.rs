//! Compares the alerts with the table: each quarantined delivery and each conflict is reported once.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;

use super::check::Report;
use crate::project::settings::REDRIVE;
use crate::recorder::alerts::Alert;
use crate::stack::Stack;
use crate::{ALARMS, Error, NAME};

/// A finding is reported 30 seconds after it was stored at the earliest.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_secs(1);

/// The number of findings by kind, provider and shop.
type Findings = BTreeMap<(String, String, String), u64>;

/// Runs the task `alert` until it has reported every finding, and checks that none was reported twice.
pub(super) async fn check(stack: &Stack, report: &mut Report) -> Result<(), Error> {
    let stored = stored(stack).await?;
    let queue = stack.queue().named(ALARMS);
    let (mut reported, mut ids) = (Findings::new(), HashSet::new());
    let begun = Instant::now();
    loop {
        stack.invoke(REDRIVE, &json!({"alert": {}})).await?;
        for message in queue.drain_raw().await? {
            let Some(alert) = message.body().and_then(Alert::read) else {
                report
                    .violations
                    .add(|| format!("a message of the alarm topic is not an alert: {:?}", message.body()));
                continue;
            };
            report.alerts += 1;
            // A run that is killed after it has sent a message sends it again under the same id.
            if !ids.insert(alert.said("id").to_owned()) {
                continue;
            }
            let subject = ["kind", "provider", "shop"].map(|name| alert.said(name).to_owned());
            if ["quarantined", "conflict"].contains(&subject[0].as_str()) {
                *reported.entry(subject.into()).or_default() += alert.json["count"].as_u64().unwrap_or_default();
            }
        }
        if count(&reported) >= count(&stored) || begun.elapsed() > PATIENCE {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    report.alerted = usize::try_from(count(&reported)).unwrap_or(usize::MAX);
    for subject in stored.keys().chain(reported.keys()).collect::<HashSet<_>>() {
        let of = |findings: &Findings| findings.get(subject).copied().unwrap_or_default();
        let (stored, reported) = (of(&stored), of(&reported));
        if stored != reported {
            report
                .violations
                .add(|| format!("{subject:?}: {stored} in the table, {reported} in alerts"));
        }
    }
    Ok(())
}

fn count(findings: &Findings) -> u64 {
    findings.values().sum()
}

/// The findings in the table.
async fn stored(stack: &Stack) -> Result<Findings, Error> {
    let mut findings = Findings::new();
    let scan = stack.clients().dynamodb.scan().table_name(NAME).consistent_read(true);
    let mut items = scan.into_paginator().items().send();
    while let Some(item) = items.next().await {
        let item = item.map_err(|error| Error::Send(format!("the table cannot be read: {error:?}")))?;
        let text = |name: &str| item.get(name).map_or("", as_text).to_owned();
        // The sort keys of alerts look like those of conflicts.
        if text("pk") == "alerts" {
            continue;
        }
        let kind = match (text("sk").as_str(), text("state").as_str()) {
            ("head", "quarantined") => "quarantined",
            (sort_key, _) if sort_key.starts_with("conflict#") => "conflict",
            _ => continue,
        };
        *findings
            .entry((kind.to_owned(), text("provider"), text("shop")))
            .or_default() += 1;
    }
    Ok(findings)
}

fn as_text(value: &AttributeValue) -> &str {
    value.as_s().map_or("", String::as_str)
}
