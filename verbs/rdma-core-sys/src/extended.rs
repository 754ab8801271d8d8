//! The extended queue pairs and completion queues of `<infiniband/verbs.h>`: work requests by one
//! call for each part, and completions read field by field.

use std::{mem::size_of, ptr};

use libc::{c_int, c_uint, c_void, pthread_cond_t, pthread_mutex_t, size_t};

use crate::ibverbs::{
    ibv_comp_channel, ibv_context, ibv_cq, ibv_mw, ibv_mw_bind_info, ibv_pd, ibv_qp, ibv_qp_cap,
    ibv_qp_type, ibv_sge, ibv_srq, ibv_wc_opcode, ibv_wc_status,
};

pub const IBV_QP_INIT_ATTR_PD: u32 = 1;
pub const IBV_QP_INIT_ATTR_SEND_OPS_FLAGS: u32 = 1 << 6;

pub const IBV_QP_EX_WITH_RDMA_WRITE: u32 = 1;
pub const IBV_QP_EX_WITH_SEND: u32 = 1 << 2;
pub const IBV_QP_EX_WITH_RDMA_READ: u32 = 1 << 4;
pub const IBV_QP_EX_WITH_LOCAL_INV: u32 = 1 << 7;
pub const IBV_QP_EX_WITH_BIND_MW: u32 = 1 << 8;
pub const IBV_QP_EX_WITH_SEND_WITH_INV: u32 = 1 << 9;

pub const IBV_WC_EX_WITH_BYTE_LEN: u32 = 1;
pub const IBV_WC_EX_WITH_IMM: u32 = 1 << 1;
pub const IBV_WC_EX_WITH_QP_NUM: u32 = 1 << 2;

#[repr(C)]
pub struct ibv_rx_hash_conf {
    pub rx_hash_function: u8,
    pub rx_hash_key_len: u8,
    pub rx_hash_key: *mut u8,
    pub rx_hash_fields_mask: u64,
}

#[repr(C)]
pub struct ibv_qp_init_attr_ex {
    pub qp_context: *mut c_void,
    pub send_cq: *mut ibv_cq,
    pub recv_cq: *mut ibv_cq,
    pub srq: *mut ibv_srq,
    pub cap: ibv_qp_cap,
    pub qp_type: ibv_qp_type,
    pub sq_sig_all: c_int,
    pub comp_mask: u32,
    pub pd: *mut ibv_pd,
    pub xrcd: *mut c_void,
    pub create_flags: u32,
    pub max_tso_header: u16,
    pub rwq_ind_tbl: *mut c_void,
    pub rx_hash_conf: ibv_rx_hash_conf,
    pub source_qpn: u32,
    pub send_ops_flags: u64,
}

type Unused = Option<unsafe extern "C" fn()>;

/// A queue pair with a call for each part of a work request. It begins with the queue pair.
#[repr(C)]
pub struct ibv_qp_ex {
    pub qp_base: ibv_qp,
    pub comp_mask: u64,
    pub wr_id: u64,
    pub wr_flags: c_uint,
    pub wr_atomic_cmp_swp: Unused,
    pub wr_atomic_fetch_add: Unused,
    pub wr_bind_mw:
        Option<unsafe extern "C" fn(*mut ibv_qp_ex, *mut ibv_mw, u32, *const ibv_mw_bind_info)>,
    pub wr_local_inv: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32)>,
    pub wr_rdma_read: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64)>,
    pub wr_rdma_write: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64)>,
    pub wr_rdma_write_imm: Unused,
    pub wr_send: Option<unsafe extern "C" fn(*mut ibv_qp_ex)>,
    pub wr_send_imm: Unused,
    pub wr_send_inv: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32)>,
    pub wr_send_tso: Unused,
    pub wr_set_ud_addr: Unused,
    pub wr_set_xrc_srqn: Unused,
    pub wr_set_inline_data: Option<unsafe extern "C" fn(*mut ibv_qp_ex, *mut c_void, size_t)>,
    pub wr_set_inline_data_list: Unused,
    pub wr_set_sge: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64, u32)>,
    pub wr_set_sge_list: Option<unsafe extern "C" fn(*mut ibv_qp_ex, size_t, *const ibv_sge)>,
    pub wr_start: Option<unsafe extern "C" fn(*mut ibv_qp_ex)>,
    pub wr_complete: Option<unsafe extern "C" fn(*mut ibv_qp_ex) -> c_int>,
    pub wr_abort: Option<unsafe extern "C" fn(*mut ibv_qp_ex)>,
}

#[repr(C)]
pub struct ibv_cq_init_attr_ex {
    pub cqe: u32,
    pub cq_context: *mut c_void,
    pub channel: *mut ibv_comp_channel,
    pub comp_vector: u32,
    pub wc_flags: u64,
    pub comp_mask: u32,
    pub flags: u32,
    pub parent_domain: *mut ibv_pd,
}

#[repr(C)]
pub struct ibv_poll_cq_attr {
    pub comp_mask: u32,
}

/// A completion queue whose completions are read field by field. It begins as [`ibv_cq`] does.
#[repr(C)]
pub struct ibv_cq_ex {
    pub context: *mut ibv_context,
    pub channel: *mut ibv_comp_channel,
    pub cq_context: *mut c_void,
    pub handle: u32,
    pub cqe: c_int,
    pub mutex: pthread_mutex_t,
    pub cond: pthread_cond_t,
    pub comp_events_completed: u32,
    pub async_events_completed: u32,
    pub comp_mask: u32,
    pub status: ibv_wc_status,
    pub wr_id: u64,
    pub start_poll: Option<unsafe extern "C" fn(*mut ibv_cq_ex, *mut ibv_poll_cq_attr) -> c_int>,
    pub next_poll: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> c_int>,
    pub end_poll: Option<unsafe extern "C" fn(*mut ibv_cq_ex)>,
    pub read_opcode: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> ibv_wc_opcode>,
    pub read_vendor_err: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
    pub read_byte_len: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
    pub read_imm_data: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
    pub read_qp_num: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
    pub read_src_qp: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
    pub read_wc_flags: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> c_uint>,
}

#[link(name = "ibverbs")]
unsafe extern "C" {
    pub fn ibv_qp_to_qp_ex(qp: *mut ibv_qp) -> *mut ibv_qp_ex;
}

/// Offset of the entry `create_cq_ex` before a context, in the structure that ends with the context
/// and grows at its beginning.
pub const CREATE_CQ_EX_BEFORE_CONTEXT: usize = 15 * size_of::<usize>();

type CreateCqEx =
    unsafe extern "C" fn(*mut ibv_context, *mut ibv_cq_init_attr_ex) -> *mut ibv_cq_ex;

/// Makes an extended completion queue; null, and `errno` set, when there is none to be had.
///
/// # Safety
///
/// `context` is an open device, and what `attr` names is live and of it.
#[inline]
pub unsafe fn ibv_create_cq_ex(
    context: *mut ibv_context,
    attr: *mut ibv_cq_init_attr_ex,
) -> *mut ibv_cq_ex {
    // SAFETY: the caller passes an open context.
    match unsafe { create_cq_ex(context) } {
        // SAFETY: the library filled its table with this signature; arguments by the caller.
        Some(call) => unsafe { call(context, attr) },
        None => {
            // SAFETY: the location of this thread's `errno` is always writable.
            unsafe { *libc::__errno_location() = libc::EOPNOTSUPP };
            ptr::null_mut()
        }
    }
}

/// # Safety
///
/// `context` is an open device.
unsafe fn create_cq_ex(context: *mut ibv_context) -> Option<CreateCqEx> {
    // SAFETY: the caller passes an open context.
    let marked = unsafe { (*context).abi_compat }.addr() == EXTENDED;
    if !marked {
        return None;
    }
    let before = |bytes: usize| context.cast::<u8>().wrapping_sub(bytes);
    // SAFETY: a marked context is the end of a larger structure, whose size stands before it.
    let size = unsafe { before(size_of::<usize>()).cast::<usize>().read() };
    if size < CREATE_CQ_EX_BEFORE_CONTEXT + size_of::<ibv_context>() {
        return None;
    }
    // SAFETY: the structure reaches to this entry, which is null or a call.
    unsafe { before(CREATE_CQ_EX_BEFORE_CONTEXT).cast::<Option<CreateCqEx>>().read() }
}

/// `__VERBS_ABI_IS_EXTENDED`.
const EXTENDED: usize = usize::MAX;
