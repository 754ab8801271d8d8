//! Load on the I/O queues of one target, for `bench` and `write-verify`.

use std::{
    fs,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ScopedJoinHandle, available_parallelism},
    time::Duration,
};

use clap::Args;
use quanta::Instant;
use rdma_host::{
    Buffer, Command, CommandCompletion, ConnectOptions, Controller, Poller, Provider, Subsystem,
    SubsystemOptions, SubsystemPoller, WaitMode, Waiter, error::Misuse, wire::NamespaceInfo,
};
use tokio::runtime::Handle;

use crate::{
    capture::CaptureArguments,
    command_queue::CommandQueue,
    connect,
    cpus::{self, CpuList},
    disconnects::Disconnects,
    failure::Failure,
    output,
    path_report::PathReport,
    shutdown::{InterruptibleRuntime, ShutdownSignal},
    size,
    target::TargetArguments,
};

/// Commands in flight on a queue, unless the command line or the target says otherwise.
const IODEPTH_DEFAULT: u16 = 32;
/// Bytes of a command, unless the command line or the controller says otherwise.
const BLOCK_BYTES_DEFAULT: u64 = 64 << 10;
/// Time for commands in flight to complete once a signal or a failure has ended the load.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Source of commands of one worker, and receiver of their completions.
pub(crate) trait Workload: Send {
    /// Next command, which uses the buffer; or the buffer back, if there is none now.
    fn next(&mut self, buffer: Buffer) -> Result<Command, Buffer>;

    /// Handles a completion, and returns the buffer for another command.
    fn complete(&mut self, completion: CommandCompletion) -> Result<Buffer, Failure>;

    /// True if no more commands come. Called when nothing is in flight.
    fn is_over(&self) -> bool;
}

/// Connection to one target with a queue of commands for each thread.
pub(crate) struct Load<P: Provider> {
    pub(crate) namespace: NamespaceInfo,
    /// Controller; of several paths, that of one of them.
    pub(crate) controller: Arc<Controller<P>>,
    /// Paths, if there are several.
    pub(crate) paths: Option<Subsystem<P>>,
    /// Options of the connections; the address is that of the first path.
    pub(crate) options: ConnectOptions,
    /// Addresses of all paths, between commas.
    pub(crate) addresses: String,
    pub(crate) block_bytes: usize,
    pub(crate) depth: usize,
    pub(crate) shutdown: ShutdownSignal,
    cpus: Option<CpuList>,
    runtime: Handle,
    queues: Vec<LoadQueue<P>>,
    disconnects: Arc<Mutex<Disconnects>>,
}

/// Commands of one thread.
pub(crate) enum LoadQueue<P: Provider> {
    Controller(Box<Poller<P>>),
    Subsystem(Box<SubsystemPoller<P>>),
}

/// Controller or paths that a load sends its commands to.
struct Connected<P: Provider> {
    controller: Arc<Controller<P>>,
    paths: Option<Subsystem<P>>,
    queues: Vec<LoadQueue<P>>,
}

/// Options of all commands that make load.
#[derive(Args, Clone)]
pub(crate) struct LoadArguments {
    /// Namespace id [default: the only one].
    #[arg(long, visible_alias = "namespace-id", value_name = "N",
          value_parser = size::namespace_id)]
    ns: Option<u32>,

    /// Commands in flight on each queue [default: 32, or what the target grants if that is less].
    #[arg(long, value_name = "N", value_parser = size::in_range(1..=1023))]
    pub(crate) iodepth: Option<u16>,

    /// Threads, at most one for each queue [default: one a processor].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// Keep each thread on a processor of these, in turn, as in 0-3,8: those near the device.
    #[arg(long, value_name = "LIST")]
    pub(crate) cpus: Option<CpuList>,

    /// Start of the random numbers; two runs with one seed do the same.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    #[command(flatten)]
    pub(crate) target: TargetArguments,

    #[command(flatten)]
    pub(crate) capture: CaptureArguments,
}

impl LoadArguments {
    /// Refuses what is wrong whatever the target has, for a connection with these options.
    pub(crate) fn check(&self, options: &ConnectOptions) -> Result<(), Failure> {
        self.cpus.as_ref().map_or(Ok(()), CpuList::check)?;
        self.thread_count(options.io_queues)?;
        self.set_queue_entries(&mut options.clone())
    }

    /// Number of threads, if there are to be `queues` queues on which they can work.
    fn thread_count(&self, queues: u16) -> Result<usize, Failure> {
        let processors = match &self.cpus {
            Some(cpus) => cpus.count(),
            None => available_parallelism().map_or(1, usize::from),
        };
        match self.threads {
            Some(threads) if threads > queues => Err(Failure::usage(format!(
                "--threads {threads} is more than the I/O queues, {queues}; give --queues too"
            ))),
            threads => Ok(threads.map_or(processors, usize::from)),
        }
    }

    /// Makes queues large enough for the depth, if the command line does not say how large.
    fn set_queue_entries(&self, options: &mut ConnectOptions) -> Result<(), Failure> {
        if self.target.queue_size.is_none() {
            // One entry of a queue stays empty.
            let wanted = self.iodepth.unwrap_or(IODEPTH_DEFAULT) + 1;
            options.queue_entries = options.queue_entries.max(wanted);
        }
        match self.iodepth {
            Some(depth) if depth >= options.queue_entries => Err(Failure::usage(format!(
                "--iodepth {depth} needs --queue-size {} at least, not {}: one entry of a queue \
                 stays empty",
                depth + 1,
                options.queue_entries
            ))),
            _ => Ok(()),
        }
    }

    /// Number of commands in flight on a queue for which the target grants `granted`.
    fn depth(&self, granted: u16) -> Result<usize, Failure> {
        match self.iodepth {
            Some(asked) if asked > granted => Err(Failure::usage(format!(
                "--iodepth {asked} is more than the target grants a queue, {granted}"
            ))),
            None if granted < IODEPTH_DEFAULT => {
                output::print_message(format_args!(
                    "nvmf: depth {granted} instead of {IODEPTH_DEFAULT}: the target grants a queue \
                     no more commands"
                ));
                Ok(granted.into())
            }
            asked => Ok(asked.unwrap_or(IODEPTH_DEFAULT).into()),
        }
    }
}

impl<P: Provider> Load<P> {
    /// Connects, and checks the bytes of a command as [`check`](Self::check) does; without any,
    /// they are 64 KiB, or what the namespace and the controller allow. A signal ends that early.
    pub(crate) fn connect(
        provider: &Arc<P>,
        runtime: &InterruptibleRuntime,
        arguments: &LoadArguments,
        mut all: SubsystemOptions,
        block_bytes: Option<u64>,
    ) -> Result<Self, Failure> {
        arguments.check(all.connect())?;
        let threads = arguments.thread_count(all.connect().io_queues)?;
        arguments.set_queue_entries(all.connect_mut())?;
        let Connected { controller, paths, queues } =
            runtime.run(Connected::connect(provider, &all, threads))?;
        let namespace = runtime.run(async {
            let id = connect::namespace_id(&controller, arguments.ns).await?;
            Ok::<_, Failure>(match &paths {
                Some(paths) => paths.identify_namespace(id).await?,
                None => controller.identify_namespace(id).await?,
            })
        })?;
        Misuse::check_no_metadata(&namespace).map_err(rdma_host::Error::from)?;
        let changes = match &paths {
            Some(paths) => connect::controllers(paths).map(|path| path.changes()).collect(),
            None => vec![controller.changes()],
        };
        let negotiated = controller.negotiated();
        let block_bytes = block_bytes.unwrap_or_else(|| {
            block_bytes_default(namespace.block_size.into(), negotiated.transfer_bytes_max)
        });
        let load = Self {
            namespace,
            block_bytes: usize::try_from(block_bytes).map_err(Failure::usage)?,
            depth: arguments.depth(negotiated.queue_entries - 1)?,
            cpus: arguments.cpus.clone(),
            controller,
            paths,
            options: all.connect().clone(),
            addresses: connect::addresses(&all),
            shutdown: runtime.shutdown.clone(),
            runtime: runtime.runtime.handle().clone(),
            queues,
            disconnects: Disconnects::watch(&runtime.runtime, changes),
        };
        load.check(block_bytes)?;
        Ok(load)
    }

    /// Checks that commands of `bytes` bytes fit the namespace and the controller.
    pub(crate) fn check(&self, bytes: u64) -> Result<(), Failure> {
        let block_size = self.namespace.block_size;
        if bytes == 0 || !bytes.is_multiple_of(u64::from(block_size)) {
            return Err(Failure::usage(format!(
                "--bs {bytes} is not a multiple of the namespace's block size, {block_size} bytes"
            )));
        }
        let negotiated = self.controller.negotiated();
        let max = negotiated.transfer_bytes_max;
        if bytes > max {
            return Err(Failure::usage(format!(
                "--bs {bytes} is more than the controller takes in one command, {max} bytes"
            )));
        }
        Ok(())
    }

    /// Number of I/O queues of all threads, of several paths those of one; the last number while
    /// there is no connection.
    pub(crate) fn queues(&self) -> usize {
        usize::from(self.controller.negotiated().io_queues)
    }

    /// Number of queues of each thread; of several paths, those of one of them.
    pub(crate) fn queues_of_threads(&self) -> impl Iterator<Item = usize> + '_ {
        let (queues, threads) = (self.queues(), self.threads());
        self.queues.iter().enumerate().map(move |(index, queue)| match queue {
            LoadQueue::Controller(poller) => poller.queue_count(),
            LoadQueue::Subsystem(_) => share(queues, threads, index),
        })
    }

    /// Paths, if there are several, and what each carried since it was connected.
    pub(crate) fn path_reports(&self) -> Vec<PathReport> {
        let now = self.paths.as_ref().map(Subsystem::status);
        now.map(|now| PathReport::all(&now)).unwrap_or_default()
    }

    /// Disconnects since the load was connected.
    pub(crate) fn disconnects(&self) -> MutexGuard<'_, Disconnects> {
        self.disconnects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of threads that will run.
    pub(crate) fn threads(&self) -> usize {
        self.queues.len()
    }

    /// Runs a thread with a workload for each poller until all are over. A failure or a signal ends
    /// all of them, and is what is returned.
    pub(crate) fn run<W: Workload>(
        &mut self,
        workload: impl Fn(usize) -> W,
    ) -> Result<Vec<W>, Failure> {
        let mut workers = Vec::new();
        let (queues, threads) = (self.queues(), self.threads());
        for index in 0..threads {
            // A poller without a connection has no queues now.
            let count = share(queues, threads, index) * self.depth;
            let buffers = self.controller.allocate_many(count, self.block_bytes)?;
            workers.push((workload(index), buffers));
        }
        let (wait, cpus) = (self.options.wait, self.cpus.as_ref());
        let machine_is_busy = machine_is_busy();
        let stop = &StopCondition { shutdown: &self.shutdown, failed: AtomicBool::new(false) };
        let workloads = thread::scope(|scope| {
            let queues = self.queues.iter_mut().zip(workers).enumerate();
            let threads = queues.map(|(index, (queue, (workload, buffers)))| {
                let cpu = cpus.map(|cpus| cpus.for_thread(index));
                let run = async move {
                    let waiter = waiter(wait, threads, machine_is_busy);
                    let outcome = match queue {
                        LoadQueue::Controller(poller) => {
                            run_workload(&mut **poller, waiter, workload, buffers, stop).await
                        }
                        LoadQueue::Subsystem(queue) => {
                            run_workload(&mut **queue, waiter, workload, buffers, stop).await
                        }
                    };
                    stop.failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
                    outcome
                };
                scope.spawn(move || block_on_cpu(cpu, run))
            });
            join_all(threads.collect())
        })?;
        match self.shutdown.get() {
            None => Ok(workloads),
            Some(signal) => Err(Failure::interrupted(signal)),
        }
    }

    /// Queues of the threads.
    pub(crate) fn thread_queues(&mut self) -> &mut [LoadQueue<P>] {
        &mut self.queues
    }

    /// Disconnects in order.
    pub(crate) fn close(self) {
        let Self { controller, paths, queues, runtime, .. } = self;
        drop(queues);
        runtime.block_on(connect::shutdown(controller, paths));
    }
}

/// Refuses a number of bytes that is not one of whole blocks, of any size that blocks may have.
pub(crate) fn check_blocks(option: &str, bytes: u64) -> Result<(), Failure> {
    /// Bytes of the smallest blocks (LBADS, NVM command set).
    const BLOCK_BYTES_MIN: u64 = 512;
    if !bytes.is_multiple_of(BLOCK_BYTES_MIN) {
        return Err(Failure::usage(format!(
            "{option} {bytes} is not a multiple of {BLOCK_BYTES_MIN} bytes, the smallest size of a \
             block"
        )));
    }
    Ok(())
}

impl<P: Provider> Connected<P> {
    async fn connect(
        provider: &Arc<P>,
        options: &SubsystemOptions,
        threads: usize,
    ) -> Result<Self, Failure> {
        if options.addresses().count() == 1 {
            let connecting = Controller::connect_over(provider, options.connect());
            let (controller, pollers) = connecting.polled(threads).await?;
            connect::print_warnings(&controller.negotiated());
            let queues = pollers.into_iter().map(Box::new).map(LoadQueue::Controller).collect();
            return Ok(Self { controller: Arc::new(controller), paths: None, queues });
        }
        let connecting = Subsystem::connect_over(provider, options);
        let (paths, pollers) = connecting.polled(threads).await?;
        connect::print_fence_changes(&paths);
        let queues = pollers.into_iter().map(Box::new).map(LoadQueue::Subsystem).collect();
        Ok(Self { controller: paths.any_controller(), paths: Some(paths), queues })
    }
}

/// Number of queues of a thread: they are assigned round-robin.
fn share(queues: usize, threads: usize, index: usize) -> usize {
    (queues + threads - 1 - index) / threads
}

/// Bytes of a command where the command line has none: whole blocks that the controller takes.
fn block_bytes_default(block_size: u64, transfer_bytes_max: u64) -> u64 {
    let most = BLOCK_BYTES_DEFAULT.min(transfer_bytes_max);
    if most < BLOCK_BYTES_DEFAULT {
        output::print_message(format_args!(
            "nvmf: commands of {most} bytes instead of {BLOCK_BYTES_DEFAULT}: the controller takes \
             no more in one"
        ));
    }
    block_size.max(most / block_size * block_size)
}

/// Waiter of a thread, one of `threads`, that only drives a poller: not in the idle scheduling
/// class if the machine is busy, where it would not run.
pub(crate) fn waiter(wait: WaitMode, threads: usize, machine_is_busy: bool) -> Waiter {
    if machine_is_busy { Waiter::new(wait) } else { Waiter::on_own_thread(wait, threads) }
}

/// True if other threads than the calling one want to run, most of the time; false where the system
/// does not say. To be asked before the threads of a load begin.
pub(crate) fn machine_is_busy() -> bool {
    const SAMPLES: usize = 5;
    let busy = (0..SAMPLES).filter(|_| {
        thread::sleep(Duration::from_millis(2));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        runnable_threads(&load).is_some_and(|count| count > 1)
    });
    busy.count() > SAMPLES / 2
}

/// Number of runnable threads in `/proc/loadavg`, as in "0.00 0.01 0.05 2/123 4567".
fn runnable_threads(load: &str) -> Option<u64> {
    load.split_whitespace().nth(3)?.split_once('/')?.0.parse().ok()
}

/// Runs a future on the calling thread, which is pinned to a processor if one is given.
pub(crate) fn block_on_cpu<T>(
    cpu: Option<usize>,
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    cpus::pin(cpu)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::failed)?.block_on(future)
}

/// Waits for all threads, then returns their results, or the first failure.
pub(crate) fn join_all<T>(
    threads: Vec<ScopedJoinHandle<'_, Result<T, Failure>>>,
) -> Result<Vec<T>, Failure> {
    let joined = threads.into_iter().map(|thread| {
        thread.join().unwrap_or_else(|_| Err(Failure::failed("a worker thread panicked")))
    });
    // Collected first: a failure must not leave threads unjoined.
    let outcomes: Vec<_> = joined.collect();
    outcomes.into_iter().collect()
}

/// Buffer of a completed command; if it failed, the failure of command `name` in a `context`.
pub(crate) fn completed_buffer(
    completion: CommandCompletion,
    name: &'static str,
    context: impl FnOnce() -> String,
) -> Result<Buffer, Failure> {
    let (outcome, buffer) = completion.into_result(name);
    outcome.map_err(|error| Failure::from(error).context(context()))?;
    Ok(buffer.expect("a command returns the buffer that it was submitted with"))
}

/// Conditions that end the workers before their workload is over.
struct StopCondition<'a> {
    shutdown: &'a ShutdownSignal,
    /// Set when a worker has failed.
    failed: AtomicBool,
}

impl StopCondition<'_> {
    fn is_met(&self) -> bool {
        self.shutdown.get().is_some() || self.failed.load(Ordering::Relaxed)
    }
}

/// Keeps a queue busy with a workload until that is over, or the condition is met and the commands
/// in flight have completed or the time for that is over.
async fn run_workload<W: Workload>(
    queue: &mut impl CommandQueue,
    mut waiter: Waiter,
    mut workload: W,
    mut buffers: Vec<Buffer>,
    stop: &StopCondition<'_>,
) -> Result<W, Failure> {
    /// Longest sleep.
    const WAIT_MAX: Duration = Duration::from_millis(100);
    let mut drain_end = None;
    loop {
        if drain_end.is_none() && stop.is_met() {
            drain_end = Some(Instant::now() + DRAIN_TIMEOUT);
        }
        while drain_end.is_none()
            && queue.room() > 0
            && let Some(buffer) = buffers.pop()
        {
            match workload.next(buffer) {
                Ok(command) => queue.submit(command)?,
                Err(buffer) => {
                    buffers.push(buffer);
                    break;
                }
            }
        }
        queue.ring_doorbells()?;
        let mut failure = None;
        let completed = queue.poll_with(|completion| match workload.complete(completion) {
            Ok(buffer) => buffers.push(buffer),
            Err(error) => drop(failure.get_or_insert(error)),
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let idle = queue.in_flight() == 0;
        if completed > 0 {
            waiter.busy();
        } else if drain_end.map_or(idle && workload.is_over(), |end| idle || Instant::now() >= end)
        {
            return Ok(workload);
        } else if !waiter.spins() {
            queue.ready(WAIT_MAX).await?;
        }
    }
}

#[cfg(test)]
mod tests;
