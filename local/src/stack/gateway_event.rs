//! Converts HTTP requests to Lambda events and results to HTTP responses, like an HTTP API of API Gateway with payload
//! format 2.0.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::project::template::Match;

/// What API Gateway adds to a request.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// The id of the request.
    pub request_id: String,
    /// The address of the client.
    pub source_ip: IpAddr,
    /// When the request arrived.
    pub time: Timestamp,
    /// The X-Ray trace id of the request.
    pub trace_id: String,
}

/// The event that Lambda is called with.
pub(super) fn from_request(request: &Request<Bytes>, found: &Match<'_>, context: &Context) -> Value {
    let (headers, body) = (request.headers(), request.body());
    let header = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let host = header(HOST);
    let domain = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let port = host.rsplit_once(':').map_or("80", |(_, port)| port);

    let mut event_headers = joined(headers);
    event_headers.insert("x-amzn-trace-id".to_owned(), context.trace_id.clone());
    event_headers.insert("x-forwarded-for".to_owned(), context.source_ip.to_string());
    event_headers.insert("x-forwarded-port".to_owned(), port.to_owned());
    event_headers.insert("x-forwarded-proto".to_owned(), "http".to_owned());
    event_headers.insert("content-length".to_owned(), body.len().to_string());

    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    let mut event = json!({
        "version": "2.0",
        "routeKey": found.route.key(),
        "rawPath": path,
        "rawQueryString": query,
        "headers": event_headers,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "local",
            "domainName": domain,
            "domainPrefix": domain.split('.').next(),
            "http": {
                "method": request.method().as_str(),
                "path": path,
                "protocol": format!("{:?}", request.version()),
                "sourceIp": context.source_ip,
                "userAgent": header(USER_AGENT),
            },
            "requestId": context.request_id,
            "routeKey": found.route.key(),
            "stage": "$default",
            "time": context.time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
            "timeEpoch": context.time.as_millisecond(),
        },
        "isBase64Encoded": false,
    });
    // A part that is missing from the request is missing from the event.
    if let Some(cookies) = cookies(headers) {
        event["cookies"] = cookies;
    }
    if !query.is_empty() {
        event["queryStringParameters"] = query_parameters(query);
    }
    if !found.parameters.is_empty() {
        event["pathParameters"] = found
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect::<Map<_, _>>()
            .into();
    }
    if !body.is_empty() {
        if let Some(text) = text(headers, body) {
            event["body"] = text.into();
        } else {
            event["body"] = BASE64.encode(body).into();
            event["isBase64Encoded"] = true.into();
        }
    }
    event
}

/// The body, if it is sent as text. As observed on AWS, `text/*` and these three types are text; all other types, also
/// forms and a missing type, are sent in base64.
fn text<'a>(headers: &HeaderMap, body: &'a Bytes) -> Option<&'a str> {
    let media_type = headers
        .get(CONTENT_TYPE)?
        .to_str()
        .ok()?
        .split(';')
        .next()?
        .trim()
        .to_ascii_lowercase();
    let is_text = media_type.starts_with("text/")
        || matches!(
            media_type.as_str(),
            "application/json" | "application/xml" | "application/javascript"
        );
    if is_text { std::str::from_utf8(body).ok() } else { None }
}

/// The headers with their names in lower case, and the values of one name joined by commas. Cookies have their own
/// place.
fn joined(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut joined = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        if name == COOKIE {
            continue;
        }
        let value = String::from_utf8_lossy(value.as_bytes());
        joined
            .entry(name.as_str().to_owned())
            .and_modify(|values| {
                values.push(',');
                values.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    joined
}

fn cookies(headers: &HeaderMap) -> Option<Value> {
    let cookies: Vec<&str> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .map(str::trim)
        .filter(|cookie| !cookie.is_empty())
        .collect();
    (!cookies.is_empty()).then(|| json!(cookies))
}

/// The decoded parameters, the values of one name joined by commas.
fn query_parameters(query: &str) -> Value {
    let mut parameters = BTreeMap::<String, String>::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        parameters
            .entry(name.into_owned())
            .and_modify(|values| {
                values.push(',');
                values.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    json!(parameters)
}

/// The HTTP response for the result of a function; `None` if API Gateway cannot use it.
pub(super) fn to_response(returned: &[u8]) -> Option<Response<Bytes>> {
    let returned: Value = serde_json::from_slice(returned).ok()?;
    let Some(status) = returned.get("statusCode") else {
        // Without a status code, the complete result is the body.
        return Some(crate::net::server::json(StatusCode::OK, &returned));
    };
    let status = u16::try_from(status.as_u64()?).ok()?;
    let body = match &returned["body"] {
        Value::Null => Bytes::new(),
        Value::String(body) if returned["isBase64Encoded"] == true => BASE64.decode(body).ok()?.into(),
        Value::String(body) => body.clone().into(),
        _ => return None,
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=UTF-8"));
    for (name, value) in returned["headers"].as_object().into_iter().flatten() {
        let name = HeaderName::try_from(name.as_str()).ok()?;
        let value = match value {
            Value::String(value) => value.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => return None,
        };
        if name != CONTENT_LENGTH {
            headers.insert(name, HeaderValue::try_from(value).ok()?);
        }
    }
    for cookie in returned["cookies"].as_array().into_iter().flatten() {
        headers.append(SET_COOKIE, HeaderValue::from_str(cookie.as_str()?).ok()?);
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::template::{Function, Route, route};

    fn event(request: &Request<Bytes>) -> Value {
        let functions = [Function {
            name: "selldone".to_owned(),
            timeout: std::time::Duration::from_secs(15),
            routes: vec![Route {
                method: "ANY".to_owned(),
                path: "/webhooks/selldone/{shop}".to_owned(),
            }],
            schedules: Vec::new(),
        }];
        let found = route(&functions, request.method().as_str(), request.uri().path()).unwrap();
        let context = Context {
            request_id: "request-1".to_owned(),
            source_ip: [127, 0, 0, 1].into(),
            time: "2024-09-30T10:43:44.5Z".parse().unwrap(),
            trace_id: "Root=1-66fa8110-0".to_owned(),
        };
        from_request(request, &found, &context)
    }

    #[test]
    fn a_request_becomes_an_event_of_payload_format_2() {
        let request = Request::post("/webhooks/selldone/main?token=a%20b&x=1&x=2")
            .header("Host", "127.0.0.1:9000")
            .header("Content-Type", "application/json; charset=utf-8")
            .header("User-Agent", "shop/1")
            .header("X-Two", "a")
            .header("x-two", "b")
            .header("Cookie", "a=1; b=2")
            .body(Bytes::from_static(r#"{"total":451.16,"name":"é"}"#.as_bytes()))
            .unwrap();
        assert_eq!(
            event(&request),
            json!({
                "version": "2.0",
                "routeKey": "ANY /webhooks/selldone/{shop}",
                "rawPath": "/webhooks/selldone/main",
                "rawQueryString": "token=a%20b&x=1&x=2",
                "cookies": ["a=1", "b=2"],
                "headers": {
                    "content-length": "28",
                    "content-type": "application/json; charset=utf-8",
                    "host": "127.0.0.1:9000",
                    "user-agent": "shop/1",
                    "x-amzn-trace-id": "Root=1-66fa8110-0",
                    "x-forwarded-for": "127.0.0.1",
                    "x-forwarded-port": "9000",
                    "x-forwarded-proto": "http",
                    "x-two": "a,b",
                },
                "queryStringParameters": {"token": "a b", "x": "1,2"},
                "pathParameters": {"shop": "main"},
                "requestContext": {
                    "accountId": "000000000000",
                    "apiId": "local",
                    "domainName": "127.0.0.1",
                    "domainPrefix": "127",
                    "http": {
                        "method": "POST",
                        "path": "/webhooks/selldone/main",
                        "protocol": "HTTP/1.1",
                        "sourceIp": "127.0.0.1",
                        "userAgent": "shop/1",
                    },
                    "requestId": "request-1",
                    "routeKey": "ANY /webhooks/selldone/{shop}",
                    "stage": "$default",
                    "time": "30/Sep/2024:10:43:44 +0000",
                    "timeEpoch": 1_727_693_024_500_i64,
                },
                "body": r#"{"total":451.16,"name":"é"}"#,
                "isBase64Encoded": false,
            })
        );
    }

    #[test]
    fn a_body_of_another_type_than_text_is_in_base64() {
        let cases: [(Option<&str>, &[u8], bool); 8] = [
            (Some("application/json"), b"{}", false),
            (Some("Application/JSON;charset=UTF-8"), b"{}", false),
            (Some("text/plain"), b"{}", false),
            (Some("application/xml"), b"<a/>", false),
            (Some("application/x-www-form-urlencoded"), b"a=1", true),
            (Some("application/octet-stream"), b"{}", true),
            (Some("application/json"), b"\xff", true),
            (None, b"{}", true),
        ];
        for (content_type, body, encoded) in cases {
            let mut request = Request::post("/webhooks/selldone/main");
            if let Some(content_type) = content_type {
                request = request.header(CONTENT_TYPE, content_type);
            }
            let event = event(&request.body(Bytes::from_static(body)).unwrap());
            assert_eq!(event["isBase64Encoded"], encoded, "{content_type:?}");
            let sent = event["body"].as_str().unwrap();
            let sent = if encoded {
                BASE64.decode(sent).unwrap()
            } else {
                sent.as_bytes().to_vec()
            };
            assert_eq!(sent, body);
        }
    }

    #[test]
    fn missing_parts_of_a_request_are_missing_in_its_event() {
        let event = event(&Request::delete("/webhooks/selldone/main").body(Bytes::new()).unwrap());
        for absent in ["body", "cookies", "queryStringParameters"] {
            assert!(event.get(absent).is_none(), "{absent}");
        }
        assert_eq!(event["rawQueryString"], "");
    }

    #[test]
    fn the_result_of_a_function_becomes_a_response() {
        let response = to_response(
            br#"{"statusCode":503,"headers":{"Retry-After":"30","content-length":"9","x-number":5},"cookies":["a=1","b=2"],"body":"e30=","isBase64Encoded":true}"#,
        )
        .unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.body(), "{}");
        assert_eq!(response.headers()["retry-after"], "30");
        assert_eq!(response.headers()["x-number"], "5");
        assert_eq!(response.headers()["content-type"], "text/plain;charset=UTF-8");
        assert!(!response.headers().contains_key(CONTENT_LENGTH));
        assert_eq!(response.headers().get_all(SET_COOKIE).iter().count(), 2);

        assert_eq!(to_response(br#"{"a":1}"#).unwrap().body(), r#"{"a":1}"#);
        for nonsense in [
            &b"nothing"[..],
            br#"{"statusCode":"200"}"#,
            br#"{"statusCode":99}"#,
            br#"{"statusCode":200,"body":{}}"#,
        ] {
            assert!(to_response(nonsense).is_none());
        }
    }
}
