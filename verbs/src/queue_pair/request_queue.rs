//! Queue of requests that wait for a doorbell.

use crate::provider::PostError;

/// Requests in order, in memory that is allocated once.
#[derive(Debug)]
pub(super) struct RequestQueue<R> {
    /// Requests; those from `count` on are left over.
    rows: Box<[R]>,
    count: usize,
}

/// Room for one request.
pub(super) struct VacantEntry<'a, R> {
    row: &'a mut R,
    count: &'a mut usize,
}

impl<R> VacantEntry<'_, R> {
    /// Number of requests before it.
    #[inline]
    pub(super) fn index(&self) -> usize {
        *self.count
    }

    #[inline]
    pub(super) fn fill(self, request: R) {
        *self.row = request;
        *self.count += 1;
    }
}

impl<R: Copy> RequestQueue<R> {
    /// Allocates room for this number of requests.
    pub(super) fn new(rows: u32, empty: R) -> Self {
        Self { rows: vec![empty; rows as usize].into_boxed_slice(), count: 0 }
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.count >= self.rows.len()
    }

    /// Returns true if this number of requests fits behind the others.
    #[inline]
    pub(super) fn has_room(&self, more: u32) -> bool {
        self.rows.len() - self.count >= more as usize
    }

    /// The row of the request that is added next.
    #[inline]
    pub(super) fn next(&self) -> usize {
        self.count
    }

    /// Adds a request, for which there is room.
    #[inline]
    pub(super) fn push(&mut self, request: R) {
        self.rows[self.count] = request;
        self.count += 1;
    }

    /// The place of the request that is added next, if there is room.
    #[inline]
    pub(super) fn vacant_entry(&mut self) -> Option<VacantEntry<'_, R>> {
        let row = self.rows.get_mut(self.count)?;
        Some(VacantEntry { row, count: &mut self.count })
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[inline]
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.count).unwrap_or(u32::MAX)
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[R] {
        &self.rows[..self.count]
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [R] {
        &mut self.rows[..self.count]
    }

    /// Removes all requests.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// Removes the accepted requests: all of them on success.
    #[inline]
    pub(super) fn settle(&mut self, result: Result<(), PostError>) -> Result<(), std::io::Error> {
        match result {
            Ok(()) => {
                self.count = 0;
                Ok(())
            }
            Err(PostError { accepted, source }) => {
                debug_assert!(self.count <= self.rows.len(), "queued requests have rows");
                let accepted = accepted.min(self.count);
                self.rows.copy_within(accepted..self.count, 0);
                self.count -= accepted;
                Err(source)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::OutOfMemory;

    use super::*;

    #[test]
    fn what_is_not_taken_moves_to_the_front() {
        let mut pending = RequestQueue::new(4, 0);
        (1..=4).for_each(|request| pending.push(request));
        let refused = |accepted| Err(PostError { accepted, source: OutOfMemory.into() });
        pending.settle(refused(1)).expect_err("three are left");
        assert_eq!(pending.as_slice(), [2, 3, 4]);
        pending.push(5);
        pending.settle(refused(9)).expect_err("it says so, though nothing is left");
        assert!(pending.is_empty());
        pending.push(6);
        pending.settle(Ok(())).expect("it was taken");
        assert_eq!(pending.as_slice(), [0; 0]);
    }
}
