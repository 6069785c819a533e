//! `cargo local reconcile`: compares the orders of a shop with the stored events, on this machine or on a deployed
//! stack.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use local::Error;
use local::project::settings::RECONCILE;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::tasks::{Function, Place};

/// The output of a deployed stack that names the function. It exists if a provider is reconciled.
pub(super) const OUTPUT: &str = "Reconcile";

/// The flags of `cargo local reconcile`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The provider, such as cartum
    provider: String,
    /// The shop
    shop: String,
    /// Orders from this time on, such as 2026-01-31T12:00:00Z; each provider's README says whether the time an order
    /// was placed or changed counts
    #[arg(long)]
    from: Timestamp,
    /// Orders before this time [default: five minutes ago]
    #[arg(long)]
    to: Option<Timestamp>,
    /// Only count the orders
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// The counts of a day.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Day {
    compared: u64,
    missing: u64,
    newer: u64,
}

/// The counts of a shop.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Shop {
    #[serde(skip_serializing)]
    status: String,
    #[serde(skip_serializing)]
    cause: Option<String>,
    compared: u64,
    missing: u64,
    newer: u64,
    known: u64,
    unreadable: u64,
    accepted: u64,
    duplicates: u64,
    by_day: BTreeMap<String, Day>,
}

/// The answer of the function.
#[derive(Debug, Deserialize)]
struct Answer {
    shops: Vec<Shop>,
    done: bool,
    cursor: Value,
}

impl Shop {
    fn add(&mut self, page: Self) {
        for (total, more) in [
            (&mut self.compared, page.compared),
            (&mut self.missing, page.missing),
            (&mut self.newer, page.newer),
            (&mut self.known, page.known),
            (&mut self.unreadable, page.unreadable),
            (&mut self.accepted, page.accepted),
            (&mut self.duplicates, page.duplicates),
        ] {
            *total += more;
        }
        for (day, counts) in page.by_day {
            let total = self.by_day.entry(day).or_default();
            total.compared += counts.compared;
            total.missing += counts.missing;
            total.newer += counts.newer;
        }
    }

    /// The table of the days, for a person.
    fn table(&self) -> String {
        let mut table = format!(
            "{:<10}  {:>8}  {:>7}  {:>5}\n",
            "placed on", "compared", "missing", "newer"
        );
        let total = Day {
            compared: self.compared,
            missing: self.missing,
            newer: self.newer,
        };
        for (day, counts) in self.by_day.iter().map(|(day, counts)| (day.as_str(), counts)) {
            table.push_str(&row(day, counts));
        }
        table.push_str(&row("all", &total));
        if self.unreadable > 0 {
            let _ = writeln!(table, "{} cannot be read", self.unreadable);
        }
        table
    }
}

fn row(day: &str, counts: &Day) -> String {
    let Day {
        compared,
        missing,
        newer,
    } = counts;
    format!("{day:<10}  {compared:>8}  {missing:>7}  {newer:>5}\n")
}

/// Counts the missing orders by day, and then stores and publishes them.
pub(crate) async fn reconcile(options: Options) -> Result<(), Error> {
    let function = Function::find(options.place.clone(), RECONCILE, OUTPUT).await?;
    let line = ProgressBar::new_spinner();
    line.enable_steady_tick(std::time::Duration::from_millis(200));
    let counted = run(&function, &options, true, |total| {
        line.set_message(format!("{} compared, {} missing", total.compared, total.missing));
    })
    .await;
    line.finish_and_clear();
    let counted = counted?;
    if !options.json {
        print!("{}", counted.table());
    }
    let found = counted.missing + counted.newer + counted.unreadable;
    if options.dry_run || found == 0 {
        if options.json {
            println!("{:#}", json!(counted));
        }
        return Ok(());
    }
    let bar = ProgressBar::new(counted.compared);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    let done = run(&function, &options, false, |total| {
        bar.set_position(total.compared);
        bar.set_message(format!("{} stored", total.accepted));
    })
    .await;
    bar.finish_and_clear();
    let done = done?;
    if options.json {
        println!("{:#}", json!(done));
    } else {
        println!(
            "{} stored and published, {} known by then, {} quarantined because they cannot be read",
            done.accepted, done.duplicates, done.unreadable
        );
    }
    Ok(())
}

/// Invokes the function until it is done, and adds up its counts.
async fn run(function: &Function, options: &Options, dry_run: bool, progress: impl Fn(&Shop)) -> Result<Shop, Error> {
    let mut parameters = json!({
        "provider": options.provider,
        "shop": options.shop,
        "from": options.from,
        "dry_run": dry_run,
    });
    if let Some(to) = options.to {
        parameters["to"] = json!(to);
    }
    let mut total = Shop::default();
    loop {
        let payload = json!({ "reconcile": parameters });
        let mut answer: Answer = function.invoke(&payload).await?;
        let Some(shop) = answer.shops.pop() else {
            return Err(stopped(&total, "the function names no shop"));
        };
        let status = shop.status.clone();
        let cause = shop.cause.clone().unwrap_or_default();
        total.add(shop);
        progress(&total);
        match status.as_str() {
            "not_configured" => {
                return Err(stopped(
                    &total,
                    "the secret of the provider has no `api` for this shop, or the provider is not reconciled",
                ));
            }
            "busy" => return Err(stopped(&total, "another run for this shop is under way")),
            "unavailable" => return Err(stopped(&total, &format!("the order API cannot be used ({cause})"))),
            _ if answer.done => return Ok(total),
            // Without a cursor the next run would start again, forever.
            _ if answer.cursor.is_null() => return Err(stopped(&total, &cause)),
            _ => parameters["cursor"] = answer.cursor.take(),
        }
    }
}

fn stopped(total: &Shop, why: &str) -> Error {
    Error::Invoke {
        function: RECONCILE.to_owned(),
        what: format!(
            "{why}; so far {} compared, {} stored. Run it again later.",
            total.compared, total.accepted
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_added_up_by_day() {
        let page = |json: Value| serde_json::from_value::<Shop>(json).unwrap();
        let mut total = Shop::default();
        total.add(page(json!({
            "status": "partial", "compared": 3, "missing": 1, "by_day": {"2026-01-30": {"compared": 3, "missing": 1, "newer": 0}},
        })));
        total.add(page(json!({
            "status": "complete", "compared": 2, "newer": 1, "cause": null, "unreadable": 1,
            "by_day": {"2026-01-30": {"compared": 1}, "2026-01-31": {"compared": 1, "newer": 1}},
        })));
        assert_eq!(
            total.table(),
            "placed on   compared  missing  newer\n\
             2026-01-30         4        1      0\n\
             2026-01-31         1        0      1\n\
             all                5        1      1\n\
             1 cannot be read\n"
        );
    }
}
