//! A controller and its target in this process, for the rows of `instructions`.

use std::{sync::Arc, time::Duration};

use rdma_fabric::{Fabric, Host};
use rdma_host::{
    ConnectOptions, Connecting, Controller, Error, HostIdentity, MemoryMode, Poller,
    ReconnectOptions, WaitMode,
};
use scripted_target::{Size, TARGET_ADDRESS, Target};
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let options = options(size.queues, memory);
        let (controller, more) = runtime.block_on(async {
            let connecting = Controller::connect_over(&device, &options);
            let connected = tokio::spawn(finish(connecting));
            for turn in 0.. {
                if connected.is_finished() {
                    break;
                }
                if turn % TURNS_PER_POLL == 0 {
                    device.device_does(|| target.serve_once());
                }
                tokio::task::yield_now().await;
            }
            connected.await.expect("it ends").expect("it connects")
        });
        (Self { runtime, controller, target, device, _fabric: fabric }, more)
    }
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
