//! Log lines and metrics: a line for each delivery and for each run of redrive, which carries the metrics, too.

use std::collections::BTreeSet;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use local::aws::faults::{Fault, Rule, Service};
use local::project::settings::REDRIVE;
use local::providers::snipcart::Behaviour;
use serde_json::json;
use tests::providers::PROVIDERS;
use tests::telemetry::{Line, NAMESPACE, documented, lines};
use tests::{ORDERS, Stack, json_body};

/// A refusal by a service, which the SDK does not retry.
const DENIED: Fault = Fault::Answer {
    status: 400,
    code: "AccessDeniedException",
};

/// A stack with metrics and with the secrets of the tests of authentication.
pub(crate) async fn stack() -> Stack {
    Stack::with(|config| {
        for facts in PROVIDERS {
            config.secrets.insert(facts.name.to_owned(), (facts.secret)());
        }
        for (name, value) in [("METRICS_NAMESPACE", NAMESPACE), ("MAX_BODY_BYTES", "1000000")] {
            config.variables.insert(name.to_owned(), value.to_owned());
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_shops_create_no_metric_dimensions() {
    let stack = stack().await;
    for (provider, order) in ORDERS {
        for shop in ["a", "shop-of-a-scanner", "main2"] {
            let mut genuine = stack.signed(provider, order);
            genuine.set_shop(shop);
            assert_eq!(stack.send(&genuine).await.status, 401);
            let mut other_method = genuine.clone();
            other_method.event["requestContext"]["http"]["method"] = Method::GET.as_str().into();
            assert_eq!(stack.send(&other_method).await.status, 405);
            let mut large = genuine.clone();
            large.set_body("x".repeat(1_000_001));
            assert_eq!(stack.send(&large).await.status, 413);
        }
    }
    let lines = lines(&stack).await;
    let deliveries: Vec<_> = lines.iter().filter(|line| line.is_delivery()).collect();
    assert_eq!(deliveries.len(), ORDERS.len() * 9);
    for line in deliveries {
        assert_eq!(line.dimensions(), [vec![], vec!["provider"]], "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misconfigured_function_logs_it_for_every_delivery() {
    let stack = Stack::with(|config| {
        config
            .variables
            .insert("METRICS_NAMESPACE".to_owned(), NAMESPACE.to_owned());
        config
            .variables
            .insert("MAX_BODY_BYTES".to_owned(), "as many as it takes".to_owned());
    })
    .await;
    for (provider, order) in ORDERS {
        assert_eq!(stack.deliver(provider, order).await.status, 500);
    }
    let lines = lines(&stack).await;
    for (provider, _) in ORDERS {
        let logged: Vec<&Line> = lines
            .iter()
            .filter(|line| line.function == provider && line.is_delivery())
            .collect();
        let [line] = logged.as_slice() else {
            panic!("{provider}: {logged:?}")
        };
        assert_eq!(
            (line.said("outcome"), line.metric("Misconfigured")),
            ("misconfigured", Some(1.0))
        );
        assert!(line.said("cause").contains("MAX_BODY_BYTES"), "{line:?}");
        assert!(!line.text.contains("as many as it takes"), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_secret_is_named_and_not_quoted() {
    let malformed = [
        json!({}),
        json!({"shops": {}}),
        json!({"shops": {"main": {"tokens": ["too-short"]}}}),
        json!({"shops": {"main": {"tokens": [], "api_keys": [], "secrets": []}}}),
        json!({"shops": {"main": {"tokens": "a-token-outside-of-a-list"}}}),
        json!("a-token-outside-of-everything"),
    ];
    for secret in malformed {
        let stack = Stack::with(|config| {
            config
                .variables
                .insert("METRICS_NAMESPACE".to_owned(), NAMESPACE.to_owned());
            config.variables.insert("SECRETS".to_owned(), secret.to_string());
        })
        .await;
        for (provider, order) in ORDERS {
            let answer = stack.deliver(provider, order).await;
            assert_eq!(answer.status, 500, "{provider} {secret}: {answer:?}");
            assert!(!answer.text.to_lowercase().contains("secret"), "{answer:?}");
        }
        stack.assert_untouched("a malformed secret").await;
        let lines = lines(&stack).await;
        let logged: Vec<&Line> = lines.iter().filter(|line| line.is_delivery()).collect();
        assert_eq!(logged.len(), ORDERS.len());
        for line in logged {
            assert_eq!(
                (line.said("secret"), line.metric("Misconfigured")),
                ("SECRETS", Some(1.0)),
                "{line:?}"
            );
            assert!(line.said("cause").contains("secret"), "{line:?}");
        }
        for value in ["too-short", "a-token-outside"] {
            assert!(lines.iter().all(|line| !line.text.contains(value)), "{lines:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_snipcart_key_is_misconfigured_and_names_its_secret() {
    let stack = stack().await;
    stack.snipcart().behave(Behaviour::Status(401));
    assert_eq!(stack.deliver("snipcart", "order-completed").await.status, 500);
    let lines = lines(&stack).await;
    let line = lines.iter().find(|line| line.is_delivery()).expect("a line");
    assert_eq!(
        (
            line.said("level"),
            line.said("outcome"),
            line.said("secret"),
            line.metric("Misconfigured")
        ),
        ("ERROR", "misconfigured", "SECRETS", Some(1.0))
    );
    assert!(line.said("cause").contains("API key"), "{line:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_run_of_redrive_measures_the_outbox() {
    let stack = stack().await;
    let mut unknown = stack.unsigned("selldone", "checkout-order");
    let mut body = json_body(&unknown);
    body["action"] = "SomethingNew".into();
    unknown.set_body(body.to_string());
    stack.sign(&mut unknown);
    stack.send(&unknown).await.event_id("quarantined");
    stack.ask(json!({"redrive": {}})).await;

    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let begun = Timestamp::now();
    stack.deliver_new(10).await;
    let delivered = Timestamp::now();
    let outage = stack.redrive().await;
    assert!(outage["outage"].is_string(), "{outage}");
    let at_most = Timestamp::now().duration_since(begun).as_secs_f64();
    drop(down);

    // Only the numbers that cannot be counted are left out.
    let uncounted = stack.tap().inject(
        Rule::new(Service::DynamoDb, "Query").holding(r#""Select":"COUNT""#),
        DENIED,
    );
    assert_eq!(stack.redrive().await["published"], 10);
    uncounted.hit(1).await;
    drop(uncounted);
    let asked = stack.tap().count(Service::DynamoDb, "Query");
    assert_eq!(stack.ask(json!({"redrive": {}})).await["published"], 0);
    let queries = stack.tap().count(Service::DynamoDb, "Query") - asked;
    assert!(queries <= 80, "{queries} queries for an empty outbox");
    stack.ask(json!({"reprocess": {"dry_run": true}})).await;

    let lines = lines(&stack).await;
    let runs: Vec<&Line> = lines
        .iter()
        .filter(|line| line.json.get("_aws").is_some() && line.function == REDRIVE)
        .collect();
    let [first, outage, uncounted, last] = runs.as_slice() else {
        panic!("expected a line for each run and for no other task: {runs:?}")
    };
    for run in &runs {
        assert_eq!(
            run.json["_aws"]["CloudWatchMetrics"][0]["Dimensions"],
            json!([[]]),
            "{run:?}"
        );
    }
    let measured =
        |line: &Line| ["OutboxAge", "FailedEvents", "QuarantinedEvents", "Redriven"].map(|name| line.metric(name));
    for run in &runs {
        assert_eq!(run.metric("ExpiringQuarantined"), None, "something expires: {run:?}");
    }
    // A count of 0 is not written.
    assert_eq!(measured(first), [Some(0.0), None, Some(1.0), None]);
    assert_eq!(measured(outage)[1..], [None, Some(1.0), None]);
    let age = outage.metric("OutboxAge").expect("an age");
    let measured_at: Timestamp = outage.said("timestamp").parse().expect("a time");
    // The age is rounded to milliseconds.
    let at_least = measured_at.duration_since(delivered).as_secs_f64() - 0.1;
    assert!(
        (at_least..=at_most).contains(&age),
        "{age} is not from {at_least} to {at_most}"
    );
    assert_eq!(outage.said("level"), "ERROR");
    assert_eq!(measured(uncounted), [Some(0.0), None, None, Some(10.0)]);
    assert_eq!(measured(last), [Some(0.0), None, Some(1.0), None]);
    let units: BTreeSet<(&str, &str)> = runs
        .iter()
        .flat_map(|run| run.metrics())
        .map(|(name, unit, _)| (name, unit))
        .collect();
    let expected = [
        ("OutboxAge", "Seconds"),
        ("QuarantinedEvents", "Count"),
        ("Redriven", "Count"),
    ];
    assert_eq!(units, expected.into());
    let names = expected.map(|(name, _)| name).into_iter();
    let names: BTreeSet<String> = names
        .chain(["FailedEvents", "ExpiringQuarantined", "AlertsSent"])
        .map(str::to_owned)
        .collect();
    assert_eq!(names, documented().1, "the table in the README");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_counts_failed_events() {
    let stack = stack().await;
    let down = stack.tap().inject(Rule::all(Service::Sns), Fault::DOWN);
    stack.deliver_new(1).await;
    drop(down);
    stack.let_an_event_fail().await;
    let lines = lines(&stack).await;
    let runs = lines.iter().filter(|line| line.said("message") == "redrive");
    let counted: Vec<_> = runs.map(|run| run.metric("FailedEvents")).collect();
    let (last, earlier) = counted.split_last().expect("runs");
    assert_eq!(*last, Some(1.0));
    assert!(earlier.iter().all(Option::is_none), "{earlier:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_counts_the_events_that_expire_within_a_week() {
    let stack = Stack::with(|config| {
        for (name, value) in [("METRICS_NAMESPACE", NAMESPACE), ("UNPUBLISHED_RETENTION_DAYS", "90")] {
            config.variables.insert(name.to_owned(), value.to_owned());
        }
    })
    .await;
    stack.deliver("snipcart", "unknown-event").await.event_id("quarantined");
    let days = |count: i64| SignedDuration::from_hours(24 * count);
    for wait in [days(0), days(82), days(1), days(7)] {
        stack.let_time_pass(wait + SignedDuration::from_mins(1)).await;
        stack.ask(json!({"redrive": {}})).await;
    }
    let lines = lines(&stack).await;
    let runs = lines.iter().filter(|line| line.said("message") == "redrive");
    let measured: Vec<_> = runs
        .map(|run| ["ExpiringQuarantined", "QuarantinedEvents"].map(|name| run.metric(name)))
        .collect();
    assert_eq!(measured[..2], [[None, Some(1.0)]; 2]);
    assert_eq!(
        measured[2..],
        [[Some(1.0), Some(1.0)], [None, None]],
        "a week before it is removed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_namespace_there_are_lines_and_no_metrics() {
    let stack = Stack::start().await;
    for (provider, order) in ORDERS {
        stack.deliver(provider, order).await.event_id("accepted");
    }
    stack.redrive().await;
    let lines = lines(&stack).await;
    assert_eq!(lines.iter().filter(|line| line.is_delivery()).count(), ORDERS.len());
    assert!(lines.iter().any(|line| line.said("message") == "redrive"));
    assert!(lines.iter().all(|line| line.json.get("_aws").is_none()), "{lines:?}");
}
