//! The alarms of the template, and what else the template and the code have to agree on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use local::project::build::workspace;
use local::project::settings::{TUNABLES, TUNABLES_NAME};
use local::project::template;
use serde_json::{Value, json};
use tests::providers::PROVIDERS;
use tests::telemetry::{documented, documented_of_reconcile};
use tests::yaml;

fn resources() -> Value {
    yaml::template()["Resources"].take()
}

/// The properties of the alarms, by logical id.
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

/// The provider in the dimensions of an alarm's metric, if there is one.
fn provider_of(alarm: &Value) -> Option<&str> {
    let dimensions = alarm["Dimensions"].as_array()?;
    let provider = dimensions.iter().find(|dimension| dimension["Name"] == "provider")?;
    provider["Value"].as_str()
}

/// The names of the providers.
fn providers() -> impl Iterator<Item = &'static str> {
    PROVIDERS.iter().map(|facts| facts.name)
}

/// The providers whose functions an alarm with metric math watches.
fn functions_of(alarm: &Value) -> Vec<&str> {
    let queries = alarm["Metrics"].as_array().expect("metric math");
    // `!If [SelldoneEnabled, {...}, AWS::NoValue]`; the expression itself has no condition.
    queries.iter().filter_map(|query| query[1]["Id"].as_str()).collect()
}

#[test]
fn every_alarm_watches_a_documented_metric() {
    let (of_deliveries, mut of_runs) = documented();
    of_runs.extend(documented_of_reconcile());
    let mut ours = 0;
    for (id, alarm) in alarms() {
        let Some(namespace) = alarm["Namespace"].as_str() else {
            assert!(functions_of(&alarm).into_iter().eq(providers()), "{id}");
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
    assert!(ours > 10, "only {ours} alarms were found");
}

#[test]
fn every_provider_has_the_same_alarms() {
    let alarms = alarms();
    for provider in providers() {
        let of_provider = alarms.iter().filter(|(_, alarm)| provider_of(alarm) == Some(provider));
        let metrics: Vec<_> = of_provider
            .filter_map(|(_, alarm)| alarm["MetricName"].as_str())
            // Only a provider without a documented repeat has this alarm.
            .filter(|metric| *metric != "Unavailable")
            .collect();
        assert_eq!(metrics, ["MappingFailed"], "{provider}");
    }
    let of_functions = alarms.iter().filter(|(_, alarm)| alarm["MetricName"] == "Errors");
    let functions: BTreeSet<_> = of_functions
        .filter_map(|(_, alarm)| alarm["Dimensions"][0]["Value"].as_str())
        .map(|function| function.trim_end_matches("Function").to_lowercase())
        .collect();
    let expected: BTreeSet<String> = providers().chain(["redrive", "reconcile"]).map(str::to_owned).collect();
    assert_eq!(functions, expected);
}

#[test]
fn a_single_wrong_credential_raises_the_alarm() {
    let alarms = alarms();
    let of_wrong_credentials: Vec<_> = alarms
        .iter()
        .filter(|(_, alarm)| alarm["MetricName"] == "WrongCredentials")
        .map(|(_, alarm)| (&alarm["Dimensions"], &alarm["Threshold"], &alarm["Statistic"]))
        .collect();
    assert_eq!(of_wrong_credentials, [(&Value::Null, &json!(0), &json!("Sum"))]);
}

#[test]
fn a_503_raises_the_alarm_at_once_without_a_documented_repeat() {
    let alarms = alarms();
    let unavailable = |provider: Option<&str>| {
        let mut of_metric = alarms.iter().filter(|(_, alarm)| alarm["MetricName"] == "Unavailable");
        let found = of_metric.find(|(_, alarm)| provider_of(alarm) == provider);
        found.map(|(_, alarm)| (&alarm["Threshold"], alarm["Period"].as_u64().expect("seconds")))
    };
    let of_all = unavailable(None).expect("an alarm");
    assert_eq!(of_all, (&json!("UnavailableThreshold"), 24 * 60 * 60));
    let mut at_once = Vec::new();
    for provider in providers() {
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
        // The limit of CloudWatch.
        assert!((80..=1024).contains(&description.len()), "{id}: {description}");
        let name = alarm["AlarmName"].as_str().expect("a name");
        let name = name.trim_start_matches("${AWS::StackName}-");
        let kind = providers().find_map(|provider| name.strip_prefix(provider)?.strip_prefix('-'));
        let is_listed = |name: &str| readme.contains(&format!("\n| `{name}` | "));
        let of_provider = kind.map(|kind| format!("PROVIDER-{kind}"));
        assert!(
            is_listed(name) || of_provider.is_some_and(|name| is_listed(&name)),
            "{id} is not in the README"
        );
        let code = kind.unwrap_or(name).replace('-', "_");
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

/// The line ranges of the template that belong to ABOUT YOU, which has no parameters of its own besides those of every
/// provider: the lines that name it, with the lines indented under them, and its block of resources. Reconciliation is
/// left out, because a provider without an order API has none.
fn places_of_a_provider(template: &str) -> Vec<(usize, usize)> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut places: Vec<(usize, usize)> = Vec::new();
    let (mut in_block, mut in_reconciliation, mut under) = (false, false, None);
    for (number, line) in template.lines().enumerate() {
        if line.starts_with("  # -----") || line.starts_with(|first: char| !first.is_whitespace()) {
            let is_block_of = |name: &str| line.starts_with("  # -----") && line.ends_with(name);
            in_block = is_block_of(" ABOUT YOU");
            in_reconciliation = is_block_of(" reconciliation");
        }
        if in_reconciliation || line.contains("Reconcile") {
            continue;
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
    assert!(lines.len() <= 1_650, "{} lines", lines.len());
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
    // The CI step that checks the template lints this copy too.
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
fn functions_run_locally_with_the_allocator_of_the_template() {
    let template = fs::read_to_string(workspace().join("template.yaml")).expect("the template");
    assert!(template.contains(&format!("\n        {TUNABLES_NAME}: {TUNABLES}\n")));
}

#[test]
fn a_deployed_function_calls_order_apis_at_public_hosts_only() {
    let function = &resources()["ReconcileFunction"]["Properties"]["Environment"]["Variables"];
    let variables = function.as_object().expect("variables");
    let urls = variables.iter().filter(|(name, _)| name.ends_with("_API_URL"));
    // A URL that is set may have any host, which is for the local stack.
    let set: Vec<_> = urls.clone().filter(|(_, value)| **value != json!("")).collect();
    assert_eq!((urls.count(), set), (4, vec![]));
}

#[test]
fn the_version_of_reconcile_follows_its_parameters() {
    let function = &resources()["ReconcileFunction"]["Properties"]["Environment"]["Variables"];
    let parameters = function["PARAMETERS"].to_string();
    for provider in ["Selldone", "Cartum", "Aboutyou", "Snipcart"] {
        for parameter in [
            format!("Reconcile{provider}"),
            format!("Enable{provider}"),
            format!("{provider}SecretArn"),
        ] {
            assert!(
                parameters.contains(&format!("\"{parameter}\"")),
                "{parameter}: {parameters}"
            );
        }
    }
}

#[test]
fn the_settings_for_open_questions_exist() {
    let template = fs::read_to_string(workspace().join("template.yaml")).expect("the template");
    let mut settings = 0;
    for provider in providers() {
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
    assert!(settings > 15, "only {settings} settings were found");
}
