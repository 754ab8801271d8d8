//! A controller and its target in this process, for the rows of `instructions`.

use std::{sync::Arc, time::Duration};

use rdma_fabric::{Fabric, Host};
use rdma_host::{
    ConnectOptions, Connecting, Controller, Error, HostIdentity, MemoryMode, Poller,
    ReconnectOptions, Subsystem, SubsystemOptions, SubsystemPoller, WaitMode, wire::NamespaceId,
};
use scripted_target::{Answer, ReceivedCommand, Size, TARGET_ADDRESS, Target};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::marked_provider::MarkedProvider;

/// Device of the host, which a profiler can tell from it.
pub type Device = MarkedProvider<Host>;

/// A controller and its target over the fabric. The fabric is dropped last.
pub struct FabricBed {
    /// Runtime of the controller's tasks.
    pub runtime: Runtime,
    /// The controller, without keep-alive and without reconnecting.
    pub controller: Controller<Device>,
    /// The target, which the owner has to serve.
    pub target: Target,
    /// Device of the host.
    pub device: Arc<Device>,
    _fabric: Fabric,
}

/// Turns of the runtime between two polls of a target that is being connected to. It polls every
/// queue each time: with a thousand queues, that has to be seldom.
const TURNS_PER_POLL: u32 = 16;

impl FabricBed {
    /// Connects a controller with `size.queues` queues on one poller, which is the caller's;
    /// `allocated` gives the number of bytes that the program has allocated.
    ///
    /// # Panics
    ///
    /// If it does not connect.
    pub fn polled(
        size: Size,
        memory: MemoryMode,
        allocated: fn() -> usize,
    ) -> (Self, Poller<Device>) {
        let finish = |connecting: Connecting<Device>| connecting.polled(1);
        let (bed, mut pollers) = Self::connect(size, memory, allocated, finish);
        (bed, pollers.pop().expect("one was asked for"))
    }

    /// Connects a controller, and finishes as `finish` says: for polling, or with a namespace.
    ///
    /// # Panics
    ///
    /// If it does not connect.
    pub fn connect<T: Send + 'static, F>(
        size: Size,
        memory: MemoryMode,
        allocated: fn() -> usize,
        finish: impl FnOnce(Connecting<Device>) -> F,
    ) -> (Self, T)
    where
        F: Future<Output = Result<(Controller<Device>, T), Error>> + Send + 'static,
    {
        let fabric = Fabric::auto(1);
        let device = MarkedProvider::new(fabric.host("host", [10, 0, 0, 1].into()), allocated);
        let mut target = Target::new(&fabric, Box::new(|_, _| {})).granting(size);
        let runtime = runtime();
        let options = options(size.queues, memory);
        let connected = {
            let _context = runtime.enter();
            finish(Controller::connect_over(&device, &options))
        };
        let targets = std::slice::from_mut(&mut target);
        let (controller, more) = serve_until_ready(&runtime, &device, targets, connected);
        (Self { runtime, controller, target, device, _fabric: fabric }, more)
    }
}

/// A subsystem over two paths, with a target for each. The fabric is dropped last.
pub struct TwoPathsBed {
    /// Subsystem, with one namespace.
    pub subsystem: Subsystem<Device>,
    /// Targets, which the owner has to serve.
    pub targets: [Target; 2],
    /// Device of the host.
    pub device: Arc<Device>,
    /// Runtime of the paths' tasks.
    pub runtime: Runtime,
    _fabric: Fabric,
}

impl TwoPathsBed {
    /// Connects two paths with one queue each on a poller, which is the caller's.
    ///
    /// # Panics
    ///
    /// If they do not connect.
    pub fn polled(size: Size, allocated: fn() -> usize) -> (Self, SubsystemPoller<Device>) {
        const SECOND: &str = "10.0.0.3:4420";
        let fabric = Fabric::auto(1);
        let device = MarkedProvider::new(fabric.host("host", [10, 0, 0, 1].into()), allocated);
        // A namespace identifier (NGUID), by which it is known to be the same on both.
        let identify = |seen: ReceivedCommand, answer: &mut Answer| {
            if (seen.queue, seen.sqe[0], seen.sqe[40]) == (0, 0x06, 0x03) {
                (answer.data[0], answer.data[1], answer.data[4]) = (2, 16, 7);
            }
        };
        let target =
            |(name, address)| Target::at(&fabric, name, address, Box::new(identify)).granting(size);
        let mut targets = [("target", TARGET_ADDRESS), ("second", SECOND)].map(target);
        let runtime = runtime();
        let options = SubsystemOptions::new(options(size.queues, MemoryMode::Pool))
            .path(SECOND.parse().expect("an address"), None);
        let connecting = Subsystem::connect_over(&device, &options);
        let connected = async {
            let (subsystem, pollers) = connecting.polled(1).await?;
            subsystem.identify_namespace(NamespaceId(1)).await?;
            Ok((subsystem, pollers))
        };
        let (subsystem, mut pollers) =
            serve_until_ready(&runtime, &device, &mut targets, connected);
        let poller = pollers.pop().expect("one was asked for");
        (Self { subsystem, targets, device, runtime, _fabric: fabric }, poller)
    }
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

/// Runs a future that connects to the targets.
fn serve_until_ready<T: Send + 'static>(
    runtime: &Runtime,
    device: &Device,
    targets: &mut [Target],
    connected: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> T {
    runtime.block_on(async {
        let connected = tokio::spawn(connected);
        for turn in 0.. {
            if connected.is_finished() {
                break;
            }
            if turn % TURNS_PER_POLL == 0 {
                device.device_does(|| targets.iter_mut().for_each(Target::serve_once));
            }
            tokio::task::yield_now().await;
        }
        connected.await.expect("it ends").expect("it connects")
    })
}

fn options(queues: u16, memory: MemoryMode) -> ConnectOptions {
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let host = HostIdentity::from_id(Uuid::from_u128(1));
    let mut options = ConnectOptions::new(TARGET_ADDRESS.parse().expect("an address"), nqn, host);
    options.io_queues = queues;
    options.memory = memory;
    // No timer may run.
    options.keep_alive = Duration::ZERO;
    options.reconnect = ReconnectOptions::never();
    options.wait = WaitMode::Poll;
    options
}
