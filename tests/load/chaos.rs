//! A short run of `cargo local chaos`: random faults and kills lose no order and store none twice.

use std::fmt;
use std::sync::Arc;

use local::chaos::{Plan, Violations, configure, reconciliation, run};
use local::project::build::workspace;
use local::project::template;
use local::providers::samples::Catalogue;
use local::recorder::log::Log;
use local::stack::{Config, Stack};

/// A stack whose calls can fail, the events to send to it, and its log.
async fn stack() -> (Arc<Stack>, Catalogue, Log) {
    let functions = template::read(&workspace().join("template.yaml")).expect("the template");
    let log = Log::memory();
    let mut config = Config::new(functions, tests::binaries().clone(), log.clone());
    configure(&mut config);
    let stack = Stack::start(config).await.expect("the stack starts");
    (Arc::new(stack), tests::catalogue(), log)
}

/// What a failed test prints.
fn details(report: &impl fmt::Display, violations: &Violations, log: &Log) -> String {
    format!(
        "{report}\n{}\n{}",
        violations.described.join("\n"),
        log.lines().join("\n")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_orders_are_stored_once_and_published() {
    let _alone = crate::alone().await;
    let (stack, catalogue, log) = stack().await;
    let plan = Plan { events: 200, seed: 1 };

    let report = run(&stack, &catalogue, plan, || {}).await.expect("the run completes");
    let details = || details(&report, &report.violations, &log);
    assert_eq!(report.violations.count, 0, "{}", details());
    assert_eq!(
        (report.lost, report.duplicated_items, report.given_up),
        (0, 0, 0),
        "{}",
        details()
    );
    assert_eq!(
        (report.acknowledged, report.stored),
        (report.events, report.events - report.conflicts),
        "{}",
        details()
    );
    assert!(report.events >= 200, "{}", details());
    assert_eq!(report.audited, report.stored + report.conflicts, "{}", details());
    assert!(
        report.not_published > 0 && report.in_parts > 0 && report.conflicts > 0,
        "not every kind of event occurred:\n{}",
        details()
    );
    let kinds: Vec<&str> = report.faults.keys().map(String::as_str).collect();
    for kind in [
        "SNS down",
        "throttled",
        "reset",
        "done, answer lost",
        "function killed before",
    ] {
        assert!(kinds.contains(&kind), "{kind} is not in {kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_and_late_webhooks_change_no_state_of_an_order() {
    let _alone = crate::alone().await;
    let (stack, catalogue, log) = stack().await;
    let plan = Plan { events: 240, seed: 1 };

    let report = reconciliation::run(&stack, &catalogue, plan, || {})
        .await
        .expect("the run completes");
    let details = || details(&report, &report.violations, &log);
    assert_eq!(report.violations.count, 0, "{}", details());
    assert_eq!(
        (
            report.missing_in_the_end,
            report.other_state,
            report.reconciled_twice,
            report.changed_by_late
        ),
        (0, 0, 0, 0),
        "{}",
        details()
    );
    assert!(
        report.orders > 100 && report.reconciled > 20 && report.newer > 0,
        "{}",
        details()
    );
    assert!(
        report.twice > 0 && report.late_in_the_end > 0 && report.never > 20,
        "{}",
        details()
    );
    for kind in [
        "reconcile killed before a call",
        "order API answers 429",
        "order API cuts a page",
    ] {
        assert!(
            report.faults.contains_key(kind),
            "{kind} is not among the faults:\n{}",
            details()
        );
    }
}
