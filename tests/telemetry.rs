//! What the functions say of their work: a line for each delivery and each run of redrive, log and metrics in one, and in none of it
//! anything secret or personal.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use local::fixture::Fixture;
use local::settings::{DEEPLE_PID, DEEPLE_SECRET, REDRIVE, SNIPCART_KEY, TOKEN};
use local::snipcart::Behaviour;
use local::tap::{Fault, Rule, Service};
use serde_json::{Value, json};
use shared::event::EventType;
use shared::identity::EventId;
use tests::attacks::{
    ABOUT_YOU_ATTACKS, Attack, CLIENT_SECRET, DEEPLE_ATTACKS, OTHER_TOKEN, SIGNATURE_HEADER,
    SNIPCART_TOKENS_THAT_ARE_NONE, TOKEN_ATTACKS, about_you_sign, from_now, query, request_token, sign_at, token,
};
use tests::telemetry::{Line, NAMESPACE, documented, lines, sums};
use tests::{Answer, ORDERS, Stack, order_of};

/// The shops that a provider's secret names in these tests.
fn configured(provider: &str) -> &[&str] {
    match provider {
        "aboutyou" => &["main", "other", SIGNED_SHOP],
        "snipcart" => &["main"],
        _ => &["main", "other"],
    }
}

/// The metrics of a delivery are of all providers and by provider, and by shop too if the secret names the shop; no other shop is a
/// dimension.
fn assert_dimensions(line: &Line) {
    let mut expected = vec![vec![], vec!["provider"]];
    if configured(&line.function).contains(&line.said("shop")) {
        expected.push(vec!["provider", "shop"]);
    }
    assert_eq!(line.dimensions(), expected, "{line:?}");
}

/// The shop of ABOUT YOU that demands a signature.
const SIGNED_SHOP: &str = "signed";

/// The length of a piece of a body that would be known again.
const PIECE: usize = 12;

/// A service says no at once, and is not asked again.
const DENIED: Fault = Fault::Answer {
    status: 400,
    code: "AccessDeniedException",
};

/// Texts that were sent and are our own words too: a user agent, and what an event's field holds beside many others.
const OUR_OWN_WORDS: [&str; 12] = [
    "100", "1000", "100000", "500", "Snipcart", "failed", "false", "message", "red", "shop", "true", "unknown",
];

/// Everything that was sent, and what was answered.
#[derive(Default)]
struct Sent {
    /// Secrets, tokens, signatures, and every other value of a header or a query.
    credentials: BTreeSet<String>,
    /// Every text and every long number of the bodies, and of the events that came of them.
    contents: BTreeSet<String>,
    bodies: Vec<Vec<u8>>,
    answers: Vec<(String, Answer)>,
}

impl Sent {
    async fn send(&mut self, stack: &Stack, fixture: &Fixture) {
        let headers = fixture.event["headers"].as_object().into_iter().flatten();
        // When it was sent is in its line too.
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
            // What is shorter is no credential but an attack's stand-in for one.
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

    async fn attack(&mut self, stack: &Stack, provider: &str, attacks: &[Attack]) {
        for (_, make) in attacks {
            let mut fixture = stack.signed(provider, order_of(provider));
            make(&mut fixture);
            self.send(stack, &fixture).await;
        }
    }
}

/// The leaves of a document that would be known again: texts of three characters, numbers of six digits.
fn collect(document: &Value, into: &mut BTreeSet<String>) {
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

/// The words of a line, but for the fields that it names as drift.
fn words_without_drift(line: &Line) -> String {
    let mut line = line.clone();
    line.json.as_object_mut().expect("members").remove("drift");
    words(&line)
}

/// What a line says beside what is checked here to be a metric, an id, a time or a type: all of its names and texts.
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
    // The form of these is checked with the line.
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

/// The metrics that an answer has to be counted in.
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

async fn stack() -> Stack {
    Stack::with(|config| {
        let tokens = json!({"main": {"tokens": [TOKEN]}, "other": {"tokens": [OTHER_TOKEN]}});
        let mut about_you = tokens.clone();
        about_you[SIGNED_SHOP] =
            json!({"tokens": [TOKEN], "client_secrets": [CLIENT_SECRET], "signature_header": SIGNATURE_HEADER});
        let deeple = json!({
            "main": {"pid": DEEPLE_PID, "secrets": [DEEPLE_SECRET]},
            "other": {"pid": "other-pid", "secrets": ["other-secret"]},
        });
        for (provider, shops) in [
            ("selldone", tokens.clone()),
            ("cartum", tokens),
            ("aboutyou", about_you),
            ("deeple", deeple),
        ] {
            config.secrets.insert(provider.to_owned(), json!({"shops": shops}));
        }
        for (name, value) in [("METRICS_NAMESPACE", NAMESPACE), ("MAX_BODY_BYTES", "1000000")] {
            config.variables.insert(name.to_owned(), value.to_owned());
        }
    })
    .await
}

/// Every event, every attack, every way a delivery can end; and every task of redrive. How many events could not be published.
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

        let mut read = stack.signed(provider, order);
        read.event["requestContext"]["http"]["method"] = Method::GET.as_str().into();
        sent.send(stack, &read).await;

        // The same event with another body.
        let mut conflict = stack.unsigned(provider, order);
        let mut body: Value = serde_json::from_slice(&conflict.body().expect("a body")).expect("JSON");
        body["a field of a conflict"] = "a value of a conflict".into();
        conflict.set_body(body.to_string());
        stack.sign(&mut conflict);
        sent.send(stack, &conflict).await;
    }
    for provider in ["selldone", "cartum", "aboutyou"] {
        sent.attack(stack, provider, TOKEN_ATTACKS).await;
    }
    sent.attack(stack, "deeple", DEEPLE_ATTACKS).await;
    sent.attack(stack, "snipcart", SNIPCART_TOKENS_THAT_ARE_NONE).await;
    sent.attack(
        stack,
        "snipcart",
        &[("an unknown token", |f| request_token(f, "an-unknown-request-token"))],
    )
    .await;
    for (_, make) in ABOUT_YOU_ATTACKS {
        let mut fixture = stack.signed("aboutyou", "order-created");
        about_you_sign(&mut fixture);
        make(&mut fixture);
        fixture.set_shop(SIGNED_SHOP);
        sent.send(stack, &fixture).await;
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
            let mut fixture = stack.unsigned(provider, order);
            fixture.renew().expect("an order");
            stack.sign(&mut fixture);
            sent.send(stack, &fixture).await;
            unpublished += waiting;
        }
    }
    unpublished
}

/// Every task of redrive, and what is none.
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
        let replay = json!({"provider": provider, "from": "2020-01-01T00:00:00Z", "to": "2020-01-01T01:00:00Z"});
        stack.ask(json!({"replay": replay})).await;
        let now = Timestamp::now();
        let hour = SignedDuration::from_hours(1);
        let replay = json!({"provider": provider, "from": now - hour, "to": now + hour});
        stack.ask(json!({"replay": replay})).await;
        let compare = json!({"provider": provider, "from": now - hour, "to": now + hour, "values": true});
        stack.ask(json!({"compare": compare})).await;
        stack.ask(json!({"retain": replay})).await;
        let shown = stack.ask(json!({"get": {"event_id": event_id}})).await;
        // Only where the provider names its events can another body come under the same id.
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
    assert_eq!(conflicts, 3);
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
    for no_task in [
        json!({"get": "j.doe@example.com"}),
        json!({"j.doe@example.com": {}}),
        json!({"erase": {"provider": "cartum", "shop": "main", "email": "j.doe@example.com"}}),
        json!({"erase": {"email": "j.doe@example.com", "from": "j.doe@example.com"}}),
    ] {
        stack.invoke(REDRIVE, &no_task).await.expect_err("it is no task");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_delivery_has_one_line_and_nothing_secret_or_personal_is_in_any() {
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
    let told = tally(
        deliveries
            .iter()
            .map(|line| (line.function.clone(), line.said("outcome").to_owned())),
    );
    let answered = tally(
        sent.answers
            .iter()
            .map(|(provider, answer)| (provider.clone(), outcome(answer))),
    );
    assert_eq!(told, answered, "one line for each answer");
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
    assert!(requests.len() == deliveries.len(), "each has a request id of its own");
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
        assert_eq!(cold.count(), 1, "{provider} was started once");
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
    // The answer does not say which of the refused these were.
    for (provider, _) in ORDERS {
        let key = |metric: &str| (provider.to_owned(), metric.to_owned());
        let wrong = counted.remove(&key("WrongCredentials")).unwrap_or_default();
        let refused = expected[&key("Refused")];
        assert!((1..refused).contains(&wrong), "{provider}: {wrong} of {refused}");
    }
    // Some events of events/ have fields that no provider has sent yet.
    for (provider, _) in ORDERS {
        let with_drift = deliveries
            .iter()
            .filter(|line| line.function == provider && line.json["drift"].is_array());
        let drifts = counted.remove(&(provider.to_owned(), "Drift".to_owned()));
        assert_eq!(drifts, Some(with_drift.count() as u64), "{provider}");
    }
    assert_eq!(counted, expected);
    deliveries.iter().copied().for_each(assert_dimensions);
    let mut counted: BTreeSet<String> = counted.into_keys().map(|(_, metric)| metric).collect();
    // Our code panics over nothing that is sent here.
    counted.extend(["Drift", "MappingFailed", "WrongCredentials"].map(str::to_owned));
    assert_eq!(counted, documented().0, "the README's table");

    assert_clean(&stack, &sent, &lines);
}

/// No line says anything of what was sent.
fn assert_clean(stack: &Stack, sent: &Sent, lines: &[Line]) {
    let secrets = [
        TOKEN,
        OTHER_TOKEN,
        DEEPLE_SECRET,
        DEEPLE_PID,
        CLIENT_SECRET,
        SNIPCART_KEY,
        "other-secret",
        "other-pid",
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

    // Drift names fields, and a short value may be a part of a name.
    let may_be_no_name = |content: &&String| content.len() >= PIECE;
    let drifts: Vec<String> = lines.iter().map(|line| line.json["drift"].to_string()).collect();
    for content in sent.contents.iter().filter(may_be_no_name) {
        let drift = drifts.iter().find(|drift| drift.contains(content));
        assert!(drift.is_none(), "{content:?} is in {drift:?}");
    }
    let said: Vec<String> = lines.iter().map(words_without_drift).collect();
    let mut leaks = BTreeSet::new();
    for content in sent
        .contents
        .iter()
        .map(String::as_str)
        .filter(|content| !OUR_OWN_WORDS.contains(content))
    {
        leaks.extend(
            said.iter()
                .find(|words| words.contains(content))
                .map(|words| (content, words.as_str())),
        );
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
    assert!(sent.contents.len() > 500, "{} contents were sent", sent.contents.len());

    // Any piece of a body, cut anywhere.
    let pieces: BTreeSet<&[u8]> = said.iter().flat_map(|words| words.as_bytes().windows(PIECE)).collect();
    for body in &sent.bodies {
        let leaked = body.windows(PIECE).find(|piece| pieces.contains(piece));
        assert_eq!(leaked.map(String::from_utf8_lossy), None);
    }
    // The session's token names the environment here.
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

/// A token as a secret may have held it once.
const RETIRED: &str = "a-token-that-was-live-once";

/// What is sent for a provider with a token in the URL, and whether it counts as wrong credentials.
const TOKENS_REFUSED: &[(Attack, bool)] = &[
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

const DEEPLE_REFUSED: &[(Attack, bool)] = &[
    (
        ("another signature", |f| f.set_header("signature", "0".repeat(64))),
        true,
    ),
    (("another PID", |f| f.set_header("pid", "other-pid")), true),
    (("an old timestamp", |f| sign_at(f, &from_now(-200_000))), true),
    (("no signature", |f| f.remove_header("signature")), false),
    (("an empty signature", |f| f.set_header("signature", "")), false),
    (("an unknown shop", |f| f.set_shop("shop-of-a-scanner")), false),
];

const SNIPCART_REFUSED: &[(Attack, bool)] = &[
    (
        ("an unknown request token", |f| {
            request_token(f, "an-unknown-request-token");
        }),
        true,
    ),
    (("a malformed request token", |f| request_token(f, "..")), false),
    (("an unknown shop", |f| f.set_shop("shop-of-a-scanner")), false),
];

/// For the shop of ABOUT YOU that demands a signature besides the token.
const SIGNATURES_REFUSED: &[(Attack, bool)] = &[
    (("the token without a signature", |f| f.set_shop(SIGNED_SHOP)), true),
    (
        ("the token with another signature", |f| {
            f.set_shop(SIGNED_SHOP);
            f.set_header(SIGNATURE_HEADER, "0".repeat(64));
        }),
        true,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_counted_apart_from_noise() {
    let stack = stack().await;
    let mut expected = BTreeMap::<&str, Vec<(&str, bool)>>::new();
    for (provider, refused) in [
        ("selldone", TOKENS_REFUSED),
        ("cartum", TOKENS_REFUSED),
        ("aboutyou", TOKENS_REFUSED),
        ("aboutyou", SIGNATURES_REFUSED),
        ("deeple", DEEPLE_REFUSED),
        ("snipcart", SNIPCART_REFUSED),
    ] {
        for ((what, make), is_wrong) in refused {
            let mut fixture = stack.signed(provider, order_of(provider));
            make(&mut fixture);
            let answer = stack.send(&fixture).await;
            assert_eq!(answer.status, 401, "{provider}, {what}: {answer:?}");
            expected.entry(provider).or_default().push((what, *is_wrong));
        }
    }
    let lines = lines(&stack).await;
    for (provider, expected) in expected {
        let of_provider = lines
            .iter()
            .filter(|line| line.is_delivery() && line.function == provider);
        let of_provider: Vec<_> = of_provider.collect();
        assert_eq!(of_provider.len(), expected.len(), "{provider}");
        for (line, (what, is_wrong)) in of_provider.into_iter().zip(expected) {
            assert_eq!(line.metric("Refused"), Some(1.0), "{what}: {line:?}");
            assert_eq!(
                line.metric("WrongCredentials"),
                is_wrong.then_some(1.0),
                "{what}: {line:?}"
            );
            assert_dimensions(line);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_creates_no_metrics() {
    let stack = stack().await;
    for (provider, order) in ORDERS {
        for shop in ["a", "shop-of-a-scanner", "main2"] {
            let mut genuine = stack.signed(provider, order);
            genuine.set_shop(shop);
            assert_eq!(stack.send(&genuine).await.status, 401);
            let mut other_method = genuine.clone();
            other_method.event["requestContext"]["http"]["method"] = Method::GET.as_str().into();
            assert_eq!(stack.send(&other_method).await.status, 405);
            let mut large = genuine.clone();
            large.set_body("x".repeat(1_000_001));
            assert_eq!(stack.send(&large).await.status, 413);
        }
    }
    let lines = lines(&stack).await;
    let deliveries: Vec<_> = lines.iter().filter(|line| line.is_delivery()).collect();
    assert_eq!(deliveries.len(), ORDERS.len() * 9);
    for line in deliveries {
        assert_eq!(line.dimensions(), [vec![], vec!["provider"]], "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_not_set_up_says_so_for_every_delivery() {
    let stack = Stack::with(|config| {
        config
            .variables
            .insert("METRICS_NAMESPACE".to_owned(), NAMESPACE.to_owned());
        config
            .variables
            .insert("MAX_BODY_BYTES".to_owned(), "as many as it takes".to_owned());
    })
    .await;
    for (provider, order) in ORDERS {
        assert_eq!(stack.deliver(provider, order).await.status, 500);
    }
    let lines = lines(&stack).await;
    for (provider, _) in ORDERS {
        let told: Vec<&Line> = lines
            .iter()
            .filter(|line| line.function == provider && line.is_delivery())
            .collect();
        let [line] = told.as_slice() else {
            panic!("{provider}: {told:?}")
        };
        assert_eq!(
            (line.said("outcome"), line.metric("Misconfigured")),
            ("misconfigured", Some(1.0))
        );
        assert!(line.said("cause").contains("MAX_BODY_BYTES"), "{line:?}");
        assert!(!line.text.contains("as many as it takes"), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_at_fault_is_named_and_not_quoted() {
    let malformed = [
        json!({}),
        json!({"shops": {}}),
        json!({"shops": {"main": {"tokens": ["too-short"]}}}),
        json!({"shops": {"main": {"tokens": [], "api_keys": [], "secrets": []}}}),
        json!({"shops": {"main": {"tokens": "a-token-outside-of-a-list"}}}),
        json!("a-token-outside-of-everything"),
    ];
    for secret in malformed {
        let stack = Stack::with(|config| {
            config
                .variables
                .insert("METRICS_NAMESPACE".to_owned(), NAMESPACE.to_owned());
            config.variables.insert("SECRETS".to_owned(), secret.to_string());
        })
        .await;
        for (provider, order) in ORDERS {
            let answer = stack.deliver(provider, order).await;
            assert_eq!(answer.status, 500, "{provider} {secret}: {answer:?}");
            assert!(!answer.text.to_lowercase().contains("secret"), "{answer:?}");
        }
        stack.assert_untouched("a malformed secret").await;
        let lines = lines(&stack).await;
        let told: Vec<&Line> = lines.iter().filter(|line| line.is_delivery()).collect();
        assert_eq!(told.len(), ORDERS.len());
        for line in told {
            assert_eq!(
                (line.said("secret"), line.metric("Misconfigured")),
                ("SECRETS", Some(1.0)),
                "{line:?}"
            );
            assert!(line.said("cause").contains("secret"), "{line:?}");
        }
        for value in ["too-short", "a-token-outside"] {
            assert!(lines.iter().all(|line| !line.text.contains(value)), "{lines:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_snipcart_key_is_our_fault_and_names_its_secret() {
    let stack = stack().await;
    stack.snipcart().behave(Behaviour::Status(401));
    assert_eq!(stack.deliver("snipcart", "order-completed").await.status, 500);
    let lines = lines(&stack).await;
    let line = lines.iter().find(|line| line.is_delivery()).expect("a line");
    assert_eq!(
        (
            line.said("level"),
            line.said("outcome"),
            line.said("secret"),
            line.metric("Misconfigured")
        ),
        ("ERROR", "misconfigured", "SECRETS", Some(1.0))
    );
    assert!(line.said("cause").contains("API key"), "{line:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_redrive_measures_the_outbox_whatever_it_comes_to() {
    let stack = stack().await;
    let mut unknown = stack.unsigned("selldone", "checkout-order");
    let mut body: Value = serde_json::from_slice(&unknown.body().expect("a body")).expect("JSON");
    body["action"] = "SomethingNew".into();
    unknown.set_body(body.to_string());
    stack.sign(&mut unknown);
    stack.send(&unknown).await.event_id("quarantined");
    stack.ask(json!({"redrive": {}})).await;

    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let begun = Timestamp::now();
    stack.deliver_new(10).await;
    let delivered = Timestamp::now();
    let outage = stack.redrive().await;
    assert!(outage["outage"].is_string(), "{outage}");
    let at_most = Timestamp::now().duration_since(begun).as_secs_f64();
    drop(down);

    // What cannot be counted is left out, and nothing else.
    let uncounted = stack.tap().inject(
        Rule::new(Service::DynamoDb, "Query").holding(r#""Select":"COUNT""#),
        DENIED,
    );
    assert_eq!(stack.redrive().await["published"], 10);
    uncounted.hit(1).await;
    drop(uncounted);
    let asked = stack.tap().count(Service::DynamoDb, "Query");
    assert_eq!(stack.ask(json!({"redrive": {}})).await["published"], 0);
    let queries = stack.tap().count(Service::DynamoDb, "Query") - asked;
    assert!(queries <= 80, "{queries} queries for an empty outbox");
    stack.ask(json!({"reprocess": {"dry_run": true}})).await;

    let lines = lines(&stack).await;
    let runs: Vec<&Line> = lines
        .iter()
        .filter(|line| line.json.get("_aws").is_some() && line.function == REDRIVE)
        .collect();
    let [first, outage, uncounted, last] = runs.as_slice() else {
        panic!("a line for each run, and for no other task: {runs:?}")
    };
    for run in &runs {
        assert_eq!(
            run.json["_aws"]["CloudWatchMetrics"][0]["Dimensions"],
            json!([[]]),
            "{run:?}"
        );
    }
    let measured =
        |line: &Line| ["OutboxAge", "FailedEvents", "QuarantinedEvents", "Redriven"].map(|name| line.metric(name));
    for run in &runs {
        assert_eq!(run.metric("ExpiringQuarantined"), None, "nothing expires: {run:?}");
    }
    // A count of 0 is not written.
    assert_eq!(measured(first), [Some(0.0), None, Some(1.0), None]);
    assert_eq!(measured(outage)[1..], [None, Some(1.0), None]);
    let age = outage.metric("OutboxAge").expect("an age");
    let measured_at: Timestamp = outage.said("timestamp").parse().expect("a time");
    // It is rounded to milliseconds.
    let at_least = measured_at.duration_since(delivered).as_secs_f64() - 0.1;
    assert!(
        (at_least..=at_most).contains(&age),
        "{age} is not from {at_least} to {at_most}"
    );
    assert_eq!(outage.said("level"), "ERROR");
    assert_eq!(measured(uncounted), [Some(0.0), None, None, Some(10.0)]);
    assert_eq!(measured(last), [Some(0.0), None, Some(1.0), None]);
    let units: BTreeSet<(&str, &str)> = runs
        .iter()
        .flat_map(|run| run.metrics())
        .map(|(name, unit, _)| (name, unit))
        .collect();
    let expected = [
        ("OutboxAge", "Seconds"),
        ("QuarantinedEvents", "Count"),
        ("Redriven", "Count"),
    ];
    assert_eq!(units, expected.into());
    let names = expected.map(|(name, _)| name).into_iter();
    let names: BTreeSet<String> = names
        .chain(["FailedEvents", "ExpiringQuarantined"])
        .map(str::to_owned)
        .collect();
    assert_eq!(names, documented().1, "the README's table");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_counts_failed_events() {
    let stack = stack().await;
    let down = stack.tap().inject(Rule::all(Service::Sns), Fault::DOWN);
    stack.deliver_new(1).await;
    drop(down);
    let refusal = Fault::Answer {
        status: 400,
        code: "InvalidParameter",
    };
    let refused = stack.tap().inject(Rule::new(Service::Sns, "PublishBatch"), refusal);
    while stack.redrive().await["failed"] == 0 {}
    drop(refused);
    let lines = lines(&stack).await;
    let runs = lines.iter().filter(|line| line.said("message") == "redrive");
    let counted: Vec<_> = runs.map(|run| run.metric("FailedEvents")).collect();
    let (last, earlier) = counted.split_last().expect("runs");
    assert_eq!(*last, Some(1.0));
    assert!(earlier.iter().all(Option::is_none), "{earlier:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_counts_what_expires_within_a_week() {
    let stack = Stack::with(|config| {
        for (name, value) in [("METRICS_NAMESPACE", NAMESPACE), ("UNPUBLISHED_RETENTION_DAYS", "90")] {
            config.variables.insert(name.to_owned(), value.to_owned());
        }
    })
    .await;
    stack.deliver("snipcart", "unknown-event").await.event_id("quarantined");
    let days = |count: i64| SignedDuration::from_hours(24 * count);
    for wait in [days(0), days(82), days(1), days(7)] {
        stack.let_time_pass(wait + SignedDuration::from_mins(1)).await;
        stack.ask(json!({"redrive": {}})).await;
    }
    let lines = lines(&stack).await;
    let runs = lines.iter().filter(|line| line.said("message") == "redrive");
    let measured: Vec<_> = runs
        .map(|run| ["ExpiringQuarantined", "QuarantinedEvents"].map(|name| run.metric(name)))
        .collect();
    assert_eq!(measured[..2], [[None, Some(1.0)]; 2]);
    assert_eq!(
        measured[2..],
        [[Some(1.0), Some(1.0)], [None, None]],
        "a week before it is removed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_namespace_there_are_lines_and_no_metrics() {
    let stack = Stack::start().await;
    for (provider, order) in ORDERS {
        stack.deliver(provider, order).await.event_id("accepted");
    }
    stack.redrive().await;
    let lines = lines(&stack).await;
    assert_eq!(lines.iter().filter(|line| line.is_delivery()).count(), ORDERS.len());
    assert!(lines.iter().any(|line| line.said("message") == "redrive"));
    assert!(lines.iter().all(|line| line.json.get("_aws").is_none()), "{lines:?}");
}
