//! Deliveries that must not come through. Whatever is wrong with a request, the answer is the same, and nothing is stored or
//! published.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use jiff::{SignedDuration, Timestamp};
use local::fixture::Fixture;
use local::settings::{DEEPLE_PID, DEEPLE_SECRET, SNIPCART_KEY, TOKEN};
use local::signing::{deeple_signature, hmac_sha256};
use local::snipcart::Behaviour;
use serde_json::{Value, json};
use tests::{Answer, Stack, order_of};

/// What is wrong, and how it is made so from a signed event.
type Attack = (&'static str, fn(&mut Fixture));

/// The other shop's token: genuine, but there.
const OTHER_TOKEN: &str = "the-token-of-the-other-shop";

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

fn query(fixture: &mut Fixture, parameters: &[(&str, &str)]) {
    let owned: Vec<_> = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    fixture.set_query(&owned);
}

fn token(fixture: &mut Fixture, token: &str) {
    query(fixture, &[("token", token)]);
}

fn authorization(fixture: &mut Fixture, value: &str) {
    query(fixture, &[]);
    fixture.set_header("authorization", value);
}

fn basic(credentials: &str) -> String {
    format!("Basic {}", STANDARD.encode(credentials))
}

/// For every provider with a URL token.
const TOKEN_ATTACKS: &[Attack] = &[
    ("no token", |f| query(f, &[])),
    ("an empty token", |f| token(f, "")),
    ("a short token", |f| token(f, &TOKEN[..TOKEN.len() - 1])),
    ("a long token", |f| token(f, &format!("{TOKEN}x"))),
    ("a token in the wrong case", |f| token(f, &TOKEN.to_uppercase())),
    ("a token with a space", |f| token(f, &format!("{TOKEN} "))),
    ("a token that ends early", |f| token(f, &format!("{TOKEN}\0"))),
    ("a token that is a path", |f| token(f, "..")),
    ("two tokens in one value", |f| token(f, &format!("{TOKEN},{TOKEN}"))),
    ("another parameter", |f| query(f, &[("Token", TOKEN)])),
    ("the token twice", |f| query(f, &[("token", TOKEN), ("token", TOKEN)])),
    ("the token after a wrong one", |f| {
        query(f, &[("token", "wrong"), ("token", TOKEN)]);
    }),
    ("the token before a wrong one", |f| {
        query(f, &[("token", TOKEN), ("token", "wrong")]);
    }),
    ("a wrong token beside the right password", |f| {
        token(f, "wrong");
        f.set_header("authorization", basic(&format!(":{TOKEN}")));
    }),
    ("an empty token beside the right password", |f| {
        token(f, "");
        f.set_header("authorization", basic(&format!(":{TOKEN}")));
    }),
    ("the token as a header", |f| {
        query(f, &[]);
        f.set_header("token", TOKEN);
    }),
    ("another scheme", |f| authorization(f, &format!("Bearer {TOKEN}"))),
    ("a password that is not base64", |f| {
        authorization(f, &format!("Basic :{TOKEN}"));
    }),
    ("a user without a password", |f| authorization(f, &basic(TOKEN))),
    ("the token as the user", |f| {
        authorization(f, &basic(&format!("{TOKEN}:")));
    }),
    ("a wrong password", |f| authorization(f, &basic(":wrong"))),
    ("an empty authorization", |f| authorization(f, "")),
    ("the token of another shop", |f| token(f, OTHER_TOKEN)),
    ("the token at another shop", |f| f.set_shop("other")),
    ("an unknown shop", |f| f.set_shop("unknown")),
    ("a shop in the wrong case", |f| f.set_shop("Main")),
    ("a shop that is no name", |f| f.set_shop("%2e%2e")),
    ("a shop that is too long", |f| f.set_shop(&"m".repeat(65))),
];

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

/// Signs as Deeple does, with whatever is to be wrong.
fn sign(fixture: &mut Fixture, secret: &str, method: &str, timestamp: &str, body: &[u8]) {
    let signature = deeple_signature(secret, method, timestamp, body);
    fixture.set_header("timestamp", timestamp);
    fixture.set_header("signature", signature);
}

fn sign_at(fixture: &mut Fixture, timestamp: &str) {
    let body = fixture.body().expect("a body");
    sign(fixture, DEEPLE_SECRET, "POST", timestamp, &body);
}

fn from_now(seconds: i64) -> String {
    (Timestamp::now() + SignedDuration::from_secs(seconds))
        .as_millisecond()
        .to_string()
}

fn signature(fixture: &mut Fixture, change: impl FnOnce(&str) -> String) {
    let changed = change(fixture.header("signature").expect("a signature"));
    fixture.set_header("signature", changed);
}

const DEEPLE_ATTACKS: &[Attack] = &[
    ("no header at all", |f| {
        for name in ["pid", "timestamp", "signature"] {
            f.remove_header(name);
        }
    }),
    ("no PID", |f| f.remove_header("pid")),
    ("no timestamp", |f| f.remove_header("timestamp")),
    ("no signature", |f| f.remove_header("signature")),
    ("an empty PID", |f| f.set_header("pid", "")),
    ("an empty timestamp", |f| f.set_header("timestamp", "")),
    ("an empty signature", |f| f.set_header("signature", "")),
    ("another PID", |f| f.set_header("pid", "other-pid")),
    ("a PID in the wrong case", |f| {
        f.set_header("pid", DEEPLE_PID.to_uppercase());
    }),
    ("a short PID", |f| f.set_header("pid", &DEEPLE_PID[1..])),
    ("a short signature", |f| signature(f, |right| right[..63].to_owned())),
    ("a signature's first byte", |f| {
        signature(f, |right| right[..2].to_owned());
    }),
    ("a long signature", |f| signature(f, |right| format!("{right}0"))),
    ("a signature in the wrong case", |f| signature(f, str::to_uppercase)),
    ("a signature that is not hex", |f| signature(f, |_| "z".repeat(64))),
    ("a signature in base64", |f| {
        signature(f, |right| STANDARD.encode(right));
    }),
    ("a signature with a prefix", |f| {
        signature(f, |right| format!("sha256={right}"));
    }),
    ("the right signature for another body", |f| {
        let body = String::from_utf8(f.body().expect("a body")).expect("text");
        f.set_body(body.replacen("1200", "1", 1));
    }),
    ("the right signature for a body without its last byte", |f| {
        let mut body = f.body().expect("a body");
        body.pop();
        f.set_body(body);
    }),
    ("the right signature for an empty body", |f| {
        let now = from_now(0);
        sign(f, DEEPLE_SECRET, "POST", &now, b"");
    }),
    ("a signature with another secret", |f| {
        let body = f.body().expect("a body");
        let now = from_now(0);
        sign(f, "another-secret", "POST", &now, &body);
    }),
    ("a signature with an empty secret", |f| {
        let body = f.body().expect("a body");
        let now = from_now(0);
        sign(f, "", "POST", &now, &body);
    }),
    ("a signature for another method", |f| {
        let body = f.body().expect("a body");
        let now = from_now(0);
        sign(f, DEEPLE_SECRET, "GET", &now, &body);
    }),
    ("a signature over the body alone", |f| {
        let body = f.body().expect("a body");
        f.set_header("signature", hmac_sha256(DEEPLE_SECRET, &[&body]));
    }),
    ("another timestamp than the signed one", |f| {
        f.set_header("timestamp", from_now(-1));
    }),
    ("a stale timestamp", |f| sign_at(f, &from_now(-86_500))),
    ("a timestamp in the future", |f| sign_at(f, &from_now(400))),
    ("a timestamp in seconds", |f| {
        sign_at(f, &Timestamp::now().as_second().to_string());
    }),
    ("a timestamp that is none", |f| sign_at(f, "now")),
    ("a timestamp with a sign", |f| sign_at(f, &format!("+{}", from_now(0)))),
    ("a negative timestamp", |f| sign_at(f, "-1")),
    ("a timestamp beyond all time", |f| sign_at(f, "99999999999999999999")),
    ("the secret of another shop", |f| {
        let body = f.body().expect("a body");
        let now = from_now(0);
        sign(f, "other-secret", "POST", &now, &body);
    }),
    ("another shop's path", |f| f.set_shop("other")),
    ("an unknown shop", |f| f.set_shop("unknown")),
];

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

/// ABOUT YOU's signature, where the shop demands one.
const CLIENT_SECRET: &str = "client-secret";
const SIGNATURE_HEADER: &str = "x-aboutyou-signature";

fn about_you_signature(fixture: &mut Fixture, change: impl FnOnce(&str) -> String) {
    let changed = change(fixture.header(SIGNATURE_HEADER).expect("a signature"));
    fixture.set_header(SIGNATURE_HEADER, changed);
}

fn about_you_sign(fixture: &mut Fixture) {
    let right = hmac_sha256(CLIENT_SECRET, &[&fixture.body().expect("a body")]);
    fixture.set_header(SIGNATURE_HEADER, right);
}

const ABOUT_YOU_ATTACKS: &[Attack] = &[
    ("no signature", |f| f.remove_header(SIGNATURE_HEADER)),
    ("an empty signature", |f| f.set_header(SIGNATURE_HEADER, "")),
    ("a prefix alone", |f| f.set_header(SIGNATURE_HEADER, "sha256=")),
    ("a short signature", |f| {
        about_you_signature(f, |right| right[..63].to_owned());
    }),
    ("a long signature", |f| {
        about_you_signature(f, |right| format!("{right}0"));
    }),
    ("a signature in the wrong case", |f| {
        about_you_signature(f, str::to_uppercase);
    }),
    ("a signature that is not hex", |f| {
        about_you_signature(f, |_| "z".repeat(64));
    }),
    ("another prefix", |f| {
        about_you_signature(f, |right| format!("sha1={right}"));
    }),
    ("the right signature for another body", |f| {
        let mut body = f.body().expect("a body");
        body.push(b' ');
        f.set_body(body);
    }),
    ("a signature with another secret", |f| {
        let signature = hmac_sha256("another", &[&f.body().expect("a body")]);
        f.set_header(SIGNATURE_HEADER, signature);
    }),
    ("the signature under another header", |f| {
        let signature = f.header(SIGNATURE_HEADER).expect("a signature").to_owned();
        f.remove_header(SIGNATURE_HEADER);
        f.set_header("x-signature", signature);
    }),
    ("the right signature without the token", |f| query(f, &[])),
    ("the right signature with a wrong token", |f| token(f, "wrong")),
];

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
    about_you_signature(&mut fixture, |right| format!("sha256={right}"));
    stack.send(&fixture).await.event_id("duplicate");
}

fn request_token(fixture: &mut Fixture, token: &str) {
    fixture.set_header("x-snipcart-requesttoken", token);
}

/// These are refused without asking Snipcart.
const SNIPCART_TOKENS_THAT_ARE_NONE: &[Attack] = &[
    ("no token", |f| f.remove_header("x-snipcart-requesttoken")),
    ("an empty token", |f| request_token(f, "")),
    ("a token that leaves its path", |f| request_token(f, "..")),
    ("a token with a path", |f| request_token(f, "local-a/../b")),
    ("a token with an encoded path", |f| request_token(f, "local-a%2f..")),
    ("a token with a query", |f| request_token(f, "local-a?b")),
    ("a token with a fragment", |f| request_token(f, "local-a#b")),
    ("a token with a dot", |f| request_token(f, "local-a.b")),
    ("a token with a space", |f| request_token(f, "local-a b")),
    ("a long token", |f| {
        request_token(f, &format!("local-{}", "x".repeat(123)));
    }),
    ("the token in the query", |f| {
        let token = f.header("x-snipcart-requesttoken").expect("a token").to_owned();
        f.remove_header("x-snipcart-requesttoken");
        query(f, &[("X-Snipcart-RequestToken", &token), ("token", &token)]);
    }),
    ("an unknown shop", |f| f.set_shop("unknown")),
];

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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_secret_is_in_no_log() {
    let stack = Stack::start().await;
    for (provider, order) in tests::ORDERS {
        stack.deliver(provider, order).await.event_id("accepted");
        let mut fixture = stack.signed(provider, order);
        fixture.set_shop("unknown");
        assert_eq!(stack.send(&fixture).await.status, 401);
    }
    let log = stack.log().join("\n");
    assert!(log.contains("accepted"), "there is a log: {log}");
    for secret in [TOKEN, DEEPLE_SECRET, SNIPCART_KEY, "John Doe"] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
}
