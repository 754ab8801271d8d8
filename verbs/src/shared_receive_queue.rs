//! Receives for whichever of several queue pairs needs them first.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::AtomicU32},
};

use crate::{
    Buffer, CompletedWork, Completion, CompletionQueue, Error, FlushedWork, PostBufferError,
    ProtectionDomain, Provider, RdmaCore, StaleCompletion, WorkKind,
    completion::Reservation,
    provider::{Batch, ReceiveRequest},
    queue_pair::next_generation,
    request_queue::RequestQueue,
    sge::receivable,
    slot::ReceiveTable,
    token::{Kind, SLOTS_MAX, Token},
};

/// A queue of receives that several queue pairs of one domain share, so that memory for messages
/// is needed for those that come, instead of for those that may come to each.
///
/// Queue pairs [made with it](crate::Endpoint::queue_pair_sharing) have no receives of their own.
/// Completions arrive where the queue pair's do;
/// [`QueuePair::complete_shared`](crate::QueuePair::complete_shared) gives the buffer back. A queue
/// pair that fails leaves the receives to the others: they are not flushed.
pub struct SharedReceiveQueue<P: Provider = RdmaCore> {
    // Fields drop in order: the device's queue before the buffers in it.
    raw: P::SharedReceiveQueue,
    provider: Arc<P>,
    receives: ReceiveTable<(Buffer, u64)>,
    pending: RequestQueue<ReceiveRequest>,
    capacity: u32,
    number: u32,
    domain: ProtectionDomain<P>,
    /// Room in the completion queues of the queue pairs that share.
    reservations: Mutex<Vec<Weak<SharedReservation>>>,
    users: Arc<()>,
}

/// A queue pair's part in a shared receive queue.
#[derive(Debug)]
pub(crate) struct Share {
    _reservation: Arc<SharedReservation>,
    _user: Arc<()>,
}

#[derive(Debug)]
struct SharedReservation {
    queue: Arc<AtomicU32>,
    _reservation: Reservation,
}

impl<P: Provider> SharedReceiveQueue<P> {
    pub(crate) fn new(
        domain: ProtectionDomain<P>,
        provider: Arc<P>,
        capacity: u32,
    ) -> Result<Self, Error> {
        if capacity == 0 || capacity > SLOTS_MAX {
            return Err(Error::Misuse("a shared receive queue has 1 to 2^24 receives"));
        }
        let (raw, number) = provider.shared_receive_queue(domain.raw(), capacity)?;
        Ok(Self {
            raw,
            number,
            provider,
            receives: ReceiveTable::new(capacity, next_generation()),
            pending: RequestQueue::new(capacity, ReceiveRequest::default()),
            capacity,
            domain,
            reservations: Mutex::default(),
            users: Arc::default(),
        })
    }

    /// Queues a receive; its completion gives the buffer back with the `tag`.
    ///
    /// # Errors
    ///
    /// As [`QueuePair::post_receive`](crate::QueuePair::post_receive).
    pub fn post_receive(&mut self, buffer: Buffer, tag: u64) -> Result<(), PostBufferError> {
        let sge = match receivable(self.domain.identity(), &buffer) {
            Ok(sge) => sge,
            Err(error) => return Err(PostBufferError { error, buffer }),
        };
        match self.receives.take((buffer, tag)) {
            Ok(token) => {
                self.pending.push(ReceiveRequest { token, sge });
                Ok(())
            }
            Err((buffer, _)) => Err(PostBufferError { error: Error::QueueFull, buffer }),
        }
    }

    /// Hands the queued receives to the device as one batch.
    ///
    /// # Errors
    ///
    /// [`Error::PostReceive`]; the receives not taken stay queued.
    pub fn flush(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let (queue, requests) = (&mut self.raw, self.pending.as_slice());
        let result = self.provider.post(Batch::SharedReceives { queue, requests });
        self.pending.settle(result).map_err(Error::PostReceive)
    }

    /// As [`QueuePair::complete_shared`](crate::QueuePair::complete_shared), for a queue pair that
    /// is closed already.
    ///
    /// # Errors
    ///
    /// [`StaleCompletion`]: it is of no outstanding receive of this queue.
    pub fn complete(&mut self, completion: &Completion) -> Result<CompletedWork, StaleCompletion> {
        let token = Token::unpack(completion.token)
            .filter(|token| token.kind == Kind::Receive)
            .ok_or(StaleCompletion)?;
        let held = self.receives.complete(token.slot, token.generation);
        let (buffer, tag) = held.ok_or(StaleCompletion)?;
        let length = if completion.status.is_success() { completion.length } else { 0 };
        Ok(CompletedWork::Receive { tag, buffer, length })
    }

    /// Destroys the queue, and then returns everything that was still in it.
    ///
    /// # Errors
    ///
    /// Hands the queue back while a queue pair takes receives from it, into whose buffers the
    /// device may still write.
    #[expect(clippy::result_large_err, reason = "the queue is handed back as it was")]
    pub fn close(self) -> Result<Vec<FlushedWork>, Self> {
        if Arc::strong_count(&self.users) > 1 {
            return Err(self);
        }
        let Self { raw, mut receives, .. } = self;
        drop(raw); // the device lets go of the buffers before anybody else gets them
        let returned = receives.drain().map(|(buffer, tag)| FlushedWork {
            tag,
            kind: WorkKind::Receive,
            buffers: buffer.into(),
        });
        Ok(returned.collect())
    }

    /// The queue's number, by which [`DeviceEvent`](crate::DeviceEvent)s name it: see
    /// [`EventSubject::SharedReceiveQueue`](crate::EventSubject::SharedReceiveQueue).
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How many receives can be queued now.
    pub fn receive_credits(&self) -> u32 {
        self.receives.credits()
    }

    pub(crate) fn raw(&self) -> &P::SharedReceiveQueue {
        &self.raw
    }

    pub(crate) fn domain(&self) -> &ProtectionDomain<P> {
        &self.domain
    }

    /// Makes a share; all that complete on one queue reserve room for the receives there once.
    pub(crate) fn share(&self, queue: &CompletionQueue<P>) -> Result<Share, Error> {
        let mut known = self.reservations.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|reservation| reservation.strong_count() > 0);
        let there = known
            .iter()
            .filter_map(Weak::upgrade)
            .find(|reservation| Arc::ptr_eq(&reservation.queue, queue.reserved()));
        let _reservation = match there {
            Some(reservation) => reservation,
            None => {
                let reservation = Arc::new(SharedReservation {
                    queue: queue.reserved().clone(),
                    _reservation: queue.reserve(self.capacity)?,
                });
                known.push(Arc::downgrade(&reservation));
                reservation
            }
        };
        Ok(Share { _reservation, _user: self.users.clone() })
    }
}

impl<P: Provider> fmt::Debug for SharedReceiveQueue<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReceiveQueue")
            .field("capacity", &self.capacity)
            .field("receive_credits", &self.receives.credits())
            .finish_non_exhaustive()
    }
}
