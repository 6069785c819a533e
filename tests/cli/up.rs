//! A running `cargo local up`, and the requests that a person or a program makes to it.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tests::local_command;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// A running `cargo local up`.
pub(crate) struct Up {
    pub(crate) process: Child,
    /// The output until the stack was ready.
    pub(crate) printed: String,
    /// The lines after that, one for each delivery.
    said: mpsc::UnboundedReceiver<String>,
    /// The addresses that it wrote to `--endpoints-file`.
    pub(crate) endpoints: Value,
}

impl Up {
    /// Starts a stack on free ports.
    pub(crate) async fn start() -> Self {
        Self::with(&["--quiet"]).await
    }

    pub(crate) async fn with(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("endpoints.json");
        let mut process = local_command()
            .args([
                "up",
                "--port=0",
                "--dynamodb-port=0",
                "--sns-port=0",
                "--snipcart-port=0",
            ])
            .arg("--endpoints-file")
            .arg(&file)
            .args(flags)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the command starts");
        let mut lines = BufReader::new(process.stdout.take().expect("the output")).lines();
        let mut printed = String::new();
        while let Some(line) = lines.next_line().await.expect("a line") {
            printed.push_str(&line);
            printed.push('\n');
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        let (sender, said) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = sender.send(line);
            }
        });
        let endpoints = fs::read(&file).expect("it is written before the text ends");
        Self {
            process,
            printed,
            said,
            endpoints: serde_json::from_slice(&endpoints).expect("JSON"),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id().expect("the command runs")
    }

    /// The port of one of the addresses.
    pub(crate) fn port(&self, name: &str) -> &str {
        let url = self.endpoints[name].as_str().expect("an address");
        url.rsplit(':').next().expect("a port")
    }

    /// Runs `cargo local send` against the stack.
    pub(crate) async fn send(&self, arguments: &[&str]) -> String {
        let output = local_command()
            .arg("send")
            .args(arguments)
            .args(["--port", self.port("gateway")])
            .args(["--dynamodb-port", self.port("dynamodb")])
            .args(["--sns-port", self.port("sns")])
            .output()
            .await
            .expect("the command runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a task of an operator against the stack, and returns the printed answer.
    pub(crate) async fn ask(&self, arguments: &[&str]) -> Value {
        let output = local_command()
            .args(arguments)
            .args(["--sns-port", self.port("sns")])
            .output()
            .await
            .expect("the command runs");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The line of the next delivery.
    pub(crate) async fn says(&mut self) -> String {
        let said = tokio::time::timeout(Duration::from_secs(20), self.said.recv()).await;
        said.expect("a line in time").expect("the stack runs")
    }

    pub(crate) async fn end(mut self) {
        self.signal("-TERM").await;
        assert!(self.process.wait().await.expect("the process ends").success());
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.id().to_string()])
            .status()
            .await;
        assert!(sent.expect("kill").success());
    }
}

pub(crate) async fn get_text(url: &str) -> (u16, String) {
    let request = http::Request::get(url).body(bytes::Bytes::new()).expect("a request");
    let client = local::net::client::Client::new(url).expect("a client");
    let answer = client.send(request).await.expect("an answer");
    (
        answer.status().as_u16(),
        String::from_utf8_lossy(answer.body()).into_owned(),
    )
}

pub(crate) async fn get(url: &str) -> Value {
    serde_json::from_str(&get_text(url).await.1).expect("JSON")
}
