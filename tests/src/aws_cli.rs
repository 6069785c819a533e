//! A stand-in for the AWS CLI: a program `aws` that takes the arguments of the real one, and uses the queue of a stack
//! in place of SQS.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use local::net::server::{Port, Server};
use serde_json::json;
use tempfile::TempDir;

use crate::Stack;

/// The exit codes of the AWS CLI: the arguments are wrong, or the service has refused the call.
const USAGE: u8 = 252;
const REFUSED: u8 = 254;

/// Sends its arguments, one a line, and prints the answer: the exit code in the first line, then the output.
const PROGRAM: &str = r#"#!/bin/bash
LC_ALL=C
arguments=$(printf '%s\n' "$@")
exec 3<>/dev/tcp/127.0.0.1/PORT
printf 'POST / HTTP/1.1\r\nHost: aws\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' \
    "${#arguments}" "$arguments" >&3
while IFS= read -r line <&3 && [ "$line" != $'\r' ]; do :; done
IFS= read -r code <&3
if [ "$code" = 0 ]; then cat <&3; else cat <&3 >&2; fi
exit "$code"
"#;

/// The stand-in. Its program is removed when this is dropped.
pub struct AwsCli {
    folder: TempDir,
    calls: Arc<Mutex<Vec<String>>>,
    _server: Server,
}

impl AwsCli {
    /// Installs a program that uses the queue of the stack in place of the queue `url` in the region `region`. Like the
    /// real one without a configuration, it needs `--region`.
    ///
    /// # Panics
    /// If the program cannot be written.
    pub async fn for_queue(stack: &Stack, url: &'static str, region: &'static str) -> Self {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (seen, sqs) = (Arc::clone(&calls), stack.clients().sqs.clone());
        let queue = Queue {
            url,
            region,
            stands_for: stack.queue().url().to_owned(),
        };
        let port = Port::take(0, "").await.expect("a port");
        let server = port.serve(1_000_000, move |request, _| {
            let said = String::from_utf8_lossy(request.body()).into_owned();
            let arguments: Vec<String> = said.split('\n').map(str::to_owned).collect();
            let operation = arguments.get(1).cloned().unwrap_or_default();
            seen.lock().expect("not poisoned").push(operation);
            let (queue, sqs) = (queue.clone(), sqs.clone());
            async move {
                let (code, output) = match queue.call(&sqs, &arguments).await {
                    Ok(output) => (0, output),
                    Err((code, output)) => (code, output),
                };
                Some(Response::new(Bytes::from(format!("{code}\n{output}"))))
            }
        });
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("aws");
        let text = PROGRAM.replace("PORT", &server.address().port().to_string());
        fs::write(&program, text).expect("the program is written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("the program is executable");
        Self {
            folder,
            calls,
            _server: server,
        }
    }

    /// A `PATH` on which the stand-in comes first.
    ///
    /// # Panics
    /// If the `PATH` of this process cannot be read.
    pub fn path(&self) -> OsString {
        let path = std::env::var_os("PATH").expect("a PATH");
        let folders = [self.folder.path().to_owned()].into_iter();
        std::env::join_paths(folders.chain(std::env::split_paths(&path))).expect("a PATH")
    }

    /// The number of calls of each operation so far.
    ///
    /// # Panics
    /// If a call has panicked.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for operation in self.calls.lock().expect("not poisoned").iter() {
            *calls.entry(operation.clone()).or_default() += 1;
        }
        calls
    }
}

/// The queue that the stand-in knows.
#[derive(Clone)]
struct Queue {
    url: &'static str,
    region: &'static str,
    stands_for: String,
}

/// An exit code, and what the program prints.
type Failed = (u8, String);

impl Queue {
    /// Carries out a command. Returns what the program prints.
    async fn call(&self, sqs: &aws_sdk_sqs::Client, arguments: &[String]) -> Result<String, Failed> {
        let usage = |what: &str| (USAGE, format!("\nUnknown options: {what}\n"));
        let [service, operation, options @ ..] = arguments else {
            return Err(usage("too few arguments"));
        };
        if service != "sqs" {
            return Err(usage(service));
        }
        let of_operation = match operation.as_str() {
            "send-message" => "--message-body",
            "get-queue-attributes" => "--attribute-names",
            "purge-queue" => "",
            _ => return Err(usage(operation)),
        };
        let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut name = "";
        for option in options {
            if option.starts_with("--") {
                name = option;
                if !["--queue-url", "--output", "--region", of_operation].contains(&name) {
                    return Err(usage(name));
                }
                values.insert(name, Vec::new());
            } else {
                values.entry(name).or_default().push(option);
            }
        }
        let one = |name: &str| match values.get(name).map(Vec::as_slice) {
            Some([value]) => Ok(*value),
            _ => Err(usage(name)),
        };
        if one("--output")? != "json" {
            return Err(usage("--output"));
        }
        let region = one("--region").map_err(|_| {
            let text = "You must specify a region. You can also configure your region by running \"aws configure\".";
            (USAGE + 1, format!("\n{text}\n"))
        })?;
        if (one("--queue-url")?, region) != (self.url, self.region) {
            let text =
                "An error occurred (AWS.SimpleQueueService.NonExistentQueue): The specified queue does not exist.";
            return Err((REFUSED, format!("\n{text}\n")));
        }
        let queue = &self.stands_for;
        let refused = |error: String| (REFUSED, error);
        match operation.as_str() {
            "send-message" => {
                let message = sqs.send_message().queue_url(queue).message_body(one("--message-body")?);
                let sent = message.send().await.map_err(|error| refused(error.to_string()))?;
                Ok(json!({"MessageId": sent.message_id()}).to_string())
            }
            "get-queue-attributes" => {
                let mut get = sqs.get_queue_attributes().queue_url(queue);
                for name in &values["--attribute-names"] {
                    get = get.attribute_names((*name).into());
                }
                let got = get.send().await.map_err(|error| refused(error.to_string()))?;
                let attributes = got.attributes().into_iter().flatten();
                let attributes: BTreeMap<_, _> = attributes.map(|(name, value)| (name.as_str(), value)).collect();
                Ok(json!({"Attributes": attributes}).to_string())
            }
            _ => {
                let purge = sqs.purge_queue().queue_url(queue).send();
                purge.await.map_err(|error| refused(error.to_string()))?;
                Ok(String::new())
            }
        }
    }
}
