//! The descriptions of both sides, held to the code: `openapi.yaml` of what providers send and are answered, `asyncapi.yaml` of what
//! consumers get.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jsonschema::Validator;
use lambda_http::http::Method;
use local::NAME;
use local::binaries::workspace;
use local::settings::{TUNABLES, TUNABLES_NAME};
use local::tap::{Fault, Rule, Service};
use local::template;
use serde_json::{Value, json};
use shared::Provider;
use shared::answer::{Outcome, Reason, Refusal};
use tests::telemetry::documented;
use tests::{Answer, Stack};
use yaml_rust2::{Yaml, YamlLoader};

const PROVIDERS: [&str; 5] = ["selldone", "cartum", "deeple", "aboutyou", "snipcart"];

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/schema")
}

fn document(name: &str) -> Value {
    let text = fs::read_to_string(folder().join(name)).expect("a document");
    let yaml = YamlLoader::load_from_str(&text).expect("YAML").swap_remove(0);
    json_of(&yaml)
}

fn json_of(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(flag) => json!(flag),
        Yaml::Integer(number) => json!(number),
        Yaml::Real(number) => serde_json::from_str(number).expect("a number"),
        Yaml::String(text) => json!(text),
        Yaml::Array(elements) => elements.iter().map(json_of).collect(),
        Yaml::Hash(fields) => {
            let name = |name: &Yaml| name.as_str().expect("a name").to_owned();
            Value::Object(fields.iter().map(|(key, value)| (name(key), json_of(value))).collect())
        }
        other => panic!("{other:?} is not expected"),
    }
}

/// What stands at `$ref`, or the value itself.
fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect(reference),
        None => value,
    }
}

fn validator(document: &Value, schema: &Value) -> Validator {
    let mut root = json!({"components": document["components"]});
    for (keyword, value) in schema.as_object().expect("a schema") {
        root[keyword] = value.clone();
    }
    jsonschema::options()
        .should_validate_formats(true)
        .build(&root)
        .expect("a schema")
}

fn words(list: &Value) -> BTreeSet<&str> {
    list.as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

fn names(object: &Value) -> BTreeSet<&str> {
    object
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn openapi_has_the_templates_routes_with_each_providers_methods() {
    let openapi = document("openapi.yaml");
    let functions = template::read(&workspace().join("template.yaml")).expect("the template");
    let routes: BTreeSet<_> = functions
        .iter()
        .flat_map(|function| &function.routes)
        .map(|route| route.path.as_str())
        // The same route with a slash after the shop.
        .filter(|path| !path.ends_with("/{proxy+}"))
        .collect();
    assert_eq!(names(&openapi["paths"]), routes);
    methods_are::<selldone::Selldone>(&openapi);
    methods_are::<cartum::Cartum>(&openapi);
    methods_are::<deeple::Deeple>(&openapi);
    methods_are::<aboutyou::AboutYou>(&openapi);
    methods_are::<snipcart::Snipcart>(&openapi);
}

fn methods_are<P: Provider>(openapi: &Value) {
    let path = &openapi["paths"][format!("/webhooks/{}/{{shop}}", P::NAME)];
    let described: BTreeSet<_> = names(path)
        .into_iter()
        .filter(|name| *name != "parameters")
        .map(str::to_uppercase)
        .collect();
    let taken: BTreeSet<_> = P::METHODS.iter().map(Method::to_string).collect();
    assert_eq!(described, taken, "{}", P::NAME);
}

#[test]
fn openapi_has_every_answer_and_no_other() {
    let openapi = document("openapi.yaml");
    let schemas = &openapi["components"]["schemas"];
    let outcomes = [
        Outcome::Accepted,
        Outcome::Duplicate,
        Outcome::Unsupported,
        Outcome::Quarantined(Reason::NotJson),
    ];
    // One that is new is missing here, and above.
    let is_listed = |outcome: &Outcome| match outcome {
        Outcome::Accepted | Outcome::Duplicate | Outcome::Unsupported | Outcome::Quarantined(_) => true,
    };
    assert!(outcomes.iter().all(is_listed));
    let outcomes: BTreeSet<_> = outcomes.iter().map(Outcome::as_str).collect();
    assert_eq!(words(&schemas["Kept"]["properties"]["status"]["enum"]), outcomes);
    let reasons: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(words(&schemas["Kept"]["properties"]["reason"]["enum"]), reasons);

    let refusals = [
        Refusal::no_credentials(""),
        Refusal::MethodNotAllowed(&[]),
        Refusal::TooLarge { limit: 0 },
        Refusal::Malformed(""),
        Refusal::Misconfigured(String::new()),
        Refusal::Unavailable(String::new()),
    ];
    let is_listed = |refusal: &Refusal| match refusal {
        Refusal::Unauthorized(_)
        | Refusal::MethodNotAllowed(_)
        | Refusal::TooLarge { .. }
        | Refusal::Malformed(_)
        | Refusal::Misconfigured(_)
        | Refusal::Unavailable(_) => true,
    };
    assert!(refusals.iter().all(is_listed));
    let types: Vec<_> = refusals
        .iter()
        .map(|refusal| format!("urn:order-webhooks:problem:{}", refusal.as_str()))
        .collect();
    assert_eq!(
        words(&schemas["Problem"]["properties"]["type"]["enum"]),
        types.iter().map(String::as_str).collect()
    );
    let statuses: Vec<_> = refusals
        .iter()
        .map(|refusal| refusal.status().as_u16().to_string())
        .collect();
    let statuses: BTreeSet<_> = statuses.iter().map(String::as_str).chain(["200"]).collect();
    for (path, item) in openapi["paths"].as_object().expect("paths") {
        for (method, operation) in item
            .as_object()
            .expect("methods")
            .iter()
            .filter(|(name, _)| *name != "parameters")
        {
            assert_eq!(names(&operation["responses"]), statuses, "{method} {path}");
        }
    }
}

#[test]
fn openapis_requests_are_those_of_the_events_folder() {
    let openapi = document("openapi.yaml");
    let catalogue = tests::catalogue();
    let bodies = openapi["components"]["requestBodies"].as_object().expect("bodies");
    assert_eq!(bodies.len(), 5);
    for (provider, body) in bodies {
        for (name, example) in body["content"]["application/json"]["examples"]
            .as_object()
            .expect("examples")
        {
            let sent = catalogue
                .event(provider, name)
                .and_then(|event| event.body())
                .expect("an event");
            let sent: Value = serde_json::from_slice(&sent).expect("JSON");
            assert_eq!(example["value"], sent, "{provider}/{name}");
        }
    }
}

/// The answer is one that openapi.yaml has for this request; where it has an example of it, but for the ids, that one.
fn is_documented(openapi: &Value, provider: &str, method: &str, answer: &Answer) {
    let operation = &openapi["paths"][format!("/webhooks/{provider}/{{shop}}")][method];
    let response = resolved(openapi, &operation["responses"][answer.status.to_string()]);
    let content = &response["content"][answer.header("content-type").expect("a content type")];
    assert!(content.is_object(), "{answer:?} is not documented");
    let body = answer.json();
    let errors: Vec<_> = validator(openapi, &content["schema"])
        .iter_errors(&body)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{answer:?}: {}", errors.join("\n"));
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        let is = answer.header(name);
        assert!(is.is_some() || header["required"] != true, "{answer:?} has no {name}");
        if provider != "cartum" && answer.header("content-type") == Some("application/problem+json") {
            assert_eq!(
                is.map(str::to_owned),
                header["example"]
                    .as_str()
                    .map(str::to_owned)
                    .or(Some(header["example"].to_string()))
            );
        }
    }
    let example = match body["status"].as_str() {
        Some(status) => &content["examples"][status]["value"],
        None => &content["example"],
    };
    let mut expected = body.clone();
    for id in ["event_id", "request_id"] {
        if !body[id].is_null() {
            expected[id] = example[id].clone();
        }
    }
    assert_eq!(*example, expected);
}

#[tokio::test]
async fn openapi_shows_what_is_really_answered() {
    let openapi = document("openapi.yaml");
    let stack = Stack::start().await;
    let check = |answer: &Answer, status: u16| {
        assert_eq!(answer.status, status, "{answer:?}");
        is_documented(&openapi, "aboutyou", "post", answer);
    };
    for status in ["accepted", "duplicate"] {
        let answer = stack.deliver("aboutyou", "order-created").await;
        assert_eq!(answer.said("status"), status);
        check(&answer, 200);
    }
    check(&stack.deliver("aboutyou", "stock-updated").await, 200);
    check(&stack.deliver("aboutyou", "order-number-missing").await, 200);

    let mut unsigned = stack.unsigned("aboutyou", "order-created");
    unsigned.set_query(&[]);
    check(&stack.send(&unsigned).await, 401);
    let mut other_method = stack.signed("aboutyou", "order-created");
    other_method.event["requestContext"]["http"]["method"] = "PATCH".into();
    check(&stack.send(&other_method).await, 405);
    let mut large = stack.signed("aboutyou", "order-created");
    large.set_body(format!("\"{}\"", "x".repeat(5_000_000)));
    check(&stack.send(&large).await, 413);

    let down = stack.tap().inject(Rule::new(Service::DynamoDb, "PutItem"), Fault::DOWN);
    check(&stack.deliver("aboutyou", "order-updated").await, 503);
    drop(down);
    // The gateway's own words where a function dies.
    let death = stack
        .tap()
        .inject(Rule::new(Service::DynamoDb, "PutItem").times(1), Fault::KillBefore);
    check(&stack.deliver("aboutyou", "order-updated").await, 500);
    drop(death);

    let stack = Stack::with(|config| {
        config.secrets.insert("aboutyou".to_owned(), "not a secret".into());
    })
    .await;
    check(&stack.deliver("aboutyou", "order-created").await, 500);
}

#[test]
fn asyncapis_examples_are_golden_events() {
    let asyncapi = document("asyncapi.yaml");
    let message = &asyncapi["components"]["messages"]["orderEvent"];
    let schema: Value =
        serde_json::from_slice(&fs::read(folder().join("order-event.v1.schema.json")).expect("the schema"))
            .expect("JSON");
    assert_eq!(message["payload"]["schema"]["$ref"], "order-event.v1.schema.json");
    assert_eq!(asyncapi["channels"]["orderEvents"]["address"], NAME);
    let payloads = validator(&json!({}), &schema);
    let headers = validator(&json!({}), &message["headers"]);
    let examples = message["examples"].as_array().expect("examples");
    assert!(!examples.is_empty());
    for example in examples {
        let (_, file) = example["summary"]
            .as_str()
            .and_then(|text| text.split_once("As in "))
            .expect("the event's file");
        let golden: Value = serde_json::from_slice(&fs::read(workspace().join(file)).expect(file)).expect("JSON");
        assert_eq!(example["payload"], golden, "{file}");
        assert!(
            payloads.is_valid(&example["payload"]) && headers.is_valid(&example["headers"]),
            "{file}"
        );
    }
}

#[tokio::test]
async fn asyncapi_has_the_attributes_that_messages_really_carry() {
    let asyncapi = document("asyncapi.yaml");
    let headers = &asyncapi["components"]["messages"]["orderEvent"]["headers"];
    let validator = validator(&json!({}), headers);
    let stack = Stack::start().await;
    let begun = jiff::Timestamp::now() - jiff::SignedDuration::from_millis(1);
    stack.deliver("aboutyou", "order-created").await.event_id("accepted");
    stack
        .deliver("aboutyou", "order-items-shipped")
        .await
        .event_id("accepted");
    let replay = json!({"provider": "aboutyou", "types": ["order.created"], "from": begun, "to": jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1)});
    assert_eq!(stack.ask(json!({"replay": replay})).await["replayed"], 1);
    let messages = stack.messages().await;
    assert_eq!(messages.len(), 3);
    let mut met = BTreeSet::new();
    for message in messages {
        let mut values = json!({});
        for (name, attribute) in message.attributes.as_object().expect("attributes") {
            assert_eq!(attribute["Type"], "String");
            values[name] = attribute["Value"].clone();
            met.insert(name.clone());
        }
        assert!(validator.is_valid(&values), "{values}");
        assert_eq!(values["type"], message.event["type"]);
        assert_eq!(values["provider"], message.event["data"]["provider"]);
        assert_eq!(values["shop"], message.event["data"]["shop"]);
        assert_eq!(values["test"], message.event["data"]["test"].to_string());
        assert_eq!(values["currency"], message.event["data"]["order"]["currency"]);
    }
    assert_eq!(
        met.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        names(&headers["properties"])
    );
}

fn resources() -> Value {
    let text = fs::read_to_string(workspace().join("template.yaml")).expect("the template");
    json_of(&template::load(&text).expect("YAML")["Resources"])
}

/// The properties of the template's alarms, by their logical ids.
fn alarms() -> Vec<(String, Value)> {
    let Value::Object(resources) = resources() else {
        panic!("no resources")
    };
    let alarms = resources
        .into_iter()
        .filter(|(_, resource)| resource["Type"] == "AWS::CloudWatch::Alarm");
    alarms
        .map(|(id, mut resource)| (id, resource["Properties"].take()))
        .collect()
}

/// The provider that an alarm's metric is of; `None` where its dimensions name no provider.
fn provider_of(alarm: &Value) -> Option<&str> {
    let dimensions = alarm["Dimensions"].as_array()?;
    let provider = dimensions.iter().find(|dimension| dimension["Name"] == "provider")?;
    provider["Value"].as_str()
}

/// The providers whose function an alarm's metric math reads.
fn functions_of(alarm: &Value) -> Vec<&str> {
    let queries = alarm["Metrics"].as_array().expect("metric math");
    // `!If [SelldoneEnabled, {...}, AWS::NoValue]`; the expression itself has no condition.
    queries.iter().filter_map(|query| query[1]["Id"].as_str()).collect()
}

#[test]
fn every_alarm_watches_a_documented_metric() {
    let (of_deliveries, of_runs) = documented();
    let mut ours = 0;
    for (id, alarm) in alarms() {
        let Some(namespace) = alarm["Namespace"].as_str() else {
            assert_eq!(functions_of(&alarm), PROVIDERS, "{id}");
            continue;
        };
        if namespace.starts_with("AWS/") {
            continue;
        }
        ours += 1;
        let metric = alarm["MetricName"].as_str().expect("a metric");
        let known = of_deliveries.contains(metric) || (provider_of(&alarm).is_none() && of_runs.contains(metric));
        assert!(known, "{id}: {metric} is not documented");
    }
    assert!(ours > 10, "{ours} alarms are not all");
}

#[test]
fn every_provider_has_the_same_alarms() {
    let alarms = alarms();
    for provider in PROVIDERS {
        let of_provider = alarms.iter().filter(|(_, alarm)| provider_of(alarm) == Some(provider));
        let metrics: Vec<_> = of_provider
            .filter_map(|(_, alarm)| alarm["MetricName"].as_str())
            .filter(|metric| *metric != "Unavailable")
            .collect();
        assert_eq!(metrics, ["MappingFailed"], "{provider}");
    }
    let of_functions = alarms.iter().filter(|(_, alarm)| alarm["MetricName"] == "Errors");
    let functions: BTreeSet<_> = of_functions
        .filter_map(|(_, alarm)| alarm["Dimensions"][0]["Value"].as_str())
        .map(|function| function.trim_end_matches("Function").to_lowercase())
        .collect();
    let expected: BTreeSet<String> = PROVIDERS.into_iter().chain(["redrive"]).map(str::to_owned).collect();
    assert_eq!(functions, expected);
}

#[test]
fn a_single_wrong_credential_rings_the_alarm() {
    let alarms = alarms();
    let of_wrong_credentials: Vec<_> = alarms
        .iter()
        .filter(|(_, alarm)| alarm["MetricName"] == "WrongCredentials")
        .map(|(_, alarm)| (&alarm["Dimensions"], &alarm["Threshold"], &alarm["Statistic"]))
        .collect();
    assert_eq!(of_wrong_credentials, [(&Value::Null, &json!(0), &json!("Sum"))]);
}

#[test]
fn a_503_rings_at_once_where_no_repeat_is_documented() {
    let alarms = alarms();
    let unavailable = |provider: Option<&str>| {
        let mut of_metric = alarms.iter().filter(|(_, alarm)| alarm["MetricName"] == "Unavailable");
        let found = of_metric.find(|(_, alarm)| provider_of(alarm) == provider);
        found.map(|(_, alarm)| (&alarm["Threshold"], alarm["Period"].as_u64().expect("seconds")))
    };
    let of_all = unavailable(None).expect("an alarm");
    assert_eq!(of_all, (&json!("UnavailableThreshold"), 24 * 60 * 60));
    let mut at_once = Vec::new();
    for provider in PROVIDERS {
        let readme = workspace().join("functions").join(provider).join("README.md");
        let readme = fs::read_to_string(readme).expect("the README");
        if readme.contains("Not documented: any automatic retry") {
            let (threshold, period) = unavailable(Some(provider)).expect("an alarm");
            assert_eq!(threshold, 0, "{provider}");
            assert!(period <= 300, "{provider}");
            at_once.push(provider);
        } else {
            assert_eq!(unavailable(Some(provider)), None, "{provider}");
        }
    }
    assert_eq!(at_once, ["snipcart"]);
}

#[test]
fn every_alarm_is_described_and_on_the_dashboard() {
    let resources = resources();
    let template = fs::read_to_string(workspace().join("template.yaml")).expect("the template");
    let readme = fs::read_to_string(workspace().join("functions/redrive/README.md")).expect("the README");
    for (id, alarm) in alarms() {
        let description = alarm["AlarmDescription"].as_str().expect("a description");
        // CloudWatch takes 1024 characters.
        assert!((80..=1024).contains(&description.len()), "{id}: {description}");
        let name = alarm["AlarmName"].as_str().expect("a name");
        let name = name.trim_start_matches("${AWS::StackName}-");
        let code = PROVIDERS
            .iter()
            .find_map(|provider| name.strip_prefix(provider)?.strip_prefix('-'));
        let is_listed = |name: &str| readme.contains(&format!("\n| `{name}` | "));
        let of_provider = code.map(|kind| format!("PROVIDER-{kind}"));
        assert!(
            is_listed(name) || of_provider.is_some_and(|name| is_listed(&name)),
            "{id} is not in the README"
        );
        let code = code.unwrap_or(name).replace('-', "_");
        assert!(
            description.ends_with(&format!(". Code: {code}.")),
            "{id}: {description}"
        );
        let words = description.split(|character: char| !character.is_alphanumeric());
        for group in words.filter(|word| word.ends_with("Logs")) {
            let known = group == "Logs" || resources[group]["Type"] == "AWS::Logs::LogGroup";
            assert!(known, "{id}: there is no {group}");
        }
        let shown = template.contains(&format!("\"${{{id}.Arn}}\""));
        assert!(shown, "{id} is not on the dashboard");
    }
}

/// The parts of the template that belong to ABOUT YOU, which has no parameters of its own besides those that every provider has: the
/// lines that name it, with what is indented under them, and its block of resources.
fn places_of_a_provider(template: &str) -> Vec<(usize, usize)> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut places: Vec<(usize, usize)> = Vec::new();
    let (mut in_block, mut under) = (false, None);
    for (number, line) in template.lines().enumerate() {
        if line.starts_with("  # -----") || line.starts_with(|first: char| !first.is_whitespace()) {
            in_block = line.starts_with("  # -----") && line.ends_with(" ABOUT YOU");
        }
        under = under.filter(|under| line.trim().is_empty() || indent(line) > *under);
        if under.is_none() && (line.contains("boutyou") || line.contains("ABOUT YOU")) {
            under = Some(indent(line));
        }
        if in_block || under.is_some() {
            match places.last_mut() {
                Some((_, end)) if *end == number => *end += 1,
                _ => places.push((number, number + 1)),
            }
        }
    }
    places
}

#[test]
fn a_sixth_provider_is_a_hundred_lines_in_ten_places() {
    let template = fs::read_to_string(workspace().join("template.yaml")).expect("the template");
    let mut lines: Vec<String> = template.lines().map(str::to_owned).collect();
    assert!(lines.len() <= 1_400, "{} lines", lines.len());
    let places = places_of_a_provider(&template);
    let added: usize = places.iter().map(|(start, end)| end - start).sum();
    assert!(places.len() <= 10, "{places:?}");
    assert!(added <= 100, "{added} lines: {places:?}");
    for (start, end) in places.into_iter().rev() {
        let copy = lines[start..end].iter().map(|line| {
            line.replace("Aboutyou", "Toy")
                .replace("aboutyou", "toy")
                .replace("ABOUT YOU", "Toy")
        });
        let copy: Vec<_> = copy.collect();
        lines.splice(end..end, copy);
    }
    // The check of the template lints it.
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sixth-provider.yaml");
    fs::write(&path, lines.join("\n") + "\n").expect("a copy of the template");
    let before = template::read(&workspace().join("template.yaml")).expect("the template");
    let after = template::read(&path).expect("the copy");
    let (toy, others): (Vec<_>, Vec<_>) = after.into_iter().partition(|function| function.name == "toy");
    assert_eq!(others, before);
    let routes: Vec<_> = toy
        .iter()
        .flat_map(|toy| &toy.routes)
        .map(template::Route::key)
        .collect();
    assert_eq!(routes, ["ANY /webhooks/toy/{shop}", "ANY /webhooks/toy/{proxy+}"]);
}

#[test]
fn dead_letters_are_kept_longer_than_messages() {
    let resources = resources();
    let kept = |queue: &str| resources[queue]["Properties"]["MessageRetentionPeriod"].as_u64();
    let (queue, dead_letters) = (kept("OrderEventsQueue"), kept("OrderEventsDeadLetterQueue"));
    assert!(queue.is_some() && queue < dead_letters, "{queue:?} {dead_letters:?}");
}

#[test]
fn the_local_stack_and_the_bench_run_functions_with_the_templates_allocator() {
    let template = fs::read_to_string(workspace().join("template.yaml")).expect("the template");
    assert!(template.contains(&format!("\n        {TUNABLES_NAME}: {TUNABLES}\n")));
}

#[test]
fn the_settings_that_answer_an_open_question_exist() {
    let template = fs::read_to_string(workspace().join("template.yaml")).expect("the template");
    let mut settings = 0;
    for provider in ["selldone", "cartum", "deeple", "aboutyou", "snipcart"] {
        let folder = workspace().join("functions").join(provider);
        let readme = fs::read_to_string(folder.join("README.md")).expect("the README");
        let code = fs::read_to_string(folder.join("src/lib.rs")).expect("the code");
        let (_, questions) = readme.split_once("## Open questions").expect("open questions");
        let (questions, _) = questions.split_once("\n## ").expect("what follows");
        for row in questions.lines().filter(|line| line.starts_with("| ")).skip(1) {
            let setting = row.trim_end_matches(" |").rsplit(" | ").next().expect("a setting");
            let quoted: Vec<_> = setting.split('`').skip(1).step_by(2).collect();
            settings += quoted.len();
            if let [variable, parameter, default] = quoted[..] {
                let is_declared = template.contains(&format!("\n  {parameter}:\n"))
                    && template.contains(&format!("{variable}: !Ref {parameter}\n"));
                assert!(is_declared && code.contains(variable), "{provider}: {setting}");
                let (_, declared) = template
                    .split_once(&format!("\n  {parameter}:\n"))
                    .expect("the parameter");
                let (_, declared) = declared.split_once("Default: ").expect("a default");
                assert_eq!(
                    declared.lines().next().map(|default| default.trim_matches('"')),
                    Some(default)
                );
            } else {
                for name in quoted.iter().filter(|name| !name.ends_with('=')) {
                    assert!(code.contains(name), "{provider}: {name}");
                }
            }
        }
    }
    assert!(settings > 15, "{settings} are not all");
}
