//! Calls of the device that take long.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Makes a call that keeps its thread busy: making a queue pair and registering memory take up to
/// milliseconds. The other tasks of this thread, which may have I/O to complete, go on on another
/// one, where the runtime has others.
pub(super) fn blocking<T>(call: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(call),
        _ => call(),
    }
}
