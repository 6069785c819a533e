//! Arguments that several commands share.

use clap::Args;
use local::Error;
use local::project::build::workspace;
use local::project::settings::{DEEPLE_PID, DEEPLE_SECRET, SHOP, TOKEN};
use local::providers::samples::Catalogue;
use local::providers::signing::Credentials;

/// The credentials that sign an event.
#[derive(Debug, Args)]
pub(crate) struct Secrets {
    /// The shop in the URL
    #[arg(long, default_value = SHOP)]
    shop: String,
    /// The URL token
    #[arg(long, default_value = TOKEN)]
    token: String,
    /// The project id at Deeple
    #[arg(long, default_value = DEEPLE_PID)]
    pid: String,
    /// The secret of Deeple, or the client secret of ABOUT YOU
    #[arg(long, default_value = DEEPLE_SECRET)]
    secret: String,
    /// The request token of Snipcart [default: a new one that the local stand-in accepts]
    #[arg(long)]
    request_token: Option<String>,
    /// The header for the signature of ABOUT YOU, if the shop requires one
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

/// The ports of the local stack.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Ports {
    /// The port of the gateway
    #[arg(long, default_value_t = 9000)]
    pub(super) port: u16,
    /// The port of DynamoDB
    #[arg(long, default_value_t = 8000)]
    pub(super) dynamodb_port: u16,
    /// The port of SNS and SQS
    #[arg(long, default_value_t = 4566)]
    pub(super) sns_port: u16,
}

pub(super) fn catalogue() -> Result<Catalogue, Error> {
    Catalogue::read(workspace().join("events"))
}

/// Parses a rate.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 10_000.0 => Ok(rate),
        _ => Err("it must be a number over 0 and at most 10000".to_owned()),
    }
}
