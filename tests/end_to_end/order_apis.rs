//! Order APIs that fail, are slow, redirect or refuse the credentials, as reconcile calls them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::Response;
use local::net::server::{Port, Server};
use local::project::settings::{self, ORDER_APIS, SHOP};
use local::providers::lifecycle::State;
use local::providers::order_apis::Fault as ApiFault;
use serde_json::json;
use tests::Stack;
use tests::outbox::ids;

use crate::reconciliation::assert_run;

/// Lets the API of a provider fail at its second page, and then work again.
async fn fail_at_second_page(stack: &Stack, provider: &'static str, fault: ApiFault, numbers: std::ops::Range<usize>) {
    let last_complete = async || {
        let runs = stack.runs_of(provider).await;
        runs.and_then(|runs| runs.get("last_complete_at").cloned())
    };
    let before = last_complete().await;
    let lives: Vec<_> = numbers.map(|number| stack.life(provider, number, 60)).collect();
    for life in &lives {
        stack.knows(life, State::Placed, 8);
    }
    let run = stack.reconcile(provider).await;
    assert_eq!(run["status"], "unavailable", "{provider}, {fault:?}: {run}");
    assert!(run["cause"].is_string(), "{run}");
    assert_eq!(
        last_complete().await,
        before,
        "{provider}, {fault:?}: the run counts as complete"
    );

    stack.order_apis().end_faults_of(provider);
    let run = stack.reconcile(provider).await;
    assert_eq!(run["status"], "complete", "{provider}, {fault:?}: {run}");
    assert_ne!(last_complete().await, before, "{provider}, {fault:?}");
    for life in lives {
        stack.order_apis().book().remove(provider, SHOP, &life.id());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_fails_lets_nothing_be_concluded() {
    let stack = Stack::start().await;
    stack.order_apis().limit_pages(5);
    let faults = [
        ApiFault::Status(500),
        ApiFault::Cut,
        ApiFault::Half,
        ApiFault::TooMany(3600),
        ApiFault::Redirect(1),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        for provider in ORDER_APIS {
            // Cartum logs in before the first page.
            let before = if provider == "cartum" { 2 } else { 1 };
            stack.order_apis().inject_after(provider, before, fault);
        }
        let numbers = number * 100 + 1..number * 100 + 13;
        join_all(ORDER_APIS.map(|provider| fail_at_second_page(&stack, provider, fault, numbers.clone()))).await;
        let messages = stack.messages().await;
        assert_eq!((messages.len(), ids(&messages).len()), (48, 48), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_or_busy_api_is_waited_for() {
    let stack = Stack::start().await;
    for provider in ORDER_APIS {
        for (index, fault) in [ApiFault::TooMany(1), ApiFault::Slow(Duration::from_millis(1500))]
            .into_iter()
            .enumerate()
        {
            stack.knows(&stack.life(provider, index + 1, 60), State::Placed, 8);
            stack.order_apis().inject(provider, fault, 1);
            let run = stack.reconcile(provider).await;
            assert_eq!(
                (&run["status"], &run["accepted"]),
                (&json!("complete"), &json!(1)),
                "{provider}, {fault:?}: {run}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_renewed() {
    let stack = Stack::start().await;
    stack.order_apis().limit_pages(1);
    for index in 1..=3 {
        stack.knows(&stack.life("cartum", index, 60), State::Placed, 60);
    }
    // After the login and the first page.
    let requests = AtomicUsize::new(0);
    stack
        .order_apis()
        .follow(move |_, _| (requests.fetch_add(1, Ordering::SeqCst) == 2).then_some(ApiFault::Expired));
    let run = stack.reconcile("cartum").await;
    assert_run(&run, "complete", &[("compared", 3), ("missing", 3), ("accepted", 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_reported_without_them() {
    let stack = Stack::with(|config| {
        for provider in ORDER_APIS {
            let mut secret = settings::secret(provider).expect("a secret");
            secret["shops"][SHOP]["api"] = settings::api(provider, "a-shop-of-nobody");
            for name in ["key", "token", "password"] {
                if let Some(value) = secret["shops"][SHOP]["api"].get_mut(name) {
                    *value = "a-wrong-credential-of-an-api".into();
                }
            }
            config.secrets.insert(provider.to_owned(), secret);
        }
    })
    .await;
    for provider in ORDER_APIS {
        stack.knows(&stack.life(provider, 1, 60), State::Placed, 60);
        let run = stack.reconcile(provider).await;
        assert_eq!(
            (&run["status"], &run["compared"]),
            (&json!("unavailable"), &json!(0)),
            "{provider}: {run}"
        );
        assert!(run["cause"].is_string(), "{run}");
        let said = format!("{run}\n{}", stack.log().join("\n"));
        for secret in ["a-wrong-credential-of-an-api", "a-shop-of-nobody"] {
            assert!(!said.contains(secret), "{provider}: {secret} is in {said}");
        }
    }
    stack.assert_untouched("credentials are wrong").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_without_api_credentials_is_left_alone() {
    let stack = Stack::with(|config| {
        let mut secret = settings::secret("cartum").expect("a secret");
        secret["shops"][SHOP].as_object_mut().expect("a shop").remove("api");
        config.secrets.insert("cartum".to_owned(), secret);
    })
    .await;
    let asked = stack.reconcile_with("cartum", json!({"shop": SHOP})).await;
    assert_eq!(asked["shops"][0]["status"], "not_configured", "{asked}");
    let scheduled = stack.reconcile_with("cartum", json!({})).await;
    assert_eq!(scheduled["done"], true, "{scheduled}");
    assert!(stack.order_apis().asked().is_empty());
}

/// A server that counts the requests to it.
async fn trap() -> (Server, Arc<AtomicUsize>) {
    let hits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hits);
    let port = Port::take(0, "").await.expect("a port");
    let server = port.serve(1_000_000, move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Some(Response::new(bytes::Bytes::from_static(b"{}"))))
    });
    (server, hits)
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed() {
    let stack = Stack::start().await;
    let (server, hits) = trap().await;
    for provider in ORDER_APIS {
        stack
            .order_apis()
            .inject(provider, ApiFault::Redirect(server.address().port()), 100);
        assert_eq!(stack.reconcile(provider).await["status"], "unavailable", "{provider}");
    }
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_cannot_name_a_private_host() {
    let (server, hits) = trap().await;
    let port = server.address().port();
    for host in [
        format!("127.0.0.1:{port}"),
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
        "[::1]".to_owned(),
        "169.254.169.254".to_owned(),
        "2130706433".to_owned(),
        format!("user@127.0.0.1:{port}"),
        format!("127.0.0.1:{port}/a/path"),
        "internal".to_owned(),
    ] {
        let stack = Stack::with(|config| {
            for (provider, name) in [("cartum", "domain"), ("selldone", "host"), ("aboutyou", "host")] {
                let mut secret = settings::secret(provider).expect("a secret");
                secret["shops"][SHOP]["api"][name] = host.clone().into();
                config.secrets.insert(provider.to_owned(), secret);
                config
                    .variables
                    .insert(settings::order_api_variable(provider), String::new());
            }
        })
        .await;
        for provider in ["cartum", "selldone", "aboutyou"] {
            let run = stack.reconcile(provider).await;
            assert_ne!(run["status"], "complete", "{provider}, {host}: {run}");
        }
    }
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}
