//! Reads the event of an API Gateway HTTP API with payload format 2.0.
//!
//! Everything that arrives over HTTP may be malformed. So only the parts of a delivery are read, each by itself: an
//! unusable header is skipped, a body that cannot be decoded is reported when the body is read, and nothing here
//! panics.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use lambda_http::Body;
use lambda_http::aws_lambda_events::query_map::QueryMap;
use lambda_http::http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// One request, as API Gateway passes it on.
#[derive(Debug)]
pub struct HttpEvent {
    /// The method; `None` if it is not a valid HTTP method.
    pub method: Option<Method>,
    /// The shop's name in the path, without a trailing slash.
    pub shop: Option<String>,
    /// The usable headers.
    pub headers: HeaderMap,
    /// The decoded query.
    pub query: QueryMap,
    /// The body, decoded from base64 if the event says so.
    pub body: Result<Body, UnreadableBody>,
    /// The time at which API Gateway received the request, by its own clock.
    pub received_at: Option<Timestamp>,
}

/// The body is not text, or is marked as base64 and cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadableBody;

/// The event does not come from an HTTP API, because it names no HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event is not from an API Gateway HTTP API with payload format 2.0")]
pub struct NotAnHttpEvent;

impl HttpEvent {
    /// Reads an event from JSON.
    ///
    /// # Errors
    /// If it is not an event of an HTTP API. The error contains nothing of the event.
    pub fn read(json: &[u8]) -> Result<Self, NotAnHttpEvent> {
        serde_json::from_slice(json).map_or(Err(NotAnHttpEvent), |Incoming(event)| event)
    }

    fn from_members(members: &EventMembers<'_>) -> Result<Self, NotAnHttpEvent> {
        let mut http = None;
        let mut time_epoch = None;
        for_each_member(members.request_context, |name, value| match name {
            "http" => http = Some(value),
            "timeEpoch" => time_epoch = Some(value),
            _ => {}
        });
        let mut method = None;
        for_each_member(http, |name, value| {
            if name == "method" {
                method = text(value);
            }
        });
        let method = method.ok_or(NotAnHttpEvent)?;
        let mut shop = None;
        let mut shop_and_slash = None;
        for_each_member(members.path_parameters, |name, value| match name {
            "shop" => shop = text(value),
            // The name that SAM expects in the route for paths with a slash after the shop.
            "proxy" => shop_and_slash = text(value),
            _ => {}
        });
        let shop = shop.or(shop_and_slash);
        let query = members.raw_query_string.and_then(text).unwrap_or_default();
        let epoch: Option<i64> = time_epoch.and_then(|time| serde_json::from_str(time.get()).ok());
        Ok(Self {
            method: Method::from_bytes(method.as_bytes()).ok(),
            shop: shop.map(|shop| shop.strip_suffix('/').unwrap_or(&shop).to_owned()),
            headers: headers(members.headers),
            query: query.parse().unwrap_or_default(),
            body: body(members.body, members.is_base64_encoded),
            received_at: epoch.and_then(|time| Timestamp::from_millisecond(time).ok()),
        })
    }
}

/// An event, as the Lambda runtime passes it on. Reading it never fails, so that the function can log and count
/// malformed events.
pub(crate) struct Incoming(pub(crate) Result<HttpEvent, NotAnHttpEvent>);

impl<'de> Deserialize<'de> for Incoming {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut event = EventMembers::default();
        let read = deserializer.deserialize_map(Members(|name: &str, value| match name {
            "rawQueryString" => event.raw_query_string = Some(value),
            "headers" => event.headers = Some(value),
            "requestContext" => event.request_context = Some(value),
            "pathParameters" => event.path_parameters = Some(value),
            "body" => event.body = Some(value),
            "isBase64Encoded" => event.is_base64_encoded = Some(value),
            _ => {}
        }));
        // serde's message may quote the event.
        let event = match read {
            Ok(()) => HttpEvent::from_members(&event),
            Err(_) => Err(NotAnHttpEvent),
        };
        Ok(Self(event))
    }
}

/// The members of an event that are read, as JSON.
#[derive(Default)]
struct EventMembers<'de> {
    raw_query_string: Option<&'de RawValue>,
    headers: Option<&'de RawValue>,
    request_context: Option<&'de RawValue>,
    path_parameters: Option<&'de RawValue>,
    body: Option<&'de RawValue>,
    is_base64_encoded: Option<&'de RawValue>,
}

/// Calls the function with each member of an object.
struct Members<F>(F);

impl<'de, F: FnMut(&str, &'de RawValue)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = members.next_key()? {
            (self.0)(&name, members.next_value()?);
        }
        Ok(())
    }
}

/// Calls `member` with each member of an object, up to the first that cannot be read. Other values have no members.
fn for_each_member<'de>(object: Option<&'de RawValue>, member: impl FnMut(&str, &'de RawValue)) {
    if let Some(object) = object {
        let mut json = serde_json::Deserializer::from_str(object.get());
        let _ = json.deserialize_map(Members(member));
    }
}

/// Text that is copied only if it has escapes.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ReadText;

        impl<'de> Visitor<'de> for ReadText {
            type Value = Text<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(text.into()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(text.to_owned().into()))
            }
        }

        deserializer.deserialize_str(ReadText)
    }
}

fn text(json: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str(json.get()).ok().map(|Text(text)| text)
}

/// Reads the headers that are valid in HTTP. If verification needs a header that is skipped, it fails.
fn headers(object: Option<&RawValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for_each_member(object, |name, value| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok();
        let value = text(value).and_then(|value| HeaderValue::from_str(&value).ok());
        if let (Some(name), Some(value)) = (name, value) {
            // A map takes 32,768 headers; API Gateway passes on 10 KB of them.
            let _ = headers.try_append(name, value);
        }
    });
    headers
}

fn body(body: Option<&RawValue>, is_base64_encoded: Option<&RawValue>) -> Result<Body, UnreadableBody> {
    let Some(body) = body.filter(|body| body.get() != "null") else {
        return Ok(Body::Empty);
    };
    match is_base64_encoded.map_or("false", RawValue::get) {
        "false" | "null" => serde_json::from_str(body.get())
            .map(Body::Text)
            .map_err(|_| UnreadableBody),
        "true" => text(body)
            .and_then(|text| decode_base64(&text))
            .map(Body::Binary)
            .ok_or(UnreadableBody),
        _ => Err(UnreadableBody),
    }
}

/// Decodes base64 in any of its usual forms: with either alphabet, with or without padding, on one line or many.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const ANY_PADDING: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
    BASE64
        .decode(text)
        .or_else(|_| {
            let plain = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
            let plain = plain.map(|byte| match byte {
                b'-' => b'+',
                b'_' => b'/',
                other => other,
            });
            BASE64.decode(plain.collect::<Vec<_>>())
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn event() -> Value {
        json!({
            "version": "2.0",
            "rawQueryString": "token=a%20b&event=x",
            "headers": {"pid": "local-pid", "Content-Type": "application/json"},
            "requestContext": {"http": {"method": "PUT"}, "timeEpoch": 1_727_693_024_500_i64},
            "pathParameters": {"shop": "main"},
            "body": "{\"é\":1}",
            "isBase64Encoded": false,
        })
    }

    fn read(event: &Value) -> HttpEvent {
        HttpEvent::read(event.to_string().as_bytes()).expect("an event of an HTTP API")
    }

    /// The sample event with another value at `pointer`.
    fn with(pointer: &str, value: Value) -> Value {
        let mut event = event();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        event.pointer_mut(parent).expect("an object")[name] = value;
        event
    }

    #[test]
    fn an_event_is_read_in_all_its_parts() {
        let event = read(&event());
        assert_eq!(event.method, Some(Method::PUT));
        assert_eq!(event.shop.as_deref(), Some("main"));
        assert_eq!(event.headers["pid"], "local-pid");
        assert_eq!(event.headers["content-type"], "application/json");
        assert_eq!(event.query.all("token"), Some(vec!["a b"]));
        assert_eq!(event.body, Ok(Body::from("{\"é\":1}")));
        let received_at = event.received_at.expect("a time");
        assert_eq!(received_at.to_string(), "2024-09-30T10:43:44.5Z");
    }

    #[test]
    fn an_unusable_header_is_skipped() {
        for value in [
            json!(null),
            json!("a\u{1}b"),
            json!("a\r\nb"),
            json!(1),
            json!(["a"]),
            json!({}),
        ] {
            let event = read(&with("/headers/pid", value.clone()));
            assert!(!event.headers.contains_key("pid"), "{value}");
            assert!(event.headers.contains_key("content-type"), "{value}");
        }
        for name in ["", "a b", "é", ":path", "a\nb"] {
            assert_eq!(
                read(&with(&format!("/headers/{name}"), json!("x"))).headers.len(),
                2,
                "{name}"
            );
        }
        for none in [json!(null), json!([]), json!("pid: x"), json!(1)] {
            assert!(read(&with("/headers", none)).headers.is_empty());
        }
    }

    #[test]
    fn more_headers_than_a_map_takes_are_skipped() {
        let many: serde_json::Map<_, _> = (0..40_000).map(|n| (format!("x-{n}"), json!("1"))).collect();
        assert!(read(&with("/headers", many.into())).headers.len() > 20_000);
    }

    #[test]
    fn base64_is_decoded_in_any_of_its_forms() {
        // All bytes twice, so that the alphabets differ, and a length that needs padding.
        let bytes: Vec<u8> = (0..=255).chain(0..=255).chain([255, 254]).collect();
        let padded = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let bare = padded.trim_end_matches('=').to_owned();
        let lines: Vec<&str> = padded
            .as_bytes()
            .chunks(76)
            .map(|line| std::str::from_utf8(line).expect("ASCII"))
            .collect();
        let url_safe = padded.replace('+', "-").replace('/', "_");
        for text in [&padded, &bare, &lines.join("\r\n"), &format!("{padded}\n"), &url_safe] {
            let mut event = with("/isBase64Encoded", json!(true));
            event["body"] = json!(text);
            assert_eq!(read(&event).body, Ok(Body::Binary(bytes.clone())), "{text}");
        }
    }

    #[test]
    fn a_body_that_cannot_be_decoded_is_reported() {
        for (body, flag) in [
            (json!("{\"order\":1}"), json!(true)),
            (json!("a"), json!(true)),
            (json!("YQ==YQ=="), json!(true)),
            (json!(1), json!(false)),
            (json!({}), json!(null)),
            (json!(["a"]), json!(true)),
            (json!("{}"), json!("false")),
            (json!("{}"), json!(0)),
        ] {
            let mut event = with("/body", body);
            event["isBase64Encoded"] = flag;
            assert_eq!(read(&event).body, Err(UnreadableBody), "{event}");
        }
        let half_a_pair = event().to_string().replace("{\\\"é\\\":1}", "\\ud83d");
        assert_eq!(
            HttpEvent::read(half_a_pair.as_bytes()).expect("an event").body,
            Err(UnreadableBody)
        );
    }

    #[test]
    fn without_a_flag_the_body_is_text() {
        let mut without = event();
        without.as_object_mut().expect("an object").remove("isBase64Encoded");
        for event in [without, with("/isBase64Encoded", json!(null))] {
            assert_eq!(read(&event).body, Ok(Body::from("{\"é\":1}")));
        }
        for flag in [json!(true), json!(false), json!("?")] {
            let mut event = with("/isBase64Encoded", flag);
            event["body"] = Value::Null;
            assert_eq!(read(&event).body, Ok(Body::Empty));
        }
    }

    #[test]
    fn a_slash_after_the_shop_is_not_part_of_it() {
        for (path, shop) in [("main/", "main"), ("main//", "main/"), ("/", ""), ("a/b", "a/b")] {
            assert_eq!(
                read(&with("/pathParameters/shop", json!(path))).shop.as_deref(),
                Some(shop)
            );
            assert_eq!(
                read(&with("/pathParameters", json!({"proxy": path}))).shop.as_deref(),
                Some(shop)
            );
        }
    }

    #[test]
    fn a_time_that_is_not_in_integer_milliseconds_is_absent() {
        let odd = r#"[1.5, null, "1727693024500", {}, 1e400, -99999999999999999999, 9223372036854775807]"#;
        for time in serde_json::from_str::<Vec<Value>>(odd).expect("JSON") {
            assert_eq!(read(&with("/requestContext/timeEpoch", time)).received_at, None);
        }
    }

    #[test]
    fn an_event_without_a_method_is_not_http() {
        let no_events = [
            "",
            "{",
            "[]",
            "null",
            "1",
            "\"text\"",
            "{}",
            r#"{"httpMethod":"POST","path":"/","requestContext":{"elb":{}}}"#,
            r#"{"version":"1.0","httpMethod":"POST","requestContext":{"httpMethod":"POST"}}"#,
            r#"{"requestContext":{"http":{"method":null}}}"#,
            r#"{"requestContext":{"http":{"method":1}}}"#,
            r#"{"requestContext":{"http":"POST"}}"#,
        ];
        for json in no_events {
            assert!(HttpEvent::read(json.as_bytes()).is_err(), "{json}");
        }
        for odd in ["", "PO ST", "POST\n", "é"] {
            assert_eq!(
                read(&with("/requestContext/http/method", json!(odd))).method,
                None,
                "{odd}"
            );
        }
    }

    /// Any JSON, whose names include those that are read.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
            "[A-Za-z0-9+/=\\n_-]{0,40}".prop_map(Value::from),
            "[a-z%&=<>\" ]{0,40}".prop_map(Value::from),
        ];
        let names = [
            "rawQueryString",
            "headers",
            "requestContext",
            "http",
            "method",
            "timeEpoch",
            "pathParameters",
            "shop",
            "body",
            "isBase64Encoded",
            "pid",
            "",
        ];
        let name = prop_oneof![proptest::sample::select(names.to_vec()).prop_map(str::to_owned), ".*"];
        leaf.prop_recursive(4, 64, 8, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map(name.clone(), inner, 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_event_panics(event in any_json()) {
            let _ = HttpEvent::read(event.to_string().as_bytes());
        }

        #[test]
        fn an_event_with_one_malformed_member_is_still_read(
            pointer in proptest::sample::select(vec![
                "/rawQueryString", "/headers", "/headers/pid", "/requestContext/timeEpoch", "/pathParameters",
                "/pathParameters/shop", "/body", "/isBase64Encoded", "/cookies", "/queryStringParameters", "/version",
                "/requestContext/domainName",
            ]),
            value in any_json(),
        ) {
            let event = read(&with(pointer, value));
            prop_assert_eq!(event.method, Some(Method::PUT));
        }
    }
}
