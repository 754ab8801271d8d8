//! The seam: what any RDMA device must offer.
//!
//! [`RdmaCore`](crate::RdmaCore) is the system's libraries. A fabric inside the process can
//! stand in their place, so that everything above runs without a device.

use std::{io, net::SocketAddr, os::fd::AsFd, sync::Arc, time::Duration};

use arrayvec::ArrayVec;

use crate::{
    Access, Capabilities, Completion, ConnectParameters, ConnectionParameters, Error, Limits,
    PrivateData, RemoteKey, SEGMENTS_MAX,
    memory::{Agent, Mapping},
};

/// What any RDMA device must offer: twelve calls, batched where data flows.
///
/// What is made here keeps alive whatever it was made from: a queue pair its endpoint, domain
/// and completion queue; a registration its domain and memory. Dropping a queue pair destroys
/// it: no completion of it changes a buffer afterwards.
///
/// Nothing here is `unsafe` to call. Inline messages are slices; other memory is named by a
/// [`Segment`], which a device checks against what is registered, and registered memory stays
/// allocated as long as the registration.
pub trait Provider: Sized + Send + Sync + 'static {
    /// An id of the connection manager with an event channel of its own; the file descriptor is
    /// readable when there is an event, and does not block.
    type Endpoint: Send + AsFd;
    /// A protection domain.
    type Domain: Send + Sync;
    /// Registered memory; deregistered when dropped, before the memory is freed.
    type Registration: Send + Sync;
    /// A completion queue with its channel, whose file descriptor this is.
    type CompletionQueue: Send + AsFd;
    /// A queue pair bound to an endpoint.
    type QueuePair: Send;

    /// Who writes registered memory besides the owner of a buffer.
    const AGENT: Agent = Agent::Device;

    /// Opens an endpoint.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`], [`Error::Permission`], [`Error::CreateEndpoint`].
    fn endpoint(&self) -> Result<Self::Endpoint, Error>;

    /// Asks the connection manager for something; what comes of it is an event.
    ///
    /// # Errors
    ///
    /// The variant named after the request.
    fn request(&self, endpoint: &mut Self::Endpoint, request: CmRequest<'_>) -> Result<(), Error>;

    /// The next event, if there is one. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::ReadEvent`].
    fn cm_event(
        &self,
        endpoint: &mut Self::Endpoint,
    ) -> Result<Option<CmEvent<Self::Endpoint>>, Error>;

    /// What the device that the endpoint resolved to can do.
    ///
    /// # Errors
    ///
    /// [`Error::QueryDevice`]; [`Error::Misuse`] before an address is resolved.
    fn limits(&self, endpoint: &Self::Endpoint) -> Result<Limits, Error>;

    /// Makes a protection domain.
    ///
    /// # Errors
    ///
    /// [`Error::CreateDomain`]; [`Error::Misuse`] before an address is resolved.
    fn domain(&self, endpoint: &Self::Endpoint) -> Result<Self::Domain, Error>;

    /// Registers memory.
    ///
    /// # Errors
    ///
    /// [`Error::Register`], [`Error::LockedMemoryLimit`].
    fn register(
        &self,
        domain: &Self::Domain,
        memory: Arc<Mapping>,
        access: Access,
    ) -> Result<(Self::Registration, Keys), Error>;

    /// Makes a completion queue; says how many entries it really has.
    ///
    /// # Errors
    ///
    /// [`Error::CreateCompletionQueue`]; [`Error::Misuse`] before an address is resolved.
    fn completion_queue(
        &self,
        endpoint: &Self::Endpoint,
        capacity: u32,
    ) -> Result<(Self::CompletionQueue, u32), Error>;

    /// Makes a reliable connected queue pair; says which number it has.
    ///
    /// # Errors
    ///
    /// [`Error::CreateQueuePair`]; [`Error::Misuse`] when the endpoint has one, or the parts
    /// belong to another device.
    fn queue_pair(
        &self,
        endpoint: &mut Self::Endpoint,
        request: QueuePairRequest<'_, Self>,
    ) -> Result<(Self::QueuePair, u32), Error>;

    /// Hands sends to the device, in order, as one batch. `inline` is what the requests' inline
    /// ranges refer to; it is copied before this returns.
    ///
    /// # Errors
    ///
    /// How many were taken, and why not the rest.
    fn post_send(
        &self,
        queue_pair: &mut Self::QueuePair,
        requests: &[SendRequest],
        inline: &[u8],
    ) -> Result<(), PostError>;

    /// Hands receives to the device, in order, as one batch.
    ///
    /// # Errors
    ///
    /// How many were taken, and why not the rest.
    fn post_receive(
        &self,
        queue_pair: &mut Self::QueuePair,
        requests: &[ReceiveRequest],
    ) -> Result<(), PostError>;

    /// Takes completions, oldest first; says how many.
    ///
    /// # Errors
    ///
    /// [`Error::Poll`].
    fn poll(
        &self,
        queue: &mut Self::CompletionQueue,
        out: &mut [Completion],
    ) -> Result<usize, Error>;

    /// Asks for an event, or takes the events that came off the channel; says how many.
    ///
    /// # Errors
    ///
    /// [`Error::Arm`], [`Error::AcknowledgeCompletions`].
    fn notify(&self, queue: &mut Self::CompletionQueue, request: Notify) -> Result<u32, Error>;
}

/// What an endpoint can ask of the connection manager.
#[derive(Clone, Copy, Debug)]
pub enum CmRequest<'a> {
    /// Take an incoming connection request.
    Accept(ConnectParameters<'a>),
    /// Bind to a local address and listen there.
    BindListen {
        /// The local address and port.
        address: SocketAddr,
        /// How many requests may wait.
        backlog: u32,
    },
    /// Send a connection request.
    Connect(ConnectParameters<'a>),
    /// End the connection.
    Disconnect,
    /// Refuse an incoming connection request, with private data.
    Reject(&'a [u8]),
    /// Find the device that leads to an address.
    ResolveAddress {
        /// The local address to use, if it matters.
        source: Option<SocketAddr>,
        /// Where to.
        destination: SocketAddr,
        /// How long it may take.
        timeout: Duration,
    },
    /// Find the way to the resolved address.
    ResolveRoute {
        /// How long it may take.
        timeout: Duration,
    },
    /// Set the local acknowledge timeout: 4.096 µs times two to this power.
    SetAckTimeout(u8),
    /// Set the type of service of the connection's packets.
    SetTypeOfService(u8),
}

/// An event of the connection manager, copied out.
#[derive(Debug)]
pub struct CmEvent<E> {
    /// What happened.
    pub kind: CmEventKind,
    /// Its status: an errno, or a reason of the connection manager, depending on the kind.
    pub status: i32,
    /// What the peer sent along.
    pub private_data: PrivateData,
    /// What the peer proposed or accepted.
    pub parameters: ConnectionParameters,
    /// For a connection request: the endpoint made for it.
    pub incoming: Option<E>,
}

/// What an event reports, by the numbers of `enum rdma_cm_event_type`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CmEventKind(pub u32);

impl CmEventKind {
    /// The destination address is resolved.
    pub const ADDRESS_RESOLVED: Self = Self(0);
    /// The destination address cannot be resolved.
    pub const ADDRESS_ERROR: Self = Self(1);
    /// The route is resolved.
    pub const ROUTE_RESOLVED: Self = Self(2);
    /// The route cannot be resolved.
    pub const ROUTE_ERROR: Self = Self(3);
    /// A peer wants to connect.
    pub const CONNECT_REQUEST: Self = Self(4);
    /// The peer answered, and the endpoint has no queue pair.
    pub const CONNECT_RESPONSE: Self = Self(5);
    /// Connecting failed.
    pub const CONNECT_ERROR: Self = Self(6);
    /// The peer cannot be reached.
    pub const UNREACHABLE: Self = Self(7);
    /// The peer, or its system, said no.
    pub const REJECTED: Self = Self(8);
    /// The connection is there.
    pub const ESTABLISHED: Self = Self(9);
    /// The connection ended.
    pub const DISCONNECTED: Self = Self(10);
    /// The device goes away.
    pub const DEVICE_REMOVAL: Self = Self(11);
    /// The address moved to another device.
    pub const ADDRESS_CHANGE: Self = Self(14);
    /// The connection's number may be used anew.
    pub const TIMEWAIT_EXIT: Self = Self(15);
}

/// What a queue pair is made of.
pub struct QueuePairRequest<'a, P: Provider> {
    /// The domain whose memory it can use.
    pub domain: &'a P::Domain,
    /// Where its sends and its receives complete.
    pub queue: &'a P::CompletionQueue,
    /// How large it is.
    pub capabilities: Capabilities,
}

/// The two keys of registered memory.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Names the memory in our own work requests.
    pub local: u32,
    /// Names the memory for the peer.
    pub remote: RemoteKey,
}

/// A range of registered memory.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Where it starts.
    pub address: u64,
    /// How long it is; never 0.
    pub length: u32,
    /// The registration's local key.
    pub local_key: u32,
}

/// What a send is made of.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A range of the batch's inline bytes.
    Inline {
        /// Where it starts.
        offset: usize,
        /// How long it is.
        length: u32,
    },
    /// Registered memory, gathered in order.
    Segments(ArrayVec<Segment, SEGMENTS_MAX>),
}

/// A send, ready to be handed over.
#[derive(Clone, Debug)]
pub struct SendRequest {
    /// Comes back in the completion.
    pub token: u64,
    /// Whether success makes a completion; failure always does.
    pub signaled: bool,
    /// What to send.
    pub payload: Payload,
}

/// A receive, ready to be handed over.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveRequest {
    /// Comes back in the completion.
    pub token: u64,
    /// Where a message may be put.
    pub segment: Segment,
}

/// A batch was not taken as a whole.
#[derive(Debug)]
pub struct PostError {
    /// How many were, from the front.
    pub accepted: usize,
    /// Why not the next.
    pub source: io::Error,
}

/// What to do with a completion queue's channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notify {
    /// Take the events that came.
    Acknowledge,
    /// Ask for an event at the next completion.
    Arm,
}
