//! A write that is held between its receipt and its execution, while its connection is lost.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdma_host::{
    Buffer, ConnectOptions, Controller, Fence, FenceOptions, HostIdentity, LifecycleState,
    Namespace, ReconnectOptions, TransferError, wire::NamespaceId,
};
use tests::target::{Answer, ReceivedCommand, Target};
use tokio::{sync::Mutex as AsyncMutex, task::JoinHandle};
use verbs::Provider;

/// Runs a test with a limit against hanging for ever.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test ends");
    });
}

/// Reconnects quickly and for long.
pub(crate) fn options(resend: bool) -> ReconnectOptions {
    ReconnectOptions::default().delay(Duration::from_millis(20)).loss_timeout(None).resend(resend)
}

/// One queue, a keep-alive timeout of a second.
pub(crate) fn connect_options(address: SocketAddr, fence: Fence) -> ConnectOptions {
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let fence = FenceOptions::default().mode(fence).timeout(Duration::from_secs(5));
    ConnectOptions::new(address, nqn, host)
        .io_queues(1)
        .keep_alive(Duration::from_secs(1))
        .fence(fence)
}

/// A controller with a write of `A` to block 7, which the target has received and holds.
pub(crate) struct LateWrite<P: Provider> {
    pub(crate) controller: Controller<P>,
    pub(crate) namespace: Namespace,
    first: AsyncMutex<Option<JoinHandle<Result<Buffer, TransferError>>>>,
    gate: Arc<AtomicBool>,
    cut: Arc<AtomicBool>,
    probes: Arc<AtomicUsize>,
}

impl<P: Provider> LateWrite<P> {
    /// Starts a target over `target`, connects over `host` and writes.
    pub(crate) async fn begin(
        host: &Arc<P>,
        target: Arc<P>,
        options: ConnectOptions,
        alter: impl FnOnce(Target<P>) -> Target<P>,
    ) -> Self {
        let [gate, cut] = [Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false))];
        let probes = Arc::new(AtomicUsize::new(0));
        let (counted, held) = (Arc::clone(&probes), Mutex::new(Some(Arc::clone(&gate))));
        let received = Arc::new(AtomicBool::new(false));
        let seen_first = Arc::clone(&received);
        let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
            // A queue size that no target grants.
            if seen.is_fabrics(0x01) && seen.sqe[44..46] == [0xfe, 0xff] {
                counted.fetch_add(1, Ordering::Relaxed);
            } else if seen.is_write()
                && let Some(gate) = held.lock().expect("no panic").take()
            {
                answer.execute = Some(gate);
                seen_first.store(true, Ordering::Relaxed);
            }
        };
        let scripted = Target::over(target, options.address, Box::new(hook));
        tokio::spawn(alter(scripted.disconnecting(Arc::clone(&cut))).run());
        let controller = Controller::connect_over(host, &options).await.expect("an honest target");
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        let mut buffer = controller.allocate(512).expect("memory");
        buffer.fill(b'A');
        let writer = namespace.clone();
        let first = tokio::spawn(async move { writer.write(7, buffer).await });
        while !received.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Self { controller, namespace, first: AsyncMutex::new(Some(first)), gate, cut, probes }
    }

    /// Has the target close all connections; returns when there is a new one.
    pub(crate) async fn cut(&self) {
        let mut changes = self.controller.changes();
        self.cut.store(true, Ordering::Relaxed);
        while changes.next().await.expect("it goes on").state != LifecycleState::Live {}
    }

    /// Lets the target execute the first write.
    pub(crate) fn execute(&self) {
        self.gate.store(true, Ordering::Relaxed);
    }

    /// Number of questions about an old controller.
    pub(crate) fn probes(&self) -> usize {
        self.probes.load(Ordering::Relaxed)
    }

    /// Waits until the target was asked this often.
    pub(crate) async fn until_probed(&self, count: usize) {
        while self.probes() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Outcome of the first write.
    pub(crate) async fn first(&self) -> Result<Buffer, TransferError> {
        let first = self.first.lock().await.take().expect("it is asked for once");
        first.await.expect("it does not panic")
    }

    /// Cuts the connection, waits for the outcome of the first write, and writes `B` to its block.
    /// The target executes the first write once `B` is answered, or once the host was told that
    /// the old controller is left. Returns what the block holds in the end.
    pub(crate) async fn play(self) -> u8 {
        self.cut().await;
        let second = async {
            // Its outcome may be unknown.
            let mut buffer = match self.first().await {
                Ok(buffer) => buffer,
                Err(failed) => failed.buffer.expect("its buffer is back"),
            };
            buffer.fill(b'B');
            self.namespace.write(7, buffer).await.expect("it is answered")
        };
        let mut second = Box::pin(second);
        let asked = self.probes() + 2;
        let answered = tokio::select! {
            buffer = &mut second => Some(buffer),
            () = self.until_probed(asked) => None,
        };
        if answered.is_none() {
            let buffer = self.controller.allocate(512).expect("memory");
            let buffer = self.namespace.read(7, buffer).await.expect("a read does not wait");
            self.namespace.write(8, buffer).await.expect("nor does a write to another block");
        }
        self.execute();
        let mut buffer = match answered {
            Some(buffer) => buffer,
            None => (&mut second).await,
        };
        drop(second);
        // The target executes it between two commands.
        for _ in 0..3 {
            buffer = self.namespace.read(7, buffer).await.expect("it is read");
        }
        let mut read = [0; 1];
        buffer.copy_out(0, &mut read);
        self.controller.shutdown().await;
        read[0]
    }
}
