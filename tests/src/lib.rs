//! The harness of the tests.
//!
//! Every end-to-end test has a local stack of its own ([`Stack`]) on free ports, with an empty table and the real
//! binaries of the functions. If `MOTO_SERVER` is set, the stack calls moto in place of its own DynamoDB, SNS and SQS.

pub mod alerts;
pub mod authentic;
pub mod authentication;
pub mod aws_cli;
pub mod browser;
pub mod consumer;
pub mod moto;
pub mod outbox;
pub mod payloads;
pub mod providers;
pub mod reader;
pub mod reconciliation;
pub mod secrets_manager;
pub mod stack;
pub mod table;
pub mod telemetry;
pub mod yaml;

use std::io::Write as _;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use local::project::build::{Binaries, Output, workspace};
use local::providers::samples::{Catalogue, Fixture};
use serde_json::Value;
use tokio::process::Command;

pub use providers::{ORDERS, order_of};
pub use stack::{Answer, Stack, freeze, thaw};
pub use table::{Item, state};

/// The JSON body of an event.
///
/// # Panics
/// If the body is not JSON.
pub fn json_body(fixture: &Fixture) -> Value {
    serde_json::from_slice(&fixture.body().expect("a body")).expect("JSON")
}

/// A body, compressed by gzip.
pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

/// Text that does not compress: random bytes in base64, the same in every run.
pub fn noise(length: usize) -> String {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        // splitmix64
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    })
    .flatten()
    .take(length * 3 / 4)
    .collect();
    STANDARD.encode(bytes)
}

/// The binaries of the workspace, built from the current sources once in each test process.
pub fn binaries() -> &'static Binaries {
    static BINARIES: OnceLock<Binaries> = OnceLock::new();
    BINARIES.get_or_init(|| {
        let built = Binaries::build(&workspace(), Output::Diagnostics);
        built.unwrap_or_else(|error| panic!("{error}"))
    })
}

/// A command that runs the binary of `cargo local`.
pub fn local_command() -> Command {
    Command::new(binaries().get("local").expect("the binary is built"))
}

/// The events of `events/`.
pub fn catalogue() -> Catalogue {
    Catalogue::read(workspace().join("events")).expect("events/")
}
