//! Work completions, from C's form.
//!
//! # Safety
//!
//! This file exists to fill completions in place. It promises that a [`Completion`] is a
//! [`WorkCompletion`] and nothing else.

#![allow(unsafe_code)]

use rdma_core_sys as c;

use crate::{
    Completion, RemoteKey, Status,
    completion::{Invalidated, WorkCompletion},
};

/// Completions of a queue's owner, for the provider to write.
#[inline]
pub(crate) fn as_work_completions(completions: &mut [Completion]) -> &mut [WorkCompletion] {
    // SAFETY: the one type is a transparent wrapper of the other, so slices have the same layout,
    // and any value of the other is one of it; the borrow goes on in the result.
    unsafe { &mut *(std::ptr::from_mut(completions) as *mut [WorkCompletion]) }
}

#[inline]
pub(super) fn translate(raw: &c::ibv_wc) -> WorkCompletion {
    let succeeded = raw.status == c::IBV_WC_SUCCESS && raw.opcode == c::IBV_WC_RECV;
    let key = raw.imm_data_or_invalidated_rkey;
    WorkCompletion {
        token: raw.wr_id,
        status: Status(raw.status.0),
        queue_pair: raw.qp_num,
        length: raw.byte_len,
        invalidated: if succeeded { invalidated(raw.wc_flags, key) } else { Invalidated::No },
        vendor_error: raw.vendor_err,
    }
}

/// Devices set bit 3. rxe sets bit 2, which elsewhere says that a checksum was right; so there
/// the key must be one that the queue pair has bound, which the queue pair finds out.
#[inline]
pub(super) fn invalidated(flags: u32, key: u32) -> Invalidated {
    let key = RemoteKey(key);
    if flags & c::IBV_WC_WITH_INV != 0 {
        Invalidated::Certainly(key)
    } else if flags & c::IBV_WC_IP_CSUM_OK != 0 {
        Invalidated::Perhaps(key)
    } else {
        Invalidated::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(wc_flags: u32, key: u32) -> c::ibv_wc {
        c::ibv_wc {
            wr_id: 1,
            status: c::IBV_WC_SUCCESS,
            opcode: c::IBV_WC_RECV,
            vendor_err: 0,
            byte_len: 16,
            imm_data_or_invalidated_rkey: key,
            qp_num: 17,
            src_qp: 18,
            wc_flags,
            pkey_index: 0,
            slid: 0,
            sl: 0,
            dlid_path_bits: 0,
        }
    }

    #[test]
    fn an_invalidated_key_is_reported_in_both_dialects() {
        let key = RemoteKey(0x2e3);
        assert_eq!(translate(&received(8, 0x2e3)).invalidated(), Some(key));
        assert_eq!(translate(&received(4, 0x2e3)).invalidated, Invalidated::Perhaps(key));
        assert_eq!(translate(&received(4, 0x2e3)).invalidated(), None);
        assert_eq!(translate(&received(0, 0x2e3)).invalidated, Invalidated::No);
        let failed = c::ibv_wc { status: c::IBV_WC_WR_FLUSH_ERR, ..received(8, 0x2e3) };
        assert_eq!(translate(&failed).invalidated, Invalidated::No);
    }

    #[test]
    fn numbers_come_through() {
        let raw = c::ibv_wc { status: c::ibv_wc_status(99), vendor_err: 5, ..received(0, 0) };
        let completion = translate(&raw);
        assert_eq!(completion.status(), Status(99));
        assert_eq!(completion.vendor_error(), 5);
        assert_eq!((completion.queue_pair(), completion.length()), (17, 16));
    }
}
