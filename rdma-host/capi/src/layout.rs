//! Structures of the interface, as in `nvmf-rdma.h`, which explains their fields.
//!
//! Those that begin with `size` may grow at their end: the program sets it to the size that it
//! knows, and gets no more than that. The others are elements of arrays, and stay as they are.

#![expect(non_camel_case_types, reason = "the names are those of C")]

use std::ffi::c_char;

/// Handle of options: a number, and no address.
pub enum nvmf_options {}
/// Handle of a controller.
pub enum nvmf_controller {}
/// Handle of a queue.
pub enum nvmf_queue {}
/// Handle of registered memory.
pub enum nvmf_memory {}

/// Defines structures, and a list of the sizes and offsets of all of them.
macro_rules! structures {
    ($($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Copy, Debug)]
            #[repr(C)]
            pub struct $name {
                $($(#[$what])* pub $field: $type,)*
            }
        )*

        /// Each structure with its size, and each field with its offset, for the test that compares
        /// them with the header.
        pub const LAYOUTS: &[(&str, usize, &[(&str, usize)])] = &[$(
            (
                stringify!($name),
                size_of::<$name>(),
                &[$((stringify!($field), std::mem::offset_of!($name, $field)),)*],
            ),
        )*];
    };
}

structures! {
    /// Completion of a command.
    nvmf_completion {
        /// Number that was given with the command.
        user: u64,
        /// 0, or a negative number of errno.
        result: i32,
        /// NVMe status without the phase bit, 0 if there was no response.
        status: u16,
        /// Knowledge of whether the command was executed.
        execution: u8,
        /// 0.
        reserved: u8,
    }

    /// Part of registered memory, for several blocks.
    nvmf_segment {
        /// Memory.
        memory: *mut nvmf_memory,
        /// Offset in it, in bytes.
        offset: u64,
        /// Number of blocks.
        blocks: u32,
        /// 0.
        reserved: u32,
    }

    /// Range of blocks.
    nvmf_range {
        /// First block.
        lba: u64,
        /// Number of blocks.
        blocks: u32,
        /// 0.
        reserved: u32,
    }

    /// Namespace.
    nvmf_namespace {
        /// Size of the structure in bytes.
        size: u64,
        /// Number of blocks.
        blocks: u64,
        /// Size of a block in bytes.
        block_size: u32,
        /// Namespace identifier.
        nsid: u32,
        /// NGUID; zeroes if there is none.
        nguid: [u8; 16],
        /// UUID; zeroes if there is none.
        uuid: [u8; 16],
        /// EUI-64; zeroes if there is none.
        eui64: [u8; 8],
    }

    /// Controller.
    nvmf_controller_info {
        /// Size of the structure in bytes.
        size: u64,
        /// Maximum data of one command in bytes.
        transfer_bytes_max: u64,
        /// Number of I/O queues.
        io_queues: u32,
        /// Entries of an I/O queue.
        queue_entries: u32,
        /// State.
        state: u32,
        /// Controller identifier (CNTLID).
        controller_id: u32,
        /// Memory mode in force.
        memory_mode: u32,
        /// NUMA node of the RDMA device; -1 if it is not known.
        numa_node: i32,
        /// Name of the RDMA device.
        device: [c_char; 64],
        /// Serial number.
        serial: [c_char; 24],
        /// Model number.
        model: [c_char; 48],
        /// Firmware revision.
        firmware: [c_char; 16],
    }

    /// Change of a controller's state, or asynchronous event.
    nvmf_event {
        /// Size of the structure in bytes.
        size: u64,
        /// Time in nanoseconds since 1970.
        time_ns: u64,
        /// Milliseconds until the next attempt to connect.
        next_ms: u64,
        /// Kind.
        kind: u32,
        /// State that was entered.
        state: u32,
        /// Number of attempts to connect since the loss.
        attempt: u32,
        /// Maximum of them; 0 for no limit.
        attempts_max: u32,
        /// Number of events before this one that were not read in time.
        missed: u64,
        /// Description in one line.
        text: [c_char; 256],
    }

    /// Commands of one kind.
    nvmf_operation {
        /// Number that succeeded.
        completed: u64,
        /// Number that failed.
        failed: u64,
        /// Number of times that one was sent again.
        retried: u64,
        /// Bytes that those that succeeded moved.
        bytes: u64,
        /// Latencies in nanoseconds: least, mean, greatest.
        latency_min_ns: u64,
        /// Mean.
        latency_mean_ns: u64,
        /// Median.
        latency_p50_ns: u64,
        /// 99th percentile.
        latency_p99_ns: u64,
        /// 99.9th percentile.
        latency_p999_ns: u64,
        /// Greatest.
        latency_max_ns: u64,
    }

    /// Statistics of a queue.
    nvmf_statistics {
        /// Size of the structure in bytes.
        size: u64,
        /// Reads.
        read: nvmf_operation,
        /// Writes.
        write: nvmf_operation,
        /// Other commands.
        other: nvmf_operation,
        /// Number of doorbells.
        doorbells: u64,
        /// Number of completions polled.
        completions: u64,
        /// Number of polls that found nothing.
        empty_polls: u64,
    }
}

/// Text for a field, cut where it does not fit, with a zero at its end.
pub(crate) fn text<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    let mut end = text.len().min(N - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    for (to, from) in field.iter_mut().zip(text[..end].bytes()) {
        *to = from.cast_signed() as c_char;
    }
    field
}
