//! `cargo local chaos`.

use std::sync::Arc;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use local::Error;
use local::chaos::{Plan, configure, reconciliation, run};
use local::project::build::{Binaries, Output, workspace};
use local::project::template;
use local::recorder::log::Log;
use local::stack::{Config, Stack};

use super::args::catalogue;

/// The flags of `cargo local chaos`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The number of events
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    events: u32,
    /// The seed of all random choices [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Lose, repeat and delay webhooks, and check that reconciliation finds every order; without the checks of the
    /// other run
    #[arg(long)]
    reconcile: bool,
}

/// Runs chaos in a separate stack. A violation is an error.
pub(crate) async fn chaos(options: Options) -> Result<(), Error> {
    let root = workspace();
    let functions = template::read(&root.join("template.yaml"))?;
    let binaries = Binaries::build(&root, Output::Diagnostics)?;
    let log = Log::memory();
    let mut config = Config::new(functions, binaries, log.clone());
    configure(&mut config);
    let stack = Arc::new(Stack::start(config).await?);
    let plan = Plan {
        events: usize::try_from(options.events).unwrap_or(usize::MAX),
        seed: options
            .seed
            .unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 >> 32),
    };
    let bar = ProgressBar::new(options.events.into());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {elapsed}") {
        bar.set_style(style);
    }
    let shown = bar.clone();
    let progress = move || shown.inc(1);
    let (report, violations) = if options.reconcile {
        let report = reconciliation::run(&stack, &catalogue()?, plan, progress).await?;
        (report.to_string(), report.violations)
    } else {
        let report = run(&stack, &catalogue()?, plan, progress).await?;
        (report.to_string(), report.violations)
    };
    bar.finish_and_clear();
    let flag = if options.reconcile { " --reconcile" } else { "" };
    println!(
        "| cargo local chaos{flag} --events {} --seed {} | |\n|---|---|\n{report}",
        plan.events, plan.seed
    );
    if violations.count == 0 {
        return Ok(());
    }
    for violation in &violations.described {
        eprintln!("! {violation}");
        let event_id = violation.split(' ').find(|word| word.len() == 64);
        for line in log
            .lines()
            .iter()
            .filter(|line| event_id.is_some_and(|id| line.contains(id)))
        {
            eprintln!("  {line}");
        }
    }
    Err(Error::Violated {
        count: violations.count,
        seed: plan.seed,
    })
}
