//! Reads a JSON list of events from standard input, and prints the state of each order.
//!
//! ```sh
//! cargo run --package consumer --bin order-state <events.json
//! ```
#![allow(clippy::print_stdout, reason = "the states on standard output are the result")]

use std::error::Error;
use std::io;

use serde_json::Value;
use shared::identity::EventId;
use shared::order_state::History;

fn main() -> Result<(), Box<dyn Error>> {
    let events: Vec<Value> = serde_json::from_reader(io::stdin())?;
    let mut history = History::default();
    for event in events {
        if event["erased"] == true {
            let id = event["id"].as_str().and_then(EventId::parse);
            history.erase(id.ok_or("the tombstone has no id")?);
        } else {
            history.add_value(event)?;
        }
    }
    println!("{}", serde_json::to_string(&history.states())?);
    Ok(())
}
