//! Secrets in Secrets Manager: read ahead, kept, read again when they may have changed, and never told to anyone. With
//! `MOTO_SERVER` it is moto's.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use local::settings::{SHOP, TOKEN};
use serde_json::json;
use tests::secrets_manager::SecretsManager;
use tests::telemetry::{NAMESPACE, lines};
use tests::{Stack, order_of};
use tokio::time::{Instant, sleep};

const NEW: &str = "another-development-token";
const NEVER_LIVE: &str = "no-token-that-was-ever-live";

/// Providers with a token in the URL: one secret does for all of them.
const PROVIDERS: [&str; 3] = ["selldone", "cartum", "aboutyou"];

/// How soon a function may ask again.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What two clocks on a busy machine may differ by.
const TOLERANCE: Duration = Duration::from_millis(500);

fn tokens(tokens: &[&str]) -> String {
    json!({"shops": {SHOP: {"tokens": tokens}}}).to_string()
}

async fn stack(secrets: &SecretsManager, arn: &str) -> Stack {
    Stack::with(|config| {
        secrets.configure(config, arn);
        config
            .variables
            .insert("METRICS_NAMESPACE".to_owned(), NAMESPACE.to_owned());
        config.environments = 3;
    })
    .await
}

/// The status that a new order with this token is answered.
async fn send(stack: &Stack, provider: &str, token: &str) -> u16 {
    let mut fixture = stack.unsigned(provider, order_of(provider));
    fixture.renew().expect("an order");
    let mut query = fixture.query();
    query.retain(|(name, _)| name != "token");
    query.push(("token".to_owned(), token.to_owned()));
    fixture.set_query(&query);
    stack.send(&fixture).await.status
}

/// Deliveries from several senders at once, with these tokens by turns, until `done`; how many were answered otherwise.
async fn load(stack: &Stack, tokens: &[&str], expected: u16, done: impl Fn() -> bool) -> (usize, usize) {
    let (sent, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let senders = PROVIDERS.into_iter().chain(PROVIDERS).map(|provider| async {
        let mut turns = tokens.iter().cycle();
        while !done() {
            let token = turns.next().expect("a token");
            sent.fetch_add(1, Ordering::Relaxed);
            if send(stack, provider, token).await != expected {
                wrong.fetch_add(1, Ordering::Relaxed);
            }
            // The pace of a busy shop.
            sleep(Duration::from_millis(20)).await;
        }
    });
    join_all(senders).await;
    (sent.into_inner(), wrong.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_under_load_refuses_no_delivery_and_a_flood_of_forgeries_asks_twice_a_minute() {
    let secrets = SecretsManager::start().await;
    let arn = secrets.create(&tokens(&[TOKEN])).await;
    let stack = stack(&secrets, &arn).await;
    // Every environment there can be has its value before the new one is stored.
    let warm = Instant::now() + Duration::from_secs(1);
    load(&stack, &[TOKEN], 200, || Instant::now() >= warm).await;
    secrets.put(&tokens(&[TOKEN, NEW])).await;
    let stored = Instant::now();

    let used = stored + ASKED_AGAIN_AFTER + TOLERANCE;
    let (sent, refused) = load(&stack, &[TOKEN], 200, || Instant::now() >= used).await;
    assert!(
        refused == 0 && sent > 100,
        "{refused} of {sent} were refused before the first use"
    );
    let end = Instant::now() + Duration::from_secs(4);
    let (sent, refused) = load(&stack, &[TOKEN, NEW], 200, || Instant::now() >= end).await;
    assert!(
        refused == 0 && sent > 30,
        "{refused} of {sent} were refused in the rotation"
    );
    let end = Instant::now() + Duration::from_secs(4);
    let (sent, passed) = load(&stack, &[NEVER_LIVE], 401, || Instant::now() >= end).await;
    assert!(passed == 0 && sent > 30, "{passed} of {sent} forgeries passed");

    let calls = secrets.calls();
    assert!(calls.len() >= PROVIDERS.len(), "{calls:?}");
    let asked: usize = calls.values().map(Vec::len).sum();
    assert!(asked > calls.len(), "somebody has read the new value: {calls:?}");
    for (environment, times) in calls {
        let soonest = times.windows(2).map(|pair| pair[1] - pair[0]).min();
        assert!(
            soonest.is_none_or(|soonest| soonest + TOLERANCE >= ASKED_AGAIN_AFTER),
            "{environment} asked again after {soonest:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_secret_is_ours_and_is_told_with_its_name_and_without_its_value() {
    let secrets = SecretsManager::start().await;
    let value = r#"{"shops":{"main":{"tokens":["a-value-that-nobody-may-see",7]}}}"#;
    let arn = secrets.create(value).await;
    let missing = arn.replace(local::NAME, "missing");
    let outage = stack(&secrets, &arn).await;
    secrets.set_down(true);
    for provider in PROVIDERS {
        assert_eq!(send(&outage, provider, TOKEN).await, 503, "it can be sent again");
    }
    secrets.set_down(false);
    for (stack, arn, cause) in [
        (stack(&secrets, &arn).await, &arn, "not as documented"),
        (stack(&secrets, &missing).await, &missing, "ResourceNotFoundException"),
    ] {
        for provider in PROVIDERS {
            let answer = stack.deliver(provider, order_of(provider)).await;
            assert_eq!(answer.status, 500, "{answer:?}");
            assert!(
                !answer.text.contains("arn:") && !answer.text.to_lowercase().contains("secret"),
                "{answer:?}"
            );
        }
        stack.assert_untouched("the secret is wrong").await;
        let lines = lines(&stack).await;
        let told: Vec<_> = lines.iter().filter(|line| line.is_delivery()).collect();
        assert_eq!(told.len(), PROVIDERS.len());
        for line in told {
            assert_eq!(
                (line.said("secret"), line.metric("Misconfigured")),
                (arn.as_str(), Some(1.0)),
                "{line:?}"
            );
            assert!(line.said("cause").contains(cause), "{line:?}");
        }
        assert!(
            lines.iter().all(|line| !line.text.contains("nobody-may-see")),
            "{lines:?}"
        );
    }
    // Once it is in order, the next delivery passes.
    secrets.put(&tokens(&[TOKEN])).await;
    for provider in PROVIDERS {
        assert_eq!(send(&outage, provider, TOKEN).await, 200);
    }
    // From then on Secrets Manager may be away.
    secrets.set_down(true);
    for provider in PROVIDERS {
        assert_eq!(send(&outage, provider, TOKEN).await, 200);
        assert_eq!(send(&outage, provider, NEVER_LIVE).await, 401);
    }
}
