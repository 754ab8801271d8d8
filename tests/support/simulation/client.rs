//! Host of a run: performs the steps of a script, and checks what comes of them.

mod io;
mod options;
mod polled;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdma_fabric::{Fault, Host, Link, Point};
use rdma_host::{Controller, LifecycleState, wire::NamespaceId};
use verbs::Buffer;

use self::{io::Io, options::Setup};
use super::{
    executor::World,
    faults::WorldFault,
    history::History,
    random::Random,
    script::{FAULT_DELAY_MAX, Script, Step, Transfer},
    target::{BLOCKS, ModelTarget},
};

/// Time within which all I/O ends once every fault is over.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Time within which a shutdown ends.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(1_500);
/// Time within which a connect ends.
const CONNECT_LIMIT: Duration = Duration::from_secs(700);
/// Time within which a call on a controller ends, such as a rescan.
const CALL_LIMIT: Duration = Duration::from_secs(1_500);
/// Time after which no command of an earlier connection executes, and no fault goes on.
const LATE_MAX: Duration = Duration::from_secs(60);
/// Time after which no port or device is away.
const OUTAGE_MAX: Duration = Duration::from_secs(25);
/// Faults of later connects that a script may leave behind.
const ARMED_FAULTS_MAX: usize = 30;
/// Time by which the failure of I/O that waits for a connection may be late: an orderly shutdown of
/// the old one comes first.
const WAIT_SLACK: Duration = Duration::from_secs(1);
/// I/O that may be outstanding.
const OUTSTANDING_MAX: usize = 24;

/// Occurrences in a run, by name.
pub type Counts = BTreeMap<String, u64>;

/// Host of a run. Clones share their state.
#[derive(Clone)]
pub(super) struct Client {
    world: World,
    target: ModelTarget,
    host: Arc<Host>,
    setup: Arc<Setup>,
    shared: Arc<Mutex<Shared>>,
}

/// State that the tasks of a host share.
#[derive(Default)]
struct Shared {
    history: History,
    violations: Vec<String>,
    counts: Counts,
    outstanding: usize,
    started: u64,
    /// Times at which the outstanding I/O began, by number.
    begun: BTreeMap<u64, Duration>,
    /// Time at which the connection was lost; `None` while there is one.
    disconnected_since: Option<Duration>,
    /// State of the controller, as it was last told.
    state: Option<LifecycleState>,
    /// Buffers that have come back, which nothing may change.
    at_rest: Vec<Buffer>,
}

/// Controller, and what its I/O goes through.
struct Connected {
    controller: Controller<Host>,
    io: Io,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(world: &World, target: &ModelTarget, random: &mut Random) -> Self {
        let host = world.fabric().host("host", "10.0.0.1".parse().expect("an address"));
        let setup = Setup::draw(random);
        world.fabric().set_link(Link { jitter: Duration::from_micros(20), ..Link::default() });
        world.note(format_args!("options: {setup:?}"));
        target.change(|target| {
            target.authenticates = setup.is_authenticated;
            target.executions_max = setup.executions_max();
            target.io_timeout = setup.io_timeout;
        });
        Self {
            world: world.clone(),
            target: target.clone(),
            host,
            setup: Arc::new(setup),
            shared: Arc::default(),
        }
    }

    /// Performs the steps, then lets all faults pass and everything end.
    pub(super) async fn perform(self, script: Script) {
        let mut connected = self.connect().await;
        for step in script.steps() {
            if self.lock().violations.is_empty() {
                self.perform_step(step, &mut connected).await;
            }
        }
        self.target.change(|target| {
            target.clear_faults();
            target.set_listening(true);
        });
        self.repair_device().await;
        self.settle().await;
        if let Some(connected) = connected {
            self.shutdown(connected).await;
        }
        self.settle().await;
        self.read_all().await;
        self.check_rest(0);
    }

    fn port_was_down(&self) -> bool {
        self.lock().counts.keys().any(|name| name.starts_with("fault: port down"))
    }

    /// Replaces the host's device if its port was down: like rxe's, its connection manager is dead
    /// after a connection request at that time.
    async fn repair_device(&self) {
        self.world.sleep(FAULT_DELAY_MAX).await;
        if self.port_was_down() {
            self.world.sleep(OUTAGE_MAX).await;
            self.world.note(format_args!("the host's device is replaced"));
            self.world.fabric().remove_device("host");
            self.world.fabric().restore_device("host");
        }
    }

    /// Reads all blocks over a new connection, once nothing of the earlier ones is left to happen.
    async fn read_all(&self) {
        self.world.sleep(LATE_MAX).await;
        let mut connected = None;
        for _ in 0..ARMED_FAULTS_MAX {
            connected = self.connect().await;
            if connected.is_some() {
                break;
            }
        }
        let Some(connected) = connected else {
            return self.violation("no connection once the faults are over".to_owned());
        };
        for lba in (0..BLOCKS).step_by(4) {
            let transfer = Transfer { lba, blocks: 4, is_vectored: false, dropped_after: None };
            self.start_io(Step::Read(transfer), &connected.controller, &connected.io);
        }
        self.settle().await;
        self.shutdown(connected).await;
    }

    /// Violations, and the counts of the run.
    pub(super) fn finish(&self) -> (Vec<String>, Counts) {
        let mut shared = self.lock();
        let (writes, unknown) = shared.history.writes();
        *shared.counts.entry("writes".to_owned()).or_default() += writes as u64;
        *shared.counts.entry("writes of unknown execution".to_owned()).or_default() +=
            unknown as u64;
        (std::mem::take(&mut shared.violations), std::mem::take(&mut shared.counts))
    }

    /// Notes that something does not hold that must.
    pub(super) fn violation(&self, what: String) {
        self.world.note(format_args!("VIOLATION: {what}"));
        self.lock().violations.push(what);
    }

    fn count(&self, what: &str) {
        *self.lock().counts.entry(what.to_owned()).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn perform_step(&self, step: Step, connected: &mut Option<Connected>) {
        match step {
            Step::Connect if connected.is_none() => *connected = self.connect().await,
            Step::Connect => {}
            Step::CommandFault(fault) => {
                self.count_fault(fault.name());
                self.target.change(|target| target.add_fault(fault));
            }
            Step::WorldFault(fault, Duration::ZERO) => self.inject(fault),
            Step::WorldFault(fault, delay) => {
                let client = self.clone();
                self.world.spawn(async move {
                    client.world.sleep(delay).await;
                    client.inject(fault);
                });
            }
            Step::RaiseEvent => {
                let now = self.world.now();
                self.target.change(|target| target.raise_event(now));
            }
            Step::Sleep(time) => self.world.sleep(time).await,
            Step::Wait => {
                let waiting = self.until_outstanding(0);
                let _ = self.world.timeout(Duration::from_secs(60), waiting).await;
            }
            Step::Shutdown => {
                if let Some(connected) = connected.take() {
                    self.shutdown(connected).await;
                }
            }
            Step::Flush | Step::Read(_) | Step::Write(_) => {
                let Some(Connected { controller, io }) = connected else { return };
                let waiting = self.until_outstanding(OUTSTANDING_MAX - 1);
                if self.world.timeout(Duration::from_secs(5), waiting).await.is_some() {
                    self.start_io(step, controller, io);
                }
            }
            Step::Reauthenticate | Step::Rescan | Step::Reset => {
                let Some(Connected { controller, .. }) = connected else { return };
                self.call(step, controller).await;
            }
        }
    }

    /// Makes a call on the controller, which ends in time.
    async fn call(&self, step: Step, controller: &Controller<Host>) {
        let mut call = Box::pin(async {
            match step {
                Step::Reset => {
                    controller.reset().await;
                    Ok(())
                }
                Step::Rescan => controller.identify_namespace(NamespaceId(1)).await.map(drop),
                _ => controller.reauthenticate(None).await.map(drop),
            }
        });
        let mut ended = self.world.timeout(CALL_LIMIT, call.as_mut()).await;
        if ended.is_none() && self.port_was_down() {
            // It waits for a connection, which a device whose connection manager is dead never has.
            self.repair_device().await;
            ended = self.world.timeout(CALL_LIMIT, call).await;
        }
        match ended {
            None => self.violation(format!("{step:?} does not end")),
            Some(Ok(())) => self.world.note(format_args!("host: {step:?} done")),
            Some(Err(error)) => self.world.note(format_args!("host: {step:?}: {error}")),
        }
    }

    async fn connect(&self) -> Option<Connected> {
        let options = self.setup.options();
        let connecting = Controller::connect_over(&self.host, &options);
        let mut changes = connecting.changes();
        let client = self.clone();
        self.world.spawn(async move {
            while let Some(change) = changes.next().await {
                client.world.note(format_args!("host: {change}"));
                client.note_state(change.state);
                if change.state != LifecycleState::Live {
                    client.target.change(|target| target.note_lost(client.world.idle_time()));
                }
                client.count(&format!("state {}", change.state));
            }
        });
        let connected = async {
            if self.setup.is_polled {
                // A caller that polls may let much time pass between two polls.
                self.target.change(|target| target.are_responses_hidden = true);
                let (controller, pollers) = connecting.polled(self.setup.pollers).await?;
                return Ok(Connected { controller, io: self.drive(pollers) });
            }
            let controller = connecting.await?;
            let namespace = controller.namespace(NamespaceId(1)).await?;
            Ok::<_, rdma_host::Error>(Connected { controller, io: Io::Namespace(namespace) })
        };
        match self.world.timeout(CONNECT_LIMIT, connected).await {
            None => self.violation("a connect does not end".to_owned()),
            Some(Ok(connected)) => {
                self.count("connects");
                return Some(connected);
            }
            Some(Err(error)) => self.world.note(format_args!("host: no connection: {error}")),
        }
        None
    }

    /// Notes a state of the controller.
    fn note_state(&self, state: LifecycleState) {
        let now = self.world.now();
        if state == LifecycleState::Live {
            self.check_wait("the controller is live again");
        }
        let mut shared = self.lock();
        shared.state = Some(state);
        match state {
            LifecycleState::Live => shared.disconnected_since = None,
            LifecycleState::Resetting => _ = shared.disconnected_since.get_or_insert(now),
            _ => {}
        }
    }

    /// Checks that no I/O has waited longer for a connection than the options let it.
    fn check_wait(&self, when: &str) {
        let Some(limit) = self.setup.wait_max() else { return };
        let now = self.world.now();
        let waited = {
            let shared = self.lock();
            let Some(since) = shared.disconnected_since else { return };
            shared
                .begun
                .iter()
                .find(|(_, began)| now > since.max(**began) + limit + WAIT_SLACK)
                .map(|(number, _)| *number)
        };
        if let Some(number) = waited {
            self.violation(format!("I/O {number} waited for more than {limit:?} until {when}"));
        }
    }

    async fn shutdown(&self, connected: Connected) {
        let Connected { controller, io } = connected;
        drop(io);
        self.world.note(format_args!("host: shutdown"));
        if self.world.timeout(SHUTDOWN_LIMIT, controller.shutdown()).await.is_none() {
            self.violation(format!("a shutdown takes more than {SHUTDOWN_LIMIT:?}"));
        }
    }

    /// Waits until all I/O has ended, and all faults.
    async fn settle(&self) {
        if self.world.timeout(SETTLE_TIMEOUT, self.until_outstanding(0)).await.is_none() {
            let left = self.lock().outstanding;
            self.violation(format!("{left} reads or writes did not end in {SETTLE_TIMEOUT:?}"));
        }
    }

    async fn until_outstanding(&self, most: usize) {
        let mut pause = Duration::from_micros(5);
        while self.lock().outstanding > most {
            self.world.sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    fn count_fault(&self, name: &str) {
        let state = self.lock().state.map_or("unconnected".to_owned(), |state| state.to_string());
        self.count(&format!("fault: {name} / {state}"));
    }

    fn inject(&self, fault: WorldFault) {
        let fabric = self.world.fabric();
        self.world.note(format_args!("fault: {fault}"));
        self.count_fault(fault.name());
        self.target.change(|target| target.note_fault(fault));
        let at = |point, fault| fabric.at(point, fault);
        let later = |time: Duration, end: Box<dyn FnOnce(&Self) + Send>| {
            let client = self.clone();
            self.world.spawn(async move {
                client.world.sleep(time).await;
                client.world.note(format_args!("fault: {fault} is over"));
                end(&client);
            });
        };
        match fault {
            WorldFault::AddressChange => fabric.change_address("host"),
            WorldFault::CompletionQueuesFail => {
                at(Point::Time(Duration::ZERO), Fault::CompletionQueuesFail("host".to_owned()));
            }
            WorldFault::CompletionRepeated => at(Point::completion("host", 1), Fault::Duplicate),
            WorldFault::ConnectLost => at(Point::connect("host", 1), Fault::Drop),
            WorldFault::ConnectRejected => at(Point::connect("host", 1), Fault::Reject(8)),
            WorldFault::DeviceRemoved(time) => {
                fabric.remove_device("host");
                later(time, Box::new(|client| client.world.fabric().restore_device("host")));
            }
            WorldFault::Disconnect(index) => {
                self.target.change(|target| target.disconnect_one(index.into()));
            }
            WorldFault::MessageDelayed(time) => at(Point::message("host", 1), Fault::Delay(time)),
            WorldFault::MessageLost => at(Point::message("host", 1), Fault::Drop),
            WorldFault::TargetMessageLost => at(Point::message("target", 1), Fault::Drop),
            WorldFault::Partition(time) => {
                fabric.partition("host", "target");
                later(time, Box::new(|client| client.world.fabric().heal("host", "target")));
            }
            WorldFault::PortDown(time) => {
                fabric.set_port("host", false);
                later(time, Box::new(|client| client.world.fabric().set_port("host", true)));
            }
            WorldFault::QueuePairsDie => {
                at(Point::Time(Duration::ZERO), Fault::QueuePairsDie("host".to_owned()));
            }
            WorldFault::TargetRestart(time) => {
                self.target.change(|target| {
                    target.restart();
                    target.set_listening(false);
                });
                later(
                    time,
                    Box::new(|client| {
                        client.target.change(|target| target.set_listening(true));
                    }),
                );
            }
        }
    }

    /// Checks the oldest buffers at rest, and drops them, until `keep` are left.
    fn check_rest(&self, keep: usize) {
        loop {
            let buffer = {
                let mut shared = self.lock();
                if shared.at_rest.len() <= keep {
                    return;
                }
                shared.at_rest.remove(0)
            };
            let mut content = vec![0; buffer.len()];
            buffer.copy_out(0, &mut content);
            if content.iter().any(|byte| *byte != AT_REST) {
                self.violation("a buffer changed after it had come back".to_owned());
            }
        }
    }
}

/// Content of buffers that have come back.
const AT_REST: u8 = 0xa5;
