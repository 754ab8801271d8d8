//! Locks on ranges of blocks.

use std::{ops::Range, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Locks on ranges of blocks, for writes of parts of blocks: such a write reads blocks and writes
/// them back, so that no other write of this process may change them in between.
#[derive(Default)]
pub(crate) struct BlockLocks {
    ranges: Mutex<Ranges>,
    released: Notify,
}

#[derive(Default)]
struct Ranges {
    next: u64,
    /// Ranges that are locked or waited for, by the order of the requests.
    requests: Vec<(u64, Range<u64>)>,
}

/// Lock on a range; dropping it releases the range.
pub(crate) struct BlockLock {
    locks: Arc<BlockLocks>,
    number: u64,
}

impl BlockLocks {
    /// Locks a range of blocks. Waits for each earlier request that overlaps it.
    pub(crate) async fn lock(self: &Arc<Self>, blocks: Range<u64>) -> BlockLock {
        let lock = {
            let mut ranges = self.ranges.lock();
            let number = ranges.next;
            ranges.next += 1;
            ranges.requests.push((number, blocks.clone()));
            BlockLock { locks: Arc::clone(self), number }
        };
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // A release after this is not missed.
            released.as_mut().enable();
            if !self.is_blocked(lock.number, &blocks) {
                return lock;
            }
            released.await;
        }
    }

    fn is_blocked(&self, number: u64, blocks: &Range<u64>) -> bool {
        let ranges = self.ranges.lock();
        let mut earlier = ranges.requests.iter().take_while(|(other, _)| *other < number);
        earlier.any(|(_, other)| other.start < blocks.end && blocks.start < other.end)
    }
}

impl Drop for BlockLock {
    fn drop(&mut self) {
        self.locks.ranges.lock().requests.retain(|(number, _)| *number != self.number);
        self.locks.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
        std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn overlapping_ranges_wait_in_order_and_others_do_not() {
        let locks = Arc::new(BlockLocks::default());
        let lock = |range| Box::pin(async { locks.lock(range).await });
        let (mut first, mut second, mut third) = (lock(0..4), lock(3..8), lock(7..9));
        let Poll::Ready(held) = poll(&mut first) else { panic!("nothing is locked") };
        assert!(poll(&mut second).is_pending());
        // It waits for the second, which is no lock yet: else small writes would starve large ones.
        assert!(poll(&mut third).is_pending());
        assert!(poll(&mut lock(8..9)).is_pending());
        assert!(poll(&mut lock(9..12)).is_ready());
        drop(held);
        assert!(poll(&mut third).is_pending());
        let Poll::Ready(held) = poll(&mut second) else { panic!("it was released") };
        drop(held);
        assert!(poll(&mut third).is_ready());
        drop((first, second, third));
        assert!(locks.ranges.lock().requests.is_empty());
    }

    #[test]
    fn a_request_that_is_dropped_blocks_nothing() {
        let locks = Arc::new(BlockLocks::default());
        let mut first = Box::pin(locks.lock(0..4));
        let Poll::Ready(held) = poll(&mut first) else { panic!("nothing is locked") };
        let mut second = Box::pin(locks.lock(0..4));
        assert!(poll(&mut second).is_pending());
        drop(second);
        drop(held);
        assert!(poll(&mut Box::pin(locks.lock(0..4))).is_ready());
    }
}
