//! Runs one point on all targets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
        mpsc,
    },
    thread,
};

use quanta::Instant;
use rdma_host::{Buffer, Provider};

use super::{
    arguments::Arguments,
    arrivals::Arrivals,
    command_generator::{CommandGenerator, GeneratorOptions},
    progress::Progress,
    rank_position::RankPosition,
    recorder::{Outcome, Recorder},
    sweep_points::Point,
    worker::{Schedule, StopConditions, Worker},
};
use crate::{
    failure::Failure,
    load::{self, Load, LoadQueue, join_all},
};

/// Measures until the end of the schedule, a stop condition, a signal or a failure; what ended the
/// measurement early is in the outcome. The schedule begins at the time that `start` returns, which
/// is called once all is prepared. Fails if nothing was measured.
pub(super) fn measure<P: Provider>(
    loads: &mut [Load<P>],
    arguments: &Arguments,
    point: &Point,
    rank: RankPosition,
    start: impl FnOnce() -> Result<Instant, Failure>,
) -> Result<Outcome, Failure> {
    let buffers: Vec<_> =
        loads.iter().map(|load| buffers(load, point)).collect::<Result<_, _>>()?;
    let workers = loads.iter().map(Load::threads).sum();
    let (sender, reports) = mpsc::channel();
    let steady = Arc::new(AtomicBool::new(false));
    let machine_is_busy = load::machine_is_busy();
    let start = start()?;
    let mut recorder =
        Recorder::new(arguments, point.rate.is_some(), loads.len(), workers, Arc::clone(&steady));
    let schedule = schedule(arguments, start);
    let failed = Arc::new(AtomicBool::new(false));
    let conditions: Vec<_> =
        loads.iter().map(|load| stop_conditions([&failed, &steady], load, arguments)).collect();
    let shutdown = loads[0].shutdown.clone();
    let ended = thread::scope(|scope| {
        let mut threads = Vec::new();
        let cpus = arguments.load.cpus.as_ref();
        for (target, (load, buffers)) in loads.iter_mut().zip(buffers).enumerate() {
            let options = generator_options(load, arguments, point, rank);
            let (wait, count) = (load.options.wait, load.threads());
            for (index, (queue, buffers)) in
                load.thread_queues().iter_mut().zip(buffers).enumerate()
            {
                let arrivals = point
                    .rate
                    .map(|rate| Arrivals::new(rate, arguments.arrival(), index, count, rank));
                let [among, all] = rank.worker(index, count);
                let worker = Worker {
                    target,
                    cpu: cpus.map(|cpus| cpus.for_thread(threads.len())),
                    wait,
                    machine_is_busy,
                    workers,
                    generator: CommandGenerator::new(options, among, all),
                    arrivals,
                    buffers,
                    schedule,
                    conditions: &conditions[target],
                    reports: sender.clone(),
                    recording_ns: recorder.recording_ns(),
                };
                threads.push(scope.spawn(move || run(worker, queue)));
            }
        }
        drop(sender);
        recorder.record(&reports, &Progress::new(arguments, rank.rank == 0));
        join_all(threads)
    });
    let failure = ended.err().or_else(|| shutdown.get().map(Failure::interrupted));
    let outcome = Outcome { machine_was_busy: machine_is_busy, failure, ..recorder.finish() };
    let completed = outcome.total.total().completed;
    if completed == 0 { Err(nothing_completed(outcome)) } else { Ok(outcome) }
}

fn run<P: Provider>(worker: Worker<'_>, queue: &mut LoadQueue<P>) -> Result<(), Failure> {
    match queue {
        LoadQueue::Controller(poller) => worker.run(&mut **poller),
        LoadQueue::Subsystem(queue) => worker.run(&mut **queue),
    }
}

/// Cause for which there are no results.
fn nothing_completed(outcome: Outcome) -> Failure {
    let seconds = outcome.elapsed.as_secs_f64();
    let starved = match outcome.total.scheduling.starved.as_secs_f64() {
        0.0 => String::new(),
        starved => format!(", and the threads got no processor for {starved:.1} s of that"),
    };
    let nothing = || Failure::failed(format!("nothing completed in {seconds:.1} s{starved}"));
    outcome.failure.unwrap_or_else(nothing)
}

fn schedule(arguments: &Arguments, start: Instant) -> Schedule {
    let begin = start + arguments.ramp;
    Schedule { start, begin, end: begin + arguments.runtime, interval: arguments.interval() }
}

fn stop_conditions<P: Provider>(
    [failed, steady]: [&Arc<AtomicBool>; 2],
    load: &Load<P>,
    arguments: &Arguments,
) -> StopConditions {
    StopConditions {
        failed: Arc::clone(failed),
        steady: Arc::clone(steady),
        shutdown: load.shutdown.clone(),
        submitted_bytes: AtomicU64::new(0),
        bytes_max: arguments.io_size.unwrap_or(u64::MAX),
    }
}

fn generator_options<'a, P: Provider>(
    load: &Load<P>,
    arguments: &Arguments,
    point: &'a Point,
    rank: RankPosition,
) -> GeneratorOptions<'a> {
    let region = arguments.region(load.namespace.bytes(), point, rank);
    GeneratorOptions {
        pattern: arguments.rw,
        read_percent: arguments.read_percent(),
        block_sizes: &point.bs,
        distribution: arguments.random_distribution(),
        namespace: load.namespace,
        region_start: region.start,
        region_bytes: region.end - region.start,
        seed: arguments.load.seed,
        stream: rank.stream(),
        verify: arguments.verify,
    }
}

/// Buffers of each thread for each size of command: as many as commands may be in flight.
fn buffers<P: Provider>(load: &Load<P>, point: &Point) -> Result<Vec<Vec<Vec<Buffer>>>, Failure> {
    let of_thread = |queues: usize| {
        let sizes = point.bs.sizes().map(|bytes| {
            let bytes = usize::try_from(bytes).map_err(Failure::usage)?;
            Ok(load.controller.allocate_many(queues * load.depth, bytes)?)
        });
        sizes.collect::<Result<_, Failure>>()
    };
    load.queues_of_threads().map(of_thread).collect()
}
