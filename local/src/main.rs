//! `cargo local`: runs the system on this machine, and sends events to it.
#![allow(clippy::print_stdout, reason = "a command writes to standard output")]

mod commands;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match commands::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
