//! Requests to the connection manager, and its events.
//!
//! # Safety
//!
//! This file exists to call librdmacm. It promises that each event is copied and acknowledged
//! before anything else happens to its id, and that what a request points to lives during it.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    ptr::{self, NonNull},
    slice,
    sync::Arc,
    time::Duration,
};

use rdma_core_sys as c;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    address::SocketAddress,
    cm_id::CmId,
    diagnosis,
    event_channel::{EventChannel, check},
    rxe_quirk,
};
use crate::{
    ConnectParameters, ConnectionParameters, Error, PrivateData,
    provider::{CmEvent, CmEventKind, CmRequest},
};

/// An id, shared with the queue pair made on it.
pub struct RawEndpoint {
    id: Arc<CmId>,
}

impl RawEndpoint {
    pub(super) fn open() -> Result<Self, Error> {
        rxe_quirk::release();
        match EventChannel::open().and_then(CmId::new) {
            Ok(id) => Ok(Self { id: Arc::new(id) }),
            Err(source) => Err(diagnosis::explain(Path::new(diagnosis::RDMA_CM), source)
                .unwrap_or_else(Error::CreateEndpoint)),
        }
    }

    pub(super) fn request(&mut self, request: CmRequest<'_>) -> Result<(), Error> {
        match request {
            CmRequest::Accept(parameters) => self.accept(&parameters).map_err(Error::Accept),
            CmRequest::BindListen { address, backlog } => {
                self.listen(address.into(), backlog).map_err(Error::Listen)
            }
            CmRequest::Connect(parameters) => self.connect(&parameters).map_err(Error::Connect),
            CmRequest::Disconnect => self.disconnect().map_err(Error::Disconnect),
            CmRequest::Reject(data) => self.reject(data).map_err(Error::Reject),
            CmRequest::ResolveAddress { source, destination, timeout } => self
                .resolve_address(source.map(Into::into), destination.into(), milliseconds(timeout))
                .map_err(Error::ResolveAddress),
            CmRequest::ResolveRoute { timeout } => {
                self.resolve_route(milliseconds(timeout)).map_err(Error::ResolveRoute)
            }
            // The kernel takes any byte; five bits of it travel.
            CmRequest::SetAckTimeout(32..) => {
                Err(Error::SetAckTimeout(io::Error::from_raw_os_error(libc::EINVAL)))
            }
            CmRequest::SetAckTimeout(exponent) => self
                .set_option(c::RDMA_OPTION_ID_ACK_TIMEOUT, exponent)
                .map_err(|source| match source.raw_os_error() {
                    Some(libc::ENOSYS | libc::EOPNOTSUPP) => {
                        Error::Unsupported("the kernel cannot set the acknowledge timeout")
                    }
                    _ => Error::SetAckTimeout(source),
                }),
            CmRequest::SetTypeOfService(value) => {
                self.set_option(c::RDMA_OPTION_ID_TOS, value).map_err(Error::SetTypeOfService)
            }
        }
    }

    pub(super) fn event(&mut self) -> Result<Option<CmEvent<Self>>, Error> {
        let event = self
            .id
            .with(|_| self.read_event())
            .and_then(|event| event.map(Event::adopt).transpose())
            .map_err(Error::ReadEvent)?;
        // Only when an address leads to a device does librdmacm open it; a failure to do so
        // arrives as this event.
        if let Some(event) = &event
            && event.kind == CmEventKind::ADDRESS_ERROR
            && let Some(error) = diagnosis::closed_device(event.status)
        {
            return Err(error);
        }
        Ok(event)
    }

    pub(super) fn id(&self) -> &Arc<CmId> {
        &self.id
    }

    fn accept(&self, parameters: &ConnectParameters<'_>) -> io::Result<()> {
        let mut parameters = connection_parameters(parameters)?;
        // SAFETY: the id is live and has a device; the parameters and their data live during the
        // call.
        self.id.with_connection(|id| unsafe { c::rdma_accept(id, &raw mut parameters) })
    }

    fn connect(&self, parameters: &ConnectParameters<'_>) -> io::Result<()> {
        let mut parameters = connection_parameters(parameters)?;
        // SAFETY: the id is live and has a device; the parameters and their data live during the
        // call.
        self.id.with_connection(|id| unsafe { c::rdma_connect(id, &raw mut parameters) })
    }

    fn disconnect(&self) -> io::Result<()> {
        // SAFETY: the id is live, and locked.
        if self.id.with(|id| unsafe { rxe_quirk::is_port_down(id) }) {
            return Err(io::Error::from_raw_os_error(libc::ENETDOWN));
        }
        // SAFETY: the id is live during the call, and has a device.
        self.id.with_device(|id| unsafe { c::rdma_disconnect(id) })
    }

    fn listen(&self, mut address: SocketAddress, backlog: u32) -> io::Result<()> {
        let backlog = libc::c_int::try_from(backlog).unwrap_or(libc::c_int::MAX);
        self.id.with(|id| {
            // SAFETY: the id is live, and the address lives during the call.
            check(unsafe { c::rdma_bind_addr(id, address.pointer()) })?;
            // SAFETY: the id is live during the call.
            check(unsafe { c::rdma_listen(id, backlog) })
        })
    }

    fn reject(&self, data: &[u8]) -> io::Result<()> {
        let length = private_data_length(data)?;
        // SAFETY: the id is live; the data live during the call, and are as long as is said.
        check(self.id.with(|id| unsafe { c::rdma_reject(id, data.as_ptr().cast(), length) }))
    }

    fn resolve_address(
        &self,
        mut source: Option<SocketAddress>,
        mut destination: SocketAddress,
        timeout_ms: libc::c_int,
    ) -> io::Result<()> {
        let source = source.as_mut().map_or(ptr::null_mut(), SocketAddress::pointer);
        let destination = destination.pointer();
        // SAFETY: the id is live; the addresses live during the call, or there is no source.
        check(
            self.id.with(|id| unsafe { c::rdma_resolve_addr(id, source, destination, timeout_ms) }),
        )
    }

    fn resolve_route(&self, timeout_ms: libc::c_int) -> io::Result<()> {
        // SAFETY: the id is live during the call, and has a device.
        self.id.with_device(|id| unsafe { c::rdma_resolve_route(id, timeout_ms) })
    }

    fn set_option(&self, option: libc::c_int, mut value: u8) -> io::Result<()> {
        let value = (&raw mut value).cast();
        // SAFETY: the id is live; both options are one byte, which lives during the call.
        check(
            self.id
                .with(|id| unsafe { c::rdma_set_option(id, c::RDMA_OPTION_ID, option, value, 1) }),
        )
    }

    /// Takes an event off the channel, copies it and acknowledges it. Under the id's lock.
    fn read_event(&self) -> io::Result<Option<Event>> {
        // librdmacm allocates memory for an event before it asks for one.
        let mut files = [PollFd::new(self.id.channel(), PollFlags::IN)];
        match poll(&mut files, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) | Err(Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut raw = ptr::null_mut();
        // SAFETY: the channel is live, and does not block.
        let result =
            check(unsafe { c::rdma_get_cm_event(self.id.channel().pointer(), &raw mut raw) });
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        // SAFETY: the call succeeded, so this is an event, ours until it is acknowledged.
        let event = unsafe { &*raw };
        // SAFETY: our ids have TCP-like ports, see `CmId::new`; it is acknowledged below.
        let event = unsafe { Event::copy(event) };
        // SAFETY: the event came from the call above, and is not used after this.
        unsafe { c::rdma_ack_cm_event(raw) };
        Ok(Some(event))
    }
}

impl AsFd for RawEndpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.id.channel().as_fd()
    }
}

/// Copied event, whose new id has no owner yet.
struct Event {
    copied: CmEvent<RawEndpoint>,
    incoming: Option<NonNull<c::rdma_cm_id>>,
}

impl Event {
    /// # Safety
    ///
    /// The event is of an id with TCP-like ports, and not acknowledged.
    unsafe fn copy(event: &c::rdma_cm_event) -> Self {
        let kind = CmEventKind(event.event.0);
        let is_request = kind == CmEventKind::CONNECT_REQUEST;
        // SAFETY: for such ids librdmacm fills this member in, with zeroes where nothing applies.
        let parameters = unsafe { event.param.conn };
        // SAFETY: the parameters are of an event that is not acknowledged yet.
        let private_data = unsafe { private_data(&parameters) };
        let copied = CmEvent {
            kind,
            status: event.status,
            private_data,
            parameters: ConnectionParameters {
                responder_resources: parameters.responder_resources,
                initiator_depth: parameters.initiator_depth,
                retry_count: parameters.retry_count,
                rnr_retry_count: parameters.rnr_retry_count,
                queue_pair: parameters.qp_num,
            },
            incoming: None,
        };
        Self { copied, incoming: NonNull::new(event.id).filter(|_| is_request) }
    }

    fn adopt(self) -> io::Result<CmEvent<RawEndpoint>> {
        let Self { copied, incoming } = self;
        let Some(raw) = incoming else { return Ok(copied) };
        // SAFETY: the id came with this event alone, which is acknowledged; the listener, which
        // the caller borrows, keeps its present channel alive.
        let id = Arc::new(unsafe { CmId::adopt(raw) }?);
        Ok(CmEvent { incoming: Some(RawEndpoint { id }), ..copied })
    }
}

/// # Safety
///
/// The event that the parameters are of is not acknowledged yet.
unsafe fn private_data(parameters: &c::rdma_conn_param) -> PrivateData {
    if parameters.private_data.is_null() {
        return PrivateData::default();
    }
    let length = usize::from(parameters.private_data_len);
    // SAFETY: librdmacm points to as many bytes as it says, inside of the event.
    PrivateData::new(unsafe { slice::from_raw_parts(parameters.private_data.cast(), length) })
}

fn connection_parameters(parameters: &ConnectParameters<'_>) -> io::Result<c::rdma_conn_param> {
    Ok(c::rdma_conn_param {
        private_data: parameters.private_data.as_ptr().cast(),
        private_data_len: private_data_length(parameters.private_data)?,
        responder_resources: parameters.responder_resources,
        initiator_depth: parameters.initiator_depth,
        flow_control: 1,
        retry_count: parameters.retry_count,
        rnr_retry_count: parameters.rnr_retry_count,
        srq: 0,
        qp_num: 0,
    })
}

fn private_data_length(data: &[u8]) -> io::Result<u8> {
    data.len().try_into().map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Milliseconds for a C call: at least one, and at most what an `int` holds.
fn milliseconds(timeout: Duration) -> libc::c_int {
    libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX).max(1)
}
