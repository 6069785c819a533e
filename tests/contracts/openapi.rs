//! `openapi.yaml`: the requests of the providers and the answers to them.

use std::collections::BTreeSet;

use lambda_http::http::Method;
use local::aws::faults::{Fault, Rule, Service};
use local::project::build::workspace;
use local::project::template;
use serde_json::Value;
use shared::Provider;
use shared::answer::{Outcome, Reason, Refusal};
use tests::providers::PROVIDERS;
use tests::{Answer, Stack};

use crate::document::{document, names, resolved, validator, words};

#[test]
fn openapi_has_the_templates_routes_with_each_providers_methods() {
    let openapi = document("openapi.yaml");
    let functions = template::read(&workspace().join("template.yaml")).expect("the template");
    let routes: BTreeSet<_> = functions
        .iter()
        .flat_map(|function| &function.routes)
        .map(|route| route.path.as_str())
        // A variant of the route, with a slash after the shop.
        .filter(|path| !path.ends_with("/{proxy+}"))
        .collect();
    assert_eq!(names(&openapi["paths"]), routes);
    macro_rules! assert_methods {
        ($($name:ident: $provider:ty,)+) => { $(assert_methods::<$provider>(&openapi);)+ };
    }
    tests::for_each_provider!(assert_methods);
}

fn assert_methods<P: Provider>(openapi: &Value) {
    let path = &openapi["paths"][format!("/webhooks/{}/{{shop}}", P::NAME)];
    let described: BTreeSet<_> = names(path)
        .into_iter()
        .filter(|name| *name != "parameters")
        .map(str::to_uppercase)
        .collect();
    let accepted: BTreeSet<_> = P::METHODS.iter().map(Method::to_string).collect();
    assert_eq!(described, accepted, "{}", P::NAME);
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
    // Does not compile if an outcome is missing here.
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
fn the_request_examples_in_openapi_are_events_of_the_catalogue() {
    let openapi = document("openapi.yaml");
    let catalogue = tests::catalogue();
    let bodies = openapi["components"]["requestBodies"].as_object().expect("bodies");
    assert_eq!(bodies.len(), PROVIDERS.len());
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

/// Asserts that openapi.yaml describes the answer, and that its example is the answer, except for the ids.
fn assert_documented(openapi: &Value, provider: &str, method: &str, answer: &Answer) {
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
        let value = answer.header(name);
        assert!(
            value.is_some() || header["required"] != true,
            "{answer:?} has no header {name}"
        );
        if provider != "cartum" && answer.header("content-type") == Some("application/problem+json") {
            assert_eq!(
                value.map(str::to_owned),
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
async fn the_answers_in_openapi_are_the_real_ones() {
    let openapi = document("openapi.yaml");
    let stack = Stack::start().await;
    let check = |answer: &Answer, status: u16| {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_documented(&openapi, "aboutyou", "post", answer);
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
    // The gateway answers if a function dies.
    let kill = stack
        .tap()
        .inject(Rule::new(Service::DynamoDb, "PutItem").times(1), Fault::KillBefore);
    check(&stack.deliver("aboutyou", "order-updated").await, 500);
    drop(kill);

    let stack = Stack::with(|config| {
        config.secrets.insert("aboutyou".to_owned(), "not a secret".into());
    })
    .await;
    check(&stack.deliver("aboutyou", "order-created").await, 500);
}
