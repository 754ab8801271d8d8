//! Posting by the calls of an extended queue pair.
//!
//! # Safety
//!
//! This file exists to post. It promises that each chain of calls is begun and ended while the
//! queue pair is borrowed, and that what the calls point to lives until the chain has ended:
//! the caller's inline bytes, and windows and memory regions of the caller's table.

#![allow(unsafe_code)]

use std::{io, ptr::NonNull};

use libc::{c_int, c_void, size_t};
use rdma_core_sys as c;

use super::{chain::post_error, domain::to_bind};
use crate::provider::{Operation, Payload, Payloads, PostError, SendRequest, WindowTable};

/// The calls of a queue pair, which its plug-in may not all have.
pub(super) struct ExtendedSends {
    pair: NonNull<c::ibv_qp_ex>,
    start: unsafe extern "C" fn(*mut c::ibv_qp_ex),
    complete: unsafe extern "C" fn(*mut c::ibv_qp_ex) -> c_int,
    abort: unsafe extern "C" fn(*mut c::ibv_qp_ex),
    bind: unsafe extern "C" fn(*mut c::ibv_qp_ex, *mut c::ibv_mw, u32, *const c::ibv_mw_bind_info),
    invalidate: unsafe extern "C" fn(*mut c::ibv_qp_ex, u32),
    read: unsafe extern "C" fn(*mut c::ibv_qp_ex, u32, u64),
    write: unsafe extern "C" fn(*mut c::ibv_qp_ex, u32, u64),
    send: unsafe extern "C" fn(*mut c::ibv_qp_ex),
    send_with_invalidate: unsafe extern "C" fn(*mut c::ibv_qp_ex, u32),
    inline: unsafe extern "C" fn(*mut c::ibv_qp_ex, *mut c_void, size_t),
    sge: unsafe extern "C" fn(*mut c::ibv_qp_ex, u32, u64, u32),
}

impl ExtendedSends {
    /// `None` when the plug-in lacks a call.
    ///
    /// # Safety
    ///
    /// The queue pair was made with [`OPERATIONS`], and outlives the result.
    pub(super) unsafe fn of(pair: NonNull<c::ibv_qp>) -> Option<Self> {
        // SAFETY: the caller's queue pair is live.
        let pair = NonNull::new(unsafe { c::ibv_qp_to_qp_ex(pair.as_ptr()) })?;
        // SAFETY: the library says that this queue pair is an extended one.
        let calls = unsafe { pair.as_ref() };
        Some(Self {
            pair,
            start: calls.wr_start?,
            complete: calls.wr_complete?,
            abort: calls.wr_abort?,
            bind: calls.wr_bind_mw?,
            invalidate: calls.wr_local_inv?,
            read: calls.wr_rdma_read?,
            write: calls.wr_rdma_write?,
            send: calls.wr_send?,
            send_with_invalidate: calls.wr_send_inv?,
            inline: calls.wr_set_inline_data?,
            sge: calls.wr_set_sge?,
        })
    }

    /// Posts all of a batch, or nothing.
    #[inline(never)]
    pub(super) fn post(
        &mut self,
        batch: &[SendRequest],
        payloads: &Payloads,
        windows: &mut WindowTable,
    ) -> Result<(), PostError> {
        let pair = self.pair.as_ptr();
        // SAFETY: the queue pair is live, and no chain is begun.
        unsafe { (self.start)(pair) };
        for request in batch {
            let bind = match &request.operation {
                Operation::BindWindow(bind) => {
                    let found = windows.registrations(bind).and_then(|made| to_bind(made, bind));
                    let Some(found) = found else { return Err(self.give_up()) };
                    Some(found)
                }
                _ => None,
            };
            if self.add(request, payloads, bind).is_none() {
                return Err(self.give_up());
            }
        }
        // SAFETY: the chain that was begun above ends here.
        match unsafe { (self.complete)(pair) } {
            0 => Ok(()),
            errno => Err(post_error(0, errno, 0)),
        }
    }

    /// Adds a request to the chain; `None` when its payload is none.
    #[inline]
    fn add(
        &mut self,
        request: &SendRequest,
        payloads: &Payloads,
        bind: Option<c::ibv_send_wr_bind_mw>,
    ) -> Option<()> {
        // SAFETY: the queue pair is live, and borrowed exclusively.
        let fields = unsafe { self.pair.as_mut() };
        fields.wr_id = request.token;
        let signaled = if request.signaled { c::IBV_SEND_SIGNALED } else { 0 };
        // Inline bytes have a call of their own, but rxe tells them by the flag alone.
        let inline = match request.payload {
            Payload::Inline { .. } => c::IBV_SEND_INLINE,
            _ => 0,
        };
        fields.wr_flags = signaled | inline;
        let pair = self.pair.as_ptr();
        match request.operation {
            Operation::BindWindow(_) => {
                let bind = bind?;
                // SAFETY: the chain is begun; the caller keeps what the bind points to.
                unsafe { (self.bind)(pair, bind.mw, bind.rkey, &raw const bind.bind_info) };
            }
            // SAFETY: the queue pair is live, and its chain is begun.
            Operation::LocalInvalidate(key) => unsafe { (self.invalidate)(pair, key.0) },
            // SAFETY: the queue pair is live, and its chain is begun.
            Operation::RdmaRead(at) => unsafe { (self.read)(pair, at.key.0, at.address) },
            // SAFETY: the queue pair is live, and its chain is begun.
            Operation::RdmaWrite(at) => unsafe { (self.write)(pair, at.key.0, at.address) },
            // SAFETY: the queue pair is live, and its chain is begun.
            Operation::Send => unsafe { (self.send)(pair) },
            Operation::SendWithInvalidate(key) => {
                // SAFETY: the queue pair is live, and its chain is begun.
                unsafe { (self.send_with_invalidate)(pair, key.0) };
            }
        }
        match request.payload {
            Payload::Inline { offset, length } => {
                let message = payloads.bytes(offset, length)?;
                // SAFETY: a request of the chain lacks its payload, which is readable during the
                // call, copied by it, and only read.
                unsafe { (self.inline)(pair, message.as_ptr().cast_mut().cast(), message.len()) };
            }
            Payload::Nothing => {}
            Payload::SgList { .. } => {
                // One alone: rxe adds lists up wrongly before rdma-core 64.
                let &[sge] = payloads.sg_list(&request.payload) else { return None };
                // SAFETY: a request of the chain lacks its payload.
                unsafe { (self.sge)(pair, sge.local_key, sge.address, sge.length) };
            }
        }
        Some(())
    }

    #[cold]
    fn give_up(&mut self) -> PostError {
        // SAFETY: a chain is begun, and ends here.
        unsafe { (self.abort)(self.pair.as_ptr()) };
        PostError { accepted: 0, source: io::ErrorKind::InvalidInput.into() }
    }
}

/// Operations that a queue pair must be created for.
pub(super) const OPERATIONS: u32 = c::IBV_QP_EX_WITH_RDMA_WRITE
    | c::IBV_QP_EX_WITH_SEND
    | c::IBV_QP_EX_WITH_RDMA_READ
    | c::IBV_QP_EX_WITH_LOCAL_INV
    | c::IBV_QP_EX_WITH_BIND_MW
    | c::IBV_QP_EX_WITH_SEND_WITH_INV;
