//! Audits the table of a run. The books must balance, and count what the check has found in the table.

use jiff::{SignedDuration, Timestamp};

use super::check::Report;
use crate::Error;
use crate::audit::{Audit, Book, Scope, audit};
use crate::project::settings::REDRIVE;
use crate::stack::Stack;

/// Longer than the clocks of the run can differ.
const MARGIN: SignedDuration = SignedDuration::from_mins(1);

/// Adds a violation for each fault of the table, and if the books count other events than the check.
pub(super) async fn check(stack: &Stack, begun: Timestamp, report: &mut Report) -> Result<(), Error> {
    let audited = run(stack, begun).await?;
    for violation in violations(&audited) {
        report.violations.add(|| violation);
    }
    let count = |of: fn(&Book) -> u64| {
        let sum: u64 = audited.books.iter().map(of).sum();
        usize::try_from(sum).unwrap_or(usize::MAX)
    };
    let conflicts = count(|book| book.conflicts);
    report.audited = count(Book::received);
    if report.audited - conflicts != report.stored {
        let (audited, stored) = (report.audited - conflicts, report.stored);
        report
            .violations
            .add(|| format!("the books count {audited} events, and the table holds {stored}"));
    }
    Ok(())
}

/// Audits what was received since `begun`, and the complete table.
pub(super) async fn run(stack: &Stack, begun: Timestamp) -> Result<Audit, Error> {
    let scope = Scope {
        provider: None,
        shop: None,
        from: begun - MARGIN,
        to: Timestamp::now() + MARGIN,
        scan: true,
        repair: false,
    };
    audit(&scope, async |payload| stack.invoke(REDRIVE, &payload).await, |_| {}).await
}

/// Describes each fault, and the books that do not balance.
pub(super) fn violations(audited: &Audit) -> Vec<String> {
    let faults = audited.faults.iter().map(|fault| {
        let event_id = fault.event_id.as_deref().unwrap_or("a day");
        format!("{event_id} has the fault {}: {}", fault.fault, fault.description)
    });
    let books = audited.books.iter().filter(|book| !book.is_balanced()).map(|book| {
        let (provider, shop, day) = (&book.provider, &book.shop, &book.day);
        format!("the books of {provider}, {shop}, {day} do not balance: {book:?}")
    });
    faults.chain(books).collect()
}
