//! Runs of reconcile that meet a failing table, another run, an unreadable item or a failing shop.

use std::collections::BTreeSet;
use std::pin::pin;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::{join_all, select};
use local::aws::faults::{Fault, Injection, Rule, Service};
use local::project::settings::{self, ORDER_APIS, RECONCILE, SHOP};
use local::providers::lifecycle::{Life, State};
use serde_json::{Value, json};
use tests::outbox::{self, ids};
use tests::table::Item;
use tests::{Stack, freeze, gzip, thaw};

use crate::reconciliation::assert_run;

/// The orders in a page.
const PAGE: usize = 5;
/// The orders of a shop, which take three pages.
const ORDERS: usize = 12;
/// The order on the second page whose calls fail.
const FAILING: usize = 8;

/// The call that fails in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    /// The events of an order are listed.
    List,
    /// The heads of the events are read.
    ReadHeads,
    /// An event is stored.
    Store,
    /// The position of the next page is saved.
    SavePosition,
}

/// The orders of a provider: all are missing, except that one has been announced and has changed since.
struct Orders {
    provider: &'static str,
    lives: Vec<Life>,
    announced_as: String,
}

impl Orders {
    /// Lets the provider know its orders, the last changed first.
    async fn of(stack: &Stack, provider: &'static str, round: usize) -> Self {
        let mut lives = Vec::new();
        let mut announced_as = String::new();
        for number in 1..=ORDERS {
            let minutes = 60 + 2 * i64::try_from(number).expect("a number");
            let life = stack.life(provider, round * 100 + number, minutes);
            if number == FAILING {
                announced_as = stack.announce(&life, State::Placed, minutes).await.event_id("accepted");
                stack.knows(&life, State::Shipped, minutes - 1);
            } else {
                stack.knows(&life, State::Placed, minutes);
            }
            lives.push(life);
        }
        Self {
            provider,
            lives,
            announced_as,
        }
    }

    /// Lets a call for the order on the second page fail, or the first write of a position.
    fn inject(&self, stack: &Stack, failing: Failing, fault: Fault) -> Injection {
        let order_key = format!("{}#{SHOP}#{}", self.provider, self.lives[FAILING - 1].id());
        let rule = match failing {
            Failing::List => Rule::new(Service::DynamoDb, "Query").holding(order_key),
            Failing::ReadHeads => Rule::new(Service::DynamoDb, "BatchGetItem").holding(&self.announced_as),
            Failing::Store => Rule::new(Service::DynamoDb, "PutItem").holding(order_key),
            Failing::SavePosition => Rule::new(Service::DynamoDb, "UpdateItem").holding("resume"),
        };
        stack.tap().inject(rule, fault)
    }
}

/// The end of the last complete run, and the time up to which the shop is complete.
async fn completed(stack: &Stack, provider: &str) -> Vec<Option<AttributeValue>> {
    let runs = stack.runs_of(provider).await.unwrap_or_default();
    let names = ["last_complete_at", "complete_until"];
    names.map(|name| runs.get(name).cloned()).to_vec()
}

/// Lets a call of a run fail, and then lets the next run complete.
async fn fail_once(stack: &Stack, orders: &Orders, failing: Failing, fault: Fault) {
    let provider = orders.provider;
    let case = format!("{provider}, {failing:?}, {fault:?}");
    let before = completed(stack, provider).await;
    let injected = orders.inject(stack, failing, fault);
    let run = stack.reconcile(provider).await;
    assert!(injected.hits() > 0, "{case}: the call is not made");
    drop(injected);
    assert_eq!(run["status"], "unavailable", "{case}: {run}");
    assert!(
        run["cause"].as_str().expect("a cause").contains("DynamoDB"),
        "{case}: {run}"
    );
    assert!(
        run["accepted"].as_u64() >= Some(5),
        "{case}: the first page is stored: {run}"
    );
    assert_eq!(
        completed(stack, provider).await,
        before,
        "{case}: the run counts as complete"
    );

    let mut compared = ORDERS - PAGE;
    if failing == Failing::SavePosition {
        // The end of the run could not be recorded either.
        assert_run(&stack.reconcile(provider).await, "busy", &[]);
        stack.let_leases_expire().await;
        compared = ORDERS;
    }
    let run = stack.reconcile(provider).await;
    assert_eq!(
        (&run["status"], &run["compared"]),
        (&json!("complete"), &json!(compared)),
        "{case}: {run}"
    );
    assert_ne!(completed(stack, provider).await, before, "{case}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_fails_lets_nothing_be_concluded() {
    let stack = Stack::start().await;
    stack.order_apis().limit_pages(PAGE);
    let calls = [Failing::List, Failing::ReadHeads, Failing::Store, Failing::SavePosition];
    for (round, fault) in [Fault::DOWN, Fault::THROTTLED, Fault::Reset].into_iter().enumerate() {
        let orders = join_all(ORDER_APIS.map(|provider| Orders::of(&stack, provider, round))).await;
        assert_eq!(stack.messages().await.len(), ORDER_APIS.len(), "the announced orders");
        let failing = calls.into_iter().cycle().skip(round);
        for (orders, failing) in orders.iter().zip(failing) {
            fail_once(&stack, orders, failing, fault).await;
        }
        stack.redrive().await;
        let messages = stack.messages().await;
        let expected = orders
            .iter()
            .flat_map(|orders| orders.lives.iter().map(Life::id))
            .collect();
        assert_eq!(outbox::orders(&messages), expected, "{fault:?}");
        let count = ORDERS * ORDER_APIS.len();
        assert_eq!((messages.len(), ids(&messages).len()), (count, count), "{fault:?}");
        for Orders { provider, lives, .. } in orders {
            let run = stack.reconcile(provider).await;
            assert_eq!(
                (&run["missing"], &run["newer"]),
                (&json!(0), &json!(0)),
                "{provider}: {run}"
            );
            // The next round looks back as far as the first run did.
            stack.delete(RECONCILE, &format!("{provider}#{SHOP}")).await;
            for life in lives {
                stack.order_apis().book().remove(provider, SHOP, &life.id());
            }
        }
    }
}

/// A run that is frozen at its first page for longer than its lease, while another run works at the shop.
async fn lose_lease(orders: usize, parameters: Value, is_second_over: bool) {
    let stack = Stack::start().await;
    stack.order_apis().limit_pages(PAGE);
    for number in 1..=orders {
        stack.knows(&stack.life("selldone", number, 60), State::Placed, 60);
    }
    let query = || {
        stack
            .tap()
            .inject(Rule::new(Service::DynamoDb, "Query").times(1), Fault::Hold)
    };
    let held = query();
    let mut first = pin!(stack.reconcile_with("selldone", parameters.clone()));
    select(first.as_mut(), pin!(held.hit(1))).await;
    let frozen_first = freeze(&stack, RECONCILE).await;
    drop(held);
    stack.let_leases_expire().await;

    let held = query();
    let mut second = pin!(stack.reconcile("selldone"));
    select(second.as_mut(), pin!(held.hit(1))).await;
    let frozen_both = freeze(&stack, RECONCILE).await;
    assert_eq!((frozen_first.len(), frozen_both.len()), (1, 2));
    drop(held);
    let frozen_second: Vec<u32> = frozen_both
        .into_iter()
        .filter(|pid| !frozen_first.contains(pid))
        .collect();
    let mut second_run = None;
    if is_second_over {
        thaw(&frozen_second).await;
        second_run = Some(second.as_mut().await);
    }
    let before = stack.runs_of("selldone").await.expect("the second run has begun");
    assert_eq!(before.contains_key("lease_id"), !is_second_over, "{before:?}");
    thaw(&frozen_first).await;
    let first = first.await;
    let case = format!("{orders} orders, {parameters}, {is_second_over}: {first}");
    assert_eq!(stack.runs_of("selldone").await, Some(before), "{case}");
    assert_eq!(
        (&first["done"], &first["shops"][0]["status"]),
        (&json!(false), &json!("busy")),
        "{case}"
    );

    if !is_second_over {
        thaw(&frozen_second).await;
        second_run = Some(second.await);
    }
    let second = second_run.expect("the second run has ended");
    assert_eq!(second["status"], "complete", "{case}: {second}");
    assert_eq!(stack.heads().await.len(), orders, "{case}");
    let messages = stack.messages().await;
    assert_eq!((messages.len(), ids(&messages).len()), (orders, orders), "{case}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_has_lost_its_lease_concludes_nothing() {
    for is_second_over in [false, true] {
        // The loss is noticed after a page.
        lose_lease(ORDERS, json!({}), is_second_over).await;
        // The loss is noticed at the end of the only page.
        lose_lease(PAGE - 1, json!({}), is_second_over).await;
        lose_lease(
            PAGE - 1,
            json!({"shop": SHOP, "from": "2020-01-01T00:00:00Z"}),
            is_second_over,
        )
        .await;
    }
}

/// Damages an item as an edit by hand, a lost write or a newer version would.
type Damage = fn(&mut Item);

const DAMAGES: [Damage; 5] = [
    |head| put_text(head, "order_version", "not a version"),
    |head| put_text(head, "time", "yesterday"),
    // A word of a newer version.
    |head| put_text(head, "state", "archived"),
    |head| put_event(head, b"not compressed".to_vec()),
    |head| put_event(head, gzip(b"{\"not\": \"an event\"}")),
];

fn put_text(head: &mut Item, name: &str, text: &str) {
    head.insert(name.to_owned(), AttributeValue::S(text.to_owned()));
}

/// Replaces the event of a head of a version that did not write `order_version`.
fn put_event(head: &mut Item, bytes: Vec<u8>) {
    head.remove("order_version");
    head.insert("event".to_owned(), AttributeValue::B(Blob::new(bytes)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_head_does_not_hold_up_other_orders() {
    let stack = Stack::start().await;
    for provider in ORDER_APIS {
        let damaged = DAMAGES.len();
        let mut damaged_ids = BTreeSet::new();
        for (index, damage) in DAMAGES.into_iter().enumerate() {
            let life = stack.life(provider, index + 1, 60);
            let event_id = stack.announce(&life, State::Placed, 60).await.event_id("accepted");
            let mut head = stack.head(&event_id).await;
            damage(&mut head);
            stack.put(head).await;
            stack.knows(&life, State::Placed, 60);
        }
        stack.messages().await;
        for (round, unreadable) in ["the event of the webhook", "the reconciled event too"]
            .into_iter()
            .enumerate()
        {
            // Its last change is the oldest, so it is listed last.
            let missing = stack.life(provider, 100 + round, 120);
            stack.knows(&missing, State::Placed, 120);
            let run = stack
                .reconcile_with(provider, json!({"shop": SHOP, "from": stack.minutes_ago(180)}))
                .await;
            let case = format!("{provider}, {unreadable}: {run}");
            let run = &run["shops"][0];
            assert_eq!(run["status"], "complete", "{case}");
            // An order whose reconciled event cannot be read either is not missing. The state is what a write needs.
            let counts = ["missing", "known", "unreadable"].map(|name| run[name].as_u64());
            let expected = if round == 0 { [6, 0, 0] } else { [1, 4, 1] };
            assert_eq!(counts, expected.map(Some), "{case}");
            let messages = stack.messages().await;
            assert!(outbox::orders(&messages).contains(&missing.id()), "{case}");
            // An order without a readable event is published once more, and not again by a later run.
            assert_eq!(messages.len(), if round == 0 { damaged + 1 } else { 1 }, "{case}");

            stack.order_apis().book().remove(provider, SHOP, &missing.id());
            for (index, damage) in DAMAGES.into_iter().enumerate() {
                let order = stack.life(provider, index + 1, 60).id();
                let is_of_order = |head: &&Item| {
                    head.get("order_key")
                        .is_some_and(|key| *key == AttributeValue::S(format!("{provider}#{SHOP}#{order}")))
                };
                let heads = stack.heads().await;
                let of_order: Vec<&Item> = heads.iter().filter(is_of_order).collect();
                assert_eq!(of_order.len(), 2, "{case}");
                for head in of_order {
                    let mut head = head.clone();
                    damaged_ids.insert(head["pk"].as_s().expect("a key").clone());
                    damage(&mut head);
                    stack.put(head).await;
                }
            }
        }
        let log = stack.log();
        for event_id in damaged_ids {
            let is_report = |line: &&String| line.contains("corrupt_item") && line.contains(&event_id);
            assert!(log.iter().any(|line| is_report(&line)), "{provider}: {event_id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_period_goes_on_after_a_shop_that_fails() {
    let shops = ["a-good", "b-refused", "c-failing", "d-malformed", "e-good"];
    for provider in ORDER_APIS {
        let stack = Stack::with(|config| {
            let mut secret = settings::secret(provider).expect("a secret");
            let template = secret["shops"][SHOP].clone();
            secret["shops"] = json!({});
            for shop in shops {
                let mut of_shop = template.clone();
                of_shop["api"] = settings::api(provider, shop);
                let api = of_shop["api"].as_object_mut().expect("an object");
                match shop {
                    "b-refused" => {
                        for name in ["key", "token", "password"] {
                            api.entry(name).and_modify(|value| *value = "wrong".into());
                        }
                    }
                    "d-malformed" => api.extend([("unknown".to_owned(), json!("field"))]),
                    _ => {}
                }
                secret["shops"][shop] = of_shop;
            }
            config.secrets.insert(provider.to_owned(), secret);
        })
        .await;
        let life = stack.life(provider, 1, 60);
        let webhook = life.webhook(State::Placed, stack.minutes_ago(60)).expect("a webhook");
        for shop in shops {
            let body = webhook.body().expect("a body");
            assert!(stack.order_apis().book().delivered(provider, shop, &body));
        }
        let failing = Rule::new(Service::DynamoDb, "Query").holding(format!("{provider}#c-failing#"));
        let failing = stack.tap().inject(failing, Fault::DOWN);
        let answer = stack
            .reconcile_with(provider, json!({"from": stack.minutes_ago(120)}))
            .await;
        let statuses = |answer: &Value| {
            let shops = answer["shops"].as_array().expect("a list").iter();
            shops
                .map(|shop| (shop["shop"].clone(), shop["status"].clone()))
                .collect::<Vec<_>>()
        };
        let expected = |shop: &str| {
            if shop.ends_with("good") {
                "complete"
            } else {
                "unavailable"
            }
        };
        let expected: Vec<_> = shops.iter().map(|shop| (json!(shop), json!(expected(shop)))).collect();
        assert_eq!(statuses(&answer), expected, "{provider}: {answer}");
        assert_eq!(
            (&answer["done"], &answer["cursor"]),
            (&json!(false), &Value::Null),
            "{provider}: {answer}"
        );
        let published = |messages: Vec<local::aws::queue::Message>| {
            let shops = messages.iter().map(|message| message.event["data"]["shop"].clone());
            shops.collect::<Vec<_>>()
        };
        assert_eq!(published(stack.messages().await), ["a-good", "e-good"], "{provider}");

        drop(failing);
        let answer = stack
            .reconcile_with(provider, json!({"from": stack.minutes_ago(120)}))
            .await;
        assert_eq!(answer["shops"][2]["status"], "complete", "{provider}: {answer}");
        assert_eq!(published(stack.messages().await), ["c-failing"], "{provider}");
    }
}
