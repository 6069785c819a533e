//! Text on a terminal: colours only where a person reads, and no control character that came in with a delivery.

use std::io::IsTerminal as _;

use anstyle::{AnsiColor, Style};

/// The most characters of untrusted text in a line.
const MOST: usize = 120;

/// Colours text, or leaves it plain.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    is_colourful: bool,
}

impl Paint {
    /// Colours text.
    pub const COLOURED: Self = Self { is_colourful: true };
    /// Leaves text plain.
    pub const PLAIN: Self = Self { is_colourful: false };

    /// Colours text if standard output is a terminal and `NO_COLOR` is not set.
    pub fn stdout() -> Self {
        let is_colourful =
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { is_colourful }
    }

    /// Returns `text` in the colour of `style`.
    pub fn paint(self, style: Style, text: impl Into<String>) -> String {
        let text = text.into();
        if self.is_colourful {
            format!("{style}{text}{style:#}")
        } else {
            text
        }
    }
}

/// The style of the outcome of a delivery, such as `accepted`.
pub fn style_of(outcome: &str) -> Style {
    match outcome {
        "accepted" => AnsiColor::Green.on_default(),
        "duplicate" | "unsupported" => Style::new().dimmed(),
        "quarantined" | "reconciled" => AnsiColor::Yellow.on_default(),
        _ => AnsiColor::Red.on_default(),
    }
}

/// Untrusted text for a terminal: shortened, and with its control characters escaped.
pub fn printable(text: &str) -> String {
    let mut printable = String::new();
    for character in text.chars().take(MOST) {
        // Control characters, and those that reverse the direction of the line.
        if character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            printable.extend(character.escape_unicode());
        } else {
            printable.push(character);
        }
    }
    printable
}
