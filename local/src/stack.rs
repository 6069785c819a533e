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
use crate::project::settings::{self, Urls};
use crate::project::{table, template};
use crate::providers::snipcart::Snipcart;
use crate::recorder::log::Log;

/// The ports; 0 is any free one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ports {
    /// The gateway.
    pub gateway: u16,
    /// DynamoDB.
    pub dynamodb: u16,
    /// SNS and SQS.
    pub messages: u16,
    /// The stand-in for Snipcart.
    pub snipcart: u16,
    /// The gateway once more, without the live view.
    pub tunnel: Option<u16>,
}

/// How a stack is to be.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its ports.
    pub ports: Ports,
    /// Its functions and their routes.
    pub functions: Vec<template::Function>,
    /// The functions' binaries.
    pub binaries: Binaries,
    /// Environment variables of every function, over the development settings.
    pub variables: BTreeMap<String, String>,
    /// Secrets by provider, in place of the development settings'.
    pub secrets: BTreeMap<String, Value>,
    /// The functions' timeout, in place of the template's.
    pub timeout: Option<Duration>,
    /// How far the clock of API Gateway and Lambda is ahead of the functions': a wrong clock on their machine.
    pub clock_ahead: SignedDuration,
    /// The most environments of one function.
    pub environments: usize,
    /// Host and port of an emulator of AWS in place of the built-in ones.
    pub aws: Option<String>,
    /// The file of the table, which outlives the stack; else it is in memory.
    pub table: Option<PathBuf>,
    /// Whether the functions make their calls through proxies, whose connections can be damaged.
    pub wires: bool,
    /// The live view, if there is to be one.
    pub dashboard: Option<dashboard::Config>,
    /// Where it says what happens.
    pub log: Log,
}

impl Config {
    /// On free ports, with the development settings.
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
            aws: None,
            table: None,
            wires: false,
            dashboard: None,
            log,
        }
    }
}

/// The proxies between the functions and what they call.
#[derive(Debug)]
pub struct Wires {
    /// Before DynamoDB.
    pub dynamodb: Wire,
    /// Before SNS and SQS.
    pub messages: Wire,
    /// Before the stand-in for Snipcart.
    pub snipcart: Wire,
}

impl Wires {
    /// Puts a proxy before each server, and its URL in the place of the server's, if they are `wanted`.
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
        urls.snipcart_api = Snipcart::api_url_of(wires.snipcart.url());
        Ok(Some(wires))
    }
}

/// A running stack, empty at first. Dropping it ends it; [`Stack::shutdown`] also waits until its processes are gone.
#[derive(Debug)]
pub struct Stack {
    gateway: Server,
    functions: Functions,
    scheduled: Vec<template::Function>,
    endpoints: Endpoints,
    snipcart: Snipcart,
    wires: Option<Wires>,
    environments: Environments,
    tap: FaultInjector,
    clients: Clients,
    log: Log,
    /// The gateway once more, for a tunnel: the routes and nothing else.
    tunnel: Option<Server>,
    /// Goes on for as long as this does.
    _following: JoinSet<()>,
}

impl Stack {
    /// Starts it.
    pub async fn start(config: Config) -> Result<Self, Error> {
        // All ports first: one that is in use ends the start before anything else has begun.
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
            snipcart_api: snipcart.api_url(),
        };
        let wires = Wires::before(&mut urls, &snipcart, config.wires).await?;
        let mut functions = Vec::new();
        let mut secrets = BTreeMap::new();
        for function in &config.functions {
            let mut variables = settings::variables(&function.name, &urls);
            if let Some(secret) = config
                .secrets
                .get(&function.name)
                .cloned()
                .or_else(|| settings::secret(&function.name))
            {
                variables.insert("SECRETS".to_owned(), secret.to_string());
                secrets.insert(function.name.clone(), secret);
            }
            variables.extend(config.variables.clone());
            let recipe = Recipe {
                name: function.name.clone(),
                binary: config.binaries.get(&function.name)?.to_path_buf(),
                variables,
                timeout: config.timeout.unwrap_or(function.timeout),
                clock_ahead: config.clock_ahead,
            };
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
            recorder,
            clock_ahead: config.clock_ahead,
        });
        let gateway = routes.serve(gateway, dashboard);
        let tunnel = tunnel.map(|port| routes.serve(port, None));
        Ok(Self {
            gateway,
            functions: invoked,
            scheduled,
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

    /// Starts one environment of each function, so that one that cannot start says so now and not at the first event.
    pub async fn warm(&self) {
        for function in self.functions.all() {
            function.warm().await;
        }
    }

    /// Invokes a function, as Lambda does when it is asked to.
    pub async fn invoke(&self, function: &str, payload: &Value) -> Result<Value, Error> {
        self.functions.invoke(function, payload.to_string().into()).await
    }

    /// Invokes a function with bytes that need not be a document that can be made here.
    pub async fn invoke_with(&self, function: &str, payload: Bytes) -> Result<Value, Error> {
        self.functions.invoke(function, payload).await
    }

    /// Invokes what is to be invoked regularly, for as long as this is polled.
    pub async fn run_schedules(&self) {
        let schedules = self.scheduled.iter().flat_map(|function| {
            let schedules = function.schedules.iter();
            schedules.map(|schedule| self.run_schedule(&function.name, schedule))
        });
        futures_util::future::join_all(schedules).await;
        // A stack without schedules has nothing to do here, and is not at its end.
        std::future::pending::<()>().await;
    }

    async fn run_schedule(&self, function: &str, schedule: &template::Schedule) {
        loop {
            tokio::time::sleep(schedule.every).await;
            // What went wrong has been said by the function, or by the environment that it ran in.
            let _ = self.functions.invoke(function, schedule.payload.clone().into()).await;
        }
    }

    /// The gateway's URL.
    pub fn url(&self) -> String {
        self.gateway.url()
    }

    /// The URL that only the routes are served at, if there is one.
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

    /// The proxies that the functions call through, if there are any.
    pub fn wires(&self) -> Option<&Wires> {
        self.wires.as_ref()
    }

    /// The tap on the AWS endpoints.
    pub fn tap(&self) -> &FaultInjector {
        &self.tap
    }

    /// Clients for table, topic and queue.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// The queue that is subscribed to the topic.
    pub fn queue(&self) -> Queue {
        Queue::new(self.clients.sqs.clone(), &self.endpoints.messages_url())
    }

    /// The functions' processes.
    pub fn environments(&self) -> &Environments {
        &self.environments
    }

    /// What it has said so far, if its log is in memory.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Ends it, and returns when no process of it is left.
    pub async fn shutdown(self) {
        self.gateway.stop().await;
        if let Some(tunnel) = self.tunnel {
            tunnel.stop().await;
        }
        self.environments.kill_all().await;
    }
}
