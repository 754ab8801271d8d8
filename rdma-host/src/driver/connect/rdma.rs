//! Makes the RDMA connection of one queue (RDMA 3.3): it does what `ActiveSide` says.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::fd::AsFd,
    sync::Arc,
    time::Instant,
};

use tokio::sync::MutexGuard;
use verbs::{
    Access, Capabilities, CompletionQueue, ConnectionEvent, Endpoint, Established,
    PreparedQueuePair, ProtectionDomain, Provider, TransportType,
    active_side::{Action, ActiveSide, Cause, Event, Reopen, State, Timeouts},
    provider::CmEventKind,
};

use crate::{
    config::{
        CONNECT_ATTEMPTS, CONNECT_TIMEOUT, ConnectOptions, MemoryMode, PORT_POLL_INTERVAL,
        PORT_TIMEOUT, READ_DEPTH_MAX, RESOLVE_RETRY_INTERVAL, RESOLVE_TIMEOUT, SHUTDOWN_TIMEOUT,
        STALE_CONNECTION_DELAY,
    },
    driver::{
        async_fd::AsyncDescriptor,
        buffers::{buffers, verbs_error},
        connect::{
            connect_thread::{self, ConnectRequest},
            shared_poller::{Desk, SharedPoller},
        },
        data_path::queue::{Parts, Queue},
        deferred_close::{self, DeferredClose},
        port_watch::PortWatch,
    },
    error::{Error, Rejected, TargetMisbehaved, Transport},
    proto::RdmaConnect,
    wire::{CmAcceptData, CmReject, QueueId, Sqe},
};

/// A response has 16 bytes; its buffer twice that, so that one too long is seen as such.
const RESPONSE_BYTES: usize = 32;

/// A way to the target whose device is known; nothing is connected.
pub(crate) struct Resolved<P: Provider> {
    provider: Arc<P>,
    side: ActiveSide,
    endpoint: DeferredClose<Endpoint<P>>,
    events: AsyncDescriptor,
    port: PortWatch,
    transport: TransportType,
}

/// What a connection is made with.
pub(crate) struct Plan<'a, P: Provider> {
    pub(crate) options: &'a ConnectOptions,
    pub(crate) domain: &'a ProtectionDomain<P>,
    pub(crate) open: &'a RdmaConnect,
    pub(crate) memory: MemoryMode,
}

/// Where a queue's completions go. Exclusive, since a completion queue is not to be shared between
/// threads.
pub(crate) enum Completions<'a, P: Provider> {
    /// To a completion queue that is ours for now.
    Own(&'a mut CompletionQueue<P>),
    /// To that of a poller whose other queues are at work.
    Shared(&'a SharedPoller<P>),
}

/// The right to make a call that takes its thread for a while, as making a queue pair, registering
/// memory and asking for a connection do: up to milliseconds.
enum Turn<'a, P: Provider> {
    Own(&'a mut CompletionQueue<P>),
    Shared(MutexGuard<'a, Desk<P>>),
}

impl<P: Provider> Completions<'_, P> {
    /// Waits until no other queue of the poller makes such a call.
    async fn turn(&mut self) -> Turn<'_, P> {
        match self {
            Self::Own(queue) => Turn::Own(queue),
            Self::Shared(poller) => Turn::Shared(poller.desk().await),
        }
    }
}

impl<P: Provider> Turn<'_, P> {
    fn completion_queue(&mut self) -> Result<&CompletionQueue<P>, Error> {
        match self {
            Self::Own(queue) => Ok(queue),
            Self::Shared(desk) => Ok(desk.completion_queue().ok_or(Error::Closed)?),
        }
    }

    /// Ends it, but not before the runtime's other tasks had theirs, where there are many such
    /// calls to make: they may have I/O to complete.
    async fn pass(self) {
        if let Self::Shared(desk) = self {
            for _ in 0..desk.turns_for_others() {
                tokio::task::yield_now().await;
            }
            drop(desk);
        }
    }
}

impl<P: Provider> Resolved<P> {
    /// Finds the device that leads to the target.
    pub(crate) async fn new(provider: &Arc<P>, options: &ConnectOptions) -> Result<Self, Error> {
        deferred_close::release();
        let endpoint = Endpoint::open_with(Arc::clone(provider)).map_err(verbs_error)?;
        let mut this = Self {
            provider: Arc::clone(provider),
            side: ActiveSide::new(TIMEOUTS, CONNECT_ATTEMPTS),
            events: AsyncDescriptor::new(endpoint.as_fd())?,
            endpoint: DeferredClose::new(endpoint),
            port: PortWatch::default(),
            transport: TransportType::default(),
        };
        let target = Target { options, queue: QueueId::ADMIN };
        let mut action = this.handle(Event::Start);
        while action != Action::MakeQueuePair {
            action = this.advance(target, action).await?.0;
        }
        let limits = this.endpoint.limits().map_err(verbs_error)?;
        this.port = PortWatch::new(&limits.device);
        this.transport = limits.transport;
        this.endpoint.talks_through(this.port.clone());
        Ok(this)
    }

    pub(crate) fn endpoint(&self) -> &Endpoint<P> {
        &self.endpoint
    }

    /// Connects a queue pair for the planned queue, with all its receives posted.
    pub(crate) async fn connect(
        mut self,
        plan: Plan<'_, P>,
        mut completions: Completions<'_, P>,
    ) -> Result<(Queue<P>, CmAcceptData), Error> {
        let (prepared, inline, established) = self.establish(&plan, &mut completions).await?;
        let Plan { domain, open, memory, .. } = plan;
        let accept = CmAcceptData::parse(established.private_data())?;
        let depth = in_flight_max(open, accept);
        let turn = completions.turn().await;
        let windows = memory.windows(domain, depth)?;
        let capsules = domain.allocate(usize::from(depth) * Sqe::SIZE, Access::NONE);
        turn.pass().await;
        let mut queue_pair = prepared.ready(&established);
        capsules
            .and_then(|capsules| queue_pair.set_message_buffer(capsules, Sqe::SIZE))
            .map_err(verbs_error)?;
        let queue = Queue::new(Parts {
            id: open.queue,
            queue_pair,
            endpoint: self.endpoint,
            side: self.side,
            transport: self.transport,
            receives: open.entries.into(),
            depth,
            windows,
            in_capsule_bytes: open.in_capsule_bytes as usize,
            inline,
        });
        Ok((queue, accept))
    }

    /// Goes on from the device, in as many attempts as it takes and is allowed.
    async fn establish(
        &mut self,
        plan: &Plan<'_, P>,
        completions: &mut Completions<'_, P>,
    ) -> Result<(PreparedQueuePair<P>, bool, Established), Error> {
        let target = Target { options: plan.options, queue: plan.open.queue };
        let mut action = Action::MakeQueuePair;
        let mut prepared = None;
        let established = loop {
            action = match action {
                Action::MakeQueuePair => {
                    let mut turn = completions.turn().await;
                    prepared = Some(self.prepare(plan, turn.completion_queue()?)?);
                    turn.pass().await;
                    let _ = self.look_at_port(); // heeded before the request is sent
                    self.handle(Event::QueuePairMade)
                }
                Action::AwaitPort | Action::Pause => {
                    tracing::debug!(queue = %target.queue, state = ?self.side.state(), "waiting");
                    prepared = None;
                    let fresh =
                        Endpoint::open_with(Arc::clone(&self.provider)).map_err(verbs_error)?;
                    self.events = AsyncDescriptor::new(fresh.as_fd())?;
                    self.endpoint = DeferredClose::new(fresh);
                    self.endpoint.talks_through(self.port.clone());
                    Action::None
                }
                Action::Connect if self.transport == TransportType::Iwarp => {
                    let request = self.request(plan)?;
                    self.send_on_thread(target, request, &mut prepared).await?
                }
                Action::Connect => {
                    let request = self.request(plan)?;
                    let turn = completions.turn().await;
                    let sent = request.send(&mut self.endpoint);
                    turn.pass().await;
                    self.handle_sent(target, sent)?
                }
                other => match self.advance(target, other).await? {
                    (_, Some(established)) => break established,
                    (next, None) => next,
                },
            };
        };
        let (queue_pair, inline) = prepared.expect("a request is sent with a queue pair only");
        Ok((queue_pair, inline, established))
    }

    /// The queue pair, its receives posted.
    fn prepare(
        &mut self,
        plan: &Plan<'_, P>,
        completion_queue: &CompletionQueue<P>,
    ) -> Result<(PreparedQueuePair<P>, bool), Error> {
        let Plan { options, domain, open, memory } = *plan;
        if let Some(tos) = options.type_of_service {
            self.endpoint.set_type_of_service(tos).map_err(verbs_error)?;
        }
        if let Some(exponent) = options.ack_timeout {
            self.endpoint.set_ack_timeout(exponent).map_err(verbs_error)?;
        }
        let size = (memory.sends(open.entries), u32::from(open.entries));
        let (mut prepared, inline) = self.queue_pair(domain, completion_queue, size)?;
        let entries = usize::from(open.entries);
        for response in buffers(domain, entries, RESPONSE_BYTES, Access::LOCAL_WRITE)? {
            prepared.post_receive(response, 0).map_err(|refused| verbs_error(refused.error))?;
        }
        prepared.flush().map_err(verbs_error)?;
        Ok((prepared, inline))
    }

    /// A queue pair that takes commands inside its work requests, if the device can do that.
    fn queue_pair(
        &mut self,
        domain: &ProtectionDomain<P>,
        completion_queue: &CompletionQueue<P>,
        (send, receive): (u32, u32),
    ) -> Result<(verbs::PreparedQueuePair<P>, bool), Error> {
        let inline = u32::try_from(Sqe::SIZE).expect("a command is 64 bytes");
        let capabilities = Capabilities {
            max_send_wr: send,
            max_recv_wr: receive,
            max_send_sge: 2,
            max_inline_data: inline,
        };
        match self.endpoint.queue_pair(domain, completion_queue, capabilities) {
            Ok(prepared) => Ok((prepared, true)),
            Err(verbs::Error::AnotherDevice(_)) => Err(Transport::DeviceChanged.into()),
            Err(error) => {
                tracing::debug!(%error, "no inline sends");
                let capabilities = Capabilities { max_inline_data: 0, ..capabilities };
                let prepared = self
                    .endpoint
                    .queue_pair(domain, completion_queue, capabilities)
                    .map_err(verbs_error)?;
                Ok((prepared, false))
            }
        }
    }

    fn request(&self, plan: &Plan<'_, P>) -> Result<ConnectRequest, Error> {
        let depth = self.endpoint.limits().map_err(verbs_error)?.read_atomic.min(READ_DEPTH_MAX);
        Ok(ConnectRequest {
            private_data: plan.open.request,
            responder_resources: u8::try_from(depth).expect("READ_DEPTH_MAX fits a byte"),
            retry_count: plan.options.retry_count,
            rnr_retry_count: plan.options.rnr_retry_count,
        })
    }

    /// Sends the request where that blocks. When something else comes first, the endpoint and the
    /// queue pair stay with the thread; the actions that follow then do without them.
    async fn send_on_thread(
        &mut self,
        target: Target<'_>,
        request: ConnectRequest,
        prepared: &mut Option<(PreparedQueuePair<P>, bool)>,
    ) -> Result<Action, Error> {
        let (queue_pair, inline) = prepared.take().expect("a request is sent with a queue pair");
        let parts = connect_thread::Parts { queue_pair, endpoint: self.endpoint.take() };
        let returned = async {
            let permit = connect_thread::permit().await;
            connect_thread::start(permit, request, parts)?.await.map_err(verbs_error)
        };
        tokio::pin!(returned);
        loop {
            match tokio::time::timeout_at(self.wake().into(), &mut returned).await {
                Ok(returned) => {
                    let (parts, sent) = returned?;
                    self.endpoint = parts.endpoint;
                    *prepared = Some((parts.queue_pair, inline));
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

    /// What follows from the request's being sent, or refused at once.
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

    /// Asks for what is to be resolved, then waits for the next thing to do; nothing is one too.
    /// With [`Action::Established`] comes the proof, and only then.
    async fn advance(
        &mut self,
        target: Target<'_>,
        action: Action,
    ) -> Result<(Action, Option<Established>), Error> {
        match action {
            Action::ResolveAddress(Reopen::Endpoint) => self.ask(target)?,
            // All that the caller has is made from the old device, and goes with this error.
            Action::ResolveAddress(Reopen::Device) => {
                return Err(target.unreachable(
                    "our RDMA device sends nothing since its port was down; on soft-RoCE, delete \
                     its link and add it again"
                        .to_owned(),
                ));
            }
            Action::ResolveRoute => self
                .endpoint
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

    /// Waits for an event, the deadline or a look at the port, whichever is first, and says what
    /// follows from it.
    async fn next(
        &mut self,
        target: Target<'_>,
    ) -> Result<(Action, Option<ConnectionEvent<P>>), Error> {
        if let Some(event) = self.endpoint.next_event().map_err(verbs_error)? {
            if self.is_unanswered(&event) {
                self.ask(target)?;
                return Ok((Action::None, None));
            }
            return Ok((self.handle(Event::from(&event)), Some(event)));
        }
        match tokio::time::timeout_at(self.wake().into(), self.events.wait()).await {
            Ok(readable) => readable.map(|()| (Action::None, None)),
            Err(_) => Ok((self.handle_time(), None)),
        }
    }

    /// When to look at the port again, or the deadline if that is earlier.
    fn wake(&self) -> Instant {
        let look = Instant::now() + PORT_POLL_INTERVAL;
        self.side.poll_timeout().map_or(look, |deadline| deadline.min(look))
    }

    /// Looks at the port and the deadline.
    fn handle_time(&mut self) -> Action {
        match self.look_at_port() {
            Action::None => self.handle(Event::Deadline),
            action => action,
        }
    }

    /// Asks for the target's address, for a while.
    fn ask(&mut self, target: Target<'_>) -> Result<(), Error> {
        let (from, to) = (source(target.options), target.options.address);
        self.endpoint
            .resolve_address(from, to, RESOLVE_RETRY_INTERVAL)
            .map_err(|error| target.unresolved(State::ResolvingAddress, error))
    }

    /// Whether nobody has answered the question for an address yet, and there is time left.
    fn is_unanswered(&self, event: &ConnectionEvent<P>) -> bool {
        let ConnectionEvent::AddressError { status } = event else { return false };
        let timed_out = os_error(*status).kind() == ErrorKind::TimedOut;
        let deadline = self.side.poll_timeout();
        timed_out
            && self.side.state() == State::ResolvingAddress
            && deadline.is_some_and(|deadline| Instant::now() < deadline)
    }

    fn look_at_port(&mut self) -> Action {
        match self.port.news() {
            Some(event) => self.handle(event),
            None => Action::None,
        }
    }

    fn handle(&mut self, event: Event) -> Action {
        self.side.handle(event, Instant::now())
    }
}

/// Our address to use. A link-local one is on the interface that the target's is on.
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

const TIMEOUTS: Timeouts = Timeouts {
    resolve_address: RESOLVE_TIMEOUT,
    resolve_route: RESOLVE_TIMEOUT,
    connect: CONNECT_TIMEOUT,
    pause: STALE_CONNECTION_DELAY,
    port: PORT_TIMEOUT,
    // A queue that is connected sees to its own end.
    disconnect: SHUTDOWN_TIMEOUT,
    drain: SHUTDOWN_TIMEOUT,
};

/// What the errors of one connection speak of.
#[derive(Clone, Copy)]
struct Target<'a> {
    options: &'a ConnectOptions,
    queue: QueueId,
}

impl Target<'_> {
    /// Why there is no connection.
    fn failed(self, cause: Cause, private_data: &[u8]) -> Error {
        let step = step(cause.state);
        let (kind, status) = match (cause.event, cause.state) {
            (Event::Cm { kind, status }, _) => (kind, status),
            (Event::PortDown, _) | (Event::Deadline, State::AwaitingPort) => {
                return Transport::PortDown.into();
            }
            (Event::Deadline, State::Connecting) => {
                return self.unreachable(format!("nothing came back within {CONNECT_TIMEOUT:?}"));
            }
            (Event::Deadline, _) => return Error::Timeout { step, after: RESOLVE_TIMEOUT },
            _ => return TargetMisbehaved::UnexpectedEvent(step).into(),
        };
        match kind {
            CmEventKind::ADDRESS_ERROR | CmEventKind::ROUTE_ERROR => {
                self.no_path(step, errno(status))
            }
            CmEventKind::UNREACHABLE | CmEventKind::CONNECT_ERROR => {
                self.unreachable(errno(status))
            }
            CmEventKind::REJECTED => {
                let reject = CmReject::parse(reject_reason(status), private_data);
                Rejected::Connection { queue: self.queue, reject }.into()
            }
            CmEventKind::DISCONNECTED
            | CmEventKind::DEVICE_REMOVAL
            | CmEventKind::ADDRESS_CHANGE
            | CmEventKind::TIMEWAIT_EXIT => Transport::Disconnected(self.queue).into(),
            _ => TargetMisbehaved::UnexpectedEvent(step).into(),
        }
    }

    /// Why the CM did not even begin to resolve.
    fn unresolved(self, state: State, error: verbs::Error) -> Error {
        match error {
            verbs::Error::ResolveAddress(source) | verbs::Error::ResolveRoute(source) => {
                self.no_path(step(state), source.to_string())
            }
            other => verbs_error(other),
        }
    }

    fn no_path(self, step: &'static str, reason: String) -> Error {
        Transport::Address { address: self.options.address, step, reason }.into()
    }

    fn unreachable(self, reason: String) -> Error {
        Transport::Unreachable { address: self.options.address, reason }.into()
    }
}

/// A waiting state, in the words of errors.
fn step(state: State) -> &'static str {
    match state {
        State::Idle | State::ResolvingAddress => "address resolution",
        State::Preparing | State::ResolvingRoute => "route resolution",
        _ => "the connection request",
    }
}

/// One less than the entries (Base 3.3.1.5), and never more than the target has receives for.
fn in_flight_max(open: &RdmaConnect, accept: CmAcceptData) -> u16 {
    let limit = open.entries - 1;
    match accept.receive_size {
        0 => limit,
        size => limit.min(size),
    }
}

/// The CM's reason for a rejection; iWARP has an errno for it: TCP's refusal where nothing listens,
/// a reset where the peer's program rejected the request.
fn reject_reason(status: i32) -> i32 {
    match os_error(status).kind() {
        _ if status >= 0 => status,
        ErrorKind::ConnectionRefused => CmReject::INVALID_SERVICE,
        ErrorKind::ConnectionReset => CmReject::CONSUMER,
        _ => status,
    }
}

/// The operating system's words for a CM status.
fn errno(status: i32) -> String {
    os_error(status).to_string()
}

/// A CM status, which is a negative errno.
fn os_error(status: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(status.saturating_abs())
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

    /// The words for what ends an attempt, with the private data of a refusal by the target.
    fn words(state: State, event: Event) -> String {
        let options = options("10.0.0.1:4420");
        let target = Target { options: &options, queue: QueueId(3) };
        target.failed(Cause { state, event }, &[0, 0, 6, 0]).to_string()
    }

    #[test]
    fn every_cause_has_words_of_its_own() {
        let cm = |kind, status| Event::Cm { kind, status };
        let timed_out = -110; // ETIMEDOUT
        for (state, event, expected) in [
            (State::ResolvingAddress, Event::Deadline, "no answer to address resolution within 3s"),
            (State::ResolvingRoute, Event::Deadline, "no answer to route resolution within 3s"),
            (State::Connecting, Event::Deadline, "nothing came back within 5s"),
            (State::AwaitingPort, Event::Deadline, "the port of our RDMA device is down"),
            (State::Connecting, Event::PortDown, "the port of our RDMA device is down"),
        ] {
            let words = words(state, event);
            assert!(words.contains(expected), "{words}");
        }
        for (kind, status, expected) in [
            (CmEventKind::ADDRESS_ERROR, timed_out, "no RDMA path to 10.0.0.1:4420"),
            (CmEventKind::UNREACHABLE, timed_out, "10.0.0.1:4420 does not answer (Connection"),
            (CmEventKind::REJECTED, 8, "nothing listens"),
            (CmEventKind::REJECTED, 10, "an older connection"),
            (CmEventKind::REJECTED, 28, "no resources left"),
            (CmEventKind::REJECTED, -111, "nothing listens"), // ECONNREFUSED
            (CmEventKind::REJECTED, -104, "no resources left"), // ECONNRESET
            (CmEventKind::CONNECT_ERROR, -113, "does not answer (No route to host"),
            (CmEventKind::DEVICE_REMOVAL, 0, "closed the connection of queue 3"),
            (CmEventKind::ROUTE_RESOLVED, 0, "the connection request came out of order"),
        ] {
            let words = words(State::Connecting, cm(kind, status));
            assert!(words.contains(expected), "{words}");
        }
    }
}
