//! Controllers: connecting, namespaces, events, the end.

use std::{
    collections::VecDeque,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use rdma_host::{
    Controller as HostController, LifecycleState, MemoryMode, MemoryOwner, StateChange,
    error::Misuse, wire::NamespaceId,
};
use rustix::event::{EventfdFlags, eventfd};
use tokio::runtime::Runtime;

use crate::{
    error::CallError,
    handle::Table,
    layout::{nvmf_controller_info, nvmf_event, nvmf_namespace, text},
    memory::{MEMORIES, Memory},
    options::OPTIONS,
    queue::{self, BlockSizes, QUEUES},
};

/// All controllers.
pub(crate) static CONTROLLERS: Table<Controller, 1024> = Table::new(2, "nvmf_controller");

/// Controller with the objects that end with it.
pub(crate) struct Controller {
    runtime: Runtime,
    host: Arc<HostController>,
    /// Number that no other controller of the process has.
    number: u64,
    /// Handles of the queues.
    queues: Vec<u64>,
    /// Handles of memory, some of which may be free again.
    memories: Mutex<Vec<u64>>,
    block_sizes: BlockSizes,
    events: Arc<Events>,
}

/// Events that the program has not read.
struct Events {
    state: Mutex<EventState>,
    /// Eventfd that is readable while there are events.
    descriptor: OwnedFd,
}

struct EventState {
    backlog: VecDeque<nvmf_event>,
    /// Number of events that were dropped since the last one that was read.
    missed: u64,
    /// State that was entered last.
    state: u32,
}

/// Maximum number of events that wait for the program.
const EVENT_BACKLOG: usize = 64;

/// Timeout of the end of the controller's tasks.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(1);

/// Number of the next controller; 0 is that of none.
static NEXT: AtomicU64 = AtomicU64::new(1);

const KIND_STATE: u32 = 0;
const KIND_NOTICE: u32 = 1;

/// Connects with options; `start` starts the threads of a runtime.
pub(crate) fn connect(
    options: u64,
    start: impl FnOnce(&mut tokio::runtime::Builder) -> std::io::Result<Runtime>,
) -> Result<u64, CallError> {
    let pairs = OPTIONS.read(options)?.get()?.clone();
    let options = pairs.arguments()?.options()?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("nvmf-rdma").enable_all();
    let runtime = start(&mut builder).map_err(|error| CallError::system("a thread", &error))?;
    let events = Arc::new(Events::new()?);
    let (controller, pollers) = runtime.block_on(async {
        let connecting = HostController::connect(&options);
        let (mut changes, mut notices) = (connecting.changes(), connecting.events());
        let connected = connecting.polled(usize::from(options.io_queues)).await?;
        // All that was reported until now: who has the controller finds it live.
        loop {
            tokio::select! {
                biased;
                Some(change) = changes.next() => events.add(change_event(&change)),
                () = std::future::ready(()) => break,
            }
        }
        let (of_changes, of_notices) = (Arc::clone(&events), Arc::clone(&events));
        tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                of_changes.add(change_event(&change));
            }
        });
        tokio::spawn(async move {
            while let Some(notice) = notices.next().await {
                of_notices.add(event(KIND_NOTICE, notice.at, &notice.to_string()));
            }
        });
        Ok::<_, CallError>(connected)
    })?;
    let (host, number) = (Arc::new(controller), NEXT.fetch_add(1, Ordering::Relaxed));
    let block_sizes = BlockSizes::default();
    let mut controller = Controller {
        runtime,
        host: Arc::clone(&host),
        number,
        queues: Vec::new(),
        memories: Mutex::default(),
        block_sizes: Arc::clone(&block_sizes),
        events,
    };
    let added = pollers.into_iter().try_for_each(|poller| {
        controller.queues.push(queue::add(&host, poller, number, &block_sizes)?);
        Ok::<_, CallError>(())
    });
    drop(host);
    if let Err(error) = added {
        // Nothing uses what the program has not got.
        let _ = controller.end();
        return Err(error);
    }
    CONTROLLERS.add(controller)
}

/// Disconnects, and ends the queues and the memory. An error if another thread uses any of them.
pub(crate) fn disconnect(handle: u64) -> Result<(), CallError> {
    let mut entry = CONTROLLERS.write(handle)?;
    let Some(controller) = entry.take() else { return Err(CallError::panicked()) };
    match controller.end() {
        Ok(()) => Ok(()),
        Err((error, controller)) => {
            entry.put(handle, controller);
            Err(error)
        }
    }
}

impl Controller {
    /// Ends everything, or nothing.
    #[expect(clippy::result_large_err, reason = "it is the controller, handed back")]
    fn end(self) -> Result<(), (CallError, Self)> {
        let memories = self.memories.lock().clone();
        let mut queue_entries = Vec::new();
        let mut memory_entries = Vec::new();
        let locked = (|| {
            for &queue in &self.queues {
                queue_entries.push(QUEUES.write(queue)?);
            }
            for &memory in &memories {
                match MEMORIES.write(memory) {
                    Ok(entry) => memory_entries.push(entry),
                    Err(error) if error.number() == libc::EBADF => {} // it is free
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })();
        if let Err(error) = locked {
            drop((queue_entries, memory_entries));
            return Err((error, self));
        }
        // The queues first: they use the memory.
        queue_entries.iter_mut().for_each(|entry| drop(entry.take()));
        memory_entries.iter_mut().for_each(|entry| drop(entry.take()));
        let Self { runtime, host, .. } = self;
        if let Some(host) = Arc::into_inner(host) {
            runtime.block_on(host.shutdown());
        }
        runtime.shutdown_timeout(RUNTIME_TIMEOUT);
        Ok(())
    }

    pub(crate) fn queue(&self, index: usize) -> Result<u64, CallError> {
        let queue = self.queues.get(index).copied();
        queue.ok_or_else(|| {
            let count = self.queues.len();
            CallError::invalid(format!("no queue {index}: the controller has {count}, from 0 on"))
        })
    }

    pub(crate) fn reset(&self) {
        self.runtime.block_on(self.host.reset());
    }

    /// Allocates memory; returns its handle and its address.
    pub(crate) fn allocate(&self, bytes: usize) -> Result<(u64, u64), CallError> {
        let shared = self.host.allocate_shared(bytes)?;
        let address = shared.address();
        self.add_memory(shared).map(|handle| (handle, address))
    }

    /// Registers memory; returns its handle.
    pub(crate) fn register(&self, owner: impl MemoryOwner) -> Result<u64, CallError> {
        self.add_memory(self.host.register_shared(owner)?)
    }

    fn add_memory(&self, shared: rdma_host::SharedMemory) -> Result<u64, CallError> {
        let mut memories = self.memories.lock();
        memories.retain(|&memory| MEMORIES.is_there(memory));
        let handle = MEMORIES.add(Memory { shared, controller: self.number })?;
        memories.push(handle);
        Ok(handle)
    }

    pub(crate) fn namespaces(&self) -> Result<Vec<u32>, CallError> {
        let found = self.runtime.block_on(self.host.namespaces())?;
        Ok(found.into_iter().map(|id| id.0).collect())
    }

    pub(crate) fn namespace(&self, nsid: u32) -> Result<nvmf_namespace, CallError> {
        let info = self.runtime.block_on(self.host.identify_namespace(NamespaceId(nsid)))?;
        Misuse::check_no_metadata(&info).map_err(rdma_host::Error::from)?;
        let mut block_sizes = self.block_sizes.lock();
        block_sizes.retain(|(known, _)| *known != nsid);
        block_sizes.push((nsid, info.block_size));
        Ok(nvmf_namespace {
            size: size_of::<nvmf_namespace>() as u64,
            blocks: info.blocks,
            block_size: info.block_size,
            nsid,
            nguid: info.nguid.map(|id| id.into_bytes()).unwrap_or_default(),
            uuid: info.uuid.map(|id| id.into_bytes()).unwrap_or_default(),
            eui64: info.eui64.map(|id| id.0).unwrap_or_default(),
        })
    }

    pub(crate) fn info(&self) -> nvmf_controller_info {
        let negotiated = self.host.negotiated();
        let numa_node = self.host.numa_node().and_then(|node| i32::try_from(node).ok());
        nvmf_controller_info {
            size: size_of::<nvmf_controller_info>() as u64,
            transfer_bytes_max: negotiated.transfer_bytes_max,
            io_queues: negotiated.io_queues.into(),
            queue_entries: negotiated.queue_entries.into(),
            state: self.events.state.lock().state,
            controller_id: negotiated.controller.0.into(),
            memory_mode: u32::from(self.host.memory().mode == MemoryMode::Window),
            numa_node: numa_node.unwrap_or(-1),
            device: text(&self.host.device()),
            serial: text(&negotiated.info.serial),
            model: text(&negotiated.info.model),
            firmware: text(&negotiated.info.firmware),
        }
    }

    /// Oldest event that was not read.
    pub(crate) fn next_event(&self) -> Option<nvmf_event> {
        let mut state = self.events.state.lock();
        let event = state.backlog.pop_front();
        let missed = if event.is_some() { std::mem::take(&mut state.missed) } else { 0 };
        if state.backlog.is_empty() {
            // Fails only if it was not readable.
            let _ = rustix::io::read(&self.events.descriptor, &mut [0; 8]);
        }
        event.map(|event| nvmf_event { missed, ..event })
    }

    pub(crate) fn event_descriptor(&self) -> RawFd {
        self.events.descriptor.as_raw_fd()
    }
}

impl Events {
    fn new() -> Result<Self, CallError> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| CallError::system("eventfd", &error.into()))?;
        let state = number_of_state(LifecycleState::New);
        let state = EventState { backlog: VecDeque::new(), missed: 0, state };
        Ok(Self { state: Mutex::new(state), descriptor })
    }

    fn add(&self, event: nvmf_event) {
        let mut state = self.state.lock();
        if event.kind == KIND_STATE {
            state.state = event.state;
        }
        if state.backlog.len() == EVENT_BACKLOG {
            state.backlog.pop_front();
            state.missed += 1;
        }
        let entered = state.state;
        state.backlog.push_back(nvmf_event { state: entered, ..event });
        // Fails only if the counter is full, and then it is readable.
        let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
    }
}

fn change_event(change: &StateChange) -> nvmf_event {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    nvmf_event {
        next_ms: change.next.map_or(0, milliseconds),
        state: number_of_state(change.state),
        attempt: change.attempt,
        attempts_max: change.attempts_max.unwrap_or(0),
        ..event(KIND_STATE, change.at, &change.to_string())
    }
}

fn event(kind: u32, at: SystemTime, description: &str) -> nvmf_event {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    nvmf_event {
        size: size_of::<nvmf_event>() as u64,
        time_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        next_ms: 0,
        kind,
        state: 0,
        attempt: 0,
        attempts_max: 0,
        missed: 0,
        text: text(description),
    }
}

fn number_of_state(state: LifecycleState) -> u32 {
    match state {
        LifecycleState::New => 0,
        LifecycleState::Connecting => 1,
        LifecycleState::Live => 2,
        LifecycleState::Resetting => 3,
        LifecycleState::Waiting => 4,
        LifecycleState::Deleting => 5,
        LifecycleState::Dead => 6,
    }
}
