//! The result of an audit as text: a table of the books, then each fault.

use std::fmt;

use super::{Audit, Book, Fault};

/// The number of digits of a digest that the table shows. `--json` has all.
const DIGITS: usize = 12;

impl fmt::Display for Audit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_books(&self.books, formatter)?;
        writeln!(
            formatter,
            "\n{} stored events validated against the JSON Schema",
            self.validated
        )?;
        if !self.not_validated.is_empty() {
            writeln!(
                formatter,
                "{} more are too large for an answer; their types were checked",
                self.not_validated.len()
            )?;
        }
        for orphan in &self.orphans {
            writeln!(
                formatter,
                "orphaned: {} parts of {}; deleted from {} on, or now with --repair",
                orphan["parts"],
                orphan["event_id"].as_str().unwrap_or_default(),
                orphan["swept_at"].as_str().unwrap_or("an unknown time")
            )?;
        }
        for removed in &self.removed {
            let event_id = removed["event_id"].as_str().unwrap_or_default();
            match removed["part"].as_str() {
                Some(part) => writeln!(formatter, "removed: {part}")?,
                None => writeln!(formatter, "removed: {} parts of {event_id}", removed["parts"])?,
            }
        }
        for fault in &self.faults {
            write!(formatter, "{fault}")?;
        }
        let verdict = if self.is_balanced() {
            "The books balance.".to_owned()
        } else {
            format!("The books do not balance: {} faults.", self.faults.len())
        };
        write!(formatter, "\n{verdict}")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
        let Self {
            event_id,
            conflict,
            part,
            description,
            action,
            ..
        } = self;
        write!(formatter, "\n! {}", self.fault)?;
        if let Some(event_id) = event_id {
            write!(formatter, " {event_id}")?;
        }
        if let Some(conflict) = conflict {
            write!(formatter, ", the conflict {conflict}")?;
        }
        let (provider, shop) = (or_unknown(&self.provider), or_unknown(&self.shop));
        writeln!(formatter, "\n  {provider}, {shop}, {}", or_unknown(&self.received_at))?;
        if let Some(part) = part {
            writeln!(formatter, "  {part}")?;
        }
        writeln!(formatter, "  {description}\n  what to do: {action}")
    }
}

fn write_books(books: &[Book], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    if books.is_empty() {
        return writeln!(formatter, "Nothing was received in this period.");
    }
    let header = ["provider", "shop", "day"].map(str::to_owned).into_iter();
    let header = header.chain(books[0].counts().map(|(name, _)| name.to_owned()));
    let header = header.chain(["balanced", "digest"].map(str::to_owned));
    let mut rows = vec![header.collect::<Vec<_>>()];
    for book in books {
        let place = [&book.provider, &book.shop, &book.day].map(Clone::clone);
        let is_balanced = if book.is_balanced() { "yes" } else { "NO" };
        let digest: String = book.digest.to_string().chars().take(DIGITS).collect();
        let row = place.into_iter();
        let row = row.chain(book.counts().map(|(_, count)| count.to_string()));
        rows.push(row.chain([is_balanced.to_owned(), digest]).collect());
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default())
        .collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(formatter, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
