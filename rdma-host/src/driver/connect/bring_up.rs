//! Bring-up of a controller: one attempt to connect.

use std::sync::Arc;

use auth::{
    ExchangeError,
    message::{Explanation, MessageId},
};
use tokio::sync::mpsc;
use verbs::{Endpoint, Limits, ProtectionDomain, Provider};

use crate::{
    config::{ADMIN_QUEUE_ENTRIES, ADMIN_TIMEOUT, ConnectOptions},
    driver::{
        buffers::verbs_error,
        connect::{
            authenticate::{AuthenticationParties, authenticate, warn_if_unauthenticated},
            context::{ConnectContext, Purpose},
            io_queues::IoQueues,
            rdma::{Plan, Resolved},
        },
        data_path::{
            admin_queue::{command_buffer::CommandBuffer, queue::AdminQueue},
            connection::QueueSet,
            memory::{MemoryReport, completion_entries},
            poller::Poller,
        },
        runtime,
    },
    error::{AuthenticationFailure, Error, Misuse, Transport},
    proto::{BringUpAction, BringUpInput, Negotiated},
    wire::{CmAcceptData, QueueId},
};

/// Controller that is connected with all its queues.
pub(crate) struct EstablishedController<P: Provider> {
    pub(crate) negotiated: Negotiated,
    pub(crate) domain: ProtectionDomain<P>,
    /// Limits of the RDMA device.
    pub(crate) device: Limits,
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
    let outcome = bring_up(&context).await;
    let outcome = match outcome {
        Err(Error::Transport(Transport::DeviceChanged)) if context.group.is_none() => {
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
    };
    match outcome {
        Err(error) if is_two_way_refusal(&error, context.options) => {
            Err(explain_two_way_refusal(&context, error).await)
        }
        outcome => outcome,
    }
}

/// Returns true if the target refused the response of a host that asks it to prove itself.
fn is_two_way_refusal(error: &Error, options: &ConnectOptions) -> bool {
    let credentials = options.authentication.credentials.as_ref();
    let is_refusal = |failure: &auth::Failure| {
        failure.expected() == MessageId::SUCCESS1
            && *failure.error() == ExchangeError::Refused(Explanation::AUTHENTICATION_FAILED)
    };
    credentials.is_some_and(|credentials| credentials.is_two_way())
        && matches!(error, Error::Authentication {
            queue: QueueId::ADMIN,
            failure: AuthenticationFailure::Exchange(failure),
        } if is_refusal(failure))
}

/// Returns the error of a target that refused two-way authentication. One that has no controller
/// secret for this host says the same as one that has another host secret, so the host's alone is
/// tried: on an admin queue, which is dropped after that.
async fn explain_two_way_refusal<P: Provider>(
    context: &ConnectContext<'_, P>,
    error: Error,
) -> Error {
    let mut options = context.options.clone();
    let credentials = &mut options.authentication.credentials;
    *credentials = credentials.take().map(|both| Arc::new(both.without_controller()));
    let one_way = ConnectContext {
        options: &options,
        purpose: Purpose::Discovery { events: false },
        parties: &AuthenticationParties::of(&options),
        domain: context.domain.clone(),
        ..*context
    };
    match bring_up(&one_way).await {
        // The subsystem is no discovery subsystem: that is found out after authentication.
        Ok(_) | Err(Error::Misuse(Misuse::NotDiscovery(_))) => Error::Authentication {
            queue: QueueId::ADMIN,
            failure: AuthenticationFailure::NoControllerSecret,
        },
        Err(_) => error,
    }
}

/// Performs the actions of [`BringUp`](crate::proto::BringUp) until the controller is live.
async fn bring_up<P: Provider>(
    context: &ConnectContext<'_, P>,
) -> Result<EstablishedController<P>, Error> {
    let ConnectContext { options, purpose, .. } = *context;
    let resolved = Resolved::new(context.provider, options).await?;
    let endpoint = resolved.endpoint();
    let mut device = endpoint.limits().map_err(verbs_error)?;
    let domain = domain(context, endpoint)?;
    let memory = MemoryReport::choose(options.memory, &domain);
    let mut admin = admin_queue(context, &resolved, &domain, &memory)?;
    let mut bring_up = purpose.bring_up(options, context.queue_id_seed);
    let (mut resolved, mut io) = (Some(resolved), Vec::new());
    loop {
        match bring_up.action()? {
            BringUpAction::RdmaConnect(open) => {
                let resolved = resolved.take().expect("the admin queue is connected once");
                let plan = Plan { options, domain: &domain, open, memory: memory.mode };
                let (accept, connected) = connect_admin_queue(&mut admin, resolved, plan).await?;
                device = connected.unwrap_or(device);
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
                runtime::sleep(time).await;
                bring_up.handle(&BringUpInput::TimerFired)?;
            }
            BringUpAction::ConnectIoQueues { queues, entries } => {
                admin.start_keep_alive(options.keep_alive, bring_up.traffic_keeps_alive());
                let io_queues = IoQueues { context, domain: &domain, memory: memory.mode, entries };
                let ready;
                (io, ready) = serving_admin_queue(io_queues.connect(queues), &mut admin).await?;
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
                    memory,
                    admin,
                    io,
                });
            }
        }
    }
}

/// Protection domain of the connection before, or of the group, or a new one.
fn domain<P: Provider>(
    context: &ConnectContext<'_, P>,
    endpoint: &Endpoint<P>,
) -> Result<ProtectionDomain<P>, Error> {
    match (&context.domain, context.group) {
        (Some(domain), _) => Ok(domain.clone()),
        (None, Some(group)) => group.domain(|| endpoint.domain()).map_err(verbs_error),
        (None, None) => endpoint.domain().map_err(verbs_error),
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

/// Establishes the RDMA connection of the admin queue; returns the target's private data, and the
/// limits of the device with the MTU of the path, unless the connection is lost already.
pub(crate) async fn connect_admin_queue<P: Provider>(
    admin: &mut AdminQueue<P>,
    resolved: Resolved<P>,
    plan: Plan<'_, P>,
) -> Result<(CmAcceptData, Option<Limits>), Error> {
    let (queue, accept) = resolved.connector(plan).run(admin.completion_queue()).await?;
    let device = queue.endpoint().limits().ok();
    admin.add(queue);
    Ok((accept, device))
}

/// Waits for `io_queues` while the admin queue is kept alive; its failure ends both.
async fn serving_admin_queue<P: Provider, T>(
    io_queues: impl Future<Output = Result<T, Error>>,
    admin: &mut AdminQueue<P>,
) -> Result<T, Error> {
    let (_, mut requests) = mpsc::channel(1);
    let (_, mut timed_out) = mpsc::channel(1);
    tokio::select! {
        biased;
        outcome = io_queues => outcome,
        error = admin.serve(&mut requests, &mut timed_out) => Err(error),
    }
}
