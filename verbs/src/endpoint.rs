//! Endpoints and the events of the connection manager, as plain values.

use std::{
    fmt,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    ACCEPT_DATA_MAX, CONNECT_DATA_MAX, CompletionQueue, ConnectParameters, ConnectionParameters,
    Error, Established, Limits, PreparedQueuePair, PrivateData, ProtectionDomain, Provider,
    QueuePairCapabilities, REJECT_DATA_MAX, RdmaCore,
    provider::{CmEvent, CmEventKind, CmRequest, QueuePairRequest},
    queue_pair::Parts,
};

/// One end of a connection: an id of the RDMA connection manager with an event channel of its
/// own. It also serves to listen.
///
/// No method blocks, except [`connect`](Self::connect) on iWARP. A request returns at once and is
/// answered by an event; the file descriptor is readable when [`next_event`](Self::next_event) has
/// one.
///
/// ```text
///   resolve_address -> AddressResolved   domain, completion_queue, queue_pair
///   resolve_route   -> RouteResolved
///   connect         -> Established       PreparedQueuePair::ready
///                    | Rejected | Unreachable | ConnectError
///   disconnect      -> Disconnected      once the peer has answered
///
///   listen          -> ConnectRequest    with an endpoint: domain, completion_queue, queue_pair
///   accept          -> Established       on that endpoint
/// ```
///
/// Dropping an endpoint ends its connection as soon as its queue pair is gone too.
pub struct Endpoint<P: Provider = RdmaCore> {
    raw: P::Endpoint,
    provider: Arc<P>,
    identity: u64,
}

impl Endpoint<RdmaCore> {
    /// Opens an endpoint of the system's RDMA.
    ///
    /// # Errors
    ///
    /// * [`Error::NoDevice`]: `/dev/infiniband/rdma_cm` is not there, or no device is.
    /// * [`Error::Permission`]: it is there, but not for this user.
    /// * [`Error::CreateEndpoint`]: anything else, such as too many open files.
    pub fn open() -> Result<Self, Error> {
        Self::open_with(Arc::default())
    }
}

impl<P: Provider> Endpoint<P> {
    /// Opens an endpoint of a given provider.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::open`].
    pub fn open_with(provider: Arc<P>) -> Result<Self, Error> {
        let raw = provider.endpoint()?;
        Ok(Self::new(provider, raw))
    }

    fn new(provider: Arc<P>, raw: P::Endpoint) -> Self {
        Self { raw, provider, identity: IDENTITY.fetch_add(1, Ordering::Relaxed) }
    }

    /// Starts to look for the device that leads to `destination`, from the address `source` if
    /// that matters.
    ///
    /// # Errors
    ///
    /// [`Error::ResolveAddress`]: ENODEV when no RDMA device leads there.
    pub fn resolve_address(
        &mut self,
        source: Option<SocketAddr>,
        destination: SocketAddr,
        timeout: Duration,
    ) -> Result<(), Error> {
        self.request(CmRequest::ResolveAddress { source, destination, timeout })
    }

    /// Sets the type of service (DSCP and ECN bits) of the connection's packets; before the
    /// route is resolved.
    ///
    /// # Errors
    ///
    /// [`Error::SetTypeOfService`].
    pub fn set_type_of_service(&mut self, type_of_service: u8) -> Result<(), Error> {
        self.request(CmRequest::SetTypeOfService(type_of_service))
    }

    /// Sets how long the device waits for an acknowledgement before it sends again: 4.096 µs
    /// times two to the power of `exponent`, which is at most 31; before connecting.
    ///
    /// # Errors
    ///
    /// [`Error::SetAckTimeout`], or [`Error::Unsupported`] on kernels before 5.0.
    pub fn set_ack_timeout(&mut self, exponent: u8) -> Result<(), Error> {
        self.request(CmRequest::SetAckTimeout(exponent))
    }

    /// Starts to look for the way to the resolved address.
    ///
    /// # Errors
    ///
    /// [`Error::ResolveRoute`]: EINVAL before the address is resolved.
    pub fn resolve_route(&mut self, timeout: Duration) -> Result<(), Error> {
        self.request(CmRequest::ResolveRoute { timeout })
    }

    /// Makes a reliable connected queue pair, whose sends and receives complete on the same
    /// queue. An endpoint has one.
    ///
    /// # Errors
    ///
    /// * [`Error::AnotherDevice`]: `domain` or `queue` is.
    /// * [`Error::Misuse`]: no address is resolved, there is a queue pair already, or `queue` has
    ///   no room for the depths.
    /// * [`Error::CreateQueuePair`]: EINVAL or ENOMEM beyond the device's limits.
    pub fn queue_pair(
        &mut self,
        domain: &ProtectionDomain<P>,
        queue: &CompletionQueue<P>,
        capabilities: QueuePairCapabilities,
    ) -> Result<PreparedQueuePair<P>, Error> {
        capabilities.check().map_err(Error::Misuse)?;
        let entries = capabilities.max_send_wr.saturating_add(capabilities.max_recv_wr);
        let reservation = queue.reserve(entries)?;
        let request = QueuePairRequest { domain: domain.raw(), queue: queue.raw(), capabilities };
        let (raw, info) = self.provider.queue_pair(&mut self.raw, request)?;
        let parts = Parts {
            raw,
            info,
            provider: self.provider.clone(),
            domain: domain.identity(),
            connection: self.identity,
            reservation,
        };
        Ok(PreparedQueuePair::new(parts, capabilities))
    }

    /// Sends a connection request. On iWARP Linux makes the TCP connection within this call, which
    /// may block for minutes where the peer does not answer, and cannot be cancelled: see
    /// [`Limits::transport`]. Another thread may make it, with the endpoint and its queue pair:
    /// dropping the queue pair waits for the call as well.
    ///
    /// # Errors
    ///
    /// * [`Error::Connect`]: EINVAL before the route is resolved; on iWARP also ECONNREFUSED,
    ///   ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, as TCP does.
    /// * [`Error::Misuse`]: more private data than [`CONNECT_DATA_MAX`].
    pub fn connect(&mut self, parameters: &ConnectParameters<'_>) -> Result<(), Error> {
        fits(parameters.private_data, CONNECT_DATA_MAX)?;
        self.request(CmRequest::Connect(*parameters))
    }

    /// Listens on a local address for up to `backlog` waiting requests.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`]: EADDRNOTAVAIL or ENODEV when it is no address of this machine or of
    /// no RDMA device, EADDRINUSE when the port is taken.
    pub fn listen(&mut self, address: SocketAddr, backlog: u32) -> Result<(), Error> {
        self.request(CmRequest::BindListen { address, backlog })
    }

    /// Takes the request that this endpoint came with; after its queue pair is made.
    ///
    /// # Errors
    ///
    /// * [`Error::Accept`]: EINVAL when the endpoint did not come with a request.
    /// * [`Error::Misuse`]: more private data than [`ACCEPT_DATA_MAX`].
    pub fn accept(&mut self, parameters: &ConnectParameters<'_>) -> Result<(), Error> {
        fits(parameters.private_data, ACCEPT_DATA_MAX)?;
        self.request(CmRequest::Accept(*parameters))
    }

    /// Refuses the request that this endpoint came with.
    ///
    /// # Errors
    ///
    /// * [`Error::Reject`]: EINVAL when the endpoint did not come with a request.
    /// * [`Error::Misuse`]: more private data than [`REJECT_DATA_MAX`].
    pub fn reject(&mut self, private_data: &[u8]) -> Result<(), Error> {
        fits(private_data, REJECT_DATA_MAX)?;
        self.request(CmRequest::Reject(private_data))
    }

    /// Ends the connection: what is posted is flushed, and the peer gets
    /// [`ConnectionEvent::Disconnected`]. Called on that event it is the answer, which gives this
    /// side its own; so is dropping the endpoint.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnect`]: EINVAL when there is no connection.
    pub fn disconnect(&mut self) -> Result<(), Error> {
        self.request(CmRequest::Disconnect)
    }

    /// The next event, if there is one. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::ReadEvent`].
    pub fn next_event(&mut self) -> Result<Option<ConnectionEvent<P>>, Error> {
        let event = self.provider.cm_event(&mut self.raw)?;
        Ok(event.map(|event| self.interpret(event)))
    }

    /// Limits of the device that the address resolved to; once connected, with the MTU of the path.
    ///
    /// # Errors
    ///
    /// [`Error::QueryDevice`]; [`Error::Misuse`] before an address is resolved.
    pub fn limits(&self) -> Result<Limits, Error> {
        self.provider.limits(&self.raw)
    }

    /// Makes a protection domain on the device that the address resolved to. It serves all
    /// endpoints of that device.
    ///
    /// # Errors
    ///
    /// [`Error::CreateProtectionDomain`]; [`Error::Misuse`] before an address is resolved.
    pub fn domain(&self) -> Result<ProtectionDomain<P>, Error> {
        let raw = self.provider.domain(&self.raw)?;
        Ok(ProtectionDomain::new(self.provider.clone(), raw))
    }

    /// Makes a completion queue for at least `capacity` completions on the device that the
    /// address resolved to. It serves all endpoints of that device.
    ///
    /// # Errors
    ///
    /// [`Error::CreateCompletionQueue`]; [`Error::Misuse`] before an address is resolved.
    pub fn completion_queue(&self, capacity: u32) -> Result<CompletionQueue<P>, Error> {
        let (raw, info) = self.provider.completion_queue(&self.raw, capacity)?;
        Ok(CompletionQueue::new(self.provider.clone(), raw, info))
    }

    fn request(&mut self, request: CmRequest<'_>) -> Result<(), Error> {
        self.provider.request(&mut self.raw, request)
    }

    fn interpret(&self, event: CmEvent<P::Endpoint>) -> ConnectionEvent<P> {
        let CmEvent { kind, status, private_data, parameters, incoming } = event;
        match kind {
            CmEventKind::ADDRESS_RESOLVED => ConnectionEvent::AddressResolved,
            CmEventKind::ADDRESS_ERROR => ConnectionEvent::AddressError { status },
            CmEventKind::ROUTE_RESOLVED => ConnectionEvent::RouteResolved,
            CmEventKind::ROUTE_ERROR => ConnectionEvent::RouteError { status },
            CmEventKind::CONNECT_REQUEST => match incoming {
                Some(raw) => ConnectionEvent::ConnectRequest {
                    endpoint: Self::new(self.provider.clone(), raw),
                    private_data,
                    parameters,
                },
                None => ConnectionEvent::Other(kind.0),
            },
            CmEventKind::CONNECT_RESPONSE => ConnectionEvent::ConnectResponse,
            CmEventKind::CONNECT_ERROR => ConnectionEvent::ConnectError { status },
            CmEventKind::UNREACHABLE => ConnectionEvent::Unreachable { status },
            CmEventKind::REJECTED => ConnectionEvent::Rejected { status, private_data },
            CmEventKind::ESTABLISHED => ConnectionEvent::Established(Established {
                connection: self.identity,
                private_data,
                parameters,
            }),
            CmEventKind::DISCONNECTED => ConnectionEvent::Disconnected,
            CmEventKind::DEVICE_REMOVAL => ConnectionEvent::DeviceRemoval,
            CmEventKind::ADDRESS_CHANGE => ConnectionEvent::AddressChange,
            CmEventKind::TIMEWAIT_EXIT => ConnectionEvent::TimewaitExit,
            CmEventKind(other) => ConnectionEvent::Other(other),
        }
    }
}

impl<P: Provider> AsFd for Endpoint<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

impl<P: Provider> fmt::Debug for Endpoint<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.identity).finish()
    }
}

/// Event of the connection manager.
///
/// A `status` is kept as the number it is: an errno (negative) from the system itself, or, when
/// the peer or its system rejected, a reason of the InfiniBand connection manager: 8 without a
/// listener, 10 for a stale connection, 28 from the peer's program.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectionEvent<P: Provider = RdmaCore> {
    /// The address moved to another device; this connection cannot be used.
    AddressChange,
    /// The destination address cannot be resolved.
    AddressError {
        /// Errno or reason.
        status: i32,
    },
    /// The destination address is resolved, and the device known.
    AddressResolved,
    /// Connecting failed.
    ConnectError {
        /// Errno or reason.
        status: i32,
    },
    /// A peer wants to connect.
    ConnectRequest {
        /// The endpoint made for it: accept or reject. Dropping it rejects without data.
        endpoint: Endpoint<P>,
        /// Private data of the request, padded with zeroes to [`CONNECT_DATA_MAX`] by the system.
        private_data: PrivateData,
        /// Parameters that the peer proposes.
        parameters: ConnectionParameters,
    },
    /// The peer answered, but the endpoint has no queue pair, so the connection was not finished.
    ConnectResponse,
    /// The device goes away: drop everything made from it.
    DeviceRemoval,
    /// The connection ended, or the peer wants it to: [`disconnect`](Endpoint::disconnect), or
    /// drop the endpoint, to answer.
    Disconnected,
    /// The connection is there.
    Established(Established),
    /// An event that this version does not know.
    Other(u32),
    /// The peer, or its system, rejected the request.
    Rejected {
        /// Errno or reason.
        status: i32,
        /// Private data of the rejection, padded with zeroes by the system; empty when it was not
        /// the peer's program that rejected.
        private_data: PrivateData,
    },
    /// The route cannot be resolved.
    RouteError {
        /// Errno or reason.
        status: i32,
    },
    /// The route is resolved.
    RouteResolved,
    /// The time-wait period is over: the connection's number may be used again.
    TimewaitExit,
    /// The peer does not answer.
    Unreachable {
        /// Errno or reason.
        status: i32,
    },
}

fn fits(private_data: &[u8], limit: usize) -> Result<(), Error> {
    if private_data.len() > limit {
        return Err(Error::Misuse("more private data than the message can carry"));
    }
    Ok(())
}

static IDENTITY: AtomicU64 = AtomicU64::new(1);
