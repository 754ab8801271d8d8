use benches::fabric_bed::FabricBed;
use rdma_host::{MemoryMode, wire::NamespaceId};
use scripted_target::{BLOCKS, Size};

use super::*;
use crate::bench::counters::Stages;

const DEPTH: usize = 32;
const COMMANDS: u64 = 320;

#[test]
fn a_worker_reports_each_command_that_it_completed() {
    let size = Size { entries: 128, queues: 1 };
    let (bed, mut poller) = FabricBed::polled(size, MemoryMode::Pool, || 0);
    let mut target = bed.target;
    // So that one poll finds all responses.
    bed.device.set_before_poll(move || (0..3).for_each(|_| target.serve_once()));
    let buffers = bed.controller.allocate_many(DEPTH, 4096).unwrap();
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
    let _context = bed.runtime.enter();
    let report = random_reads(&mut poller, buffers, namespace, COMMANDS).unwrap();
    let IntervalReport { counters, ended, .. } = report;
    assert_eq!((counters.total().completed, counters.total().bytes), (COMMANDS, COMMANDS * 4096));
    assert_eq!((counters.stages.count, counters.unfinished), (COMMANDS, 0));
    let Stages { queue, submit, doorbell, wire_and_target, completion, .. } = counters.stages;
    assert_eq!(queue, 0, "there are no due times");
    // Each command took its stages one after the other, and there were no more than the depth.
    let all = submit + doorbell + wire_and_target + completion;
    assert!(u128::from(all) <= ended.as_nanos() * DEPTH as u128, "{all} {ended:?}");
    assert!(submit > 0 && doorbell > 0 && completion > 0, "{:?}", counters.stages);
}
