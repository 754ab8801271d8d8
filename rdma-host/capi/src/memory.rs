//! Registered memory.

use rdma_host::{ReleaseError, SharedMemory};

use crate::{error::CallError, handle::Table};

/// Memory of one controller.
pub(crate) struct Memory {
    pub(crate) shared: SharedMemory,
    /// Number of the controller.
    pub(crate) controller: u64,
}

/// All memory.
pub(crate) static MEMORIES: Table<Memory, 4096> = Table::new(3, "nvmf_memory");

/// Takes memory out of the reach of the device. An error while a command uses it.
pub(crate) fn free(handle: u64) -> Result<(), CallError> {
    let mut entry = MEMORIES.write(handle)?;
    let Some(Memory { shared, controller }) = entry.take() else {
        return Err(CallError::panicked());
    };
    match shared.release() {
        Ok(()) => Ok(()),
        Err(ReleaseError::InUse(shared)) => {
            entry.put(handle, Memory { shared, controller });
            Err(CallError::caller(libc::EBUSY, "a command uses the memory: poll until it is done"))
        }
        Err(error @ ReleaseError::Kept) => {
            Err(CallError::caller(libc::EIO, format!("{error}: leave it as it is")))
        }
    }
}
