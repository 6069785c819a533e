//! The policies in `template.yaml` allow exactly the calls that the functions make.
//!
//! The calls are observed during every event of `events/`, repeats, large bodies, outages, and every task of redrive and
//! reconcile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use jiff::{SignedDuration, Timestamp};
use local::TOPIC_ARN;
use local::aws::faults::{Call, Fault, Rule, Service};
use local::net::server::{Port, Server};
use local::project::build::workspace;
use local::project::settings::ORDER_APIS;
use local::project::{settings, template};
use local::providers::lifecycle::State;
use local::providers::order_book::Order;
use serde_json::{Value, json};
use tests::{ORDERS, Stack, json_body, noise, order_of};
use yaml_rust2::Yaml;

/// An allowed or observed action, and the logical id of its resource.
type Grant = (String, String);

/// Actions that AWS performs on behalf of a function, which cannot be observed: Lambda writes the log, sends traces and
/// passes on failed invocations, and SNS encrypts.
const ON_THE_FUNCTIONS_BEHALF: [&str; 4] = ["logs:", "xray:", "sqs:", "kms:"];

/// The end of the ARN of a secret.
const SUFFIX: &str = "-AbCdEf";

#[derive(Clone, Default)]
struct Calls(Arc<Mutex<BTreeMap<String, BTreeSet<Grant>>>>);

impl Calls {
    /// Records a call. The caller is the id of an environment, `{function}-{uuid}`; calls of the tests have none.
    fn note(&self, caller: Option<&str>, grants: Vec<Grant>) {
        if let Some((function, _)) = caller.and_then(|caller| caller.rsplit_once('-')) {
            let mut calls = self.0.lock().expect("the lock is not poisoned");
            calls.entry(function.to_owned()).or_default().extend(grants);
        }
    }

    fn of(&self, function: &str) -> BTreeSet<Grant> {
        let calls = self.0.lock().expect("the lock is not poisoned");
        calls.get(function).cloned().unwrap_or_default()
    }
}

/// The permissions that a call needs: for a transaction those of its operations, for a batch of messages that of one
/// message.
fn needed(call: &Call, names: &Names) -> Vec<Grant> {
    if call.service == Service::Sns {
        let action = match call.operation.as_str() {
            "PublishBatch" => "Publish",
            other => other,
        };
        let form = String::from_utf8_lossy(&call.body).replace("%3A", ":");
        let is_of_events = form
            .split('&')
            .any(|field| field.strip_prefix("TopicArn=") == Some(TOPIC_ARN));
        let topic = if is_of_events { &names.topic } else { &names.alarm_topic };
        return vec![(format!("sns:{action}"), topic.clone())];
    }
    let body: Value = serde_json::from_slice(&call.body).expect("DynamoDB speaks JSON");
    let grant = |operation: &str| {
        let resource = match body["IndexName"].as_str() {
            Some(index) => format!("{}/index/{index}", names.table),
            None => names.table.clone(),
        };
        (format!("dynamodb:{operation}"), resource)
    };
    match body["TransactItems"].as_array() {
        Some(items) => {
            let parts = items
                .iter()
                .flat_map(|item| item.as_object().expect("an object").keys());
            parts
                .map(|part| match part.as_str() {
                    "Put" | "Update" | "Delete" => grant(&format!("{part}Item")),
                    other => grant(other),
                })
                .collect()
        }
        None => vec![grant(&call.operation)],
    }
}

/// The part of Secrets Manager that the functions call. It records the calls.
async fn secrets_manager(calls: Calls, secrets: BTreeMap<String, String>) -> Server {
    let port = Port::take(0, "").await.expect("a port");
    port.serve(1_000_000, move |request, _| {
        let header = |name: &str| request.headers().get(name)?.to_str().ok().map(str::to_owned);
        let caller = header("x-amz-security-token").unwrap_or_default();
        let operation = header("x-amz-target").unwrap_or_default();
        let operation = operation.rsplit('.').next().unwrap_or_default().to_owned();
        let asked: Value = serde_json::from_slice(request.body()).expect("JSON");
        let arn = asked["SecretId"].as_str().unwrap_or_default();
        // Reconcile reads the secrets of several providers, and a provider's function its own.
        let named = arn
            .rsplit(':')
            .next()
            .and_then(|name| name.strip_suffix(SUFFIX))
            .unwrap_or_default();
        let function = caller.rsplit_once('-').map_or("", |(function, _)| function);
        let provider = if secrets.contains_key(named) { named } else { function };
        let secret = secrets.get(provider).cloned().unwrap_or_default();
        calls.note(Some(&caller), vec![(format!("secretsmanager:{operation}"), secret)]);
        let value = settings::secret(provider).map(|secret| secret.to_string());
        let answer = json!({"ARN": arn, "SecretString": value, "VersionId": "1", "Name": provider});
        std::future::ready(Some(Response::new(Bytes::from(answer.to_string()))))
    })
}

/// The logical ids of the table and the topics.
#[derive(Clone)]
struct Names {
    table: String,
    topic: String,
    alarm_topic: String,
}

/// The permissions in the template.
struct Template {
    yaml: Yaml,
    names: Names,
    /// The secret of each function that has one.
    secrets: BTreeMap<String, String>,
}

impl Template {
    fn read() -> Self {
        let text = std::fs::read_to_string(workspace().join("template.yaml")).expect("the template");
        let yaml = template::load(&text).expect("YAML");
        let variables = &yaml["Globals"]["Function"]["Environment"]["Variables"];
        let of_redrive = &yaml["Resources"]["RedriveFunction"]["Properties"]["Environment"]["Variables"];
        let names = Names {
            table: name_of(&variables["TABLE_NAME"]),
            topic: name_of(&variables["TOPIC_ARN"]),
            alarm_topic: name_of(&of_redrive["ALARM_TOPIC_ARN"]),
        };
        let mut template = Self {
            yaml,
            names,
            secrets: BTreeMap::new(),
        };
        let secret = |(function, properties): (String, &Yaml)| {
            let secret = &properties["Environment"]["Variables"]["SECRETS"];
            (!secret.is_badvalue()).then(|| (function, name_of(secret)))
        };
        template.secrets = template.functions().into_iter().filter_map(secret).collect();
        template
    }

    /// The properties of each function, by the name of its binary.
    fn functions(&self) -> Vec<(String, &Yaml)> {
        let resources = self.yaml["Resources"].as_hash().expect("resources").values();
        let functions = resources.filter(|resource| resource["Type"].as_str() == Some("AWS::Serverless::Function"));
        functions
            .map(|function| {
                let binary = function["Metadata"]["BuildProperties"]["Binary"].as_str();
                (binary.expect("a binary").to_owned(), &function["Properties"])
            })
            .collect()
    }

    /// The actions that the role of a function and its managed policies allow.
    fn allowed(&self, properties: &Yaml) -> BTreeSet<Grant> {
        let resource = |expression: &Yaml| {
            let resource = &self.yaml["Resources"][name_of(expression).as_str()]["Properties"];
            assert!(!resource.is_badvalue(), "{expression:?} is not in the template");
            resource
        };
        let role = resource(&properties["Role"]);
        let mut found = Vec::new();
        statements(&role["Policies"], &mut found);
        for policy in list(&role["ManagedPolicyArns"]) {
            // `!If [condition, policy, nothing]`: an optional policy counts as present.
            let policy = if self.is_choice(policy) { &policy[1] } else { policy };
            statements(&resource(policy)["PolicyDocument"], &mut found);
        }
        let mut grants = BTreeSet::new();
        for statement in found {
            assert_eq!(statement["Effect"].as_str(), Some("Allow"), "{statement:?}");
            let resources = match &statement["Resource"] {
                choice if self.is_choice(choice) => std::slice::from_ref(choice),
                resources => list(resources),
            };
            for action in list(&statement["Action"]) {
                let action = action.as_str().expect("an action");
                grants.extend(resources.iter().map(|resource| (action.to_owned(), name_of(resource))));
            }
        }
        grants
    }

    /// Whether an expression is an `!If`, which begins with the name of a condition.
    fn is_choice(&self, expression: &Yaml) -> bool {
        let condition = expression.as_vec().and_then(|items| items.first()?.as_str());
        condition.is_some_and(|name| !self.yaml["Conditions"][name].is_badvalue())
    }
}

/// The resource that an expression names. The YAML reader drops tags, so `!GetAtt Table.Arn` is `Table.Arn`, and a
/// choice between a resource of the stack and an existing one is a list.
fn name_of(expression: &Yaml) -> String {
    match expression {
        Yaml::Array(choice) => choice.iter().map(name_of).collect::<Vec<_>>().join(" or "),
        Yaml::String(text) => ["${", "}", ".Arn", ".Id"]
            .iter()
            .fold(text.clone(), |text, part| text.replace(part, "")),
        other => panic!("{other:?} does not name a resource"),
    }
}

/// Collects the policy statements anywhere in `yaml`.
fn statements<'a>(yaml: &'a Yaml, found: &mut Vec<&'a Yaml>) {
    match yaml {
        Yaml::Hash(_) if !yaml["Effect"].is_badvalue() => found.push(yaml),
        Yaml::Hash(hash) => hash.values().for_each(|value| statements(value, found)),
        Yaml::Array(items) => items.iter().for_each(|item| statements(item, found)),
        _ => {}
    }
}

/// The elements of a list, or the single value that takes its place.
fn list(yaml: &Yaml) -> &[Yaml] {
    yaml.as_vec().map_or(std::slice::from_ref(yaml), Vec::as_slice)
}

/// Sends every event of every provider, repeats and conflicts, and a large order of each that waits in the outbox.
async fn exercise_providers(stack: &Stack) {
    join_all(ORDERS.map(|(provider, order)| async move {
        for name in stack.events(provider) {
            stack.deliver(provider, &name).await;
        }
        stack.deliver(provider, order).await.event_id("duplicate");
        // A conflict if the payload names the event; otherwise another event.
        let mut conflict = stack.unsigned(provider, order);
        let mut body = json_body(&conflict);
        body["something_new"] = "another".into();
        conflict.set_body(body.to_string());
        stack.sign(&mut conflict);
        assert_eq!(stack.send(&conflict).await.status, 200);
    }))
    .await;
    let large = ORDERS.map(|(provider, order)| {
        let mut fixture = stack.unsigned(provider, order);
        fixture.renew().expect("an order");
        let mut body = json_body(&fixture);
        body["something_new"] = noise(600_000).into();
        fixture.set_body(body.to_string());
        stack.sign(&mut fixture);
        fixture
    });
    let down = stack.tap().inject(Rule::all(Service::Sns), Fault::DOWN);
    for fixture in &large {
        stack.send(fixture).await.event_id("accepted");
    }
    drop(down);
    for fixture in &large {
        stack.send(fixture).await.event_id("duplicate");
    }
}

/// Runs every task of redrive with something to do.
async fn exercise_redrive(stack: &Stack) {
    // Publishes what is left of a delivery that was not published in time.
    stack.redrive().await;
    let down = stack.tap().inject(Rule::all(Service::Sns), Fault::DOWN);
    let mut fixture = stack.large(600_000);
    fixture.renew().expect("an order");
    stack.sign(&mut fixture);
    let large = stack.send(&fixture).await.event_id("accepted");
    drop(down);
    // If SNS refuses a single message, redrive checks the topic and then fails the event.
    stack.let_an_event_fail().await;
    let requeued = stack.ask(json!({"requeue": {"state": "failed"}})).await;
    assert_eq!(requeued["requeued"], 1, "{requeued}");
    assert_eq!(stack.redrive().await["published"], 1);

    let mut other = json_body(&fixture);
    other["something_new"] = "another".into();
    fixture.set_body(other.to_string());
    stack.sign(&mut fixture);
    stack.send(&fixture).await.event_id("quarantined");
    let shown = stack.ask(json!({"get": {"event_id": large}})).await;
    let conflict = json!({"event_id": large, "payload_sha256": shown["conflicts"][0]["payload_sha256"]});
    let published = stack.ask(json!({"publish_conflict": conflict})).await;
    assert_eq!(published["accepted"], 1, "{published}");
    assert_eq!(stack.redrive().await["published"], 1);

    let mut unread = stack.unsigned("selldone", order_of("selldone"));
    unread.renew().expect("an order");
    stack.quarantined(&unread.body().expect("a body"), str::to_owned).await;
    let reprocessed = stack.ask(json!({"reprocess": {"state": "quarantined"}})).await;
    assert_eq!(reprocessed["accepted"], 1, "{reprocessed}");

    let unread = stack.quarantined(b"nothing that can be read", str::to_owned).await;
    let dismissed = stack.ask(json!({"dismiss": {"event_id": unread}})).await;
    assert_eq!(dismissed["dismissed"], 1, "{dismissed}");
    let undismissed = stack.ask(json!({"undismiss": {"event_id": unread}})).await;
    assert_eq!(undismissed["undismissed"], 1, "{undismissed}");

    let alerted = stack.ask(json!({"alert": {}})).await;
    assert!(alerted["sent"].as_u64() > Some(0), "{alerted}");
    assert_eq!(alerted["done"], true, "{alerted}");

    let order = &stack.stored_event(&large).await["data"]["order"]["id"];
    let place = json!({"provider": "snipcart", "shop": settings::SHOP, "order": order});
    let shown = stack.ask(json!({"get": place})).await;
    assert!(shown["events"].as_array().is_some_and(|events| !events.is_empty()));
    let now = Timestamp::now();
    let hour = SignedDuration::from_hours(1);
    let replay = json!({"provider": "snipcart", "from": now - hour, "to": now + hour});
    assert!(stack.ask(json!({"replay": replay})).await["replayed"].as_u64() > Some(0));
    let compare = json!({"provider": "snipcart", "from": now - hour, "to": now + hour});
    assert!(stack.ask(json!({"compare": compare})).await["compared"].as_u64() > Some(0));
    let by_email = json!({
        "provider": "snipcart", "shop": settings::SHOP, "email": "nobody@example.com", "from": now - hour, "to": now + hour,
    });
    assert_eq!(stack.ask(json!({"erase": by_email})).await["done"], true);
    let audit = json!({"from": now - hour, "to": now + hour, "scan": true, "repair": true});
    let audited = stack.ask(json!({"audit": audit})).await;
    assert_eq!(
        (&audited["orphans"], &audited["done"]),
        (&json!([]), &json!(true)),
        "{audited}"
    );
    assert!(audited["books"].as_array().is_some_and(|books| !books.is_empty()));
    let mut erase = place;
    erase["dry_run"] = false.into();
    assert!(stack.ask(json!({"erase": erase})).await["erased"].as_u64() > Some(0));
}

/// Lets reconcile find orders that are missing, newer, large, not readable, and listed twice with different content.
async fn exercise_reconcile(stack: &Stack) {
    // Two at once, so that an environment starts while calls are observed.
    tokio::join!(stack.reconcile("snipcart"), stack.reconcile("cartum"));
    for provider in ORDER_APIS {
        let (missing, newer) = (stack.life(provider, 1, 60), stack.life(provider, 2, 60));
        stack.announce(&newer, State::Placed, 60).await.event_id("accepted");
        for life in [&missing, &newer] {
            stack.knows(life, State::Shipped, 8);
        }
        let webhook = stack
            .life(provider, 3, 60)
            .webhook(State::Placed, stack.minutes_ago(8))
            .expect("a webhook");
        let order = Order::announced(provider, &webhook.body().expect("a body")).expect("an order");
        let mut large = order.value();
        large["something_new"] = noise(600_000).into();
        let mut other = order.value();
        other["something_new"] = "another".into();
        for (id, json) in [("large", large), ("other", other), ("unreadable", json!({}))] {
            let id = id.to_owned();
            let json = json.to_string().into();
            stack.order_apis().book().put(
                provider,
                settings::SHOP,
                Order {
                    id,
                    json,
                    ..order.clone()
                },
            );
        }
        // Only at the end, because calls that meet a fault are not observed.
        let is_down = Some(&provider) == ORDER_APIS.last();
        let down = is_down.then(|| stack.tap().inject(Rule::all(Service::Sns), Fault::DOWN));
        let run = stack.reconcile(provider).await;
        drop(down);
        assert_eq!(
            (&run["status"], &run["accepted"]),
            (&json!("complete"), &json!(3)),
            "{provider}: {run}"
        );
        stack.redrive().await;
        stack.reconcile(provider).await;
    }
}

/// Connects a shop of each provider with an API for that, and lets a run of reconcile renew what has ended.
async fn exercise_subscriptions(stack: &Stack) {
    for provider in ["cartum", "aboutyou"] {
        let task = json!({"connect": {"provider": provider, "shop": settings::SHOP, "url": stack.url()}});
        let connected = stack.invoke(settings::RECONCILE, &task).await.expect("an answer");
        assert_eq!(connected["done"], true, "{connected}");
        let subscriptions = stack.order_apis().subscriptions();
        let ended = subscriptions.of(provider, settings::SHOP).swap_remove(0);
        subscriptions.remove(provider, settings::SHOP, ended.id);
        if provider == "cartum" {
            let report = Request::delete(&ended.url).body(Bytes::new()).expect("a request");
            stack.send_request(report).await.event_id("unsupported");
        }
        let run = stack.reconcile(provider).await;
        assert_eq!(run["subscriptions"][0]["status"], "renewed", "{run}");
    }
}

/// Lets every stored event expire, and lets redrive remove them.
async fn exercise_retention(stack: &Stack) {
    let day = SignedDuration::from_hours(24);
    let now = Timestamp::now();
    let retain = json!({"provider": "snipcart", "from": now - day, "to": now + day});
    assert_eq!(stack.ask(json!({"retain": retain})).await["done"], true);
    // The first run records the retention of quarantined deliveries.
    stack.ask(json!({"redrive": {}})).await;
    stack.let_time_pass(day * 100).await;
    let run = stack.ask(json!({"redrive": {}})).await;
    assert!(run["expired"].as_u64() > Some(0), "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_allows_exactly_the_calls_of_its_function() {
    let template = Template::read();
    let calls = Calls::default();
    let secrets = secrets_manager(calls.clone(), template.secrets.clone()).await;
    let stack = Stack::with(|config| {
        let arn = |name: &str| {
            format!(
                "arn:aws:secretsmanager:{}:{}:secret:{name}{SUFFIX}",
                local::REGION,
                local::ACCOUNT
            )
        };
        config.variables.insert("SECRETS".to_owned(), arn("any"));
        for provider in ORDER_APIS {
            config
                .variables
                .insert(settings::secret_variable(provider), arn(provider));
        }
        for name in ["ORDER_RETENTION_DAYS", "UNPUBLISHED_RETENTION_DAYS"] {
            config.variables.insert(name.to_owned(), "90".to_owned());
        }
        config
            .variables
            .insert(settings::AUTO_RESUBSCRIBE_NAME.to_owned(), "true".to_owned());
        // Optional, and counts as present.
        config.variables.insert("PUBLISH_STATE".to_owned(), "true".to_owned());
        let url = secrets.url();
        config
            .variables
            .insert("AWS_ENDPOINT_URL_SECRETS_MANAGER".to_owned(), url);
    })
    .await;
    let (noted, names) = (calls.clone(), template.names.clone());
    stack.tap().follow(move |call| {
        noted.note(call.caller.as_deref(), needed(call, &names));
        None
    });
    exercise_providers(&stack).await;
    exercise_redrive(&stack).await;
    exercise_reconcile(&stack).await;
    exercise_subscriptions(&stack).await;
    exercise_retention(&stack).await;

    for (function, properties) in template.functions() {
        let allowed: BTreeSet<Grant> = template.allowed(properties);
        let own = |(action, _): &&Grant| !ON_THE_FUNCTIONS_BEHALF.iter().any(|prefix| action.starts_with(prefix));
        let allowed: BTreeSet<&Grant> = allowed.iter().filter(own).collect();
        let done = calls.of(&function);
        let done: BTreeSet<&Grant> = done.iter().collect();
        assert!(!done.is_empty(), "{function} made no call");
        let (refused, idle) = (&done - &allowed, &allowed - &done);
        assert!(
            refused.is_empty(),
            "the role of {function} does not allow calls that it makes: {refused:?}"
        );
        assert!(
            idle.is_empty(),
            "the role of {function} allows calls that it does not make: {idle:?}"
        );
    }
}

#[test]
fn no_policy_has_a_wildcard() {
    let template = Template::read();
    let mut found = Vec::new();
    statements(&template.yaml["Resources"], &mut found);
    for statement in found {
        let star = |yaml: &Yaml| {
            list(yaml)
                .iter()
                .any(|item| item.as_str().is_some_and(|text| text.contains('*')))
        };
        let traces = list(&statement["Action"])
            .iter()
            .all(|action| action.as_str().is_some_and(|action| action.starts_with("xray:")));
        assert!(!star(&statement["Action"]), "{statement:?}");
        assert!(!star(&statement["Resource"]) || traces, "{statement:?}");
    }
}
