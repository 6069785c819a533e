//! Where the stack says what happens: on the terminal, or in memory for a test that may want to show it.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::lock;
use crate::recorder::{Delivery, Recorder};

/// The stack's log. What functions write goes to the recorder too, if there is one.
#[derive(Debug, Clone)]
pub struct Log {
    sink: Sink,
    recorder: Option<Recorder>,
}

#[derive(Debug, Clone)]
enum Sink {
    /// Deliveries on standard output, the rest on standard error.
    Terminal(Terminal),
    /// Everything, in order.
    Memory(Arc<Mutex<Vec<String>>>),
}

/// What is said on the terminal.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    /// How a delivery is said.
    pub deliveries: Deliveries,
    /// Which of the functions' own lines are shown.
    pub functions: Functions,
}

/// How a delivery is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deliveries {
    /// A line for people, in colour where the terminal has any and `NO_COLOR` is not set.
    Line,
    /// A line of JSON.
    Json,
    /// Not at all.
    Quiet,
}

/// Which of the functions' own lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Functions {
    /// All, whole, each with the function's name.
    All,
    /// Those that are no JSON, such as a panic, and what is wrong beside the delivery itself.
    Faults,
    /// None.
    Quiet,
}

impl Log {
    /// A log in memory.
    pub fn memory() -> Self {
        Self {
            sink: Sink::Memory(Arc::default()),
            recorder: None,
        }
    }

    /// A log on the terminal.
    pub fn terminal(terminal: Terminal) -> Self {
        Self {
            sink: Sink::Terminal(terminal),
            recorder: None,
        }
    }

    /// A log on the terminal of what the developer has to know, and of nothing else.
    pub fn notices() -> Self {
        Self::terminal(Terminal {
            deliveries: Deliveries::Quiet,
            functions: Functions::Quiet,
        })
    }

    /// The same, with the functions' lines kept beside the deliveries that they belong to.
    #[must_use]
    pub fn recording(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// A request and its answer. The path comes without its query, which may hold a token.
    pub fn answered(&self, method: &str, path: &str, status: u16, duration: Duration) {
        if let Sink::Memory(lines) = &self.sink {
            lock(lines).push(format!("{method} {path} {status} {} ms", duration.as_millis()));
        }
    }

    /// A delivery, as soon as it is known what became of it.
    pub fn delivery(&self, delivery: &Delivery) {
        let Sink::Terminal(terminal) = &self.sink else { return };
        let line = match terminal.deliveries {
            Deliveries::Quiet => return,
            Deliveries::Json => json_line(delivery),
            Deliveries::Line => {
                let colour =
                    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
                line(delivery, colour, &TimeZone::system())
            }
        };
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// A line that a function wrote.
    pub fn function(&self, name: &str, line: &str) {
        if let Some(recorder) = &self.recorder {
            recorder.wrote(line);
        }
        match &self.sink {
            Sink::Terminal(terminal) => {
                let line = match terminal.functions {
                    Functions::Quiet => None,
                    Functions::All => Some(format!("[{name}] {line}")),
                    Functions::Faults => fault(line).map(|fault| format!("! {name}: {fault}")),
                };
                if let Some(line) = line {
                    let _ = writeln!(std::io::stderr().lock(), "{line}");
                }
            }
            Sink::Memory(lines) => lock(lines).push(format!("[{name}] {line}")),
        }
    }

    /// Something that the developer has to know.
    pub fn notice(&self, line: &str) {
        match &self.sink {
            Sink::Terminal(_) => {
                let _ = writeln!(std::io::stderr().lock(), "! {line}");
            }
            Sink::Memory(lines) => lock(lines).push(format!("! {line}")),
        }
    }

    /// The lines so far; none from a terminal.
    pub fn lines(&self) -> Vec<String> {
        match &self.sink {
            Sink::Terminal(_) => Vec::new(),
            Sink::Memory(lines) => lock(lines).clone(),
        }
    }
}

/// What a line says that has to be shown. What is wrong with a delivery stands in the delivery's own line.
fn fault(line: &str) -> Option<String> {
    let Ok(said) = serde_json::from_str::<Value>(line) else {
        return Some(line.to_owned());
    };
    let is_fault = matches!(said["level"].as_str(), Some("WARN" | "ERROR")) && said["message"] != "delivery";
    is_fault.then(|| {
        let text = |name: &str| said[name].as_str().map(printable);
        let mut fault = text("message").unwrap_or_default();
        for (name, before) in [("cause", ": "), ("event_id", " · ")] {
            if let Some(text) = text(name) {
                let _ = write!(fault, "{before}{text}");
            }
        }
        fault
    })
}

fn json_line(delivery: &Delivery) -> String {
    let mut row = delivery.row();
    row["at"] = json!(delivery.at.to_string());
    row["method"] = json!(delivery.method);
    row["path"] = json!(delivery.path);
    row["cause"] = json!(delivery.cause());
    row.to_string()
}

/// One delivery for people. Nothing that came in can move the cursor or change a colour.
fn line(delivery: &Delivery, colour: bool, zone: &TimeZone) -> String {
    let paint = |style: Style, text: String| {
        if colour {
            format!("{style}{text}{style:#}")
        } else {
            text
        }
    };
    let dimmed = Style::new().dimmed();
    let stored = delivery.stored.as_ref();
    let whose = match (&delivery.provider, &delivery.shop) {
        (Some(provider), Some(shop)) => format!("{provider}/{}", printable(shop)),
        _ => format!("{} {}", delivery.method, printable(&delivery.path)),
    };
    let outcome = style(&delivery.outcome);
    let mut line = format!(
        "{} {} {} {:<14} {:<22} {:<14} {}",
        paint(
            dimmed,
            delivery.at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string()
        ),
        paint(outcome, delivery.status.to_string()),
        paint(outcome, format!("{:<13}", delivery.outcome)),
        whose,
        stored
            .and_then(|stored| stored.r#type.as_deref())
            .map(printable)
            .unwrap_or_default(),
        stored
            .and_then(|stored| stored.order.as_deref())
            .map(printable)
            .unwrap_or_default(),
        paint(dimmed, format!("{} ms", delivery.micros.div_ceil(1000))),
    );
    if let Some(stored) = stored.filter(|stored| ["pending", "failed"].contains(&stored.state.as_str())) {
        let _ = write!(line, " {}", paint(AnsiColor::Yellow.on_default(), stored.state.clone()));
    }
    if let Some(why) = delivery.reason.clone().or_else(|| delivery.cause()) {
        let _ = write!(line, " {}", paint(dimmed, printable(&why)));
    }
    line
}

fn style(outcome: &str) -> Style {
    match outcome {
        "accepted" => AnsiColor::Green.on_default(),
        "duplicate" | "unsupported" => Style::new().dimmed(),
        "quarantined" => AnsiColor::Yellow.on_default(),
        _ => AnsiColor::Red.on_default(),
    }
}

/// Untrusted text for a terminal: what is not to be seen is written out, and it is not too long.
fn printable(text: &str) -> String {
    let mut printable = String::new();
    for character in text.chars().take(120) {
        // Controls, and what turns the direction of the line around.
        if character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            printable.extend(character.escape_unicode());
        } else {
            printable.push(character);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{Body, Stored};

    fn delivery() -> Delivery {
        Delivery {
            id: 1,
            at: "2026-01-31T12:00:05Z".parse().unwrap(),
            method: "POST".to_owned(),
            path: "/webhooks/selldone/main".to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::Binary { bytes: 1 },
            provider: Some("selldone".to_owned()),
            shop: Some("main".to_owned()),
            status: 200,
            answer: String::new(),
            micros: 12_300,
            outcome: "accepted".to_owned(),
            reason: None,
            event_id: Some("e1".to_owned()),
            log: Vec::new(),
            stored: Some(Stored {
                r#type: Some("order.created".to_owned()),
                order: Some("1\u{1b}[2J\u{202e}".to_owned()),
                state: "pending".to_owned(),
                attempts: 0,
            }),
            said: false,
            changed: 0,
        }
    }

    #[test]
    fn a_delivery_is_one_line_and_what_came_in_cannot_move_the_cursor() {
        let plain = line(&delivery(), false, &TimeZone::UTC);
        assert_eq!(
            plain,
            "12:00:05 200 accepted      selldone/main  order.created          1\\u{1b}[2J\\u{202e} 13 ms pending"
        );
        let coloured = line(&delivery(), true, &TimeZone::UTC);
        assert!(coloured.contains("\u{1b}[32m200"), "{coloured:?}");
        assert!(!coloured.contains("[2J\u{202e}"), "{coloured:?}");
    }

    #[test]
    fn json_holds_what_the_list_shows() {
        let mut delivery = delivery();
        delivery.outcome = "refused".to_owned();
        delivery.log = vec![r#"{"level":"WARN","message":"delivery","cause":"the token is wrong"}"#.to_owned()];
        let line: Value = serde_json::from_str(&json_line(&delivery)).unwrap();
        assert_eq!(line["at"], "2026-01-31T12:00:05Z");
        assert_eq!(line["outcome"], "refused");
        assert_eq!(line["cause"], "the token is wrong");
        assert_eq!(line["type"], "order.created");
    }

    #[test]
    fn of_the_functions_lines_the_faults_are_shown() {
        for (line, shown) in [
            (r#"{"level":"INFO","message":"anything"}"#, None),
            (r#"{"level":"WARN","message":"delivery","cause":"x"}"#, None),
            (r#"{"_aws":{},"Deliveries":1}"#, None),
            (
                r#"{"level":"ERROR","message":"it stays","cause":"SNS"}"#,
                Some("it stays: SNS"),
            ),
            ("thread 'main' panicked", Some("thread 'main' panicked")),
        ] {
            assert_eq!(fault(line).as_deref(), shown, "{line}");
        }
    }
}
