//! Chains of receives, as queue pairs and shared receive queues post them.

use std::ptr;

use rdma_core_sys as c;

use super::queue_pair::{filled, index, link, stopped, translate};
use crate::provider::{PostError, ReceiveRequest};

/// Room for a chain of receives with one segment each, written anew by each post.
pub(super) struct ReceiveChain {
    receives: Box<[c::ibv_recv_wr]>,
    scattered: Box<[c::ibv_sge]>,
}

impl ReceiveChain {
    pub(super) fn new(length: u32) -> Self {
        Self {
            receives: filled(length, EMPTY_RECEIVE),
            scattered: filled(length, c::ibv_sge::default()),
        }
    }

    /// Calls `post` with chains that live during the call. It returns an errno, and where it
    /// stopped.
    #[inline]
    pub(super) fn post(
        &mut self,
        requests: &[ReceiveRequest],
        mut post: impl FnMut(*mut c::ibv_recv_wr, *mut *mut c::ibv_recv_wr) -> libc::c_int,
    ) -> Result<(), PostError> {
        let mut accepted = 0;
        for batch in requests.chunks(self.receives.len().max(1)) {
            self.fill(batch);
            let first =
                link(&mut self.receives[..batch.len()], |request, next| request.next = next);
            let mut refused = ptr::null_mut();
            match post(first, &raw mut refused) {
                0 => accepted += batch.len(),
                errno => return Err(stopped(accepted, errno, index(first, refused, batch.len()))),
            }
        }
        Ok(())
    }

    fn fill(&mut self, requests: &[ReceiveRequest]) {
        let rows = self.receives.iter_mut().zip(&mut self.scattered);
        for (request, (raw, segment)) in requests.iter().zip(rows) {
            *segment = translate(request.segment);
            raw.wr_id = request.token;
            raw.sg_list = segment;
            raw.num_sge = 1;
        }
    }
}

pub(super) const EMPTY_RECEIVE: c::ibv_recv_wr =
    c::ibv_recv_wr { wr_id: 0, next: ptr::null_mut(), sg_list: ptr::null_mut(), num_sge: 0 };
