//! `cargo local up`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use local::Error;
use local::binaries::{Binaries, Output, workspace};
use local::fixture::{Catalogue, Fixture};
use local::log::{Functions, Log};
use local::settings::AWS_KEY;
use local::signing::{Credentials, sign};
use local::stack::{Config, Ports, Stack};
use local::template;
use local::{NAME, REGION, TOPIC_ARN};
use tokio::signal::unix::{SignalKind, signal};

/// `cargo local up`'s flags.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    ports: crate::Ports,
    /// The port of the stand-in for Snipcart
    #[arg(long, default_value_t = 9001)]
    snipcart_port: u16,
    /// The most processes of one function
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    environments: u16,
    /// The functions' timeout in seconds [default: the template's]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=900))]
    timeout: Option<u16>,
    /// Leave out the functions' schedules: what waits in the outbox is published by `cargo local redrive` alone
    #[arg(long)]
    no_schedule: bool,
    /// Leave out what the functions log
    #[arg(long)]
    quiet: bool,
}

/// Builds, starts, says where everything is, and waits for the end.
pub(crate) async fn up(options: Options) -> Result<(), Error> {
    let root = workspace();
    let functions = template::read(&root.join("template.yaml"))?;
    let catalogue = Catalogue::read(root.join("events"))?;
    eprintln!("Building the functions...");
    let binaries = Binaries::build(&root, Output::Progress)?;
    let requests = requests(&binaries, &functions)?;

    let shown = if options.quiet {
        Functions::Quiet
    } else {
        Functions::Shown
    };
    let mut config = Config::new(functions.clone(), binaries, Log::Terminal { functions: shown });
    config.environments = usize::from(options.environments);
    config.timeout = options.timeout.map(|seconds| Duration::from_secs(seconds.into()));
    config.ports = Ports {
        gateway: options.ports.port,
        dynamodb: options.ports.dynamodb_port,
        messages: options.ports.sns_port,
        snipcart: options.snipcart_port,
    };
    let stack = Stack::start(config).await?;
    let ended = ended()?;
    stack.warm().await;
    println!("{}", description(&stack, &functions, &catalogue, &requests)?);
    tokio::select! {
        () = ended => {}
        () = stack.run_schedules(), if !options.no_schedule => {}
    }
    eprintln!("Stopping.");
    stack.shutdown().await;
    Ok(())
}

/// Ctrl-C, `kill`, or the terminal's end.
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
) -> Result<String, Error> {
    let (url, endpoints) = (stack.url(), stack.endpoints());
    let (dynamodb, messages) = (endpoints.dynamodb_url(), endpoints.messages_url());
    let mut text = String::from("\nRoutes\n");
    for route in functions.iter().flat_map(|function| &function.routes) {
        let _ = writeln!(text, "  {} {url}{}", route.method, route.path);
    }
    let _ = write!(
        text,
        "
AWS endpoints (table and topic {NAME}, the queue {NAME} that is subscribed to the topic, and the functions to invoke)
  export AWS_ENDPOINT_URL_DYNAMODB={dynamodb}
  export AWS_ENDPOINT_URL_SNS={messages}
  export AWS_ENDPOINT_URL_SQS={messages}
  export AWS_ENDPOINT_URL_LAMBDA={messages}
  export AWS_REGION={REGION} AWS_ACCESS_KEY_ID={AWS_KEY} AWS_SECRET_ACCESS_KEY={AWS_KEY}
  topic {TOPIC_ARN}
  queue {queue}

Snipcart's validation call is answered at {snipcart}

One request of each provider, signed now
",
        queue = stack.queue().url(),
        snipcart = stack.snipcart().api_url(),
    );
    for function in functions.iter().filter(|function| !function.routes.is_empty()) {
        if let Some(fixture) = example(catalogue, &function.name)? {
            let _ = writeln!(text, "  {}", curl(fixture, &url, requests)?);
        }
    }
    let _ = write!(
        text,
        "\nOr, in another terminal: cargo local send snipcart order-completed; cargo local list; cargo local redrive\nCtrl-C stops it.\n"
    );
    Ok(text)
}

/// The plainest event that is published: the one with the shortest name.
fn example(catalogue: &Catalogue, provider: &str) -> Result<Option<Fixture>, Error> {
    let mut names: Vec<&String> = catalogue.names().get(provider).into_iter().flatten().collect();
    names.sort_by_key(|name| name.len());
    for name in &names {
        if catalogue.normalized(provider, name)?.is_some() {
            return catalogue.event(provider, name).map(Some);
        }
    }
    names.first().map(|name| catalogue.event(provider, name)).transpose()
}

/// Where the bodies for `curl` are kept: beside the binaries.
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
        .map_err(|error| Error::Start(format!("{} cannot be made: {error}", folder.display())))?;
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
