//! The log lines and metrics of reconcile: one line for each run of a shop, without credentials and personal data.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use local::project::settings::{self, ORDER_APIS, RECONCILE, SHOP};
use local::providers::lifecycle::State;
use local::providers::order_apis::Fault;
use local::providers::order_book::Order;
use serde_json::{Value, json};
use tests::Stack;
use tests::telemetry::{Line, NAMESPACE, documented_of_reconcile, lines};

use crate::log_privacy::collect;

/// The length of the shortest text of an order that must not occur in the log. Shorter ones may be words of the log.
const PIECE: usize = 12;

/// The credentials of the order APIs, also as they are sent.
fn credentials() -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    for provider in ORDER_APIS {
        collect(&settings::api(provider, SHOP), &mut texts);
    }
    let key = settings::api("snipcart", SHOP)["key"]
        .as_str()
        .expect("a key")
        .to_owned();
    texts.insert(STANDARD.encode(format!("{key}:")));
    // The number of a shop and its domain are public, and too short to look for.
    texts.retain(|text| text.len() >= PIECE);
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_has_one_line_without_credentials_and_personal_data() {
    let stack = Stack::with(|config| {
        let namespace = ("METRICS_NAMESPACE".to_owned(), NAMESPACE.to_owned());
        config.variables.extend([namespace]);
    })
    .await;
    let (mut contents, mut answers) = (BTreeSet::new(), Vec::new());
    for provider in ORDER_APIS {
        for index in 1..=3 {
            let life = stack.life(provider, index, 60);
            stack.announce(&life, State::Placed, 60).await.event_id("accepted");
            stack.knows(&life, if index == 1 { State::Placed } else { State::Shipped }, 8);
        }
        stack.knows(&stack.life(provider, 4, 60), State::Placed, 8);
        let unreadable = Order {
            id: "unreadable".to_owned(),
            placed_at: Some(stack.minutes_ago(8)),
            updated_at: Some(stack.minutes_ago(8)),
            json: json!({"e-mail": "somebody@example.com"}).to_string().into(),
        };
        stack.order_apis().book().put(provider, SHOP, unreadable);
        for order in stack.order_apis().book().orders(provider, SHOP, |_| true) {
            collect(&order.value(), &mut contents);
        }
        for fault in [
            Fault::Half,
            Fault::Status(401),
            Fault::Redirect(1),
            Fault::TooMany(3600),
        ] {
            stack.order_apis().inject(provider, fault, 1);
            answers.push((provider, stack.reconcile(provider).await));
        }
        answers.push((provider, stack.reconcile(provider).await));
        answers.push((
            provider,
            stack.reconcile_with(provider, json!({"dry_run": true})).await["shops"][0].clone(),
        ));
        let invalid = json!({"reconcile": {"provider": provider, "from": "somebody@example.com"}});
        stack.invoke(RECONCILE, &invalid).await.expect_err("an invalid task");
    }

    let lines: Vec<Line> = lines(&stack)
        .await
        .into_iter()
        .filter(|line| line.function == RECONCILE)
        .collect();
    let runs: Vec<&Line> = lines
        .iter()
        .filter(|line| line.said("message") == "reconcile")
        .collect();
    assert_eq!(runs.len(), answers.len(), "a line for each run: {lines:#?}");
    let documented = documented_of_reconcile();
    let mut measured = BTreeSet::new();
    for (line, (provider, answer)) in runs.iter().zip(&answers) {
        assert_eq!(
            (line.said("provider"), line.said("shop")),
            (*provider, SHOP),
            "{line:?}"
        );
        assert_eq!(line.said("outcome"), answer["status"], "{line:?}");
        for (metric, count) in [
            ("Compared", "compared"),
            ("Missing", "missing"),
            ("Newer", "newer"),
            ("Unreadable", "unreadable"),
        ] {
            // A count of 0 is left out, and a dry run measures nothing.
            let expected = answer[count]
                .as_f64()
                .filter(|count| *count > 0.0 && line.json["dry_run"] != true);
            assert_eq!(line.metric(metric), expected, "{metric} of {line:?}");
        }
        let is_complete = answer["status"] == "complete" && line.json["dry_run"] != true;
        assert!(
            !is_complete || line.metric("ReconcileAgeMinutes") == Some(0.0),
            "{line:?}"
        );
        measured.extend(line.metrics().into_iter().map(|(name, _, _)| name.to_owned()));
    }
    assert_eq!(measured, documented, "the README's table");
    let complete = |answer: &&(&str, Value)| answer.1["status"] == "complete";
    assert_eq!(
        answers.iter().filter(complete).count(),
        2 * ORDER_APIS.len(),
        "{answers:#?}"
    );

    assert!(contents.len() > 50, "{} texts", contents.len());
    let said = answers.iter().map(|(_, answer)| answer.to_string());
    let log: Vec<String> = stack.log().into_iter().chain(said).collect();
    for text in contents.union(&credentials()).filter(|text| text.len() >= PIECE) {
        let leak = log.iter().find(|line| line.contains(text.as_str()));
        assert_eq!(leak, None, "{text:?} is in the log");
    }
}
