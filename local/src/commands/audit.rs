//! `cargo local audit`: counts what is stored by provider, shop and day, and names each fault.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use jiff::{SignedDuration, Timestamp};
use local::Error;
use local::audit::{Audit, Scope, audit};

use super::tasks::{Function, Place};

const ONE_DAY: SignedDuration = SignedDuration::from_hours(24);

/// The flags of `cargo local audit`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this provider
    provider: Option<String>,
    /// Only this shop
    #[arg(long)]
    shop: Option<String>,
    /// Events that were received at or after this time, such as 2026-01-31T12:00:00Z [default: a day ago]
    #[arg(long)]
    from: Option<Timestamp>,
    /// Events that were received before this time [default: now]
    #[arg(long)]
    to: Option<Timestamp>,
    /// Also read the complete table, for parts and events that no index names
    #[arg(long)]
    scan: bool,
    /// Delete parts that no event refers to
    #[arg(long)]
    repair: bool,
    /// Compare with an earlier audit of the same period, in a file that --json has printed
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Audits the table. Books that do not balance are an error.
pub(crate) async fn run(options: Options) -> Result<(), Error> {
    let earlier = options.against.as_deref().map(read).transpose()?;
    let now = Timestamp::now();
    let scope = Scope {
        provider: options.provider,
        shop: options.shop,
        from: options.from.unwrap_or(now - ONE_DAY),
        to: options.to.unwrap_or(now),
        scan: options.scan,
        repair: options.repair,
    };
    let function = Function::redrive(options.place).await?;
    let line = ProgressBar::new_spinner();
    line.enable_steady_tick(Duration::from_millis(200));
    let shown = line.clone();
    let progress = move |items| shown.set_message(format!("{items} items read"));
    let audited = audit(&scope, async |payload| function.invoke(&payload).await, progress).await;
    line.finish_and_clear();
    let mut audited = audited?;
    let changed = earlier.map(|earlier| audited.compare_with(&earlier));
    if options.json {
        let json = serde_json::to_string_pretty(&audited).map_err(|error| Error::Start(error.to_string()))?;
        println!("{json}");
    } else {
        println!("{audited}");
    }
    for place in changed.into_iter().flatten() {
        eprintln!(
            "{}, {}, {} has another digest than in the earlier audit",
            place.provider, place.shop, place.day
        );
    }
    if audited.is_balanced() {
        Ok(())
    } else {
        Err(Error::Unbalanced {
            faults: audited.faults.len(),
        })
    }
}

fn read(file: &std::path::Path) -> Result<Audit, Error> {
    let unreadable = |error: String| Error::Start(format!("{} cannot be read: {error}", file.display()));
    let text = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))
}
