//! Chains of work requests, as `ibv_post_send` and `ibv_post_recv` take them.
//!
//! # Safety
//!
//! This file exists to link requests by pointers. It promises that each pointer is to the next
//! element of one slice.

#![allow(unsafe_code)]

use std::{io, ptr};

use rdma_core_sys as c;

use crate::provider::{PostError, Sge};

#[inline]
pub(super) fn to_sge(sge: Sge) -> c::ibv_sge {
    c::ibv_sge { addr: sge.address, length: sge.length, lkey: sge.local_key }
}

/// Chains the requests and returns the first.
#[inline]
pub(super) fn link_chain<R>(
    requests: &mut [R],
    mut set_next: impl FnMut(&mut R, *mut R),
) -> *mut R {
    let first = requests.as_mut_ptr();
    let last = requests.len().saturating_sub(1);
    for index in 0..requests.len() {
        let request = first.wrapping_add(index);
        let next = if index < last { request.wrapping_add(1) } else { ptr::null_mut() };
        // SAFETY: the index is within the slice, which is borrowed exclusively; no other
        // reference to an element is alive.
        set_next(unsafe { &mut *request }, next);
    }
    first
}

/// Request of a chain that a provider of rdma-core refused; the length of the chain if it does not
/// say which. Then all may be on its queue: rxe's fails so if its doorbell fails, before which it
/// has queued them. A request that was posted again could be executed when its buffer is another's.
pub(super) fn refused_index<R>(first: *mut R, refused: *mut R, length: usize) -> usize {
    let bytes = refused.addr().wrapping_sub(first.addr());
    Some(bytes / size_of::<R>()).filter(|&index| index < length).unwrap_or(length)
}

pub(super) fn post_error(accepted: usize, errno: libc::c_int, index: usize) -> PostError {
    let source = match errno {
        // Of a plug-in that leaves the number in `errno`, as siw's does.
        -1 => io::Error::last_os_error(),
        errno => io::Error::from_raw_os_error(errno.abs()),
    };
    PostError { accepted: accepted + index, source }
}

/// Error of a chain of one request, which may be on the plug-in's queue if the plug-in named no
/// request as refused, see [`refused_index`]. It takes no address, which a post would have to save
/// for it.
#[cold]
#[inline(never)]
pub(super) fn post_error_of_one(errno: libc::c_int, none_refused: bool) -> PostError {
    post_error(0, errno, usize::from(none_refused))
}

pub(super) const EMPTY_SGE: c::ibv_sge = c::ibv_sge { addr: 0, length: 0, lkey: 0 };

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: c::ibv_recv_wr =
        c::ibv_recv_wr { wr_id: 0, next: ptr::null_mut(), sg_list: ptr::null_mut(), num_sge: 0 };

    #[test]
    fn requests_are_chained_in_order() {
        let mut requests = [EMPTY; 3];
        let first = link_chain(&mut requests, |request, next| request.next = next);
        assert_eq!(requests[0].next, first.wrapping_add(1));
        assert_eq!(requests[1].next, first.wrapping_add(2));
        assert!(requests[2].next.is_null());
    }

    #[test]
    fn the_refused_request_is_found() {
        let mut requests = [EMPTY; 3];
        let first = requests.as_mut_ptr();
        assert_eq!(refused_index(first, first.wrapping_add(2), 3), 2);
        assert_eq!(refused_index(first, ptr::null_mut(), 3), 3);
        assert_eq!(refused_index(first, first.wrapping_add(3), 3), 3);
    }

    #[test]
    fn a_request_alone_is_kept_only_if_it_was_refused() {
        assert_eq!(post_error_of_one(libc::ENOMEM, false).accepted, 0);
        assert_eq!(post_error_of_one(libc::ENOMEM, true).accepted, 1);
    }
}
