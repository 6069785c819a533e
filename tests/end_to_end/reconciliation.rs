//! Orders that no webhook announced get into the stream, once, and nothing else changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use local::aws::faults::{Fault, Rule, Service};
use local::chaos::consumer::Consumer;
use local::project::settings::{ORDER_APIS, RECONCILE, SHOP};
use local::providers::lifecycle::State;
use local::providers::order_book::Order;
use serde_json::{Value, json};
use tests::outbox::{ids, orders};
use tests::{Stack, state};

/// More calls than a run in these tests makes.
const CALLS: usize = 60;

/// Asserts what a run says about the shop: its status, and the counts that are not 0.
#[track_caller]
pub(crate) fn assert_run(run: &Value, status: &str, counts: &[(&str, u64)]) {
    assert_eq!(run["status"], status, "{run}");
    for name in [
        "compared",
        "missing",
        "newer",
        "known",
        "unreadable",
        "accepted",
        "duplicates",
    ] {
        let expected = counts.iter().find(|(count, _)| *count == name);
        assert_eq!(run[name], expected.map_or(0, |(_, count)| *count), "{name} of {run}");
    }
}

/// The only message in the queue.
async fn message(stack: &Stack) -> local::aws::queue::Message {
    let mut messages = stack.messages().await;
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_order_is_published_once() {
    let stack = Stack::start().await;
    for provider in ORDER_APIS {
        let life = stack.life(provider, 1, 120);
        stack.knows(&life, State::Placed, 8);
        let counts = [("compared", 1), ("missing", 1), ("accepted", 1)];
        assert_run(&stack.reconcile(provider).await, "complete", &counts);

        let message = message(&stack).await;
        let data = &message.event["data"];
        assert_eq!(message.event["type"], "order.created", "{provider}");
        assert_eq!(
            (&data["origin"], &data["provider_event"]),
            (&json!("reconciliation"), &json!("reconciliation"))
        );
        assert_eq!(data["order"]["id"], life.id());
        assert_eq!(message.attributes["origin"]["Value"], "reconciliation");
        let event_id = message.event["id"].as_str().expect("an id");
        assert_eq!(state(&stack.head(event_id).await), "published");

        assert_run(
            &stack.reconcile(provider).await,
            "complete",
            &[("compared", 1), ("known", 1)],
        );
        assert!(stack.messages().await.is_empty(), "{provider}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_order_changes_nothing() {
    let stack = Stack::start().await;
    for provider in ORDER_APIS {
        let life = stack.life(provider, 1, 120);
        stack.announce(&life, State::Placed, 120).await.event_id("accepted");
        assert_eq!(message(&stack).await.event["data"]["origin"], "webhook", "{provider}");
        stack.knows(&life, State::Placed, 120);
        let before = stack.items().await;
        assert_run(
            &stack.reconcile(provider).await,
            "complete",
            &[("compared", 1), ("known", 1)],
        );
        assert_eq!(stack.items().await.len(), before.len());
        assert!(stack.messages().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_state_has_the_type_of_its_change() {
    let stack = Stack::start().await;
    for (provider, shipped, delivered) in [
        ("snipcart", "order.shipped", "order.delivered"),
        // The payment comes with it.
        ("cartum", "order.paid", "order.delivered"),
        ("selldone", "order.paid", "order.delivered"),
        ("aboutyou", "order.shipped", "order.returned"),
    ] {
        let life = stack.life(provider, 1, 120);
        stack.announce(&life, State::Placed, 120).await.event_id("accepted");
        stack.messages().await;
        for (state, minutes, expected) in [(State::Shipped, 18, shipped), (State::Delivered, 8, delivered)] {
            stack.knows(&life, state, minutes);
            let counts = [("compared", 1), ("newer", 1), ("accepted", 1)];
            assert_run(&stack.reconcile(provider).await, "complete", &counts);
            assert_eq!(message(&stack).await.event["type"], expected, "{provider}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_webhook_changes_nothing_for_a_consumer() {
    let stack = Stack::start().await;
    for provider in ORDER_APIS {
        let life = stack.life(provider, 1, 120);
        stack.knows(&life, State::Shipped, 60);
        assert_run(
            &stack.reconcile(provider).await,
            "complete",
            &[("compared", 1), ("missing", 1), ("accepted", 1)],
        );
        let mut consumer = Consumer::default();
        consumer.receive(&message(&stack).await.event);
        let before = consumer.orders();
        for (state, minutes) in [(State::Shipped, 60), (State::Placed, 120)] {
            let event_id = stack.announce(&life, state, minutes).await.event_id("accepted");
            let message = message(&stack).await;
            assert_eq!(message.event["id"], event_id, "it is an event of its own");
            consumer.receive(&message.event);
            assert_eq!(consumer.orders(), before, "{provider}: {state:?} came late");
        }
        let run = stack.reconcile(provider).await;
        assert_eq!(
            (&run["missing"], &run["newer"]),
            (&json!(0), &json!(0)),
            "{provider}: {run}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_at_once_store_each_order_once() {
    let stack = Stack::start().await;
    for index in 1..=20 {
        stack.knows(&stack.life("snipcart", index, 120), State::Placed, 120);
    }
    let held = stack
        .tap()
        .inject(Rule::new(Service::DynamoDb, "PutItem").times(1), Fault::Hold);
    let first = stack.reconcile("snipcart");
    let second = async {
        held.hit(1).await;
        assert_run(&stack.reconcile("snipcart").await, "busy", &[]);
        // As if the first run had been frozen for longer than its lease.
        stack.let_leases_expire().await;
        let second = stack.reconcile("snipcart").await;
        drop(held);
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(second["status"], "complete", "{second}");
    let accepted = |run: &Value| run["accepted"].as_u64().expect("a count");
    assert_eq!(accepted(&first) + accepted(&second), 20, "{first} {second}");
    assert_eq!(stack.heads().await.len(), 20);
    assert_eq!(ids(&stack.messages().await).len(), 20);
}

/// Invokes reconcile and kills it at its call number `call`. Returns `false` if the run makes fewer calls.
async fn killed_at(stack: &Stack, call: usize, kill: Fault) -> bool {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    stack.tap().follow(move |made| {
        made.caller.as_ref().filter(|caller| caller.starts_with(RECONCILE))?;
        (seen.fetch_add(1, Ordering::SeqCst) == call).then_some(kill)
    });
    let task = json!({"reconcile": {"provider": "selldone"}});
    let answer = stack.invoke(RECONCILE, &task).await;
    stack.tap().follow_nothing();
    let was_killed = calls.load(Ordering::SeqCst) > call;
    assert_eq!(answer.is_err(), was_killed, "{answer:?}");
    was_killed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_at_any_call_is_finished_by_the_next() {
    let stack = Stack::start().await;
    let mut index = 0;
    for kill in [Fault::KillBefore, Fault::KillAfter] {
        for call in 0..CALLS {
            index += 2;
            let (missing, newer) = (stack.life("selldone", index, 60), stack.life("selldone", index + 1, 60));
            stack.announce(&newer, State::Placed, 60).await.event_id("accepted");
            stack.messages().await;
            stack.knows(&missing, State::Placed, 8);
            stack.knows(&newer, State::Shipped, 8);

            let was_killed = killed_at(&stack, call, kill).await;
            stack.let_leases_expire().await;
            let run = stack.reconcile("selldone").await;
            assert_eq!(run["status"], "complete", "{kill:?} at call {call}: {run}");
            stack.redrive().await;
            let messages = stack.messages().await;
            assert_eq!(
                orders(&messages),
                BTreeSet::from([missing.id(), newer.id()]),
                "{kill:?} at call {call}"
            );
            assert_eq!(
                ids(&messages).len(),
                2,
                "{kill:?} at call {call}: a state is stored twice"
            );
            assert_eq!(stack.states().await.keys().collect::<Vec<_>>(), ["published"]);
            for life in [missing, newer] {
                stack.order_apis().book().remove("selldone", SHOP, &life.id());
            }
            if !was_killed {
                assert!(call > 5, "a run makes more calls than {call}");
                break;
            }
            assert!(call + 1 < CALLS, "the run never completes");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_read() {
    let stack = Stack::start().await;
    stack.order_apis().limit_pages(7);
    for provider in ORDER_APIS {
        let mut expected = BTreeSet::new();
        for index in 1..=30 {
            let life = stack.life(provider, index, 60 + i64::try_from(index).expect("a number"));
            stack.knows(&life, State::Placed, 60);
            expected.insert(life.id());
        }
        let run = stack.reconcile(provider).await;
        assert_eq!(
            (&run["status"], &run["accepted"]),
            (&json!("complete"), &json!(30)),
            "{run}"
        );
        let messages = stack.messages().await;
        assert_eq!((orders(&messages), messages.len()), (expected, 30), "{provider}");
        let pages = stack
            .order_apis()
            .asked()
            .into_iter()
            .filter(|asked| asked.provider == provider && asked.orders > 0);
        assert!(pages.count() >= 5, "{provider}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_order_is_quarantined_and_the_rest_goes_on() {
    let stack = Stack::start().await;
    for provider in ORDER_APIS {
        let life = stack.life(provider, 1, 60);
        stack.knows(&life, State::Placed, 60);
        let unreadable = Order {
            id: "unreadable".to_owned(),
            placed_at: Some(stack.minutes_ago(60)),
            updated_at: Some(stack.minutes_ago(60)),
            json: json!({"a field": "of an order without an id"}).to_string().into(),
        };
        stack.order_apis().book().put(provider, SHOP, unreadable);
        let run = stack.reconcile(provider).await;
        assert_eq!(
            (&run["status"], &run["unreadable"]),
            (&json!("complete"), &json!(1)),
            "{provider}: {run}"
        );
        assert_eq!(message(&stack).await.event["data"]["order"]["id"], life.id());
        let heads = stack.heads().await;
        let quarantined = heads.iter().filter(|head| state(head) == "quarantined");
        let of_provider = quarantined.filter(|head| head["provider"].as_s().is_ok_and(|name| name == provider));
        assert_eq!(of_provider.count(), 1, "{provider}");

        let run = stack.reconcile(provider).await;
        assert_eq!(run["status"], "complete", "{run}");
        assert_eq!(stack.heads().await.len(), heads.len(), "{provider}: it is stored again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_order_stays_erased() {
    let stack = Stack::start().await;
    for provider in ORDER_APIS {
        let life = stack.life(provider, 1, 60);
        stack.announce(&life, State::Placed, 60).await.event_id("accepted");
        stack.messages().await;
        let erase = json!({"provider": provider, "shop": SHOP, "order": life.id(), "dry_run": false});
        assert_eq!(stack.ask(json!({ "erase": erase })).await["erased"], 1);
        for state in [State::Placed, State::Shipped] {
            stack.knows(&life, state, 8);
            let run = stack.reconcile(provider).await;
            assert_eq!(
                (&run["status"], &run["accepted"]),
                (&json!("complete"), &json!(0)),
                "{provider}: {run}"
            );
            assert!(stack.messages().await.is_empty(), "{provider}");
        }
    }
    assert_eq!(
        stack.states().await.into_iter().collect::<Vec<_>>(),
        [("erased".to_owned(), ORDER_APIS.len())]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_order_stays_erased_whatever_is_stored_of_it() {
    let stack = Stack::start().await;
    for provider in ORDER_APIS {
        let life = stack.life(provider, 1, 60);
        let mut erase = json!({"provider": provider, "shop": SHOP, "order": life.id(), "dry_run": false});
        assert_eq!(stack.ask(json!({ "erase": erase })).await["erased"], 0);
        stack.knows(&life, State::Placed, 60);
        let run = stack.reconcile(provider).await;
        assert_run(&run, "complete", &[("compared", 1), ("known", 1)]);

        // A webhook that arrives after the erasure is stored, but reconciliation adds nothing.
        stack.announce(&life, State::Placed, 60).await.event_id("accepted");
        assert_eq!(stack.messages().await.len(), 1, "{provider}");
        stack.knows(&life, State::Shipped, 8);
        let run = stack.reconcile(provider).await;
        assert_run(&run, "complete", &[("compared", 1), ("known", 1)]);
        assert!(stack.messages().await.is_empty(), "{provider}");

        // A dry run of the erasure notes nothing.
        let other = stack.life(provider, 2, 8);
        erase["order"] = other.id().into();
        erase["dry_run"] = true.into();
        assert_eq!(stack.ask(json!({ "erase": erase })).await["erased"], 0);
        stack.knows(&other, State::Placed, 8);
        let run = stack.reconcile(provider).await;
        assert_run(
            &run,
            "complete",
            &[("compared", 2), ("missing", 1), ("known", 1), ("accepted", 1)],
        );
        stack.messages().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_by_day_and_stores_nothing() {
    let stack = Stack::start().await;
    let day = |minutes: i64| stack.minutes_ago(minutes).to_string()[..10].to_owned();
    for provider in ORDER_APIS {
        for (index, minutes) in [(1, 60), (2, 60), (3, 3 * 24 * 60)] {
            stack.knows(&stack.life(provider, index, minutes), State::Placed, minutes);
        }
        let from = stack.minutes_ago(4 * 24 * 60);
        let answer = stack
            .reconcile_with(provider, json!({"shop": SHOP, "from": from, "dry_run": true}))
            .await;
        let run = &answer["shops"][0];
        assert_run(run, "complete", &[("compared", 3), ("missing", 3)]);
        assert_eq!(run["by_day"][day(60)]["missing"], 2, "{run}");
        assert_eq!(run["by_day"][day(3 * 24 * 60)]["missing"], 1, "{run}");
        stack.assert_untouched(provider).await;
        assert_eq!(
            stack
                .runs_of(provider)
                .await
                .and_then(|run| run.get("last_complete_at").cloned()),
            None
        );
    }
    // The window of a scheduled run does not reach back that far.
    let run = stack.reconcile("snipcart").await;
    assert_eq!(run["accepted"], 2, "{run}");
    let to = Timestamp::now();
    let asked = json!({"shop": SHOP, "from": stack.minutes_ago(4 * 24 * 60), "to": to});
    let run = stack.reconcile_with("snipcart", asked).await["shops"][0].clone();
    assert_eq!(
        (&run["status"], &run["accepted"]),
        (&json!("complete"), &json!(1)),
        "{run}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_a_day_finds_changes_of_older_orders() {
    let stack = Stack::start().await;
    let days = |days: i64| days * 24 * 60;
    for provider in ["snipcart", "cartum"] {
        // The first run does not import what was placed before its period.
        let (known, older) = (stack.life(provider, 1, days(5)), stack.life(provider, 2, days(20)));
        for life in [&known, &older] {
            stack.knows(life, State::Placed, days(5));
        }
        stack
            .announce(&known, State::Placed, days(5))
            .await
            .event_id("accepted");
        stack.messages().await;
        assert_run(&stack.reconcile(provider).await, "complete", &[]);

        // The webhook of the change is lost.
        stack.knows(&known, State::Shipped, 60);
        // The daily run reaches back to the period of the first run, which was twelve days ago.
        stack.daily_run_is_due(provider, days(14)).await;
        let counts = [("compared", 1), ("newer", 1), ("accepted", 1)];
        assert_run(&stack.reconcile(provider).await, "complete", &counts);
        let event = message(&stack).await.event;
        assert_eq!(
            (&event["data"]["order"]["id"], &event["data"]["origin"]),
            (&json!(known.id()), &json!("reconciliation")),
            "{provider}"
        );
        // The other runs of the day do not look back as far.
        assert_run(&stack.reconcile(provider).await, "complete", &[]);
    }
}
