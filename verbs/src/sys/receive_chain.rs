//! Chains of receives.

use std::{cell::RefCell, ptr};

use rdma_core_sys as c;

use super::chain::{EMPTY_SGE, link_chain, post_error, refused_index, to_sge};
use crate::provider::{PostError, ReceiveRequest};

/// Memory for a chain of receives with one element each, written by each post.
struct ReceiveChain {
    requests: [c::ibv_recv_wr; CHAIN_MAX],
    sges: [c::ibv_sge; CHAIN_MAX],
}

/// Receives in one chain at most.
const CHAIN_MAX: usize = 64;

thread_local! {
    /// Chain of the thread; it is needed only during a post.
    static ROWS: RefCell<ReceiveChain> = const {
        RefCell::new(ReceiveChain {
            requests: [EMPTY_RECEIVE; CHAIN_MAX],
            sges: [EMPTY_SGE; CHAIN_MAX],
        })
    };
}

/// Calls `post` with chains that live during the call. It returns an errno, and where it stopped.
#[inline]
pub(super) fn post(
    requests: &[ReceiveRequest],
    mut post: impl FnMut(*mut c::ibv_recv_wr, *mut *mut c::ibv_recv_wr) -> libc::c_int,
) -> Result<(), PostError> {
    ROWS.with_borrow_mut(|rows| {
        let mut accepted = 0;
        for batch in requests.chunks(rows.requests.len()) {
            rows.fill(batch);
            let first =
                link_chain(&mut rows.requests[..batch.len()], |request, next| request.next = next);
            let mut refused = ptr::null_mut();
            match post(first, &raw mut refused) {
                0 => accepted += batch.len(),
                errno => {
                    return Err(post_error(
                        accepted,
                        errno,
                        refused_index(first, refused, batch.len()),
                    ));
                }
            }
        }
        Ok(())
    })
}

impl ReceiveChain {
    fn fill(&mut self, requests: &[ReceiveRequest]) {
        let rows = self.requests.iter_mut().zip(&mut self.sges);
        for (request, (raw, sge)) in requests.iter().zip(rows) {
            *sge = to_sge(request.sge);
            raw.wr_id = request.token;
            raw.sg_list = sge;
            raw.num_sge = 1;
        }
    }
}

const EMPTY_RECEIVE: c::ibv_recv_wr =
    c::ibv_recv_wr { wr_id: 0, next: ptr::null_mut(), sg_list: ptr::null_mut(), num_sge: 0 };
