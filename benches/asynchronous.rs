//! A closed loop over the async API, as a storage client would write it, or over the futures of a
//! local poller: as many tasks as the depth, each with one read or write in flight. Its output is
//! read by `benches/versus`.

use std::{cell::RefCell, error::Error, net::SocketAddr, rc::Rc};

use benches::load::Meter;
use clap::Parser;
use rdma_host::{
    Buffer, ConnectOptions, Controller, HostIdentity, LocalNamespace, LocalPoller, Namespace,
    TransferError, WaitMode, Waiter,
    wire::{NamespaceId, NamespaceInfo, Nqn},
};
use tokio::{sync::mpsc, task::LocalSet};
use uuid::Uuid;

/// Reads or writes through futures.
#[derive(Parser)]
struct Arguments {
    /// The target's address and port.
    address: SocketAddr,
    /// The subsystem.
    nqn: Nqn,
    /// The namespace.
    #[arg(long, default_value_t = 1)]
    ns: u32,
    /// Commands in flight, on one queue.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=255))]
    depth: u16,
    /// Write instead of read.
    #[arg(long)]
    write: bool,
    /// Bytes of each.
    #[arg(long, default_value_t = 4096)]
    bs: usize,
    /// Seconds to measure, after half a second of warming up.
    #[arg(long, default_value_t = 2.0)]
    runtime: f64,
    /// Number of commands to do instead, for a counter of instructions.
    #[arg(long)]
    count: Option<u64>,
    /// Way to wait: poll, event, or adaptive.
    #[arg(long, default_value = "adaptive", value_parser = wait)]
    wait: WaitMode,
    /// Submit to a poller on the thread of the tasks, which do nothing else.
    #[arg(long)]
    local: bool,
}

/// State that all tasks share.
struct Shared {
    arguments: Arguments,
    namespace: AnyNamespace,
    meter: RefCell<Meter>,
}

enum AnyNamespace {
    Local(LocalNamespace),
    Shared(Namespace),
}

impl AnyNamespace {
    fn info(&self) -> NamespaceInfo {
        match self {
            Self::Local(namespace) => namespace.info(),
            Self::Shared(namespace) => namespace.info(),
        }
    }

    async fn transfer(&self, write: bool, lba: u64, data: Buffer) -> Result<Buffer, TransferError> {
        match (self, write) {
            (Self::Local(namespace), false) => namespace.read(lba, data).await,
            (Self::Local(namespace), true) => namespace.write(lba, data).await,
            (Self::Shared(namespace), false) => namespace.read(lba, data).await,
            (Self::Shared(namespace), true) => namespace.write(lba, data).await,
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(arguments))
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let host = HostIdentity::from_id(Uuid::from_u128(0xf2));
    let mut options = ConnectOptions::new(arguments.address, arguments.nqn.clone(), host);
    options.io_queues = 1;
    options.queue_entries = options.queue_entries.max(arguments.depth + 1);
    options.wait = arguments.wait;
    if arguments.local {
        return run_local(&options, arguments).await;
    }
    let controller = Controller::connect(&options).await?;
    let namespace = controller.namespace(NamespaceId(arguments.ns)).await?;
    let buffers = controller.allocate_many(arguments.depth.into(), arguments.bs)?;
    let shared = Shared::new(arguments, AnyNamespace::Shared(namespace));
    let tasks = buffers.into_iter().zip(1..);
    let tasks: Vec<_> = tasks
        .map(|(buffer, seed)| tokio::task::spawn_local(keep_one(Rc::clone(&shared), buffer, seed)))
        .collect();
    for task in tasks {
        task.await??;
    }
    println!("{}", shared.meter.borrow().report());
    controller.shutdown().await;
    Ok(())
}

/// Runs the tasks on a poller of their own thread.
async fn run_local(options: &ConnectOptions, arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let (controller, mut pollers) = Controller::connect(options).polled(1).await?;
    let info = controller.identify_namespace(NamespaceId(arguments.ns)).await?;
    let buffers = controller.allocate_many(arguments.depth.into(), arguments.bs)?;
    let waiter = Waiter::on_own_thread(arguments.wait, 1);
    let poller = LocalPoller::new(pollers.remove(0), waiter);
    let shared = Shared::new(arguments, AnyNamespace::Local(poller.namespace(info)));
    let (ended, mut results) = mpsc::unbounded_channel();
    for (buffer, seed) in buffers.into_iter().zip(1..) {
        let (task, ended) = (keep_one(Rc::clone(&shared), buffer, seed), ended.clone());
        poller.spawn_local(async move {
            let _ = ended.send(task.await); // the receiver is gone once one has failed
        });
    }
    drop(ended);
    let all = async {
        while let Some(ended) = results.recv().await {
            ended?;
        }
        Ok::<_, rdma_host::Error>(())
    };
    poller.run_until(all).await?;
    println!("{}", shared.meter.borrow().report());
    drop(poller);
    controller.shutdown().await;
    Ok(())
}

impl Shared {
    fn new(arguments: Arguments, namespace: AnyNamespace) -> Rc<Self> {
        let meter = RefCell::new(Meter::new(arguments.runtime, arguments.count));
        Rc::new(Self { arguments, namespace, meter })
    }
}

/// Keeps one command in flight.
async fn keep_one(
    shared: Rc<Shared>,
    mut buffer: Buffer,
    mut seed: u64,
) -> Result<(), rdma_host::Error> {
    let Shared { arguments, namespace, meter } = &*shared;
    let info = namespace.info();
    let blocks = u64::from(info.blocks_in(buffer.len()));
    while !meter.borrow().is_over() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let lba = (seed >> 33) % (info.blocks / blocks) * blocks;
        let started = meter.borrow().now();
        let done = namespace.transfer(arguments.write, lba, buffer).await;
        buffer = done.map_err(|failed| failed.error)?;
        let mut meter = meter.borrow_mut();
        let now = meter.now();
        if !meter.is_over() {
            meter.note_poll(1, now);
            meter.record(started, now);
        }
    }
    Ok(())
}

fn wait(name: &str) -> Result<WaitMode, String> {
    match name {
        "adaptive" => Ok(WaitMode::default()),
        "event" => Ok(WaitMode::Event),
        "poll" => Ok(WaitMode::Poll),
        _ => Err("one of poll, event, adaptive".into()),
    }
}
