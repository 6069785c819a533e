//! moto, an independent emulation of AWS.
//!
//! Known differences of moto 5.2 from AWS:
//! - `ClientRequestToken` is ignored: a repeated transaction is executed again.
//! - SNS does not count attributes towards 256 KiB, and accepts a larger batch.
//! - SQS accepts characters that AWS refuses.
//! - An index never lags behind its table, and no read is stale.
//! - Nothing is ever throttled, no permission is checked, nothing is encrypted.
//! - TTL never removes anything.

use std::env;
use std::process::Stdio;

use local::ACCOUNT;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A running moto without any resources. Dropping the value ends the process.
pub struct Moto {
    address: String,
    _process: Child,
}

impl Moto {
    /// Starts the `moto_server` in the variable `MOTO_SERVER` on a free port; `None` if the variable is not set.
    pub async fn start() -> Option<Self> {
        let server = env::var_os("MOTO_SERVER")?;
        let mut process = Command::new(server)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("MOTO_ACCOUNT_ID", ACCOUNT)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("MOTO_SERVER is the path of moto_server");
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let mut said = Vec::new();
        let address = loop {
            let line = lines.next_line().await.expect("text");
            let line = line.unwrap_or_else(|| panic!("moto did not start: {}", said.join("\n")));
            if let Some((_, address)) = line.split_once("Running on http://") {
                break address
                    .trim_end_matches(|character: char| !character.is_ascii_digit())
                    .to_owned();
            }
            said.push(line);
        };
        // A full pipe would block moto.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Self {
            address,
            _process: process,
        })
    }

    /// The host and port of the server.
    pub fn address(&self) -> &str {
        &self.address
    }
}
