//! `cargo local up`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use local::Error;
use local::dashboard;
use local::project::build::{Binaries, Output, workspace};
use local::project::data_dir::Data;
use local::project::settings::{self, AWS_KEY, ORDER_APIS};
use local::project::template;
use local::providers::samples::{Catalogue, Fixture};
use local::providers::signing::{Credentials, sign};
use local::recorder::Recorder;
use local::recorder::log::{Deliveries, Functions, Log, Terminal};
use local::recorder::redaction::Redactor;
use local::stack::{Config, Ports, Stack};
use local::{NAME, REGION, TOPIC_ARN};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::signal::unix::{SignalKind, signal};

use super::args;

/// The flags of `cargo local up`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    ports: args::Ports,
    /// The port of the stand-ins for Snipcart and for the order APIs
    #[arg(long, default_value_t = 9001)]
    snipcart_port: u16,
    /// The minutes between two runs of reconcile for a provider; 0 runs it only by `cargo local reconcile`
    #[arg(long, value_name = "MINUTES", default_value_t = 10)]
    reconcile_every: u16,
    /// The limit for the processes of one function
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    environments: u16,
    /// The timeout of the functions in seconds [default: that of the template]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=900))]
    timeout: Option<u16>,
    /// Run no schedules: only `cargo local redrive` publishes the events of the outbox, and only `cargo local
    /// reconcile` looks for missing orders
    #[arg(long)]
    no_schedule: bool,
    /// A port for a tunnel, which serves the routes but not the dashboard
    #[arg(long, value_name = "PORT")]
    tunnel_port: Option<u16>,
    /// A file of real secrets: a JSON object of each provider's secret, as in Secrets Manager; deliveries of a provider
    /// that is missing are refused
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,
    /// Keep the table and the list of deliveries in this folder over restarts; it then holds personal data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write all addresses to this file as JSON, once everything listens
    #[arg(long, value_name = "FILE")]
    endpoints_file: Option<PathBuf>,
    /// `PublishState`: publish the state of an order after each of its events
    #[arg(long)]
    publish_state: bool,
    /// `AutoResubscribe`: subscribe again to the events of a shop after a subscription has ended
    #[arg(long)]
    auto_resubscribe: bool,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    said: Said,
}

/// Parameters of the template.
#[derive(Debug, Clone, Copy, Args)]
struct Limits {
    /// `OrderRetentionDays`; 0 keeps published events forever
    #[arg(long = "order-retention-days", value_name = "DAYS", default_value_t = 0)]
    order_retention: u16,
    /// `UnpublishedRetentionDays`; 0 keeps quarantined and unsupported deliveries forever
    #[arg(long = "unpublished-retention-days", value_name = "DAYS", default_value_t = 0)]
    unpublished_retention: u16,
    /// `DeduplicationDays`
    #[arg(long = "deduplication-days", value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(3..))]
    deduplication: u16,
}

impl Limits {
    fn variables(self) -> [(String, String); 3] {
        [
            ("ORDER_RETENTION_DAYS", self.order_retention),
            ("UNPUBLISHED_RETENTION_DAYS", self.unpublished_retention),
            ("DEDUPLICATION_DAYS", self.deduplication),
        ]
        .map(|(name, days)| (name.to_owned(), days.to_string()))
    }
}

/// What the terminal shows.
#[derive(Debug, Clone, Copy, Args)]
struct Said {
    /// Print each delivery as a line of JSON, and nothing else on standard output
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print neither deliveries nor log lines of the functions
    #[arg(long)]
    quiet: bool,
    /// Print all log lines of the functions
    #[arg(long, conflicts_with = "quiet")]
    verbose: bool,
}

impl Said {
    fn terminal(self) -> Terminal {
        Terminal {
            deliveries: match (self.json, self.quiet) {
                (true, _) => Deliveries::Json,
                (_, true) => Deliveries::Quiet,
                _ => Deliveries::Line,
            },
            functions: match (self.verbose, self.quiet) {
                (true, _) => Functions::All,
                (_, true) => Functions::Quiet,
                _ => Functions::Faults,
            },
        }
    }
}

/// Builds, starts, describes the stack, and waits for the end.
pub(crate) async fn up(options: Options) -> Result<(), Error> {
    let root = workspace();
    let functions = template::read(&root.join("template.yaml"))?;
    let catalogue = Catalogue::read(root.join("events"))?;
    let names: Vec<&str> = functions.iter().map(|function| function.name.as_str()).collect();
    let secrets = match &options.secrets {
        Some(file) => settings::secrets_in(file, &names)?,
        None => settings::secrets(names),
    };
    if let Some(file) = &options.endpoints_file {
        // The addresses in a file of an earlier run are no longer valid.
        remove(file)?;
    }
    eprintln!("Building the functions...");
    let binaries = Binaries::build(&root, Output::Progress)?;
    let requests = requests(&binaries, &functions)?;

    let recorder = Recorder::new(Redactor::new(secrets.values()));
    let mut config = Config::new(functions.clone(), binaries, Log::terminal(options.said.terminal()));
    // Locked until the end.
    let _data = match &options.data {
        Some(folder) => {
            let data = Data::open(folder)?;
            recorder.keep_in(&data.deliveries())?;
            config.table = Some(data.table());
            Some(data)
        }
        None => None,
    };
    config.dashboard = Some(dashboard::Config {
        recorder,
        catalogue: catalogue.clone(),
        secrets: match &options.secrets {
            Some(_) => dashboard::Secrets::Given,
            None => dashboard::Secrets::Development,
        },
    });
    if options.secrets.is_some()
        && secrets["snipcart"]["shops"]
            .as_object()
            .is_some_and(|shops| !shops.is_empty())
    {
        let real = (
            settings::SNIPCART_API_URL_NAME.to_owned(),
            settings::SNIPCART_API_URL.to_owned(),
        );
        config.variables.extend([real]);
    }
    if options.secrets.is_some() {
        // The APIs are those that the secrets name.
        for provider in ORDER_APIS.into_iter().filter(|provider| *provider != "snipcart") {
            let variable = settings::order_api_variable(provider);
            config.variables.insert(variable, String::new());
        }
    }
    let every = Duration::from_mins(options.reconcile_every.into());
    config.reconcile_every = (!every.is_zero()).then_some(every);
    config.variables.extend(options.limits.variables());
    if options.auto_resubscribe {
        let name = settings::AUTO_RESUBSCRIBE_NAME.to_owned();
        config.variables.insert(name, "true".to_owned());
    }
    config.secrets = secrets;
    config.environments = usize::from(options.environments);
    if options.publish_state {
        config.variables.insert("PUBLISH_STATE".to_owned(), "true".to_owned());
    }
    config.timeout = options.timeout.map(|seconds| Duration::from_secs(seconds.into()));
    config.ports = Ports {
        gateway: options.ports.port,
        dynamodb: options.ports.dynamodb_port,
        messages: options.ports.sns_port,
        snipcart: options.snipcart_port,
        tunnel: options.tunnel_port,
    };
    let stack = Stack::start(config).await?;
    let ended = ended()?;
    stack.warm().await;
    if let Some(file) = &options.endpoints_file {
        write_endpoints(&stack, file)?;
    }
    let description = description(&stack, &functions, &catalogue, &requests, options.secrets.as_deref())?;
    if options.said.json {
        // Standard output is for programs then.
        eprint!("{description}");
    } else {
        print!("{description}");
    }
    tokio::select! {
        () = ended => {}
        () = stack.run_schedules(), if !options.no_schedule => {}
    }
    eprintln!("Stopping.");
    stack.shutdown().await;
    Ok(())
}

fn remove(file: &Path) -> Result<(), Error> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unwritten(file, &error)),
        _ => Ok(()),
    }
}

/// Writes the addresses to `file` in one step, so that whoever waits for the file never reads a part of it.
fn write_endpoints(stack: &Stack, file: &Path) -> Result<(), Error> {
    let messages = stack.endpoints().messages_url();
    let endpoints = json!({
        "gateway": stack.url(),
        "tunnel": stack.tunnel_url(),
        "dynamodb": stack.endpoints().dynamodb_url(),
        "sns": messages,
        "sqs": messages,
        "lambda": messages,
        "snipcart_api": stack.snipcart().api_url(),
        "region": REGION,
        "table": NAME,
        "topic_arn": TOPIC_ARN,
        "queue_url": stack.queue().url(),
    });
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut new = NamedTempFile::new_in(folder).map_err(|error| unwritten(file, &error))?;
    writeln!(new, "{endpoints:#}").map_err(|error| unwritten(file, &error))?;
    new.persist(file).map_err(|error| unwritten(file, &error.error))?;
    Ok(())
}

fn unwritten(file: &Path, error: &std::io::Error) -> Error {
    Error::Start(format!("{} cannot be written: {error}", file.display()))
}

/// Waits for Ctrl-C, `kill`, or the end of the terminal.
fn ended() -> Result<impl Future<Output = ()>, Error> {
    let listen = |kind| signal(kind).map_err(|error| Error::Start(error.to_string()));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

fn description(
    stack: &Stack,
    functions: &[template::Function],
    catalogue: &Catalogue,
    requests: &Path,
    secrets: Option<&Path>,
) -> Result<String, Error> {
    let (url, endpoints) = (stack.url(), stack.endpoints());
    let (dynamodb, messages) = (endpoints.dynamodb_url(), endpoints.messages_url());
    let mut text = format!("\nDashboard: {url}/\n\nRoutes\n");
    let routes = functions.iter().flat_map(|function| &function.routes);
    // A route with a greedy parameter adds nothing here.
    for route in routes.filter(|route| !route.path.ends_with("+}")) {
        let _ = writeln!(text, "  {} {url}{}", route.method, route.path);
    }
    let _ = write!(
        text,
        "
AWS endpoints (the table, the topic and the subscribed queue {NAME}, and Lambda)
  export AWS_ENDPOINT_URL_DYNAMODB={dynamodb}
  export AWS_ENDPOINT_URL_SNS={messages}
  export AWS_ENDPOINT_URL_SQS={messages}
  export AWS_ENDPOINT_URL_LAMBDA={messages}
  export AWS_REGION={REGION} AWS_ACCESS_KEY_ID={AWS_KEY} AWS_SECRET_ACCESS_KEY={AWS_KEY}
  topic {TOPIC_ARN}
  queue {queue}

Snipcart's validation call: {snipcart}
",
        queue = stack.queue().url(),
        snipcart = stack.snipcart().api_url(),
    );
    if let Some(url) = stack.tunnel_url() {
        let _ = writeln!(text, "\nFor a tunnel (the routes without the dashboard): {url}");
    }
    if let Some(file) = secrets {
        let _ = writeln!(
            text,
            "\nThe secrets are those of {}; deliveries of other providers are refused.\nCtrl-C stops the stack.",
            file.display()
        );
        return Ok(text);
    }
    text.push_str("\nA newly signed request of each provider\n");
    for function in functions.iter().filter(|function| !function.routes.is_empty()) {
        if let Some(fixture) = catalogue.plainest(&function.name)? {
            let _ = writeln!(text, "  {}", curl(fixture, &url, requests)?);
        }
    }
    let _ = write!(
        text,
        "\nIn another terminal: cargo local send snipcart order-completed; cargo local list; cargo local redrive\nCtrl-C stops the stack.\n"
    );
    Ok(text)
}

/// The folder for the bodies that `curl` sends, next to the binaries.
fn requests(binaries: &Binaries, functions: &[template::Function]) -> Result<PathBuf, Error> {
    let binary = functions
        .first()
        .map(|function| binaries.get(&function.name))
        .transpose()?;
    let folder = binary
        .and_then(Path::parent)
        .map(|folder| folder.join("requests"))
        .unwrap_or_default();
    std::fs::create_dir_all(&folder)
        .map_err(|error| Error::Start(format!("{} cannot be created: {error}", folder.display())))?;
    Ok(folder)
}

fn curl(mut fixture: Fixture, url: &str, requests: &Path) -> Result<String, Error> {
    sign(&mut fixture, &Credentials::default(), Timestamp::now())?;
    let file = requests.join(format!("{}.json", fixture.provider));
    std::fs::write(&file, fixture.body()?)
        .map_err(|error| Error::Start(format!("{} cannot be written: {error}", file.display())))?;
    let query = fixture.event["rawQueryString"]
        .as_str()
        .filter(|query| !query.is_empty())
        .map(|query| format!("?{query}"));
    let mut command = format!(
        "curl -i -X {} '{url}{}{}'",
        fixture.method(),
        fixture.event["rawPath"].as_str().unwrap_or_default(),
        query.unwrap_or_default()
    );
    for name in [
        "content-type",
        "authorization",
        "pid",
        "timestamp",
        "signature",
        "x-snipcart-requesttoken",
    ] {
        if let Some(value) = fixture.header(name) {
            let _ = write!(command, " -H '{name}: {value}'");
        }
    }
    let _ = write!(command, " --data-binary '@{}'", file.display());
    Ok(command)
}
