use benches::fabric_bed::FabricBed;
use rdma_host::{
    MemoryMode,
    wire::{MetadataFormat, NamespaceId},
};
use scripted_target::{BLOCKS, Size};

use super::*;
use crate::bench::counters::Stages;

const DEPTH: usize = 32;
const COMMANDS: u64 = 320;

/// Reports of a worker that executes the commands, with `before_poll` called before each poll.
fn reports(
    interval: Duration,
    mut before_poll: impl FnMut() + Send + 'static,
) -> Vec<IntervalReport> {
    let size = Size { entries: 128, queues: 1 };
    let (bed, mut poller) = FabricBed::polled(size, MemoryMode::Pool, || 0);
    let mut target = bed.target;
    bed.device.set_before_poll(move || {
        before_poll();
        // So that one poll finds all responses.
        (0..3).for_each(|_| target.serve_once());
    });
    let buffers = bed.controller.allocate_many(DEPTH, 4096).unwrap();
    let namespace = NamespaceInfo {
        id: NamespaceId(1),
        blocks: BLOCKS as u64,
        block_size: 512,
        metadata: MetadataFormat::default(),
        nguid: None,
        eui64: None,
        uuid: None,
        command_set: 0,
        ana_group: 0,
    };
    let _context = bed.runtime.enter();
    random_reads(&mut poller, buffers, namespace, COMMANDS, interval).unwrap()
}

#[test]
fn a_worker_reports_each_command_that_it_completed() {
    let mut reports = reports(HOUR, || {});
    assert_eq!(reports.len(), 1);
    let IntervalReport { counters, ended, .. } = reports.remove(0);
    assert_eq!((counters.total().completed, counters.total().bytes), (COMMANDS, COMMANDS * 4096));
    assert_eq!((counters.stages.count, counters.unfinished), (COMMANDS, 0));
    let Stages { queue, submit, doorbell, wire_and_target, completion, .. } = counters.stages;
    assert_eq!(queue, 0, "there are no due times");
    // Each command took its stages one after the other, and there were no more than the depth.
    let all = submit + doorbell + wire_and_target + completion;
    assert!(u128::from(all) <= ended.as_nanos() * DEPTH as u128, "{all} {ended:?}");
    assert!(submit > 0 && doorbell > 0 && completion > 0, "{:?}", counters.stages);
}

#[test]
fn intervals_that_are_over_are_reported_as_one() {
    let interval = Duration::from_millis(1);
    let mut polls = 0;
    let reports = reports(interval, move || {
        polls += 1;
        if polls == 3 {
            std::thread::sleep(50 * interval);
        }
    });
    assert_eq!(reports[0].intervals.start, 0);
    for pair in reports.windows(2) {
        assert_eq!(pair[0].intervals.end, pair[1].intervals.start);
        assert!(pair[0].ended <= pair[1].ended);
    }
    let joined = |report: &IntervalReport| report.intervals.end - report.intervals.start >= 50;
    assert!(reports.iter().any(joined), "there is no report for each interval of the pause");
    let completed = reports.iter().map(|report| report.counters.total().completed);
    assert_eq!(completed.sum::<u64>(), COMMANDS);
}
