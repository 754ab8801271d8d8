//! Two ports of a scripted subsystem over one medium, each with an access state (ANA) of its own.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use rdma_fabric::{Fabric, Host};
use rdma_host::{
    ConnectOptions, Fence, FenceOptions, HostIdentity, ReconnectOptions, Subsystem,
    SubsystemNamespace, SubsystemOptions, wire::NamespaceId,
};
use tests::target::{Answer, Hook, ReceivedCommand, Target};

/// Addresses of the ports.
const ADDRESSES: [&str; 2] = ["10.0.0.2:4420", "10.0.0.3:4420"];

/// Access states of the specification.
pub(crate) const OPTIMIZED: u8 = 0x1;
pub(crate) const NON_OPTIMIZED: u8 = 0x2;
pub(crate) const INACCESSIBLE: u8 = 0x3;
pub(crate) const PERSISTENT_LOSS: u8 = 0x4;
pub(crate) const CHANGE: u8 = 0xf;

/// ONCS of controllers with all optional commands.
const ONCS: u16 = 0x01af;

/// ANA group of the namespace.
const GROUP: u8 = 2;

/// A port; a test changes it while it serves.
pub(crate) struct Port {
    /// Access state; 0 if the controllers report none.
    access: AtomicU8,
    /// Opens the answer to the latest request for an event, and whether there is one to tell that
    /// has no request yet.
    event: Mutex<(Arc<AtomicBool>, bool)>,
    /// Closes all connections.
    cut: Arc<AtomicBool>,
    /// Connections are refused.
    is_closed: Arc<AtomicBool>,
    /// Change of the answers, after the default.
    hook: Mutex<Hook>,
    /// Opcodes of the I/O commands seen.
    seen: Mutex<Vec<u8>>,
    /// Number of questions about an old controller.
    probes: AtomicU8,
}

impl Port {
    fn new() -> Self {
        Self {
            access: AtomicU8::new(0),
            event: Mutex::default(),
            cut: Arc::default(),
            is_closed: Arc::default(),
            hook: Mutex::new(Box::new(|_, _| {})),
            seen: Mutex::default(),
            probes: AtomicU8::new(0),
        }
    }

    /// From now on commands are answered like this.
    pub(crate) fn answer(&self, hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(hook);
    }

    /// Holds the next write unexecuted; returns what opens its gate, and whether it was received.
    pub(crate) fn hold_write(&self) -> (Arc<AtomicBool>, Arc<AtomicBool>) {
        let [gate, received] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (mut held, seen_it) = (Some(Arc::clone(&gate)), Arc::clone(&received));
        self.answer(move |seen, answer| {
            if seen.is_write()
                && let Some(gate) = held.take()
            {
                answer.execute = Some(gate);
                seen_it.store(true, Ordering::Relaxed);
            }
        });
        (gate, received)
    }

    /// Sets the access state, without telling the host.
    pub(crate) fn set_access(&self, state: u8) {
        self.access.store(state, Ordering::Relaxed);
    }

    /// Sets the access state, and sends the event.
    pub(crate) fn announce(&self, state: u8) {
        self.set_access(state);
        let mut event = self.event.lock().expect("no panic");
        event.1 = event.0.swap(true, Ordering::AcqRel);
    }

    /// Closes all connections, and keeps new ones out.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Closes all connections.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Accepts connections again.
    pub(crate) fn open(&self) {
        self.is_closed.store(false, Ordering::Relaxed);
    }

    /// Number of I/O commands with this opcode.
    pub(crate) fn count(&self, opcode: u8) -> usize {
        self.seen.lock().expect("no panic").iter().filter(|&&seen| seen == opcode).count()
    }

    pub(crate) fn probes(&self) -> u8 {
        self.probes.load(Ordering::Relaxed)
    }

    fn handle(&self, seen: ReceivedCommand, answer: &mut Answer) {
        let access = self.access.load(Ordering::Relaxed);
        match (seen.queue, seen.sqe[0], seen.sqe[40]) {
            (0, 0x06, 0x00) if access != 0 => answer.data[92] = GROUP,
            (0, 0x06, 0x01) if access != 0 => {
                // CMIC, the ANA change event, ANATT of 1 s, one group, one namespace.
                (answer.data[76], answer.data[93], answer.data[342]) = (1 << 3, 1 << 3, 1);
                (answer.data[348], answer.data[516]) = (1, 1);
            }
            (0, 0x06, 0x03) => {
                (answer.data[0], answer.data[1]) = (3, 16);
                answer.data[4..20].fill(7);
            }
            (0, 0x02, 0x0c) => {
                let mut log = vec![0; seen.keyed().0];
                (log[0], log[8], log[16], log[20]) = (1, 1, GROUP, 1);
                (log[32], log[48]) = (access, 1);
                answer.data = log;
            }
            (0, 0x0c, _) => {
                let mut event = self.event.lock().expect("no panic");
                let gate = Arc::new(AtomicBool::new(event.1));
                *event = (Arc::clone(&gate), false);
                answer.messages = vec![seen.response(0, 0x000c_0302)];
                answer.gate = Some(gate);
            }
            _ => {}
        }
        // A queue size that no target grants.
        if seen.is_fabrics(0x01) && seen.sqe[44..46] == [0xfe, 0xff] {
            self.probes.fetch_add(1, Ordering::Relaxed);
        }
        if seen.is_io() {
            self.seen.lock().expect("no panic").push(seen.sqe[0]);
            let status = match access {
                INACCESSIBLE => 0x302,
                PERSISTENT_LOSS => 0x301,
                CHANGE => 0x303,
                _ => 0,
            };
            if status != 0 {
                *answer = Answer { messages: vec![seen.response(status, 0)], ..Answer::default() };
            }
        }
        self.hook.lock().unwrap_or_else(PoisonError::into_inner)(seen, answer);
    }
}

/// A fabric with a host and the two ports.
pub(crate) struct Ports {
    pub(crate) host: Arc<Host>,
    pub(crate) ports: [Arc<Port>; 2],
    _fabric: Fabric,
}

impl Ports {
    /// Must be called in a runtime: the targets are tasks of it.
    pub(crate) fn new() -> Self {
        Self::of_model("Linux")
    }

    /// Ports of targets that report this model; otherwise as by `new`.
    pub(crate) fn of_model(model: &'static str) -> Self {
        let fabric = Fabric::auto(1);
        let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
        let ports = [(); 2].map(|()| Arc::new(Port::new()));
        let [first, second] = [0, 1].map(|index| {
            let [port, refused] = [(); 2].map(|()| Arc::clone(&ports[index]));
            let hook = move |seen: ReceivedCommand, answer: &mut Answer| port.handle(seen, answer);
            let name = ["target", "second"][index];
            let target = Target::at(&fabric, name, ADDRESSES[index], Box::new(hook));
            let closed = Arc::clone(&refused.is_closed);
            let refuse =
                move |_: &[u8]| closed.load(Ordering::Relaxed).then(|| vec![0, 0, 0x06, 0]);
            let target = target.supporting(ONCS, 1).of_model(model);
            target.rejecting(Box::new(refuse)).disconnecting(Arc::clone(&ports[index].cut))
        });
        tokio::spawn(second.on_medium_of(&first).run());
        tokio::spawn(first.run());
        Self { host, ports, _fabric: fabric }
    }

    pub(crate) async fn connect(
        &self,
        options: &SubsystemOptions,
    ) -> (Subsystem<Host>, SubsystemNamespace) {
        let subsystem = Subsystem::connect_over(&self.host, options).await;
        let subsystem = subsystem.expect("an honest target");
        let namespace = subsystem.namespace(NamespaceId(1)).await.expect("it is there");
        (subsystem, namespace)
    }
}

/// Options of one path: reconnects quickly and for long.
pub(crate) fn connect_options() -> ConnectOptions {
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let reconnect = ReconnectOptions::default().delay(Duration::from_millis(20)).loss_timeout(None);
    ConnectOptions::new(ADDRESSES[0].parse().expect("an address"), nqn, host)
        .io_queues(1)
        .fence(FenceOptions::default().mode(Fence::Off))
        .reconnect(reconnect)
}

/// Options of both paths.
pub(crate) fn both(connect: ConnectOptions) -> SubsystemOptions {
    SubsystemOptions::new(connect).path(second_address(), None)
}

pub(crate) fn second_address() -> SocketAddr {
    ADDRESSES[1].parse().expect("an address")
}
