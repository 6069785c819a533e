//! JSON on a page, with remarks on its fields.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use maud::{Markup, html};

use crate::pretty_json::{self, Kind, Line};

/// The limit for lines; longer JSON is cut, with a note.
const LINES: usize = 4_000;
/// The limit for the characters of one value.
const VALUE: usize = 8_000;

/// A remark about a field and everything in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remark {
    /// The value was assumed.
    Assumed,
    /// The value could not be read.
    Warned,
    /// The value has no place in the event.
    Unmapped,
}

impl Remark {
    fn class(self) -> &'static str {
        match self {
            Self::Assumed => "assumed",
            Self::Warned => "warned",
            Self::Unmapped => "unmapped",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Assumed => "assumed: the provider did not state it",
            Self::Warned => "warning: not readable, so null in the event and kept in unmapped",
            Self::Unmapped => "unmapped: kept as it came, without another place in the event",
        }
    }
}

/// Remarks by the pointer of the field.
pub(super) type Remarks = BTreeMap<String, Remark>;

/// Shows `text`, indented if it is JSON.
pub(super) fn shown(text: &str, remarks: &Remarks) -> Markup {
    let Some(lines) = pretty_json::lines(text) else {
        return html! { pre.text { (visible(&cut(text))) } };
    };
    html! {
        pre.json {
            @for line in lines.iter().take(LINES) { (self::line(line, remarks)) }
            @if lines.len() > LINES { div.cut { "… " (lines.len() - LINES) " more lines are not shown" } }
        }
    }
}

fn line(line: &Line, remarks: &Remarks) -> Markup {
    // The nearest enclosing field that has a remark.
    let mut pointer = line.pointer.as_str();
    let remark = loop {
        if let Some(remark) = remarks.get(pointer) {
            break Some(*remark);
        }
        match pointer.rfind('/') {
            Some(end) => pointer = &pointer[..end],
            None => break None,
        }
    };
    let is_named = remark.is_some() && pointer == line.pointer && !["}", "]"].contains(&line.value.as_str());
    let kind = match line.kind {
        Kind::Text => "s",
        Kind::Number => "n",
        Kind::Word => "w",
        Kind::Bracket => "b",
    };
    html! {
        div class=[remark.map(Remark::class)] title=[remark.filter(|_| is_named).map(Remark::title)] {
            ("  ".repeat(line.depth))
            @if let Some(name) = &line.name { span.k { (visible(name)) } ": " }
            span class=(kind) { (visible(&cut(&line.value))) }
            @if line.comma { "," }
            @if let Some(remark) = remark.filter(|_| is_named) { i.remark { (remark.class()) } }
        }
    }
}

fn cut(value: &str) -> String {
    if value.len() <= VALUE {
        return value.to_owned();
    }
    format!(
        "{}… ({} bytes)",
        &value[..value.floor_char_boundary(VALUE)],
        value.len()
    )
}

/// Escapes characters that are invisible or reverse the direction of a line, as JSON does. The template escapes markup.
pub(super) fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => visible.push(character),
            character if is_hidden(character) => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    let _ = write!(visible, "\\u{unit:04x}");
                }
            }
            character => visible.push(character),
        }
    }
    visible
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_is_at_its_field_and_markup_is_text() {
        let remarks = Remarks::from([
            ("/a/0".to_owned(), Remark::Assumed),
            ("/u".to_owned(), Remark::Unmapped),
        ]);
        let shown = shown(r#"{"a":["<script>alert(1)</script>"],"u":{"x":1}}"#, &remarks).into_string();
        assert!(
            shown.contains("&lt;script&gt;") && !shown.contains("<script>"),
            "{shown}"
        );
        assert_eq!(shown.matches("<i class=\"remark\">").count(), 2, "{shown}");
        assert_eq!(shown.matches("class=\"unmapped\"").count(), 3, "{shown}");
        assert_eq!(shown.matches("class=\"assumed\"").count(), 1, "{shown}");
    }

    #[test]
    fn invisible_characters_are_escaped() {
        assert_eq!(visible("a\u{2028}\u{202e}b\u{0}é"), "a\\u2028\\u202eb\\u0000é");
    }
}
