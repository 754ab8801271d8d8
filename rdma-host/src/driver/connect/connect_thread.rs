//! The connection request on a thread of its own, for devices where the call blocks.
//!
//! On iWARP Linux makes the TCP connection within the call: it returns when the peer answers, or
//! after some two minutes, and nothing cancels it. The thread owns the endpoint and its queue pair
//! meanwhile. A caller that does not wait any longer leaves them to the thread, which drops them
//! when the call returns.

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use verbs::{ConnectParameters, Endpoint, PreparedQueuePair, Provider};

use crate::{
    config::CONNECT_THREADS_MAX,
    driver::{buffers::verbs_error, runtime},
    error::Error,
    wire::{CmRequestData, IntoBytes},
};

/// The content of a connection request.
#[derive(Clone, Copy)]
pub(crate) struct ConnectRequest {
    pub(crate) private_data: CmRequestData,
    pub(crate) responder_resources: u8,
    pub(crate) retry_count: u8,
    pub(crate) rnr_retry_count: u8,
}

impl ConnectRequest {
    /// Sends it; blocks on iWARP.
    pub(crate) fn send<P: Provider>(self, endpoint: &mut Endpoint<P>) -> Result<(), verbs::Error> {
        endpoint.connect(&ConnectParameters {
            private_data: self.private_data.as_bytes(),
            responder_resources: self.responder_resources,
            // The target reads our memory with RDMA READ; we never read its.
            initiator_depth: 0,
            retry_count: self.retry_count,
            rnr_retry_count: self.rnr_retry_count,
        })
    }
}

/// The parts of a connection that the call uses: neither may be dropped before it returns.
pub(crate) struct Parts<P: Provider> {
    /// Before the endpoint, so that it is destroyed first.
    pub(crate) queue_pair: PreparedQueuePair<P>,
    pub(crate) endpoint: Endpoint<P>,
}

/// The parts, and the outcome of the call.
pub(crate) type Returned<P> = (Parts<P>, Result<(), verbs::Error>);

/// Waits for a free thread: [`CONNECT_THREADS_MAX`] calls may block at the same time.
pub(crate) async fn permit() -> SemaphorePermit<'static> {
    static THREADS: Semaphore = Semaphore::const_new(CONNECT_THREADS_MAX);
    THREADS.acquire().await.expect("the semaphore is never closed")
}

/// Starts the call; the receiver gets the outcome. Dropping the receiver abandons the call.
pub(crate) fn start<P: Provider>(
    permit: SemaphorePermit<'static>,
    request: ConnectRequest,
    mut parts: Parts<P>,
) -> Result<oneshot::Receiver<Returned<P>>, Error> {
    let (sender, returned) = oneshot::channel();
    let call = move || {
        let outcome = request.send(&mut parts.endpoint);
        if sender.send((parts, outcome)).is_err() {
            tracing::debug!("a connection request that was abandoned has returned");
        }
        drop(permit);
    };
    runtime::start_thread("rdma_connect", call).map_err(verbs_error)?;
    Ok(returned)
}
