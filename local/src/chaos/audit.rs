//! Audits the table of a run. The books must balance, and count what the check has found in the table.

use jiff::{SignedDuration, Timestamp};

use super::check::Report;
use crate::Error;
use crate::audit::{Book, Scope, audit};
use crate::project::settings::REDRIVE;
use crate::stack::Stack;

/// Longer than the clocks of the run can differ.
const MARGIN: SignedDuration = SignedDuration::from_mins(1);

/// Adds a violation for each fault of the table.
pub(super) async fn check(stack: &Stack, begun: Timestamp, report: &mut Report) -> Result<(), Error> {
    let scope = Scope {
        provider: None,
        shop: None,
        from: begun - MARGIN,
        to: Timestamp::now() + MARGIN,
        scan: true,
        repair: false,
    };
    let audited = audit(&scope, async |payload| stack.invoke(REDRIVE, &payload).await, |_| {}).await?;
    for fault in &audited.faults {
        let event_id = fault.event_id.as_deref().unwrap_or("a day");
        report.violation(|| format!("{event_id} has the fault {}: {}", fault.fault, fault.description));
    }
    for book in audited.books.iter().filter(|book| !book.is_balanced()) {
        let (provider, shop, day) = (&book.provider, &book.shop, &book.day);
        report.violation(|| format!("the books of {provider}, {shop}, {day} do not balance: {book:?}"));
    }
    let count = |of: fn(&Book) -> u64| {
        let sum: u64 = audited.books.iter().map(of).sum();
        usize::try_from(sum).unwrap_or(usize::MAX)
    };
    let conflicts = count(|book| book.conflicts);
    report.audited = count(Book::received);
    if report.audited - conflicts != report.stored {
        let (audited, stored) = (report.audited - conflicts, report.stored);
        report.violation(|| format!("the books count {audited} events, and the table holds {stored}"));
    }
    Ok(())
}
