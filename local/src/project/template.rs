//! The functions and routes of `template.yaml`: the local gateway serves what would be deployed.

use std::path::Path;
use std::time::Duration;

use yaml_rust2::yaml::Hash;
use yaml_rust2::{Yaml, YamlLoader};

use crate::Error;

/// A function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The name of the binary, which is also the name of the package.
    pub name: String,
    /// How long the function may take for one event.
    pub timeout: Duration,
    /// The routes of the HTTP API that lead to the function.
    pub routes: Vec<Route>,
    /// The schedules that invoke the function.
    pub schedules: Vec<Schedule>,
}

/// A schedule of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The time between two invocations.
    pub every: Duration,
    /// The payload as JSON.
    pub payload: String,
}

/// A route of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The method in upper case; `ANY` for all methods.
    pub method: String,
    /// The path, with `{name}` for a segment that is a parameter, and `{name+}` at the end for all that follows.
    pub path: String,
}

impl Route {
    /// API Gateway's name of the route: `ANY /webhooks/selldone/{shop}`.
    pub fn key(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The parameters of the path, if `method` and `path` (as sent) match this route.
    fn parameters(&self, method: &str, path: &str) -> Option<Vec<(String, String)>> {
        if self.method != "ANY" && self.method != method {
            return None;
        }
        let mut parameters = Vec::new();
        let (mut ours, mut theirs) = (self.path.split('/'), path.split('/'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return Some(parameters),
                (Some(ours), Some(first)) if is_greedy(ours) => {
                    let all: Vec<String> = [first].into_iter().chain(theirs).map(decoded).collect();
                    let name = parameter(ours)?.trim_end_matches('+');
                    parameters.push((name.to_owned(), all.join("/")));
                    return (!first.is_empty()).then_some(parameters);
                }
                (Some(ours), Some(theirs)) => match parameter(ours) {
                    // A parameter matches exactly one segment, which must not be empty.
                    Some(_) if theirs.is_empty() => return None,
                    Some(name) => parameters.push((name.to_owned(), decoded(theirs))),
                    None if ours == theirs => {}
                    None => return None,
                },
                _ => return None,
            }
        }
    }

    /// Of the routes that match, API Gateway prefers the one with the most fixed segments, then one whose last
    /// parameter is a single segment, then one with a certain method.
    fn rank(&self) -> (usize, bool, bool) {
        let fixed = self
            .path
            .split('/')
            .filter(|segment| parameter(segment).is_none())
            .count();
        let greedy = self.path.split('/').any(is_greedy);
        (fixed, !greedy, self.method != "ANY")
    }
}

/// The route of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match<'a> {
    /// The function that the route leads to.
    pub function: &'a str,
    /// The route.
    pub route: &'a Route,
    /// The parameters of the path, decoded.
    pub parameters: Vec<(String, String)>,
}

/// Finds the function and the route for a request.
pub fn route<'a>(functions: &'a [Function], method: &str, path: &str) -> Option<Match<'a>> {
    functions
        .iter()
        .flat_map(|function| function.routes.iter().map(move |route| (function, route)))
        .filter_map(|(function, route)| {
            let parameters = route.parameters(method, path)?;
            Some(Match {
                function: &function.name,
                route,
                parameters,
            })
        })
        .max_by_key(|found| found.route.rank())
}

/// Reads the functions from the template at `path`.
pub fn read(path: &Path) -> Result<Vec<Function>, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Template(format!("{} cannot be read: {source}", path.display())))?;
    parse(&text).map_err(|fault| Error::Template(format!("{}: {fault}", path.display())))
}

/// Parses a template and resolves its merge keys (`<<`), which the parser does not; it resolves anchors itself.
///
/// # Errors
/// If `text` is not YAML, or is empty.
pub fn load(text: &str) -> Result<Yaml, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    let template = documents.into_iter().next().ok_or("it is empty")?;
    Ok(merged(template))
}

/// Resolves the merge keys. A field of the map itself has precedence over a merged one.
fn merged(yaml: Yaml) -> Yaml {
    match yaml {
        Yaml::Hash(fields) => {
            let (mut own, mut shared) = (Hash::new(), Vec::new());
            for (name, value) in fields {
                match (name.as_str(), merged(value)) {
                    (Some("<<"), Yaml::Hash(fields)) => shared.push(fields),
                    (_, value) => drop(own.insert(name, value)),
                }
            }
            for (name, value) in shared.into_iter().flatten() {
                if !own.contains_key(&name) {
                    own.insert(name, value);
                }
            }
            Yaml::Hash(own)
        }
        Yaml::Array(items) => Yaml::Array(items.into_iter().map(merged).collect()),
        other => other,
    }
}

/// The short tags of `CloudFormation` (`!Ref`, `!Sub`) need no special care: the parser ignores them, and no value with
/// a tag is read here.
fn parse(text: &str) -> Result<Vec<Function>, String> {
    let template = load(text)?;
    let timeout = seconds(&template["Globals"]["Function"]["Timeout"]);
    let resources = template["Resources"].as_hash().ok_or("it has no Resources")?;
    let mut functions = Vec::new();
    for (id, resource) in resources {
        if resource["Type"].as_str() != Some("AWS::Serverless::Function") {
            continue;
        }
        let id = id.as_str().unwrap_or_default();
        let properties = &resource["Properties"];
        functions.push(Function {
            name: binary(resource)
                .ok_or_else(|| format!("{id} names no binary: give it Metadata.BuildProperties.Binary"))?,
            // The default of SAM is 3 seconds.
            timeout: seconds(&properties["Timeout"])
                .or(timeout)
                .unwrap_or(Duration::from_secs(3)),
            routes: routes(id, &properties["Events"])?,
            schedules: schedules(id, &properties["Events"], &template)?,
        });
    }
    if functions.is_empty() {
        return Err("it has no function".to_owned());
    }
    Ok(functions)
}

fn schedules(id: &str, events: &Yaml, template: &Yaml) -> Result<Vec<Schedule>, String> {
    let mut schedules = Vec::new();
    for (_, event) in events.as_hash().into_iter().flatten() {
        let event_type = event["Type"].as_str().unwrap_or_default();
        let event = &event["Properties"];
        let expression = match event_type {
            "ScheduleV2" => &event["ScheduleExpression"],
            "Schedule" => &event["Schedule"],
            _ => continue,
        };
        let expression = expression.as_str().unwrap_or_default();
        schedules.push(Schedule {
            every: rate(expression).ok_or_else(|| {
                format!("the local stack does not support the schedule {expression:?} of {id}, only rate(...)")
            })?,
            payload: input(&event["Input"], template).ok_or_else(|| {
                format!("the local stack does not support the Input of a schedule of {id}, only a text or !FindInMap")
            })?,
        });
    }
    Ok(schedules)
}

/// The payload of a schedule: a text, or `!FindInMap [map, !Ref parameter, name]` with the parameter's default.
fn input(input: &Yaml, template: &Yaml) -> Option<String> {
    let payload = match input {
        Yaml::BadValue => return Some("{}".to_owned()),
        Yaml::Array(place) => {
            let [map, parameter, name] = [0, 1, 2].map(|index| place.get(index).and_then(Yaml::as_str));
            let default = template["Parameters"][parameter?]["Default"].as_str()?;
            &template["Mappings"][map?][default][name?]
        }
        text => text,
    };
    payload.as_str().map(str::to_owned)
}

/// `rate(1 minute)`, `rate(5 hours)`.
fn rate(expression: &str) -> Option<Duration> {
    let (count, unit) = expression.strip_prefix("rate(")?.strip_suffix(')')?.split_once(' ')?;
    let seconds = match unit.trim_end_matches('s') {
        "minute" => 60,
        "hour" => 60 * 60,
        "day" => 24 * 60 * 60,
        _ => return None,
    };
    let count: u64 = count.parse().ok()?;
    Some(Duration::from_secs(count.checked_mul(seconds)?)).filter(|every| !every.is_zero())
}

fn routes(id: &str, events: &Yaml) -> Result<Vec<Route>, String> {
    let mut routes = Vec::new();
    for (name, event) in events.as_hash().into_iter().flatten() {
        if event["Type"].as_str() != Some("HttpApi") {
            continue;
        }
        let event = &event["Properties"];
        let (Some(path), Some(method)) = (event["Path"].as_str(), event["Method"].as_str()) else {
            return Err(format!(
                "the event {} of {id} has no Path and Method",
                name.as_str().unwrap_or_default()
            ));
        };
        if path.strip_suffix("+}").unwrap_or(path).contains("+}") {
            return Err(format!(
                "the route {path} of {id} goes on behind a greedy parameter, which API Gateway does not take"
            ));
        }
        let method = if method == "*" {
            "ANY".to_owned()
        } else {
            method.to_ascii_uppercase()
        };
        routes.push(Route {
            method,
            path: path.to_owned(),
        });
    }
    Ok(routes)
}

/// The `Binary` of cargo-lambda, or the name of the folder, which is the name of the package.
fn binary(resource: &Yaml) -> Option<String> {
    let named = resource["Metadata"]["BuildProperties"]["Binary"].as_str();
    let folder = resource["Properties"]["CodeUri"]
        .as_str()
        .and_then(|uri| uri.trim_end_matches('/').rsplit('/').next());
    named
        .or(folder)
        .filter(|name| !name.is_empty() && *name != ".")
        .map(str::to_owned)
}

fn seconds(value: &Yaml) -> Option<Duration> {
    value
        .as_i64()
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(Duration::from_secs)
}

fn parameter(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn is_greedy(segment: &str) -> bool {
    parameter(segment).is_some_and(|name| name.ends_with('+'))
}

fn decoded(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment)
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"
Transform: AWS::Serverless-2016-10-31
Parameters:
  Architecture: {Type: String, Default: arm64}
  Which: {Type: String, Default: "1"}
Mappings:
  Inputs: {"1": {First: "", Second: '{"alert":{}}'}}
Globals:
  Function:
    Timeout: 15
    Architectures: [!Ref Architecture]
Resources:
  Table:
    Type: AWS::DynamoDB::Table
  SelldoneFunction:
    Type: AWS::Serverless::Function
    Metadata: {BuildMethod: rust-cargolambda, BuildProperties: {Binary: selldone}}
    Properties:
      CodeUri: .
      Environment:
        Variables: {TOPIC_ARN: !Ref Topic, SECRETS: !Sub '${Secret}', TABLE: !GetAtt [Table, Arn]}
      Events:
        Webhook: {Type: HttpApi, Properties: {ApiId: !Ref Api, Path: '/webhooks/selldone/{shop}', Method: any}}
        Slash: {Type: HttpApi, Properties: {ApiId: !Ref Api, Path: '/webhooks/selldone/{proxy+}', Method: any}}
  CartumFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/cartum/
      Timeout: 20
      Events:
        Webhook: {Type: HttpApi, Properties: {Path: '/webhooks/cartum/{shop}', Method: '*'}}
        Ping: {Type: HttpApi, Properties: {Path: '/webhooks/cartum/ping', Method: get}}
  RedriveFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/redrive
      Events:
        Minute: {Type: ScheduleV2, Properties: {ScheduleExpression: rate(1 minute), Input: '{"redrive":{}}'}}
        Alerts: {Type: ScheduleV2, Properties: {ScheduleExpression: rate(1 minute), Input: !FindInMap [Inputs, !Ref Which, Second]}}
"#;

    #[test]
    fn functions_are_read_with_their_binary_timeout_and_schedule() {
        let functions = parse(TEMPLATE).unwrap();
        let read: Vec<_> = functions
            .iter()
            .map(|f| (f.name.as_str(), f.timeout.as_secs()))
            .collect();
        assert_eq!(read, [("selldone", 15), ("cartum", 20), ("redrive", 15)]);
        assert_eq!(functions[0].routes[0].key(), "ANY /webhooks/selldone/{shop}");
        assert_eq!((&functions[0].schedules, &functions[2].routes), (&vec![], &vec![]));
        let every_minute = [r#"{"redrive":{}}"#, r#"{"alert":{}}"#].map(|payload| Schedule {
            every: Duration::from_mins(1),
            payload: payload.to_owned(),
        });
        assert_eq!(functions[2].schedules, every_minute);
    }

    #[test]
    fn anchors_and_merge_keys_are_resolved() {
        let template = load(
            r"
A: {<<: &a {<<: &b {One: 1, Two: 2}, Two: 3}, Three: &three !If [Yes, 4, 5]}
B: {One: 6, <<: *b}
C: [{<<: *a, Three: *three}]
",
        );
        let expected = load(
            "{A: {Three: [Yes, 4, 5], Two: 3, One: 1}, B: {One: 6, Two: 2}, C: [{Three: [Yes, 4, 5], Two: 3, One: 1}]}",
        );
        assert_eq!(template, expected);
    }

    #[test]
    fn a_rate_is_a_count_and_a_unit() {
        for (expression, seconds) in [
            ("rate(1 minute)", Some(60)),
            ("rate(5 minutes)", Some(300)),
            ("rate(2 hours)", Some(7200)),
            ("rate(1 day)", Some(86400)),
            ("rate(0 minutes)", None),
            ("rate(1 second)", None),
            ("cron(0 * * * ? *)", None),
        ] {
            assert_eq!(rate(expression).map(|every| every.as_secs()), seconds, "{expression}");
        }
    }

    #[test]
    fn a_request_finds_the_most_specific_route() {
        let functions = parse(TEMPLATE).unwrap();
        let cases = [
            (
                "POST",
                "/webhooks/selldone/main",
                Some(("ANY /webhooks/selldone/{shop}", Some("main"))),
            ),
            (
                "POST",
                "/webhooks/selldone/main/",
                Some(("ANY /webhooks/selldone/{proxy+}", Some("main/"))),
            ),
            (
                "POST",
                "/webhooks/selldone/main/caf%C3%A9",
                Some(("ANY /webhooks/selldone/{proxy+}", Some("main/café"))),
            ),
            (
                "DELETE",
                "/webhooks/cartum/caf%C3%A9",
                Some(("ANY /webhooks/cartum/{shop}", Some("café"))),
            ),
            (
                "GET",
                "/webhooks/cartum/ping",
                Some(("GET /webhooks/cartum/ping", None)),
            ),
            (
                "POST",
                "/webhooks/cartum/ping",
                Some(("ANY /webhooks/cartum/{shop}", Some("ping"))),
            ),
            ("POST", "/webhooks/selldone/", None),
            ("POST", "/webhooks/selldone", None),
            ("POST", "/webhooks/cartum/main/", None),
            ("POST", "/webhooks/unknown/main", None),
        ];
        for (method, path, expected) in cases {
            let found = route(&functions, method, path);
            let found = found
                .as_ref()
                .map(|m| (m.route.key(), m.parameters.first().map(|(_, value)| value.as_str())));
            let expected = expected.map(|(key, shop)| (key.to_owned(), shop));
            assert_eq!(found, expected, "{method} {path}");
        }
    }

    #[test]
    fn a_template_that_cannot_be_served_says_why() {
        for (template, fault) in [
            ("", "it is empty"),
            ("Transform: x", "it has no Resources"),
            ("Resources: {}", "it has no function"),
            (
                "Resources: {F: {Type: 'AWS::Serverless::Function', Properties: {CodeUri: f, Events: {A: {Type: HttpApi}}}}}",
                "the event A of F has no Path and Method",
            ),
            (
                "Resources: {F: {Type: 'AWS::Serverless::Function', Properties: {CodeUri: f, Events: {A: {Type: HttpApi, Properties: {Path: '/{a+}/b', Method: any}}}}}}",
                "the route /{a+}/b of F goes on behind a greedy parameter, which API Gateway does not take",
            ),
        ] {
            assert_eq!(parse(template).unwrap_err(), fault);
        }
    }
}
