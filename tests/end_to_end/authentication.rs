//! Authentication that only one provider has: timestamps, signatures, and the validation by a call to Snipcart. What
//! every provider has is in the provider suite.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use local::project::settings::{SNIPCART_KEY, TOKEN};
use local::providers::snipcart::Behaviour;
use serde_json::json;
use tests::Stack;
use tests::authentication::{
    CLIENT_SECRET, MALFORMED_REQUEST_TOKENS, SIGNATURE_HEADER, UNKNOWN_REQUEST_TOKEN, UNKNOWN_REQUEST_TOKENS,
    about_you_sign, about_you_signature, from_now, query, sign_at, token,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_deeple_timestamp_within_its_window_is_valid() {
    let stack = Stack::start().await;
    for (seconds, status) in [(-86_300, "accepted"), (250, "duplicate")] {
        let mut fixture = stack.signed("deeple", "order-changed");
        sign_at(&mut fixture, &from_now(seconds));
        stack.send(&fixture).await.event_id(status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_about_you_signature_may_be_in_hex_or_base64() {
    let stack = Stack::with(|config| {
        let shop = json!({"tokens": [TOKEN], "client_secrets": [CLIENT_SECRET], "signature_header": SIGNATURE_HEADER});
        config
            .secrets
            .insert("aboutyou".to_owned(), json!({"shops": {"main": shop}}));
    })
    .await;
    let mut fixture = stack.signed("aboutyou", "order-created");
    about_you_sign(&mut fixture);
    stack.send(&fixture).await.event_id("accepted");
    // The encoding is not documented.
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

/// Encodes bytes, which are given in hex, in base64.
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
async fn a_malformed_request_token_is_refused_without_a_call() {
    let stack = Stack::start().await;
    for (attack, change) in MALFORMED_REQUEST_TOKENS.attacks {
        let mut fixture = stack.signed("snipcart", "order-completed");
        change(&mut fixture);
        assert_eq!(stack.send(&fixture).await.status, 401, "{attack}");
    }
    assert!(stack.snipcart().asked().is_empty());
    for (attack, change) in UNKNOWN_REQUEST_TOKENS.attacks {
        let mut fixture = stack.signed("snipcart", "order-completed");
        change(&mut fixture);
        assert_eq!(stack.send(&fixture).await.status, 401, "{attack}");
    }
    assert_eq!(
        stack.snipcart().asked(),
        [format!("/api/requestvalidation/{UNKNOWN_REQUEST_TOKEN}")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn snipcarts_validation_fails_closed() {
    let stack = Stack::start().await;
    for (behaviour, status) in [
        (Behaviour::Status(404), 401),
        // Our key is wrong: the operator has to correct it.
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
        assert!(!answer.text.contains("key"), "the answer has a detail: {answer:?}");
    }
    assert!(
        stack.snipcart().asked().iter().all(|path| path != "/redirected"),
        "a redirect was followed"
    );
    stack.assert_untouched("snipcart").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snipcart_shop_may_require_a_url_token_too() {
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
    assert!(stack.snipcart().asked().is_empty(), "the URL token is checked first");
    let mut fixture = stack.signed("snipcart", "order-completed");
    token(&mut fixture, TOKEN);
    stack.send(&fixture).await.event_id("accepted");
}
