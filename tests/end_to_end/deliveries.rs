//! Deliveries over real HTTP, as far as the provider makes no difference. What every provider has is in the provider
//! suite.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use local::project::settings::{DEEPLE_PID, DEEPLE_SECRET, TOKEN};
use local::providers::signing::deeple_signature;
use serde_json::{Value, json};
use tests::providers::Facts;
use tests::{Stack, gzip, json_body, noise, state};

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
        ("origin", Some("webhook")),
        ("currency", data["order"]["currency"].as_str()),
    ] {
        assert_eq!(message.attributes[name]["Value"].as_str(), value, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn method_then_size_then_credentials_are_checked() {
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
        // Our limits for text and for base64, then those of a Lambda event and of API Gateway.
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
async fn problems_follow_rfc_9457() {
    let stack = Stack::start().await;
    let mut fixture = stack.signed("selldone", "checkout-order");
    fixture.set_query(&[]);
    let answer = stack.send(&fixture).await;
    assert_problem(&answer, 401);
    assert!(!answer.text.contains("token"), "the answer shows the cause: {answer:?}");
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
async fn header_names_are_case_insensitive() {
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
async fn a_token_may_be_the_password_of_http_basic() {
    let stack = Stack::start().await;
    for facts in Facts::with_url_token() {
        let mut fixture = stack.unsigned(facts.name, facts.order);
        fixture.set_query(&[]);
        fixture.set_header(
            "authorization",
            format!("Basic {}", STANDARD.encode(format!("anyone:{TOKEN}"))),
        );
        stack.send(&fixture).await.event_id("accepted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cartum_accepts_its_methods_and_the_event_in_the_query() {
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
    // A parameter with an empty name, which the table cannot store.
    unsubscribed.set_query(&[(String::new(), "1".to_owned()), ("token".to_owned(), TOKEN.to_owned())]);
    stack.send(&unsubscribed).await.event_id("unsupported");
    assert_eq!(stack.messages().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_names_what_it_omits_from_the_stored_event() {
    let stack = Stack::start().await;
    let mut fixture = stack.unsigned("snipcart", "order-completed");
    let mut order = json_body(&fixture);
    order["content"]["internalNotes"] = noise(4_000_000).into();
    let body = order.to_string();
    fixture.set_body(body.clone());
    stack.sign(&mut fixture);

    let event_id = stack.send(&fixture).await.event_id("accepted");
    assert_eq!(state(&stack.head(&event_id).await), "published");
    assert!(stack.items().await.len() > 10, "the order is stored in parts");
    assert!(
        stack.value(&event_id, "payload").await == body.as_bytes(),
        "the payload is stored as sent"
    );
    assert!(
        stack.stored_event(&event_id).await.to_string().len() > 4_000_000,
        "the stored event is complete"
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

#[tokio::test(flavor = "multi_thread")]
async fn gzip_beyond_the_limit_is_quarantined_and_reprocessed() {
    let stack = Stack::with(|config| {
        config.variables.insert("MAX_BODY_BYTES".to_owned(), "1000".to_owned());
    })
    .await;
    let mut fixture = stack.unsigned("selldone", "checkout-order");
    let mut body = json_body(&fixture);
    body["padding"] = "x".repeat(100_000).into();
    let wrapped = gzip(body.to_string().as_bytes());
    fixture.set_body(wrapped.clone());
    let answer = stack.send(&fixture).await;
    let event_id = answer.event_id("quarantined");
    assert_eq!(answer.said("reason"), "too_large");
    assert_eq!(stack.value(&event_id, "payload").await, wrapped);
    // Redrive has the default limit, so it can read the stored body.
    assert_eq!(stack.ask(json!({"reprocess": {}})).await["accepted"], 1);
    assert_eq!(stack.stored_event(&event_id).await["type"], "order.created");
}
