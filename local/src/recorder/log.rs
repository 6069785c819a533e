//! The log of the stack: on the terminal, or in memory for tests.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::lock;
use crate::recorder::{Delivery, Recorder};
use crate::terminal::{Paint, printable, style_of};

/// The log of the stack. The log lines of functions go to the recorder too, if there is one.
#[derive(Debug, Clone)]
pub struct Log {
    sink: Sink,
    recorder: Option<Recorder>,
}

#[derive(Debug, Clone)]
enum Sink {
    /// Deliveries go to standard output, and the rest to standard error.
    Terminal(Terminal),
    /// All lines, in order.
    Memory(Arc<Mutex<Vec<String>>>),
}

/// What the terminal shows.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    /// How deliveries are shown.
    pub deliveries: Deliveries,
    /// Which log lines of the functions are shown.
    pub functions: Functions,
}

/// How deliveries are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deliveries {
    /// As a line for people, in colour if the terminal has colours and `NO_COLOR` is not set.
    Line,
    /// As a line of JSON.
    Json,
    /// Deliveries are not shown.
    Quiet,
}

/// Which log lines of the functions are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Functions {
    /// All lines, complete, each with the name of the function.
    All,
    /// Lines that are not JSON, such as a panic, and warnings and errors that do not belong to a delivery.
    Faults,
    /// No lines.
    Quiet,
}

impl Log {
    /// Creates a log in memory.
    pub fn memory() -> Self {
        Self {
            sink: Sink::Memory(Arc::default()),
            recorder: None,
        }
    }

    /// Creates a log on the terminal.
    pub fn terminal(terminal: Terminal) -> Self {
        Self {
            sink: Sink::Terminal(terminal),
            recorder: None,
        }
    }

    /// Creates a log on the terminal that shows only notices.
    pub fn notices() -> Self {
        Self::terminal(Terminal {
            deliveries: Deliveries::Quiet,
            functions: Functions::Quiet,
        })
    }

    /// Records the log lines of the functions too.
    #[must_use]
    pub fn recording(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// Logs a request and its answer. `path` has no query, which may hold a token.
    pub fn answered(&self, method: &str, path: &str, status: u16, duration: Duration) {
        if let Sink::Memory(lines) = &self.sink {
            lock(lines).push(format!("{method} {path} {status} {} ms", duration.as_millis()));
        }
    }

    /// Logs a delivery, once its event was looked up.
    pub fn delivery(&self, delivery: &Delivery) {
        let Sink::Terminal(terminal) = &self.sink else { return };
        let line = match terminal.deliveries {
            Deliveries::Quiet => return,
            Deliveries::Json => json_line(delivery),
            Deliveries::Line => line(delivery, Paint::stdout(), &TimeZone::system()),
        };
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// Logs a line that a function wrote.
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

    /// Logs a notice for the developer.
    pub fn notice(&self, line: &str) {
        match &self.sink {
            Sink::Terminal(_) => {
                let _ = writeln!(std::io::stderr().lock(), "! {line}");
            }
            Sink::Memory(lines) => lock(lines).push(format!("! {line}")),
        }
    }

    /// The lines so far, if the log is in memory.
    pub fn lines(&self) -> Vec<String> {
        match &self.sink {
            Sink::Terminal(_) => Vec::new(),
            Sink::Memory(lines) => lock(lines).clone(),
        }
    }
}

/// The text of a log line that has to be shown. A delivery's own line shows what is wrong with the delivery.
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

/// A delivery as a line for people. Nothing in it can move the cursor or change a colour.
fn line(delivery: &Delivery, paint: Paint, zone: &TimeZone) -> String {
    let paint = |style: Style, text: String| paint.paint(style, text);
    let dimmed = Style::new().dimmed();
    let stored = delivery.stored.as_ref();
    let whose = match (&delivery.provider, &delivery.shop) {
        (Some(provider), Some(shop)) => format!("{provider}/{}", printable(shop)),
        _ => format!("{} {}", delivery.method, printable(&delivery.path)),
    };
    let outcome = style_of(&delivery.outcome);
    let mut line = format!(
        "{} {} {} {:<14} {:<22} {:<14} {}",
        paint(
            dimmed,
            delivery.at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string()
        ),
        paint(
            outcome,
            if delivery.is_request() {
                delivery.status.to_string()
            } else {
                "   ".to_owned()
            }
        ),
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
    fn a_delivery_is_one_line_without_control_characters() {
        let plain = line(&delivery(), Paint::PLAIN, &TimeZone::UTC);
        assert_eq!(
            plain,
            "12:00:05 200 accepted      selldone/main  order.created          1\\u{1b}[2J\\u{202e} 13 ms pending"
        );
        let coloured = line(&delivery(), Paint::COLOURED, &TimeZone::UTC);
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
    fn only_faults_of_the_functions_are_shown() {
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
