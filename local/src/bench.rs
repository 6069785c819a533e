//! The bench: the costs of a cold start, an event and a binary, compared with implementations in other languages.
//!
//! All targets are measured in one run and in turns, so that a busy machine is busy for all. The AWS endpoints answer
//! at once and always the same, so that the time of the function itself remains. Times are medians.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use crate::Error;

mod aws;
pub mod bars;
pub mod growth;
pub mod process;
pub mod report;
pub mod size;
pub mod targets;

use aws::Aws;
use process::Target;
use report::{Figures, Table};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often each target is started.
    pub runs: usize,
    /// The number of warm events for each start.
    pub events: usize,
}

/// Starts each target in turn, again and again, and sums up. With `tls`, a folder for certificates, calls use TLS.
pub async fn measure(targets: &[Target], plan: Plan, tls: Option<&Path>, tick: &dyn Fn()) -> Result<Table, Error> {
    let aws = Aws::start(tls).await?;
    let mut samples: Vec<Vec<Sample>> = targets.iter().map(|_| Vec::new()).collect();
    // The first start of each target reads its files from the disk, and does not count.
    for round in 0..=plan.runs {
        for (target, samples) in targets.iter().zip(&mut samples) {
            let sample = once(target, &aws, plan.events).await?;
            if round > 0 {
                samples.push(sample);
                tick();
            }
        }
    }
    let figures = samples.iter().map(|samples| Figures::of(samples));
    Ok(targets.iter().map(|target| target.name.clone()).zip(figures).collect())
}

/// The figures of one start.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// From the start to the first call to a service.
    quiet: Option<Duration>,
    /// From the start to the request for the first event.
    init: Duration,
    /// From the first event to its answer.
    first: Duration,
    /// From the start to the first answer.
    start_to_answer: Duration,
    /// The times of the later events.
    warm: Vec<Duration>,
    /// The processor time of a later event.
    cpu: Option<Duration>,
    /// The processor time of the start, including the first answer.
    cpu_of_start: Option<Duration>,
    /// The peak memory in KiB.
    peak_memory: Option<u64>,
    /// The mean number of calls to services for each later event.
    calls: f64,
}

async fn once(target: &Target, aws: &Aws, events: usize) -> Result<Sample, Error> {
    aws.take_seen();
    let mut process = target.start(aws, &[]).await?;
    let quiet = aws.take_seen().first.map(|first| first - process.started);
    let (answered, first) = process.invoke(&target.event).await?;
    let mut sample = Sample {
        quiet,
        init: process.ready - process.started,
        first,
        start_to_answer: answered - process.started,
        cpu_of_start: process.cpu(),
        ..Sample::default()
    };
    // The first events warm up compilers at run time and buffers.
    for _ in 0..events / 10 {
        process.invoke(&target.event).await?;
    }
    aws.take_seen();
    let before = process.cpu();
    for _ in 0..events {
        sample.warm.push(process.invoke(&target.event).await?.1);
    }
    let spent = process
        .cpu()
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before));
    let count = u32::try_from(events).unwrap_or(u32::MAX);
    sample.cpu = spent.and_then(|spent| spent.checked_div(count));
    sample.calls = f64::from(aws.take_seen().calls.values().sum::<u32>()) / f64::from(count.max(1));
    sample.peak_memory = process.peak_memory();
    process.end().await;
    Ok(sample)
}

/// The times of `count` events.
async fn several(process: &mut process::Process, event: &Bytes, count: usize) -> Result<Vec<Duration>, Error> {
    let mut times = Vec::new();
    for _ in 0..count {
        times.push(process.invoke(event).await?.1);
    }
    Ok(times)
}
