//! The alarms of the template, and what else the template and the code have to agree on.

use std::collections::BTreeSet;
use std::fs;

use local::project::build::workspace;
use local::project::settings::{TUNABLES, TUNABLES_NAME};
use serde_json::{Value, json};
use tests::providers::PROVIDERS;
use tests::telemetry::documented;
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

#[test]
fn every_alarm_watches_a_documented_metric() {
    let (of_deliveries, of_runs) = documented();
    let mut ours = 0;
    for (id, alarm) in alarms() {
        let namespace = alarm["Namespace"].as_str().expect("a namespace");
        if namespace.starts_with("AWS/") {
            continue;
        }
        ours += 1;
        let metric = alarm["MetricName"].as_str().expect("a metric");
        let known = match provider_of(&alarm) {
            Some(_) => &of_deliveries,
            None => &of_runs,
        };
        assert!(known.contains(metric), "{id}: {metric} is not in {known:?}");
    }
    assert!(ours > 40, "only {ours} alarms were found");
}

#[test]
fn every_provider_has_the_same_alarms() {
    let watched = [
        "Conflicts",
        "Deliveries",
        "Drift",
        "MappingFailed",
        "Misconfigured",
        "Quarantined",
        "Refused",
        "Unavailable",
        "WrongCredentials",
    ];
    let alarms = alarms();
    for provider in PROVIDERS.iter().map(|facts| facts.name) {
        let of_provider = alarms.iter().filter(|(_, alarm)| provider_of(alarm) == Some(provider));
        let metrics: BTreeSet<_> = of_provider
            .filter_map(|(_, alarm)| alarm["MetricName"].as_str())
            .collect();
        assert_eq!(metrics, watched.into(), "{provider}");
    }
}

#[test]
fn a_single_wrong_credential_raises_the_alarm() {
    for (id, alarm) in alarms() {
        if alarm["MetricName"] == "WrongCredentials" {
            assert_eq!(
                (&alarm["Threshold"], &alarm["Statistic"]),
                (&json!(0), &json!("Sum")),
                "{id}"
            );
        }
    }
}

#[test]
fn a_503_raises_the_alarm_at_once_without_a_documented_repeat() {
    let alarms = alarms();
    let mut at_once = Vec::new();
    for provider in PROVIDERS.iter().map(|facts| facts.name) {
        let readme = workspace().join("functions").join(provider).join("README.md");
        let readme = fs::read_to_string(readme).expect("the README");
        let alarm = alarms
            .iter()
            .find(|(_, alarm)| alarm["MetricName"] == "Unavailable" && provider_of(alarm) == Some(provider));
        let (_, alarm) = alarm.expect("an alarm");
        let period = alarm["Period"].as_u64().expect("seconds");
        if readme.contains("Not documented: any automatic retry") {
            assert_eq!(alarm["Threshold"], 0, "{provider}");
            assert!(period <= 300, "{provider}");
            at_once.push(provider);
        } else {
            assert_eq!(alarm["Threshold"], "UnavailableThreshold", "{provider}");
            assert_eq!(period, 24 * 60 * 60, "{provider}");
        }
    }
    assert_eq!(at_once, ["snipcart"]);
}

#[test]
fn every_alarm_is_described_and_on_the_dashboard() {
    let resources = resources();
    let template = fs::read_to_string(workspace().join("template.yaml")).expect("the template");
    for (id, alarm) in alarms() {
        let description = alarm["AlarmDescription"].as_str().expect("a description");
        // The limit of CloudWatch.
        assert!((80..=1024).contains(&description.len()), "{id}: {description}");
        assert!(description.ends_with('.'), "{id}: {description}");
        let words = description.split(|character: char| !character.is_alphanumeric());
        for group in words.filter(|word| word.ends_with("Logs")) {
            let known = group == "Logs" || resources[group]["Type"] == "AWS::Logs::LogGroup";
            assert!(known, "{id}: there is no {group}");
        }
        let shown = template.contains(&format!("\"${{{id}.Arn}}\""));
        assert!(shown, "{id} is not on the dashboard");
    }
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
fn the_settings_for_open_questions_exist() {
    let template = fs::read_to_string(workspace().join("template.yaml")).expect("the template");
    let mut settings = 0;
    for provider in PROVIDERS.iter().map(|facts| facts.name) {
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
