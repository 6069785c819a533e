//! The documents that describe both sides, held to the code: what providers send and are answered, and what consumers
//! get.

mod alarms;
mod asyncapi;
mod document;
mod event_schema;
mod generated_orders;
mod openapi;
mod state_schema;
