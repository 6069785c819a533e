//! Secrets in Secrets Manager are read ahead, cached, read again when they may have changed, and never logged. If
//! `MOTO_SERVER` is set, Secrets Manager is moto's.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use local::project::settings::{SHOP, SNIPCART_KEY, TOKEN};
use serde_json::json;
use tests::providers::Facts;
use tests::secrets_manager::SecretsManager;
use tests::telemetry::{NAMESPACE, lines};
use tests::{Stack, order_of};
use tokio::time::{Instant, sleep};

const NEW: &str = "another-development-token";
const NEVER_LIVE: &str = "no-token-that-was-ever-live";

/// The providers with a token in the URL: the same secret is valid for all of them.
fn providers() -> Vec<&'static str> {
    Facts::with_url_token().map(|facts| facts.name).collect()
}

/// How soon a function may read the secret again.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// The tolerance of measured times on a busy machine.
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

/// Sends a new order with this token and returns the status of the answer.
async fn send(stack: &Stack, provider: &str, token: &str) -> u16 {
    let mut fixture = stack.unsigned(provider, order_of(provider));
    fixture.renew().expect("an order");
    let mut query = fixture.query();
    query.retain(|(name, _)| name != "token");
    query.push(("token".to_owned(), token.to_owned()));
    fixture.set_query(&query);
    stack.send(&fixture).await.status
}

/// Sends deliveries from several senders with these tokens in turn, until `done`. Returns the number of deliveries, and
/// of those that were answered with another status.
async fn load(stack: &Stack, tokens: &[&str], expected: u16, done: impl Fn() -> bool) -> (usize, usize) {
    let (sent, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let senders = providers().into_iter().chain(providers()).map(|provider| async {
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
async fn a_rotation_under_load_refuses_no_delivery() {
    let secrets = SecretsManager::start().await;
    let arn = secrets.create(&tokens(&[TOKEN])).await;
    let stack = stack(&secrets, &arn).await;
    // Every environment reads the secret before it is rotated.
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
    assert!(calls.len() >= providers().len(), "{calls:?}");
    let asked: usize = calls.values().map(Vec::len).sum();
    assert!(asked > calls.len(), "no environment has read the new secret: {calls:?}");
    for (environment, times) in calls {
        let soonest = times.windows(2).map(|pair| pair[1] - pair[0]).min();
        assert!(
            soonest.is_none_or(|soonest| soonest + TOLERANCE >= ASKED_AGAIN_AFTER),
            "{environment} asked again after {soonest:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_a_secret_is_logged_with_its_name_not_its_value() {
    let secrets = SecretsManager::start().await;
    let value = r#"{"shops":{"main":{"tokens":["a-value-that-nobody-may-see",7]}}}"#;
    let arn = secrets.create(value).await;
    let missing = arn.replace(local::NAME, "missing");
    let outage = stack(&secrets, &arn).await;
    secrets.set_down(true);
    for provider in providers() {
        assert_eq!(
            send(&outage, provider, TOKEN).await,
            503,
            "the provider can repeat the delivery"
        );
    }
    secrets.set_down(false);
    for (stack, arn, cause) in [
        (stack(&secrets, &arn).await, &arn, "not as documented"),
        (stack(&secrets, &missing).await, &missing, "ResourceNotFoundException"),
    ] {
        for provider in providers() {
            let answer = stack.deliver(provider, order_of(provider)).await;
            assert_eq!(answer.status, 500, "{answer:?}");
            assert!(
                !answer.text.contains("arn:") && !answer.text.to_lowercase().contains("secret"),
                "{answer:?}"
            );
        }
        stack.assert_untouched("the secret is wrong").await;
        let lines = lines(&stack).await;
        let logged: Vec<_> = lines.iter().filter(|line| line.is_delivery()).collect();
        assert_eq!(logged.len(), providers().len());
        for line in logged {
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
    // Deliveries are accepted within a few seconds after the secret is corrected.
    secrets.put(&tokens(&[TOKEN])).await;
    for provider in providers() {
        let begun = Instant::now();
        while send(&outage, provider, TOKEN).await != 200 {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{provider} never reads the secret again"
            );
        }
    }
    // From then on, Secrets Manager need not be reachable.
    secrets.set_down(true);
    for provider in providers() {
        assert_eq!(send(&outage, provider, TOKEN).await, 200);
        assert_eq!(send(&outage, provider, NEVER_LIVE).await, 401);
    }
}

/// Sends `count` anonymous requests to a shop and returns the statuses of the answers.
async fn flood(stack: &Stack, shop: &str, count: usize) -> BTreeSet<u16> {
    let mut statuses = BTreeSet::new();
    for _ in 0..count {
        let request = Request::post(format!("{}/webhooks/selldone/{shop}?token={NEVER_LIVE}", stack.url()));
        let request = request.body(Bytes::from_static(b"{}")).expect("a request");
        statuses.insert(stack.send_request(request).await.status);
    }
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_requests_cause_one_read_in_five_seconds() {
    const DENIED: (StatusCode, &str) = (StatusCode::BAD_REQUEST, "AccessDeniedException");
    const DOWN: (StatusCode, &str) = (StatusCode::SERVICE_UNAVAILABLE, "InternalServiceError");
    /// The number of attempts by the SDK.
    const TRIES: usize = 3;
    let cases = [
        (r#"{"shops":{}}"#.to_owned(), None, SHOP, 500),
        (r#"{"shops":"#.to_owned(), None, SHOP, 500),
        (tokens(&["short"]), None, SHOP, 500),
        (tokens(&[TOKEN]), Some(DENIED), SHOP, 500),
        (tokens(&[TOKEN]), Some(DOWN), SHOP, 503),
        (tokens(&[TOKEN]), None, "unknown", 401),
        (tokens(&[TOKEN]), None, SHOP, 401),
    ];
    for (value, refusal, shop, status) in cases {
        let secrets = SecretsManager::start().await;
        let arn = secrets.create(&value).await;
        secrets.refuse(refusal);
        let stack = Stack::with(|config| {
            secrets.configure(config, &arn);
            config.environments = 1;
        })
        .await;
        let begun = Instant::now();
        assert_eq!(
            flood(&stack, shop, 1_000).await,
            BTreeSet::from([status]),
            "{value} {refusal:?}"
        );
        let calls: usize = secrets.calls().values().map(Vec::len).sum();
        let reads = usize::try_from(begun.elapsed().as_secs()).expect("a number") / 5 + 2;
        let tries = if refusal == Some(DOWN) { TRIES } else { 1 };
        assert!(
            calls <= reads * tries,
            "{value} {refusal:?}: {calls} calls in {:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_malformed_shop_of_a_secret_is_misconfigured() {
    let secrets = SecretsManager::start().await;
    let shops = json!({"shops": {SHOP: {"tokens": [TOKEN]}, "other": {"tokens": ["a-value-that-nobody-may-see", 7]}}});
    // With a byte order mark, as some editors write it.
    let arn = secrets.create(&format!("\u{feff}{shops}")).await;
    let stack = stack(&secrets, &arn).await;
    for provider in providers() {
        assert_eq!(send(&stack, provider, TOKEN).await, 200, "{provider}");
    }
    let counted = |lines: &[tests::telemetry::Line]| {
        let misconfigured = lines.iter().filter(|line| line.metric("Misconfigured") == Some(1.0));
        let logged: Vec<_> = misconfigured
            .map(|line| (line.is_delivery(), line.text.clone()))
            .collect();
        assert!(
            logged.iter().all(|(_, text)| text.contains("shop other: tokens[1]")),
            "{logged:?}"
        );
        assert!(
            lines.iter().all(|line| !line.text.contains("nobody-may-see")),
            "{logged:?}"
        );
        let of_deliveries = logged.iter().filter(|(is_delivery, _)| *is_delivery).count();
        (logged.len() - of_deliveries, of_deliveries)
    };
    // Each function has read the secret once and has received no delivery for that shop.
    assert_eq!(counted(&lines(&stack).await), (providers().len(), 0));
    for provider in providers() {
        let mut fixture = stack.signed(provider, order_of(provider));
        fixture.set_shop("other");
        assert_eq!(stack.send(&fixture).await.status, 500, "{provider}");
    }
    assert_eq!(counted(&lines(&stack).await).1, providers().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_secret_is_answered_500() {
    let shops = [
        ("aboutyou", json!({"tokens": [TOKEN], "client_secrets": null})),
        (
            "aboutyou",
            json!({"tokens": [TOKEN], "client_secrets": ["secret"], "signature_header": "x signature"}),
        ),
        ("aboutyou", json!({"tokens": [TOKEN], "signature_header": ""})),
        ("aboutyou", json!({"tokens": [TOKEN], "signature_header": null})),
        ("snipcart", json!({"api_keys": [SNIPCART_KEY], "tokens": null})),
        ("deeple", json!({"pid": "local-pid", "secrets": null})),
        ("selldone", json!({"tokens": null})),
        ("cartum", json!({"tokens": [null]})),
    ];
    for (provider, shop) in shops {
        let stack = Stack::with(|config| {
            let secret = json!({"shops": {SHOP: shop}});
            config.secrets.insert(provider.to_owned(), secret);
        })
        .await;
        let answer = stack.deliver(provider, order_of(provider)).await;
        assert_eq!(answer.status, 500, "{provider} {shop}: {answer:?}");
        stack.assert_untouched("the secret is malformed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_becomes_unusable_is_counted() {
    let denied = Some((StatusCode::BAD_REQUEST, "AccessDeniedException"));
    let cases = [(tokens(&["short"]), None), (tokens(&[TOKEN]), denied)];
    let cases = cases.map(|(value, refusal)| async move {
        let secrets = SecretsManager::start().await;
        let arn = secrets.create(&tokens(&[TOKEN])).await;
        let stack = stack(&secrets, &arn).await;
        assert_eq!(send(&stack, "selldone", TOKEN).await, 200);
        secrets.put(&value).await;
        secrets.refuse(refusal);
        // A wrong token makes the function read the secret again after half a minute. Deliveries are still accepted.
        let begun = Instant::now();
        while !stack.log().iter().any(|line| line.contains("Misconfigured")) {
            assert_eq!(send(&stack, "selldone", NEVER_LIVE).await, 401);
            assert_eq!(send(&stack, "selldone", TOKEN).await, 200);
            assert!(begun.elapsed() < ASKED_AGAIN_AFTER * 2, "the fault is never counted");
        }
        let mut counted = lines(&stack).await;
        counted.retain(|line| line.metric("Misconfigured").is_some());
        let [line] = counted.as_slice() else {
            panic!("{counted:?}")
        };
        assert_eq!(
            (line.said("level"), line.said("secret")),
            ("ERROR", arn.as_str()),
            "{line:?}"
        );
        assert!(!line.is_delivery());
    });
    join_all(cases).await;
}
