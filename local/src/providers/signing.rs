//! Signs an event as its provider would if it were sent now.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;

use crate::Error;
use crate::project::settings::{DEEPLE_PID, DEEPLE_SECRET, SHOP, TOKEN};
use crate::providers::samples::Fixture;
use crate::providers::snipcart;

/// The credentials that sign an event. The default is those of the local stack.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The name of the shop in the URL.
    pub shop: String,
    /// The URL token.
    pub token: String,
    /// The project id at Deeple.
    pub pid: String,
    /// The secret of Deeple, or the client secret of ABOUT YOU if there is a `signature_header`.
    pub secret: String,
    /// The request token of Snipcart; without it, a new one that the stand-in accepts.
    pub request_token: Option<String>,
    /// The header for the signature of ABOUT YOU, which is optional.
    pub signature_header: Option<String>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            shop: SHOP.to_owned(),
            token: TOKEN.to_owned(),
            pid: DEEPLE_PID.to_owned(),
            secret: DEEPLE_SECRET.to_owned(),
            request_token: None,
            signature_header: None,
        }
    }
}

/// Signs `fixture` at the time `now`.
pub fn sign(fixture: &mut Fixture, credentials: &Credentials, now: Timestamp) -> Result<(), Error> {
    fixture.set_shop(&credentials.shop);
    match fixture.provider.as_str() {
        "deeple" => sign_deeple(fixture, credentials, now),
        "snipcart" => {
            let token = credentials.request_token.clone();
            let token = token.unwrap_or_else(|| format!("{}{}", snipcart::GENUINE, uuid::Uuid::new_v4().simple()));
            fixture.set_header("x-snipcart-requesttoken", token);
            Ok(())
        }
        _ => {
            set_token(fixture, &credentials.token);
            match &credentials.signature_header {
                Some(header) => {
                    let signature = hmac_sha256(&credentials.secret, &[&fixture.body()?]);
                    fixture.set_header(header, signature);
                    Ok(())
                }
                None => Ok(()),
            }
        }
    }
}

/// Sets the token in HTTP Basic if the event has it there, and in the query otherwise.
fn set_token(fixture: &mut Fixture, token: &str) {
    let mut query = fixture.query();
    let in_query = query.iter_mut().find(|(name, _)| name == "token");
    if let Some((_, value)) = in_query {
        token.clone_into(value);
    } else if let Some(basic) = fixture.header("authorization") {
        let old = basic
            .split_once(' ')
            .and_then(|(_, encoded)| BASE64.decode(encoded).ok())
            .unwrap_or_default();
        let user = String::from_utf8_lossy(&old)
            .split(':')
            .next()
            .unwrap_or_default()
            .to_owned();
        fixture.set_header(
            "authorization",
            format!("Basic {}", BASE64.encode(format!("{user}:{token}"))),
        );
        return;
    } else {
        query.push(("token".to_owned(), token.to_owned()));
    }
    fixture.set_query(&query);
}

/// Deeple documents two names of each header: `x-deeple-pid` for its API, and `PID` for its hooks. The names of the
/// event are kept.
fn sign_deeple(fixture: &mut Fixture, credentials: &Credentials, now: Timestamp) -> Result<(), Error> {
    let timestamp = now.as_millisecond().to_string();
    let signature = deeple_signature(&credentials.secret, fixture.method(), &timestamp, &fixture.body()?);
    let prefix = if fixture.header("x-deeple-signature").is_some() {
        "x-deeple-"
    } else {
        ""
    };
    for (name, value) in [
        ("pid", credentials.pid.clone()),
        ("timestamp", timestamp),
        ("signature", signature),
    ] {
        fixture.set_header(&format!("{prefix}{name}"), value);
    }
    Ok(())
}

/// The signature of Deeple in lower-case hex. `timestamp` is in milliseconds; an empty body counts as `{}`.
pub fn deeple_signature(secret: &str, method: &str, timestamp: &str, body: &[u8]) -> String {
    let body = if body.is_empty() { b"{}" } else { body };
    hmac_sha256(
        secret,
        &[
            method.to_ascii_uppercase().as_bytes(),
            b"\r\n",
            timestamp.as_bytes(),
            b"\r\n",
            body,
        ],
    )
}

/// HMAC-SHA256 in lower-case hex.
pub fn hmac_sha256(secret: &str, message: &[&[u8]]) -> String {
    // HMAC accepts a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    for part in message {
        mac.update(part);
    }
    hex::encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fixture(provider: &str, headers: &serde_json::Value, query: &str) -> Fixture {
        Fixture {
            provider: provider.to_owned(),
            name: "test".to_owned(),
            event: json!({
                "rawPath": "/webhooks/x/main", "rawQueryString": query, "headers": headers, "pathParameters": {"shop": "main"},
                "requestContext": {"http": {"method": "POST", "path": "/webhooks/x/main"}}, "body": "{}", "isBase64Encoded": false,
            }),
        }
    }

    fn signed(mut fixture: Fixture) -> Fixture {
        let credentials = Credentials {
            shop: "other".to_owned(),
            ..Credentials::default()
        };
        sign(
            &mut fixture,
            &credentials,
            Timestamp::from_millisecond(1_608_016_559_719).unwrap(),
        )
        .unwrap();
        fixture
    }

    #[test]
    fn a_deeple_signature_is_the_published_one() {
        for body in [&b"{}"[..], b""] {
            assert_eq!(
                deeple_signature("__SECRET__", "post", "1608016559719", body),
                "724f97f6bade275634d1f81cdd42fd5977e5b5f0e5eecd91e10df93a47e9a49c"
            );
        }
    }

    #[test]
    fn a_token_goes_where_the_event_has_it() {
        let event = signed(fixture("cartum", &json!({}), "event=order_created&token=old")).event;
        assert_eq!(
            event["rawQueryString"],
            "event=order_created&token=local-development-token"
        );
        assert_eq!(event["queryStringParameters"]["token"], "local-development-token");
        assert_eq!(event["rawPath"], "/webhooks/cartum/other");
        assert_eq!(event["pathParameters"]["shop"], "other");

        let basic = signed(fixture("selldone", &json!({"authorization": "Basic dXNlcjpvbGQ="}), ""));
        assert_eq!(
            basic.header("Authorization"),
            Some("Basic dXNlcjpsb2NhbC1kZXZlbG9wbWVudC10b2tlbg==")
        );
        assert_eq!(basic.event["rawQueryString"], "");

        let bare = signed(fixture("aboutyou", &json!({}), ""));
        assert_eq!(bare.event["rawQueryString"], "token=local-development-token");
    }

    #[test]
    fn deeple_headers_keep_the_events_names() {
        for (headers, name) in [
            (json!({"SIGNATURE": "old"}), "signature"),
            (json!({"x-deeple-signature": "old"}), "x-deeple-signature"),
        ] {
            let signed = signed(fixture("deeple", &headers, ""));
            let expected = deeple_signature(DEEPLE_SECRET, "POST", "1608016559719", b"{}");
            assert_eq!(signed.event["headers"][name], expected);
            assert_eq!(signed.event["headers"].as_object().unwrap().len(), 3);
        }
    }

    #[test]
    fn a_snipcart_token_is_new_each_time() {
        let tokens = [(), ()].map(|()| {
            signed(fixture("snipcart", &json!({}), ""))
                .header("X-Snipcart-RequestToken")
                .unwrap()
                .to_owned()
        });
        assert!(tokens.iter().all(|token| token.starts_with(snipcart::GENUINE)));
        assert_ne!(tokens[0], tokens[1]);
    }
}
