//! The worker of `nvmf bench` alone, for programs that count what it costs.

use std::{
    sync::{Arc, atomic::AtomicU64, mpsc},
    time::Duration,
};

use quanta::Instant;
use rdma_host::{Buffer, Poller, Provider, WaitMode, wire::NamespaceInfo};

use super::{
    arguments::AccessPattern,
    block_sizes::BlockSizes,
    command_generator::{CommandGenerator, GeneratorOptions},
    random_distribution::RandomDistribution,
    worker::{IntervalReport, Schedule, StopConditions, Worker},
};
use crate::{failure::Failure, shutdown::ShutdownSignal};

/// Longer than any measurement.
const HOUR: Duration = Duration::from_secs(3600);

/// Reads 4 KiB at random offsets through the loop of a worker of `nvmf bench`, which polls, with as
/// many commands in flight as there are `buffers`. Returns the number of those that completed:
/// `commands`. Must be called in the context of a Tokio runtime, but not from a task.
///
/// # Errors
///
/// The first failure of a command or of the controller.
pub fn execute_random_reads<P: Provider>(
    poller: &mut Poller<P>,
    buffers: Vec<Buffer>,
    namespace: NamespaceInfo,
    commands: u64,
) -> Result<u64, Failure> {
    let reports = random_reads(poller, buffers, namespace, commands, HOUR)?;
    Ok(reports.iter().map(|report| report.counters.total().completed).sum())
}

/// Reports of the intervals in which the worker executes these reads.
fn random_reads<P: Provider>(
    poller: &mut Poller<P>,
    buffers: Vec<Buffer>,
    namespace: NamespaceInfo,
    commands: u64,
    interval: Duration,
) -> Result<Vec<IntervalReport>, Failure> {
    let conditions = StopConditions {
        failed: Arc::default(),
        shutdown: ShutdownSignal::catch()?,
        steady: Arc::default(),
        submitted_bytes: AtomicU64::new(0),
        bytes_max: commands * 4096,
    };
    let generator = GeneratorOptions {
        pattern: AccessPattern::Randread,
        distribution: RandomDistribution::default(),
        read_percent: 100,
        block_sizes: &BlockSizes::default(),
        namespace,
        region_start: 0,
        region_bytes: namespace.bytes(),
        seed: 1,
        stream: 0,
        verify: false,
    };
    let start = Instant::now();
    let (reports, received) = mpsc::channel();
    let worker = Worker {
        target: 0,
        cpu: None,
        wait: WaitMode::Poll,
        machine_is_busy: true,
        workers: 1,
        generator: CommandGenerator::new(generator, 0, 1),
        arrivals: None,
        buffers: vec![buffers],
        schedule: Schedule { start, begin: start, end: start + HOUR, interval },
        conditions: &conditions,
        reports,
        recording_ns: Arc::default(),
    };
    worker.run(poller)?;
    Ok(received.into_iter().collect())
}

#[cfg(test)]
mod tests;
