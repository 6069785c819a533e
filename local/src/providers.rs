//! What the providers do: the samples of `events/`, new orders, signatures, Snipcart's validation call, the order APIs,
//! and subscriptions.

pub mod generator;
pub mod lifecycle;
pub mod order_apis;
pub mod order_book;
pub(crate) mod random;
pub mod samples;
pub mod signing;
pub mod snipcart;
pub mod subscriptions;
