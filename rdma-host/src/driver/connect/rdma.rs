//! RDMA connection of one queue (RDMA 3.3): performs the actions of [`ActiveSide`].

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::fd::AsFd,
    sync::Arc,
    time::Instant,
};

use verbs::{
    Access, CompletionQueue, ConnectionEvent, Endpoint, Established, PortWatch, PreparedQueuePair,
    ProtectionDomain, Provider, QueuePairCapabilities, TransportType,
    active_side::{Action, ActiveSide, Event, Reopen, State, Timeouts},
};

use crate::{
    config::{
        CONNECT_ATTEMPTS, CONNECT_TIMEOUT, ConnectOptions, MemoryMode, PORT_POLL_INTERVAL,
        PORT_TIMEOUT, READ_DEPTH_MAX, RESOLVE_RETRY_INTERVAL, RESOLVE_TIMEOUT, SHUTDOWN_TIMEOUT,
        STALE_CONNECTION_DELAY,
    },
    driver::{
        buffers::{buffers, verbs_error},
        connect::{
            connect_error::{Target, os_error},
            connect_thread::{self, ConnectRequest},
        },
        data_path::queue::{Parts, Queue},
        runtime::{self, AsyncDescriptor},
    },
    error::{Error, Transport},
    proto::RdmaConnect,
    wire::{CmAcceptData, QueueId, Sqe},
};

/// Size of a receive buffer: twice that of a response, so that the excess of a longer one is seen.
const RESPONSE_BYTES: usize = 32;

/// Endpoint whose address and route are resolved: the RDMA device is known.
pub(crate) struct Resolved<P: Provider> {
    provider: Arc<P>,
    side: ActiveSide,
    /// With the thread that sends the connection request, while that runs.
    endpoint: Option<Endpoint<P>>,
    events: AsyncDescriptor,
    /// Watch of the device's ports, once there is a domain.
    port: Option<PortWatch<P>>,
    transport: TransportType,
}

/// Parameters of one queue's connection.
pub(crate) struct Plan<'a, P: Provider> {
    pub(crate) options: &'a ConnectOptions,
    pub(crate) domain: &'a ProtectionDomain<P>,
    pub(crate) open: RdmaConnect,
    pub(crate) memory: MemoryMode,
}

impl<P: Provider> Plan<'_, P> {
    fn target(&self) -> Target<'_> {
        Target { options: self.options, queue: self.open.queue }
    }
}

/// Connection of one queue that is being established. Waiting for events and calls that block for
/// up to milliseconds are apart, so that a caller with several of these can space the calls out.
///
/// ```text
///  until_call → call → until_call → call → … → is_established: into_queue
/// ```
pub(crate) struct QueueConnector<'a, P: Provider> {
    /// Before the endpoint, so that the queue pair is destroyed first.
    prepared: Option<Prepared<P>>,
    resolved: Resolved<P>,
    plan: Plan<'a, P>,
    action: Action,
    established: Option<Established>,
}

/// Queue pair with its receives posted, before the connection.
struct Prepared<P: Provider> {
    queue_pair: PreparedQueuePair<P>,
    /// True if commands are sent inside their work requests.
    inline: bool,
}

impl<P: Provider> QueueConnector<'_, P> {
    /// Waits until there is a call to make.
    pub(crate) async fn until_call(&mut self) -> Result<(), Error> {
        let Self { resolved, plan, .. } = self;
        let target = plan.target();
        loop {
            self.action = match self.action {
                Action::Connect if resolved.transport == TransportType::Iwarp => {
                    let request = resolved.request(plan)?;
                    resolved.send_on_thread(target, request, &mut self.prepared).await?
                }
                Action::MakeQueuePair | Action::Connect | Action::Established => return Ok(()),
                Action::AwaitPort | Action::Pause => {
                    let state = resolved.side.state();
                    tracing::debug!(queue = %target.queue, ?state, "waiting");
                    self.prepared = None;
                    resolved.reopen()?;
                    Action::None
                }
                other => {
                    let (next, established) = resolved.advance(target, other).await?;
                    self.established = established;
                    next
                }
            };
        }
    }

    /// Returns true if the connection is established; [`into_queue`](Self::into_queue) is the last
    /// call then.
    pub(crate) fn is_established(&self) -> bool {
        self.action == Action::Established
    }

    /// Makes the call that is due: creates the queue pair and posts its receives, or sends the
    /// connection request.
    pub(crate) fn call(&mut self, completion_queue: &CompletionQueue<P>) -> Result<(), Error> {
        let Self { resolved, plan, .. } = self;
        self.action = match self.action {
            Action::MakeQueuePair => {
                self.prepared = Some(resolved.prepare(plan, completion_queue)?);
                let _ = resolved.check_port(); // considered before the request is sent
                resolved.handle(Event::QueuePairMade)
            }
            Action::Connect => {
                let sent = resolved.request(plan)?.send(resolved.endpoint_mut());
                resolved.handle_sent(plan.target(), sent)?
            }
            other => unreachable!("no call is due at {other:?}"),
        };
        Ok(())
    }

    /// Makes all calls, each as soon as it is due; returns the queue and the target's private data.
    pub(crate) async fn run(
        mut self,
        completion_queue: &mut CompletionQueue<P>,
    ) -> Result<(Queue<P>, CmAcceptData), Error> {
        loop {
            self.until_call().await?;
            if self.is_established() {
                return self.into_queue();
            }
            self.call(completion_queue)?;
        }
    }

    /// Allocates what a connected queue needs; returns the queue and the target's private data.
    pub(crate) fn into_queue(self) -> Result<(Queue<P>, CmAcceptData), Error> {
        let Self { resolved, plan: Plan { domain, open, memory, .. }, .. } = self;
        let established = self.established.expect("the event of an established connection");
        let Prepared { queue_pair, inline } = self.prepared.expect("a connection has a queue pair");
        let accept = CmAcceptData::parse(established.private_data())?;
        let depth = in_flight_max(&open, accept);
        let capsules = domain.allocate(usize::from(depth) * Sqe::SIZE, Access::NONE);
        let mut queue_pair = queue_pair.ready(&established);
        capsules
            .and_then(|capsules| queue_pair.set_message_buffer(capsules, Sqe::SIZE))
            .map_err(verbs_error)?;
        memory.add_windows(domain, &mut queue_pair, depth)?;
        let queue = Queue::new(Parts {
            id: open.queue,
            queue_pair,
            endpoint: resolved.endpoint.expect(ENDPOINT_IS_HERE),
            side: resolved.side,
            transport: resolved.transport,
            receives: open.entries.into(),
            depth,
            has_windows: memory == MemoryMode::Window,
            in_capsule_bytes: open.in_capsule_bytes as usize,
            inline,
        });
        Ok((queue, accept))
    }
}

impl<P: Provider> Resolved<P> {
    /// Resolves the target's address and the route to it.
    pub(crate) async fn new(provider: &Arc<P>, options: &ConnectOptions) -> Result<Self, Error> {
        let endpoint = Endpoint::open_with(Arc::clone(provider)).map_err(verbs_error)?;
        let mut this = Self {
            provider: Arc::clone(provider),
            side: ActiveSide::new(TIMEOUTS, CONNECT_ATTEMPTS),
            events: AsyncDescriptor::new(endpoint.as_fd())?,
            endpoint: Some(endpoint),
            port: None,
            transport: TransportType::default(),
        };
        let target = Target { options, queue: QueueId::ADMIN };
        let mut action = this.handle(Event::Start);
        while action != Action::MakeQueuePair {
            action = this.advance(target, action).await?.0;
        }
        this.transport = this.endpoint().limits().map_err(verbs_error)?.transport;
        Ok(this)
    }

    pub(crate) fn endpoint(&self) -> &Endpoint<P> {
        self.endpoint.as_ref().expect(ENDPOINT_IS_HERE)
    }

    fn endpoint_mut(&mut self) -> &mut Endpoint<P> {
        self.endpoint.as_mut().expect(ENDPOINT_IS_HERE)
    }

    /// Starts to connect a queue; its device is known already.
    pub(crate) fn connector(mut self, plan: Plan<'_, P>) -> QueueConnector<'_, P> {
        self.port = Some(PortWatch::new(plan.domain.clone()));
        let action = Action::MakeQueuePair;
        QueueConnector { resolved: self, plan, action, prepared: None, established: None }
    }

    /// Replaces the endpoint by a new one.
    fn reopen(&mut self) -> Result<(), Error> {
        let endpoint = Endpoint::open_with(Arc::clone(&self.provider)).map_err(verbs_error)?;
        self.events = AsyncDescriptor::new(endpoint.as_fd())?;
        self.endpoint = Some(endpoint);
        Ok(())
    }

    /// Creates the queue pair and posts its receives.
    fn prepare(
        &mut self,
        plan: &Plan<'_, P>,
        completion_queue: &CompletionQueue<P>,
    ) -> Result<Prepared<P>, Error> {
        let Plan { options, domain, open, memory } = plan;
        if let Some(tos) = options.type_of_service {
            self.endpoint_mut().set_type_of_service(tos).map_err(verbs_error)?;
        }
        if let Some(exponent) = options.ack_timeout {
            self.endpoint_mut().set_ack_timeout(exponent).map_err(verbs_error)?;
        }
        let size = (memory.sends(open.entries), u32::from(open.entries));
        let mut prepared = self.queue_pair(domain, completion_queue, size)?;
        let entries = usize::from(open.entries);
        for response in buffers(domain, entries, RESPONSE_BYTES, Access::LOCAL_WRITE)? {
            let posted = prepared.queue_pair.post_receive(response, 0);
            posted.map_err(|refused| verbs_error(refused.error))?;
        }
        prepared.queue_pair.flush().map_err(verbs_error)?;
        Ok(prepared)
    }

    /// Creates a queue pair that sends commands inside their work requests, if the device can.
    fn queue_pair(
        &mut self,
        domain: &ProtectionDomain<P>,
        completion_queue: &CompletionQueue<P>,
        (send, receive): (u32, u32),
    ) -> Result<Prepared<P>, Error> {
        let capabilities = QueuePairCapabilities {
            max_send_wr: send,
            max_recv_wr: receive,
            max_send_sge: 2,
            max_inline_data: u32::try_from(Sqe::SIZE).expect("a command is 64 bytes"),
        };
        match self.endpoint_mut().queue_pair(domain, completion_queue, capabilities) {
            Ok(queue_pair) => Ok(Prepared { queue_pair, inline: true }),
            Err(verbs::Error::AnotherDevice(_)) => Err(Transport::DeviceChanged.into()),
            Err(error) => {
                tracing::debug!(%error, "no inline sends");
                let capabilities = QueuePairCapabilities { max_inline_data: 0, ..capabilities };
                let created =
                    self.endpoint_mut().queue_pair(domain, completion_queue, capabilities);
                Ok(Prepared { queue_pair: created.map_err(verbs_error)?, inline: false })
            }
        }
    }

    fn request(&self, plan: &Plan<'_, P>) -> Result<ConnectRequest, Error> {
        let depth = self.endpoint().limits().map_err(verbs_error)?.read_atomic.min(READ_DEPTH_MAX);
        Ok(ConnectRequest {
            private_data: plan.open.request,
            responder_resources: u8::try_from(depth).expect("READ_DEPTH_MAX fits a byte"),
            retry_count: plan.options.retry_count,
            rnr_retry_count: plan.options.rnr_retry_count,
        })
    }

    /// Sends the connection request on a thread, where that blocks. On a timeout or a port event
    /// the endpoint and the queue pair stay with the thread; the next actions replace them.
    async fn send_on_thread(
        &mut self,
        target: Target<'_>,
        request: ConnectRequest,
        prepared: &mut Option<Prepared<P>>,
    ) -> Result<Action, Error> {
        let Prepared { queue_pair, inline } =
            prepared.take().expect("a request is sent with a queue pair");
        let endpoint = self.endpoint.take().expect(ENDPOINT_IS_HERE);
        let parts = connect_thread::Parts { queue_pair, endpoint };
        let returned = async {
            let permit = connect_thread::permit().await;
            connect_thread::start(permit, request, parts)?.await.map_err(verbs_error)
        };
        tokio::pin!(returned);
        loop {
            match runtime::timeout_at(self.wake(), &mut returned).await {
                Ok(returned) => {
                    let (parts, sent) = returned?;
                    self.endpoint = Some(parts.endpoint);
                    *prepared = Some(Prepared { queue_pair: parts.queue_pair, inline });
                    return self.handle_sent(target, sent);
                }
                Err(_) => match self.handle_time() {
                    Action::None => {}
                    Action::Failed(cause) => return Err(target.failed(cause, &[])),
                    action => return Ok(action),
                },
            }
        }
    }

    /// Returns the action after the connection request was sent, or failed at once.
    fn handle_sent(
        &mut self,
        target: Target<'_>,
        sent: Result<(), verbs::Error>,
    ) -> Result<Action, Error> {
        let Err(error) = sent else { return Ok(Action::None) };
        let Some(event) = Event::of_connect_error(&error) else { return Err(verbs_error(error)) };
        match self.handle(event) {
            Action::Failed(cause) => Err(target.failed(cause, &[])),
            action => Ok(action),
        }
    }

    /// Starts address or route resolution, then waits for the next action, which may be
    /// [`Action::None`]. Together with [`Action::Established`] it returns the event.
    async fn advance(
        &mut self,
        target: Target<'_>,
        action: Action,
    ) -> Result<(Action, Option<Established>), Error> {
        match action {
            Action::ResolveAddress(Reopen::Endpoint) => self.resolve_address(target)?,
            // The error drops all that the caller has of the old device.
            Action::ResolveAddress(Reopen::Device) => {
                return Err(target.unreachable(
                    "our RDMA device sends nothing since its port was down; on soft-RoCE, delete \
                     its link and add it again"
                        .to_owned(),
                ));
            }
            Action::ResolveRoute => self
                .endpoint_mut()
                .resolve_route(RESOLVE_TIMEOUT)
                .map_err(|error| target.unresolved(State::ResolvingRoute, error))?,
            _ => {}
        }
        let (action, event) = self.next(target).await?;
        match (action, event) {
            (Action::Failed(cause), Some(ConnectionEvent::Rejected { private_data, .. })) => {
                Err(target.failed(cause, &private_data))
            }
            (Action::Failed(cause), _) => Err(target.failed(cause, &[])),
            (Action::Established, Some(ConnectionEvent::Established(proof))) => {
                Ok((Action::Established, Some(proof)))
            }
            (action, _) => Ok((action, None)),
        }
    }

    /// Waits for a CM event, the deadline or the next check of the port; returns the action, and
    /// the event if there was one.
    async fn next(
        &mut self,
        target: Target<'_>,
    ) -> Result<(Action, Option<ConnectionEvent<P>>), Error> {
        if let Some(event) = self.endpoint_mut().next_event().map_err(verbs_error)? {
            if self.is_without_response(&event) {
                self.resolve_address(target)?;
                return Ok((Action::None, None));
            }
            let (qid, cm_event) = (target.queue.0, Event::from(&event));
            let action = self.handle(cm_event);
            tracing::debug!(qid, event = ?cm_event, ?action, "connection-manager event");
            return Ok((action, Some(event)));
        }
        match runtime::timeout_at(self.wake(), self.events.wait()).await {
            Ok(readable) => readable.map(|()| (Action::None, None)),
            Err(_) => Ok((self.handle_time(), None)),
        }
    }

    /// Time of the next check of the port, or of the deadline if that is earlier.
    fn wake(&self) -> Instant {
        let look = runtime::now() + PORT_POLL_INTERVAL;
        self.side.poll_timeout().map_or(look, |deadline| deadline.min(look))
    }

    /// Checks the port and the deadline.
    fn handle_time(&mut self) -> Action {
        match self.check_port() {
            Action::None => self.handle(Event::Deadline),
            action => action,
        }
    }

    /// Starts one attempt to resolve the target's address.
    fn resolve_address(&mut self, target: Target<'_>) -> Result<(), Error> {
        let (from, to) = (source(target.options), target.options.address);
        self.endpoint_mut()
            .resolve_address(from, to, RESOLVE_RETRY_INTERVAL)
            .map_err(|error| target.unresolved(State::ResolvingAddress, error))
    }

    /// Returns true if an attempt to resolve the address timed out before the deadline.
    fn is_without_response(&self, event: &ConnectionEvent<P>) -> bool {
        let ConnectionEvent::AddressError { status } = event else { return false };
        let timed_out = os_error(*status).kind() == ErrorKind::TimedOut;
        let deadline = self.side.poll_timeout();
        timed_out
            && self.side.state() == State::ResolvingAddress
            && deadline.is_some_and(|deadline| runtime::now() < deadline)
    }

    fn check_port(&mut self) -> Action {
        match self.port.as_mut().and_then(PortWatch::next_event) {
            Some(event) => self.handle(event),
            None => Action::None,
        }
    }

    fn handle(&mut self, event: Event) -> Action {
        self.side.handle(event, runtime::now())
    }
}

/// Source address. A link-local one gets the scope id of the target's.
fn source(options: &ConnectOptions) -> Option<SocketAddr> {
    let zone = match options.address {
        SocketAddr::V6(target) => target.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    options.source.map(|address| match address {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => SocketAddrV6::new(ip, 0, 0, zone).into(),
        other => (other, 0).into(),
    })
}

const ENDPOINT_IS_HERE: &str = "actions that use the endpoint follow its return or replacement";

const TIMEOUTS: Timeouts = Timeouts {
    resolve_address: RESOLVE_TIMEOUT,
    resolve_route: RESOLVE_TIMEOUT,
    connect: CONNECT_TIMEOUT,
    pause: STALE_CONNECTION_DELAY,
    port: PORT_TIMEOUT,
    // A connected queue has its own timeouts.
    disconnect: SHUTDOWN_TIMEOUT,
    drain: SHUTDOWN_TIMEOUT,
};

/// Maximum number of commands in flight: one less than the entries (Base 3.3.1.5), and at most the
/// number of receives that the target has posted.
fn in_flight_max(open: &RdmaConnect, accept: CmAcceptData) -> u16 {
    let limit = open.entries - 1;
    match accept.receive_size {
        0 => limit,
        size => limit.min(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostIdentity;

    fn options(address: &str) -> ConnectOptions {
        let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
        ConnectOptions::new(address.parse().unwrap(), "nqn.test:s".parse().unwrap(), host)
    }

    #[test]
    fn a_link_local_source_is_on_the_interface_of_the_target() {
        for (target, ours, expected) in [
            ("[fe80::1%3]:4420", "fe80::2", "[fe80::2%3]:0"),
            ("[fd10::1]:4420", "fd10::2", "[fd10::2]:0"),
            ("10.0.0.1:4420", "10.0.0.2", "10.0.0.2:0"),
        ] {
            let mut options = options(target);
            assert_eq!(source(&options), None);
            options.source = Some(ours.parse().unwrap());
            assert_eq!(source(&options), Some(expected.parse().unwrap()));
        }
    }
}
