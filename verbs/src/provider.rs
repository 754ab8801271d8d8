//! The seam: what any RDMA device must offer.
//!
//! [`RdmaCore`](crate::RdmaCore) is the system's libraries. A fabric inside the process can
//! stand in their place, so that everything above runs without a device.

use std::{
    io,
    net::SocketAddr,
    num::NonZero,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use crate::{
    Access, ConnectParameters, ConnectionParameters, DeviceEvent, Error, Limits, PrivateData,
    QueuePairCapabilities, RemoteAddress, RemoteKey, VerbsApi,
    memory::{Agent, Mapping, ReadOnly},
};

pub use crate::{
    completion::WorkCompletion,
    memory::{Keys, Registration},
    window::{BindWindow, WindowTable},
};

/// RDMA device, as everything above needs it; calls of the data path take batches.
///
/// What is made here keeps alive whatever it was made from: a queue pair its endpoint, domain
/// and completion queue; a registration its domain and memory. Dropping a queue pair destroys it:
/// no completion of it changes a buffer afterwards.
///
/// Nothing here is `unsafe` to call. Inline messages are slices; memory and windows are named by
/// number, which a device checks against what is registered, and registered memory stays
/// allocated as long as the registration. A number that names nothing fails the work request,
/// by a [`PostError`] or by its completion, and does no other harm.
///
/// Calls whose argument is an enumeration are always made with a variant that is known when
/// this is compiled; implementations marked `#[inline]` cost no choice at run time.
pub trait Provider: Sized + Send + Sync + 'static {
    /// An id of the connection manager with an event channel of its own; the file descriptor is
    /// readable when there is an event, and does not block.
    type Endpoint: Send + AsFd;
    /// A protection domain; the file descriptor is readable when there is a device event.
    type ProtectionDomain: Send + Sync + AsFd;
    /// Registered memory, deregistered when dropped, before the memory is freed; or a memory
    /// window, freed when dropped, bound or not: no memory is reached through it afterwards.
    type Registration: Registration;
    /// A completion queue with its channel, whose file descriptor this is.
    type CompletionQueue: Send + AsFd;
    /// A queue pair bound to an endpoint.
    type QueuePair: Send;

    /// Agent that reads and writes registered memory besides the owner of a buffer.
    fn agent(&self) -> Agent {
        Agent::Device
    }

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

    /// Limits of the device that the endpoint resolved to; once it is connected, with the MTU of
    /// the path.
    ///
    /// # Errors
    ///
    /// [`Error::QueryDevice`]; [`Error::Misuse`] before an address is resolved.
    fn limits(&self, endpoint: &Self::Endpoint) -> Result<Limits, Error>;

    /// Makes a protection domain.
    ///
    /// # Errors
    ///
    /// [`Error::CreateProtectionDomain`]; [`Error::Misuse`] before an address is resolved.
    fn domain(&self, endpoint: &Self::Endpoint) -> Result<Self::ProtectionDomain, Error>;

    /// The next event of the domain's device, if there is one. Never blocks. Every domain gets
    /// every event of its device from when it was made, in order; one that is not read for long
    /// may lose old ones.
    ///
    /// # Errors
    ///
    /// [`Error::ReadDeviceEvent`].
    fn device_event(&self, domain: &Self::ProtectionDomain) -> Result<Option<DeviceEvent>, Error>;

    /// Returns true if all ports of the domain's device are down, and `None` where that is unknown,
    /// as of a device that is gone. Never blocks.
    fn is_port_down(&self, domain: &Self::ProtectionDomain) -> Option<bool>;

    /// Registers memory, or allocates a memory window, which is not bound to any memory.
    ///
    /// # Errors
    ///
    /// [`Error::Register`], [`Error::LockedMemoryLimit`]; for a window
    /// [`Error::AllocateWindow`], or [`Error::Unsupported`] where [`Limits::windows`] is 0; for a
    /// dma-buf [`Error::Unsupported`] where the device knows none, whatever the file is. Nothing
    /// of the request is kept then.
    fn register(
        &self,
        domain: &Self::ProtectionDomain,
        request: RegisterRequest,
    ) -> Result<(Self::Registration, Keys), Error>;

    /// Makes a completion queue.
    ///
    /// # Errors
    ///
    /// [`Error::CreateCompletionQueue`]; [`Error::Misuse`] before an address is resolved.
    fn completion_queue(
        &self,
        endpoint: &Self::Endpoint,
        capacity: u32,
    ) -> Result<(Self::CompletionQueue, CompletionQueueInfo), Error>;

    /// Makes a reliable connected queue pair.
    ///
    /// # Errors
    ///
    /// [`Error::CreateQueuePair`]; [`Error::Misuse`] when the endpoint has one, or the parts
    /// belong to another device.
    fn queue_pair(
        &self,
        endpoint: &mut Self::Endpoint,
        request: QueuePairRequest<'_, Self>,
    ) -> Result<(Self::QueuePair, QueuePairInfo), Error>;

    /// Hands work requests to the device, in order, with one doorbell.
    ///
    /// A send queue starts its requests in order, and completes them in order. What a request
    /// finds depends on those before it: a window that one request binds can be used by the peer
    /// that the next tells its key; a key that one invalidates is gone for the next.
    ///
    /// # Errors
    ///
    /// [`PostError`]: the number of accepted requests, and the error of the next.
    fn post(&self, batch: Batch<'_, Self>) -> Result<(), PostError>;

    /// Performs a request on a completion queue; the result depends on the [`QueueRequest`]. Never
    /// blocks.
    ///
    /// # Errors
    ///
    /// [`Error::AcknowledgeCompletions`], [`Error::Arm`], [`Error::Poll`],
    /// [`Error::ResizeCompletionQueue`], each for the request of that name.
    fn completions(
        &self,
        queue: &mut Self::CompletionQueue,
        request: QueueRequest<'_>,
    ) -> Result<usize, Error>;
}

/// Request to the connection manager.
#[derive(Clone, Copy, Debug)]
pub enum CmRequest<'a> {
    /// Take an incoming connection request.
    Accept(ConnectParameters<'a>),
    /// Bind to a local address and listen there.
    BindListen {
        /// The local address and port.
        address: SocketAddr,
        /// Maximum number of waiting requests.
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
        /// Address of the peer.
        destination: SocketAddr,
        /// Time limit.
        timeout: Duration,
    },
    /// Find the way to the resolved address.
    ResolveRoute {
        /// Time limit.
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
    /// Kind of the event.
    pub kind: CmEventKind,
    /// Status: an errno, or a reason of the connection manager, depending on the kind.
    pub status: i32,
    /// Private data of the peer's message.
    pub private_data: PrivateData,
    /// Parameters that the peer proposed or accepted.
    pub parameters: ConnectionParameters,
    /// Endpoint created for a connection request.
    pub incoming: Option<E>,
}

/// Kind of an event, by the numbers of `enum rdma_cm_event_type`.
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
    /// The time-wait period is over: the connection's number may be used again.
    pub const TIMEWAIT_EXIT: Self = Self(15);
}

/// Memory or window to register in a domain.
#[derive(Clone, Debug)]
pub enum RegisterRequest {
    /// Memory of another device.
    DmaBuf(DmaBuf),
    /// Memory, which the registration keeps allocated, with the [access](Mapping::access) that it
    /// was made for.
    Memory(Arc<Mapping>),
    /// A window of type 2: bound by a queue pair's work request, to that queue pair alone.
    Window,
}

/// Memory that another device exports (`ibv_reg_dmabuf_mr`).
#[derive(Clone, Debug)]
pub struct DmaBuf {
    /// The dma-buf.
    pub file: Arc<OwnedFd>,
    /// Offset of the range in it.
    pub offset: u64,
    /// Length of the range.
    pub length: usize,
    /// Address by which work requests, and peers, name its start.
    pub address: NonZero<usize>,
    /// Access to the range.
    pub access: Access,
}

/// Description of a new completion queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CompletionQueueInfo {
    /// Number of entries that it got.
    pub capacity: u32,
    /// Number in [`DeviceEvent`]s; no other queue of its device has it now.
    pub number: u32,
    /// Calls by which it is polled.
    pub api: VerbsApi,
}

/// Description of a new queue pair.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QueuePairInfo {
    /// Queue pair number.
    pub number: u32,
    /// Calls by which its sends are posted.
    pub api: VerbsApi,
}

/// Parts and size of a new queue pair.
pub struct QueuePairRequest<'a, P: Provider> {
    /// Domain whose memory it can use.
    pub domain: &'a P::ProtectionDomain,
    /// Queue on which its sends and receives complete.
    pub queue: &'a P::CompletionQueue,
    /// Number and size of its work requests.
    pub capabilities: QueuePairCapabilities,
}

/// Work requests for one queue, in order.
pub enum Batch<'a, P: Provider> {
    /// Receives of a queue pair.
    Receives {
        /// Queue pair.
        queue_pair: &'a mut P::QueuePair,
        /// The receives.
        requests: &'a [ReceiveRequest],
    },
    /// Sends of a queue pair.
    Sends {
        /// Queue pair.
        queue_pair: &'a mut P::QueuePair,
        /// The sends.
        requests: &'a [SendRequest],
        /// Bytes and elements that their payloads refer to.
        payloads: &'a Payloads,
        /// Windows that their binds refer to.
        windows: &'a mut WindowTable,
    },
}

/// A range of registered memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sge {
    /// Address of its start.
    pub address: u64,
    /// Length in bytes; never 0.
    pub length: u32,
    /// The registration's local key.
    pub local_key: u32,
}

/// Our side of a request on a send queue: ranges of the batch's [`Payloads`], so that a request is
/// small and nothing of it need be freed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Payload {
    /// Some of the inline bytes.
    Inline {
        /// Offset of the first.
        offset: usize,
        /// Number of bytes.
        length: u32,
    },
    /// No bytes, as of a request that moves none.
    Nothing,
    /// Some of the segments, gathered (or, for a read, scattered) in order.
    SgList {
        /// Index of the first.
        first: usize,
        /// Number of elements, at most [`SGE_MAX`](crate::SGE_MAX).
        count: u32,
    },
}

/// Storage of the payloads of a queue pair's queued sends.
#[derive(Debug)]
pub struct Payloads {
    /// Copies, until they are handed over.
    inline: Box<[u8]>,
    /// Buffer of messages, which takes the place of the copies.
    message_buffer: Option<ReadOnly>,
    sges: Box<[Sge]>,
}

impl Payloads {
    /// Allocates room for this number of bytes and scatter/gather elements.
    pub fn new(inline_bytes: usize, sges: usize) -> Self {
        Self {
            inline: vec![0; inline_bytes].into_boxed_slice(),
            message_buffer: None,
            sges: vec![Sge::default(); sges].into_boxed_slice(),
        }
    }

    /// Takes inline bytes from this buffer from now on.
    pub(crate) fn set_message_buffer(&mut self, buffer: ReadOnly) {
        (self.inline, self.message_buffer) = (Box::default(), Some(buffer));
    }

    /// Scatter/gather element of a range of the message buffer.
    ///
    /// # Panics
    ///
    /// Without a message buffer.
    #[inline]
    pub(crate) fn message_sge(&self, offset: usize, length: u32) -> Sge {
        let buffer = self.message_buffer.as_ref().expect("whoever asks has kept bytes");
        let all = Sge::of(buffer.buffer());
        Sge { address: all.address + offset as u64, length, ..all }
    }

    /// Inline bytes, if they are within. They must be copied before [`Provider::post`] returns.
    #[inline]
    pub fn bytes(&self, offset: usize, length: u32) -> Option<&[u8]> {
        match &self.message_buffer {
            None => self.inline.get(offset..)?.get(..length as usize),
            Some(buffer) => buffer.bytes(offset, length as usize),
        }
    }

    /// The inline bytes of a payload, if it has some that are within.
    #[inline]
    pub fn of_inline(&self, payload: &Payload) -> Option<&[u8]> {
        let Payload::Inline { offset, length } = *payload else { return None };
        self.bytes(offset, length)
    }

    /// Scatter/gather list of a payload; empty if it has none, or if it is not within the storage.
    #[inline]
    pub fn sg_list(&self, payload: &Payload) -> &[Sge] {
        let Payload::SgList { first, count } = *payload else { return &[] };
        let rest = self.sges.get(first..).unwrap_or_default();
        rest.get(..count as usize).unwrap_or_default()
    }

    /// Copies a message in.
    ///
    /// # Panics
    ///
    /// When it does not fit behind `offset`.
    #[inline(always)] // the length is often known to the caller
    pub fn write_inline(&mut self, offset: usize, message: &[u8]) {
        self.inline[offset..][..message.len()].copy_from_slice(message);
    }

    /// Writes a message into the message buffer.
    ///
    /// # Panics
    ///
    /// Without a message buffer, or when it does not fit behind `offset`.
    #[inline(always)] // as above
    pub(crate) fn write_message(&mut self, offset: usize, message: &[u8]) {
        self.message_buffer
            .as_mut()
            .expect("whoever changes them has kept bytes")
            .copy_in(offset, message);
    }

    /// Elements of a request, to be filled in.
    ///
    /// # Panics
    ///
    /// When there are fewer elements.
    #[inline]
    pub fn sg_list_mut(&mut self, first: usize, count: usize) -> &mut [Sge] {
        &mut self.sges[first..][..count]
    }

    /// Discards inline bytes and elements at the front, and moves the others there.
    pub(crate) fn discard_front(&mut self, bytes: usize, sges: usize) {
        self.inline.copy_within(bytes.min(self.inline.len()).., 0);
        self.sges.copy_within(sges.min(self.sges.len()).., 0);
    }

    /// Returns true if inline bytes are copies, which are gone once they are handed over.
    pub(crate) fn is_copied(&self) -> bool {
        self.message_buffer.is_none()
    }
}

/// Operation of a send work request.
///
/// A request that fails completes with a status that says so, [signaled](SendRequest::signaled) or
/// not, and the queue pair fails with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Binds a window. There is no payload.
    ///
    /// The window must be free: newly allocated, or invalidated since it was bound. From then on
    /// the key reaches the range, by requests that arrive on this queue pair only, until the peer
    /// sends with it, this side invalidates it, or the window is freed.
    BindWindow(BindWindow),
    /// Invalidates a bound window's key. There is no payload.
    LocalInvalidate(RemoteKey),
    /// Reads the peer's memory into the payload's segments, of which there is at least one.
    RdmaRead(RemoteAddress),
    /// Writes the payload to the peer's memory.
    RdmaWrite(RemoteAddress),
    /// Sends the payload, which takes a receive of the peer.
    Send,
    /// Sends the payload, and invalidates a key of the peer, whose completion [names
    /// it](WorkCompletion::with_invalidated). Naming anything but a window that the peer has bound
    /// to this connection fails the connection.
    SendWithInvalidate(RemoteKey),
}

/// A request for a send queue, ready to be handed over.
#[derive(Clone, Copy, Debug)]
pub struct SendRequest {
    /// Comes back in the completion.
    pub token: u64,
    /// True if success makes a completion; failure always does.
    pub signaled: bool,
    /// Operation.
    pub operation: Operation,
    /// Local side of the operation.
    pub payload: Payload,
}

impl SendRequest {
    pub(crate) const EMPTY: Self =
        Self { token: 0, signaled: false, operation: Operation::Send, payload: Payload::Nothing };
}

/// A receive, ready to be handed over.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReceiveRequest {
    /// Comes back in the completion.
    pub token: u64,
    /// Memory for the message.
    pub sge: Sge,
}

/// Error of a batch that was not accepted as a whole.
#[derive(Debug)]
pub struct PostError {
    /// Number of accepted requests, from the front.
    pub accepted: usize,
    /// Error of the next request.
    pub source: io::Error,
}

/// Request to a completion queue.
#[derive(Debug)]
pub enum QueueRequest<'a> {
    /// Take the events off the channel; the result is their number.
    Acknowledge,
    /// Ask for one event at the next completion after this call; the result is 0. A caller that
    /// polls between this call and sleeping misses none.
    Arm,
    /// Take completions, oldest first; the result is their number.
    Poll(&'a mut [WorkCompletion]),
    /// Change the number of entries, never below those in use; the result is the new number.
    Resize(u32),
}
