//! Bring-up of a controller: one attempt to connect.

use tokio::sync::mpsc;
use verbs::{Limits, ProtectionDomain, Provider};

use crate::{
    config::{ADMIN_QUEUE_ENTRIES, ADMIN_TIMEOUT},
    driver::{
        buffers::verbs_error,
        connect::{
            admin_queue::AdminQueue,
            authenticate::{authenticate, warn_if_unauthenticated},
            command_buffer::CommandBuffer,
            context::ConnectContext,
            io_queues::IoQueues,
            rdma::{Plan, Resolved},
        },
        data_path::{
            connection::QueueSet,
            memory::{MemoryReport, completion_entries},
            poller::Poller,
        },
    },
    error::{AuthenticationFailure, Error, Transport},
    proto::{BringUpAction, BringUpInput, Negotiated},
};

/// Controller that is connected with all its queues.
pub(crate) struct EstablishedController<P: Provider> {
    pub(crate) negotiated: Negotiated,
    pub(crate) domain: ProtectionDomain<P>,
    pub(crate) device: String,
    pub(crate) numa_node: Option<u32>,
    pub(crate) memory: MemoryReport,
    pub(crate) admin: AdminQueue<P>,
    /// I/O queues of each poller.
    pub(crate) io: Vec<QueueSet<P>>,
}

/// Makes one attempt to connect; on an error, and when the future is dropped, nothing is left of
/// it. A domain whose device is gone is replaced. The caller limits the time.
pub(crate) async fn connect<P: Provider>(
    mut context: ConnectContext<'_, P>,
) -> Result<EstablishedController<P>, Error> {
    match bring_up(&context).await {
        Err(Error::Transport(Transport::DeviceChanged)) => {
            tracing::info!("the RDMA device is another one: memory has to be registered again");
            context.domain = None;
            bring_up(&context).await
        }
        // A target that is going down disconnects too; one that refuses does so again.
        Err(Error::Authentication { failure: AuthenticationFailure::Disconnected(_), .. }) => {
            tracing::info!("the target hung up while a queue was authenticated: once more");
            bring_up(&context).await
        }
        outcome => outcome,
    }
}

/// Performs the actions of [`BringUp`](crate::proto::BringUp) until the controller is live.
async fn bring_up<P: Provider>(
    context: &ConnectContext<'_, P>,
) -> Result<EstablishedController<P>, Error> {
    let ConnectContext { options, purpose, .. } = *context;
    let resolved = Resolved::new(context.provider, options).await?;
    let endpoint = resolved.endpoint();
    let Limits { device, numa_node, .. } = endpoint.limits().map_err(verbs_error)?;
    let domain = match &context.domain {
        Some(domain) => domain.clone(),
        None => endpoint.domain().map_err(verbs_error)?,
    };
    let memory = MemoryReport::choose(options.memory, &domain);
    let mut admin = admin_queue(context, &resolved, &domain, &memory)?;
    let mut bring_up = purpose.bring_up(options);
    let (mut resolved, mut io) = (Some(resolved), Vec::new());
    loop {
        match bring_up.action()? {
            BringUpAction::RdmaConnect(open) => {
                let resolved = resolved.take().expect("the admin queue is connected once");
                let plan = Plan { options, domain: &domain, open, memory: memory.mode };
                let accept = admin.connect(resolved, plan).await?;
                bring_up.handle(&BringUpInput::RdmaConnected(accept))?;
            }
            BringUpAction::Authenticate(queue) => {
                let outcome = authenticate(&mut admin, queue, context.parties).await?;
                bring_up.handle(&BringUpInput::Authenticated(outcome))?;
            }
            BringUpAction::Execute(execute) => {
                let (response, data) = admin.execute(execute).await?;
                bring_up.handle(&BringUpInput::Completed(response, &data))?;
            }
            BringUpAction::Wait(time) => {
                tokio::time::sleep(time).await;
                bring_up.handle(&BringUpInput::TimerFired)?;
            }
            BringUpAction::ConnectIoQueues { queues, entries } => {
                admin.start_keep_alive(options.keep_alive, bring_up.traffic_keeps_alive());
                let io_queues = IoQueues { context, domain: &domain, memory: memory.mode, entries };
                let ready;
                (io, ready) = beside_admin_queue(io_queues.connect(queues), &mut admin).await?;
                bring_up.handle(&BringUpInput::IoQueuesReady(&ready))?;
            }
            BringUpAction::Live(negotiated) => {
                if io.is_empty() {
                    admin.start_keep_alive(options.keep_alive, bring_up.traffic_keeps_alive());
                }
                warn_if_unauthenticated(&negotiated);
                return Ok(EstablishedController {
                    negotiated: *negotiated,
                    domain,
                    device,
                    numa_node,
                    memory,
                    admin,
                    io,
                });
            }
        }
    }
}

/// Creates the driver of the admin queue.
fn admin_queue<P: Provider>(
    context: &ConnectContext<'_, P>,
    resolved: &Resolved<P>,
    domain: &ProtectionDomain<P>,
    memory: &MemoryReport,
) -> Result<AdminQueue<P>, Error> {
    let entries = completion_entries(memory.mode, 1, ADMIN_QUEUE_ENTRIES);
    let completion_queue = resolved.endpoint().completion_queue(entries).map_err(verbs_error)?;
    let poller = Poller::new(completion_queue, ADMIN_TIMEOUT);
    let bytes = context.purpose.admin_transfer_max();
    let buffer = domain.allocate(bytes, memory.mode.access()).map_err(|error| {
        match &context.domain {
            // First use of the domain of an earlier connection: it is gone with its device.
            Some(_) => Transport::DeviceChanged.into(),
            None => verbs_error(error),
        }
    })?;
    Ok(AdminQueue::new(poller, CommandBuffer::from(buffer), context.options.io_timeout))
}

/// Waits for `io_queues` while the admin queue is kept alive; its failure ends both.
async fn beside_admin_queue<P: Provider, T>(
    io_queues: impl Future<Output = Result<T, Error>>,
    admin: &mut AdminQueue<P>,
) -> Result<T, Error> {
    let (_, mut requests) = mpsc::channel(1);
    let (_, mut timed_out) = mpsc::channel(1);
    tokio::select! {
        outcome = io_queues => outcome,
        error = admin.serve(&mut requests, &mut timed_out) => Err(error),
    }
}
