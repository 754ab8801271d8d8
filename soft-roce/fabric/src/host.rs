//! Provider of a host of the fabric.

use std::sync::Arc;

use rustix::io::Errno;
use verbs::{
    DeviceEvent, Error, Limits, Provider, SGE_MAX, VerbsApi,
    memory::Agent,
    provider::{
        Batch, CmEvent, CmRequest, CompletionQueueInfo, Keys, PostError, QueuePairInfo,
        QueuePairRequest, QueueRequest, RegisterRequest,
    },
};

use super::{
    handle::{
        DomainHandle, HostDomain, HostEndpoint, HostQueue, HostQueuePair, HostRegistration,
        QueueHandle, SharedSimulation,
    },
    simulation::{
        HostId, HostState,
        completion_queue::ENTRIES_MAX,
        connection::EndpointState,
        queue_pair::{QueuePairParts, WORK_REQUESTS_MAX},
    },
};

/// Host of a [`Fabric`](super::Fabric): the provider with which a program on it opens endpoints.
#[derive(Debug)]
pub struct Host {
    pub(super) id: HostId,
    pub(super) simulation: Arc<SharedSimulation>,
}

impl Provider for Host {
    type Endpoint = HostEndpoint;
    type ProtectionDomain = HostDomain;
    type Registration = HostRegistration;
    type CompletionQueue = HostQueue;
    type QueuePair = HostQueuePair;

    fn agent(&self) -> Agent {
        Agent::Thread
    }

    fn endpoint(&self) -> Result<HostEndpoint, Error> {
        let (id, signal) = self
            .simulation
            .with(|simulation| simulation.make_endpoint(self.id, EndpointState::Idle))?;
        Ok(HostEndpoint { id, simulation: self.simulation.clone(), signal })
    }

    fn request(&self, endpoint: &mut HostEndpoint, request: CmRequest<'_>) -> Result<(), Error> {
        self.simulation.with(|simulation| simulation.cm_request(endpoint.id, request))
    }

    fn cm_event(
        &self,
        endpoint: &mut HostEndpoint,
    ) -> Result<Option<CmEvent<HostEndpoint>>, Error> {
        let event = self.simulation.with(|simulation| simulation.next_cm_event(endpoint.id));
        Ok(event.map(|event| CmEvent {
            kind: event.kind,
            status: event.status,
            private_data: event.private_data,
            parameters: event.parameters,
            incoming: event.incoming.map(|(id, signal)| HostEndpoint {
                id,
                simulation: self.simulation.clone(),
                signal,
            }),
        }))
    }

    fn limits(&self, endpoint: &HostEndpoint) -> Result<Limits, Error> {
        self.simulation.with(|simulation| {
            let device = simulation.device_of(endpoint.id)?;
            if !simulation.is_alive(device) {
                return Err(Error::QueryDevice(Errno::IO.into()));
            }
            Ok(limits(&simulation.hosts[device.host.0]))
        })
    }

    fn domain(&self, endpoint: &HostEndpoint) -> Result<HostDomain, Error> {
        let (id, signal) = self.simulation.with(|simulation| {
            let device = simulation.device_of(endpoint.id)?;
            simulation.make_domain(device)
        })?;
        Ok(HostDomain(Arc::new(DomainHandle { id, simulation: self.simulation.clone(), signal })))
    }

    fn device_event(&self, domain: &HostDomain) -> Result<Option<DeviceEvent>, Error> {
        Ok(self.simulation.with(|simulation| simulation.device_event(domain.0.id)))
    }

    fn is_port_down(&self, domain: &HostDomain) -> Option<bool> {
        self.simulation.with(|simulation| {
            let device = simulation.domains[&domain.0.id].device;
            let is_active = simulation.hosts[device.host.0].port_active;
            simulation.is_alive(device).then_some(!is_active)
        })
    }

    fn register(
        &self,
        domain: &HostDomain,
        request: RegisterRequest,
    ) -> Result<(HostRegistration, Keys), Error> {
        let id = domain.0.id;
        let keys = self.simulation.with(|simulation| {
            let device = simulation.domains[&id].device;
            let alive = simulation.is_alive(device);
            let salt = simulation.random.next();
            match request {
                RegisterRequest::Memory(memory) if !alive => {
                    Err(Error::Register { length: memory.len(), source: Errno::IO.into() })
                }
                RegisterRequest::Window if !alive => Err(Error::AllocateWindow(Errno::IO.into())),
                RegisterRequest::Memory(memory) => Ok(simulation.memory.register(id, memory, salt)),
                RegisterRequest::DmaBuf(_) => Err(Error::Unsupported("the fabric has no dma-bufs")),
                RegisterRequest::Window if !simulation.hosts[device.host.0].windows => {
                    Err(Error::Unsupported("this host has no memory windows"))
                }
                RegisterRequest::Window => Ok(simulation.memory.make_window(id, salt)),
            }
        })?;
        Ok((HostRegistration { keys, domain: domain.0.clone() }, keys))
    }

    fn completion_queue(
        &self,
        endpoint: &HostEndpoint,
        capacity: u32,
    ) -> Result<(HostQueue, CompletionQueueInfo), Error> {
        let (id, capacity, signal) = self.simulation.with(|simulation| {
            let device = simulation.device_of(endpoint.id)?;
            simulation.make_queue(device, capacity)
        })?;
        let handle = QueueHandle { id, simulation: self.simulation.clone(), signal };
        let info = CompletionQueueInfo { capacity, number: id.number(), api: VerbsApi::Legacy };
        Ok((HostQueue(Arc::new(handle)), info))
    }

    fn queue_pair(
        &self,
        endpoint: &mut HostEndpoint,
        request: QueuePairRequest<'_, Self>,
    ) -> Result<(HostQueuePair, QueuePairInfo), Error> {
        let QueuePairRequest { domain, queue, capabilities } = request;
        let id = self.simulation.with(|simulation| {
            let device = simulation.device_of(endpoint.id)?;
            simulation.make_pair(QueuePairParts {
                device,
                endpoint: endpoint.id,
                domain: domain.0.id,
                queue: queue.0.id,
                capabilities,
            })
        })?;
        let pair = HostQueuePair {
            id,
            simulation: self.simulation.clone(),
            _domain: domain.0.clone(),
            _queue: queue.0.clone(),
        };
        let info = QueuePairInfo { number: id.0, api: VerbsApi::Legacy };
        Ok((pair, info))
    }

    fn post(&self, batch: Batch<'_, Self>) -> Result<(), PostError> {
        self.simulation.with(|simulation| match batch {
            Batch::Receives { queue_pair, requests } => {
                take_each(requests, |request| simulation.post_receive(queue_pair.id, *request))
            }
            Batch::Sends { queue_pair, requests, payloads, .. } => take_each(requests, |request| {
                simulation.post_send(queue_pair.id, request, payloads)
            }),
        })
    }

    fn completions(
        &self,
        queue: &mut HostQueue,
        request: QueueRequest<'_>,
    ) -> Result<usize, Error> {
        self.simulation.with(|simulation| simulation.serve_queue(queue.0.id, request))
    }
}

/// Posts requests up to the first that is refused.
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
        path_mtu: Some(PATH_MTU),
        completion_queue_entries: ENTRIES_MAX,
        initiator_read_atomic: READS_MAX,
        memory_region_bytes: u64::MAX,
        memory_regions: 1 << 24,
        numa_node: host.numa_node,
        queue_pair_work_requests: WORK_REQUESTS_MAX,
        queue_pairs: 1 << 24,
        read_atomic: READS_MAX,
        send_sge: u32::try_from(SGE_MAX).unwrap_or(u32::MAX),
        windows: if host.windows { 1 << 24 } else { 0 },
        ..Limits::default()
    }
}

/// Bytes of a packet. Nothing is cut into packets here.
const PATH_MTU: u32 = 4096;
/// Maximum number of outstanding reads of one queue pair.
const READS_MAX: u32 = 128;
