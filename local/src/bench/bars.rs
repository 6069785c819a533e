//! The bars: the required speed, size and memory.

use std::fmt;

use super::report::{Figures, Table, short};
use super::targets::{COMPARED, FLOOR, PEERS};

/// A bar, and whether it is met.
#[derive(Debug, Clone)]
pub struct Bar {
    /// The figure that is measured.
    pub figure: String,
    /// The required value.
    pub bar: &'static str,
    /// The measured value; `None` if it was not measured.
    pub measured: Option<String>,
    /// Whether the bar is met.
    pub met: bool,
    /// Whether a check passes: only figures that are the same in each run can fail one.
    pub held: bool,
}

impl fmt::Display for Bar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (&self.measured, self.met) {
            (None, _) => "not measured",
            (_, true) => "met",
            (_, false) => "**not met**",
        };
        let measured = self.measured.as_deref().unwrap_or("-");
        write!(formatter, "| {} | {} | {measured} | {verdict} |", self.figure, self.bar)
    }
}

/// Figures that are not in the tables of the runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Others {
    /// The size of the largest zip in bytes, of the functions that receive deliveries.
    pub zip: Option<u64>,
    /// The size of the zip of `redrive` in bytes.
    pub redrive_zip: Option<u64>,
    /// The peak memory for the largest body, divided by the size of that body.
    pub memory_of_body: Option<f64>,
    /// The speed of normalization in MB of JSON a second.
    pub normalization: Option<f64>,
}

/// Evaluates all bars.
pub fn all(plain: &Table, tls: &Table, others: Others) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (what, table, least, bar) in [
        ("start to first answer", plain, 15.0, "15 times faster"),
        ("start to first answer with TLS", tls, 10.0, "10 times faster"),
    ] {
        for peer in PEERS {
            let times = ratio(table, peer, COMPARED, |figures| Some(figures.start_to_answer));
            bars.push(judge(
                format!("{what}, against {peer}"),
                bar,
                times,
                |times| times >= least,
                |times| format!("{} times", short(times)),
            ));
        }
    }
    for (what, table) in [("first answer after init", plain), ("the same with TLS", tls)] {
        let times = table.get(COMPARED).map(|figures| figures.first / figures.warm);
        bars.push(judge(
            what.to_owned(),
            "within 2 times of a warm answer",
            times,
            |times| times <= 2.0,
            |times| format!("{} times", short(times)),
        ));
    }
    for peer in PEERS {
        let times = ratio(plain, peer, COMPARED, |figures| figures.cpu);
        bars.push(judge(
            format!("CPU of a warm event, compared with {peer}"),
            "5 times less",
            times,
            |times| times >= 5.0,
            |times| format!("{} times", short(times)),
        ));
    }
    let cpu = plain.get(COMPARED).and_then(|figures| figures.cpu);
    bars.push(judge(
        "CPU of a warm event".to_owned(),
        "0.7 ms at most",
        cpu,
        |cpu| cpu <= 0.7,
        |cpu| format!("{cpu:.2} ms"),
    ));
    let start = ratio_of(
        plain,
        COMPARED,
        FLOOR,
        |figures| figures.quiet,
        |figures| Some(figures.init),
    );
    bars.push(judge(
        "start without warming (to the first call), compared with `/next` of hello".to_owned(),
        "within 3 times",
        start,
        |times| times <= 3.0,
        |times| format!("{} times", short(times)),
    ));
    // A little more than measured: a release of the compiler or the SDK changes the size by a percent.
    bars.push(zip_bar(
        "largest zip of a provider's function",
        "2.5 MB at most (checked: 2.6)",
        others.zip,
        2.6,
    ));
    bars.push(zip_bar(
        "zip of redrive, which no provider waits for",
        "2.5 MB at most (checked: 2.9)",
        others.redrive_zip,
        2.9,
    ));
    let peak = plain.iter().filter(|(name, _)| !PEERS.contains(&name.as_str()));
    let peak = peak.filter_map(|(_, figures)| figures.peak_memory).reduce(f64::max);
    let mut peak = judge(
        "peak memory on ordinary orders".to_owned(),
        "24 MB at most",
        peak,
        |peak| peak <= 24.0,
        |peak| format!("{} MiB", short(peak)),
    );
    peak.held = peak.met || peak.measured.is_none();
    bars.push(peak);
    let mut body = judge(
        "peak memory on a body of 5 MB".to_owned(),
        "less than 6 times the body",
        others.memory_of_body,
        |times| times < 6.0,
        |times| format!("{} times", short(times)),
    );
    body.held = body.met || body.measured.is_none();
    bars.push(body);
    bars.push(judge(
        "normalization of Snipcart's largest order".to_owned(),
        "150 MB/s or better",
        others.normalization,
        |speed| speed >= 150.0,
        |speed| format!("{} MB/s", short(speed)),
    ));
    bars
}

/// A bar of a zip. The check fails above `checked` MB.
fn zip_bar(name: &str, bar: &'static str, bytes: Option<u64>, checked: f64) -> Bar {
    #[expect(clippy::cast_precision_loss, reason = "a zip has far less than 2^52 bytes")]
    let megabytes = bytes.map(|bytes| bytes as f64 / 1e6);
    let mut zip = judge(
        name.to_owned(),
        bar,
        megabytes,
        |zip| zip <= 2.5,
        |zip| format!("{zip:.2} MB"),
    );
    zip.held = megabytes.is_none_or(|zip| zip <= checked);
    zip
}

fn judge(
    figure: String,
    bar: &'static str,
    value: Option<f64>,
    is_enough: impl Fn(f64) -> bool,
    say: impl Fn(f64) -> String,
) -> Bar {
    let value = value.filter(|value| value.is_finite());
    Bar {
        figure,
        bar,
        measured: value.map(say),
        met: value.is_some_and(is_enough),
        held: true,
    }
}

fn ratio(table: &Table, of: &str, to: &str, figure: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
    Some(figure(table.get(of)?)? / figure(table.get(to)?)?)
}

fn ratio_of(
    table: &Table,
    of: &str,
    to: &str,
    figure: impl Fn(&Figures) -> Option<f64>,
    other: impl Fn(&Figures) -> Option<f64>,
) -> Option<f64> {
    Some(figure(table.get(of)?)? / other(table.get(to)?)?)
}
