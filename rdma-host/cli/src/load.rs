//! Keeps pollers busy: the loop under `bench` and `verify`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Args;
use rdma_host::wire::NamespaceInfo;
use rdma_host::{Buffer, Command, CommandCompletion, ConnectOptions, Controller, Poller, Waiter};

use crate::cpus::{self, Cpus};
use crate::disconnects::Outages;
use crate::failure::Failure;
use crate::target::TargetArguments;
use crate::{Format, connect};

/// What to do next, and what to make of it.
pub(crate) trait Workload: Send {
    /// The next command, with the buffer it may use; or the buffer back, when there is none now.
    fn next(&mut self, buffer: Buffer) -> Result<Command, Buffer>;

    /// A command is done. The buffer serves the next one.
    fn done(&mut self, done: CommandCompletion) -> Result<Buffer, Failure>;

    /// Nothing is in flight and nothing came next: whether all is done.
    fn is_over(&self) -> bool;
}

/// What all workers have in common.
pub(crate) struct Load {
    pub(crate) namespace: NamespaceInfo,
    pub(crate) controller: Controller,
    pub(crate) options: ConnectOptions,
    pub(crate) block_bytes: usize,
    pub(crate) depth: usize,
    cpus: Option<Cpus>,
    runtime: tokio::runtime::Runtime,
    pollers: Vec<Poller>,
    outages: Arc<Mutex<Outages>>,
}

/// What the command lines of all loads have in common.
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
    pub(crate) cpus: Option<Cpus>,

    /// Where random numbers start; two runs with one seed do the same.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    pub(crate) output_format: Format,

    #[command(flatten)]
    pub(crate) target: TargetArguments,
}

impl Load {
    /// Connects, and checks that commands of `block_bytes` fit the namespace and the controller.
    pub(crate) fn connect(
        arguments: &LoadArguments,
        mut options: ConnectOptions,
        block_bytes: u64,
    ) -> Result<Self, Failure> {
        let processors = match &arguments.cpus {
            Some(cpus) => cpus.count(),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let threads = arguments.threads.unwrap_or(processors);
        // One entry of a queue stays empty.
        options.queue_entries = options.queue_entries.max(arguments.iodepth.saturating_add(1));
        let runtime = connect::runtime()?;
        let connected = Controller::connect_polled(&options, threads);
        let (controller, pollers) = runtime.block_on(connected)?;
        connect::warn(&controller.negotiated());
        let identify = async {
            let id = connect::choose(&controller, arguments.ns).await?;
            Ok::<_, Failure>(controller.identify_namespace(id).await?)
        };
        let namespace = runtime.block_on(identify)?;
        let outages = Outages::watch(&runtime, controller.changes());
        let load = Self {
            namespace,
            block_bytes: usize::try_from(block_bytes).map_err(Failure::usage)?,
            depth: usize::from(arguments.iodepth),
            cpus: arguments.cpus.clone(),
            controller,
            options,
            runtime,
            pollers,
            outages,
        };
        load.check(block_bytes)?;
        Ok(load)
    }

    /// Checks that commands of so many bytes fit the namespace and the controller.
    pub(crate) fn check(&self, bytes: u64) -> Result<(), Failure> {
        let block_size = self.namespace.block_size;
        if bytes == 0 || !bytes.is_multiple_of(u64::from(block_size)) {
            return Err(Failure::usage(format!(
                "--bs {bytes} is not a multiple of the namespace's block size, {block_size} bytes"
            )));
        }
        let agreed = self.controller.negotiated();
        let max = agreed.transfer_bytes_max;
        if bytes > max {
            return Err(Failure::usage(format!(
                "--bs {bytes} is more than the controller takes in one command, {max} bytes"
            )));
        }
        let granted = usize::from(agreed.queue_entries - 1);
        if self.depth > granted {
            let asked = self.depth;
            return Err(Failure::usage(format!(
                "--iodepth {asked} is more than the target grants a queue, {granted}"
            )));
        }
        Ok(())
    }

    /// How many queues there are on all pollers, or were when there was a connection.
    pub(crate) fn queues(&self) -> usize {
        usize::from(self.controller.negotiated().io_queues)
    }

    /// How many queues each poller has.
    pub(crate) fn queues_of_pollers(&self) -> impl Iterator<Item = usize> + '_ {
        self.pollers.iter().map(Poller::queue_count)
    }

    /// When there was no connection.
    pub(crate) fn outages(&self) -> MutexGuard<'_, Outages> {
        self.outages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many threads will run.
    pub(crate) fn threads(&self) -> usize {
        self.pollers.len()
    }

    /// Runs one worker a poller until all are over; the first failure counts.
    pub(crate) fn run<W: Workload>(
        &mut self,
        workload: impl Fn(usize) -> W,
    ) -> Result<Vec<W>, Failure> {
        let mut workers = Vec::new();
        let (queues, threads) = (self.queues(), self.threads());
        for index in 0..threads {
            // Queues are dealt out in turn. A poller may have none now, the connection being lost.
            let count = (queues + threads - 1 - index) / threads * self.depth;
            let buffers = self.controller.allocate_many(count, self.block_bytes)?;
            workers.push((workload(index), buffers));
        }
        let (wait, cpus) = (self.options.wait, self.cpus.as_ref());
        std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .pollers
                .iter_mut()
                .zip(workers)
                .enumerate()
                .map(|(index, (poller, (workload, buffers)))| {
                    let cpu = cpus.map(|cpus| cpus.of(index));
                    scope.spawn(move || {
                        cpus::pin(cpu)?;
                        let waiter = Waiter::on_own_thread(wait, threads);
                        drive(poller, waiter, workload, buffers)
                    })
                })
                .collect();
            let joined = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(Failure::failed("a worker thread panicked")))
            });
            // Collected first: a failure must not leave threads unjoined.
            let outcomes: Vec<_> = joined.collect();
            outcomes.into_iter().collect()
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

/// Keeps one poller busy with one workload.
fn drive<W: Workload>(
    poller: &mut Poller,
    waiter: Waiter,
    workload: W,
    buffers: Vec<Buffer>,
) -> Result<W, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    runtime.block_on(drive_async(poller, waiter, workload, buffers))
}

async fn drive_async<W: Workload>(
    poller: &mut Poller,
    mut waiter: Waiter,
    mut workload: W,
    mut buffers: Vec<Buffer>,
) -> Result<W, Failure> {
    /// A worker looks around at least this often.
    const LIMIT: Duration = Duration::from_millis(100);
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
        while let Some(done) = poller.take() {
            buffers.push(workload.done(done)?);
            completed = true;
        }
        if completed {
            waiter.busy();
        } else if poller.in_flight() == 0 && workload.is_over() {
            return Ok(workload);
        } else if !waiter.spins() {
            poller.ready(LIMIT).await?;
        }
    }
}
