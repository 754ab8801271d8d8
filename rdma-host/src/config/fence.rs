//! Options and limits of the write fence.

use std::time::Duration;

/// Fence for writes after a loss of the connection. A write without a response may be executed long
/// after its connection was lost, over the data of a later write; so writes to the same blocks wait
/// until it is proved that the old controller executes nothing more. Reads never wait. Each field
/// has a setter of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FenceOptions {
    /// Proofs that are accepted.
    pub mode: Fence,
    /// Maximum time for which a write waits; it then fails, and the blocks stay closed to writes.
    pub timeout: Duration,
    /// True if a controller id that the target does not know proves that nothing of that controller
    /// is left: the target frees an id only after the last command, and no other target answers at
    /// its address. `None`: of Linux's target, which names itself `Linux` as its model, that is
    /// known; of others it is not assumed.
    pub controller_ids: Option<bool>,
}

/// Proof after which writes may follow writes of unknown outcome. In each mode but
/// [`Off`](Self::Off) the target's answer about the old controller is one, as far as
/// [`FenceOptions::controller_ids`] allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fence {
    /// Also the time that the target guarantees: more than twice the keep-alive timeout and the
    /// Controller Quiesce Time (CQT), if the target reports that.
    #[default]
    Proof,
    /// As [`Proof`](Self::Proof), with three times the keep-alive timeout, which is the time of the
    /// patches proposed for Linux.
    Linux,
    /// As [`Linux`](Self::Linux), also if the target reports no quiesce time: no proof, but the
    /// assumption that no command is executed so late.
    Time,
    /// None: writes are sent at once, as by Linux.
    Off,
}

impl Fence {
    /// Name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proof => "proof",
            Self::Linux => "linux",
            Self::Time => "time",
            Self::Off => "off",
        }
    }
}

impl Default for FenceOptions {
    fn default() -> Self {
        Self { mode: Fence::default(), timeout: FENCE_TIMEOUT, controller_ids: None }
    }
}

/// Default of the time for which a write waits behind a fence: most targets end an association
/// within seconds of the keep-alive timeout.
pub const FENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// Interval at which a target is asked whether a controller still exists: each question costs it a
/// connection.
pub const FENCE_PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// Timeout of one such question, which a target answers in milliseconds.
pub const FENCE_PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Time from the refusal or failure of a Cross-Controller Reset to the next attempt.
pub const FENCE_RESET_INTERVAL: Duration = Duration::from_secs(1);

/// Time after which a Cross-Controller Reset that has begun is given up, and asked for again.
pub const FENCE_RESET_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of ended associations with writes of unknown outcome; beyond it no write is sent
/// until one of them is proved to be over.
pub const ENDED_ASSOCIATIONS_MAX: usize = 64;
