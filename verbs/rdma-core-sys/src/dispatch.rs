//! Inline functions of `<infiniband/verbs.h>`. The libraries export no symbol for most of
//! these, so they are written here: one load and one indirect call, as in C.

use std::ptr;

use libc::{c_int, c_uint, c_void, size_t};

use crate::ibverbs::{
    IBV_ACCESS_OPTIONAL_RANGE, ibv_context, ibv_cq, ibv_mr, ibv_mw, ibv_mw_type, ibv_pd,
    ibv_port_attr, ibv_qp, ibv_recv_wr, ibv_reg_mr_iova2, ibv_send_wr, ibv_wc,
};

#[link(name = "ibverbs")]
unsafe extern "C" {
    #[link_name = "ibv_reg_mr"]
    fn ibv_reg_mr_symbol(
        pd: *mut ibv_pd,
        addr: *mut c_void,
        length: size_t,
        access: c_int,
    ) -> *mut ibv_mr;
    #[link_name = "ibv_query_port"]
    fn ibv_query_port_symbol(
        context: *mut ibv_context,
        port_num: u8,
        attr: *mut ibv_port_attr,
    ) -> c_int;
}

/// Posts a chain of send work requests; returns an errno, and then the first request that was
/// not taken in `bad_wr`.
///
/// # Safety
///
/// `qp` is a live queue pair. Every request of the chain, its segments and, when it is inline,
/// its data are readable during the call.
#[inline(always)]
pub unsafe fn ibv_post_send(
    qp: *mut ibv_qp,
    wr: *mut ibv_send_wr,
    bad_wr: *mut *mut ibv_send_wr,
) -> c_int {
    // SAFETY: the caller passes a live queue pair, whose context lives as long as it does.
    match unsafe { (*(*qp).context).ops.post_send } {
        // SAFETY: the plug-in filled its table with this signature; arguments by the caller.
        Some(call) => unsafe { call(qp, wr, bad_wr) },
        None => libc::EOPNOTSUPP,
    }
}

/// Posts a chain of receive work requests; returns an errno, and then the first request that
/// was not taken in `bad_wr`.
///
/// # Safety
///
/// `qp` is a live queue pair. Every request of the chain and its segments are readable during
/// the call.
#[inline(always)]
pub unsafe fn ibv_post_recv(
    qp: *mut ibv_qp,
    wr: *mut ibv_recv_wr,
    bad_wr: *mut *mut ibv_recv_wr,
) -> c_int {
    // SAFETY: the caller passes a live queue pair, whose context lives as long as it does.
    match unsafe { (*(*qp).context).ops.post_recv } {
        // SAFETY: the plug-in filled its table with this signature; arguments by the caller.
        Some(call) => unsafe { call(qp, wr, bad_wr) },
        None => libc::EOPNOTSUPP,
    }
}

/// Allocates a memory window; null, and `errno` set, when there is none to be had.
///
/// # Safety
///
/// `pd` is a live protection domain.
#[inline]
pub unsafe fn ibv_alloc_mw(pd: *mut ibv_pd, kind: ibv_mw_type) -> *mut ibv_mw {
    // SAFETY: the caller passes a live domain, whose context lives as long as it does.
    match unsafe { (*(*pd).context).ops.alloc_mw } {
        // SAFETY: the plug-in filled its table with this signature; arguments by the caller.
        Some(call) => unsafe { call(pd, kind) },
        None => {
            // SAFETY: the location of this thread's `errno` is always writable.
            unsafe { *libc::__errno_location() = libc::EOPNOTSUPP };
            ptr::null_mut()
        }
    }
}

/// Frees a memory window; returns an errno.
///
/// # Safety
///
/// `mw` is a live memory window, not used after this call.
#[inline]
pub unsafe fn ibv_dealloc_mw(mw: *mut ibv_mw) -> c_int {
    // SAFETY: the caller passes a live window, whose context lives as long as it does.
    match unsafe { (*(*mw).context).ops.dealloc_mw } {
        // SAFETY: the plug-in filled its table with this signature; arguments by the caller.
        Some(call) => unsafe { call(mw) },
        None => libc::EOPNOTSUPP,
    }
}

/// Takes up to `num_entries` completions; returns how many, or a negative number.
///
/// # Safety
///
/// `cq` is a live completion queue, and `wc` has room for `num_entries`.
#[inline(always)]
pub unsafe fn ibv_poll_cq(cq: *mut ibv_cq, num_entries: c_int, wc: *mut ibv_wc) -> c_int {
    // SAFETY: the caller passes a live queue, whose context lives as long as it does.
    match unsafe { (*(*cq).context).ops.poll_cq } {
        // SAFETY: the plug-in filled its table with this signature; arguments by the caller.
        Some(call) => unsafe { call(cq, num_entries, wc) },
        None => -libc::EOPNOTSUPP,
    }
}

/// Asks for one event on the queue's channel at the next completion; returns an errno.
///
/// # Safety
///
/// `cq` is a live completion queue.
#[inline(always)]
pub unsafe fn ibv_req_notify_cq(cq: *mut ibv_cq, solicited_only: c_int) -> c_int {
    // SAFETY: the caller passes a live queue, whose context lives as long as it does.
    match unsafe { (*(*cq).context).ops.req_notify_cq } {
        // SAFETY: the plug-in filled its table with this signature; arguments by the caller.
        Some(call) => unsafe { call(cq, solicited_only) },
        None => libc::EOPNOTSUPP,
    }
}

/// Registers memory. As in C, the older symbol serves unless a flag needs the newer one.
///
/// # Safety
///
/// `pd` is a live protection domain, and the memory stays mapped until the region is
/// deregistered.
#[inline]
pub unsafe fn ibv_reg_mr(
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: size_t,
    access: c_uint,
) -> *mut ibv_mr {
    if access & IBV_ACCESS_OPTIONAL_RANGE == 0 {
        // SAFETY: the requirements of the symbol are those of this function.
        unsafe { ibv_reg_mr_symbol(pd, addr, length, access.cast_signed()) }
    } else {
        // SAFETY: the requirements of the symbol are those of this function.
        unsafe { ibv_reg_mr_iova2(pd, addr, length, addr as u64, access) }
    }
}

/// Reads a port's attributes; returns an errno.
///
/// The exported symbol knows the structure as it was before `port_cap_flags2`, so that field
/// stays 0. The header prefers an extended table entry; we read nothing that only it fills.
///
/// # Safety
///
/// `context` is an open device, and `attr` is writable.
#[inline]
pub unsafe fn ibv_query_port(
    context: *mut ibv_context,
    port_num: u8,
    attr: *mut ibv_port_attr,
) -> c_int {
    // SAFETY: the caller passes a writable structure.
    unsafe { attr.write(ibv_port_attr::default()) };
    // SAFETY: the symbol writes a prefix of the structure that was just initialised.
    unsafe { ibv_query_port_symbol(context, port_num, attr) }
}
