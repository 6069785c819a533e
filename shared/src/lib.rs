//! What every function of order-webhooks shares.
//!
//! A delivery goes one way, written once in [`receiver`]:
//!
//! ```text
//! Delivery -> verify -> Verified<Delivery> -> identify + normalize -> store -> publish -> mark published -> answer
//! ```
//!
//! A provider's folder implements [`Provider`]; this crate knows no provider.

pub mod answer;
mod aws;
pub mod callback;
pub mod delivery;
pub mod event;
pub mod identity;
pub mod money;
pub mod payload;
pub mod provider;
pub mod publisher;
pub mod receiver;
pub mod secrets;
pub mod settings;
pub mod store;
pub mod understanding;
pub mod verification;

pub use provider::Provider;

use lambda_http::{Body, Error, Request, RequestExt as _, Response, service_fn};

use crate::answer::Refusal;
use crate::receiver::Receiver;
use crate::settings::Settings;

/// Runs the function of one provider.
///
/// Init never fails: a fault found there is answered as 500 to every delivery, and the provider sends again.
///
/// # Errors
/// Where the Lambda Runtime API is gone.
pub async fn run<P: Provider>() -> Result<(), Error> {
    log_to_standard_output();
    let receiver = Receiver::<P>::from_settings(&Settings::from_environment());
    match &receiver {
        Ok(receiver) => receiver.prepare().await,
        Err(error) => tracing::error!(provider = P::NAME, cause = %error, "the function is not set up correctly"),
    }
    let receiver = &receiver;
    lambda_http::run(service_fn(|request: Request| async move {
        let answer: Response<Body> = match receiver {
            Ok(receiver) => receiver.answer(request).await,
            Err(error) => Refusal::Misconfigured(error.to_string()).into_response(&request.lambda_context().request_id),
        };
        Ok::<_, Error>(answer)
    }))
    .await
}

/// One line of JSON on standard output for each thing that happened: what CloudWatch reads.
pub fn log_to_standard_output() {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_current_span(false)
        .with_span_list(false)
        .init();
}
