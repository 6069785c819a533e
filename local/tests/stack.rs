//! What the stack says when it cannot start, or a function cannot.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use local::Error;
use local::binaries::Binaries;
use local::client::Client;
use local::log::Log;
use local::stack::{Config, Stack};
use local::template::{Function, Route};

/// A stack with one function, at `/hook`, whose binary is `path`.
fn config(path: &str) -> Config {
    let function = Function {
        name: "hook".to_owned(),
        timeout: Duration::from_secs(1),
        routes: vec![Route {
            method: "POST".to_owned(),
            path: "/hook".to_owned(),
        }],
    };
    let binaries = Binaries::from_iter([("hook".to_owned(), path.into())]);
    Config::new(vec![function], binaries, Log::memory())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_cannot_start_is_answered_500_and_says_why() {
    for (path, why) in [
        ("/bin/false", "hook died (exit status: 1) before it asked for an event"),
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
    assert!(error.to_string().contains("--port PORT takes another one"), "{error}");
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
