//! How a controller reaches our memory: by long-lived keys, or by a window for each command.
//!
//! With windows, what a queue does for a read of 4 KiB:
//!
//! ```text
//!   chain, one doorbell:  BIND_MW (unsignaled)  +  SEND (signaled, inline)
//!   data:                 RDMA WRITE by the target, through the window
//!   response:             SEND WITH INVALIDATE by the target: the key is out of use
//! ```
//!
//! The command is done when both its send and its response are: until then the device may send
//! the chain again. A target that answers without invalidating costs a LOCAL_INV and its
//! completion, and only then does the buffer come back.

use verbs::{Access, BindInfo, Buffer, ProtectionDomain, Provider, QueuePair, Window};

use crate::{
    config::MemoryMode,
    driver::{buffers::verbs_error, data_path::command::Data},
    error::Error,
    wire::RemoteKey,
};

/// How a controller reaches our memory, and why not as was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryReport {
    /// What is in force.
    pub mode: MemoryMode,
    /// Why it is not what was asked for, if it is not.
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
    /// What the device can do of what was asked for: it is asked for a window, since some devices
    /// count windows that they do not give.
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
    /// What data is registered for. With windows its own key reaches nothing.
    pub(crate) fn access(self) -> Access {
        match self {
            Self::Pool => Access::LOCAL_WRITE | Access::REMOTE_READ | Access::REMOTE_WRITE,
            Self::Window => Access::LOCAL_WRITE | Access::BIND,
        }
    }

    /// Work requests on the send queue of a queue of so many entries.
    pub(crate) fn sends(self, entries: u16) -> u32 {
        let each = match self {
            Self::Pool => 1,
            // Bind, send, invalidate.
            Self::Window => 3,
        };
        // Unsignaled sends hold their place until a signaled one completes.
        each * u32::from(entries) + SENDS_SPARE
    }

    /// A window for each of `count` commands in flight, where they are used.
    pub(crate) fn windows<P: Provider>(
        self,
        domain: &ProtectionDomain<P>,
        count: u16,
    ) -> Result<Vec<Window>, Error> {
        let count = if self == Self::Window { count } else { 0 };
        (0..count).map(|_| domain.window().map_err(verbs_error)).collect()
    }
}

/// As many as may be done, and have no completion yet that says so.
const SENDS_SPARE: u32 = 32;

/// Queues the binding of a window to all of a command's data, for what the controller is to do
/// with it. The window comes back where that is refused.
pub(crate) fn bind<P: Provider>(
    queue_pair: &mut QueuePair<P>,
    window: Window,
    data: &Data,
) -> Result<RemoteKey, (Error, Window)> {
    let (buffer, access): (&Buffer, _) = match data {
        Data::FromController(buffer) => (buffer, Access::REMOTE_WRITE),
        Data::ToController(buffer) => (buffer, Access::REMOTE_READ),
        Data::None => unreachable!("a command without data lends nothing"),
    };
    let to = BindInfo { buffer, range: 0..buffer.len(), access };
    match queue_pair.bind(window, to) {
        Ok(key) => Ok(RemoteKey(key.0)),
        Err(refused) => Err((verbs_error(refused.error), refused.window)),
    }
}

/// Completions that may be outstanding: every send and receive of every queue.
pub(crate) fn completion_entries(memory: MemoryMode, queues: u16, entries: u16) -> u32 {
    u32::from(queues) * (memory.sends(entries) + u32::from(entries))
}
