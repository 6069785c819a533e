//! The log of the functions contains no secret and no personal data, whatever is sent and asked.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use local::aws::faults::{Fault, Rule, Service};
use local::project::settings::{DEEPLE_PID, DEEPLE_SECRET, REDRIVE, SNIPCART_KEY, TOKEN};
use local::providers::samples::Fixture;
use local::providers::snipcart::Behaviour;
use serde_json::{Value, json};
use shared::answer::Reason;
use shared::codes::Code;
use shared::event::EventType;
use shared::identity::EventId;
use tests::authentication::{CLIENT_SECRET, OTHER_PID, OTHER_SECRET, OTHER_TOKEN};
use tests::providers::{Facts, PROVIDERS};
use tests::telemetry::{Line, documented, lines, sums};
use tests::{Answer, ORDERS, Stack, json_body};

use crate::telemetry::stack;

/// The length of the pieces of a body that must not occur in the log.
const PIECE: usize = 12;

/// A refusal by a service, which the SDK does not retry.
const DENIED: Fault = Fault::Answer {
    status: 400,
    code: "AccessDeniedException",
};

/// Texts that were sent and that the functions log in another meaning.
const OUR_OWN_WORDS: [&str; 12] = [
    "100", "1000", "100000", "500", "Snipcart", "failed", "false", "message", "red", "shop", "true", "unknown",
];

/// Everything that was sent, and the answers.
#[derive(Default)]
struct Sent {
    /// Every value of a header or a query parameter, such as tokens and signatures.
    credentials: BTreeSet<String>,
    /// Every text and every long number of the bodies and of the events.
    contents: BTreeSet<String>,
    bodies: Vec<Vec<u8>>,
    answers: Vec<(String, Answer)>,
}

impl Sent {
    async fn send(&mut self, stack: &Stack, fixture: &Fixture) {
        let headers = fixture.event["headers"].as_object().into_iter().flatten();
        // The time of sending is also in the log line.
        let headers = headers.filter(|(name, _)| !name.ends_with("timestamp"));
        let headers = headers.filter_map(|(_, value)| value.as_str().map(str::to_owned));
        let values: Vec<String> = headers
            .chain(fixture.query().into_iter().map(|(_, value)| value))
            .collect();
        for value in values {
            let basic = value
                .split_once(' ')
                .and_then(|(_, encoded)| STANDARD.decode(encoded).ok());
            let basic = basic.and_then(|decoded| String::from_utf8(decoded).ok());
            let parts = basic.iter().flat_map(|decoded| decoded.split(':')).map(str::to_owned);
            // A shorter value is an invalid credential of an attack.
            self.credentials
                .extend(parts.chain([value]).filter(|value| value.len() >= 8));
        }
        let body = fixture.body().expect("a body");
        if let Ok(json) = serde_json::from_slice(&body) {
            collect(&json, &mut self.contents);
        }
        self.bodies.push(body);
        self.answers.push((fixture.provider.clone(), stack.send(fixture).await));
    }
}

/// Collects the texts of at least three characters and the numbers of at least six digits.
pub(crate) fn collect(document: &Value, into: &mut BTreeSet<String>) {
    match document {
        Value::String(text) if text.chars().count() >= 3 => {
            into.insert(text.clone());
        }
        Value::Number(number) if number.to_string().len() >= 6 => {
            into.insert(number.to_string());
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
        Value::Object(members) => members.values().for_each(|value| collect(value, into)),
        _ => {}
    }
}

/// The words of a line without the names of the fields with drift.
fn words_without_drift(line: &Line) -> String {
    let mut line = line.clone();
    line.json.as_object_mut().expect("members").remove("drift");
    words(&line)
}

/// All names and values of a line, except for metrics, ids, times and types, whose form is checked here.
fn words(line: &Line) -> String {
    fn walk(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    into.push(name.clone());
                    walk(value, into);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, into)),
            Value::String(text) => into.push(text.clone()),
            other => into.push(other.to_string()),
        }
    }
    let mut rest = line.json.as_object().expect("members").clone();
    // The form of the metrics is checked where the line is read.
    rest.remove("_aws");
    for (metric, _, _) in line.metrics() {
        rest.remove(metric);
    }
    let duration = rest.remove("duration_ms");
    assert!(duration.is_none_or(|duration| duration.is_u64()), "{line:?}");
    let time = rest.remove("timestamp").expect("a time");
    time.as_str().expect("a time").parse::<Timestamp>().expect("a time");
    if let Some(id) = rest.remove("event_id") {
        assert!(EventId::parse(id.as_str().expect("an id")).is_some(), "{line:?}");
    }
    if let Some(id) = rest.remove("request_id") {
        let id = id.as_str().expect("an id");
        let hex = id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
        assert!(hex && id.len() == 36, "{line:?}");
    }
    if let Some(code) = rest.remove("code") {
        let codes = Code::ALL.iter().map(|code| code.as_str());
        let mut codes = codes.chain(Reason::ALL.iter().map(|reason| reason.as_str()));
        assert!(codes.any(|known| code == known), "{line:?}");
    }
    if let Some(word) = rest.remove("type") {
        assert!(serde_json::from_value::<EventType>(word).is_ok(), "{line:?}");
    }
    let mut words = Vec::new();
    walk(&rest.into(), &mut words);
    words.join("\n")
}

fn outcome(answer: &Answer) -> String {
    let json = answer.json();
    match json["status"].as_str() {
        Some(word) => word.to_owned(),
        None => answer.said("type").rsplit(':').next().expect("a word").to_owned(),
    }
}

/// The metrics that count an answer.
fn metrics_of(answer: &Answer) -> Vec<&'static str> {
    let outcome = match outcome(answer).as_str() {
        "accepted" => "Accepted",
        "duplicate" => "Duplicates",
        "unsupported" => "Unsupported",
        "quarantined" if answer.said("reason") == "conflict" => "Conflicts",
        "quarantined" if answer.said("reason") == "mapping_failed" => "MappingFailed",
        "quarantined" => "Quarantined",
        "verification_failed" => "Refused",
        "misconfigured" => "Misconfigured",
        "unavailable" => "Unavailable",
        "method_not_allowed" | "body_too_large" | "malformed_request" => "Invalid",
        other => panic!("{other}"),
    };
    let delivery = (answer.status == 200).then_some("Deliveries");
    delivery.into_iter().chain([outcome]).collect()
}

fn tally<K: Ord>(keys: impl IntoIterator<Item = K>) -> BTreeMap<K, u64> {
    let mut tally = BTreeMap::new();
    for key in keys {
        *tally.entry(key).or_default() += 1;
    }
    tally
}

/// Sends every event and every attack, and makes every kind of outcome happen. Returns the number of events that could
/// not be published.
async fn send_everything(stack: &Stack, sent: &mut Sent) -> u64 {
    for (provider, order) in ORDERS {
        for name in stack.events(provider) {
            sent.send(stack, &stack.signed(provider, &name)).await;
            sent.contents
                .extend(stack.golden(provider, &name).iter().flat_map(|golden| {
                    let mut contents = BTreeSet::new();
                    collect(&golden["data"]["order"], &mut contents);
                    contents
                }));
        }
        sent.send(stack, &stack.signed(provider, order)).await;

        let mut large = stack.signed(provider, order);
        large.set_body("x".repeat(1_000_001));
        sent.send(stack, &large).await;

        let mut get = stack.signed(provider, order);
        get.event["requestContext"]["http"]["method"] = Method::GET.as_str().into();
        sent.send(stack, &get).await;

        // The same event with another body.
        let mut conflict = stack.unsigned(provider, order);
        let mut body = json_body(&conflict);
        body["a field of a conflict"] = "a value of a conflict".into();
        conflict.set_body(body.to_string());
        stack.sign(&mut conflict);
        sent.send(stack, &conflict).await;
    }
    for facts in PROVIDERS {
        for (prepare, (_, change)) in facts.all_attacks() {
            let mut fixture = stack.signed(facts.name, facts.order);
            prepare(&mut fixture);
            change(&mut fixture);
            sent.send(stack, &fixture).await;
        }
    }
    for behaviour in [401, 403, 404, 500]
        .map(Behaviour::Status)
        .into_iter()
        .chain([Behaviour::Redirect])
    {
        stack.snipcart().behave(behaviour);
        sent.send(stack, &stack.signed("snipcart", "order-completed")).await;
    }
    stack.snipcart().behave(Behaviour::Genuine);

    let mut unpublished = 0;
    for (service, waiting) in [(Service::DynamoDb, 0), (Service::Sns, 1)] {
        let _denied = stack.tap().inject(Rule::all(service), DENIED);
        for (provider, order) in ORDERS {
            let fixture = stack.renewed(provider, order);
            sent.send(stack, &fixture).await;
            unpublished += waiting;
        }
    }
    unpublished
}

/// Runs every task of redrive, and sends invalid tasks.
async fn ask_everything(stack: &Stack) {
    stack.redrive().await;
    let mut conflicts = 0;
    for (provider, order) in ORDERS {
        let answer = stack.deliver(provider, order).await;
        let event_id = answer.event_id("duplicate");
        let event = stack.ask(json!({"get": {"event_id": event_id}})).await["events"][0]["event"].clone();
        let order = event["data"]["order"]["id"].as_str().unwrap_or("none").to_owned();
        let of_order = json!({"provider": provider, "shop": "main", "order": order, "dry_run": false});
        stack
            .ask(json!({"get": {"provider": provider, "shop": "main", "order": order}}))
            .await;
        stack
            .ask(json!({"state": {"provider": provider, "shop": "main", "order": order}}))
            .await;
        let replay = json!({"provider": provider, "from": "2020-01-01T00:00:00Z", "to": "2020-01-01T01:00:00Z"});
        stack.ask(json!({"replay": replay})).await;
        let now = Timestamp::now();
        let hour = SignedDuration::from_hours(1);
        let replay = json!({"provider": provider, "from": now - hour, "to": now + hour});
        stack.ask(json!({"replay": replay})).await;
        let compare = json!({"provider": provider, "from": now - hour, "to": now + hour, "values": true});
        stack.ask(json!({"compare": compare})).await;
        stack.ask(json!({"retain": replay})).await;
        let audit = json!({"provider": provider, "from": now - hour, "to": now + hour, "events": true});
        let audited = stack.ask(json!({"audit": audit})).await;
        assert_ne!(audited["books"], json!([]), "{audited}");
        stack
            .ask(json!({"audit": {"from": now, "to": now + hour, "scan": true}}))
            .await;
        let shown = stack.ask(json!({"get": {"event_id": event_id}})).await;
        // Another body can have the same id only if the payload names the event.
        if let Some(hash) = shown["conflicts"][0]["payload_sha256"].as_str() {
            let conflict = json!({"event_id": event_id, "payload_sha256": hash});
            let published = stack.ask(json!({"publish_conflict": conflict})).await;
            assert_eq!(published["accepted"], 1, "{published}");
            conflicts += 1;
        }
        let email = event["data"]["order"]["customer"]["email"].as_str();
        let email = email.unwrap_or("j.doe@example.com");
        let of_email = json!({
            "provider": provider, "shop": "main", "email": email, "from": now - hour, "to": now + hour,
        });
        let erased = stack.ask(json!({"erase": of_email})).await;
        assert_eq!(erased["done"], true, "{erased}");
        let reprocess = json!({"state": "unsupported", "provider": provider, "from": now - hour, "to": now + hour});
        stack.ask(json!({"reprocess": reprocess})).await;
        stack.ask(json!({"erase": of_order})).await;
        stack
            .ask(json!({"erase": {"event_id": event_id, "dry_run": false}}))
            .await;
    }
    assert_eq!(conflicts, PROVIDERS.iter().filter(|facts| facts.has_event_key).count());
    let id = "0".repeat(64);
    for task in [
        json!({"reprocess": {}}),
        json!({"reprocess": {"event_id": id}}),
        json!({"requeue": {}}),
        json!({"dismiss": {"event_id": id}}),
        json!({"undismiss": {"event_id": id}}),
        json!({"publish_conflict": {"event_id": id, "payload_sha256": id}}),
    ] {
        stack.ask(task).await;
    }
    for invalid in [
        json!({"get": "j.doe@example.com"}),
        json!({"j.doe@example.com": {}}),
        json!({"erase": {"provider": "cartum", "shop": "main", "email": "j.doe@example.com"}}),
        json!({"erase": {"email": "j.doe@example.com", "from": "j.doe@example.com"}}),
    ] {
        stack.invoke(REDRIVE, &invalid).await.expect_err("an invalid task");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_delivery_has_one_line_without_personal_data() {
    let stack = stack().await;
    let mut sent = Sent::default();
    let unpublished = send_everything(&stack, &mut sent).await;
    let before_redrive = sent.answers.len();
    ask_everything(&stack).await;
    let lines = lines(&stack).await;

    let deliveries: Vec<&Line> = lines
        .iter()
        .filter(|line| line.is_delivery())
        .take(before_redrive)
        .collect();
    let logged = tally(
        deliveries
            .iter()
            .map(|line| (line.function.clone(), line.said("outcome").to_owned())),
    );
    let answered = tally(
        sent.answers
            .iter()
            .map(|(provider, answer)| (provider.clone(), outcome(answer))),
    );
    assert_eq!(logged, answered, "there is one line for each answer");
    assert_eq!(
        lines.iter().filter(|line| line.is_delivery()).count(),
        before_redrive + ORDERS.len()
    );
    let ids = |name: &str| {
        tally(
            deliveries
                .iter()
                .map(|line| line.said(name).to_owned())
                .filter(|id| !id.is_empty()),
        )
    };
    let answered_ids = |name: &str| {
        let ids = sent
            .answers
            .iter()
            .filter_map(|(_, answer)| answer.json()[name].as_str().map(str::to_owned));
        tally(ids)
    };
    assert_eq!(ids("event_id"), answered_ids("event_id"));
    let requests = ids("request_id");
    assert!(requests.len() == deliveries.len(), "the request ids are not unique");
    assert!(answered_ids("request_id").keys().all(|id| requests.contains_key(id)));
    for line in &deliveries {
        assert_eq!(line.said("provider"), line.function, "{line:?}");
        assert!(
            line.json["duration_ms"].is_u64() && line.json["cold_start"].is_boolean(),
            "{line:?}"
        );
        let is_order = matches!(line.said("outcome"), "accepted" | "duplicate");
        assert!(!is_order || line.json["type"].is_string(), "{line:?}");
        let refused = matches!(
            line.said("outcome"),
            "verification_failed" | "misconfigured" | "unavailable"
        );
        assert!(!refused || line.json["cause"].is_string(), "{line:?}");
    }
    for (provider, _) in ORDERS {
        let cold = deliveries
            .iter()
            .filter(|line| line.function == provider && line.json["cold_start"] == true);
        assert_eq!(cold.count(), 1, "{provider} had more than one cold start");
    }

    let mut expected = tally(sent.answers.iter().flat_map(|(provider, answer)| {
        let metrics = metrics_of(answer).into_iter();
        metrics.map(|metric| (provider.clone(), metric.to_owned()))
    }));
    for (provider, _) in ORDERS {
        expected.insert(
            (provider.to_owned(), "Unpublished".to_owned()),
            unpublished / ORDERS.len() as u64,
        );
    }
    let counted: Vec<Line> = deliveries.iter().map(|line| (*line).clone()).collect();
    let mut counted = sums(&counted);
    // The answer does not show which of the refused deliveries had wrong credentials.
    for (provider, _) in ORDERS {
        let key = |metric: &str| (provider.to_owned(), metric.to_owned());
        let wrong = counted.remove(&key("WrongCredentials")).unwrap_or_default();
        let refused = expected[&key("Refused")];
        assert!((1..refused).contains(&wrong), "{provider}: {wrong} of {refused}");
    }
    // Some events of events/ have fields that are not known.
    for (provider, _) in ORDERS {
        let with_drift = deliveries
            .iter()
            .filter(|line| line.function == provider && line.json["drift"].is_array());
        let drifts = counted.remove(&(provider.to_owned(), "Drift".to_owned()));
        assert_eq!(drifts, Some(with_drift.count() as u64), "{provider}");
    }
    assert_eq!(counted, expected);
    for line in &deliveries {
        line.assert_dimensions(&Facts::of(&line.function).shops());
    }
    let mut counted: BTreeSet<String> = counted.into_keys().map(|(_, metric)| metric).collect();
    // No delivery of this test makes the mapping panic.
    counted.extend(["Drift", "MappingFailed", "WrongCredentials"].map(str::to_owned));
    assert_eq!(counted, documented().0, "the README's table");

    assert_clean(&stack, &sent, &lines);
}

/// Asserts that no line contains anything that was sent.
fn assert_clean(stack: &Stack, sent: &Sent, lines: &[Line]) {
    let secrets = [
        TOKEN,
        OTHER_TOKEN,
        DEEPLE_SECRET,
        DEEPLE_PID,
        CLIENT_SECRET,
        SNIPCART_KEY,
        OTHER_SECRET,
        OTHER_PID,
    ];
    let keys = [SNIPCART_KEY.to_owned(), format!("{SNIPCART_KEY}:")].map(|key| STANDARD.encode(key));
    let secrets: BTreeSet<String> = secrets.map(str::to_owned).into_iter().chain(keys).collect();
    let log = stack.log();
    for secret in secrets.union(&sent.credentials).map(String::as_str) {
        if OUR_OWN_WORDS.contains(&secret) {
            continue;
        }
        let line = log.iter().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret:?} is in {line:?}");
    }
    assert!(
        sent.credentials.len() > 200,
        "{} credentials were sent",
        sent.credentials.len()
    );

    // Drift contains the names of fields, of which a short value may be a part.
    let is_long = |content: &&String| content.len() >= PIECE;
    let drifts: Vec<String> = lines.iter().map(|line| line.json["drift"].to_string()).collect();
    for content in sent.contents.iter().filter(is_long) {
        let drift = drifts.iter().find(|drift| drift.contains(content));
        assert!(drift.is_none(), "{content:?} is in {drift:?}");
    }
    let logged: Vec<String> = lines.iter().map(words_without_drift).collect();
    let mut leaks = BTreeSet::new();
    for content in sent
        .contents
        .iter()
        .map(String::as_str)
        .filter(|content| !OUR_OWN_WORDS.contains(content))
    {
        leaks.extend(
            logged
                .iter()
                .find(|words| words.contains(content))
                .map(|words| (content, words.as_str())),
        );
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
    assert!(sent.contents.len() > 500, "{} contents were sent", sent.contents.len());

    // Any piece of a body, at any offset.
    let pieces: BTreeSet<&[u8]> = logged
        .iter()
        .flat_map(|words| words.as_bytes().windows(PIECE))
        .collect();
    for body in &sent.bodies {
        let leaked = body.windows(PIECE).find(|piece| pieces.contains(piece));
        assert_eq!(leaked.map(String::from_utf8_lossy), None);
    }
    // The session token contains the name of the environment.
    let tokens = lines.iter().find(|line| {
        let mut rest = line.text.as_str();
        let name = format!("{}-", line.function);
        std::iter::from_fn(|| {
            let (_, after) = rest.split_once(&name)?;
            rest = after;
            Some(after)
        })
        .any(|after| after.len() >= 32 && after.bytes().take(32).all(|byte| byte.is_ascii_hexdigit()))
    });
    assert!(tokens.is_none(), "{tokens:?}");
}
