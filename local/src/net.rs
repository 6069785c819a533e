//! HTTP servers and clients, and connections that can be damaged.

pub mod client;
pub mod server;
pub mod wire;
