//! `asyncapi.yaml`: the messages that consumers get.

use std::collections::BTreeSet;
use std::fs;

use local::NAME;
use local::project::build::workspace;
use serde_json::{Value, json};
use tests::Stack;

use crate::document::{document, folder, names, validator};

#[test]
fn the_examples_in_asyncapi_are_golden_events() {
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
async fn asyncapi_has_exactly_the_attributes_of_real_messages() {
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
    let mut found = BTreeSet::new();
    for message in messages {
        let mut values = json!({});
        for (name, attribute) in message.attributes.as_object().expect("attributes") {
            assert_eq!(attribute["Type"], "String");
            values[name] = attribute["Value"].clone();
            found.insert(name.clone());
        }
        assert!(validator.is_valid(&values), "{values}");
        assert_eq!(values["type"], message.event["type"]);
        assert_eq!(values["provider"], message.event["data"]["provider"]);
        assert_eq!(values["shop"], message.event["data"]["shop"]);
        assert_eq!(values["test"], message.event["data"]["test"].to_string());
        assert_eq!(values["currency"], message.event["data"]["order"]["currency"]);
    }
    assert_eq!(
        found.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        names(&headers["properties"])
    );
}

#[tokio::test]
async fn asyncapi_describes_a_published_state() {
    let asyncapi = document("asyncapi.yaml");
    let message = &asyncapi["components"]["messages"]["orderState"];
    let mut payload = message["payload"]["schema"].clone();
    assert_eq!(payload["properties"]["data"]["$ref"], "order-state.v1.schema.json");
    let file = fs::read(folder().join("order-state.v1.schema.json")).expect("the schema");
    let data = validator(&json!({}), &serde_json::from_slice(&file).expect("JSON"));
    payload["properties"]["data"] = json!({"type": "object"});
    let (headers, payload) = (
        validator(&json!({}), &message["headers"]),
        validator(&json!({}), &payload),
    );
    let stack = Stack::with(|config| {
        config.variables.insert("PUBLISH_STATE".to_owned(), "true".to_owned());
    })
    .await;
    stack.deliver("snipcart", "order-completed").await.event_id("accepted");
    let messages = stack.messages().await;
    let state = messages.last().expect("a message");
    let mut values = json!({});
    for (name, attribute) in state.attributes.as_object().expect("attributes") {
        values[name] = attribute["Value"].clone();
    }
    assert!(headers.is_valid(&values), "{values}");
    assert!(payload.is_valid(&state.event), "{}", state.event);
    assert!(data.is_valid(&state.event["data"]), "{}", state.event["data"]);
    assert_eq!(
        (&values["type"], &values["test"]),
        (&json!("order.state"), &json!("true"))
    );
    assert!(!headers.is_valid(&json!({"type": "order.paid"})) && !payload.is_valid(&messages[0].event));
}
