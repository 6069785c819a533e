//! What a forged or broken delivery can look like: tables of attacks, each made from a delivery that is in order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use local::project::settings::{DEEPLE_PID, DEEPLE_SECRET, TOKEN};
use local::providers::samples::Fixture;
use local::providers::signing::{deeple_signature, hmac_sha256};

/// What is wrong, and how it is made so from a signed event.
pub type Attack = (&'static str, fn(&mut Fixture));

/// The other shop's token: genuine, but there.
pub const OTHER_TOKEN: &str = "the-token-of-the-other-shop";

/// Sets the whole query.
pub fn query(fixture: &mut Fixture, parameters: &[(&str, &str)]) {
    let owned: Vec<_> = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    fixture.set_query(&owned);
}

/// Sets the URL token, and no other parameter.
pub fn token(fixture: &mut Fixture, token: &str) {
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
pub const TOKEN_ATTACKS: &[Attack] = &[
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

/// Signs as Deeple does, with whatever is to be wrong.
fn sign(fixture: &mut Fixture, secret: &str, method: &str, timestamp: &str, body: &[u8]) {
    let signature = deeple_signature(secret, method, timestamp, body);
    fixture.set_header("timestamp", timestamp);
    fixture.set_header("signature", signature);
}

/// Signs as Deeple does, with that timestamp.
pub fn sign_at(fixture: &mut Fixture, timestamp: &str) {
    let body = fixture.body().expect("a body");
    sign(fixture, DEEPLE_SECRET, "POST", timestamp, &body);
}

/// Deeple's timestamp of so many seconds from now.
pub fn from_now(seconds: i64) -> String {
    (Timestamp::now() + SignedDuration::from_secs(seconds))
        .as_millisecond()
        .to_string()
}

fn signature(fixture: &mut Fixture, change: impl FnOnce(&str) -> String) {
    let changed = change(fixture.header("signature").expect("a signature"));
    fixture.set_header("signature", changed);
}

/// For Deeple, whose other shop has the PID `other-pid` and the secret `other-secret`.
pub const DEEPLE_ATTACKS: &[Attack] = &[
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

/// The secret of ABOUT YOU's signature, where the shop demands one.
pub const CLIENT_SECRET: &str = "client-secret";
/// The header that it comes in.
pub const SIGNATURE_HEADER: &str = "x-aboutyou-signature";

/// Changes a delivery's signature.
pub fn about_you_signature(fixture: &mut Fixture, change: impl FnOnce(&str) -> String) {
    let changed = change(fixture.header(SIGNATURE_HEADER).expect("a signature"));
    fixture.set_header(SIGNATURE_HEADER, changed);
}

/// Signs as ABOUT YOU does.
pub fn about_you_sign(fixture: &mut Fixture) {
    let right = hmac_sha256(CLIENT_SECRET, &[&fixture.body().expect("a body")]);
    fixture.set_header(SIGNATURE_HEADER, right);
}

/// For a shop of ABOUT YOU that demands a signature.
pub const ABOUT_YOU_ATTACKS: &[Attack] = &[
    ("no signature", |f| f.remove_header(SIGNATURE_HEADER)),
    ("an empty signature", |f| f.set_header(SIGNATURE_HEADER, "")),
    ("a prefix alone", |f| f.set_header(SIGNATURE_HEADER, "sha256=")),
    ("a short signature", |f| {
        about_you_signature(f, |right| right[..63].to_owned());
    }),
    ("a long signature", |f| {
        about_you_signature(f, |right| format!("{right}0"));
    }),
    ("a signature in base64 of its hex", |f| {
        about_you_signature(f, |right| STANDARD.encode(right));
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

/// Sets Snipcart's request token.
pub fn request_token(fixture: &mut Fixture, token: &str) {
    fixture.set_header("x-snipcart-requesttoken", token);
}

/// These are refused without asking Snipcart.
pub const SNIPCART_TOKENS_THAT_ARE_NONE: &[Attack] = &[
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
