//! Forged and broken deliveries: tables of attacks, each of which changes a valid delivery.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use local::project::settings::{DEEPLE_PID, DEEPLE_SECRET, TOKEN};
use local::providers::samples::Fixture;
use local::providers::signing::{deeple_signature, hmac_sha256};

/// The name of an attack, and the change that it makes to a signed event.
pub type Attack = (&'static str, fn(&mut Fixture));

/// Attacks on deliveries that are prepared in the same way.
pub struct Attacks {
    /// Prepares a delivery with the development credentials, which is then valid.
    pub prepare: fn(&mut Fixture),
    /// The attacks.
    pub attacks: &'static [Attack],
}

/// Deliveries that are refused, and whether each counts as `WrongCredentials`: the sender knows, or once knew, a
/// credential.
pub type Refusals = &'static [(Attack, bool)];

/// The token of the shop `other`, which is not valid for `main`.
pub const OTHER_TOKEN: &str = "the-token-of-the-other-shop";
/// The PID of Deeple's shop `other`.
pub const OTHER_PID: &str = "other-pid";
/// The secret of Deeple's shop `other`.
pub const OTHER_SECRET: &str = "other-secret";

/// Replaces all query parameters.
pub fn query(fixture: &mut Fixture, parameters: &[(&str, &str)]) {
    let owned: Vec<_> = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    fixture.set_query(&owned);
}

/// Makes the URL token the only query parameter.
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

/// Attacks on a URL token.
pub const TOKENS: Attacks = Attacks {
    prepare: |_| {},
    attacks: TOKEN_ATTACKS,
};

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
    ("a wrong token and the right password", |f| {
        token(f, "wrong");
        f.set_header("authorization", basic(&format!(":{TOKEN}")));
    }),
    ("an empty token and the right password", |f| {
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
    ("a malformed shop", |f| f.set_shop("%2e%2e")),
    ("a shop whose name is too long", |f| f.set_shop(&"m".repeat(65))),
];

/// Signs as Deeple does, with these values.
fn sign(fixture: &mut Fixture, secret: &str, method: &str, timestamp: &str, body: &[u8]) {
    let signature = deeple_signature(secret, method, timestamp, body);
    fixture.set_header("timestamp", timestamp);
    fixture.set_header("signature", signature);
}

/// Signs as Deeple does, with this timestamp.
pub fn sign_at(fixture: &mut Fixture, timestamp: &str) {
    let body = fixture.body().expect("a body");
    sign(fixture, DEEPLE_SECRET, "POST", timestamp, &body);
}

/// Deeple's timestamp for a time this many seconds from now.
pub fn from_now(seconds: i64) -> String {
    (Timestamp::now() + SignedDuration::from_secs(seconds))
        .as_millisecond()
        .to_string()
}

fn signature(fixture: &mut Fixture, change: impl FnOnce(&str) -> String) {
    let changed = change(fixture.header("signature").expect("a signature"));
    fixture.set_header("signature", changed);
}

/// Attacks on Deeple's signature.
pub const DEEPLE: Attacks = Attacks {
    prepare: |_| {},
    attacks: DEEPLE_ATTACKS,
};

const DEEPLE_ATTACKS: &[Attack] = &[
    ("no header", |f| {
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
    ("another PID", |f| f.set_header("pid", OTHER_PID)),
    ("a PID in the wrong case", |f| {
        f.set_header("pid", DEEPLE_PID.to_uppercase());
    }),
    ("a short PID", |f| f.set_header("pid", &DEEPLE_PID[1..])),
    ("a short signature", |f| signature(f, |right| right[..63].to_owned())),
    ("only the first byte of a signature", |f| {
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
    ("a timestamp that was not signed", |f| {
        f.set_header("timestamp", from_now(-1));
    }),
    ("a stale timestamp", |f| sign_at(f, &from_now(-86_500))),
    ("a timestamp in the future", |f| sign_at(f, &from_now(400))),
    ("a timestamp in seconds", |f| {
        sign_at(f, &Timestamp::now().as_second().to_string());
    }),
    ("a malformed timestamp", |f| sign_at(f, "now")),
    ("a timestamp with a sign", |f| sign_at(f, &format!("+{}", from_now(0)))),
    ("a negative timestamp", |f| sign_at(f, "-1")),
    ("a timestamp out of range", |f| sign_at(f, "99999999999999999999")),
    ("the secret of another shop", |f| {
        let body = f.body().expect("a body");
        let now = from_now(0);
        sign(f, OTHER_SECRET, "POST", &now, &body);
    }),
    ("another shop's path", |f| f.set_shop("other")),
    ("an unknown shop", |f| f.set_shop("unknown")),
];

/// The shop of ABOUT YOU that requires a signature in addition to the token.
pub const SIGNED_SHOP: &str = "signed";
/// The secret of ABOUT YOU's signature, if the shop requires one.
pub const CLIENT_SECRET: &str = "client-secret";
/// The header of ABOUT YOU's signature.
pub const SIGNATURE_HEADER: &str = "x-aboutyou-signature";

/// Changes ABOUT YOU's signature.
pub fn about_you_signature(fixture: &mut Fixture, change: impl FnOnce(&str) -> String) {
    let changed = change(fixture.header(SIGNATURE_HEADER).expect("a signature"));
    fixture.set_header(SIGNATURE_HEADER, changed);
}

/// Signs as ABOUT YOU does.
pub fn about_you_sign(fixture: &mut Fixture) {
    let right = hmac_sha256(CLIENT_SECRET, &[&fixture.body().expect("a body")]);
    fixture.set_header(SIGNATURE_HEADER, right);
}

/// Attacks on the signature of ABOUT YOU, for the shop that requires one.
pub const ABOUT_YOU_SIGNATURES: Attacks = Attacks {
    prepare: |fixture| {
        fixture.set_shop(SIGNED_SHOP);
        about_you_sign(fixture);
    },
    attacks: ABOUT_YOU_ATTACKS,
};

const ABOUT_YOU_ATTACKS: &[Attack] = &[
    ("no signature", |f| f.remove_header(SIGNATURE_HEADER)),
    ("an empty signature", |f| f.set_header(SIGNATURE_HEADER, "")),
    ("only a prefix", |f| f.set_header(SIGNATURE_HEADER, "sha256=")),
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

/// Malformed request tokens, which are refused without a call to Snipcart.
pub const MALFORMED_REQUEST_TOKENS: Attacks = Attacks {
    prepare: |_| {},
    attacks: REQUEST_TOKEN_ATTACKS,
};

/// Request tokens that Snipcart does not know.
pub const UNKNOWN_REQUEST_TOKENS: Attacks = Attacks {
    prepare: |_| {},
    attacks: &[("an unknown token", |f| request_token(f, UNKNOWN_REQUEST_TOKEN))],
};

/// A request token that Snipcart does not know.
pub const UNKNOWN_REQUEST_TOKEN: &str = "an-unknown-request-token";

const REQUEST_TOKEN_ATTACKS: &[Attack] = &[
    ("no token", |f| f.remove_header("x-snipcart-requesttoken")),
    ("an empty token", |f| request_token(f, "")),
    ("a token that is a path", |f| request_token(f, "..")),
    ("a token with a relative path", |f| request_token(f, "local-a/../b")),
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

/// A token in the form of a valid one, such as a retired token.
const RETIRED: &str = "a-token-that-was-live-once";

/// Refused URL tokens.
pub const TOKEN_REFUSALS: Refusals = &[
    (("a retired token", |f| token(f, RETIRED)), true),
    (("another shop's token", |f| token(f, OTHER_TOKEN)), true),
    (
        ("a retired token as the password", |f| {
            query(f, &[]);
            f.set_header(
                "authorization",
                format!("Basic {}", STANDARD.encode(format!(":{RETIRED}"))),
            );
        }),
        true,
    ),
    (("no token", |f| query(f, &[])), false),
    (("a short guess", |f| token(f, "admin")), false),
    (
        ("a guess of another form", |f| token(f, "' OR token LIKE '%' --")),
        false,
    ),
    (("an unknown shop", |f| f.set_shop("shop-of-a-scanner")), false),
    (("a malformed shop", |f| f.set_shop("%2e%2e")), false),
];

/// Refused deliveries of Deeple.
pub const DEEPLE_REFUSALS: Refusals = &[
    (
        ("another signature", |f| f.set_header("signature", "0".repeat(64))),
        true,
    ),
    (("another PID", |f| f.set_header("pid", OTHER_PID)), true),
    (("an old timestamp", |f| sign_at(f, &from_now(-200_000))), true),
    (("no signature", |f| f.remove_header("signature")), false),
    (("an empty signature", |f| f.set_header("signature", "")), false),
    (("an unknown shop", |f| f.set_shop("shop-of-a-scanner")), false),
];

/// Refused deliveries of Snipcart.
pub const SNIPCART_REFUSALS: Refusals = &[
    (
        ("an unknown request token", |f| {
            request_token(f, UNKNOWN_REQUEST_TOKEN);
        }),
        true,
    ),
    (("a malformed request token", |f| request_token(f, "..")), false),
    (("an unknown shop", |f| f.set_shop("shop-of-a-scanner")), false),
];

/// Refused deliveries for the shop of ABOUT YOU that requires a signature in addition to the token.
pub const SIGNATURE_REFUSALS: Refusals = &[
    (("the token without a signature", |f| f.set_shop(SIGNED_SHOP)), true),
    (
        ("the token with another signature", |f| {
            f.set_shop(SIGNED_SHOP);
            f.set_header(SIGNATURE_HEADER, "0".repeat(64));
        }),
        true,
    ),
];
