//! Makes the RDMA connection of one queue (RDMA 3.3), each step with a deadline.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use verbs::{
    Access, Capabilities, CompletionQueue, ConnectParameters, ConnectionEvent, Domain, Endpoint,
    Established, Provider,
};

use super::queue::{Parts, Queue};
use super::readable::Readable;
use super::{buffers, verbs_error};
use crate::config::{
    CONNECT_TIMEOUT, ConnectOptions, READ_DEPTH_MAX, RESOLVE_TIMEOUT, RETRY_COUNT, RNR_RETRY_COUNT,
};
use crate::error::{Error, Rejected, TargetMisbehaved, Transport};
use crate::proto::OpenQueue;
use crate::wire::{Accept, IntoBytes, QueueId, Reject, Sqe};

/// A response has 16 bytes; its buffer a cache line, so that one too long is seen as such.
const RESPONSE_BYTES: usize = 64;

/// An endpoint whose address is resolved: its device is known, nothing is connected.
pub(super) struct Resolved<P: Provider> {
    endpoint: Endpoint<P>,
    events: Readable,
}

/// What a connection is made with.
pub(super) struct Plan<'a, P: Provider> {
    pub(super) options: &'a ConnectOptions,
    pub(super) domain: &'a Domain<P>,
    pub(super) completion_queue: &'a CompletionQueue<P>,
    pub(super) open: &'a OpenQueue,
}

impl<P: Provider> Resolved<P> {
    /// Finds the device that leads to the target.
    pub(super) async fn new(provider: &Arc<P>, options: &ConnectOptions) -> Result<Self, Error> {
        let mut endpoint = Endpoint::open_with(Arc::clone(provider)).map_err(verbs_error)?;
        let events = Readable::new(endpoint.as_fd())?;
        let source = options.source.map(|address| (address, 0).into());
        let step = "address resolution";
        endpoint
            .resolve_address(source, options.address, RESOLVE_TIMEOUT)
            .map_err(|error| unresolved(options, step, error))?;
        let mut resolved = Self { endpoint, events };
        match resolved.event(step, RESOLVE_TIMEOUT).await? {
            ConnectionEvent::AddressResolved => Ok(resolved),
            other => Err(failed(options, QueueId::ADMIN, step, &other)),
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint<P> {
        &self.endpoint
    }

    /// Connects a queue pair for the planned queue, with all its receives posted.
    pub(super) async fn connect(mut self, plan: Plan<'_, P>) -> Result<(Queue<P>, Accept), Error> {
        let Plan { options, domain, completion_queue, open } = plan;
        if let Some(tos) = options.type_of_service {
            self.endpoint.set_type_of_service(tos).map_err(verbs_error)?;
        }
        let (mut prepared, inline) = self.queue_pair(domain, completion_queue, open)?;
        let entries = usize::from(open.entries);
        for response in buffers(domain, entries, RESPONSE_BYTES, Access::LOCAL_WRITE)? {
            prepared.post_receive(response, 0).map_err(|refused| verbs_error(refused.error))?;
        }
        prepared.flush().map_err(verbs_error)?;

        self.route(options, open.queue).await?;
        let established = self.establish(options, open).await?;
        let accept = Accept::parse(established.private_data())?;
        let queue = Queue::new(Parts {
            id: open.queue,
            queue_pair: prepared.ready(&established),
            endpoint: self.endpoint,
            depth: in_flight_max(open, accept),
            capsules: buffers(domain, entries - 1, Sqe::SIZE, Access::NONE)?,
            in_capsule_bytes: open.in_capsule_bytes as usize,
            inline,
        });
        Ok((queue, accept))
    }

    /// A queue pair that takes commands inside its work requests, if the device can do that.
    fn queue_pair(
        &mut self,
        domain: &Domain<P>,
        completion_queue: &CompletionQueue<P>,
        open: &OpenQueue,
    ) -> Result<(verbs::PreparedQueuePair<P>, bool), Error> {
        let entries = u32::from(open.entries);
        let inline = u32::try_from(Sqe::SIZE).expect("a command is 64 bytes");
        // Twice the entries: unsignaled sends hold their place until a signaled one completes.
        let capabilities =
            Capabilities { send: 2 * entries, receive: entries, segments: 2, inline };
        match self.endpoint.queue_pair(domain, completion_queue, capabilities) {
            Ok(prepared) => Ok((prepared, true)),
            Err(error) => {
                tracing::debug!(%error, "no inline sends");
                let capabilities = Capabilities { inline: 0, ..capabilities };
                let prepared = self
                    .endpoint
                    .queue_pair(domain, completion_queue, capabilities)
                    .map_err(verbs_error)?;
                Ok((prepared, false))
            }
        }
    }

    async fn route(&mut self, options: &ConnectOptions, queue: QueueId) -> Result<(), Error> {
        let step = "route resolution";
        self.endpoint
            .resolve_route(RESOLVE_TIMEOUT)
            .map_err(|error| unresolved(options, step, error))?;
        match self.event(step, RESOLVE_TIMEOUT).await? {
            ConnectionEvent::RouteResolved => Ok(()),
            other => Err(failed(options, queue, step, &other)),
        }
    }

    async fn establish(
        &mut self,
        options: &ConnectOptions,
        open: &OpenQueue,
    ) -> Result<Established, Error> {
        let step = "the connection request";
        let depth = self.endpoint.limits().map_err(verbs_error)?.read_atomic.min(READ_DEPTH_MAX);
        let parameters = ConnectParameters {
            private_data: open.request.as_bytes(),
            // The target reads our memory with RDMA READ; we never read its.
            responder_resources: u8::try_from(depth).expect("READ_DEPTH_MAX fits a byte"),
            initiator_depth: 0,
            retry_count: RETRY_COUNT,
            rnr_retry_count: RNR_RETRY_COUNT,
        };
        self.endpoint.connect(&parameters).map_err(verbs_error)?;
        match self.event(step, CONNECT_TIMEOUT).await {
            Ok(ConnectionEvent::Established(established)) => Ok(established),
            Ok(other) => Err(failed(options, open.queue, step, &other)),
            Err(Error::Timeout { after, .. }) => Err(Error::from(Transport::Unreachable {
                address: options.address,
                reason: format!("nothing came back within {after:?}"),
            })),
            Err(error) => Err(error),
        }
    }

    /// The next connection event, within a deadline.
    async fn event(
        &mut self,
        step: &'static str,
        limit: Duration,
    ) -> Result<ConnectionEvent<P>, Error> {
        let endpoint = &mut self.endpoint;
        let events = &self.events;
        let next = async {
            loop {
                if let Some(event) = endpoint.next_event().map_err(verbs_error)? {
                    return Ok(event);
                }
                events.wait().await?;
            }
        };
        let timeout = Error::Timeout { step, after: limit };
        tokio::time::timeout(limit, next).await.unwrap_or(Err(timeout))
    }
}

/// One less than the entries (Base 3.3.1.5), and never more than the target has receives for.
fn in_flight_max(open: &OpenQueue, accept: Accept) -> u16 {
    let limit = open.entries - 1;
    match accept.receive_size {
        0 => limit,
        size => limit.min(size),
    }
}

fn unresolved(options: &ConnectOptions, step: &'static str, error: verbs::Error) -> Error {
    match error {
        verbs::Error::ResolveAddress(source) | verbs::Error::ResolveRoute(source) => {
            address_error(options, step, source.to_string())
        }
        other => verbs_error(other),
    }
}

fn address_error(options: &ConnectOptions, step: &'static str, reason: String) -> Error {
    Transport::Address { address: options.address, step, reason }.into()
}

/// What an event that ends the connecting means.
fn failed<P: Provider>(
    options: &ConnectOptions,
    queue: QueueId,
    step: &'static str,
    event: &ConnectionEvent<P>,
) -> Error {
    let address = options.address;
    match event {
        ConnectionEvent::AddressError { status } | ConnectionEvent::RouteError { status } => {
            address_error(options, step, errno(*status))
        }
        ConnectionEvent::Unreachable { status } | ConnectionEvent::ConnectError { status } => {
            Transport::Unreachable { address, reason: errno(*status) }.into()
        }
        ConnectionEvent::Rejected { status, private_data } => {
            let reject = Reject::parse(*status, private_data);
            Rejected::Connection { queue, reject }.into()
        }
        ConnectionEvent::Disconnected
        | ConnectionEvent::DeviceRemoval
        | ConnectionEvent::AddressChange
        | ConnectionEvent::TimewaitExit => Transport::Disconnected(queue).into(),
        _ => TargetMisbehaved::EventOrder(step).into(),
    }
}

/// The operating system's words for a CM status, which is a negative errno.
fn errno(status: i32) -> String {
    std::io::Error::from_raw_os_error(status.saturating_abs()).to_string()
}
