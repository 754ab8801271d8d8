//! Errors, one variant per operation.

use std::{io, path::PathBuf};

use crate::QueuePairCapabilities;

/// Error of an operation: one variant for each, with the remedy in its text.
///
/// The operating system's own error is the [source](std::error::Error::source) and not part of
/// the text. [`QueueFull`](Self::QueueFull), [`Unsupported`](Self::Unsupported) and
/// [`Misuse`](Self::Misuse) stand alone because callers branch on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Accepting a connection request failed.
    #[error("cannot accept the connection request; the peer may have given up meanwhile")]
    Accept(#[source] io::Error),

    /// Reading events from a completion channel failed.
    #[error("cannot read the events of the completion queue")]
    AcknowledgeCompletions(#[source] io::Error),

    /// Memory for a buffer could not be had.
    #[error("cannot allocate {length} bytes; ask for less, or free memory")]
    Allocate {
        /// Number of bytes requested.
        length: usize,
    },

    /// Allocating a memory window failed.
    #[error("cannot allocate a memory window; the device may be out of them")]
    AllocateWindow(#[source] io::Error),

    /// Two things were to be used together that belong to different devices: the device was
    /// removed and is back, or the route has changed.
    #[error("the {0} is of another device than the endpoint; make another on this one")]
    AnotherDevice(&'static str),

    /// Asking for a completion event failed.
    #[error("cannot ask the completion queue for an event")]
    Arm(#[source] io::Error),

    /// Sending a connection request failed.
    #[error("cannot send the connection request; resolve the route and make a queue pair first")]
    Connect(#[source] io::Error),

    /// Making a completion queue failed.
    #[error("cannot make a completion queue of {capacity} entries; compare with the limits")]
    CreateCompletionQueue {
        /// Number of entries requested.
        capacity: u32,
        /// Error of the system call.
        source: io::Error,
    },

    /// Making a protection domain failed.
    #[error("cannot make a protection domain; the device may be out of them")]
    CreateProtectionDomain(#[source] io::Error),

    /// Making an event channel or an id failed, for a reason that has no variant of its own.
    #[error("cannot open an RDMA connection endpoint")]
    CreateEndpoint(#[source] io::Error),

    /// Making a queue pair failed.
    #[error(
        "cannot make a queue pair of {} sends and {} receives, {} segments and {} inline bytes a \
         send; `ibv_devinfo -v` has the device's limits, and the memory of queues is locked \
         (`ulimit -l`)",
        requested.max_send_wr, requested.max_recv_wr, requested.max_send_sge,
        requested.max_inline_data
    )]
    CreateQueuePair {
        /// Size that was asked for.
        requested: QueuePairCapabilities,
        /// Error of the system call.
        source: io::Error,
    },

    /// Disconnecting failed.
    #[error("cannot disconnect; was the connection established?")]
    Disconnect(#[source] io::Error),

    /// Listening on an address failed.
    #[error(
        "cannot listen; does the address belong to an RDMA device (`rdma link`), and is the \
             port free?"
    )]
    Listen(#[source] io::Error),

    /// Memory could not be registered because of the limit on locked memory.
    #[error(
        "cannot register {length} bytes beside {pinned} that are registered: all of it is locked, \
         and RLIMIT_MEMLOCK is {limit} bytes; raise it with `ulimit -l {0}` or more, or for good \
         with a line `USER - memlock {0}` in /etc/security/limits.d and a new login (a service: \
         LimitMEMLOCK={0}K)",
        kibibytes(*length, *pinned)
    )]
    LockedMemoryLimit {
        /// Number of bytes to register.
        length: usize,
        /// Number of bytes that the process has registered already; 0 if the kernel does not say.
        pinned: u64,
        /// The limit in force, in bytes.
        limit: u64,
        /// Error of the system call.
        source: io::Error,
    },

    /// The call cannot be right, whatever the device says.
    #[error("misuse: {0}")]
    Misuse(&'static str),

    /// Huge pages that were demanded cannot be had.
    #[error(
        "cannot have {length} bytes in pages of {page_bytes}; reserve them: `sysctl \
         vm.nr_hugepages={0}` for pages of 2 MiB, or write {0} to \
         /sys/kernel/mm/hugepages/hugepages-{1}kB/nr_hugepages",
        length.div_ceil(*page_bytes), page_bytes / 1024
    )]
    HugePages {
        /// Number of bytes requested.
        length: usize,
        /// Size of a page, in bytes.
        page_bytes: usize,
        /// Error of the system call.
        source: io::Error,
    },

    /// This machine, or this container, offers no RDMA device.
    #[error(
        "no RDMA device: {path} does not exist; load the driver and `modprobe rdma_ucm \
         ib_uverbs`, and in a container pass /dev/infiniband in", path = path.display()
    )]
    NoDevice {
        /// The file that should have been there.
        path: PathBuf,
    },

    /// A device was found but could not be opened.
    #[error("cannot open RDMA device {name}; is the package ibverbs-providers installed?")]
    OpenDevice {
        /// Name of the device, such as `mlx5_0`.
        name: String,
        /// Error of the system call.
        source: io::Error,
    },

    /// There is a device, but this user may not open it.
    #[error(
        "no permission to open {path}; join the group that owns it (often `rdma`), or have its \
         mode changed by a udev rule", path = path.display()
    )]
    Permission {
        /// The file that could not be opened.
        path: PathBuf,
    },

    /// Reading completions failed.
    #[error("cannot poll the completion queue; it has overrun or its device is gone")]
    Poll(#[source] io::Error),

    /// Handing receive buffers to the device failed; those not taken stay queued.
    #[error("the device refused a receive; those not taken stay queued")]
    PostReceive(#[source] io::Error),

    /// Handing sends to the device failed; those not taken stay queued.
    #[error("the device refused a send; those not taken stay queued")]
    PostSend(#[source] io::Error),

    /// Asking a device for its properties failed.
    #[error("cannot query the RDMA device")]
    QueryDevice(#[source] io::Error),

    /// All slots are taken: complete some, then try again.
    #[error("the queue is full; process completions first")]
    QueueFull,

    /// Reading the next event of a device failed.
    #[error("cannot read the next event of the RDMA device")]
    ReadDeviceEvent(#[source] io::Error),

    /// Reading the next connection event failed.
    #[error("cannot read the next connection event")]
    ReadEvent(#[source] io::Error),

    /// A file cannot be mapped into memory.
    #[error("cannot map the file; is it open for reading and writing?")]
    MapFile(#[source] io::Error),

    /// Registering memory failed, for a reason other than the limit on locked memory.
    #[error("cannot register {length} bytes of memory; compare with the device's limits")]
    Register {
        /// Number of bytes to register.
        length: usize,
        /// Error of the system call.
        source: io::Error,
    },

    /// Rejecting a connection request failed.
    #[error("cannot reject the connection request; the peer may have given up meanwhile")]
    Reject(#[source] io::Error),

    /// Changing a completion queue's size failed; it is as it was.
    #[error("cannot resize the completion queue to {capacity} entries; compare with the limits")]
    ResizeCompletionQueue {
        /// Number of entries requested.
        capacity: u32,
        /// Error of the system call.
        source: io::Error,
    },

    /// Resolving an address could not be started.
    #[error(
        "cannot resolve the address; does the interface that leads to it have an RDMA device \
         (`rdma link`)?"
    )]
    ResolveAddress(#[source] io::Error),

    /// Resolving a route could not be started.
    #[error(
        "cannot resolve the route; resolve the address first, and to an RDMA device (not loopback)"
    )]
    ResolveRoute(#[source] io::Error),

    /// Setting the local acknowledge timeout failed.
    #[error("cannot set the acknowledge timeout; it is a number from 0 to 31")]
    SetAckTimeout(#[source] io::Error),

    /// Setting the type of service failed.
    #[error("cannot set the type of service")]
    SetTypeOfService(#[source] io::Error),

    /// The kernel, the library or the device does not offer this.
    #[error("not supported here: {0}")]
    Unsupported(&'static str),
}

/// A limit on locked memory, in the unit of `ulimit -l`, that is enough for both.
fn kibibytes(length: usize, pinned: u64) -> u64 {
    (length as u64).saturating_add(pinned).div_ceil(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_on_locked_memory_comes_with_what_to_type() {
        let source = io::Error::from_raw_os_error(12);
        let error = Error::LockedMemoryLimit { length: 65 << 20, pinned: 1, limit: 64, source };
        let text = error.to_string();
        for part in [
            "cannot register 68157440 bytes beside 1 ",
            "RLIMIT_MEMLOCK is 64 bytes",
            "`ulimit -l 66561`",
            "`USER - memlock 66561` in /etc/security/limits.d",
            "LimitMEMLOCK=66561K",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn huge_pages_come_with_how_many_to_reserve() {
        let source = io::Error::from_raw_os_error(12);
        let error = Error::HugePages { length: (4 << 20) + 1, page_bytes: 2 << 20, source };
        let text = error.to_string();
        assert!(text.contains("vm.nr_hugepages=3"), "{text}");
        assert!(text.contains("hugepages-2048kB/nr_hugepages"), "{text}");
    }
}
