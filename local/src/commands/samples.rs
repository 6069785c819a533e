//! `cargo local event` and `cargo local list`.

use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use local::Error;
use local::providers::signing::sign;

use super::args::{Secrets, catalogue};

/// Selects an event.
#[derive(Debug, Args)]
pub(crate) struct Event {
    /// The provider, such as snipcart
    provider: String,
    /// The name of the event, such as order-completed
    #[arg(value_name = "EVENT")]
    name: String,
    #[command(flatten)]
    secrets: Secrets,
}

pub(super) fn event(options: &Event) -> Result<(), Error> {
    let mut fixture = catalogue()?.event(&options.provider, &options.name)?;
    sign(&mut fixture, &options.secrets.credentials(), Timestamp::now())?;
    // A reader that closes early, such as `head`, is not an error.
    let _ = writeln!(std::io::stdout().lock(), "{:#}", fixture.event);
    Ok(())
}

pub(super) fn list() -> Result<(), Error> {
    let mut output = std::io::stdout().lock();
    for (provider, events) in catalogue()?.names() {
        let _ = writeln!(output, "{provider}\n  {}", events.join("\n  "));
    }
    Ok(())
}
