//! The execution environments of a function: its real binary as child processes, each with one event at a time, as on
//! Lambda.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

use crate::lambda::runtime_api::{Invocation, Outcome, RuntimeApi};
use crate::recorder::log::Log;
use crate::{Error, lock};

/// How long an environment may take to start. This is Lambda's limit.
const START_LIMIT: Duration = Duration::from_secs(10);

/// What an environment is started with.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The name of the function.
    pub name: String,
    /// The path of the binary.
    pub binary: PathBuf,
    /// The environment variables.
    pub variables: BTreeMap<String, String>,
    /// How long the function may take for one event.
    pub timeout: Duration,
    /// How far Lambda's clock is ahead of this machine's clock.
    pub clock_ahead: SignedDuration,
}

/// The result of an invocation.
#[derive(Debug)]
pub enum Invoked {
    /// The function returned this JSON.
    Returned(Bytes),
    /// The function reported an error: JSON with `errorType` and `errorMessage`.
    Reported(Bytes),
    /// The process ended or could not be started.
    Failed,
    /// The function exceeded its timeout, and was killed.
    TimedOut,
}

impl Invoked {
    /// Whether the process goes on and can take another event.
    fn keeps_the_process(&self) -> bool {
        matches!(self, Self::Returned(_) | Self::Reported(_))
    }
}

/// All environments by their id, so that the one that made a call can be killed.
#[derive(Debug, Clone, Default)]
pub struct Environments(Arc<Mutex<HashMap<String, Handle>>>);

impl Environments {
    /// Kills the environment `id`, if there is one, and waits until it is gone.
    pub async fn kill(&self, id: &str) {
        let handle = lock(&self.0).get(id).cloned();
        if let Some(handle) = handle {
            handle.kill().await;
        }
    }

    /// Kills all environments and waits until they are gone.
    pub async fn kill_all(&self) {
        let handles: Vec<Handle> = lock(&self.0).values().cloned().collect();
        for handle in &handles {
            handle.kill.notify_one();
        }
        for handle in handles {
            handle.kill().await;
        }
    }

    /// The process ids of a function's environments.
    pub fn pids(&self, function: &str) -> Vec<u32> {
        let environments = lock(&self.0);
        let of_function = environments
            .values()
            .filter(|environment| environment.function == function);
        of_function.filter_map(|environment| environment.pid).collect()
    }

    /// The number of running environments.
    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }
}

/// Ends an environment, and tells when it has ended.
#[derive(Debug, Clone)]
struct Handle {
    function: String,
    pid: Option<u32>,
    kill: Arc<Notify>,
    exit: watch::Receiver<Option<String>>,
}

impl Handle {
    async fn kill(mut self) {
        self.kill.notify_one();
        // An error means that the watching task is gone, and with it the process.
        let _ = self.exit.wait_for(Option::is_some).await;
    }

    /// How the process ended. Waits until it has.
    async fn exit(&mut self) -> String {
        match self.exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_default(),
            Err(_) => "ended".to_owned(),
        }
    }
}

/// A function: its idle environments, and the room for more.
#[derive(Debug)]
pub struct Function {
    recipe: Recipe,
    idle: Mutex<Vec<Environment>>,
    room: Semaphore,
    environments: Environments,
    log: Log,
}

impl Function {
    /// Creates a function with at most `most` environments, each of which is started when it is needed.
    pub fn new(recipe: Recipe, most: usize, environments: Environments, log: Log) -> Self {
        Self {
            recipe,
            idle: Mutex::default(),
            room: Semaphore::new(most),
            environments,
            log,
        }
    }

    /// The name of the function.
    pub fn name(&self) -> &str {
        &self.recipe.name
    }

    /// Starts an environment before the first event, so that a function that cannot start is noticed at once.
    pub async fn warm(&self) {
        if let Some(environment) = self.environment().await {
            lock(&self.idle).push(environment);
        }
    }

    /// Handles an event in an idle environment or a new one; without room, waits until another event is done.
    pub async fn invoke(&self, request_id: &str, trace_id: &str, event: Bytes) -> Invoked {
        let Ok(_room) = self.room.acquire().await else {
            return Invoked::Failed;
        };
        let Some(mut environment) = self.environment().await else {
            return Invoked::Failed;
        };
        let invoked = self.run(&mut environment, request_id, trace_id, event).await;
        if invoked.keeps_the_process() {
            lock(&self.idle).push(environment);
        }
        invoked
    }

    async fn environment(&self) -> Option<Environment> {
        let waiting = std::iter::from_fn(|| lock(&self.idle).pop()).find(Environment::is_alive);
        match waiting {
            Some(environment) => Some(environment),
            None => match Environment::start(&self.recipe, &self.environments, &self.log).await {
                Ok(environment) => Some(environment),
                Err(error) => {
                    self.log.notice(&error.to_string());
                    None
                }
            },
        }
    }

    async fn run(&self, environment: &mut Environment, request_id: &str, trace_id: &str, event: Bytes) -> Invoked {
        let name = self.name();
        let (taken_sender, taken) = oneshot::channel();
        let (outcome_sender, outcome) = oneshot::channel();
        environment.api.invoke(Invocation {
            request_id: request_id.to_owned(),
            event,
            trace_id: trace_id.to_owned(),
            taken: taken_sender,
            outcome: outcome_sender,
        });
        let mut handle = environment.handle.clone();
        let answer = async {
            // The timeout runs from when the function takes the event. A process that hangs between two events never
            // takes it, so the wait for that is limited too.
            let _ = tokio::time::timeout(self.recipe.timeout, taken).await?;
            tokio::time::timeout(self.recipe.timeout, outcome).await
        };
        tokio::select! {
            answer = answer => match answer {
                Ok(Ok(Outcome::Returned(answer))) => Invoked::Returned(answer),
                Ok(Ok(Outcome::Failed(error))) => {
                    self.log.notice(&format!("{name} failed: {}", String::from_utf8_lossy(&error)));
                    Invoked::Reported(error)
                }
                Ok(Err(_)) => Invoked::Failed,
                Err(_) => {
                    environment.handle.clone().kill().await;
                    self.log.notice(&format!(
                        "{name} was killed at its timeout of {:?}. Its last log lines are above.",
                        self.recipe.timeout
                    ));
                    Invoked::TimedOut
                }
            },
            exit = handle.exit() => {
                self.log.notice(&format!("{name} {exit} while it handled an event. Its last log lines are above; the next event starts it again."));
                Invoked::Failed
            }
        }
    }
}

/// A running process and its Runtime API. Dropping it kills the process.
#[derive(Debug)]
struct Environment {
    api: RuntimeApi,
    handle: Handle,
}

impl Environment {
    async fn start(recipe: &Recipe, environments: &Environments, log: &Log) -> Result<Self, Error> {
        let fault = |what: String| Error::Function {
            name: recipe.name.clone(),
            what,
        };
        let (ready_sender, ready) = oneshot::channel();
        let api = RuntimeApi::start(&recipe.name, recipe.timeout, recipe.clock_ahead, ready_sender).await?;
        let id = format!("{}-{}", recipe.name, uuid::Uuid::new_v4().simple());
        let mut child = command(recipe, &id, &api)
            .spawn()
            .map_err(|error| fault(format!("cannot be started from {}: {error}", recipe.binary.display())))?;
        let lines = [
            child
                .stdout
                .take()
                .map(|output| forward(output, recipe.name.clone(), log.clone())),
            child
                .stderr
                .take()
                .map(|output| forward(output, recipe.name.clone(), log.clone())),
        ];
        let (exit_sender, exit) = watch::channel(None);
        let kill = Arc::new(Notify::new());
        let handle = Handle {
            function: recipe.name.clone(),
            pid: child.id(),
            kill: Arc::clone(&kill),
            exit,
        };
        lock(&environments.0).insert(id.clone(), handle.clone());
        let registry = environments.clone();
        tokio::spawn(async move {
            let exit = watch_over(child, &kill).await;
            // The last lines of the process come before the notice that it has ended.
            for output in lines.into_iter().flatten() {
                let _ = output.await;
            }
            lock(&registry.0).remove(&id);
            exit_sender.send_replace(Some(exit));
        });
        let environment = Self { api, handle };

        let mut ended = environment.handle.clone();
        tokio::select! {
            Ok(()) = ready => Ok(environment),
            exit = ended.exit() => Err(fault(format!(
                "{exit} before it asked for an event. Its last log lines are above."
            ))),
            () = tokio::time::sleep(START_LIMIT) => Err(fault(format!(
                "did not ask for an event within {START_LIMIT:?}, Lambda's limit for a start, and was killed."
            ))),
        }
    }

    fn is_alive(&self) -> bool {
        self.handle.exit.borrow().is_none()
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        self.handle.kill.notify_one();
    }
}

/// The command that starts an environment. `id` is its log stream and its session token.
pub(crate) fn command(recipe: &Recipe, id: &str, api: &RuntimeApi) -> Command {
    let mut command = Command::new(&recipe.binary);
    command
        // Nothing of the developer's own AWS settings may reach a function.
        .env_clear()
        .envs(
            ["RUST_BACKTRACE", "RUST_LOG"]
                .into_iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("TZ", ":UTC")
        .env("AWS_LAMBDA_RUNTIME_API", api.address().to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", &recipe.name)
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", recipe.name))
        .env("AWS_LAMBDA_LOG_STREAM_NAME", id)
        .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        // Every call to AWS carries it, which tells the endpoints which environment calls.
        .env("AWS_SESSION_TOKEN", id)
        .envs(&recipe.variables)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A Ctrl-C in the terminal is for the stack, which then ends its children in order.
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Waits until the process ends by itself or is killed, and returns how it ended.
async fn watch_over(mut child: Child, kill: &Notify) -> String {
    let status = tokio::select! {
        status = child.wait() => status,
        () = kill.notified() => {
            let _ = child.start_kill();
            child.wait().await
        }
    };
    match status {
        Ok(status) => format!("exited ({status})"),
        Err(error) => format!("cannot be watched ({error})"),
    }
}

fn forward(output: impl AsyncRead + Unpin + Send + 'static, name: String, log: Log) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            log.function(&name, &String::from_utf8_lossy(&line));
        }
    })
}
