//! The code that all functions of order-webhooks share.
//!
//! The flow of a delivery is written once, in [`receiver`] and [`intake`]:
//!
//! ```text
//! Delivery -> verify -> Verified<Delivery> -> identify + normalize -> store -> publish -> mark published -> answer
//! ```
//!
//! Each provider's crate implements [`Provider`]; this crate knows no provider.
//!
//! Without the feature `receiver`, which is on by default, the crate contains only the event and the state of an order: the
//! types with which a consumer reads them, and no AWS SDK.

#[cfg(feature = "receiver")]
pub mod alert;
#[cfg(feature = "receiver")]
pub mod answer;
#[cfg(feature = "receiver")]
mod aws;
#[cfg(feature = "receiver")]
pub mod callback;
#[cfg(feature = "receiver")]
pub mod classify;
#[cfg(feature = "receiver")]
pub mod codes;
#[cfg(feature = "receiver")]
pub mod delivery;
pub mod digest;
#[cfg(feature = "receiver")]
pub mod drift;
pub mod event;
#[cfg(feature = "receiver")]
mod function;
#[cfg(feature = "receiver")]
mod http;
#[cfg(feature = "receiver")]
pub mod http_event;
pub mod identity;
#[cfg(feature = "receiver")]
pub mod intake;
#[cfg(feature = "receiver")]
mod moment;
pub mod money;
#[cfg(feature = "receiver")]
mod notes;
#[cfg(feature = "receiver")]
pub mod order_api;
pub mod order_state;
#[cfg(feature = "receiver")]
pub mod payload;
#[cfg(feature = "receiver")]
pub mod provider;
#[cfg(feature = "receiver")]
pub mod published_state;
#[cfg(feature = "receiver")]
pub mod publisher;
#[cfg(feature = "receiver")]
pub mod receiver;
#[cfg(feature = "receiver")]
pub mod reconciliation;
#[cfg(feature = "receiver")]
pub mod secrets;
#[cfg(feature = "receiver")]
pub mod settings;
#[cfg(feature = "receiver")]
pub mod store;
#[cfg(feature = "receiver")]
pub mod telemetry;
#[cfg(feature = "receiver")]
pub mod verification;

#[cfg(feature = "receiver")]
pub use function::{log_to_standard_output, run};
#[cfg(feature = "receiver")]
pub use provider::Provider;
