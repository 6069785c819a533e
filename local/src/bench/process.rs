//! A measured process: how long it takes to start and to answer, and what that costs.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::SignedDuration;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::aws::Aws;
use crate::Error;
use crate::lambda::environment::{Recipe, command};
use crate::lambda::runtime_api::{Invocation, Outcome, RuntimeApi};
use crate::lambda::{memory, processor_time};
use crate::project::settings::TUNABLES_NAME;

/// The longest wait. Even an interpreter on a busy machine starts in far less.
const PATIENCE: Duration = Duration::from_mins(1);
/// The timeout of a function, which must not affect what is measured.
const FUNCTION_TIMEOUT: Duration = Duration::from_mins(5);

/// What is measured: a function of this project, or a peer.
#[derive(Debug, Clone)]
pub struct Target {
    /// The name in the table.
    pub name: String,
    /// The function whose settings it gets.
    pub settings: String,
    /// Whether the template deploys it, with the variables that the template sets.
    pub is_deployed: bool,
    /// The program that is run.
    pub program: PathBuf,
    /// The arguments of the program.
    pub arguments: Vec<String>,
    /// Environment variables in addition to the settings.
    pub variables: Vec<(String, String)>,
    /// The event that it handles.
    pub event: Bytes,
    /// What its answer must contain, so that a failure is not measured.
    pub expected: &'static str,
}

/// A started process that has asked for its first event.
pub(super) struct Process {
    child: Child,
    api: RuntimeApi,
    name: String,
    expected: &'static str,
    count: u32,
    /// When the process was started.
    pub(super) started: Instant,
    /// When the process asked for its first event.
    pub(super) ready: Instant,
}

impl Target {
    /// Starts the process, behind the command `wrapper` (such as a tracer and its flags) if it is not empty.
    pub(super) async fn start(&self, aws: &Aws, wrapper: &[String]) -> Result<Process, Error> {
        let mut variables = aws.variables(&self.settings);
        if !self.is_deployed {
            // Only the template sets it.
            variables.remove(TUNABLES_NAME);
        }
        variables.extend(self.variables.iter().cloned());
        let (program, arguments) = match wrapper {
            [] => (self.program.clone(), self.arguments.clone()),
            [tracer, flags @ ..] => {
                let program = self.program.display().to_string();
                let arguments = flags
                    .iter()
                    .cloned()
                    .chain([program])
                    .chain(self.arguments.iter().cloned());
                (PathBuf::from(tracer), arguments.collect())
            }
        };
        let recipe = Recipe {
            name: self.settings.clone(),
            binary: program,
            variables,
            timeout: FUNCTION_TIMEOUT,
            clock_ahead: SignedDuration::ZERO,
        };
        let (ready_sender, ready) = oneshot::channel();
        let api = RuntimeApi::start(&self.settings, FUNCTION_TIMEOUT, recipe.clock_ahead, ready_sender).await?;
        let mut command = command(&recipe, "bench", &api);
        // Its log lines go nowhere: reading them is not part of its work on Lambda.
        command.args(arguments).stdout(Stdio::null());
        command.stderr(if wrapper.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        });
        let started = Instant::now();
        let mut child = command.spawn().map_err(|error| {
            fault(
                &self.name,
                format!("cannot be run ({}): {error}", recipe.binary.display()),
            )
        })?;
        tokio::select! {
            Ok(Ok(())) = timeout(PATIENCE, ready) => {}
            _ = child.wait() => return Err(fault(&self.name, "exited before it asked for an event".to_owned())),
            else => return Err(fault(&self.name, format!("did not ask for an event within {PATIENCE:?}"))),
        }
        let ready = Instant::now();
        Ok(Process {
            child,
            api,
            name: self.name.clone(),
            expected: self.expected,
            count: 0,
            started,
            ready,
        })
    }
}

impl Process {
    /// Lets the process handle an event. Returns when the answer arrived, and how long it took.
    pub(super) async fn invoke(&mut self, event: &Bytes) -> Result<(Instant, Duration), Error> {
        self.count += 1;
        let (taken, _taken) = oneshot::channel();
        let (sender, outcome) = oneshot::channel();
        let begun = Instant::now();
        self.api.invoke(Invocation {
            request_id: format!("00000000-0000-4000-8000-{:012}", self.count),
            event: event.clone(),
            trace_id: "Root=1-66fa8110-000000000000000000000000".to_owned(),
            taken,
            outcome: sender,
        });
        let outcome = tokio::select! {
            outcome = timeout(PATIENCE, outcome) => outcome,
            _ = self.child.wait() => return Err(fault(&self.name, "exited while it handled an event".to_owned())),
        };
        let ended = Instant::now();
        match outcome {
            Ok(Ok(Outcome::Returned(answer))) => {
                let answer = String::from_utf8_lossy(&answer);
                if answer.contains(self.expected) {
                    return Ok((ended, ended - begun));
                }
                Err(fault(&self.name, format!("answered {answer}")))
            }
            Ok(Ok(Outcome::Failed(error))) => {
                let error = String::from_utf8_lossy(&error).into_owned();
                Err(fault(&self.name, format!("failed: {error}")))
            }
            _ => Err(fault(&self.name, format!("did not answer within {PATIENCE:?}"))),
        }
    }

    /// The processor time of all threads so far; `None` if the system does not report it.
    pub(super) fn cpu(&self) -> Option<Duration> {
        processor_time::of(self.child.id()?)
    }

    /// The peak memory of the process in KiB; `None` if the system does not report it.
    pub(super) fn peak_memory(&self) -> Option<u64> {
        Some(memory::of(self.child.id()?)?.peak)
    }

    /// Kills the process and waits until it is gone.
    pub(super) async fn end(mut self) {
        let _ = self.child.start_kill();
        let _ = self.child.wait().await;
    }

    /// Closes the Runtime API, so that the process ends by itself, and returns what it wrote to standard error.
    pub(super) async fn close(self) -> Result<String, Error> {
        let Self { child, api, name, .. } = self;
        drop(api);
        match timeout(PATIENCE, child.wait_with_output()).await {
            Ok(Ok(output)) => Ok(String::from_utf8_lossy(&output.stderr).into_owned()),
            _ => Err(fault(&name, "did not exit".to_owned())),
        }
    }
}

pub(super) fn fault(name: &str, what: String) -> Error {
    Error::Function {
        name: name.to_owned(),
        what,
    }
}
