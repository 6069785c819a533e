//! Deliveries that come through: every event of `events/` over real HTTP, the methods and shapes that a request may have, and
//! what of it is answered, stored and published.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use local::project::settings::{DEEPLE_PID, DEEPLE_SECRET, TOKEN};
use local::providers::signing::deeple_signature;
use serde_json::{Value, json};
use tests::{ORDERS, Stack, noise, order_of, state};

/// Sends all events of a provider; each is answered, stored and published as its golden event says.
async fn every_event_comes_out_as_the_golden_one(provider: &str) {
    let stack = Stack::start().await;
    let mut wrong = String::new();
    for name in stack.events(provider) {
        let answer = stack.deliver(provider, &name).await;
        let messages = stack.messages().await;
        let outcome = match stack.golden(provider, &name) {
            Some(golden) => {
                let event_id = answer.event_id("accepted");
                assert_eq!(state(&stack.head(&event_id).await), "published", "{name}");
                let stored = without_the_clock(stack.stored_event(&event_id).await);
                match messages.as_slice() {
                    [message] if stored == golden => compare(&without_the_clock(message.event.clone()), &golden),
                    [_] => Err("what is stored is not the golden event".to_owned()),
                    _ => Err(format!("{} messages instead of one", messages.len())),
                }
            }
            None if answer.status != 200 || !messages.is_empty() => {
                Err(format!("{answer:?}, {} messages", messages.len()))
            }
            None => match answer.said("status").as_str() {
                status @ ("unsupported" | "quarantined") => {
                    let head = stack.head(&answer.said("event_id")).await;
                    let again = stack.deliver(provider, &name).await;
                    if state(&head) == status && again.text == answer.text {
                        Ok(())
                    } else {
                        Err(format!("{answer:?}, {again:?}, {head:?}"))
                    }
                }
                status => Err(format!("it is {status} and has no golden event")),
            },
        };
        if let Err(difference) = outcome {
            let _ = writeln!(wrong, "{provider} {name}: {difference}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The message is the golden event, or names what was left out to fit.
fn compare(event: &Value, golden: &Value) -> Result<(), String> {
    let mut golden = golden.clone();
    for pointer in event["data"]["omitted"].as_array().into_iter().flatten() {
        let pointer = pointer.as_str().unwrap_or_default();
        if let Some(value) = golden.pointer_mut(pointer) {
            *value = Value::Null;
        }
        if let Some(assumed) = golden["data"]["assumed"].as_array_mut() {
            assumed.retain(|assumed| !assumed.as_str().is_some_and(|assumed| assumed.starts_with(pointer)));
        }
    }
    golden["data"]["omitted"] = event["data"]["omitted"].clone();
    if *event == golden {
        Ok(())
    } else {
        Err(format!("published\n{event:#}\ninstead of\n{golden:#}"))
    }
}

/// The time of receipt is another one each time, and the event's own time where it had to be assumed.
fn without_the_clock(mut event: Value) -> Value {
    let fixed = json!("2026-01-01T00:00:00Z");
    if event["time"] == event["data"]["received_at"] {
        event["time"] = fixed.clone();
    }
    event["data"]["received_at"] = fixed;
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_selldone_comes_out_as_the_golden_one() {
    every_event_comes_out_as_the_golden_one("selldone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_cartum_comes_out_as_the_golden_one() {
    every_event_comes_out_as_the_golden_one("cartum").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_deeple_comes_out_as_the_golden_one() {
    every_event_comes_out_as_the_golden_one("deeple").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_about_you_comes_out_as_the_golden_one() {
    every_event_comes_out_as_the_golden_one("aboutyou").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_snipcart_comes_out_as_the_golden_one() {
    every_event_comes_out_as_the_golden_one("snipcart").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_carries_what_subscribers_filter_by() {
    let stack = Stack::start().await;
    stack.deliver("snipcart", "order-completed").await.event_id("accepted");
    let messages = stack.messages().await;
    let [message] = messages.as_slice() else {
        panic!("{messages:?}")
    };
    let data = &message.event["data"];
    let test = data["test"].to_string();
    for (name, value) in [
        ("type", message.event["type"].as_str()),
        ("provider", Some("snipcart")),
        ("shop", Some("main")),
        ("test", Some(test.as_str())),
        ("currency", data["order"]["currency"].as_str()),
    ] {
        assert_eq!(message.attributes[name]["Value"].as_str(), value, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_event_again_is_a_duplicate_with_the_same_id() {
    let stack = Stack::start().await;
    for (provider, order) in ORDERS {
        let event_id = stack.deliver(provider, order).await.event_id("accepted");
        assert_eq!(stack.deliver(provider, order).await.event_id("duplicate"), event_id);
    }
    assert_eq!(stack.items().await.len(), ORDERS.len());
    assert_eq!(stack.messages().await.len(), ORDERS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_event_with_another_body_is_a_conflict_and_kept() {
    let stack = Stack::start().await;
    let event_id = stack.deliver("cartum", "order-created").await.event_id("accepted");
    let mut other = stack.signed("cartum", "order-created");
    let body = String::from_utf8(other.body().unwrap()).unwrap();
    other.set_body(body.replace("31799", "1"));
    for _ in 0..2 {
        let answer = stack.send(&other).await;
        assert_eq!(answer.event_id("quarantined"), event_id);
        assert_eq!(answer.said("reason"), "conflict");
    }
    assert_eq!(state(&stack.head(&event_id).await), "published");
    assert_eq!(stack.items().await.len(), 2, "the head, and the other body once");
    assert_eq!(stack.messages().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_method_is_answered_405_with_those_that_are_allowed() {
    let stack = Stack::start().await;
    for (provider, order) in ORDERS {
        let cartum = provider == "cartum";
        for method in ["GET", "HEAD", "PATCH", "OPTIONS", "PUT", "DELETE"] {
            if cartum && ["PUT", "DELETE"].contains(&method) {
                continue;
            }
            let mut fixture = stack.signed(provider, order);
            fixture.event["requestContext"]["http"]["method"] = method.into();
            let answer = stack.send(&fixture).await;
            assert_eq!(answer.status, 405, "{method} {provider}: {answer:?}");
            let mut allowed: Vec<&str> = answer
                .header("allow")
                .expect("Allow")
                .split(',')
                .map(str::trim)
                .collect();
            allowed.sort_unstable();
            assert_eq!(
                allowed,
                if cartum {
                    vec!["DELETE", "POST", "PUT"]
                } else {
                    vec!["POST"]
                }
            );
        }
    }
    stack.assert_untouched("other methods").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_method_is_checked_before_the_size_and_the_size_before_authenticity() {
    let stack = Stack::with(|config| {
        config.variables.insert("MAX_BODY_BYTES".to_owned(), "100".to_owned());
    })
    .await;
    let mut fixture = stack.unsigned("selldone", "checkout-order");
    fixture.set_query(&[("token".to_owned(), "wrong".to_owned())]);
    fixture.set_body("x".repeat(101));
    let answer = stack.send(&fixture).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert_problem(&answer, 413);
    fixture.event["requestContext"]["http"]["method"] = "GET".into();
    assert_eq!(stack.send(&fixture).await.status, 405);
    fixture.event["requestContext"]["http"]["method"] = "POST".into();
    fixture.set_body("x".repeat(100));
    assert_problem(&stack.send(&fixture).await, 401);
    stack.assert_untouched("too large").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_answered_413() {
    let stack = Stack::start().await;
    for (content_type, bytes, status) in [
        // Ours, as text and in base64; then Lambda's event limit, and API Gateway's own limit.
        ("application/json", 5_000_001, 413),
        ("application/octet-stream", 4_500_001, 413),
        ("application/octet-stream", 4_900_000, 413),
        ("application/json", 10_500_000, 413),
    ] {
        let mut fixture = stack.signed("selldone", "checkout-order");
        fixture.set_header("content-type", content_type);
        fixture.set_body("x".repeat(bytes));
        let answer = stack.send(&fixture).await;
        assert_eq!(answer.status, status, "{content_type} {bytes}: {answer:?}");
    }
    stack.assert_untouched("too large").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_are_those_of_rfc_9457() {
    let stack = Stack::start().await;
    let mut fixture = stack.signed("selldone", "checkout-order");
    fixture.set_query(&[]);
    let answer = stack.send(&fixture).await;
    assert_problem(&answer, 401);
    assert!(!answer.text.contains("token"), "it says nothing of why: {answer:?}");
}

fn assert_problem(answer: &tests::Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    for member in ["type", "title", "detail", "request_id"] {
        assert!(
            problem[member].as_str().is_some_and(|text| !text.is_empty()),
            "{member} of {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_base64_is_the_same_event() {
    let stack = Stack::start().await;
    for (provider, order) in ORDERS {
        let event_id = stack.deliver(provider, order).await.event_id("accepted");
        // API Gateway encodes what its content type does not call text.
        for content_type in [
            Some("application/octet-stream"),
            Some("application/x-www-form-urlencoded"),
            None,
        ] {
            let mut fixture = stack.unsigned(provider, order);
            fixture.remove_header("content-type");
            if let Some(content_type) = content_type {
                fixture.set_header("content-type", content_type);
            }
            stack.sign(&mut fixture);
            assert_eq!(
                stack.send(&fixture).await.event_id("duplicate"),
                event_id,
                "{provider} {content_type:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn header_names_may_be_written_in_any_case() {
    let stack = Stack::start().await;
    let body = stack.unsigned("deeple", "order-changed").body().unwrap();
    let body = String::from_utf8(body).unwrap();
    let timestamp = jiff::Timestamp::now().as_millisecond().to_string();
    let signature = deeple_signature(DEEPLE_SECRET, "POST", &timestamp, body.as_bytes());
    let length = body.len();
    let mut ids = Vec::new();
    for names in [
        ["PID", "TIMESTAMP", "SIGNATURE", "CONTENT-TYPE"],
        ["pid", "timestamp", "signature", "content-type"],
        [
            "X-Deeple-PID",
            "x-dEEPLE-timestamp",
            "X-DEEPLE-SIGNATURE",
            "cONTENT-tYPE",
        ],
    ] {
        let [pid_name, timestamp_name, signature_name, type_name] = names;
        let answer = stack
            .send_raw(
                format!(
                    "POST /webhooks/deeple/main HTTP/1.1\r\nHost: local\r\n{pid_name}: {DEEPLE_PID}\r\n{timestamp_name}: {timestamp}\r\n\
                     {signature_name}: {signature}\r\n{type_name}: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                )
                .as_bytes(),
            )
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{names:?}: {answer}");
        let (_, said) = answer.split_once("\r\n\r\n").expect("a body");
        let said: Value = serde_json::from_str(said).expect("JSON");
        ids.push(said["event_id"].as_str().expect("an id").to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_come_as_the_password_of_http_basic() {
    let stack = Stack::start().await;
    for provider in ["selldone", "cartum", "aboutyou"] {
        let mut fixture = stack.unsigned(provider, order_of(provider));
        fixture.set_query(&[]);
        fixture.set_header(
            "authorization",
            format!("Basic {}", STANDARD.encode(format!("anyone:{TOKEN}"))),
        );
        stack.send(&fixture).await.event_id("accepted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_live_token_secret_and_key_passes() {
    let stack = Stack::with(|config| {
        for (provider, secret) in [
            ("selldone", json!({"tokens": ["the-next-token-of-the-shop", TOKEN]})),
            ("deeple", json!({"pid": DEEPLE_PID, "secrets": ["next", DEEPLE_SECRET]})),
            (
                "snipcart",
                json!({"api_keys": ["next", local::project::settings::SNIPCART_KEY]}),
            ),
        ] {
            config
                .secrets
                .insert(provider.to_owned(), json!({"shops": {"main": secret}}));
        }
    })
    .await;
    for provider in ["selldone", "deeple", "snipcart"] {
        stack.deliver(provider, order_of(provider)).await.event_id("accepted");
    }
    let mut fixture = stack.unsigned("selldone", "checkout-order");
    fixture.set_query(&[("token".to_owned(), "the-next-token-of-the-shop".to_owned())]);
    stack.send(&fixture).await.event_id("duplicate");
}

#[tokio::test(flavor = "multi_thread")]
async fn cartum_comes_with_put_post_and_delete_and_its_query_names_the_event() {
    let stack = Stack::start().await;
    let order = |method: &str, event: Option<&str>| {
        let mut fixture = stack.unsigned("cartum", "order-created");
        fixture.event["requestContext"]["http"]["method"] = method.into();
        let event = event.map(|event| ("event".to_owned(), event.to_owned()));
        fixture.set_query(
            &event
                .into_iter()
                .chain([("token".to_owned(), TOKEN.to_owned())])
                .collect::<Vec<_>>(),
        );
        fixture
    };
    let event_id = stack.send(&order("PUT", None)).await.event_id("accepted");
    for (method, event) in [
        ("POST", None),
        ("PUT", Some("order_created")),
        ("POST", Some("order_created")),
    ] {
        assert_eq!(stack.send(&order(method, event)).await.event_id("duplicate"), event_id);
    }
    for event in ["user_signup", "request_call_me"] {
        stack.send(&order("PUT", Some(event))).await.event_id("unsupported");
    }
    let unknown = stack.send(&order("PUT", Some("order_deleted"))).await;
    unknown.event_id("quarantined");
    assert_eq!(unknown.said("reason"), "unknown_event");
    let mut unsubscribed = order("DELETE", None);
    unsubscribed.set_body("");
    stack.send(&unsubscribed).await.event_id("unsupported");
    // Nothing has this name, and the table cannot hold it.
    unsubscribed.set_query(&[(String::new(), "1".to_owned()), ("token".to_owned(), TOKEN.to_owned())]);
    stack.send(&unsubscribed).await.event_id("unsupported");
    assert_eq!(stack.messages().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_4_mb_is_kept_whole_and_its_message_names_what_it_leaves_out() {
    let stack = Stack::start().await;
    let mut fixture = stack.unsigned("snipcart", "order-completed");
    let mut order: Value = serde_json::from_slice(&fixture.body().unwrap()).unwrap();
    order["content"]["internalNotes"] = noise(4_000_000).into();
    let body = order.to_string();
    fixture.set_body(body.clone());
    stack.sign(&mut fixture);

    let event_id = stack.send(&fixture).await.event_id("accepted");
    assert_eq!(state(&stack.head(&event_id).await), "published");
    assert!(stack.items().await.len() > 10, "it is kept in parts");
    assert!(
        stack.value(&event_id, "payload").await == body.as_bytes(),
        "the payload is kept as it came"
    );
    assert!(
        stack.stored_event(&event_id).await.to_string().len() > 4_000_000,
        "the stored event is whole"
    );

    let messages = stack.messages().await;
    let [message] = messages.as_slice() else {
        panic!("{} messages", messages.len())
    };
    assert_eq!(message.event["id"], event_id);
    assert_eq!(message.event["data"]["omitted"], json!(["/data/unmapped"]));
    assert!(
        message.event["data"]["order"]["items"]
            .as_array()
            .is_some_and(|items| !items.is_empty())
    );

    assert_eq!(stack.send(&fixture).await.event_id("duplicate"), event_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_without_a_route_is_not_found() {
    let stack = Stack::start().await;
    for path in [
        "/",
        "/webhooks/unknown/main",
        "/webhooks/selldone",
        "/webhooks/selldone/",
    ] {
        let answer = stack
            .send_raw(
                format!("POST {path} HTTP/1.1\r\nHost: local\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .as_bytes(),
            )
            .await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        assert!(answer.ends_with(r#"{"message":"Not Found"}"#), "{path}: {answer}");
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_order_is_published_and_kept_as_it_came() {
    let stack = Stack::start().await;
    for (provider, order) in ORDERS {
        for (how, wrap) in WRAPPINGS {
            let mut fixture = stack.unsigned(provider, order);
            fixture.renew().expect("an order");
            let wrapped = wrap(&fixture.body().expect("a body"));
            fixture.set_body(wrapped.clone());
            // Headers may be wrong, or say nothing.
            fixture.set_header("content-type", "application/json; charset=windows-1251");
            fixture.set_header("content-encoding", "br");
            stack.sign(&mut fixture);
            let answer = stack.send(&fixture).await;
            assert_eq!(answer.status, 200, "{provider}, {how}: {answer:?}");
            let event_id = answer.event_id("accepted");
            assert_eq!(stack.value(&event_id, "payload").await, wrapped, "{provider}, {how}");
            let event = stack.stored_event(&event_id).await;
            let golden = stack.golden(provider, order).expect("an order");
            assert_eq!(event["type"], golden["type"], "{provider}, {how}");
            assert_eq!(
                stack.send(&fixture).await.event_id("duplicate"),
                event_id,
                "{provider}, {how}"
            );
            assert_eq!(stack.messages().await.len(), 1, "{provider}, {how}");
        }
    }
}

type Wrapping = (&'static str, fn(&[u8]) -> Vec<u8>);

/// How a sender may wrap JSON.
const WRAPPINGS: [Wrapping; 5] = [
    ("as it is", <[u8]>::to_vec),
    ("a byte order mark", |body| [b"\xef\xbb\xbf", body].concat()),
    ("gzip", gzip),
    ("gzip of a byte order mark", |body| {
        gzip(&[b"\xef\xbb\xbf", body].concat())
    }),
    ("UTF-16", |body| {
        let text = format!("\u{feff}{}", std::str::from_utf8(body).expect("text"));
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn gzip_beyond_the_limit_is_quarantined_and_reprocessed() {
    let stack = Stack::with(|config| {
        config.variables.insert("MAX_BODY_BYTES".to_owned(), "1000".to_owned());
    })
    .await;
    let mut fixture = stack.unsigned("selldone", "checkout-order");
    let mut body: Value = serde_json::from_slice(&fixture.body().expect("a body")).expect("JSON");
    body["padding"] = "x".repeat(100_000).into();
    let wrapped = gzip(body.to_string().as_bytes());
    fixture.set_body(wrapped.clone());
    let answer = stack.send(&fixture).await;
    let event_id = answer.event_id("quarantined");
    assert_eq!(answer.said("reason"), "too_large");
    assert_eq!(stack.value(&event_id, "payload").await, wrapped);
    // Redrive, which has the default limit, reads what is kept in the same way.
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["accepted"], 1);
    assert_eq!(stack.stored_event(&event_id).await["type"], "order.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_no_signature_covers_makes_no_second_copy() {
    let stack = Stack::start().await;
    for (provider, _) in ORDERS {
        let mut fixture = stack.unsigned(provider, order_of(provider));
        fixture.set_body("not JSON");
        let mut ids = BTreeSet::new();
        for number in 0..20 {
            // Snipcart's token is used up each time.
            stack.sign(&mut fixture);
            let mut query = fixture.query();
            query.retain(|(name, _)| name == "token");
            query.push(("utm".to_owned(), number.to_string()));
            fixture.set_query(&query);
            ids.insert(stack.send(&fixture).await.event_id("quarantined"));
        }
        assert_eq!(ids.len(), 1, "{provider}");
    }
    assert_eq!(stack.items().await.len(), ORDERS.len());
}
