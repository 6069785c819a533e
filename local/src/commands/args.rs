//! Arguments that several commands have.

use clap::Args;
use local::Error;
use local::project::build::workspace;
use local::project::settings::{DEEPLE_PID, DEEPLE_SECRET, SHOP, TOKEN};
use local::providers::samples::Catalogue;
use local::providers::signing::Credentials;

/// What signs it.
#[derive(Debug, Args)]
pub(crate) struct Secrets {
    /// The shop in the URL
    #[arg(long, default_value = SHOP)]
    shop: String,
    /// The URL token
    #[arg(long, default_value = TOKEN)]
    token: String,
    /// Deeple's project id
    #[arg(long, default_value = DEEPLE_PID)]
    pid: String,
    /// Deeple's secret, or ABOUT YOU's client secret
    #[arg(long, default_value = DEEPLE_SECRET)]
    secret: String,
    /// Snipcart's request token [default: a new one that the local stand-in takes for genuine]
    #[arg(long)]
    request_token: Option<String>,
    /// The header for ABOUT YOU's signature, where the shop demands one
    #[arg(long)]
    signature_header: Option<String>,
}

impl Secrets {
    pub(super) fn credentials(&self) -> Credentials {
        Credentials {
            shop: self.shop.clone(),
            token: self.token.clone(),
            pid: self.pid.clone(),
            secret: self.secret.clone(),
            request_token: self.request_token.clone(),
            signature_header: self.signature_header.clone(),
        }
    }
}

/// The local stack's ports.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Ports {
    /// The gateway's port
    #[arg(long, default_value_t = 9000)]
    pub(super) port: u16,
    /// DynamoDB's port
    #[arg(long, default_value_t = 8000)]
    pub(super) dynamodb_port: u16,
    /// The port of SNS and SQS
    #[arg(long, default_value_t = 4566)]
    pub(super) sns_port: u16,
}

pub(super) fn catalogue() -> Result<Catalogue, Error> {
    Catalogue::read(workspace().join("events"))
}

/// A rate on the command line.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 10_000.0 => Ok(rate),
        _ => Err("it has to be a number over 0, at most 10000".to_owned()),
    }
}
