//! The real provider: thin calls over libibverbs and librdmacm.
//!
//! # Safety
//!
//! This folder exists because the system's libraries are C. It promises to the safe side:
//!
//! * **Alive.** Each object holds, in an `Arc`, what it was made from, so C never sees a dangling
//!   pointer, in whatever order the caller drops things:
//!
//!   ```text
//!   QueuePair ----> CmId ----------------> EventChannel
//!       |---------> DomainInner ---------> DeviceContext --> CmId (bound, never connected)
//!       '---------> QueueInner ----------> DeviceContext
//!   Registration -> DomainInner, Mapping -> Pages
//!   ```
//!
//!   Structs destroy their own object in `Drop`, before their fields, so teardown follows the
//!   arrows: queue pair before id, domain and queue; memory region before domain and memory;
//!   id before its event channel. A [`device::DeviceContext`] keeps the device's context open.
//! * **One at a time.** librdmacm changes an id, and its queue pair's state, while it reads an
//!   event. All calls on an id are under its lock. Verbs calls are thread-safe by themselves.
//! * **Events are returned at once.** They are acknowledged right after being copied, so that no
//!   destruction waits for them.
//! * **Nothing borrowed stays.** What a call points to lives during the call; work requests and
//!   inline messages are copied by the device's plug-in before a post returns.

mod address;
mod attributes;
mod chain;
mod cm_id;
mod completion_channel;
mod completion_queue;
mod device;
mod diagnosis;
mod domain;
mod endpoint;
mod event_channel;
mod events;
mod extended_poll;
mod extended_sends;
mod queue_pair;
mod receive_chain;
mod rxe_quirk;
mod work_completion;

use crate::{
    DeviceEvent, Error, Limits, Provider, VerbsApi,
    provider::{
        Batch, CmEvent, CmRequest, CompletionQueueInfo, Keys, PostError, QueuePairInfo,
        QueuePairRequest, QueueRequest, RegisterRequest,
    },
};

pub use device::{DeviceInfo, PortInfo, PortState, devices};
pub(crate) use work_completion::as_work_completions;

/// The system's own RDMA: whatever devices libibverbs and librdmacm find.
#[derive(Clone, Copy, Debug, Default)]
pub struct RdmaCore {
    api: VerbsApi,
}

impl RdmaCore {
    /// Uses the legacy calls; see [`VerbsApi`].
    pub const fn new() -> Self {
        Self::with(VerbsApi::Legacy)
    }

    /// Uses these calls, where the device has them.
    pub const fn with(api: VerbsApi) -> Self {
        Self { api }
    }
}

impl Provider for RdmaCore {
    type Endpoint = endpoint::RawEndpoint;
    type ProtectionDomain = domain::RawDomain;
    type Registration = domain::RawRegistration;
    type CompletionQueue = completion_queue::RawCompletionQueue;
    type QueuePair = queue_pair::RawQueuePair;

    fn endpoint(&self) -> Result<Self::Endpoint, Error> {
        endpoint::RawEndpoint::open()
    }

    fn request(&self, endpoint: &mut Self::Endpoint, request: CmRequest<'_>) -> Result<(), Error> {
        endpoint.request(request)
    }

    fn cm_event(
        &self,
        endpoint: &mut Self::Endpoint,
    ) -> Result<Option<CmEvent<Self::Endpoint>>, Error> {
        endpoint.event()
    }

    fn limits(&self, endpoint: &Self::Endpoint) -> Result<Limits, Error> {
        device::limits(endpoint.id())
    }

    fn domain(&self, endpoint: &Self::Endpoint) -> Result<Self::ProtectionDomain, Error> {
        domain::RawDomain::new(device::context_of(endpoint.id())?)
    }

    fn device_event(&self, domain: &Self::ProtectionDomain) -> Result<Option<DeviceEvent>, Error> {
        domain.event()
    }

    fn is_port_down(&self, domain: &Self::ProtectionDomain) -> Option<bool> {
        domain.is_port_down()
    }

    fn register(
        &self,
        domain: &Self::ProtectionDomain,
        request: RegisterRequest,
    ) -> Result<(Self::Registration, Keys), Error> {
        match request {
            RegisterRequest::Memory(memory) => domain.register(memory),
            RegisterRequest::DmaBuf(dma_buf) => domain.register_dma_buf(&dma_buf),
            RegisterRequest::Window => domain.window(),
        }
    }

    fn completion_queue(
        &self,
        endpoint: &Self::Endpoint,
        capacity: u32,
    ) -> Result<(Self::CompletionQueue, CompletionQueueInfo), Error> {
        let device = device::context_of(endpoint.id())?;
        completion_queue::RawCompletionQueue::new(device, capacity, self.api)
    }

    fn queue_pair(
        &self,
        endpoint: &mut Self::Endpoint,
        request: QueuePairRequest<'_, Self>,
    ) -> Result<(Self::QueuePair, QueuePairInfo), Error> {
        queue_pair::RawQueuePair::new(endpoint.id(), request, self.api)
    }

    #[inline(always)] // the caller knows which it is
    fn post(&self, batch: Batch<'_, Self>) -> Result<(), PostError> {
        match batch {
            Batch::Receives { queue_pair, requests } => queue_pair.post_receive(requests),
            Batch::Sends { queue_pair, requests, payloads, windows } => {
                queue_pair.post_send(requests, payloads, windows)
            }
        }
    }

    #[inline(always)] // the caller knows which it is
    fn completions(
        &self,
        queue: &mut Self::CompletionQueue,
        request: QueueRequest<'_>,
    ) -> Result<usize, Error> {
        match request {
            QueueRequest::Acknowledge => queue.acknowledge(),
            QueueRequest::Arm => queue.arm(),
            QueueRequest::Poll(out) => queue.poll(out),
            QueueRequest::Resize(capacity) => queue.resize(capacity),
        }
    }
}
