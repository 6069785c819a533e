//! The stack without functions: errors at its start, and its topic and queue.

use std::time::Duration;

use aws_sdk_sns::types::MessageAttributeValue;
use bytes::Bytes;
use http::Request;
use local::net::client::Client;
use local::project::build::Binaries;
use local::project::template::{Function, Route};
use local::recorder::log::Log;
use local::stack::{Config, Stack};
use local::{Error, TOPIC_ARN};

/// A stack with one function, at `/hook`, whose binary is `path`.
fn config(path: &str) -> Config {
    let function = Function {
        name: "hook".to_owned(),
        timeout: Duration::from_secs(1),
        routes: vec![Route {
            method: "POST".to_owned(),
            path: "/hook".to_owned(),
        }],
        schedules: Vec::new(),
    };
    let binaries = Binaries::from_iter([("hook".to_owned(), path.into())]);
    Config::new(vec![function], binaries, Log::memory())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_cannot_start_is_answered_500() {
    for (path, why) in [
        (
            "/bin/false",
            "hook exited (exit status: 1) before it asked for an event",
        ),
        ("/no/such/binary", "hook cannot be started from /no/such/binary"),
    ] {
        let stack = Stack::start(config(path)).await.unwrap();
        let request = Request::post(format!("{}/hook", stack.url()))
            .body(Bytes::new())
            .unwrap();
        let answer = Client::new(&stack.url()).unwrap().send(request).await.unwrap();
        assert_eq!(answer.status(), 500);
        assert_eq!(answer.body(), r#"{"message":"Internal Server Error"}"#);
        let log = stack.log().join("\n");
        assert!(log.contains(why), "{log}");
        stack.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_the_flag_for_another() {
    let first = Stack::start(config("/bin/false")).await.unwrap();
    let mut config = config("/bin/false");
    config.ports.gateway = first.url().rsplit(':').next().unwrap().parse().unwrap();
    let error = Stack::start(config).await.unwrap_err();
    assert!(matches!(error, Error::Port { flag: "--port", .. }), "{error}");
    assert!(
        error.to_string().contains("--port PORT selects another port"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answers_after_a_shutdown() {
    let stack = Stack::start(config("/bin/false")).await.unwrap();
    let url = stack.url();
    stack.shutdown().await;
    let request = Request::post(format!("{url}/hook")).body(Bytes::new()).unwrap();
    let error = Client::new(&url).unwrap().send(request).await.unwrap_err();
    assert!(error.to_string().contains("Is `cargo local` running?"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_the_largest_size_reaches_the_queue() {
    let stack = Stack::start(config("/bin/false")).await.unwrap();
    let publish = |length: usize| {
        // The envelope escapes the quotes, so it is far larger than the message.
        let message = format!("{{\"id\":\"large\",\"text\":[{}\"\"]}}", "\"\",".repeat(80_000));
        let message = format!("{message}{}", " ".repeat(length - message.len()));
        let kind = MessageAttributeValue::builder()
            .data_type("String")
            .string_value("x")
            .build()
            .unwrap();
        let publish = stack.clients().sns.publish().topic_arn(TOPIC_ARN).message(message);
        publish.message_attributes("type", kind).send()
    };
    // An attribute counts with its name, type and value.
    let room = 256 * 1024 - "type".len() - "String".len() - "x".len();
    let error = publish(room + 1).await.unwrap_err().into_service_error();
    assert!(error.is_invalid_parameter_exception(), "{error:?}");
    publish(room).await.unwrap();
    let message = stack.queue().take("large", Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(message.text.len(), room);
    assert!(stack.queue().drain().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_messages_stay_in_the_queue() {
    let stack = Stack::start(config("/bin/false")).await.unwrap();
    for id in ["a", "b", "c"] {
        let publish = stack.clients().sns.publish().topic_arn(TOPIC_ARN);
        publish.message(format!(r#"{{"id":"{id}"}}"#)).send().await.unwrap();
    }
    let queue = stack.queue();
    assert!(queue.take("nothing", Duration::ZERO).await.unwrap().is_none());
    assert_eq!(queue.take("b", Duration::ZERO).await.unwrap().unwrap().event["id"], "b");
    let mut left: Vec<_> = queue
        .drain()
        .await
        .unwrap()
        .into_iter()
        .map(|message| message.text)
        .collect();
    left.sort();
    assert_eq!(left, [r#"{"id":"a"}"#, r#"{"id":"c"}"#]);
}
