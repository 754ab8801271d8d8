use std::sync::mpsc;

use ::tests::target::{BLOCKS, Size};
use benches::fabric_bed::{Device, FabricBed};
use rdma_host::{
    MemoryMode,
    wire::{NamespaceId, NamespaceInfo},
};

use super::*;
use crate::bench::{
    arguments::AccessPattern, block_sizes::BlockSizes, command_generator::GeneratorOptions,
    counters::Stages, random_distribution::RandomDistribution,
};

const DEPTH: usize = 32;
const HOUR: Duration = Duration::from_secs(3600);

/// Commands for the worker: as many as `benches/instructions` says, which counts its instructions.
fn commands() -> u64 {
    let commands = std::env::var("NVMF_COUNTED_COMMANDS");
    commands.ok().map_or(320, |commands| commands.parse().expect("a number"))
}

fn generator() -> CommandGenerator {
    let namespace = NamespaceInfo {
        id: NamespaceId(1),
        blocks: BLOCKS as u64,
        block_size: 512,
        nguid: None,
        eui64: None,
        uuid: None,
        command_set: 0,
        ana_group: 0,
    };
    let options = GeneratorOptions {
        pattern: AccessPattern::Randread,
        distribution: RandomDistribution::default(),
        read_percent: 100,
        block_sizes: &BlockSizes::default(),
        namespace,
        region_bytes: namespace.bytes(),
        seed: 1,
        verify: false,
    };
    CommandGenerator::new(options, 0, 1)
}

#[test]
fn a_worker_reports_each_command_that_it_completed() {
    let size = Size { entries: 128, queues: 1 };
    let (bed, mut poller) = FabricBed::polled(size, MemoryMode::Pool, || 0);
    let mut target = bed.target;
    // So that one poll finds all responses.
    bed.device.set_before_poll(move || (0..3).for_each(|_| target.serve_once()));
    let buffers = vec![bed.controller.allocate_many(DEPTH, 4096).unwrap()];
    let (commands, start) = (commands(), Instant::now());
    let conditions = StopConditions {
        failed: Arc::default(),
        shutdown: bed.runtime.block_on(async { ShutdownSignal::catch() }).unwrap(),
        steady: Arc::default(),
        submitted_bytes: AtomicU64::new(0),
        bytes_max: commands * 4096,
    };
    let (sender, reports) = mpsc::channel();
    let worker = Worker {
        target: 0,
        cpu: None,
        poller: &mut poller,
        wait: WaitMode::Poll,
        machine_is_busy: true,
        workers: 1,
        generator: generator(),
        arrivals: None,
        buffers,
        schedule: Schedule { start, begin: start, end: start + HOUR, interval: HOUR },
        conditions: &conditions,
        reports: sender,
    };
    counted_worker(worker).unwrap();
    let IntervalReport { counters, ended, .. } = reports.recv().unwrap();
    assert!(reports.recv().is_err(), "there is one interval");
    assert_eq!((counters.total().completed, counters.total().bytes), (commands, commands * 4096));
    assert_eq!((counters.stages.count, counters.unfinished), (commands, 0));
    let Stages { queue, submit, doorbell, wire_and_target, completion, .. } = counters.stages;
    assert_eq!(queue, 0, "there are no due times");
    // Each command took its stages one after the other, and there were no more than the depth.
    let all = submit + doorbell + wire_and_target + completion;
    assert!(u128::from(all) <= ended.as_nanos() * DEPTH as u128, "{all} {ended:?}");
    assert!(submit > 0 && doorbell > 0 && completion > 0, "{:?}", counters.stages);
}

/// Named for `benches/instructions`, which counts what is called from here.
#[inline(never)]
fn counted_worker(worker: Worker<'_, Device>) -> Result<(), Failure> {
    worker.run()
}
