//! How the figures grow with the size of a body and with the number of environments.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use serde_json::Value;

use super::aws::Aws;
use super::process::Target;
use super::report::{mebibytes, milliseconds};
use super::several;
use crate::Error;
use crate::providers::samples::Fixture;
use crate::stats::median;

/// The sizes of the bodies in bytes. The last is the largest that a function accepts.
pub const BODIES: [usize; 5] = [10_000, 100_000, 500_000, 2_000_000, 5_000_000];
/// The numbers of environments that run at the same time.
pub const CROWDS: [usize; 4] = [1, 5, 20, 50];

/// The figures for one size of body.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    /// The size of the body in bytes.
    pub bytes: usize,
    /// The time of an event in milliseconds.
    pub warm: f64,
    /// The processor time of an event in milliseconds.
    pub cpu: Option<f64>,
    /// The peak memory of the process in MiB.
    pub peak_memory: Option<f64>,
}

/// The figures for one number of environments.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// The number of environments.
    pub environments: usize,
    /// The events that all of them handle in a second.
    pub per_second: f64,
    /// The time of an event in milliseconds.
    pub warm: f64,
}

/// Sends bodies of each size: a large order of Snipcart, with its items repeated until the size is reached.
pub async fn bodies(
    target: &Target,
    large: &Fixture,
    sign: impl Fn(Fixture) -> Result<bytes::Bytes, Error>,
) -> Result<Vec<Body>, Error> {
    let aws = Aws::start(None).await?;
    let mut measured = Vec::new();
    for size in BODIES {
        let mut order = large.clone();
        let body = sized(&large.body()?, size);
        let bytes = body.len();
        order.set_body(body);
        let event = sign(order)?;
        let mut process = target.start(&aws, &[]).await?;
        process.invoke(&event).await?;
        let before = process.cpu();
        let times = several(&mut process, &event, 10).await?;
        let spent = process
            .cpu()
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before) / 10);
        measured.push(Body {
            bytes,
            warm: milliseconds(median(times)),
            cpu: spent.map(|spent| milliseconds(Some(spent))),
            peak_memory: process.peak_memory().map(mebibytes),
        });
        process.end().await;
    }
    Ok(measured)
}

/// Repeats the items of an order as often as fits into `size` bytes.
fn sized(body: &[u8], size: usize) -> Vec<u8> {
    let Ok(mut order) = serde_json::from_slice::<Value>(body) else {
        return body.to_vec();
    };
    let items = order["content"]["items"].as_array().cloned().unwrap_or_default();
    let mut room = size.saturating_sub(order.to_string().len() - order["content"]["items"].to_string().len());
    let fitting = items.iter().cycle().map_while(|item| {
        room = room.checked_sub(item.to_string().len() + 1)?;
        Some(item.clone())
    });
    order["content"]["items"] = if items.is_empty() {
        Value::Null
    } else {
        fitting.collect()
    };
    order.to_string().into_bytes()
}

/// Runs each number of environments at the same time, each with one event after another for two seconds.
pub async fn crowds(target: &Target) -> Result<Vec<Crowd>, Error> {
    const TIME: Duration = Duration::from_secs(2);
    let aws = Aws::start(None).await?;
    let mut measured = Vec::new();
    for environments in CROWDS {
        let mut processes = Vec::new();
        for _ in 0..environments {
            let mut process = target.start(&aws, &[]).await?;
            process.invoke(&target.event).await?;
            processes.push(process);
        }
        let begun = Instant::now();
        let runs = processes.iter_mut().map(|process| async {
            let mut times = Vec::new();
            while begun.elapsed() < TIME {
                times.push(process.invoke(&target.event).await?.1);
            }
            Ok::<_, Error>(times)
        });
        let times = try_join_all(runs).await?.concat();
        let taken = begun.elapsed();
        let events = f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX));
        measured.push(Crowd {
            environments,
            per_second: events / taken.as_secs_f64(),
            warm: milliseconds(median(times)),
        });
        for process in processes {
            process.end().await;
        }
    }
    Ok(measured)
}
