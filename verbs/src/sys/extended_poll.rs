//! Polling by the calls of an extended completion queue.
//!
//! # Safety
//!
//! This file exists to poll. It promises that a completion is read between the start and the end
//! of a poll, while its queue is borrowed.

#![allow(unsafe_code)]

use std::{
    io,
    ptr::{self, NonNull},
};

use libc::c_int;
use rdma_core_sys as c;

use super::{completion_channel::CompletionChannel, work_completion::invalidated};
use crate::{
    Error, Status,
    completion::{Invalidated, WorkCompletion},
};

type Reads = unsafe extern "C" fn(*mut c::ibv_cq_ex) -> u32;

/// The calls of a completion queue, which its plug-in may not all have.
pub(super) struct ExtendedPoll {
    queue: NonNull<c::ibv_cq_ex>,
    start: unsafe extern "C" fn(*mut c::ibv_cq_ex, *mut c::ibv_poll_cq_attr) -> c_int,
    end: unsafe extern "C" fn(*mut c::ibv_cq_ex),
    opcode: unsafe extern "C" fn(*mut c::ibv_cq_ex) -> c::ibv_wc_opcode,
    vendor_error: Reads,
    length: Reads,
    immediate: Reads,
    queue_pair: Reads,
    flags: Reads,
}

// SAFETY: a queue is tied to no thread.
unsafe impl Send for ExtendedPoll {}
// SAFETY: through a shared value nothing outside of this file can be called.
unsafe impl Sync for ExtendedPoll {}

/// Makes an extended completion queue, if the device can.
pub(super) fn create(
    channel: &CompletionChannel,
    capacity: u32,
    vector: c_int,
) -> Option<NonNull<c::ibv_cq>> {
    let mut attributes = c::ibv_cq_init_attr_ex {
        cqe: capacity,
        cq_context: ptr::null_mut(),
        channel: channel.pointer(),
        comp_vector: vector.cast_unsigned(),
        wc_flags: u64::from(
            c::IBV_WC_EX_WITH_BYTE_LEN | c::IBV_WC_EX_WITH_IMM | c::IBV_WC_EX_WITH_QP_NUM,
        ),
        comp_mask: 0,
        flags: 0,
        parent_domain: ptr::null_mut(),
    };
    // SAFETY: the channel holds the context open, and becomes part of the queue's owner.
    let raw = unsafe { c::ibv_create_cq_ex(channel.context(), &raw mut attributes) };
    NonNull::new(raw.cast()) // it begins as the other kind does
}

impl ExtendedPoll {
    /// `None` when the plug-in lacks a call.
    ///
    /// # Safety
    ///
    /// The queue comes from [`create`], and outlives the result.
    pub(super) unsafe fn of(queue: NonNull<c::ibv_cq>) -> Option<Self> {
        let queue = queue.cast::<c::ibv_cq_ex>();
        // SAFETY: the caller's queue is live, and an extended one.
        let calls = unsafe { queue.as_ref() };
        Some(Self {
            queue,
            start: calls.start_poll?,
            end: calls.end_poll?,
            opcode: calls.read_opcode?,
            vendor_error: calls.read_vendor_err?,
            length: calls.read_byte_len?,
            immediate: calls.read_imm_data?,
            queue_pair: calls.read_qp_num?,
            flags: calls.read_wc_flags?,
        })
    }

    /// One completion a start: before rdma-core 61, rxe ends a poll by itself once there is no
    /// next completion, and takes the end that must follow for another completion's.
    #[inline(never)]
    pub(super) fn poll(&mut self, out: &mut [WorkCompletion]) -> Result<usize, Error> {
        let queue = self.queue.as_ptr();
        let mut attributes = c::ibv_poll_cq_attr { comp_mask: 0 };
        for (count, place) in out.iter_mut().enumerate() {
            // SAFETY: the queue is live, and no poll is begun.
            match unsafe { (self.start)(queue, &raw mut attributes) } {
                0 => {}
                libc::ENOENT => return Ok(count), // and no poll is begun
                errno => return Err(Error::Poll(io::Error::from_raw_os_error(errno.abs()))),
            }
            *place = self.read();
            // SAFETY: a poll is begun, and ends here.
            unsafe { (self.end)(queue) };
        }
        Ok(out.len())
    }

    /// The completion that the poll is at.
    #[inline]
    fn read(&mut self) -> WorkCompletion {
        let queue = self.queue.as_ptr();
        // SAFETY: the queue is live, and borrowed.
        let fields = unsafe { self.queue.as_ref() };
        let (token, status) = (fields.wr_id, fields.status);
        // SAFETY: a poll is begun, and has found a completion.
        let queue_pair = unsafe { (self.queue_pair)(queue) };
        let found = WorkCompletion::new(token, Status(status.0), queue_pair, 0);
        if status != c::IBV_WC_SUCCESS {
            // SAFETY: a poll is begun, and has found a completion.
            return found.with_vendor_error(unsafe { (self.vendor_error)(queue) });
        }
        // SAFETY: a poll is begun, and has found a completion.
        if unsafe { (self.opcode)(queue) } != c::IBV_WC_RECV {
            return found;
        }
        // SAFETY: a poll is begun, and has found a completion.
        let length = unsafe { (self.length)(queue) };
        // SAFETY: a poll is begun, and has found a completion.
        let flags = unsafe { (self.flags)(queue) };
        let invalidated = match invalidated(flags, 0) {
            Invalidated::No => Invalidated::No,
            // SAFETY: a poll is begun, and has found a completion that names a key.
            _ => invalidated(flags, unsafe { (self.immediate)(queue) }),
        };
        WorkCompletion { length, invalidated, ..found }
    }
}
