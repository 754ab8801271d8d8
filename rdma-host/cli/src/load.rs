//! Load on the I/O queues of one target, for `bench` and `write-verify`.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, ScopedJoinHandle, available_parallelism},
    time::Duration,
};

use clap::Args;
use rdma_host::{
    Buffer, Command, CommandCompletion, ConnectOptions, Controller, Poller, Waiter,
    wire::NamespaceInfo,
};

use crate::{
    Format, connect,
    cpus::{self, CpuList},
    disconnects::Disconnects,
    failure::Failure,
    target::TargetArguments,
};

/// Source of commands of one worker, and receiver of their completions.
pub(crate) trait Workload: Send {
    /// Next command, which uses the buffer; or the buffer back, if there is none now.
    fn next(&mut self, buffer: Buffer) -> Result<Command, Buffer>;

    /// Handles a completion, and returns the buffer for another command.
    fn complete(&mut self, completion: CommandCompletion) -> Result<Buffer, Failure>;

    /// True if no more commands come. Called when nothing is in flight.
    fn is_over(&self) -> bool;
}

/// Connection to one target with a poller for each thread.
pub(crate) struct Load {
    pub(crate) namespace: NamespaceInfo,
    pub(crate) controller: Controller,
    pub(crate) options: ConnectOptions,
    pub(crate) block_bytes: usize,
    pub(crate) depth: usize,
    cpus: Option<CpuList>,
    runtime: tokio::runtime::Runtime,
    pollers: Vec<Poller>,
    disconnects: Arc<Mutex<Disconnects>>,
}

/// Options of all commands that make load.
#[derive(Args, Clone)]
pub(crate) struct LoadArguments {
    /// Namespace id [default: the only one].
    #[arg(long, value_name = "N")]
    ns: Option<u32>,

    /// Commands in flight on each queue.
    #[arg(long, value_name = "N", default_value_t = 32,
          value_parser = clap::value_parser!(u16).range(1..1024))]
    pub(crate) iodepth: u16,

    /// Threads [default: one a processor].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Keep each thread on a processor of these, in turn, as in 0-3,8: those near the device.
    #[arg(long, value_name = "LIST")]
    pub(crate) cpus: Option<CpuList>,

    /// Start of the random numbers; two runs with one seed do the same.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// Output format.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    pub(crate) output_format: Format,

    #[command(flatten)]
    pub(crate) target: TargetArguments,
}

impl Load {
    /// Connects, and checks `block_bytes` as [`check`](Self::check) does.
    pub(crate) fn connect(
        arguments: &LoadArguments,
        mut options: ConnectOptions,
        block_bytes: u64,
    ) -> Result<Self, Failure> {
        let processors = match &arguments.cpus {
            Some(cpus) => cpus.count(),
            None => available_parallelism().map_or(1, usize::from),
        };
        let threads = arguments.threads.unwrap_or(processors);
        // One entry of a queue stays empty.
        options.queue_entries = options.queue_entries.max(arguments.iodepth.saturating_add(1));
        let runtime = connect::runtime()?;
        let connected = Controller::connect(&options).polled(threads);
        let (controller, pollers) = runtime.block_on(connected)?;
        connect::print_warnings(&controller.negotiated());
        let identify = async {
            let id = connect::namespace_id(&controller, arguments.ns).await?;
            Ok::<_, Failure>(controller.identify_namespace(id).await?)
        };
        let namespace = runtime.block_on(identify)?;
        let disconnects = Disconnects::watch(&runtime, controller.changes());
        let load = Self {
            namespace,
            block_bytes: usize::try_from(block_bytes).map_err(Failure::usage)?,
            depth: usize::from(arguments.iodepth),
            cpus: arguments.cpus.clone(),
            controller,
            options,
            runtime,
            pollers,
            disconnects,
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
        let granted = usize::from(negotiated.queue_entries - 1);
        if self.depth > granted {
            let asked = self.depth;
            return Err(Failure::usage(format!(
                "--iodepth {asked} is more than the target grants a queue, {granted}"
            )));
        }
        Ok(())
    }

    /// Number of I/O queues of all pollers; the last number while there is no connection.
    pub(crate) fn queues(&self) -> usize {
        usize::from(self.controller.negotiated().io_queues)
    }

    /// Number of queues of each poller.
    pub(crate) fn queues_of_pollers(&self) -> impl Iterator<Item = usize> + '_ {
        self.pollers.iter().map(Poller::queue_count)
    }

    /// Disconnects since the load was connected.
    pub(crate) fn disconnects(&self) -> MutexGuard<'_, Disconnects> {
        self.disconnects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of threads that will run.
    pub(crate) fn threads(&self) -> usize {
        self.pollers.len()
    }

    /// Runs a thread with a workload for each poller until all are over; the first failure counts.
    pub(crate) fn run<W: Workload>(
        &mut self,
        workload: impl Fn(usize) -> W,
    ) -> Result<Vec<W>, Failure> {
        let mut workers = Vec::new();
        let (queues, threads) = (self.queues(), self.threads());
        for index in 0..threads {
            // Queues are assigned round-robin. A poller without a connection has none now.
            let count = (queues + threads - 1 - index) / threads * self.depth;
            let buffers = self.controller.allocate_many(count, self.block_bytes)?;
            workers.push((workload(index), buffers));
        }
        let (wait, cpus) = (self.options.wait, self.cpus.as_ref());
        thread::scope(|scope| {
            let pollers = self.pollers.iter_mut().zip(workers).enumerate();
            let threads = pollers.map(|(index, (poller, (workload, buffers)))| {
                let cpu = cpus.map(|cpus| cpus.for_thread(index));
                let run = async move {
                    let waiter = Waiter::on_own_thread(wait, threads);
                    run_workload(poller, waiter, workload, buffers).await
                };
                scope.spawn(move || block_on_cpu(cpu, run))
            });
            join_all(threads.collect())
        })
    }

    pub(crate) fn pollers(&mut self) -> &mut [Poller] {
        &mut self.pollers
    }

    /// Disconnects in order.
    pub(crate) fn close(self) {
        drop(self.pollers);
        self.runtime.block_on(self.controller.shutdown());
    }
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

/// Keeps a poller busy with a workload until that is over.
async fn run_workload<W: Workload>(
    poller: &mut Poller,
    mut waiter: Waiter,
    mut workload: W,
    mut buffers: Vec<Buffer>,
) -> Result<W, Failure> {
    /// Longest sleep.
    const WAIT_MAX: Duration = Duration::from_millis(100);
    loop {
        while poller.room() > 0
            && let Some(buffer) = buffers.pop()
        {
            match workload.next(buffer) {
                Ok(command) => poller.submit(command)?,
                Err(buffer) => {
                    buffers.push(buffer);
                    break;
                }
            }
        }
        poller.flush()?;
        poller.poll()?;
        let mut completed = false;
        while let Some(completion) = poller.take() {
            buffers.push(workload.complete(completion)?);
            completed = true;
        }
        if completed {
            waiter.busy();
        } else if poller.in_flight() == 0 && workload.is_over() {
            return Ok(workload);
        } else if !waiter.spins() {
            poller.ready(WAIT_MAX).await?;
        }
    }
}
