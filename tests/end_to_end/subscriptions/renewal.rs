//! The end of a subscription at Cartum, which reports it by a DELETE, and its renewal by the next run of reconcile.

use std::future::Future;
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
    assert_ne!(second.url, first.url);
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
    assert_eq!(watch(&stack, "cartum").await, paid_is("ended"));
    alert(&stack, "cartum").await;
    // Every run finds it, so the alert is not over before it is subscribed again.
    for _ in 0..2 {
        assert_eq!(watch(&stack, "cartum").await, paid_is("ended"));
        alert(&stack, "cartum").await;
    }
    assert_eq!(places(&stack, "order_paid"), []);
    // An operator connects the shop again.
    let statuses = connect(&stack, json!({})).await;
    let statuses: Vec<&str> = statuses.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, ["known", "subscribed", "known"]);
    place(&stack, "order_paid");
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
        let_attempts_end(&stack).await;
        assert_eq!(watch(&stack, "cartum").await, paid_is("unclear"), "{lost:?}");
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
    let mut urls = BTreeSet::new();
    for _ in 0..20 {
        let ended = place(&stack, "order_paid");
        end(&stack, &ended).await;
        assert_eq!(watch(&stack, "cartum").await, paid_is("renewed"));
        let renewed = place(&stack, "order_paid");
        assert!(
            urls.insert(renewed.url.clone()),
            "{renewed:?} has the URL of an earlier one"
        );
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
    // The version before has no word in the URL, and keeps neither this nor the route.
    let mut paid = place(&stack, "order_paid");
    let without_word = paid.url.split_once("&subscription=").expect("a word").0.to_owned();
    let sha256 = tests::outbox::text(&shared::identity::sha256_hex(without_word.as_bytes()));
    let update = update.update_expression("SET url_sha256 = :sha256 REMOVE route, attempt_id");
    let update = update.expression_attribute_values(":sha256", sha256);
    update.send().await.expect("the item is written");
    let statuses = connect(&stack, json!({})).await;
    assert!(statuses.iter().all(|(status, _)| status == "known"), "{statuses:?}");

    // The report is only an alert, because it may be of a subscription that was made by hand.
    remove(&stack, &paid);
    paid.url = without_word;
    let event_id = report_end(&stack, &paid).await.event_id("unsupported");
    assert_eq!(watch(&stack, "cartum").await, paid_is("known"));
    assert_eq!(alert(&stack, "cartum").await.json["events"][0]["event_id"], event_id);
    assert_eq!(places(&stack, "order_paid"), []);
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

    // Whatever the order of their calls, one of a run and of tasks that take no lease subscribes the event.
    for _ in 0..5 {
        end(&stack, &place(&stack, "order_paid")).await;
        tokio::join!(
            stack.reconcile("cartum"),
            connect(&stack, json!({})),
            connect(&stack, json!({}))
        );
        place(&stack, "order_paid");
        assert_eq!(watch(&stack, "cartum").await, paid_is("known"));
    }
}

/// Calls a task while the attempt of another to subscribe `order_paid` again is held before it notes the id. Returns the
/// result.
async fn during_an_attempt<T>(stack: &Stack, task: impl Future<Output = T>) -> T {
    let rule = Rule::new(Service::DynamoDb, "UpdateItem")
        .holding("subscribed_at")
        .times(1);
    let held = stack.tap().inject(rule, CallFault::Hold);
    let meanwhile = async {
        held.hit(1).await;
        let result = task.await;
        drop(held);
        result
    };
    let again = json!({"again": ["order_paid"]});
    let (_, result) = tokio::join!(connect(stack, again), meanwhile);
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_takes_no_second_place_during_an_attempt() {
    let stack = connected().await;
    remove(&stack, &place(&stack, "order_paid"));
    let again = connect(&stack, json!({"again": ["order_paid"]}));
    let during = during_an_attempt(&stack, again).await;
    assert_eq!(during[1], ("unclear".to_owned(), Value::Null));
    place(&stack, "order_paid");
    assert_eq!(watch(&stack, "cartum").await, paid_is("known"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_reported_during_an_attempt_is_marked() {
    let stack = connected().await;
    remove(&stack, &place(&stack, "order_paid"));
    during_an_attempt(&stack, async { end(&stack, &place(&stack, "order_paid")).await }).await;
    let noted = item(&stack, "cartum", "order_paid").await;
    assert!(
        noted.contains_key("ended_at") && noted.contains_key("subscription_id"),
        "{noted:?}"
    );
    assert_eq!(watch(&stack, "cartum").await, paid_is("renewed"));

    // The answer was lost, and the end says that the subscription was made.
    end(&stack, &place(&stack, "order_paid")).await;
    stack.order_apis().inject_at("cartum", SUBSCRIBE, Fault::Status(500), 1);
    assert_eq!(watch(&stack, "cartum").await, paid_is("unclear"));
    end(&stack, &place(&stack, "order_paid")).await;
    assert_eq!(watch(&stack, "cartum").await, paid_is("renewed"));
    place(&stack, "order_paid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_leaves_no_note_of_a_subscription_that_has_ended() {
    let stack = connected().await;
    let paid = place(&stack, "order_paid");
    remove(&stack, &paid);
    let subscriptions = stack.order_apis().subscriptions();
    let strangers: Vec<u64> = (0..PLACES)
        .map(|_| subscriptions.add("cartum", SHOP, &["order_paid"], "https://stranger.example.com/"))
        .collect();
    let refused = connect(&stack, json!({"again": ["order_paid"]})).await;
    assert_eq!(refused[1], ("failed".to_owned(), Value::Null));
    // A late report changes nothing, and a run subscribes.
    report_end(&stack, &paid).await.event_id("unsupported");
    assert_eq!(watch(&stack, "cartum").await, paid_is("failed"));
    assert!(subscriptions.remove("cartum", SHOP, strangers[0]).is_some());
    assert_eq!(watch(&stack, "cartum").await, paid_is("renewed"));
    assert_eq!(places(&stack, "order_paid").len(), PLACES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_a_subscription_made_by_hand_ends_no_other() {
    let stack = connected().await;
    let mut by_hand = place(&stack, "order_paid");
    let without_word = by_hand.url.split_once("&subscription=").expect("a word").0.to_owned();
    for url in [
        format!("{without_word}&subscription=2"),
        format!("{without_word}&subscription="),
        without_word,
    ] {
        by_hand.url = url;
        report_end(&stack, &by_hand).await.event_id("unsupported");
        assert_eq!(watch(&stack, "cartum").await, paid_is("known"));
        place(&stack, "order_paid");
    }
    let alert = alert(&stack, "cartum").await;
    assert!(
        alert.text.contains(shared::alert::NOT_NOTED) && !alert.text.contains("cargo local connect"),
        "{}",
        alert.text
    );
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
                let_attempts_end(&stack).await;
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
    // The provider may not repeat it, so the alert does not wait for the mark.
    alert(&stack, "cartum").await;
    report_end(&stack, &paid).await.event_id("unsupported");
    assert_eq!(watch(&stack, "cartum").await, paid_is("renewed"));
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
