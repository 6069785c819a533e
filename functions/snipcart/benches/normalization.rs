//! Measures how fast a body becomes an event: `cargo bench -p snipcart --bench normalization`.
//!
//! A run parses the largest order in `events/`, maps it and collects the unmapped fields. The result is the median of
//! the runs in MB of JSON per second.
#![allow(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use shared::Provider;
use shared::payload::Payload;
use shared::settings::Settings;
use snipcart::{Event, Snipcart};

const RUNS: usize = 200;
const LARGEST: &str = include_str!("../../../events/snipcart/order-completed-large.json");

fn main() {
    let event: serde_json::Value = serde_json::from_str(LARGEST).expect("the event is JSON");
    let body = event["body"].as_str().expect("the event has a body").as_bytes();
    let snipcart = Snipcart::from_settings(&Settings::from_table::<&str, &str>([])).expect("no setting is needed");
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            let payload = Payload::parse(black_box(body)).expect("the body is JSON");
            let normalized = snipcart.normalize(Event::Completed, &payload);
            black_box((normalized, payload.into_rest()));
            start.elapsed()
        })
        .collect();
    times.sort();
    let bytes = f64::from(u32::try_from(body.len()).expect("a small body"));
    let speed = |time: Duration| bytes / 1e6 / time.as_secs_f64();
    println!(
        "median {:.0} MB/s, best {:.0} MB/s, for an order of {bytes} bytes",
        speed(times[RUNS / 2]),
        speed(times[0])
    );
}
