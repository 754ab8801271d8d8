//! A live controller: brought up, kept alive, shut down.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use verbs::{Buffer, CallerMemory, Domain, Pool, PoolOptions, Provider, RdmaCore, RefusedMemory};

use super::admin::{Admin, Request};
use super::connect::{Plan, Resolved};
use super::io_task::{self, IoRequest};
use super::liveness::Liveness;
use super::memory::MemoryReport;
use super::namespace::Namespace;
use super::poller::Poller;
use super::verbs_error;
use crate::config::{
    ADMIN_BACKLOG, ADMIN_QUEUE_ENTRIES, ADMIN_TIMEOUT, BACKLOG_PER_ENTRY, BRING_UP_TIMEOUT,
    ConnectOptions, MemoryMode, NAMESPACES_MAX, QUEUE_ENTRIES,
};
use crate::error::{Error, Misuse, Rejected, TargetMisbehaved};
use crate::proto::{Action, BringUp, Execute, Input, Negotiated, OpenQueue, Transfer};
use crate::wire::{
    Accept, Cqe, Identify, NamespaceId, NamespaceInfo, NamespaceList, Nqn, QueueId, Sqe, Status,
};

/// A connection to one controller of a subsystem: the admin queue and the I/O queues.
///
/// Dropping it disconnects; [`shutdown`](Self::shutdown) does so in order and waits.
pub struct Controller<P: Provider = RdmaCore> {
    negotiated: Negotiated,
    domain: Domain<P>,
    device: String,
    memory: MemoryReport,
    admin: mpsc::Sender<Request>,
    admin_task: JoinHandle<()>,
    io: Vec<mpsc::Sender<IoRequest>>,
    io_tasks: Vec<JoinHandle<()>>,
    liveness: Liveness,
}

impl Controller {
    /// Connects over the system's RDMA devices; the I/O queues are served by tasks of the current
    /// runtime, one for each processor at most.
    ///
    /// # Errors
    ///
    /// Whatever keeps the controller from being live; nothing of it is left then.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, Error> {
        Self::connect_over(&Arc::new(RdmaCore), options).await
    }

    /// Connects as [`connect`](Self::connect), but leaves the I/O queues to the caller: they are
    /// shared out over `pollers` pollers (fewer when there are fewer queues), which the caller
    /// drives. The controller has no namespaces to read from then, only its admin queue.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_polled(
        options: &ConnectOptions,
        pollers: usize,
    ) -> Result<(Self, Vec<Poller>), Error> {
        Self::connect_with(&Arc::new(RdmaCore), options, pollers).await
    }
}

impl<P: Provider> Controller<P> {
    /// Connects as [`connect`](Controller::connect), over any provider of RDMA.
    ///
    /// # Errors
    ///
    /// As [`connect`](Controller::connect).
    pub async fn connect_over(provider: &Arc<P>, options: &ConnectOptions) -> Result<Self, Error> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let (mut controller, pollers) = Self::connect_with(provider, options, processors).await?;
        for poller in pollers {
            controller.serve(poller, options);
        }
        Ok(controller)
    }

    async fn connect_with(
        provider: &Arc<P>,
        options: &ConnectOptions,
        pollers: usize,
    ) -> Result<(Self, Vec<Poller<P>>), Error> {
        check(options)?;
        let bring_up = Bringing::up(provider, options, pollers.max(1));
        let timeout = Error::Timeout { step: "the whole connect", after: BRING_UP_TIMEOUT };
        let (parts, negotiated) =
            tokio::time::timeout(BRING_UP_TIMEOUT, bring_up).await.unwrap_or(Err(timeout))?;
        let (admin, requests) = mpsc::channel(ADMIN_BACKLOG);
        let Bringing { admin: poller, domain, device, memory, io, liveness, scratch, .. } = parts;
        let task = Admin::new(poller, scratch, options.keep_alive, liveness.clone());
        let controller = Self {
            negotiated,
            domain,
            device,
            memory,
            admin,
            admin_task: tokio::spawn(task.run(requests)),
            io: Vec::new(),
            io_tasks: Vec::new(),
            liveness,
        };
        Ok((controller, io))
    }

    fn serve(&mut self, poller: Poller<P>, options: &ConnectOptions) {
        let (sender, requests) = mpsc::channel(poller.depth() * BACKLOG_PER_ENTRY);
        let task = io_task::run(poller, requests, options.wait);
        self.io.push(sender);
        self.io_tasks.push(tokio::spawn(task));
    }

    /// What was agreed with the controller.
    #[must_use]
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// The name of the RDMA device in use.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// How it reaches our memory; not as was asked for where the device cannot.
    #[must_use]
    pub fn memory(&self) -> &MemoryReport {
        &self.memory
    }

    /// Memory that this controller may read and write: one registration of its own.
    ///
    /// # Errors
    ///
    /// When the memory can't be had or registered; a limit is named with its remedy.
    pub fn allocate(&self, bytes: usize) -> Result<Buffer, Error> {
        self.domain.allocate(bytes, self.memory.mode.access()).map_err(verbs_error)
    }

    /// As [`allocate`](Self::allocate), `count` buffers of `bytes` bytes each, in one registration.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    pub fn allocate_many(&self, count: usize, bytes: usize) -> Result<Vec<Buffer>, Error> {
        super::buffers(&self.domain, count, bytes, self.memory.mode.access())
    }

    /// Memory of the caller, a `Vec<u8>` or a `Box<[u8]>`, for this controller to read and write,
    /// without copying it; [`Buffer::deregister`] gives it back.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate), with the memory handed back.
    pub fn register<M: CallerMemory>(&self, memory: M) -> Result<Buffer, RefusedMemory<M>> {
        self.domain.register(memory, self.memory.mode.access())
    }

    /// A pool of buffers, on pages as they are wanted: huge ones, or of a NUMA node. What may be
    /// done to them is for the memory mode to say, and not for the options.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate); also when pages are demanded that cannot be had.
    pub fn pool(&self, options: PoolOptions) -> Result<Pool, Error> {
        let access = self.memory.mode.access();
        self.domain.pool(PoolOptions { access, ..options }).map_err(verbs_error)
    }

    /// The active namespaces.
    ///
    /// # Errors
    ///
    /// When the controller refuses or is gone.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceId>, Error> {
        let mut all = Vec::new();
        loop {
            let after = all.last().copied().unwrap_or(NamespaceId(0));
            let command = Identify::active_namespaces(after);
            let data = self.identify("Identify (active namespaces)", command).await?;
            let list = NamespaceList::parse(&data)?.0;
            let known = all.len();
            let complete = list.len() < NamespaceList::ENTRIES;
            all.extend(list.into_iter().skip_while(|&id| id <= after));
            if all.len() > NAMESPACES_MAX || (all.len() == known && !complete) {
                return Err(TargetMisbehaved::NamespaceList.into());
            }
            if complete {
                return Ok(all);
            }
        }
    }

    /// What a namespace is.
    ///
    /// # Errors
    ///
    /// When it is not there, has a format we can't use, or the controller is gone.
    pub async fn identify_namespace(&self, id: NamespaceId) -> Result<NamespaceInfo, Error> {
        match self.identify("Identify Namespace", Identify::namespace(id)).await {
            Ok(data) => Ok(NamespaceInfo::parse(id, &data)?),
            // Some targets refuse where others describe a namespace of no blocks.
            Err(Error::Rejected(Rejected::Command { status, .. }))
                if status.code() == Status::INVALID_NAMESPACE =>
            {
                Err(Misuse::NoNamespace(id).into())
            }
            Err(error) => Err(error),
        }
    }

    /// A namespace to read and write.
    ///
    /// # Errors
    ///
    /// As [`identify_namespace`](Self::identify_namespace).
    pub async fn namespace(&self, id: NamespaceId) -> Result<Namespace, Error> {
        let info = self.identify_namespace(id).await?;
        let liveness = self.liveness.clone();
        Ok(Namespace::new(info, self.negotiated.transfer_bytes_max, self.io.clone(), liveness))
    }

    /// Waits until the controller has failed, and says why.
    pub async fn failed(&self) -> Error {
        self.liveness.ended().await
    }

    /// Ends the I/O queues, tells the controller, and disconnects. Takes a second at most, with
    /// the target dead too. Requests in flight are failed. Pollers that the caller drives are to be
    /// dropped before.
    pub async fn shutdown(self) {
        let Self { admin, admin_task, io_tasks, liveness, .. } = self;
        liveness.end(Error::Closed);
        for task in io_tasks {
            // A task that panicked has dropped its queues, which is all that matters here.
            let _ = task.await;
        }
        drop(admin);
        let _ = admin_task.await;
    }

    async fn identify(&self, name: &'static str, sqe: Sqe) -> Result<Vec<u8>, Error> {
        let (reply, answer) = oneshot::channel();
        let transfer = Transfer::FromController(Identify::SIZE);
        let execute = Execute { queue: QueueId::ADMIN, sqe, transfer, name };
        let request = Request { execute, reply };
        if self.admin.send(request).await.is_err() {
            return Err(self.failed().await);
        }
        let Ok(outcome) = answer.await else { return Err(self.failed().await) };
        let (response, data) = outcome?;
        match response.status() {
            status if status.is_success() => Ok(data),
            status => Err(Rejected::Command { command: name, status }.into()),
        }
    }
}

/// Refuses options out of range before anything is sent.
fn check(options: &ConnectOptions) -> Result<(), Misuse> {
    if !QUEUE_ENTRIES.contains(&options.queue_entries) {
        let value = u64::from(options.queue_entries);
        return Err(Misuse::Option { option: "queue size", value, range: "2 to 1024" });
    }
    if options.io_queues == 0 {
        return Err(Misuse::Option { option: "I/O queues", value: 0, range: "1 to 65535" });
    }
    if options.subsystem.as_str() == Nqn::DISCOVERY {
        return Err(Misuse::Discovery);
    }
    Ok(())
}

/// A controller on its way up.
struct Bringing<'a, P: Provider> {
    provider: &'a Arc<P>,
    options: &'a ConnectOptions,
    domain: Domain<P>,
    device: String,
    memory: MemoryReport,
    /// Data of admin commands.
    scratch: Option<Buffer>,
    admin: Poller<P>,
    io: Vec<Poller<P>>,
    pollers: usize,
    liveness: Liveness,
}

impl<'a, P: Provider> Bringing<'a, P> {
    /// Climbs the ladder; on an error everything made so far is dropped.
    async fn up(
        provider: &'a Arc<P>,
        options: &'a ConnectOptions,
        pollers: usize,
    ) -> Result<(Self, Negotiated), Error> {
        let mut ladder = BringUp::new(options.clone());
        let resolved = Resolved::new(provider, options).await?;
        let endpoint = resolved.endpoint();
        let domain = endpoint.domain().map_err(verbs_error)?;
        let memory = MemoryReport::choose(options.memory, &domain);
        let entries = completion_entries(memory.mode, 1, ADMIN_QUEUE_ENTRIES);
        let completion_queue = endpoint.completion_queue(entries).map_err(verbs_error)?;
        let scratch = domain.allocate(Identify::SIZE, memory.mode.access()).map_err(verbs_error)?;
        let mut this = Self {
            provider,
            options,
            device: endpoint.limits().map_err(verbs_error)?.device,
            memory,
            scratch: Some(scratch),
            domain,
            admin: Poller::new(completion_queue, ADMIN_TIMEOUT),
            io: Vec::new(),
            pollers,
            liveness: Liveness::new(),
        };
        let mut resolved = Some(resolved);
        loop {
            match ladder.action()? {
                Action::Live(negotiated) => return Ok((this, *negotiated)),
                Action::Wait(time) => {
                    tokio::time::sleep(time).await;
                    ladder.handle(&Input::Waited)?;
                }
                Action::Open(open) => {
                    let accept = this.open(resolved.take(), &open, ladder.io_queues()).await?;
                    ladder.handle(&Input::Opened(accept))?;
                }
                Action::Execute(execute) => {
                    let (response, data) = this.execute(execute).await?;
                    ladder.handle(&Input::Completed(response, &data))?;
                }
            }
        }
    }

    async fn open(
        &mut self,
        resolved: Option<Resolved<P>>,
        open: &OpenQueue,
        io_queues: u16,
    ) -> Result<Accept, Error> {
        let resolved = match resolved {
            Some(resolved) => resolved,
            None => Resolved::new(self.provider, self.options).await?,
        };
        let poller = match open.queue {
            QueueId::ADMIN => &mut self.admin,
            QueueId(id) => {
                let pollers = u16::try_from(self.pollers).unwrap_or(u16::MAX).min(io_queues);
                let index = usize::from((id - 1) % pollers);
                if index == self.io.len() {
                    let queues = u32::from(io_queues.div_ceil(pollers));
                    let entries = completion_entries(self.memory.mode, queues, open.entries);
                    let queue = resolved.endpoint().completion_queue(entries);
                    let queue = queue.map_err(verbs_error)?;
                    let poller = Poller::new(queue, self.options.io_timeout);
                    self.io.push(poller.with_liveness(self.liveness.clone()));
                }
                &mut self.io[index]
            }
        };
        let plan = Plan {
            options: self.options,
            domain: &self.domain,
            completion_queue: poller.completion_queue(),
            open,
            memory: self.memory.mode,
        };
        let (queue, accept) = resolved.connect(plan).await?;
        poller.add(queue);
        Ok(accept)
    }

    async fn execute(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        let index = match execute.queue {
            QueueId::ADMIN => None,
            QueueId(id) => Some(usize::from(id - 1) % self.io.len()),
        };
        let poller = match index {
            None => &mut self.admin,
            Some(index) => &mut self.io[index],
        };
        super::admin::execute(poller, &mut self.scratch, execute, ADMIN_TIMEOUT).await
    }
}

/// Completions that may be outstanding: every send and receive of every queue.
fn completion_entries(memory: MemoryMode, queues: u32, entries: u16) -> u32 {
    queues * (memory.sends_per_entry() + 1) * u32::from(entries)
}

/// How long an idle task sleeps before it looks around.
pub(super) const IDLE: Duration = Duration::from_millis(100);
