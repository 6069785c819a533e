//! The local stack, started and stopped as one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;
use serde_json::Value;
use tokio::task::JoinSet;

mod gateway;
mod gateway_event;

pub use self::gateway::DELIVERY;
use self::gateway::Gateway;
use crate::Error;
use crate::aws::clients::Clients;
use crate::aws::endpoints::{Endpoints, Holding};
use crate::aws::faults::FaultInjector;
use crate::aws::queue::Queue;
use crate::dashboard::{self, Dashboard};
use crate::lambda::environment::{Environments, Function, Recipe};
use crate::lambda::invoke_api::Functions;
use crate::net::server::{Port, Server};
use crate::net::wire::Wire;
use crate::project::build::{Binaries, workspace};
use crate::project::settings::{self, ORDER_APIS, RECONCILE, Urls};
use crate::project::{table, template};
use crate::providers::order_apis::OrderApis;
use crate::providers::snipcart::Snipcart;
use crate::recorder::log::Log;

/// The ports of the stack; 0 binds any free port.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ports {
    /// The port of the gateway.
    pub gateway: u16,
    /// The port of DynamoDB.
    pub dynamodb: u16,
    /// The port of SNS, SQS and Lambda.
    pub messages: u16,
    /// The port of the stand-ins for Snipcart and for the order APIs.
    pub snipcart: u16,
    /// A second port of the gateway, which does not serve the dashboard.
    pub tunnel: Option<u16>,
}

/// The configuration of a stack.
#[derive(Debug, Clone)]
pub struct Config {
    /// The ports.
    pub ports: Ports,
    /// The functions and their routes.
    pub functions: Vec<template::Function>,
    /// The binaries of the functions.
    pub binaries: Binaries,
    /// Environment variables of every function, in addition to the development settings.
    pub variables: BTreeMap<String, String>,
    /// Secrets by provider, which replace the development secrets.
    pub secrets: BTreeMap<String, Value>,
    /// The timeout of every function, instead of that of the template.
    pub timeout: Option<Duration>,
    /// How far the clock of API Gateway and Lambda is ahead of the functions' clock.
    pub clock_ahead: SignedDuration,
    /// The limit for the environments of one function.
    pub environments: usize,
    /// The time between two runs of the function `reconcile` for a provider; without it, the function runs only when it
    /// is invoked. In the template the schedules are off by default.
    pub reconcile_every: Option<Duration>,
    /// The host and port of an AWS emulator to use instead of the built-in ones.
    pub aws: Option<String>,
    /// The file of the table, which outlives the stack; without it the table is in memory.
    pub table: Option<PathBuf>,
    /// Whether the functions make their calls through proxies, whose connections can be damaged.
    pub wires: bool,
    /// The configuration of the dashboard, if it is served.
    pub dashboard: Option<dashboard::Config>,
    /// The log.
    pub log: Log,
}

impl Config {
    /// Creates a configuration with free ports and the development settings.
    pub fn new(functions: Vec<template::Function>, binaries: Binaries, log: Log) -> Self {
        Self {
            ports: Ports::default(),
            functions,
            binaries,
            variables: BTreeMap::new(),
            secrets: BTreeMap::new(),
            timeout: None,
            clock_ahead: SignedDuration::ZERO,
            environments: 10,
            reconcile_every: None,
            aws: None,
            table: None,
            wires: false,
            dashboard: None,
            log,
        }
    }
}

/// The proxies between the functions and the services that they call.
#[derive(Debug)]
pub struct Wires {
    /// The proxy before DynamoDB.
    pub dynamodb: Wire,
    /// The proxy before SNS and SQS.
    pub messages: Wire,
    /// The proxy before the stand-ins for Snipcart and for the order APIs.
    pub snipcart: Wire,
}

impl Wires {
    /// If `wanted`, starts a proxy before each server, and replaces the URLs of the servers.
    async fn before(urls: &mut Urls, snipcart: &Snipcart, wanted: bool) -> Result<Option<Self>, Error> {
        if !wanted {
            return Ok(None);
        }
        let wires = Self {
            dynamodb: Wire::to(&urls.dynamodb).await?,
            messages: Wire::to(&urls.messages).await?,
            snipcart: Wire::to(&snipcart.url()).await?,
        };
        wires.dynamodb.url().clone_into(&mut urls.dynamodb);
        wires.messages.url().clone_into(&mut urls.messages);
        wires.snipcart.url().clone_into(&mut urls.providers);
        Ok(Some(wires))
    }
}

/// A running stack, empty at first. Dropping it ends it; [`Stack::shutdown`] also waits until its processes are gone.
#[derive(Debug)]
pub struct Stack {
    gateway: Server,
    functions: Functions,
    scheduled: Vec<template::Function>,
    reconcile_every: Option<Duration>,
    endpoints: Endpoints,
    snipcart: Snipcart,
    wires: Option<Wires>,
    environments: Environments,
    tap: FaultInjector,
    clients: Clients,
    log: Log,
    /// The gateway without the dashboard, for a tunnel.
    tunnel: Option<Server>,
    /// Follows the deliveries as long as the stack runs.
    _following: JoinSet<()>,
}

impl Stack {
    /// Starts a stack.
    pub async fn start(config: Config) -> Result<Self, Error> {
        // All ports first, so that a port in use ends the start before anything else has begun.
        let gateway = Port::take(config.ports.gateway, "--port").await?;
        let dynamodb = Port::take(config.ports.dynamodb, "--dynamodb-port").await?;
        let messages = Port::take(config.ports.messages, "--sns-port").await?;
        let snipcart = Port::take(config.ports.snipcart, "--snipcart-port").await?;
        let tunnel = match config.ports.tunnel {
            Some(port) => Some(Port::take(port, "--tunnel-port").await?),
            None => None,
        };

        let environments = Environments::default();
        let tap = FaultInjector::new(environments.clone());
        let invoked = Functions::default();
        let recorder = config.dashboard.as_ref().map(|dashboard| dashboard.recorder.clone());
        let log = match &recorder {
            Some(recorder) => config.log.recording(recorder.clone()),
            None => config.log,
        };
        let holding = Holding {
            aws: config.aws,
            table: config.table,
            recorder: recorder.clone(),
        };
        let endpoints = Endpoints::start(dynamodb, messages, &tap, &invoked, holding).await?;
        let clients = Clients::new(&endpoints.dynamodb_url(), &endpoints.messages_url());
        clients
            .create(&table::read(&workspace().join("template.yaml"))?)
            .await?;
        let snipcart = Snipcart::start(snipcart);

        let mut urls = Urls {
            dynamodb: endpoints.dynamodb_url(),
            messages: endpoints.messages_url(),
            providers: snipcart.url(),
        };
        let wires = Wires::before(&mut urls, &snipcart, config.wires).await?;
        let (mut functions, mut secrets) = (Vec::new(), BTreeMap::new());
        for function in &config.functions {
            let recipe = Recipe {
                name: function.name.clone(),
                binary: config.binaries.get(&function.name)?.to_path_buf(),
                variables: variables(&function.name, &urls, &config.secrets, &config.variables),
                timeout: config.timeout.unwrap_or(function.timeout),
                clock_ahead: config.clock_ahead,
            };
            let secret = secret(&function.name, &config.secrets);
            secrets.extend(secret.map(|secret| (function.name.clone(), secret)));
            let function = Function::new(recipe, config.environments, environments.clone(), log.clone());
            functions.push(Arc::new(function));
        }
        invoked.set(functions.clone());
        let scheduled = config.functions.clone();
        let mut following = JoinSet::new();
        let mut dashboard = None;
        if let Some(shown) = config.dashboard {
            let made = Dashboard::new(
                shown,
                dashboard::Stack {
                    functions: invoked.clone(),
                    clients: Clients::new(&endpoints.table_url(), &endpoints.messages_url()),
                    tap: tap.clone(),
                    orders: snipcart.orders().clone(),
                    secrets,
                    gateway: gateway.address(),
                    tunnel: tunnel.as_ref().map(Port::address),
                },
            )?;
            following.spawn(made.clone().follow(log.clone()));
            dashboard = Some(made);
        }
        let routes = Arc::new(Gateway {
            routes: config.functions,
            functions,
            log: log.clone(),
            // Only where a person looks on: a load test must not pay for it.
            book: recorder.is_some().then(|| snipcart.orders().book().clone()),
            recorder,
            clock_ahead: config.clock_ahead,
        });
        let gateway = routes.serve(gateway, dashboard);
        let tunnel = tunnel.map(|port| routes.serve(port, None));
        Ok(Self {
            gateway,
            functions: invoked,
            scheduled,
            reconcile_every: config.reconcile_every,
            endpoints,
            snipcart,
            wires,
            environments,
            tap,
            clients,
            log,
            tunnel,
            _following: following,
        })
    }

    /// Starts one environment of each function, so that a function that cannot start is reported now and not at the
    /// first event.
    pub async fn warm(&self) {
        for function in self.functions.all() {
            function.warm().await;
        }
    }

    /// Invokes a function like Lambda does.
    pub async fn invoke(&self, function: &str, payload: &Value) -> Result<Value, Error> {
        self.functions.invoke(function, payload.to_string().into()).await
    }

    /// Invokes a function with any bytes.
    pub async fn invoke_with(&self, function: &str, payload: Bytes) -> Result<Value, Error> {
        self.functions.invoke(function, payload).await
    }

    /// Runs the schedules as long as this is polled.
    pub async fn run_schedules(&self) {
        let schedules = self.scheduled.iter().flat_map(|function| {
            let schedules = function.schedules.iter();
            schedules.map(|schedule| self.run_schedule(&function.name, schedule))
        });
        let reconciles = self.reconcile_every.iter().flat_map(|every| {
            ORDER_APIS.map(|provider| async move {
                let schedule = template::Schedule {
                    every: *every,
                    payload: format!(r#"{{"reconcile":{{"provider":"{provider}"}}}}"#),
                };
                self.run_schedule(RECONCILE, &schedule).await;
            })
        });
        let reconciles = futures_util::future::join_all(reconciles);
        futures_util::future::join(futures_util::future::join_all(schedules), reconciles).await;
        // Without schedules there is nothing to do, but the stack has not ended.
        std::future::pending::<()>().await;
    }

    async fn run_schedule(&self, function: &str, schedule: &template::Schedule) {
        loop {
            tokio::time::sleep(schedule.every).await;
            // The function, or its environment, has logged a failure.
            let _ = self.functions.invoke(function, schedule.payload.clone().into()).await;
        }
    }

    /// The URL of the gateway.
    pub fn url(&self) -> String {
        self.gateway.url()
    }

    /// The URL that serves only the routes, if there is one.
    pub fn tunnel_url(&self) -> Option<String> {
        self.tunnel.as_ref().map(Server::url)
    }

    /// The AWS endpoints.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The stand-in for Snipcart.
    pub fn snipcart(&self) -> &Snipcart {
        &self.snipcart
    }

    /// The stand-ins for the order APIs.
    pub fn order_apis(&self) -> &OrderApis {
        self.snipcart.orders()
    }

    /// The proxies that the functions call through, if there are any.
    pub fn wires(&self) -> Option<&Wires> {
        self.wires.as_ref()
    }

    /// The fault injector of the AWS endpoints.
    pub fn tap(&self) -> &FaultInjector {
        &self.tap
    }

    /// The clients for the table, the topic and the queue.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// The queue that is subscribed to the topic.
    pub fn queue(&self) -> Queue {
        Queue::new(self.clients.sqs.clone(), &self.endpoints.messages_url())
    }

    /// The execution environments of the functions.
    pub fn environments(&self) -> &Environments {
        &self.environments
    }

    /// The log so far, if it is in memory.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Ends the stack, and returns once all its processes are gone.
    pub async fn shutdown(self) {
        self.gateway.stop().await;
        if let Some(tunnel) = self.tunnel {
            tunnel.stop().await;
        }
        self.environments.kill_all().await;
    }
}

/// The secret of a function: the given one, or that of development.
fn secret(function: &str, given: &BTreeMap<String, Value>) -> Option<Value> {
    let given = given.get(function).cloned();
    given.or_else(|| settings::secret(function))
}

/// The environment variables of a function, of which `more` take precedence.
fn variables(
    function: &str,
    urls: &Urls,
    secrets: &BTreeMap<String, Value>,
    more: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut variables = settings::variables(function, urls);
    variables.extend(secret(function, secrets).map(|secret| ("SECRETS".to_owned(), secret.to_string())));
    if function == RECONCILE {
        for provider in ORDER_APIS {
            let secret = secret(provider, secrets).map(|secret| secret.to_string());
            variables.extend(secret.map(|secret| (settings::secret_variable(provider), secret)));
        }
    }
    variables.extend(more.clone());
    variables
}
