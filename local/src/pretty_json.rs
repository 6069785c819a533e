//! Indents JSON. Fields stay in the order in which they came, and numbers as they were written.
//!
//! Each line knows the pointer (RFC 6901) of its value, so that a remark about a field can be shown with it;
//! `serde_json`'s pretty printer does not, and sorts the fields.

use serde_json::value::RawValue;

/// A line of indented JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The depth of the indentation.
    pub depth: usize,
    /// The pointer of the value that begins or ends on the line.
    pub pointer: String,
    /// The name of the field, quoted and escaped.
    pub name: Option<String>,
    /// The value, or the bracket that begins or ends it.
    pub value: String,
    /// The kind of the value.
    pub kind: Kind,
    /// Whether a comma follows.
    pub comma: bool,
}

/// The kind of a value on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A number.
    Number,
    /// `true`, `false` or `null`.
    Word,
    /// A bracket, or a pair of brackets without content.
    Bracket,
}

/// The limit for nesting, which is that of `serde_json`.
const DEPTH: usize = 127;

/// The lines of `json`; `None` if it is not JSON or is nested too deeply.
pub fn lines(json: &str) -> Option<Vec<Line>> {
    // Only well-formed JSON passes. A `Value` would interpret some names itself.
    serde_json::from_str::<&RawValue>(json).ok()?;
    let mut scanner = Scanner {
        rest: json,
        lines: Vec::new(),
        is_too_deep: false,
    };
    scanner.value(0, String::new(), None);
    (!scanner.is_too_deep).then_some(scanner.lines)
}

/// `json` as one indented text.
pub fn indented(json: &str) -> Option<String> {
    let lines: Vec<String> = lines(json)?.iter().map(ToString::to_string).collect();
    Some(lines.join("\n"))
}

impl std::fmt::Display for Line {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", "  ".repeat(self.depth))?;
        if let Some(name) = &self.name {
            write!(formatter, "{name}: ")?;
        }
        write!(formatter, "{}{}", self.value, if self.comma { "," } else { "" })
    }
}

struct Scanner<'a> {
    rest: &'a str,
    lines: Vec<Line>,
    is_too_deep: bool,
}

impl Scanner<'_> {
    fn value(&mut self, depth: usize, pointer: String, name: Option<String>) {
        match self.peek() {
            Some(open @ ('{' | '[')) => self.container(open, depth, pointer, name),
            Some('"') => {
                let value = self.text();
                self.push(depth, pointer, name, value, Kind::Text);
            }
            _ => {
                let end = self.rest.find([',', '}', ']', ' ', '\t', '\r', '\n']);
                let (value, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
                self.rest = rest;
                let kind = if value.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
                    Kind::Number
                } else {
                    Kind::Word
                };
                self.push(depth, pointer, name, value.to_owned(), kind);
            }
        }
        if self.peek() == Some(',') {
            self.step();
            if let Some(last) = self.lines.last_mut() {
                last.comma = true;
            }
        }
    }

    fn container(&mut self, open: char, depth: usize, pointer: String, name: Option<String>) {
        if depth == DEPTH {
            self.is_too_deep = true;
            self.rest = "";
            return;
        }
        let close = if open == '{' { '}' } else { ']' };
        self.step();
        if self.peek() == Some(close) {
            self.step();
            self.push(depth, pointer, name, format!("{open}{close}"), Kind::Bracket);
            return;
        }
        self.push(depth, pointer.clone(), name, open.to_string(), Kind::Bracket);
        let mut index = 0usize;
        while !matches!(self.peek(), None | Some('}' | ']')) {
            if open == '{' {
                let name = self.text();
                if self.peek() == Some(':') {
                    self.step();
                }
                let token = serde_json::from_str::<String>(&name).unwrap_or_default();
                let token = token.replace('~', "~0").replace('/', "~1");
                self.value(depth + 1, format!("{pointer}/{token}"), Some(name));
            } else {
                self.value(depth + 1, format!("{pointer}/{index}"), None);
                index += 1;
            }
        }
        self.step();
        self.push(depth, pointer, None, close.to_string(), Kind::Bracket);
    }

    /// The next character that is not a space.
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn step(&mut self) {
        let mut characters = self.rest.chars();
        characters.next();
        self.rest = characters.as_str();
    }

    /// A string as it is written.
    fn text(&mut self) -> String {
        self.peek();
        let mut escaped = false;
        let end = self.rest.char_indices().skip(1).find(|(_, character)| {
            let ends = !escaped && *character == '"';
            escaped = !escaped && *character == '\\';
            ends
        });
        let (text, rest) = self.rest.split_at(end.map_or(self.rest.len(), |(at, _)| at + 1));
        self.rest = rest;
        text.to_owned()
    }

    fn push(&mut self, depth: usize, pointer: String, name: Option<String>, value: String, kind: Kind) {
        self.lines.push(Line {
            depth,
            pointer,
            name,
            value,
            kind,
            comma: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_in_its_own_order() {
        let json = r#" {"b":"a,\"{:\\", "a":[1.50,{} , -2e5],"c":[], "d" : null}"#;
        let expected = "{\n  \"b\": \"a,\\\"{:\\\\\",\n  \"a\": [\n    1.50,\n    {},\n    -2e5\n  ],\n  \"c\": [],\n  \"d\": null\n}";
        assert_eq!(indented(json).as_deref(), Some(expected));
        assert_eq!(indented("{"), None);
        assert_eq!(indented(&"[".repeat(100_000)), None);
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(indented(&nested(127)).is_some());
        assert_eq!(indented(&nested(100_000)), None);
        let number = r#"{"$serde_json::private::Number":"abc"}"#;
        assert_eq!(
            indented(number)
                .as_deref()
                .map(|text| text.replace(['\n', ' '], ""))
                .as_deref(),
            Some(number)
        );
        assert_eq!(indented(" 1.50 ").as_deref(), Some("1.50"));
    }

    #[test]
    fn a_line_knows_its_pointer() {
        let lines = lines(r#"{"a/b":{"~":[true,"x"]}}"#).unwrap();
        let pointers: Vec<&str> = lines.iter().map(|line| line.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "",
                "/a~1b",
                "/a~1b/~0",
                "/a~1b/~0/0",
                "/a~1b/~0/1",
                "/a~1b/~0",
                "/a~1b",
                ""
            ]
        );
    }
}
