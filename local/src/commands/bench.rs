//! `cargo local bench`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use local::Error;
use local::bench::bars::{self, Others};
use local::bench::process::Target;
use local::bench::report::{Table, short, table};
use local::bench::targets::{self, COMPARED, FLOOR, PEERS};
use local::bench::{Plan, growth, measure, size};
use local::project::build::workspace;
use local::project::settings::REDRIVE;
use serde_json::{Value, json};

use super::args::catalogue;

/// The flags of `cargo local bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each function and each peer is started
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// The number of warm events for each start
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(10..=10_000))]
    events: u16,
    /// Measure only these: functions, hello, python, node, redrive
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Use the functions in this folder, such as .aws-sam/build, instead of building them
    #[arg(long)]
    binaries: Option<PathBuf>,
    /// Skip what takes long: instruction counts, growth, and the speed of normalization
    #[arg(long)]
    quick: bool,
    /// Write all figures to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Fail if a figure that is the same in each run, such as size or memory, misses its bar or is worse than its known
    /// value
    #[arg(long)]
    check: bool,
}

/// Measures, and prints the tables and the bars.
pub(crate) async fn bench(options: Options) -> Result<(), Error> {
    let root = workspace();
    let binaries = match &options.binaries {
        Some(folder) => folder.clone(),
        None => targets::build(&root)?,
    };
    let catalogue = catalogue()?;
    let (targets, skipped) = targets::all(&root, &binaries, &catalogue, &options.only)?;
    for what in &skipped {
        println!("skipped {what}");
    }
    let plan = Plan {
        runs: options.runs.into(),
        events: options.events.into(),
    };
    let tls_plan = Plan {
        runs: plan.runs.div_ceil(2),
        ..plan
    };
    let mut report = json!({});

    let bar = ProgressBar::new(u64::try_from(targets.len() * (plan.runs + tls_plan.runs)).unwrap_or(0));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    let without_tls = measure(&targets, plan, None, &|| bar.inc(1)).await?;
    let certificates = root.join("target/bench");
    let with_tls = measure(&targets, tls_plan, Some(&certificates), &|| bar.inc(1)).await?;
    bar.finish_and_clear();
    show("Without TLS", "plain", &without_tls, &mut report);
    show("With TLS", "tls", &with_tls, &mut report);

    let (zip, redrive_zip) = sizes(&targets, &mut report)?;
    let mut others = Others {
        zip,
        redrive_zip,
        ..Others::default()
    };
    let find = |name: &str| targets.iter().find(|target| target.name == name);
    if !options.quick {
        if let Some(snipcart) = find("snipcart") {
            others.memory_of_body = bodies(snipcart, &mut report).await?;
        }
        if let Some(compared) = find(COMPARED) {
            crowds(compared, &mut report).await?;
        }
        if options.only.is_empty() || find("snipcart").is_some() {
            others.normalization = normalization(&root, &mut report);
        }
        instructions(&targets, &mut report).await?;
    }

    println!("\n## Bars\n\n| figure | bar | measured | |\n|---|---|---|---|");
    let bars = bars::all(&without_tls, &with_tls, others);
    for bar in &bars {
        println!("{bar}");
    }
    report["bars"] = bars
        .iter()
        .map(|bar| json!({"figure": bar.figure, "bar": bar.bar, "measured": bar.measured, "met": bar.met}))
        .collect();
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{report:#}\n"))
            .map_err(|error| Error::Start(format!("{} cannot be written: {error}", path.display())))?;
    }
    let missed: Vec<_> = bars
        .iter()
        .filter(|bar| !bar.held)
        .map(|bar| format!("{}: {}", bar.figure, bar.bar))
        .collect();
    if options.check && !missed.is_empty() {
        return Err(Error::Missed(missed.join("; ")));
    }
    Ok(())
}

fn show(title: &str, key: &str, figures: &Table, report: &mut Value) {
    println!("\n## {title}\n\n{}", table(figures));
    let json: BTreeMap<_, _> = figures
        .iter()
        .map(|(name, figures)| (name, figures.to_json()))
        .collect();
    report[key] = json!(json);
}

/// Prints the sizes of the functions. Returns the size of the largest zip of a provider's function, and of redrive's.
fn sizes(targets: &[Target], report: &mut Value) -> Result<(Option<u64>, Option<u64>), Error> {
    println!("\n## Size\n\n| bytes | binary | zip |\n|---|---|---|");
    let (mut largest, mut redrive) = (None, None);
    for target in ours(targets) {
        let size = size::of(&target.program)?;
        println!("| {} | {} | {} |", target.name, size.binary, size.zip);
        report["size"][&target.name] = json!({"binary": size.binary, "zip": size.zip});
        if target.name == REDRIVE {
            redrive = Some(size.zip);
        } else {
            largest = largest.max(Some(size.zip));
        }
    }
    Ok((largest, redrive))
}

/// Prints the table of bodies. Returns the memory for the largest body, divided by its size.
async fn bodies(snipcart: &Target, report: &mut Value) -> Result<Option<f64>, Error> {
    println!(
        "\n## Growth with the body (snipcart)\n\n| body, bytes | warm, ms | CPU, ms | peak memory, MiB |\n|---|---|---|---|"
    );
    let large = catalogue()?.event("snipcart", "order-completed-large")?;
    let bodies = growth::bodies(snipcart, &large, targets::signed).await?;
    let some = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    for body in &bodies {
        println!(
            "| {} | {} | {} | {} |",
            body.bytes,
            short(body.warm),
            some(body.cpu),
            some(body.peak_memory)
        );
    }
    report["bodies"] = bodies
        .iter()
        .map(|body| json!({"bytes": body.bytes, "warm_ms": body.warm, "cpu_ms": body.cpu, "peak_memory_mib": body.peak_memory}))
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "a body has a few MB")]
    let times = bodies
        .last()
        .and_then(|body| Some(body.peak_memory? * 1024.0 * 1024.0 / body.bytes as f64));
    Ok(times)
}

async fn crowds(target: &Target, report: &mut Value) -> Result<(), Error> {
    println!(
        "\n## Environments at once ({})\n\n| environments | events/s | warm p50, ms |\n|---|---|---|",
        target.name
    );
    let crowds = growth::crowds(target).await?;
    for crowd in &crowds {
        println!(
            "| {} | {} | {} |",
            crowd.environments,
            short(crowd.per_second),
            short(crowd.warm)
        );
    }
    report["environments"] = crowds
        .iter()
        .map(|crowd| json!({"environments": crowd.environments, "events_per_second": crowd.per_second, "warm_p50_ms": crowd.warm}))
        .collect();
    Ok(())
}

/// The speed of normalization in MB of JSON a second, which a benchmark of the function measures.
fn normalization(root: &std::path::Path, report: &mut Value) -> Option<f64> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).stdin(Stdio::null()).stderr(Stdio::inherit());
    command.args([
        "bench",
        "--quiet",
        "--locked",
        "--package",
        "snipcart",
        "--bench",
        "normalization",
    ]);
    let output = command.output().ok().filter(|output| output.status.success());
    let Some(output) = output else {
        println!("\nskipped normalization: `cargo bench --package snipcart --bench normalization` fails");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    println!("\n## Normalization\n\n{}", said.trim());
    let speed = said.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    report["normalization_mb_per_second"] = json!(speed);
    speed
}

async fn instructions(targets: &[Target], report: &mut Value) -> Result<(), Error> {
    let mut rows = Vec::new();
    for target in ours(targets).filter(|target| [FLOOR, COMPARED].contains(&target.name.as_str())) {
        let Some(count) = size::instructions(target).await? else {
            println!("\nskipped instruction counts: valgrind is not installed (apt-get install valgrind)");
            return Ok(());
        };
        rows.push(format!("| {} | {} | {} |", target.name, count.start, count.event));
        report["instructions"][&target.name] = json!({"start": count.start, "event": count.event});
    }
    println!(
        "\n## Instructions\n\n| | start to first answer | warm event |\n|---|---|---|\n{}",
        rows.join("\n")
    );
    Ok(())
}

fn ours(targets: &[Target]) -> impl Iterator<Item = &Target> {
    targets.iter().filter(|target| !PEERS.contains(&target.name.as_str()))
}
