//! A provider that a profiler can tell from its callers.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use verbs::{
    DeviceEvent, Error, Limits, Provider,
    memory::Agent,
    provider::{
        Batch, CmEvent, CmRequest, CompletionQueueInfo, Keys, PostError, QueuePairInfo,
        QueuePairRequest, QueueRequest, RegisterRequest,
    },
};

/// Passes every call to another provider through a function whose name begins with `device_`, so
/// that a profiler can leave out the instructions of the device.
pub struct MarkedProvider<P> {
    inner: Arc<P>,
    allocated: fn() -> usize,
    own: AtomicUsize,
    /// Called before each look into a completion queue.
    before_poll: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl<P: Provider> MarkedProvider<P> {
    /// Wraps a provider; `allocated` gives the number of bytes that the program has allocated.
    pub fn new(inner: Arc<P>, allocated: fn() -> usize) -> Arc<Self> {
        Arc::new(Self { inner, allocated, own: AtomicUsize::new(0), before_poll: Mutex::new(None) })
    }

    /// Calls a function whose instructions and allocations are those of the device.
    #[inline(never)]
    pub fn device_does<T>(&self, what: impl FnOnce() -> T) -> T {
        let before = (self.allocated)();
        let outcome = what();
        let more = (self.allocated)().wrapping_sub(before);
        self.own.fetch_add(more, Ordering::Relaxed);
        outcome
    }

    /// Sets a function that the device calls before it looks into a completion queue, and whose
    /// instructions count as the device's: of a target that nothing else serves.
    pub fn set_before_poll(&self, what: impl FnMut() + Send + 'static) {
        *self.before_poll.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(what));
    }

    /// Number of bytes that are allocated, without those of the device.
    pub fn allocated_by_others(&self) -> usize {
        (self.allocated)().wrapping_sub(self.own.load(Ordering::Relaxed))
    }

    #[inline(never)]
    fn device_posts(&self, batch: Batch<'_, P>) -> Result<(), PostError> {
        self.inner.post(batch)
    }

    #[inline(never)]
    fn device_completes(
        &self,
        queue: &mut P::CompletionQueue,
        request: QueueRequest<'_>,
    ) -> Result<usize, Error> {
        let mut before_poll = self.before_poll.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(what) = before_poll.as_mut() {
            what();
        }
        self.inner.completions(queue, request)
    }
}

impl<P: Provider> Provider for MarkedProvider<P> {
    type Endpoint = P::Endpoint;
    type ProtectionDomain = P::ProtectionDomain;
    type Registration = P::Registration;
    type CompletionQueue = P::CompletionQueue;
    type QueuePair = P::QueuePair;

    fn agent(&self) -> Agent {
        self.inner.agent()
    }

    fn endpoint(&self) -> Result<Self::Endpoint, Error> {
        self.device_does(|| self.inner.endpoint())
    }

    fn request(&self, endpoint: &mut Self::Endpoint, request: CmRequest<'_>) -> Result<(), Error> {
        self.device_does(|| self.inner.request(endpoint, request))
    }

    fn cm_event(
        &self,
        endpoint: &mut Self::Endpoint,
    ) -> Result<Option<CmEvent<Self::Endpoint>>, Error> {
        self.device_does(|| self.inner.cm_event(endpoint))
    }

    fn limits(&self, endpoint: &Self::Endpoint) -> Result<Limits, Error> {
        self.device_does(|| self.inner.limits(endpoint))
    }

    fn domain(&self, endpoint: &Self::Endpoint) -> Result<Self::ProtectionDomain, Error> {
        self.device_does(|| self.inner.domain(endpoint))
    }

    fn device_event(&self, domain: &Self::ProtectionDomain) -> Result<Option<DeviceEvent>, Error> {
        self.device_does(|| self.inner.device_event(domain))
    }

    fn is_port_down(&self, domain: &Self::ProtectionDomain) -> Option<bool> {
        self.inner.is_port_down(domain)
    }

    fn register(
        &self,
        domain: &Self::ProtectionDomain,
        request: RegisterRequest,
    ) -> Result<(Self::Registration, Keys), Error> {
        self.device_does(|| self.inner.register(domain, request))
    }

    fn completion_queue(
        &self,
        endpoint: &Self::Endpoint,
        capacity: u32,
    ) -> Result<(Self::CompletionQueue, CompletionQueueInfo), Error> {
        self.device_does(|| self.inner.completion_queue(endpoint, capacity))
    }

    fn queue_pair(
        &self,
        endpoint: &mut Self::Endpoint,
        request: QueuePairRequest<'_, Self>,
    ) -> Result<(Self::QueuePair, QueuePairInfo), Error> {
        let QueuePairRequest { domain, queue, capabilities } = request;
        let request = QueuePairRequest { domain, queue, capabilities };
        self.device_does(|| self.inner.queue_pair(endpoint, request))
    }

    #[inline]
    fn post(&self, batch: Batch<'_, Self>) -> Result<(), PostError> {
        self.device_posts(match batch {
            Batch::Receives { queue_pair, requests } => Batch::Receives { queue_pair, requests },
            Batch::Sends { queue_pair, requests, payloads, windows } => {
                Batch::Sends { queue_pair, requests, payloads, windows }
            }
        })
    }

    #[inline]
    fn completions(
        &self,
        queue: &mut Self::CompletionQueue,
        request: QueueRequest<'_>,
    ) -> Result<usize, Error> {
        self.device_completes(queue, request)
    }
}
