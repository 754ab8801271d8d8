//! Remote access to memory: by the keys of registrations, or by a window for each command.
//!
//! With windows, what a queue does for a read of 4 KiB:
//!
//! ```text
//!   chain, one doorbell:  BIND_MW (unsignaled)  +  SEND (signaled, inline)
//!   data:                 RDMA WRITE by the target, through the window
//!   response:             SEND WITH INVALIDATE by the target: the key is invalid
//! ```
//!
//! The command has completed when both its send and its response have: until then the device may
//! send the chain again. A target that responds without invalidating costs a LOCAL_INV, whose
//! completion the buffer waits for.

use verbs::{Access, BindInfo, ProtectionDomain, Provider, QueuePair};

use crate::{
    config::MemoryMode,
    driver::{buffers::verbs_error, data_path::command::Data},
    error::Error,
};

/// Memory mode in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryReport {
    /// Memory mode.
    pub mode: MemoryMode,
    /// Reason why it is not the requested one; `None` if it is.
    pub fallback: Option<String>,
}

impl std::fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.mode.name())?;
        match &self.fallback {
            Some(reason) => write!(f, " (not as asked: {reason})"),
            None => Ok(()),
        }
    }
}

impl MemoryReport {
    /// Chooses the requested mode, if the device supports it. A window is created to find out: some
    /// devices report a number of windows, but create none.
    pub(crate) fn choose<P: Provider>(asked: MemoryMode, domain: &ProtectionDomain<P>) -> Self {
        let refusal = match asked {
            MemoryMode::Pool => None,
            MemoryMode::Window => domain.window().err(),
        };
        match refusal {
            None => Self { mode: asked, fallback: None },
            Some(error) => {
                tracing::warn!(%error, "memory mode pool and not window");
                Self { mode: MemoryMode::Pool, fallback: Some(error.to_string()) }
            }
        }
    }
}

impl MemoryMode {
    /// Access flags of registrations. With windows their own keys grant no remote access.
    pub(crate) fn access(self) -> Access {
        match self {
            Self::Pool => Access::LOCAL_WRITE | Access::REMOTE_READ | Access::REMOTE_WRITE,
            Self::Window => Access::LOCAL_WRITE | Access::BIND,
        }
    }

    /// Capacity of the send queue of a queue with this number of entries.
    pub(crate) fn sends(self, entries: u16) -> u32 {
        let each = match self {
            Self::Pool => 1,
            // Bind, send, invalidate.
            Self::Window => 3,
        };
        // Unsignaled sends occupy the send queue until a signaled one completes.
        each * u32::from(entries) + SENDS_SPARE
    }

    /// Gives a queue pair a window for each of `count` commands in flight, if the mode uses them.
    pub(crate) fn add_windows<P: Provider>(
        self,
        domain: &ProtectionDomain<P>,
        queue_pair: &mut QueuePair<P>,
        count: u16,
    ) -> Result<(), Error> {
        let count = if self == Self::Window { count } else { 0 };
        for _ in 0..count {
            let window = domain.window().map_err(verbs_error)?;
            queue_pair.add_window(window).map_err(verbs_error)?;
        }
        Ok(())
    }
}

/// Number of sends that may have completed without a signaled completion yet.
const SENDS_SPARE: u32 = 32;

/// Bind of a window to the whole buffer of a command, with the access that the command needs;
/// `None` without data.
#[inline]
pub(crate) fn bind_info(data: &Data) -> Option<BindInfo<'_>> {
    let (buffer, access) = match data {
        Data::FromController(buffer) => (buffer, Access::REMOTE_WRITE),
        Data::ToController(buffer) => (buffer, Access::REMOTE_READ),
        Data::None => return None,
    };
    Some(BindInfo { buffer, range: 0..buffer.len(), access })
}

/// Maximum number of outstanding completions: every send and receive of every queue.
pub(crate) fn completion_entries(memory: MemoryMode, queues: u16, entries: u16) -> u32 {
    u32::from(queues) * (memory.sends(entries) + u32::from(entries))
}
