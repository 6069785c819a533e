//! Deliveries that must not come through. Whatever is wrong with a request, the answer is the same, and nothing is stored or
//! published.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use local::project::settings::{DEEPLE_PID, DEEPLE_SECRET, SNIPCART_KEY, TOKEN};
use local::providers::snipcart::Behaviour;
use serde_json::{Value, json};
use tests::attacks::{
    ABOUT_YOU_ATTACKS, Attack, CLIENT_SECRET, DEEPLE_ATTACKS, OTHER_TOKEN, SIGNATURE_HEADER,
    SNIPCART_TOKENS_THAT_ARE_NONE, TOKEN_ATTACKS, about_you_sign, about_you_signature, from_now, query, request_token,
    sign_at, token,
};
use tests::{Answer, Stack, order_of};

/// Every attack is answered 401, with the same body but for the request's id, and leaves nothing behind.
async fn assert_refused(stack: &Stack, provider: &str, attacks: &[Attack]) {
    let mut bodies: Vec<Value> = Vec::new();
    for (attack, make) in attacks {
        let mut fixture = stack.signed(provider, order_of(provider));
        make(&mut fixture);
        let answer = stack.send(&fixture).await;
        assert_eq!(answer.status, 401, "{provider}, {attack}: {answer:?}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{provider}, {attack}"
        );
        bodies.push(without_request_id(&answer));
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "the answers tell the attacks apart: {bodies:?}");
    stack.assert_untouched(provider).await;
    // What was attacked is in order otherwise.
    stack.deliver(provider, order_of(provider)).await.event_id("accepted");
}

fn without_request_id(answer: &Answer) -> Value {
    let mut problem = answer.json();
    problem["request_id"].take();
    problem
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_url_token_is_refused() {
    let secret = json!({"shops": {"main": {"tokens": [TOKEN]}, "other": {"tokens": [OTHER_TOKEN]}}});
    let stack = |provider: &'static str| {
        let secret = secret.clone();
        Stack::with(move |config| {
            config.secrets.insert(provider.to_owned(), secret);
        })
    };
    for provider in ["selldone", "cartum", "aboutyou"] {
        assert_refused(&stack(provider).await, provider, TOKEN_ATTACKS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_deeple_signature_is_refused() {
    let stack = Stack::with(|config| {
        let secret = json!({"shops": {
            "main": {"pid": DEEPLE_PID, "secrets": [DEEPLE_SECRET]},
            "other": {"pid": "other-pid", "secrets": ["other-secret"]},
        }});
        config.secrets.insert("deeple".to_owned(), secret);
    })
    .await;
    assert_refused(&stack, "deeple", DEEPLE_ATTACKS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deeple_timestamp_within_its_window_passes() {
    let stack = Stack::start().await;
    for (seconds, status) in [(-86_300, "accepted"), (250, "duplicate")] {
        let mut fixture = stack.signed("deeple", "order-changed");
        sign_at(&mut fixture, &from_now(seconds));
        stack.send(&fixture).await.event_id(status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_about_you_signature_is_refused_where_one_is_demanded() {
    let stack = Stack::with(|config| {
        let shop = json!({"tokens": [TOKEN], "client_secrets": [CLIENT_SECRET], "signature_header": SIGNATURE_HEADER});
        config
            .secrets
            .insert("aboutyou".to_owned(), json!({"shops": {"main": shop}}));
    })
    .await;
    for (attack, make) in ABOUT_YOU_ATTACKS {
        let mut fixture = stack.signed("aboutyou", "order-created");
        about_you_sign(&mut fixture);
        make(&mut fixture);
        assert_eq!(stack.send(&fixture).await.status, 401, "{attack}");
    }
    stack.assert_untouched("aboutyou").await;
    let mut fixture = stack.signed("aboutyou", "order-created");
    about_you_sign(&mut fixture);
    stack.send(&fixture).await.event_id("accepted");
    // Its encoding is not documented.
    let encodings: [fn(&str) -> String; 4] = [
        |right| format!("sha256={right}"),
        str::to_uppercase,
        |right| base64(right),
        |right| format!("sha256={}", base64(right)),
    ];
    for encode in encodings {
        about_you_sign(&mut fixture);
        about_you_signature(&mut fixture, encode);
        stack.send(&fixture).await.event_id("duplicate");
    }
}

/// The bytes that are given in hex, in base64.
fn base64(hex: &str) -> String {
    let digits = hex
        .as_bytes()
        .chunks(2)
        .map(|digits| std::str::from_utf8(digits).expect("ASCII"));
    let bytes: Vec<u8> = digits
        .map(|digits| u8::from_str_radix(digits, 16).expect("hex"))
        .collect();
    STANDARD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snipcart_token_that_is_none_is_refused_without_asking() {
    let stack = Stack::start().await;
    assert_refused(&stack, "snipcart", SNIPCART_TOKENS_THAT_ARE_NONE).await;
    assert_eq!(stack.snipcart().asked().len(), 1, "only the delivery that is in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snipcart_token_that_snipcart_does_not_know_is_refused() {
    let stack = Stack::start().await;
    assert_refused(
        &stack,
        "snipcart",
        &[("an unknown token", |f| request_token(f, "unknown"))],
    )
    .await;
    assert_eq!(stack.snipcart().asked()[0], "/api/requestvalidation/unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn snipcarts_validation_fails_closed() {
    let stack = Stack::start().await;
    for (behaviour, status) in [
        (Behaviour::Status(404), 401),
        // Our own key is wrong: the operator has to know, and it is no forgery.
        (Behaviour::Status(401), 500),
        (Behaviour::Status(403), 500),
        (Behaviour::Status(500), 503),
        (Behaviour::Status(503), 503),
        (Behaviour::Status(429), 503),
        (Behaviour::Status(204), 503),
        (Behaviour::Status(400), 503),
        (Behaviour::Redirect, 503),
        (Behaviour::Hang, 503),
    ] {
        stack.snipcart().behave(behaviour);
        let answer = stack.deliver("snipcart", "order-completed").await;
        assert_eq!(answer.status, status, "{behaviour:?}: {answer:?}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{behaviour:?}"
        );
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{behaviour:?}");
        assert!(!answer.text.contains("key"), "no detail outward: {answer:?}");
    }
    assert!(
        stack.snipcart().asked().iter().all(|path| path != "/redirected"),
        "no redirect is followed"
    );
    stack.assert_untouched("snipcart").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snipcart_shop_may_demand_a_url_token_too() {
    let stack = Stack::with(|config| {
        let shop = json!({"api_keys": [SNIPCART_KEY], "tokens": [TOKEN]});
        config
            .secrets
            .insert("snipcart".to_owned(), json!({"shops": {"main": shop}}));
    })
    .await;
    for parameters in [&[][..], &[("token", "wrong")], &[("token", "")]] {
        let mut fixture = stack.signed("snipcart", "order-completed");
        query(&mut fixture, parameters);
        assert_eq!(stack.send(&fixture).await.status, 401, "{parameters:?}");
    }
    stack.assert_untouched("snipcart").await;
    assert!(stack.snipcart().asked().is_empty(), "the token comes first");
    let mut fixture = stack.signed("snipcart", "order-completed");
    token(&mut fixture, TOKEN);
    stack.send(&fixture).await.event_id("accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_header_that_is_repeated_is_refused() {
    let stack = Stack::start().await;
    for (provider, header) in [
        ("deeple", "pid"),
        ("deeple", "timestamp"),
        ("deeple", "signature"),
        ("snipcart", "x-snipcart-requesttoken"),
    ] {
        let fixture = stack.signed(provider, order_of(provider));
        let value = fixture.header(header).expect("the header").to_owned();
        let mut request: Request<_> = fixture.to_request(&stack.url()).expect("a request");
        request.headers_mut().append(header, value.parse().expect("a value"));
        assert_eq!(stack.send_request(request).await.status, 401, "{provider} {header}");
    }
    stack.assert_untouched("repeated headers").await;
}
