//! Lambda events that API Gateway should not send: each is answered, and logged and counted once. And wrong clocks: the
//! answer to a delivery does not depend on the clock of the function.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use local::project::settings::TOKEN;
use local::providers::signing::{Credentials, sign};
use serde_json::{Value, json};
use tests::telemetry::{Line, NAMESPACE, lines};
use tests::{ORDERS, Stack, order_of};

/// The name of a malformed event, the change to a valid event that makes it, and the outcome.
type Case = (&'static str, fn(&mut Value), Outcome);

/// The status of the answer, the outcome in the log line, and the metrics that count the event.
type Outcome = (Option<u16>, &'static str, &'static [&'static str]);

/// Every event has the same order, so it is a duplicate.
const KEPT: Outcome = (Some(200), "duplicate", &["Deliveries", "Duplicates"]);
const PING: Outcome = (Some(200), "unsupported", &["Deliveries", "Unsupported"]);
const UNREADABLE: Outcome = (Some(400), "malformed_request", &["Invalid"]);
const REFUSED: Outcome = (Some(401), "verification_failed", &["Refused"]);
const METHOD: Outcome = (Some(405), "method_not_allowed", &["Invalid"]);
const NO_HTTP: Outcome = (None, "not_an_http_event", &["Invalid"]);

fn query(event: &mut Value, more: &str) {
    event["rawQueryString"] = format!("token={TOKEN}&{more}").into();
}

fn host(event: &mut Value, host: &str) {
    event["headers"]["host"] = host.into();
    event["requestContext"]["domainName"] = host.into();
}

fn base64(event: &mut Value, body: impl FnOnce(String) -> String) {
    use ::base64::Engine as _;
    let text = event["body"].as_str().expect("text");
    event["body"] = body(::base64::engine::general_purpose::STANDARD.encode(text)).into();
    event["isBase64Encoded"] = true.into();
}

fn remove(event: &mut Value, pointer: &str) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = event.pointer_mut(parent).and_then(Value::as_object_mut);
    parent.expect("an object").remove(name).expect("a member");
}

const MALFORMED_EVENTS: &[Case] = &[
    ("a host with a space", |e| host(e, "exa mple.com"), KEPT),
    ("a host that is a port", |e| host(e, ":443"), KEPT),
    ("a host with two colons", |e| host(e, "a:b:c"), KEPT),
    ("a host with a malformed port", |e| host(e, "EXAMPLE.com:99999"), KEPT),
    ("a host with five numbers", |e| host(e, "1.2.3.4.5"), KEPT),
    ("a host with a broken escape", |e| host(e, "%zz"), KEPT),
    ("an empty host", |e| host(e, ""), KEPT),
    (
        "two protocols",
        |e| e["headers"]["x-forwarded-proto"] = "https,http".into(),
        KEPT,
    ),
    (
        "an empty protocol",
        |e| e["headers"]["x-forwarded-proto"] = "".into(),
        KEPT,
    ),
    (
        "a protocol with a space",
        |e| e["headers"]["x-forwarded-proto"] = "h ttp".into(),
        KEPT,
    ),
    ("a query with <", |e| query(e, "a=<"), KEPT),
    ("a query with >", |e| query(e, "a=>"), KEPT),
    ("a query with a quote", |e| query(e, "a=\""), KEPT),
    ("a query with spaces", |e| query(e, "a= b c"), KEPT),
    ("a query with a line break", |e| query(e, "a=\r\n"), KEPT),
    ("a query beyond ASCII", |e| query(e, "ä=ö\u{0}"), KEPT),
    ("a query of 70 KB", |e| query(e, &"x".repeat(70_000)), KEPT),
    ("a query of 70,000 parameters", |e| query(e, &"x&".repeat(70_000)), KEPT),
    ("broken escapes in the query", |e| query(e, "a=%&b=%z&c=%ff%fe&%"), KEPT),
    (
        "a parameter that is repeated",
        |e| query(e, &format!("token={TOKEN}")),
        REFUSED,
    ),
    ("no query", |e| remove(e, "/rawQueryString"), REFUSED),
    ("a query of null", |e| e["rawQueryString"] = Value::Null, REFUSED),
    ("a query that is a number", |e| e["rawQueryString"] = 1.into(), REFUSED),
    (
        "parameters that are not an object",
        |e| e["queryStringParameters"] = json!([1]),
        KEPT,
    ),
    (
        "base64 without padding",
        |e| base64(e, |t| t.trim_end_matches('=').to_owned()),
        KEPT,
    ),
    (
        "base64 in lines",
        |e| base64(e, |t| t.replace("AA", "AA\r\n") + "\n"),
        KEPT,
    ),
    (
        "base64 for URLs",
        |e| base64(e, |t| t.replace('+', "-").replace('/', "_")),
        KEPT,
    ),
    (
        "base64 that is plain text",
        |e| e["isBase64Encoded"] = true.into(),
        UNREADABLE,
    ),
    (
        "truncated base64",
        |e| base64(e, |t| t.trim_end_matches('=')[..5].to_owned()),
        UNREADABLE,
    ),
    ("a base64 flag of null", |e| e["isBase64Encoded"] = Value::Null, KEPT),
    ("no base64 flag", |e| remove(e, "/isBase64Encoded"), KEPT),
    (
        "a base64 flag that is a text",
        |e| e["isBase64Encoded"] = "true".into(),
        UNREADABLE,
    ),
    (
        "a base64 flag that is a number",
        |e| e["isBase64Encoded"] = 1.into(),
        UNREADABLE,
    ),
    ("no body", |e| remove(e, "/body"), PING),
    ("a body of null", |e| e["body"] = Value::Null, PING),
    ("a body that is an object", |e| e["body"] = json!({"a": 1}), UNREADABLE),
    ("a body that is a number", |e| e["body"] = 1.into(), UNREADABLE),
    (
        "an unreadable body with another method",
        |e| {
            e["body"] = 1.into();
            e["requestContext"]["http"]["method"] = "GET".into();
        },
        METHOD,
    ),
    (
        "an unreadable body with a wrong token",
        |e| {
            e["body"] = 1.into();
            e["rawQueryString"] = "token=wrong".into();
        },
        UNREADABLE,
    ),
    (
        "a header with a control character",
        |e| e["headers"]["x-a"] = "a\u{1}b".into(),
        KEPT,
    ),
    (
        "a header with a line break",
        |e| e["headers"]["x-a"] = "a\r\nb: c".into(),
        KEPT,
    ),
    ("a header beyond ASCII", |e| e["headers"]["x-a"] = "é".into(), KEPT),
    ("a header of null", |e| e["headers"]["x-a"] = Value::Null, KEPT),
    ("a header that is a number", |e| e["headers"]["x-a"] = 1.into(), KEPT),
    (
        "a header that is a list",
        |e| e["headers"]["x-a"] = json!(["a", "b"]),
        KEPT,
    ),
    ("a header without a name", |e| e["headers"][""] = "a".into(), KEPT),
    (
        "a header's name with a space",
        |e| e["headers"]["a b"] = "a".into(),
        KEPT,
    ),
    ("a header's name beyond ASCII", |e| e["headers"]["é"] = "a".into(), KEPT),
    (
        "a header of 100 KB",
        |e| e["headers"]["x-a"] = "a".repeat(100_000).into(),
        KEPT,
    ),
    (
        "40,000 headers",
        |e| {
            for number in 0..40_000 {
                e["headers"][format!("x-{number}")] = "a".into();
            }
        },
        KEPT,
    ),
    ("no headers", |e| remove(e, "/headers"), KEPT),
    ("headers of null", |e| e["headers"] = Value::Null, KEPT),
    ("headers that are a list", |e| e["headers"] = json!(["a: b"]), KEPT),
    ("cookies that are not a list", |e| e["cookies"] = json!({"a": 1}), KEPT),
    (
        "a time with a fraction",
        |e| e["requestContext"]["timeEpoch"] = json!(1.5),
        KEPT,
    ),
    (
        "a time of null",
        |e| e["requestContext"]["timeEpoch"] = Value::Null,
        KEPT,
    ),
    (
        "a time that is a text",
        |e| e["requestContext"]["timeEpoch"] = "now".into(),
        KEPT,
    ),
    (
        "a time out of range",
        |e| e["requestContext"]["timeEpoch"] = i64::MAX.into(),
        KEPT,
    ),
    ("no time", |e| remove(e, "/requestContext/timeEpoch"), KEPT),
    (
        "a malformed path",
        |e| {
            e["rawPath"] = "no path \u{1}".into();
            e["requestContext"]["http"]["path"] = Value::Null;
        },
        KEPT,
    ),
    ("no version", |e| remove(e, "/version"), KEPT),
    (
        "an authorizer that is a text",
        |e| e["requestContext"]["authorizer"] = "none".into(),
        KEPT,
    ),
    (
        "a malformed address",
        |e| e["requestContext"]["http"]["sourceIp"] = json!([]),
        KEPT,
    ),
    (
        "a shop with a slash after it",
        |e| e["pathParameters"]["shop"] = "main/".into(),
        KEPT,
    ),
    (
        "the route with a slash",
        |e| e["pathParameters"] = json!({"proxy": "main/"}),
        KEPT,
    ),
    (
        "a shop with two slashes",
        |e| e["pathParameters"]["shop"] = "main//".into(),
        REFUSED,
    ),
    (
        "a longer path",
        |e| e["pathParameters"] = json!({"proxy": "main/more"}),
        REFUSED,
    ),
    ("a shop of null", |e| e["pathParameters"]["shop"] = Value::Null, REFUSED),
    (
        "a shop that is a number",
        |e| e["pathParameters"]["shop"] = 1.into(),
        REFUSED,
    ),
    (
        "a malformed shop",
        |e| e["pathParameters"]["shop"] = "%2e%2e\u{0}".into(),
        REFUSED,
    ),
    (
        "path parameters of null",
        |e| e["pathParameters"] = Value::Null,
        REFUSED,
    ),
    ("no path parameters", |e| remove(e, "/pathParameters"), REFUSED),
    (
        "a method in lower case",
        |e| e["requestContext"]["http"]["method"] = "post".into(),
        METHOD,
    ),
    (
        "a method with a space",
        |e| e["requestContext"]["http"]["method"] = "PO ST".into(),
        METHOD,
    ),
    (
        "an empty method",
        |e| e["requestContext"]["http"]["method"] = "".into(),
        METHOD,
    ),
    (
        "a method of null",
        |e| e["requestContext"]["http"]["method"] = Value::Null,
        NO_HTTP,
    ),
    ("no method", |e| remove(e, "/requestContext/http/method"), NO_HTTP),
    ("no request context", |e| remove(e, "/requestContext"), NO_HTTP),
    (
        "a request context of null",
        |e| e["requestContext"] = Value::Null,
        NO_HTTP,
    ),
    (
        "an event of a REST API",
        |e| {
            *e = json!({"httpMethod": "POST", "path": "/webhooks/selldone/main", "requestContext": {"httpMethod": "POST"}, "body": "{}"});
        },
        NO_HTTP,
    ),
    (
        "an event of a load balancer",
        |e| {
            *e = json!({"httpMethod": "POST", "path": "/", "requestContext": {"elb": {"targetGroupArn": "arn"}}, "body": "{}"});
        },
        NO_HTTP,
    ),
    (
        "an event of a queue",
        |e| *e = json!({"Records": [{"eventSource": "aws:sqs", "body": "{}"}]}),
        NO_HTTP,
    ),
    ("an empty event", |e| *e = json!({}), NO_HTTP),
    ("a list", |e| *e = json!([]), NO_HTTP),
    ("a text", |e| *e = "event".into(), NO_HTTP),
    ("null", |e| *e = Value::Null, NO_HTTP),
];

/// Events that are malformed in their JSON text, which a [`Value`] cannot represent.
fn malformed_texts(event: &Value) -> Vec<(&'static str, String, Outcome)> {
    let text = event.to_string();
    let with = |members: &str| format!("{{{members},{}", &text[1..]);
    let in_headers = |members: &str| text.replacen("\"headers\":{", &format!("\"headers\":{{{members},"), 1);
    vec![
        ("a member twice", with(r#""body":1,"version":2,"headers":null"#), KEPT),
        (
            "an unpaired surrogate in the body",
            {
                let mut other = event.clone();
                other["body"] = "BODY".into();
                other.to_string().replace("BODY", "\\ud83d")
            },
            UNREADABLE,
        ),
        (
            "an unpaired surrogate in a header",
            in_headers(r#""x-a":"\ud83d""#),
            KEPT,
        ),
        ("a header twice", in_headers(r#""x-a":"1","X-A":"2","x-a":"3""#), KEPT),
        (
            "a time that does not fit into a float",
            text.replacen("\"timeEpoch\":", "\"timeEpoch\":1e400,\"t\":", 1),
            KEPT,
        ),
    ]
}

async fn stack() -> Stack {
    Stack::with(|config| {
        // One environment, so that the lines are in the order of the events.
        config.environments = 1;
        config
            .variables
            .insert("METRICS_NAMESPACE".to_owned(), NAMESPACE.to_owned());
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_malformed_event_is_answered_logged_and_counted() {
    let stack = stack().await;
    stack.deliver("selldone", "checkout-order").await.event_id("accepted");
    let event = stack.signed("selldone", "checkout-order").event;
    let cases = MALFORMED_EVENTS.iter().map(|(name, make, outcome)| {
        let mut event = event.clone();
        make(&mut event);
        (*name, event.to_string(), *outcome)
    });
    let cases: Vec<_> = cases.chain(malformed_texts(&event)).collect();
    let mut wrong = Vec::new();
    for (name, event, (status, word, _)) in &cases {
        let answer = stack.invoke_with("selldone", Bytes::from(event.clone())).await;
        let answered = answer.as_ref().ok().and_then(|answer| answer["statusCode"].as_u64());
        if answered != status.map(u64::from) {
            wrong.push(format!("{name}: {answer:?} instead of {status:?}"));
        } else if let Ok(answer) = answer {
            let body: Value = serde_json::from_str(answer["body"].as_str().expect("a body")).expect("JSON");
            let said = if *status == Some(200) {
                &body["status"]
            } else {
                &body["type"]
            };
            if !said.as_str().is_some_and(|said| said.ends_with(word)) {
                wrong.push(format!("{name}: {body} instead of {word}"));
            }
        }
    }
    let lines = lines(&stack).await;
    // The first line is about the order itself. The Lambda runtime logs another line for each error of the function.
    let deliveries: Vec<&Line> = lines.iter().filter(|line| line.is_delivery()).skip(1).collect();
    let errors = cases.iter().filter(|(_, _, (status, ..))| status.is_none()).count();
    assert_eq!(
        (deliveries.len(), lines.len()),
        (cases.len(), 1 + cases.len() + errors),
        "there is not one line for each event; wrong answers:\n{}",
        wrong.join("\n")
    );
    for ((name, _, (_, word, metrics)), line) in cases.iter().zip(deliveries) {
        let mut counted: Vec<_> = line.metrics().into_iter().map(|(name, _, _)| name).collect();
        counted.sort_unstable();
        if line.said("outcome") != *word || counted != *metrics {
            wrong.push(format!("{name}: {line:?} instead of {word}, {metrics:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// A stack in which the clock of the functions is `behind` that of API Gateway and Lambda.
async fn stack_with_clock(behind: SignedDuration) -> Stack {
    Stack::with(|config| config.clock_ahead = behind).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_clock_refuses_no_signed_delivery() {
    let behind = SignedDuration::from_secs(400);
    let stack = stack_with_clock(behind).await;
    let mut fixture = stack.unsigned("deeple", order_of("deeple"));
    let sent_at = Timestamp::now() + behind;
    sign(&mut fixture, &Credentials::default(), sent_at).expect("the event can be signed");
    let event_id = stack.send(&fixture).await.event_id("accepted");
    // The time of receipt is that of API Gateway.
    let event = stack.stored_event(&event_id).await;
    let received_at: Timestamp = event["data"]["received_at"]
        .as_str()
        .expect("a time")
        .parse()
        .expect("a time");
    let apart = received_at.duration_since(sent_at).abs();
    assert!(
        apart < SignedDuration::from_secs(60),
        "{received_at}, sent at {sent_at}"
    );
    // The window is measured by the clock of API Gateway.
    sign(&mut fixture, &Credentials::default(), sent_at + behind).expect("the event can be signed");
    assert_eq!(stack.send(&fixture).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_clock_costs_no_delivery() {
    // Further than the timeout, so that each deadline has passed when the event arrives.
    let ahead = SignedDuration::from_secs(20);
    let stack = stack_with_clock(-ahead).await;
    for (provider, order) in ORDERS {
        let mut fixture = stack.unsigned(provider, order);
        sign(&mut fixture, &Credentials::default(), Timestamp::now() - ahead).expect("the event can be signed");
        stack.send(&fixture).await.event_id("accepted");
        stack.send(&fixture).await.event_id("duplicate");
    }
    assert_eq!(stack.messages().await.len(), ORDERS.len());
}
