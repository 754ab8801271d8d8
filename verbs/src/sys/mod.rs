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
//!   QueuePair ----> Id ------------------> Channel
//!       |---------> DomainInner ---------> Hold ----> Id (bound, never connected) -> Channel
//!       '---------> QueueInner ----------> Hold
//!   Registration -> DomainInner, Mapping
//!   ```
//!
//!   Structs destroy their own object in `Drop`, before their fields, so teardown follows the
//!   arrows: queue pair before id, domain and queue; memory region before domain and memory;
//!   id before its event channel. A [`device::Hold`] keeps the device's context open.
//! * **One at a time.** librdmacm changes an id, and its queue pair's state, while it reads an
//!   event. All calls on an id are under its lock. Verbs calls are thread-safe by themselves.
//! * **Events are returned at once.** They are acknowledged right after being copied, so that no
//!   destruction waits for them.
//! * **Nothing borrowed stays.** What a call points to lives during the call; work requests and
//!   inline messages are copied by the device's plug-in before a post returns.

mod address;
mod completion_queue;
mod device;
mod diagnosis;
mod domain;
mod endpoint;
mod id;
mod queue_pair;

use std::{sync::Arc, time::Duration};

use crate::{
    Access, Completion, Error, Limits, Provider,
    memory::Mapping,
    provider::{
        CmEvent, CmRequest, Keys, Notify, PostError, QueuePairRequest, ReceiveRequest, SendRequest,
    },
};

pub use device::{DeviceInfo, PortInfo, PortState, devices};

/// The system's own RDMA: whatever devices libibverbs and librdmacm find.
#[derive(Clone, Copy, Debug, Default)]
pub struct RdmaCore;

impl Provider for RdmaCore {
    type Endpoint = endpoint::RawEndpoint;
    type Domain = domain::RawDomain;
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

    fn domain(&self, endpoint: &Self::Endpoint) -> Result<Self::Domain, Error> {
        domain::RawDomain::new(device::hold(endpoint.id())?)
    }

    fn register(
        &self,
        domain: &Self::Domain,
        memory: Arc<Mapping>,
        access: Access,
    ) -> Result<(Self::Registration, Keys), Error> {
        domain.register(memory, access)
    }

    fn completion_queue(
        &self,
        endpoint: &Self::Endpoint,
        capacity: u32,
    ) -> Result<(Self::CompletionQueue, u32), Error> {
        completion_queue::RawCompletionQueue::new(device::hold(endpoint.id())?, capacity)
    }

    fn queue_pair(
        &self,
        endpoint: &mut Self::Endpoint,
        request: QueuePairRequest<'_, Self>,
    ) -> Result<(Self::QueuePair, u32), Error> {
        queue_pair::RawQueuePair::new(endpoint.id(), request)
    }

    #[inline]
    fn post_send(
        &self,
        queue_pair: &mut Self::QueuePair,
        requests: &[SendRequest],
        inline: &[u8],
    ) -> Result<(), PostError> {
        queue_pair.post_send(requests, inline)
    }

    #[inline]
    fn post_receive(
        &self,
        queue_pair: &mut Self::QueuePair,
        requests: &[ReceiveRequest],
    ) -> Result<(), PostError> {
        queue_pair.post_receive(requests)
    }

    #[inline]
    fn poll(
        &self,
        queue: &mut Self::CompletionQueue,
        out: &mut [Completion],
    ) -> Result<usize, Error> {
        queue.poll(out)
    }

    fn notify(&self, queue: &mut Self::CompletionQueue, request: Notify) -> Result<u32, Error> {
        match request {
            Notify::Acknowledge => queue.acknowledge(),
            Notify::Arm => queue.arm(),
        }
    }
}

/// Milliseconds for a C call: at least one, and at most what an `int` holds.
fn milliseconds(timeout: Duration) -> libc::c_int {
    libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX).max(1)
}
