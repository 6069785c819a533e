//! Connections to the services that are closed, reset or silent, also while a process is frozen. They may cost no
//! order, since Snipcart documents no retry.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use local::net::wire::{Damage, Wire};
use local::project::settings::SHOP;
use local::providers::snipcart::Behaviour;
use local::stack::Wires;
use serde_json::json;
use tests::secrets_manager::SecretsManager;
use tests::{Answer, Stack, freeze, order_of, state, thaw};

/// The time for one attempt over a dead connection, of at most 1.5 s, and one over a new connection.
const IN_TIME: Duration = Duration::from_millis(3500);

/// The name of a service that a function calls, and the wire to the service.
type Called = (&'static str, fn(&Wires) -> &Wire);

const CALLED: [Called; 3] = [
    ("Snipcart", |wires| &wires.snipcart),
    ("DynamoDB", |wires| &wires.dynamodb),
    ("SNS", |wires| &wires.messages),
];

async fn stack() -> Stack {
    Stack::with(|config| {
        config.wires = true;
        config.environments = 1;
    })
    .await
}

fn wires(stack: &Stack) -> &Wires {
    stack.wires().expect("the stack has wires")
}

/// Sends a new order of Snipcart.
async fn send_new(stack: &Stack) -> Answer {
    let fixture = stack.renewed("snipcart", order_of("snipcart"));
    stack.send(&fixture).await
}

/// Sends a new order and checks that it is published in time.
async fn send_and_check(stack: &Stack, what: &str) {
    let begun = Instant::now();
    let answer = send_new(stack).await;
    assert_eq!(answer.status, 200, "{what}: {answer:?}");
    let event_id = answer.event_id("accepted");
    assert!(begun.elapsed() < IN_TIME, "{what}: it took {:?}", begun.elapsed());
    assert_eq!(state(&stack.head(&event_id).await), "published", "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_connection_costs_no_delivery() {
    let all = CALLED.map(|(called, wire)| async move {
        let stack = stack().await;
        for damage in Damage::ALL {
            send_and_check(&stack, "before the damage").await;
            let damaged = wire(wires(&stack)).damage(damage);
            assert!(damaged > 0, "{called}: there is no idle connection");
            send_and_check(&stack, &format!("{called}: {damage:?}")).await;
        }
    });
    join_all(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_fails_while_frozen_costs_no_delivery() {
    let all = CALLED.map(|(called, wire)| async move {
        let stack = stack().await;
        for damage in [Damage::Close, Damage::Reset, Damage::Swallow] {
            send_and_check(&stack, "before the damage").await;
            let frozen = freeze(&stack, "snipcart").await;
            let wire = wire(wires(&stack));
            assert!(wire.damage(damage) > 0, "{called}: there is no idle connection");
            if damage != Damage::Swallow {
                while wire.open() > 0 {
                    tokio::task::yield_now().await;
                }
            }
            thaw(&frozen).await;
            send_and_check(&stack, &format!("{called}: {damage:?} while frozen")).await;
        }
    });
    join_all(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validation_is_retried_over_a_new_connection() {
    let stack = stack().await;
    stack.snipcart().behave(Behaviour::Once);
    send_new(&stack).await.event_id("accepted");
    // A request that does not reach Snipcart does not use up the token.
    for damage in [Damage::ResetOnWrite, Damage::CloseOnWrite, Damage::Swallow] {
        assert!(wires(&stack).snipcart.damage(damage) > 0);
        send_new(&stack).await.event_id("accepted");
    }
    assert!(wires(&stack).snipcart.damage(Damage::LoseAnswer) > 0);
    let answer = send_new(&stack).await;
    assert_eq!(answer.status, 503, "the confirmation was lost: {answer:?}");
    assert!(answer.header("retry-after").is_some());
    // A token that Snipcart does not know is refused.
    let fixture = stack.signed("snipcart", order_of("snipcart"));
    stack.send(&fixture).await.event_id("accepted");
    assert_eq!(stack.send(&fixture).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_connections_of_a_large_order_cost_no_delivery() {
    let stack = stack().await;
    let large = stack.send(&stack.large(3_000_000)).await;
    assert_eq!(large.status, 200, "{large:?}");
    let wires = wires(&stack);
    assert!(wires.dynamodb.accepted() > 2, "the parts are written concurrently");
    // The function is not frozen here, so it closes surplus connections.
    let closed = async {
        while wires.dynamodb.open() > 2 {
            tokio::task::yield_now().await;
        }
    };
    let closed = tokio::time::timeout(Duration::from_secs(5), closed).await;
    assert!(closed.is_ok(), "{} connections stay idle", wires.dynamodb.open());
    for (_, wire) in CALLED {
        assert!(wire(wires).damage(Damage::Swallow) > 0);
    }
    for _ in 0..2 {
        let answer = send_new(&stack).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_connection_costs_no_read_of_the_secret() {
    let all = Damage::ALL.map(|damage| async move {
        let secrets = SecretsManager::start().await;
        let wire = Wire::to(&secrets.url()).await.expect("a proxy");
        let arn = secrets.create(r#"{"shops":{}}"#).await;
        let stack = Stack::with(|config| {
            secrets.configure(config, &arn);
            let url = wire.url().to_owned();
            config
                .variables
                .insert("AWS_ENDPOINT_URL_SECRETS_MANAGER".to_owned(), url);
            config.environments = 1;
        })
        .await;
        let first = stack.deliver("snipcart", order_of("snipcart")).await;
        assert_eq!(first.status, 500, "there is no shop yet: {first:?}");
        let shop = json!({"api_keys": [local::project::settings::SNIPCART_KEY]});
        secrets.put(&json!({"shops": {SHOP: shop}}).to_string()).await;
        assert!(wire.damage(damage) > 0, "there is no idle connection");
        // The secret is read again within a few seconds, by the first attempt. Until then there is no shop.
        let begun = Instant::now();
        loop {
            let answer = stack.deliver("snipcart", order_of("snipcart")).await;
            match answer.status {
                200 => break,
                status => assert_eq!(status, 500, "{damage:?}: {answer:?}"),
            }
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{damage:?}: the secret is never read again"
            );
        }
    });
    join_all(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_leaves_time_for_storing() {
    let stack = Stack::with(|config| config.timeout = Some(Duration::from_secs(8))).await;
    stack.snipcart().behave(Behaviour::Hang);
    let begun = Instant::now();
    let answer = send_new(&stack).await;
    // 8 s without half a second for the answer and 4 s for storing.
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        (3..5).contains(&begun.elapsed().as_secs()),
        "it took {:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn snipcarts_test_and_live_keys_can_be_configured_together() {
    use local::project::settings::{SNIPCART_KEY as LIVE, SNIPCART_TEST_KEY as TEST};
    const WRONG: &str = "a-key-that-was-revoked";
    for (keys, status, calls) in [
        (&[LIVE, TEST][..], 200, 1),
        (&[TEST, LIVE], 200, 2),
        (&[WRONG, LIVE], 200, 2),
        (&[TEST, WRONG, LIVE], 200, 3),
        (&[TEST], 401, 1),
        (&[TEST, TEST], 401, 2),
        (&[WRONG], 500, 1),
        (&[WRONG, TEST], 401, 2),
        (&[TEST, WRONG], 401, 2),
    ] {
        let secret = json!({"shops": {SHOP: {"api_keys": keys}}});
        let stack = Stack::with(|config| {
            config.secrets.insert("snipcart".to_owned(), secret);
        })
        .await;
        let answer = send_new(&stack).await;
        assert_eq!(answer.status, status, "{keys:?}: {answer:?}");
        assert_eq!(stack.snipcart().asked().len(), calls, "{keys:?}");
    }
}
