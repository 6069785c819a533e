//! What the providers do: the samples of `events/`, new orders, signatures, and Snipcart's validation call.

pub mod generator;
pub(crate) mod random;
pub mod samples;
pub mod signing;
pub mod snipcart;
