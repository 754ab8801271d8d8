//! One attempt to connect: from nothing to a connected controller.

use std::time::Instant;

use tokio::sync::mpsc;
use verbs::{Buffer, Limits, ProtectionDomain, Provider};

use crate::{
    config::{ADMIN_QUEUE_ENTRIES, ADMIN_TIMEOUT, ADMIN_TRANSFER_MAX},
    driver::{
        buffers::verbs_error,
        connect::{
            admin_queue::AdminQueue,
            authenticate::{CommandChannel, authenticate, warn_if_unauthenticated},
            io_queues::IoQueueConnector,
            rdma::{Completions, ConnectContext, Plan, Resolved},
        },
        data_path::{
            connection::QueueSet,
            memory::{MemoryReport, completion_entries},
            poller::Poller,
        },
    },
    error::{AuthenticationFailure, Error, Transport},
    proto::{BringUp, BringUpAction, BringUpInput, Execute, KeepAlive, Negotiated, RdmaConnect},
    wire::Cqe,
};

/// What an attempt leaves when it succeeds.
pub(crate) struct EstablishedController<P: Provider> {
    pub(crate) negotiated: Negotiated,
    pub(crate) domain: ProtectionDomain<P>,
    pub(crate) device: String,
    pub(crate) numa_node: Option<u32>,
    pub(crate) memory: MemoryReport,
    pub(crate) admin: AdminQueue<P>,
    pub(crate) io: Vec<QueueSet<P>>,
}

/// Makes an attempt; on an error, and when it is dropped, nothing of it is left. A domain of a
/// device that is gone is replaced. How long it may take as a whole is the caller's to say.
pub(crate) async fn connect<P: Provider>(
    mut means: ConnectContext<'_, P>,
) -> Result<EstablishedController<P>, Error> {
    match ControllerBringUp::run(&means).await {
        Err(Error::Transport(Transport::DeviceChanged)) => {
            tracing::info!("the RDMA device is another one: memory is to be registered anew");
            means.domain = None;
            ControllerBringUp::run(&means).await
        }
        // A target that goes down at that moment hangs up too; one that refuses does so again.
        Err(Error::Authentication { failure: AuthenticationFailure::Disconnected(_), .. }) => {
            tracing::info!("the target hung up while a queue was authenticated: once more");
            ControllerBringUp::run(&means).await
        }
        outcome => outcome,
    }
}

/// A controller on its way up: what both halves of the way need.
struct ControllerBringUp<'a, P: Provider> {
    means: &'a ConnectContext<'a, P>,
    ladder: BringUp,
    domain: ProtectionDomain<P>,
    memory: MemoryReport,
}

impl<'a, P: Provider> ControllerBringUp<'a, P> {
    async fn run(means: &'a ConnectContext<'a, P>) -> Result<EstablishedController<P>, Error> {
        let resolved = Resolved::new(means.provider, means.options).await?;
        let endpoint = resolved.endpoint();
        let Limits { device, numa_node, .. } = endpoint.limits().map_err(verbs_error)?;
        let domain = match &means.domain {
            Some(domain) => domain.clone(),
            None => endpoint.domain().map_err(verbs_error)?,
        };
        let ladder = BringUp::new(means.options.clone());
        let memory = MemoryReport::choose(means.options.memory, &domain);
        let mut this = Self { means, ladder, domain, memory };
        let mut admin = this.admin_queue(resolved).await?;
        let BringUpAction::ConnectIoQueues { count: total, entries } = this.ladder.action()? else {
            return Err(Error::Closed);
        };
        let gathering = IoQueueConnector {
            means,
            ladder: &this.ladder,
            domain: &this.domain,
            memory: this.memory.mode,
            total,
            entries,
        };
        // The keep-alive runs beside it, and whatever happens to the admin queue ends it at once.
        let (_, mut requests) = mpsc::channel(1);
        let (_, mut late) = mpsc::channel(1);
        let (io, up) = tokio::select! {
            queues = gathering.run() => queues?,
            error = admin.serve(&mut requests, &mut late) => return Err(error),
        };
        this.ladder.handle(&BringUpInput::IoQueuesReady(&up))?;
        match this.ladder.action()? {
            BringUpAction::Live(negotiated) => {
                warn_if_unauthenticated(&negotiated);
                let Self { domain, memory, .. } = this;
                let negotiated = *negotiated;
                Ok(EstablishedController {
                    negotiated,
                    domain,
                    device,
                    numa_node,
                    memory,
                    admin,
                    io,
                })
            }
            _ => Err(Error::Closed),
        }
    }

    /// As far as the admin queue leads.
    async fn admin_queue(&mut self, resolved: Resolved<P>) -> Result<AdminQueue<P>, Error> {
        let entries = completion_entries(self.memory.mode, 1, ADMIN_QUEUE_ENTRIES);
        let completion_queue =
            resolved.endpoint().completion_queue(entries).map_err(verbs_error)?;
        let mut poller = Poller::new(completion_queue, ADMIN_TIMEOUT);
        let scratch = self.domain.allocate(ADMIN_TRANSFER_MAX, self.memory.mode.access());
        let mut scratch = Some(scratch.map_err(|error| match &self.means.domain {
            // The first use of a domain of before: where its device is gone, so is the domain.
            Some(_) => Transport::DeviceChanged.into(),
            None => verbs_error(error),
        })?);
        let mut resolved = Some(resolved);
        loop {
            match self.ladder.action()? {
                BringUpAction::ConnectIoQueues { .. } | BringUpAction::Live(_) => break,
                BringUpAction::RdmaConnect(open) => {
                    let Some(resolved) = resolved.take() else { return Err(Error::Closed) };
                    self.open(resolved, &open, &mut poller).await?;
                }
                BringUpAction::Authenticate(queue) => {
                    let mut carrier =
                        ConnectingQueue { poller: &mut poller, scratch: &mut scratch };
                    let how = authenticate(&mut carrier, queue, self.means.parties).await?;
                    self.ladder.handle(&BringUpInput::Authenticated(how))?;
                }
                BringUpAction::Execute(execute) => {
                    let (response, data) = crate::driver::connect::admin_queue::execute(
                        &mut poller,
                        &mut scratch,
                        execute,
                        ADMIN_TIMEOUT,
                    )
                    .await?;
                    self.ladder.handle(&BringUpInput::Completed(response, &data))?;
                }
                BringUpAction::Wait(time) => {
                    tokio::time::sleep(time).await;
                    self.ladder.handle(&BringUpInput::TimerFired)?;
                }
            }
        }
        let options = self.means.options;
        let traffic_based = self.ladder.traffic_keeps_alive();
        let keep_alive = KeepAlive::new(options.keep_alive, traffic_based, Instant::now());
        Ok(AdminQueue::new(poller, scratch, keep_alive, options.io_timeout))
    }

    async fn open(
        &mut self,
        resolved: Resolved<P>,
        open: &RdmaConnect,
        poller: &mut Poller<P>,
    ) -> Result<(), Error> {
        let completion_queue = poller.completion_queue().ok_or(Error::Closed)?;
        let (options, memory) = (self.means.options, self.memory.mode);
        let plan = Plan { options, domain: &self.domain, open, memory };
        let completions = Completions::Own(completion_queue);
        let (queue, accept) = resolved.connect(plan, completions).await?;
        poller.add(queue);
        self.ladder.handle(&BringUpInput::RdmaConnected(accept))
    }
}

/// A queue on which nothing else is going on.
struct ConnectingQueue<'a, P: Provider> {
    poller: &'a mut Poller<P>,
    scratch: &'a mut Option<Buffer>,
}

impl<P: Provider> CommandChannel for ConnectingQueue<'_, P> {
    async fn carry(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        crate::driver::connect::admin_queue::execute(
            self.poller,
            self.scratch,
            execute,
            ADMIN_TIMEOUT,
        )
        .await
    }
}
