//! A host of the fabric: the provider that its programs use.

use std::sync::Arc;

use rustix::io::Errno;
use verbs::{
    DeviceEvent, Error, Interface, Limits, Provider, SEGMENTS_MAX,
    memory::Agent,
    provider::{
        Batch, CmEvent, CmRequest, Keys, PostError, QueueFacts, QueuePairFacts, QueuePairRequest,
        QueueRequest, RegisterRequest,
    },
};

use super::{
    completion_queue::ENTRIES_MAX,
    connection::Stage,
    handle::{
        DomainHold, HostDomain, HostEndpoint, HostQueue, HostQueuePair, HostRegistration,
        HostSharedReceiveQueue, QueueHold, Shared, SharedHold,
    },
    queue_pair::{Plan, WORK_REQUESTS_MAX},
    shared_receive_queue::RECEIVES_MAX,
    world::{HostId, HostState},
};

/// One host of a [`Fabric`](super::Fabric): what a program there opens its endpoints with.
#[derive(Debug)]
pub struct Host {
    pub(super) id: HostId,
    pub(super) world: Arc<Shared>,
}

impl Provider for Host {
    type Endpoint = HostEndpoint;
    type Domain = HostDomain;
    type Registration = HostRegistration;
    type CompletionQueue = HostQueue;
    type SharedReceiveQueue = HostSharedReceiveQueue;
    type QueuePair = HostQueuePair;

    const AGENT: Agent = Agent::Thread;

    fn endpoint(&self) -> Result<HostEndpoint, Error> {
        let (id, signal) = self.world.with(|world| world.make_endpoint(self.id, Stage::Idle))?;
        Ok(HostEndpoint { id, world: self.world.clone(), signal })
    }

    fn request(&self, endpoint: &mut HostEndpoint, request: CmRequest<'_>) -> Result<(), Error> {
        self.world.with(|world| world.cm_request(endpoint.id, request))
    }

    fn cm_event(
        &self,
        endpoint: &mut HostEndpoint,
    ) -> Result<Option<CmEvent<HostEndpoint>>, Error> {
        let event = self.world.with(|world| world.next_cm_event(endpoint.id));
        Ok(event.map(|event| CmEvent {
            kind: event.kind,
            status: event.status,
            private_data: event.private_data,
            parameters: event.parameters,
            incoming: event.incoming.map(|(id, signal)| HostEndpoint {
                id,
                world: self.world.clone(),
                signal,
            }),
        }))
    }

    fn limits(&self, endpoint: &HostEndpoint) -> Result<Limits, Error> {
        self.world.with(|world| {
            let device = world.device_of(endpoint.id)?;
            if !world.is_alive(device) {
                return Err(Error::QueryDevice(Errno::IO.into()));
            }
            Ok(limits(&world.hosts[device.host.0]))
        })
    }

    fn domain(&self, endpoint: &HostEndpoint) -> Result<HostDomain, Error> {
        let (id, signal) = self.world.with(|world| {
            let device = world.device_of(endpoint.id)?;
            world.make_domain(device)
        })?;
        Ok(HostDomain(Arc::new(DomainHold { id, world: self.world.clone(), signal })))
    }

    fn device_event(&self, domain: &HostDomain) -> Result<Option<DeviceEvent>, Error> {
        Ok(self.world.with(|world| world.device_event(domain.0.id)))
    }

    fn register(
        &self,
        domain: &HostDomain,
        request: RegisterRequest,
    ) -> Result<(HostRegistration, Keys), Error> {
        let id = domain.0.id;
        let keys = self.world.with(|world| {
            let device = world.domains[&id].device;
            let alive = world.is_alive(device);
            let salt = world.random.next();
            match request {
                RegisterRequest::Memory { memory, .. } if !alive => {
                    Err(Error::Register { length: memory.len(), source: Errno::IO.into() })
                }
                RegisterRequest::Window if !alive => Err(Error::AllocateWindow(Errno::IO.into())),
                RegisterRequest::Memory { memory, access } => {
                    Ok(world.memory.register(id, (memory, access), salt))
                }
                RegisterRequest::DmaBuf(_) => Err(Error::Unsupported("the fabric has no dma-bufs")),
                RegisterRequest::Window if !world.hosts[device.host.0].windows => {
                    Err(Error::Unsupported("this host has no memory windows"))
                }
                RegisterRequest::Window => Ok(world.memory.make_window(id, salt)),
            }
        })?;
        Ok((HostRegistration { keys, domain: domain.0.clone() }, keys))
    }

    fn completion_queue(
        &self,
        endpoint: &HostEndpoint,
        capacity: u32,
    ) -> Result<(HostQueue, QueueFacts), Error> {
        let (id, capacity, signal) = self.world.with(|world| {
            let device = world.device_of(endpoint.id)?;
            world.make_queue(device, capacity)
        })?;
        let hold = QueueHold { id, world: self.world.clone(), signal };
        let facts = QueueFacts { capacity, number: id.number(), interface: Interface::Classic };
        Ok((HostQueue(Arc::new(hold)), facts))
    }

    fn shared_receive_queue(
        &self,
        domain: &HostDomain,
        capacity: u32,
    ) -> Result<(HostSharedReceiveQueue, u32), Error> {
        let id = self.world.with(|world| world.make_shared(domain.0.id, capacity))?;
        let hold = SharedHold { id, domain: domain.0.clone() };
        Ok((HostSharedReceiveQueue(Arc::new(hold)), id.number()))
    }

    fn queue_pair(
        &self,
        endpoint: &mut HostEndpoint,
        request: QueuePairRequest<'_, Self>,
    ) -> Result<(HostQueuePair, QueuePairFacts), Error> {
        let QueuePairRequest { domain, queue, shared, capabilities } = request;
        let id = self.world.with(|world| {
            let device = world.device_of(endpoint.id)?;
            world.make_pair(Plan {
                device,
                endpoint: endpoint.id,
                domain: domain.0.id,
                queue: queue.0.id,
                shared: shared.map(|shared| shared.0.id),
                capabilities,
            })
        })?;
        let pair = HostQueuePair {
            id,
            world: self.world.clone(),
            _domain: domain.0.clone(),
            _queue: queue.0.clone(),
            _shared: shared.map(|shared| shared.0.clone()),
        };
        let facts = QueuePairFacts { number: id.0, interface: Interface::Classic };
        Ok((pair, facts))
    }

    fn post(&self, batch: Batch<'_, Self>) -> Result<(), PostError> {
        self.world.with(|world| match batch {
            Batch::Receives { queue_pair, requests } => {
                take_each(requests, |request| world.post_receive(queue_pair.id, *request))
            }
            Batch::Sends { queue_pair, requests, payloads } => {
                take_each(requests, |request| world.post_send(queue_pair.id, request, payloads))
            }
            Batch::SharedReceives { queue, requests } => {
                take_each(requests, |request| world.post_shared(queue.0.id, *request))
            }
        })
    }

    fn completions(
        &self,
        queue: &mut HostQueue,
        request: QueueRequest<'_>,
    ) -> Result<usize, Error> {
        self.world.with(|world| world.serve_queue(queue.0.id, request))
    }
}

/// Takes requests up to the first that is refused.
fn take_each<R>(
    requests: &[R],
    mut take: impl FnMut(&R) -> Result<(), Errno>,
) -> Result<(), PostError> {
    for (accepted, request) in requests.iter().enumerate() {
        take(request).map_err(|errno| PostError { accepted, source: errno.into() })?;
    }
    Ok(())
}

fn limits(host: &HostState) -> Limits {
    Limits {
        device: format!("fabric-{}", host.name),
        completion_queue_entries: ENTRIES_MAX,
        initiator_read_atomic: READS_MAX,
        memory_region_bytes: u64::MAX,
        memory_regions: 1 << 24,
        numa_node: host.numa_node,
        queue_pair_work_requests: WORK_REQUESTS_MAX,
        queue_pairs: 1 << 24,
        read_atomic: READS_MAX,
        segments: u32::try_from(SEGMENTS_MAX).unwrap_or(u32::MAX),
        shared_receive_work_requests: RECEIVES_MAX,
        shared_receive_queues: 1 << 16,
        windows: if host.windows { 1 << 24 } else { 0 },
        ..Limits::default()
    }
}

/// Reads of one queue pair at a time.
const READS_MAX: u32 = 128;
