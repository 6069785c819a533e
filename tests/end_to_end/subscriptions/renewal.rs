//! The end of a subscription at Cartum, which reports it by a DELETE, and its renewal by the next run of reconcile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use local::NAME;
use local::aws::faults::{Fault as CallFault, Rule, Service};
use local::providers::subscriptions::PLACES;
use tests::outbox::DENIED;

use super::*;

/// A stack with a connected shop, whose subscriptions are renewed.
async fn connected() -> Stack {
    let stack = Stack::with(renewing).await;
    connect(&stack, json!({})).await;
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_subscription_is_renewed() {
    let stack = connected().await;
    assert_eq!(watch(&stack, "cartum").await, paid_is("known"));
    let first = place(&stack, "order_paid");
    let event_id = end(&stack, &first).await;
    assert!(item(&stack, "cartum", "order_paid").await.contains_key("ended_at"));

    assert_eq!(watch(&stack, "cartum").await, paid_is("renewed"));
    let second = place(&stack, "order_paid");
    assert_eq!(second.url, format!("{}&subscription=2", first.url));
    let renewed = item(&stack, "cartum", "order_paid").await;
    assert!(!renewed.contains_key("ended_at"), "{renewed:?}");
    assert_eq!(renewed["subscription_id"], tests::outbox::text(&second.id.to_string()));
    assert_eq!(watch(&stack, "cartum").await, paid_is("known"));
    assert_eq!(place(&stack, "order_paid"), second);
    let items = format!("{:?}", stack.partition("subscriptions").await);
    assert!(!items.contains(TOKEN) && !stack.log().join("\n").contains(TOKEN));
    // The alert says that the subscription ended, although it exists again.
    assert_eq!(alert(&stack, "cartum").await.json["events"][0]["event_id"], event_id);

    // The deliveries of the new subscription are those of the first.
    let mut order = stack.renewed("cartum", "order-created");
    order.event["rawQueryString"] = second.url.split_once('?').expect("a query").1.into();
    let order = stack.send(&order).await;
    order.event_id("accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn renewal_is_off_by_default() {
    let stack = Stack::start().await;
    connect(&stack, json!({})).await;
    end(&stack, &place(&stack, "order_paid")).await;
    for _ in 0..2 {
        assert_eq!(watch(&stack, "cartum").await, paid_is("ended"));
    }
    assert_eq!(places(&stack, "order_paid"), []);
    alert(&stack, "cartum").await;
    // An operator connects the shop again.
    let statuses = connect(&stack, json!({})).await;
    let statuses: Vec<&str> = statuses.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, ["known", "subscribed", "known"]);
    assert!(place(&stack, "order_paid").url.ends_with("&subscription=2"));
    assert_eq!(watch(&stack, "cartum").await, paid_is("known"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_or_repeated_report_takes_no_second_place() {
    let stack = connected().await;
    let first = place(&stack, "order_paid");
    end(&stack, &first).await;
    report_end(&stack, &first).await.event_id("unsupported");
    assert_eq!(watch(&stack, "cartum").await, paid_is("renewed"));
    let second = place(&stack, "order_paid");
    for _ in 0..3 {
        report_end(&stack, &first).await.event_id("unsupported");
        assert_eq!(watch(&stack, "cartum").await, paid_is("known"));
        assert_eq!(place(&stack, "order_paid"), second);
    }

    // The report of the second subscription is late: an operator has subscribed again before.
    remove(&stack, &second);
    connect(&stack, json!({"again": ["order_paid"]})).await;
    let third = place(&stack, "order_paid");
    for late in [&second, &first, &second] {
        report_end(&stack, late).await.event_id("unsupported");
        assert_eq!(watch(&stack, "cartum").await, paid_is("known"));
        assert_eq!(place(&stack, "order_paid"), third);
    }
    end(&stack, &third).await;
    assert_eq!(watch(&stack, "cartum").await, paid_is("renewed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_a_renewal_is_not_repeated() {
    for lost in [Fault::Status(500), Fault::Cut] {
        let stack = connected().await;
        end(&stack, &place(&stack, "order_paid")).await;
        stack.order_apis().inject_at("cartum", SUBSCRIBE, lost, 1);
        for _ in 0..3 {
            assert_eq!(watch(&stack, "cartum").await, paid_is("unclear"), "{lost:?}");
            place(&stack, "order_paid");
        }
        // What the shop lists is an operator's to see.
        remove(&stack, &place(&stack, "order_paid"));
        connect(&stack, json!({"again": ["order_paid"]})).await;
        assert_eq!(watch(&stack, "cartum").await, paid_is("known"), "{lost:?}");
        place(&stack, "order_paid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_renewal_is_tried_again() {
    let stack = connected().await;
    end(&stack, &place(&stack, "order_paid")).await;
    let subscriptions = stack.order_apis().subscriptions();
    let strangers: Vec<u64> = (0..PLACES)
        .map(|_| subscriptions.add("cartum", SHOP, &["order_paid"], "https://stranger.example.com/"))
        .collect();
    for _ in 0..2 {
        assert_eq!(watch(&stack, "cartum").await, paid_is("failed"));
        assert!(item(&stack, "cartum", "order_paid").await.contains_key("ended_at"));
    }
    assert!(subscriptions.remove("cartum", SHOP, strangers[0]).is_some());
    assert_eq!(watch(&stack, "cartum").await, paid_is("renewed"));
    assert_eq!(places(&stack, "order_paid").len(), PLACES);
    assert_eq!(watch(&stack, "cartum").await, paid_is("known"));
}

#[tokio::test(flavor = "multi_thread")]
async fn removals_never_use_up_the_places() {
    let stack = connected().await;
    for number in 2..=21 {
        let ended = place(&stack, "order_paid");
        end(&stack, &ended).await;
        assert_eq!(watch(&stack, "cartum").await, paid_is("renewed"));
        let renewed = place(&stack, "order_paid");
        assert!(renewed.url.ends_with(&format!("&subscription={number}")), "{renewed:?}");
        report_end(&stack, &ended).await.event_id("unsupported");
    }
    assert_eq!(
        stack.order_apis().subscriptions().of("cartum", SHOP).len(),
        EVENTS.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_of_the_version_before_is_not_renewed() {
    let stack = connected().await;
    let key = item(&stack, "cartum", "order_paid").await;
    let update = stack.clients().dynamodb.update_item().table_name(NAME);
    let update = update.key("pk", key["pk"].clone()).key("sk", key["sk"].clone());
    // The version before keeps neither.
    let update = update.update_expression("REMOVE route, #number");
    let update = update.expression_attribute_names("#number", "number");
    update.send().await.expect("the item is written");

    end(&stack, &place(&stack, "order_paid")).await;
    for _ in 0..2 {
        assert_eq!(watch(&stack, "cartum").await, paid_is("ended"));
        assert_eq!(places(&stack, "order_paid"), []);
    }
    let alert = alert(&stack, "cartum").await;
    assert!(
        format!("{} {}", alert.text, alert.json).contains("again"),
        "{}",
        alert.text
    );
    connect(&stack, json!({"again": ["order_paid"]})).await;
    assert_eq!(watch(&stack, "cartum").await, paid_is("known"));
    end(&stack, &place(&stack, "order_paid")).await;
    assert_eq!(watch(&stack, "cartum").await, paid_is("renewed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_at_once_renew_once() {
    let stack = connected().await;
    // The first run is held before it notes the subscription, and then before it notes the id of the subscription.
    let calls = [("PutItem", "url_sha256"), ("UpdateItem", "subscribed_at")];
    for ((operation, part), expected) in calls.into_iter().zip(["renewed", "unclear"]) {
        end(&stack, &place(&stack, "order_paid")).await;
        let rule = Rule::new(Service::DynamoDb, operation).holding(part).times(1);
        let held = stack.tap().inject(rule, CallFault::Hold);
        let second = async {
            held.hit(1).await;
            // As if the first run had been frozen for longer than its lease.
            stack.let_leases_expire().await;
            let second = watch(&stack, "cartum").await;
            drop(held);
            second
        };
        let (_, second) = tokio::join!(stack.reconcile("cartum"), second);
        assert_eq!(second, paid_is(expected), "{operation}");
        place(&stack, "order_paid");
        assert_eq!(watch(&stack, "cartum").await, paid_is("known"), "{operation}");
    }

    // Whatever the order of their calls, one of two runs renews.
    for _ in 0..5 {
        end(&stack, &place(&stack, "order_paid")).await;
        tokio::join!(stack.reconcile("cartum"), stack.reconcile("cartum"));
        place(&stack, "order_paid");
        assert_eq!(watch(&stack, "cartum").await, paid_is("known"));
    }
}

/// Lets reconcile be killed at its call number `call`. Returns `false` if the run makes fewer calls.
async fn killed_at(stack: &Stack, call: usize, kill: CallFault) -> bool {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    stack.tap().follow(move |made| {
        made.caller.as_ref().filter(|caller| caller.starts_with(RECONCILE))?;
        (seen.fetch_add(1, Ordering::SeqCst) == call).then_some(kill)
    });
    let answer = stack
        .invoke(RECONCILE, &json!({"reconcile": {"provider": "cartum"}}))
        .await;
    stack.tap().follow_nothing();
    let was_killed = calls.load(Ordering::SeqCst) > call;
    assert_eq!(answer.is_err(), was_killed, "{answer:?}");
    was_killed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_at_any_call_takes_no_second_place() {
    let stack = connected().await;
    let mut statuses = BTreeSet::new();
    for kill in [CallFault::KillBefore, CallFault::KillAfter] {
        for call in 0.. {
            end(&stack, &place(&stack, "order_paid")).await;
            let was_killed = killed_at(&stack, call, kill).await;
            for _ in 0..2 {
                stack.let_leases_expire().await;
                let watched = watch(&stack, "cartum").await;
                let places = places(&stack, "order_paid");
                assert!(places.len() <= 1, "{kill:?} at call {call}: {places:?}");
                let is_lost = places.is_empty() && watched != paid_is("unclear");
                assert!(
                    !is_lost,
                    "{kill:?} at call {call}: {watched:?} and there is no subscription"
                );
                statuses.extend(watched.into_iter().map(|(_, status)| status));
            }
            if watch(&stack, "cartum").await == paid_is("unclear") {
                // An operator looks in the shop, ends what is there and subscribes again.
                for place in places(&stack, "order_paid") {
                    remove(&stack, &place);
                }
                connect(&stack, json!({"again": ["order_paid"]})).await;
            }
            if !was_killed {
                assert!(call > 5, "a run makes more calls than {call}");
                break;
            }
        }
    }
    let expected = ["known", "renewed", "unclear"].map(str::to_owned);
    assert_eq!(
        statuses,
        BTreeSet::from(expected),
        "a run is killed at each part of a renewal"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_period_renews_nothing() {
    let stack = connected().await;
    end(&stack, &place(&stack, "order_paid")).await;
    for parameters in [json!({"dry_run": true}), json!({"from": stack.minutes_ago(60)})] {
        let run = stack.reconcile_with("cartum", parameters).await["shops"][0].clone();
        assert_eq!(
            (&run["status"], &run["subscriptions"]),
            (&json!("complete"), &Value::Null),
            "{run}"
        );
        assert_eq!(places(&stack, "order_paid"), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_removal_has_its_own_alert() {
    let stack = connected().await;
    let mut event_ids = Vec::new();
    for _ in 0..3 {
        let event_id = end(&stack, &place(&stack, "order_paid")).await;
        let alert = alert(&stack, "cartum").await;
        assert_eq!(alert.json["events"][0]["event_id"], event_id, "{}", alert.json);
        assert!(
            !event_ids.contains(&event_id),
            "{event_id} is the delivery of an earlier removal"
        );
        event_ids.push(event_id);
        assert_eq!(watch(&stack, "cartum").await, paid_is("renewed"));
        // A new environment: one that lives notes findings of a kind once in five minutes.
        stack.environments().kill_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_cannot_be_noted_is_answered_503() {
    let stack = connected().await;
    let paid = place(&stack, "order_paid");
    remove(&stack, &paid);
    let down = stack
        .tap()
        .inject(Rule::new(Service::DynamoDb, "UpdateItem").holding("ended_at"), DENIED);
    for _ in 0..2 {
        let answer = report_end(&stack, &paid).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some());
    }
    assert!(down.hits() > 0);
    drop(down);
    report_end(&stack, &paid).await.event_id("unsupported");
    assert_eq!(watch(&stack, "cartum").await, paid_is("renewed"));
    alert(&stack, "cartum").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_report_ends_nothing() {
    let stack = connected().await;
    let paid = place(&stack, "order_paid");
    let mut forged = paid.clone();
    forged.url = paid.url.replace(TOKEN, "another-token-of-20-characters");
    assert_eq!(report_end(&stack, &forged).await.status, 401);
    assert_eq!(watch(&stack, "cartum").await, paid_is("known"));
    assert_eq!(place(&stack, "order_paid"), paid);
}
