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
    #[arg(long, conflicts_with_all = ["provider", "shop"])]
    scan: bool,
    /// Delete parts that no event refers to
    #[arg(long, conflicts_with_all = ["provider", "shop"])]
    repair: bool,
    /// Compare with an earlier audit, in a file that --json has printed, which also says what is audited
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
    let scope = scope(&options, earlier.as_ref(), Timestamp::now())?;
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

/// What is audited: what the flags say or, for a comparison, what the earlier audit was about.
fn scope(options: &Options, earlier: Option<&Audit>, now: Timestamp) -> Result<Scope, Error> {
    let mut scope = Scope {
        provider: options.provider.clone(),
        shop: options.shop.clone(),
        from: options.from.unwrap_or(now - ONE_DAY),
        to: options.to.unwrap_or(now),
        scan: options.scan,
        repair: options.repair,
    };
    if let Some(earlier) = earlier {
        let is_other = |flag: &Option<String>, earlier: &Option<String>| flag.is_some() && flag != earlier;
        for (name, is_other) in [
            ("the provider", is_other(&options.provider, &earlier.provider)),
            ("--shop", is_other(&options.shop, &earlier.shop)),
            ("--from", options.from.is_some_and(|from| from != earlier.from)),
            ("--to", options.to.is_some_and(|to| to != earlier.to)),
        ] {
            if is_other {
                return Err(Error::Start(format!(
                    "{name} differs from the earlier audit; leave it out to compare with that audit"
                )));
            }
        }
        scope.provider.clone_from(&earlier.provider);
        scope.shop.clone_from(&earlier.shop);
        (scope.from, scope.to) = (earlier.from, earlier.to);
    }
    Ok(scope)
}

fn read(file: &std::path::Path) -> Result<Audit, Error> {
    let unreadable = |error: String| Error::Start(format!("{} cannot be read: {error}", file.display()));
    let text = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        let arguments = ["audit"].iter().chain(arguments);
        Command::try_parse_from(arguments).expect("valid flags").options
    }

    #[test]
    fn the_complete_table_has_no_single_shop() {
        for arguments in [
            ["audit", "cartum", "--scan"].as_slice(),
            &["audit", "cartum", "--repair"],
            &["audit", "--shop", "main", "--scan"],
        ] {
            assert!(Command::try_parse_from(arguments).is_err(), "{arguments:?}");
        }
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_comparison_has_the_scope_of_the_earlier_audit() {
        let earlier = Audit {
            provider: Some("cartum".to_owned()),
            from: time("2026-01-30T10:00:00Z"),
            to: time("2026-01-31T10:00:00Z"),
            ..Audit::default()
        };
        let now = time("2026-02-07T10:00:00Z");
        for arguments in [vec![], vec!["cartum", "--from", "2026-01-30T10:00:00Z"]] {
            let scope = scope(&options(&arguments), Some(&earlier), now).expect("the same scope");
            assert_eq!(scope.provider, earlier.provider);
            assert_eq!((scope.from, scope.to), (earlier.from, earlier.to));
        }
        for arguments in [
            vec!["deeple"],
            vec!["--shop", "main"],
            vec!["--from", "2026-01-30T10:00:01Z"],
            vec!["--to", "2026-02-07T10:00:00Z"],
        ] {
            let refused = scope(&options(&arguments), Some(&earlier), now).expect_err("another scope");
            assert!(refused.to_string().contains("earlier audit"), "{refused}");
        }
        let scope = scope(&options(&[]), None, now).expect("the last day");
        assert_eq!((scope.from, scope.to), (now - ONE_DAY, now));
    }
}
